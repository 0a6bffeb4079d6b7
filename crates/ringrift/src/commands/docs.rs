//! `docs`: parts of the reference that follow from the code.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use courier::Stream;
use ringrift_daemons::{CATEGORIES, PROFILES, RETIRED, routes};
use ringrift_pipeline::{
    Advice, Availability, Field, Layer, PARTS, RecoveryOutcome, RecoveryStep, TestDecision,
};
use serde_json::Value;

use crate::{
    config::{ALIASES, REPLACED, keys, named_keys},
    console,
    exit::Outcome,
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct DocsArgs {
    /// Which part
    part: Part,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// All types of daemons
    Daemons,
    /// All keys
    Configuration,
    /// All topics
    Events,
}

/// Runs the command.
pub fn run(args: &DocsArgs) -> Outcome {
    let text = match args.part {
        Part::Daemons => daemons()?,
        Part::Configuration => configuration()?,
        Part::Events => events()?,
    };
    console::say(text.trim_end());
    Ok(())
}

fn daemons() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Daemons\n\n\
         A daemon is started by a profile, or by its name. Planned ones are listed and configurable; \
         asking for one by name is refused. In a cluster one that is leader only runs on the node that leads.\n\n## Profiles\n\n| profile | for |\n|---|---|\n",
    );
    for (profile, about) in PROFILES {
        writeln!(text, "| `{}` | {about} |", profile.0)?;
    }
    for (category, entries) in CATEGORIES {
        writeln!(
            text,
            "\n## {}\n\n| daemon | build | what it does | needs | cycle | profiles |\n\
             |---|---|---|---|---|---|",
            category.0
        )?;
        for entry in *entries {
            let spec = entry.spec;
            let needs: Vec<&str> = spec.needs.iter().map(|id| id.0).collect();
            let profiles: Vec<&str> = spec.profiles.iter().map(|profile| profile.0).collect();
            writeln!(
                text,
                "| `{}`{} | {} | {} | {} | {} s | {} |",
                spec.id,
                match (spec.critical, spec.leader_only) {
                    (true, _) => " (critical)",
                    (false, true) => " (leader only)",
                    (false, false) => "",
                },
                if entry.is_built() { "built" } else { "planned" },
                cell(spec.about),
                needs.join(", "),
                spec.period.as_secs_f64(),
                profiles.join(", "),
            )?;
        }
        for retired in RETIRED.iter().filter(|retired| retired.category == *category) {
            let successor = retired.successor.unwrap_or("");
            writeln!(
                text,
                "| `{}` | retired | {} | | | {successor} |",
                retired.name,
                cell(retired.sentence)
            )?;
        }
    }
    Ok(text)
}

fn configuration() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Configuration\n\n\
         Flag before environment before file before default. The file is `--config`, \
         `RINGRIFT_CONFIG`, `ringrift.toml` in the data directory, or `./ringrift.toml`, whichever is \
         found first. Numbers without a unit are seconds where a duration is meant. \
         `ringrift config show` prints every key with its value and its origin.\n\n\
         Where the data lies: `--data`, `RINGRIFT_DATA_DIR`, default `./ringrift-data`.\n",
    );
    let mut section = String::new();
    for key in keys().into_iter().chain(named_keys()) {
        let (of, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if of != section {
            of.clone_into(&mut section);
            writeln!(
                text,
                "\n## `[{section}]`\n\n| key | default | allowed | variables | meaning |\n\
                 |---|---|---|---|---|"
            )?;
        }
        let default = match &key.default {
            Value::Null => "not set".to_owned(),
            value => format!("`{value}`"),
        };
        let variables: Vec<String> =
            key.variables.iter().map(|variable| format!("`{variable}`")).collect();
        writeln!(
            text,
            "| `{name}` | {default} | {} | {} | {} |",
            cell(&key.kind.allowed()),
            variables.join(" "),
            cell(&key.about)
        )?;
    }
    text.push_str(
        "\nSections with a NAME stand in the file alone, as often as there are names. NAME of a machine is its \
         node, as `ringrift nodes` shows it; see [cluster.md](cluster.md#machines).\n",
    );
    text.push_str(
        "\n## Variables of the runbook and of the old system\n\n\
         Set one that has no effect, and a warning says what took its place.\n\n\
         | variable | now |\n|---|---|\n",
    );
    for (key, variable) in ALIASES {
        writeln!(text, "| `{variable}` | sets `{key}` |")?;
    }
    for (variable, sentence) in REPLACED {
        writeln!(text, "| `{variable}` | no effect: {} |", cell(sentence))?;
    }
    Ok(text)
}

fn events() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Events\n\n\
         What happened is a fact in `facts.sqlite`: a position in its stream, an id that is the same \
         however often it is said, a subject, a time, who said it, which fact led to it, and a body. \
         `topic` in the body says which of these it is. `ringrift events` reads them.\n\n\
         A topic is understood in any spelling (`MODEL_PROMOTED`, `model-promoted`), and by the other \
         names that are given here, but only where people type one (`ringrift events --topic`, \
         `ringrift dlq --topic`); inside there is one name.\n",
    );
    let streams = [
        (Stream::Pipeline, "What the pipeline rests on. Kept for ever."),
        (Stream::Operational, "What operators look back on. Kept for 7 days or 100,000 facts."),
    ];
    for (stream, about) in streams {
        writeln!(text, "\n## Stream `{}`\n\n{about}", stream.name())?;
        for route in routes().iter().filter(|route| route.kind.stream == stream) {
            let kind = route.kind;
            writeln!(text, "\n### `{}`\n\n{}\n", kind.topic, kind.about.trim())?;
            writeln!(text, "- said by {}", route.emitters.join(", "))?;
            match route.otherwise {
                Some(why) => writeln!(text, "- wakes nobody: {why}")?,
                None => writeln!(text, "- wakes {}", route.listeners.join(", "))?,
            }
            if !kind.aliases().is_empty() {
                writeln!(text, "- other names: `{}`", kind.aliases().join("`, `"))?;
            }
            fields(&mut text, kind.fields)?;
        }
    }
    writeln!(text, "\n## Parts\n\nWhat is told inside a body.")?;
    for (name, part) in PARTS {
        writeln!(text, "\n### {name}")?;
        fields(&mut text, part)?;
    }
    Ok(text)
}

fn fields(text: &mut String, fields: &[Field]) -> anyhow::Result<()> {
    writeln!(text, "\n| field | holds | meaning |\n|---|---|---|")?;
    for field in fields {
        let holds = in_json(field.kind).with_context(|| format!("the field {}", field.name))?;
        writeln!(text, "| `{}` | {} | {} |", field.name, cell(&holds), cell(field.about.trim()))?;
    }
    Ok(())
}

/// How a type of the code looks in JSON.
fn in_json(kind: &str) -> anyhow::Result<String> {
    let inside = |before: &str| kind.strip_prefix(before)?.strip_suffix('>');
    if let Some(kind) = inside("Option<") {
        return Ok(format!("{} or null", in_json(kind)?));
    }
    if let Some(kind) = inside("Box<") {
        return in_json(kind);
    }
    if let Some(kind) = inside("Vec<") {
        return Ok(format!("list: {}", in_json(kind)?));
    }
    if let Some((key, value)) = inside("BTreeMap<").and_then(|pair| pair.split_once(", ")) {
        return Ok(format!("object: {} to {}", in_json(key)?, in_json(value)?));
    }
    if PARTS.iter().any(|(part, _)| *part == kind) {
        return Ok(format!("[{kind}](#{})", kind.to_lowercase()));
    }
    let words = match kind {
        "String" => "text".to_owned(),
        "bool" => "true or false".to_owned(),
        "u32" | "u64" | "i64" => "whole number".to_owned(),
        "f32" | "f64" => "number".to_owned(),
        "[u32; 3]" => "list of 3 whole numbers".to_owned(),
        "Config" => "config, e.g. `hex8_2p`".to_owned(),
        "BlobHash" => "hash, 64 hex digits".to_owned(),
        "ModelId" => "model, e.g. `hex8_2p-m0003`".to_owned(),
        "WorkId" => "work item, e.g. `train-hex8_2p-000012`".to_owned(),
        "NodeId" => "node".to_owned(),
        "Job" => "job, as a worker gets it".to_owned(),
        "Advice" => one_of(&[Advice::Regression, Advice::Plateau, Advice::Progress])?,
        "TestDecision" => {
            one_of(&[TestDecision::Stronger, TestDecision::NotStronger, TestDecision::Undecided])?
        }
        "Layer" => one_of(&[Layer::Lease, Layer::Command, Layer::Provider])?,
        "RecoveryStep" => one_of(&[
            RecoveryStep::Notify,
            RecoveryStep::Restart,
            RecoveryStep::Reboot,
            RecoveryStep::GiveUp,
        ])?,
        "RecoveryOutcome" => one_of(&[
            RecoveryOutcome::Done,
            RecoveryOutcome::Dry,
            RecoveryOutcome::Failed,
            RecoveryOutcome::Held,
            RecoveryOutcome::Unsupported,
        ])?,
        "Availability" => one_of(&[
            Availability::Running,
            Availability::Starting,
            Availability::Offline,
            Availability::Gone,
        ])?,
        unknown => return Err(anyhow!("nothing says how {unknown} looks in JSON")),
    };
    Ok(words)
}

/// The words that values of an enum are in JSON.
fn one_of(values: &[impl serde::Serialize]) -> anyhow::Result<String> {
    let words: Vec<String> = values
        .iter()
        .map(|value| Ok(format!("`{}`", serde_json::to_value(value)?.as_str().unwrap_or_default())))
        .collect::<anyhow::Result<_>>()?;
    Ok(words.join(", "))
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

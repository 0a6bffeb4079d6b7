//! `docs`: parts of the reference that follow from the code.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use ringrift_daemons::{CATEGORIES, PROFILES, RETIRED};
use serde_json::Value;

use crate::{config::keys, console, exit::Outcome};

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
}

/// Runs the command.
pub fn run(args: &DocsArgs) -> Outcome {
    let text = match args.part {
        Part::Daemons => daemons()?,
        Part::Configuration => configuration()?,
    };
    console::say(text.trim_end());
    Ok(())
}

fn daemons() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Daemons\n\n\
         A daemon is started by a profile, or by its name. Planned ones are listed and configurable; \
         asking for one by name is refused.\n\n## Profiles\n\n| profile | for |\n|---|---|\n",
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
                if spec.critical { " (critical)" } else { "" },
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
    for key in keys() {
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
    Ok(text)
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

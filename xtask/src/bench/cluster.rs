//! `cluster`: what hosts that share a log and artefacts cost, beside what is there without us, in one run.

use std::process::ExitCode;

use anyhow::bail;

use crate::{
    check,
    workspace::{Workspace, succeed},
};

/// A program that prints its figures: its name on the command line, package, feature, example, and what comes
/// first among its words.
struct Part {
    name: &'static str,
    package: &'static str,
    feature: &'static str,
    example: &'static str,
    word: Option<&'static str>,
}

const fn log(name: &'static str) -> Part {
    Part {
        name,
        package: "courier",
        feature: "jetstream",
        example: "cluster_bench",
        word: Some(name),
    }
}

const PARTS: [Part; 4] = [
    log("appends"),
    log("growth"),
    log("failover"),
    Part {
        name: "transfers",
        package: "depot",
        feature: "peers",
        example: "transfer_bench",
        word: None,
    },
];

/// Gets nothing, for all parts, or the name of one and the words for it.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let Some((name, words)) = words.split_first() else {
        for part in &PARTS {
            println!("{}:", part.name);
            part.run(workspace, &[])?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(part) = PARTS.iter().find(|part| part.name == *name) else {
        eprintln!(
            "usage: cargo xtask bench cluster [appends [SECONDS] | growth [SECONDS] | failover | \
             transfers [MIB [TURNS]]]"
        );
        return Ok(ExitCode::from(2));
    };
    part.run(workspace, words)?;
    Ok(ExitCode::SUCCESS)
}

impl Part {
    fn run(&self, workspace: &Workspace, words: &[&str]) -> anyhow::Result<()> {
        let Self { package, feature, example, .. } = self;
        if !words.iter().all(|word| word.parse::<f64>().is_ok_and(|number| number > 0.0)) {
            bail!("{}: numbers above 0 are allowed, not {words:?}", self.name);
        }
        let mut command = workspace.cargo(&["run", "--release", "--package", package]);
        command.args(["--features", feature, "--example", example, "--"]);
        command.args(self.word).args(words);
        if let Some(server) = check::provide_nats_server(workspace)? {
            command.env("NATS_SERVER", server);
        }
        succeed(command)
    }
}

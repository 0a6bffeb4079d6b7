//! The Python client against the real binary; its README's snippets are run as they stand there.

use std::{path::Path, process::Command};

use crate::manager::Manager;

#[test]
fn the_python_client_reaches_a_running_manager() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("python3 is absent, so its client is not tested");
        return;
    }
    let manager = Manager::ready(&["--profile", "minimal"]);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/python/tests");
    let ended = Command::new("python3")
        .args(["-B", "-m", "unittest", "discover", "--start-directory"])
        .arg(tests)
        .env("RINGRIFT_DATA_DIR", manager.data())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

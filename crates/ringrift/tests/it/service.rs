//! The service: its unit, and what systemd is told.

use std::{
    fs::Permissions,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::tempdir;

use crate::{
    bench::{Ended, check_refused, command, run_with, wait_for},
    manager::{Manager, START},
};

/// Programs in the folder come before all others.
fn install(folder: &Path, args: &[&str]) -> Ended {
    let configuration = folder.join("configuration");
    let path = format!("{}:{}", folder.display(), std::env::var_os("PATH").unwrap().display());
    let env = [("XDG_CONFIG_HOME", configuration.to_str().unwrap()), ("PATH", path.as_str())];
    run_with(folder, &[&["service"][..], args].concat(), &env)
}

/// A `systemctl` that notes what it is asked, and answers so.
fn with_systemctl(folder: &Path, answer: &str) {
    let script = format!("#!/bin/sh\necho \"$*\" >> '{}/asked'\n{answer}\n", folder.display());
    let program = folder.join("systemctl");
    fs_err::write(&program, script).unwrap();
    fs_err::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_unit_is_what_systemd_accepts() {
    let dir = tempdir().unwrap();
    let printed = install(dir.path(), &["install", "--user", "--print", "--data", "my data"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(
        r#"ExecStart="[^"]+" up --data "[^"]+/my data""#,
        "ExecStart=[PROGRAM] up --data [DATA]",
    );
    settings.bind(|| insta::assert_snapshot!("unit", printed.out));
    assert!(!dir.path().join("configuration").exists(), "nothing is written");

    let args = ["install", "--print", "--data", "my data", "--profile", "seflplay"];
    check_refused(&install(dir.path(), &args), 2, &["seflplay", "selfplay"]);
    let of_a_role =
        install(dir.path(), &["install", "--print", "--data", "my data", "--profile", "selfplay"]);
    assert!(of_a_role.out.contains("my data\" --profile selfplay\n"), "{of_a_role:?}");

    let system = install(dir.path(), &["install", "--print", "--data", "my data"]);
    assert!(system.out.contains("WantedBy=multi-user.target"), "{system:?}");
    // Checked for real where systemd's own tool is there.
    let unit = dir.path().join("ringrift.service");
    fs_err::write(&unit, &system.out).unwrap();
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&unit).output() else {
        return;
    };
    let verified: Ended = verified.into();
    assert_eq!((verified.code, verified.err.as_str()), (0, ""), "{verified:?}");
}

#[test]
fn a_service_is_installed_shown_and_removed_without_systemd() {
    let dir = tempdir().unwrap();
    with_systemctl(dir.path(), "exit 1");
    let path = dir.path().join("configuration/systemd/user/ringrift.service");
    let status = |code: i32| {
        let status = install(dir.path(), &["status", "--user", "--json"]);
        assert_eq!(status.code, code, "{status:?}");
        assert_eq!(status.json()["installed"], code == 0);
    };
    status(1);
    let installed = install(dir.path(), &["install", "--user", "--json"]).json();
    assert_eq!(installed["path"], path.to_str().unwrap());
    assert_eq!(installed["unit"], fs_err::read_to_string(&path).unwrap());
    status(0);
    assert_eq!(install(dir.path(), &["uninstall", "--user", "--json"]).json()["removed"], true);
    assert!(!path.exists());
    assert_eq!(install(dir.path(), &["uninstall", "--user", "--json"]).json()["removed"], false);
    status(1);

    fs_err::write(dir.path().join("ringrift.toml"), "[http]\nprot = 1\n").unwrap();
    let wrong = install(dir.path(), &["install", "--user"]);
    check_refused(&wrong, 2, &["did you mean http.port?"]);
    assert!(!path.exists(), "a unit that cannot start is not written");
}

#[test]
fn without_an_answer_of_systemd_the_unit_is_written_and_what_is_left_to_do_is_said() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("configuration/systemd/user/ringrift.service");
    with_systemctl(dir.path(), "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    let installed = install(dir.path(), &["install", "--user"]);
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(path.exists());
    let silent = "warning: systemd does not answer here (Failed to connect to bus: No medium found); \
                  where it does, run\n";
    assert_eq!(installed.err, silent);
    let wrote = format!(
        "wrote {}\n  systemctl --user daemon-reload\n  systemctl --user enable --now ringrift.service\n  \
         loginctl enable-linger\n",
        path.display()
    );
    assert_eq!(installed.out, wrote);
    let removed = install(dir.path(), &["uninstall", "--user"]);
    assert_eq!((removed.code, removed.err.as_str()), (0, silent), "{removed:?}");
    assert!(removed.out.ends_with("  systemctl --user daemon-reload\n"), "{removed:?}");
    assert!(!path.exists());
}

#[test]
fn a_systemd_that_answers_is_told_and_what_it_cannot_stop_keeps_its_unit() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("configuration/systemd/user/ringrift.service");
    with_systemctl(dir.path(), "case \"$*\" in *disable*) echo 'Job failed' >&2; exit 1;; esac");
    let installed = install(dir.path(), &["install", "--user"]);
    assert_eq!((installed.code, installed.err.as_str()), (0, ""), "{installed:?}");
    assert!(!installed.out.contains("daemon-reload"), "{installed:?}");
    check_refused(&install(dir.path(), &["uninstall", "--user"]), 1, &["Job failed"]);
    assert!(path.exists());
    with_systemctl(dir.path(), "");
    assert_eq!(install(dir.path(), &["uninstall", "--user"]).code, 0);
    let asked = fs_err::read_to_string(dir.path().join("asked")).unwrap();
    let last: Vec<&str> = asked.lines().rev().take(3).collect();
    assert_eq!(
        last,
        ["--user daemon-reload", "--user disable --now ringrift.service", "--user daemon-reload"]
    );
}

#[test]
fn systemd_is_told_of_readiness_life_and_the_end() {
    let dir = tempdir().unwrap();
    let address = dir.path().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let args = ["up", "--profile", "training", "--port", "0", "--data", "data"];
    let child = command(dir.path(), &args)
        .env("NOTIFY_SOCKET", &address)
        .env("WATCHDOG_USEC", "600000")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut manager = Manager::of(child, dir);
    let mut told: Vec<String> = Vec::new();
    let mut listen = |what: &str, count: usize| {
        wait_for(what, START, || {
            let mut buffer = [0; 4096];
            if let Ok(length) = socket.recv(&mut buffer) {
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                told.extend(text.lines().map(str::to_owned));
            }
            (told.iter().filter(|line| *line == what).count() >= count).then_some(())
        });
        told.clone()
    };
    listen("READY=1", 1);
    let status = manager.ask(&["status", "--json"]).json();
    assert_eq!(status["summary"]["running"], status["summary"]["asked"], "ready means running");
    listen("WATCHDOG=1", 3);
    let ended = manager.signalled(Signal::TERM);
    assert_eq!(ended.code, 0, "{ended:?}");
    let told = listen("STOPPING=1", 1);
    assert!(told.contains(&"STATUS=6 of 6 daemons run".to_owned()), "{told:?}");
}

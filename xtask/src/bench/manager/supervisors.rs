//! How each supervisor is told to keep the children running, started and stopped.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::processes::Message;
use super::tools::Package;

/// What a supervisor is given.
pub struct Site {
    /// Its program.
    pub program: PathBuf,
    /// A folder of its own.
    pub dir: PathBuf,
    /// The measured child, and the one argument that it takes.
    pub child: PathBuf,
    pub socket: PathBuf,
    pub children: usize,
}

/// A way to keep children running. All are set to restart with the least delay that they allow.
pub struct Kind {
    pub name: &'static str,
    /// Where it comes from; ours and the bare one are built from this workspace.
    pub package: Option<Package>,
    /// Writes its configuration.
    pub prepare: fn(&Site) -> anyhow::Result<()>,
    pub start: fn(&Site) -> Command,
    pub stop: Stop,
    /// Where it writes its number, if the started command is not the supervisor itself.
    pub pid_file: Option<&'static str>,
}

#[derive(Clone, Copy)]
pub enum Stop {
    Signal(Message),
    Command(fn(&Site) -> Command),
}

pub const OURS: Kind = Kind {
    name: "ours",
    package: None,
    prepare: |_| Ok(()),
    start: |site| children_bench(site, "warden"),
    stop: Stop::Signal(Message::TERM),
    pid_file: None,
};

/// The floor: tokio's processes, no record, no limit, no guard.
pub const BARE: Kind = Kind { name: "bare", start: |site| children_bench(site, "bare"), ..OURS };

pub const PEERS: &[Kind] = &[
    Kind {
        name: "runit",
        package: Some(Package::Debian { name: "runit", program: "runsvdir" }),
        prepare: service_folders,
        start: |site| with_words(site, ["service"]),
        stop: Stop::Signal(Message::HUP),
        pid_file: None,
    },
    Kind {
        name: "s6",
        package: Some(Package::Debian { name: "s6", program: "s6-svscan" }),
        prepare: service_folders,
        start: |site| with_words(site, ["service"]),
        stop: Stop::Signal(Message::TERM),
        pid_file: None,
    },
    Kind {
        name: "supervisor",
        package: Some(Package::Python {
            name: "supervisor",
            version: "4.3.0",
            program: "supervisord",
        }),
        prepare: supervisor_file,
        start: |site| with_words(site, ["-c", "supervisord.conf"]),
        stop: Stop::Signal(Message::TERM),
        pid_file: None,
    },
    Kind {
        name: "circus",
        package: Some(Package::Python { name: "circus", version: "0.19.0", program: "circusd" }),
        prepare: circus_file,
        start: |site| with_words(site, ["circus.ini"]),
        stop: Stop::Signal(Message::TERM),
        pid_file: None,
    },
    Kind {
        name: "pm2",
        package: Some(Package::Node { name: "pm2", version: "7.0.4", program: "pm2" }),
        prepare: pm2_file,
        start: |site| pm2(site, &["start", "apps.json"]),
        stop: Stop::Command(|site| pm2(site, &["kill"])),
        pid_file: Some("pm2.pid"),
    },
];

fn with_words<const N: usize>(site: &Site, words: [&str; N]) -> Command {
    let mut command = Command::new(&site.program);
    command.args(words);
    command
}

fn children_bench(site: &Site, kind: &str) -> Command {
    let mut command = with_words(site, [kind]);
    command.arg(site.dir.join("run")).arg(site.children.to_string());
    command.arg(&site.child).arg(&site.socket);
    command
}

fn pm2(site: &Site, words: &[&str]) -> Command {
    let mut command = with_words(site, []);
    command.args(words).env("PM2_HOME", &site.dir);
    command
}

/// A folder per child with an executable `run`: runit and s6 want the same.
fn service_folders(site: &Site) -> anyhow::Result<()> {
    let script =
        format!("#!/bin/sh\nexec '{}' '{}'\n", site.child.display(), site.socket.display());
    for number in 0..site.children {
        let folder = site.dir.join(format!("service/child{number:03}"));
        fs_err::create_dir_all(&folder)?;
        let run = folder.join("run");
        fs_err::write(&run, &script)?;
        fs_err::set_permissions(&run, PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

fn supervisor_file(site: &Site) -> anyhow::Result<()> {
    let (dir, child) = (site.dir.display(), site.child.display());
    let (socket, children) = (site.socket.display(), site.children);
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile={dir}/log\npidfile={dir}/pid\nchildlogdir={dir}\n\
         [program:child]\ncommand={child} {socket}\nnumprocs={children}\n\
         process_name=child%(process_num)03d\nautorestart=true\nstartsecs=0\n\
         stdout_logfile=NONE\nstderr_logfile=NONE\n"
    );
    Ok(fs_err::write(site.dir.join("supervisord.conf"), text)?)
}

/// It looks at its children ten times a second (default: once in 5 s), and lets them inherit the mark.
fn circus_file(site: &Site) -> anyhow::Result<()> {
    let (dir, child) = (site.dir.display(), site.child.display());
    let (socket, children) = (site.socket.display(), site.children);
    let text = format!(
        "[circus]\ncheck_delay=0.1\nwarmup_delay=0\nendpoint=ipc://{dir}/endpoint\n\
         pubsub_endpoint=ipc://{dir}/pubsub\n\
         [watcher:child]\ncmd={child} {socket}\nnumprocesses={children}\nwarmup_delay=0\n\
         max_retry=-1\ncopy_env=True\n"
    );
    Ok(fs_err::write(site.dir.join("circus.ini"), text)?)
}

fn pm2_file(site: &Site) -> anyhow::Result<()> {
    let app = serde_json::json!({
        "name": "child", "script": site.child, "args": [site.socket], "interpreter": "none",
        "exec_mode": "fork", "instances": site.children, "autorestart": true, "restart_delay": 0,
        "min_uptime": 100, "max_restarts": 1_000_000, "vizion": false, "pmx": false,
        "out_file": "/dev/null", "error_file": "/dev/null",
    });
    let text = serde_json::to_vec(&serde_json::json!({"apps": [app]}))?;
    Ok(fs_err::write(site.dir.join("apps.json"), text)?)
}

/// The number that a supervisor wrote down, which may come a moment after its start.
pub fn pid_in(file: &Path) -> anyhow::Result<u32> {
    for _ in 0..100 {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            return Ok(pid);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    fs_err::read_to_string(file)?.trim().parse().context("a process id")
}

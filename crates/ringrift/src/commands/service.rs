//! `service`: a unit that lets systemd run the manager, watch it and start it again.

use std::{
    fmt::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::{Places, Print},
    console,
    data_dir::DataDir,
    exit::{FAILED, Failure, OrExit as _, Outcome},
    log_server::{LogServer, PROGRAM},
    plan::{Selection, Wanted},
};

/// The unit's name.
const UNIT: &str = "ringrift.service";

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write the unit; nothing is started
    Install {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        of: Of,
        /// Run the daemons of this profile, as with `ringrift up --profile`
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
        /// Only print the unit
        #[arg(long)]
        print: bool,
        #[command(flatten)]
        json: Print,
    },
    /// Stop the service, if systemd runs it, and remove the unit
    Uninstall {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        json: Print,
    },
    /// Say whether there is a unit, and what systemd does with it; exit code 1 if there is none
    Status {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        json: Print,
    },
}

/// Whose service it is.
#[derive(Debug, Clone, Copy, Args)]
struct Of {
    /// A service of this user, which needs no administrator
    #[arg(long)]
    user: bool,
}

impl Of {
    /// Where systemd looks for it.
    fn unit(self) -> anyhow::Result<PathBuf> {
        if !self.user {
            return Ok(Path::new("/etc/systemd/system").join(UNIT));
        }
        let configuration = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let folder = match (configuration.filter(|path| path.is_absolute()), std::env::home_dir()) {
            (Some(folder), _) => folder,
            (None, Some(home)) => home.join(".config"),
            (None, None) => bail!("no home directory is known: set HOME or XDG_CONFIG_HOME"),
        };
        Ok(folder.join("systemd/user").join(UNIT))
    }

    fn systemctl(self, words: &str) -> String {
        format!("systemctl{} {words}", if self.user { " --user" } else { "" })
    }

    /// Has systemd read its units anew; the error is why it does not.
    fn reload(self) -> Result<(), String> {
        self.ask(&["daemon-reload"]).map(drop)
    }

    /// Asks systemd; its answer in one word, or why there is none.
    fn ask(self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("systemctl");
        command.args(self.user.then_some("--user")).args(words);
        let output = command.output().map_err(|error| format!("systemctl: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said.is_empty() && !output.status.success() {
            return Err(console::one_line(&String::from_utf8_lossy(&output.stderr)));
        }
        Ok(said)
    }
}

/// Does systemd run this machine?
fn systemd_runs() -> bool {
    sd_notify::booted().unwrap_or(false)
}

/// Runs the command.
pub fn run(args: &ServiceArgs) -> Outcome {
    match &args.action {
        Action::Install { places, of, profile, print, json } => {
            install(places, *of, profile.as_deref(), *print, *json)
        }
        Action::Uninstall { of, json } => uninstall(*of, *json),
        Action::Status { of, json } => status(*of, *json),
    }
}

fn install(places: &Places, of: Of, profile: Option<&str>, print: bool, json: Print) -> Outcome {
    // A unit that cannot start must not be written.
    let settings = places.settings(Vec::new())?;
    let dir = DataDir::new(&settings.data).or_usage()?;
    let program = std::env::current_exe().context("find this program")?;
    let config = match &places.config {
        Some(config) => Some(std::path::absolute(config).or_usage()?),
        None => None,
    };
    if let Some(profile) = profile {
        let chosen = Wanted::of(&[Selection::Profile(profile.to_owned())]);
        chosen.map_err(|sentence| Failure::usage(anyhow!(sentence)))?;
    }
    let log_server = LogServer::named(&dir).or_usage()?;
    let unit = Unit {
        program: &program,
        dir: &dir,
        config: config.as_deref(),
        profile,
        log_server: log_server.as_deref(),
        of,
    };
    let unit = unit.text()?;
    let path = of.unit().or_usage()?;
    if print {
        if json.json {
            console::say_json(&json!({ "path": path, "unit": unit }))?;
        } else {
            console::say(unit.trim_end());
        }
        return Ok(());
    }
    let folder = path.parent().context("a unit lies in a folder")?;
    fs_err::create_dir_all(folder).map_err(|error| cannot(&error, of))?;
    fs_err::write(&path, &unit).map_err(|error| cannot(&error, of))?;
    let mut next = vec![of.systemctl(&format!("enable --now {UNIT}"))];
    let reloaded = of.reload();
    if reloaded.is_err() {
        next.insert(0, of.systemctl("daemon-reload"));
    }
    if of.user {
        // Else the service ends when its user logs out.
        next.push("loginctl enable-linger".into());
    }
    if json.json {
        console::say_json(&json!({ "path": path, "unit": unit, "next": next }))?;
    } else {
        console::say(&format!("wrote {}", path.display()));
        show(&reloaded, &next);
    }
    Ok(())
}

fn cannot(error: &std::io::Error, of: Of) -> Failure {
    let hint =
        if of.user { "" } else { "; `--user` needs no administrator, `--print` writes nothing" };
    Failure::new(FAILED, anyhow!("{error}{hint}"))
}

fn uninstall(of: Of, json: Print) -> Outcome {
    let path = of.unit().or_usage()?;
    let there = path.exists();
    let mut answers = Ok(());
    let mut next = Vec::new();
    if there {
        answers = of.reload();
        if answers.is_ok() {
            // Whoever runs must not outlive his unit.
            of.ask(&["disable", "--now", UNIT]).map_err(|sentence| anyhow!(sentence))?;
        } else {
            next = vec![of.systemctl(&format!("disable --now {UNIT}"))];
        }
        fs_err::remove_file(&path).map_err(|error| cannot(&error, of))?;
        match answers {
            Ok(()) => of.reload().map_err(|sentence| anyhow!(sentence))?,
            Err(_) => next.push(of.systemctl("daemon-reload")),
        }
    }
    if json.json {
        console::say_json(&json!({ "path": path, "removed": there, "next": next }))?;
    } else if there {
        console::say(&format!("removed {}", path.display()));
        show(&answers, &next);
    } else {
        console::say(&format!("there is no {}", path.display()));
    }
    Ok(())
}

/// What is left to do, and where, if that is not here.
fn show(answers: &Result<(), String>, next: &[String]) {
    if let Err(why) = answers {
        console::complain(&format!(
            "warning: systemd does not answer here ({why}); where it does, run"
        ));
    }
    for command in next {
        console::say(&format!("  {command}"));
    }
}

fn status(of: Of, json: Print) -> Outcome {
    let path = of.unit().or_usage()?;
    let installed = path.exists();
    let asked = |words: &[&str]| -> Value {
        if !systemd_runs() {
            return Value::Null;
        }
        of.ask(words).map_or_else(|sentence| json!({ "error": sentence }), Value::from)
    };
    let (enabled, active) = (asked(&["is-enabled", UNIT]), asked(&["is-active", UNIT]));
    if json.json {
        console::say_json(&json!({
            "path": path, "installed": installed, "systemd": systemd_runs(),
            "enabled": enabled, "active": active,
        }))?;
    } else {
        let there = if installed { "is installed" } else { "is not installed" };
        console::say(&format!("{} {there}", path.display()));
        if systemd_runs() {
            console::say(&format!("  enabled: {}", word(&enabled)));
            console::say(&format!("  active: {}", word(&active)));
        } else {
            console::say("  systemd does not run this machine");
        }
    }
    if installed { Ok(()) } else { Err(Failure::told(FAILED)) }
}

fn word(answer: &Value) -> &str {
    answer.as_str().or_else(|| answer["error"].as_str()).unwrap_or("unknown")
}

/// What the unit says.
struct Unit<'a> {
    program: &'a Path,
    dir: &'a DataDir,
    config: Option<&'a Path>,
    profile: Option<&'a str>,
    /// The program that keeps a cluster's log, where it was named.
    log_server: Option<&'a Path>,
    of: Of,
}

impl Unit<'_> {
    fn text(&self) -> anyhow::Result<String> {
        let mut start =
            format!("{} up --data {}", word_of(self.program)?, word_of(self.dir.root())?);
        if let Some(config) = self.config {
            write!(start, " --config {}", word_of(config)?)?;
        }
        if let Some(profile) = self.profile {
            write!(start, " --profile {profile}")?;
        }
        let environment = match self.log_server {
            Some(program) => format!("Environment={}\n", assignment(PROGRAM, program)?),
            None => String::new(),
        };
        let (owner, wanted_by) = match (self.of.user, owner(self.dir.root())) {
            (true, _) => (String::new(), "default.target"),
            (false, Some(owner)) => (format!("User={owner}\n"), "multi-user.target"),
            (false, None) => (String::new(), "multi-user.target"),
        };
        Ok(format!(
            "# Written by `ringrift service install`.\n\
             [Unit]\n\
             Description=RingRift self-play training loop\n\
             # Five starts within five minutes are enough to see that it cannot run.\n\
             StartLimitIntervalSec=300\n\
             StartLimitBurst=5\n\
             \n\
             [Service]\n\
             Type=notify\n\
             NotifyAccess=main\n\
             {owner}\
             {environment}\
             ExecStart={start}\n\
             # Started again after a crash, and not after `ringrift stop` or with a wrong configuration.\n\
             Restart=on-failure\n\
             RestartPreventExitStatus=2\n\
             RestartSec=30\n\
             # Folding a long log anew takes minutes. It is ready when every daemon runs, and while\n\
             # they start it asks for more time by itself.\n\
             TimeoutStartSec=15min\n\
             # Each level of daemons has 30 s of its own.\n\
             TimeoutStopSec=10min\n\
             # A supervisor that no longer turns is ended and started again.\n\
             WatchdogSec=60\n\
             # Workers are told by the manager; what is left of them at the end is ended with it.\n\
             KillMode=mixed\n\
             # A worker that takes too much memory ends alone.\n\
             OOMPolicy=continue\n\
             MemoryMax=90%\n\
             LimitNOFILE=65536\n\
             TasksMax=4096\n\
             Nice=5\n\
             NoNewPrivileges=yes\n\
             \n\
             [Install]\n\
             WantedBy={wanted_by}\n"
        ))
    }
}

/// Who owns the data, unless that is the administrator: the service runs as nobody else.
fn owner(data: &Path) -> Option<u32> {
    let there = data.ancestors().find_map(|folder| fs_err::metadata(folder).ok())?;
    (there.uid() != 0).then(|| there.uid())
}

/// A variable as one word of a unit. Source: systemd.exec(5), "Environment=", where `$` has no meaning.
fn assignment(name: &str, path: &Path) -> anyhow::Result<String> {
    Ok(word_of(path)?.replace("$$", "$").replacen('"', &format!("\"{name}="), 1))
}

/// A path as one word of a unit. Source: systemd.service(5), "Command lines".
fn word_of(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
    if text.contains(['\n', '\r']) {
        bail!("{text:?} has a line break, which no unit can hold");
    }
    let escaped =
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        let check = |path: &str, expected: &str| {
            assert_eq!(word_of(Path::new(path)).unwrap(), expected);
        };
        check("/opt/ringrift", "\"/opt/ringrift\"");
        check("/my data/50%/$HOME/\"x\"\\", "\"/my data/50%%/$$HOME/\\\"x\\\"\\\\\"");
        assert!(word_of(Path::new("/a\nb")).is_err());
        let named = assignment("PROGRAM", Path::new("/my $/50%")).unwrap();
        assert_eq!(named, "\"PROGRAM=/my $/50%%\"");
    }
}

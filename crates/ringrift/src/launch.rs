//! The command `launch_daemons`: the runbook's and the old system's flags for the same manager.
//!
//! Source: runbook, "Operational Commands"; manager contract, section 15, in the order of its actions.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    cli::{Places, Print, ended, warn},
    commands::{doctor, orders, status},
    console,
    control::Selection,
    data_dir::DataDir,
    exit::{FAILED, Failure, Outcome},
    plan::Wanted,
    up, worker,
};

/// What the category flags stand for. Source: manager contract, section 15.
const CATEGORIES: &[(&str, &[&str])] = &[
    ("--sync", &["auto_sync", "high_quality_sync", "elo_sync", "model_sync", "cluster_data_sync"]),
    (
        "--training",
        &[
            "data_pipeline",
            "training_node_watcher",
            "selfplay_coordinator",
            "distillation",
            "unified_promotion",
            "continuous_training_loop",
            "tournament_daemon",
            "feedback_loop",
            "evaluation",
        ],
    ),
    (
        "--monitoring",
        &[
            "health_server",
            "cluster_monitor",
            "queue_monitor",
            "replication_monitor",
            "replication_repair",
            "orphan_detection",
            "node_health_monitor",
        ],
    ),
    ("--events", &["event_router", "cross_process_poller"]),
    ("--p2p", &["p2p_backend", "gossip_sync", "data_server"]),
    ("--external", &["external_drive_sync", "vast_cpu_pipeline"]),
    ("--continuous", &["continuous_training_loop"]),
    ("--sync-cluster", &["cluster_data_sync"]),
];

/// Starts, stops and shows daemons.
///
/// If a manager runs on the data directory it is asked, and the command returns; else this process
/// becomes the manager, in the foreground, until Ctrl-C. Exit codes: 0 done, 1 a check or a run
/// failed, 2 usage or configuration, 3 no manager is running.
#[derive(Debug, Parser)]
#[command(
    name = "launch_daemons",
    version = crate::cli::VERSION,
    max_term_width = 100,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true
)]
struct Launch {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    print: Print,
    #[command(flatten)]
    selected: Selected,
    #[command(flatten)]
    categories: Categories,
    #[command(flatten)]
    actions: Actions,
    #[command(flatten)]
    manager: Manager,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// Do one job of a manager; a job comes on standard input
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What to start")]
struct Selected {
    /// Start all daemons that are built and enabled
    #[arg(long)]
    all: bool,
    /// Start these, joined by commas, in upper or lower case
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    daemons: Vec<String>,
    /// Start this one; may be given several times
    #[arg(long, value_name = "NAME")]
    daemon: Vec<String>,
    /// Start those of a profile; takes the place of the flags of categories
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Categories to start")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Categories {
    /// Data synchronisation
    #[arg(long)]
    sync: bool,
    /// Self-play, training, evaluation, feedback
    #[arg(long)]
    training: bool,
    /// Monitors and probes
    #[arg(long)]
    monitoring: bool,
    /// Events
    #[arg(long)]
    events: bool,
    /// Peer to peer
    #[arg(long)]
    p2p: bool,
    /// External drives and rented processors
    #[arg(long)]
    external: bool,
    /// The continuous training loop
    #[arg(long)]
    continuous: bool,
    /// Synchronisation of a cluster
    #[arg(long)]
    sync_cluster: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Instead of starting")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Actions {
    /// Show the daemons of the running manager
    #[arg(long)]
    status: bool,
    /// With --status: show it again and again, until Ctrl-C
    #[arg(long, requires = "status")]
    watch: bool,
    /// Seconds between two looks of --watch
    #[arg(long, default_value = "5.0", value_parser = pause, requires = "watch")]
    interval: Duration,
    /// End the manager and all it runs, or with a name stop that daemon; may be given several times
    #[arg(long, value_name = "NAME", num_args = 0..=1, action = ArgAction::Append)]
    stop: Option<Vec<String>>,
    /// End the manager and all it runs
    #[arg(long)]
    stop_all: bool,
    /// Only look for what would keep the daemons from running here
    #[arg(long)]
    diagnostics: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "For a manager that begins")]
struct Manager {
    /// Begin without looking first for what would keep the daemons from running
    #[arg(long)]
    skip_diagnostics: bool,
    /// Seconds between two readings of health [default: 30]
    #[arg(long, value_name = "SECONDS")]
    health_interval: Option<String>,
    /// A daemon that crashes is FAILED at once
    #[arg(long)]
    no_auto_restart: bool,
    /// Write a fuller log
    #[arg(short, long)]
    verbose: bool,
}

fn pause(text: &str) -> Result<Duration, String> {
    let allowed = || format!("'{text}' is not allowed: 0.1 to 3600 seconds");
    let seconds: f64 = text.parse().map_err(|_| allowed())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(allowed())
    }
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    ended(Launch::parse().run())
}

/// The definition of the command line.
pub fn definition() -> clap::Command {
    Launch::command()
}

impl Launch {
    fn run(&self) -> Outcome {
        if let Some(Hidden::Worker) = self.hidden {
            return worker::run();
        }
        let actions = &self.actions;
        let dir = || self.places.place.dir();
        if actions.status {
            return self.status(&dir()?);
        }
        if actions.stop_all {
            return orders::stop_in(&dir()?, &[], self.print);
        }
        if let Some(names) = &actions.stop {
            return orders::stop_in(&dir()?, names, self.print);
        }
        if actions.diagnostics {
            return doctor::examine(&self.places.settings(Vec::new())?, self.print);
        }
        self.start()
    }

    fn status(&self, dir: &DataDir) -> Outcome {
        let actions = &self.actions;
        let shape =
            if self.print.json { status::Shape::Json(as_before) } else { status::Shape::Text };
        let Some(every) = actions.watch.then_some(actions.interval) else {
            return status::once(dir, shape);
        };
        let foot = format!("Refreshing every {:?}s... (Ctrl+C to exit)", every.as_secs_f64());
        status::watch(dir, shape, every, Some(&foot))
    }

    fn start(&self) -> Outcome {
        let selections = self.selections()?;
        if selections.is_empty() {
            // The words of the old launcher. It left with 1; 2 is what decisions say of wrong usage.
            return Err(refused("No daemons specified. Use --help for options."));
        }
        Wanted::of(&selections).map_err(refused)?;
        let keys = self.keys();
        let given: Vec<&str> = keys.iter().map(|(_, flag, _)| *flag).collect();
        let settings = self.places.settings(keys)?;
        let dir = DataDir::new(&settings.data)?;
        if dir.is_locked() {
            for flag in given.iter().filter(|flag| **flag != "--profile") {
                console::complain(&format!(
                    "warning: {flag} has no effect: the manager of this data directory runs already"
                ));
            }
            return orders::start_all(&dir, selections, self.print);
        }
        if !self.manager.skip_diagnostics {
            let problems = doctor::problems(&settings)?;
            if !problems.is_empty() {
                let all = problems.join("; ");
                let hint = "nothing was started; --skip-diagnostics starts all the same";
                return Err(Failure::new(FAILED, anyhow!("{all} ({hint})")));
            }
        }
        warn(&settings);
        up::manage(&up::Run { settings, selections, until: None, timeout: None })
    }

    fn keys(&self) -> Vec<(&'static str, &'static str, String)> {
        let manager = &self.manager;
        let given = [
            ("manager.profile", "--profile", self.selected.profile.clone()),
            ("manager.health_interval", "--health-interval", manager.health_interval.clone()),
            (
                "manager.restart_max",
                "--no-auto-restart",
                manager.no_auto_restart.then(|| "0".to_owned()),
            ),
            ("manager.log_level", "--verbose", manager.verbose.then(|| "debug".to_owned())),
        ];
        given.into_iter().filter_map(|(key, flag, text)| Some((key, flag, text?))).collect()
    }

    fn selections(&self) -> Result<Vec<Selection>, Failure> {
        let mut selections = Vec::new();
        if self.selected.all {
            selections.push(Selection::All);
        }
        let mut names: Vec<String> =
            self.selected.daemons.iter().chain(&self.selected.daemon).cloned().collect();
        names.retain(|name| !name.trim().is_empty());
        let flags = self.categories.given();
        if let Some(profile) = &self.selected.profile {
            selections.push(Selection::Profile(profile.clone()));
            if !flags.is_empty() {
                console::complain(&format!(
                    "info: --profile takes the place of {}",
                    flags.join(", ")
                ));
            }
        } else {
            names.extend(of_categories(&flags, names.is_empty() && selections.is_empty())?);
        }
        if !names.is_empty() {
            selections.push(Selection::Daemons(names));
        }
        Ok(selections)
    }
}

impl Categories {
    fn given(&self) -> Vec<&'static str> {
        let given = [
            self.sync,
            self.training,
            self.monitoring,
            self.events,
            self.p2p,
            self.external,
            self.continuous,
            self.sync_cluster,
        ];
        let flags = CATEGORIES.iter().map(|(flag, _)| *flag);
        flags.zip(given).filter_map(|(flag, given)| given.then_some(flag)).collect()
    }
}

/// The types of these flags that can run. A category is like a profile: the others are left out, with
/// one warning; if `alone` and none is left, there is nothing to start.
fn of_categories(flags: &[&str], alone: bool) -> Result<Vec<String>, Failure> {
    let types =
        CATEGORIES.iter().filter(|(flag, _)| flags.contains(flag)).flat_map(|(_, types)| *types);
    let (can, cannot): (Vec<&str>, Vec<&str>) = types
        .copied()
        .partition(|name| Wanted::of(&[Selection::Daemons(vec![(*name).to_owned()])]).is_ok());
    if !cannot.is_empty() {
        let names = cannot.join(", ").to_uppercase();
        if alone && can.is_empty() {
            let flags = flags.join(" ");
            return Err(refused(format!("nothing of {flags} is built yet: {names}")));
        }
        console::complain(&format!("warning: left out because they are not built yet: {names}"));
    }
    Ok(can.into_iter().map(str::to_owned).collect())
}

/// The shape that scripts of the old system read.
fn as_before(status: &Value) -> Value {
    let old = |daemon: &Value| {
        json!({
            "state": daemon["state"],
            "uptime_seconds": daemon["uptime_seconds"],
            "restart_count": daemon["restarts"],
            "last_error": daemon["last_error"],
            "auto_restart": status["auto_restart"],
        })
    };
    let daemons: Map<String, Value> = status["daemons"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, daemon)| (name.clone(), old(daemon)))
        .collect();
    let count = |states: &[&str]| {
        let states_of = daemons.values().filter_map(|daemon| daemon["state"].as_str());
        states_of.filter(|state| states.contains(state)).count()
    };
    let (running, failed) = (count(&["running"]), count(&["failed", "import_failed"]));
    json!({
        "running": status["stopping"] == false,
        "summary": {
            "total": daemons.len(),
            "running": running,
            "failed": failed,
            "stopped": daemons.len() - running - failed,
        },
        "daemons": daemons,
        // Null while no breaker is switched on.
        "circuit_breaker": status["circuit_breaker"],
    })
}

fn refused(sentence: impl Into<String>) -> Failure {
    Failure::usage(anyhow!(sentence.into()))
}

#[cfg(test)]
mod tests {
    use ringrift_daemons::find;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn every_type_of_a_category_exists_and_every_category_has_its_flag() {
        for (flag, types) in CATEGORIES {
            let launch = Launch::try_parse_from(["launch_daemons", flag]).unwrap();
            assert_eq!(launch.categories.given(), [*flag]);
            for name in *types {
                assert!(find(name).is_ok(), "{flag}: {name}");
            }
        }
    }

    fn selections(args: &[&str]) -> Result<Vec<Selection>, String> {
        let args = std::iter::once("launch_daemons").chain(args.iter().copied());
        let launch = Launch::try_parse_from(args).unwrap();
        launch.selections().map_err(|failure| failure.error.unwrap().to_string())
    }

    #[test]
    fn flags_of_both_times_select_the_same() {
        let daemons =
            |names: &[&str]| Selection::Daemons(names.iter().map(ToString::to_string).collect());
        let check = |args: &[&str], expected: &[Selection]| {
            assert_eq!(selections(args).unwrap(), expected, "{args:?}");
        };
        check(
            &["--daemons", "AUTO_SYNC,DATA_PIPELINE"],
            &[daemons(&["AUTO_SYNC", "DATA_PIPELINE"])],
        );
        check(
            &["--daemon", "auto_sync", "--daemon", "evaluation"],
            &[daemons(&["auto_sync", "evaluation"])],
        );
        check(&["--all"], &[Selection::All]);
        let training = Selection::Profile("training".into());
        check(&["--profile", "training", "--sync"], std::slice::from_ref(&training));
        check(
            &["--profile", "training", "--daemon", "evaluation"],
            &[training, daemons(&["evaluation"])],
        );
        // Of the category only what can run; the retired one leads to its successor later.
        check(
            &["--sync"],
            &[daemons(&[
                "auto_sync",
                "high_quality_sync",
                "elo_sync",
                "model_sync",
                "cluster_data_sync",
            ])],
        );
        check(&["--p2p"], &[daemons(&["p2p_backend", "gossip_sync", "data_server"])]);
        check(&[], &[]);
        check(&["--daemons", ","], &[]);
        let nothing = selections(&["--external"]).unwrap_err();
        let planned = "EXTERNAL_DRIVE_SYNC, VAST_CPU_PIPELINE";
        assert_eq!(nothing, format!("nothing of --external is built yet: {planned}"));
    }

    #[test]
    fn a_bare_stop_and_a_stop_with_names_are_told_apart() {
        let stop = |args: &[&str]| {
            let args = std::iter::once("launch_daemons").chain(args.iter().copied());
            Launch::try_parse_from(args).unwrap().actions.stop
        };
        assert_eq!(stop(&[]), None);
        assert_eq!(stop(&["--stop"]), Some(vec![]));
        assert_eq!(stop(&["--stop", "--json"]), Some(vec![]));
        let two = ["--stop", "AUTO_SYNC", "--stop", "evaluation"];
        assert_eq!(stop(&two), Some(vec!["AUTO_SYNC".into(), "evaluation".into()]));
    }

    #[test]
    fn the_old_shape_counts_every_type_once() {
        let daemon = |state: &str| json!({ "state": state, "uptime_seconds": 1.5, "restarts": 2, "last_error": null });
        let status = json!({
            "stopping": false, "auto_restart": true,
            "daemons": {
                "A": daemon("running"), "B": daemon("failed"), "C": daemon("import_failed"),
                "D": daemon("restarting"), "E": daemon("stopped"),
            },
        });
        let old = as_before(&status);
        assert_eq!(old["summary"], json!({ "total": 5, "running": 1, "failed": 2, "stopped": 2 }));
        let expected = json!({
            "state": "running", "uptime_seconds": 1.5, "restart_count": 2, "last_error": null,
            "auto_restart": true,
        });
        assert_eq!((&old["daemons"]["A"], &old["running"]), (&expected, &true.into()));
    }
}

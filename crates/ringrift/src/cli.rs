//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use ringrift_pipeline::Config;

use crate::{
    commands,
    config::{Flags, Settings, Sources, load},
    console,
    data_dir::DataDir,
    exit::{Failure, Outcome},
    up, worker,
};

/// The version, and what is built in that is not by default.
pub const VERSION: &str = if cfg!(feature = "cluster") {
    concat!(env!("CARGO_PKG_VERSION"), " with cluster")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Keeps a self-play training pipeline of the game `RingRift` running unattended: it plays, trains,
/// evaluates and promotes, around the clock, on this machine.
///
/// `ringrift up` needs nothing configured. Exit codes: 0 done, 1 a check or a run failed, 2 usage or
/// configuration, 3 no manager is running, 4 goal not reached.
#[derive(Debug, Parser)]
#[command(name = "ringrift", version = VERSION, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the data lies.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Data directory [env: `RINGRIFT_DATA_DIR`] [default: `./ringrift-data`]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl Place {
    /// The directory that is meant.
    pub fn dir(&self) -> Result<DataDir, Failure> {
        let flags = Flags { data: self.data.clone(), ..Flags::default() };
        Ok(DataDir::new(&Sources::of_process(flags).data().0)?)
    }

    /// The directory, if somebody said one.
    pub fn given(&self) -> Option<PathBuf> {
        let flags = Flags { data: self.data.clone(), ..Flags::default() };
        Sources::of_process(flags).given_data()
    }

    /// The directory that is meant, which a manager must have written to before.
    pub fn existing(&self) -> Result<DataDir, Failure> {
        let dir = self.dir()?;
        match fs_err::read_dir(dir.root()) {
            Err(error) => {
                Err(Failure::usage(anyhow::Error::new(error).context("read the data directory")))
            }
            Ok(_) if !dir.exists() => Err(Failure::usage(anyhow::anyhow!(
                "{} holds no data of ours: there is no facts.sqlite; `ringrift up` makes it",
                dir.root().display()
            ))),
            Ok(_) => Ok(dir),
        }
    }
}

/// Where data and configuration lie.
#[derive(Debug, Clone, Args)]
pub struct Places {
    #[command(flatten)]
    pub place: Place,
    /// Configuration file [env: `RINGRIFT_CONFIG`] [default: `DATA/ringrift.toml`, `./ringrift.toml`]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Places {
    /// Settings of these places and the environment.
    pub fn settings(
        &self,
        keys: Vec<(&'static str, &'static str, String)>,
    ) -> Result<Settings, Failure> {
        let flags = Flags { data: self.place.data.clone(), file: self.config.clone(), keys };
        load(&Sources::of_process(flags)).map_err(Failure::usage)
    }
}

/// How a command prints.
#[derive(Debug, Clone, Copy, Args)]
pub struct Print {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A config of the game, such as `hex8_2p`.
#[derive(Debug, Clone, Copy, Args)]
pub struct OfConfig {
    /// Only this config of the game, e.g. `hex8_2p`
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<Config>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in the foreground, until Ctrl-C
    Up(up::UpArgs),
    /// Show the daemons of the running manager, or watch them
    Status(commands::status::StatusArgs),
    /// Show whether daemons run well; of one daemon all that explains its state
    Health(commands::health::HealthArgs),
    /// Start daemons of the running manager, and all that they need
    Start(commands::orders::StartArgs),
    /// End the running manager in good order, or stop daemons
    Stop(commands::orders::StopArgs),
    /// End one daemon in good order and start a fresh one of it
    Restart(commands::orders::OneArgs),
    /// Try a daemon at once that was given up or waits for its next try
    Retry(commands::orders::RetryArgs),
    /// Let a daemon begin no new cycle
    Pause(commands::orders::OneArgs),
    /// Let a paused daemon go on
    Resume(commands::orders::OneArgs),
    /// Print the log, of one daemon or of all, and follow it
    Logs(commands::logs::LogsArgs),
    /// Show or change how much the running manager logs
    LogLevel(commands::logs::LevelArgs),
    /// Say what keeps a config from going on, or what a node does and why it does nothing
    Why(commands::why::WhyArgs),
    /// Show what happened, or follow it
    Events(commands::events::EventsArgs),
    /// Show dead letters: facts that a subscriber could not handle; deliver them again
    Dlq(commands::dlq::DlqArgs),
    /// List models
    Models(commands::lists::ModelsArgs),
    /// List batches of games
    Games(commands::lists::ListArgs),
    /// List matches
    Matches(commands::lists::ListArgs),
    /// Check all data: hash every artefact, replay every game, fold the log again
    Verify(commands::verify::VerifyArgs),
    /// Show where an artefact is: on which nodes of the cluster, since when, and as which file here
    Where(commands::whereabouts::WhereArgs),
    /// Let two players play each other
    Match(commands::play::MatchArgs),
    /// Play on the terminal against a model
    Play(commands::person::PlayArgs),
    /// Learn without a manager: from random weights to a champion, with its proofs
    Train(commands::train::TrainArgs),
    /// Begin a cluster, invite machines to it, join one
    Cluster(commands::cluster::ClusterArgs),
    /// Show the nodes of the cluster: who leads, what each does, and if nothing, why
    Nodes(commands::cluster::StatusArgs),
    /// Drain or remove a node of the cluster
    Node(commands::cluster::NodeArgs),
    /// Show or check the far store, which holds copies of everything
    Store(commands::far::StoreArgs),
    /// Make an empty data directory again from nothing but a far store
    Restore(commands::far::RestoreArgs),
    /// Show or check the configuration
    Config(commands::config::ConfigArgs),
    /// List all 89 types of daemons
    Registry(commands::registry::RegistryArgs),
    /// Judge vectors, replay games, count, play: the rules engine by itself
    Rules(commands::rules::RulesArgs),
    /// Look for what would keep the loop from running here
    Doctor(commands::doctor::DoctorArgs),
    /// Let systemd run the manager
    Service(commands::service::ServiceArgs),
    /// Print the script that completes these commands in a shell
    Completions(commands::reference::CompletionsArgs),
    /// Print the manual page
    Man(commands::reference::ManArgs),
    /// Do one job of a manager; a job comes on standard input
    #[command(hide = true)]
    Worker,
    /// Print a part of the reference, as Markdown
    #[command(hide = true)]
    Docs(commands::docs::DocsArgs),
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    ended(Cli::parse().run())
}

/// The definition of the command line.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// The exit code of a command that has ended so.
pub fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.end(),
    }
}

impl Cli {
    fn run(self) -> Outcome {
        match self.command {
            Command::Up(args) => up::run(&args),
            Command::Status(args) => commands::status::run(&args),
            Command::Health(args) => commands::health::run(&args),
            Command::Start(args) => commands::orders::start(&args),
            Command::Stop(args) => commands::orders::stop(&args),
            Command::Restart(args) => commands::orders::restart(&args),
            Command::Retry(args) => commands::orders::retry(&args),
            Command::Pause(args) => commands::orders::pause(&args),
            Command::Resume(args) => commands::orders::resume(&args),
            Command::Logs(args) => commands::logs::logs(&args),
            Command::LogLevel(args) => commands::logs::level(&args),
            Command::Why(args) => commands::why::run(&args),
            Command::Events(args) => commands::events::run(&args),
            Command::Dlq(args) => commands::dlq::run(&args),
            Command::Models(args) => commands::lists::models(&args),
            Command::Games(args) => commands::lists::games(&args),
            Command::Matches(args) => commands::lists::matches(&args),
            Command::Verify(args) => commands::verify::run(&args),
            Command::Where(args) => commands::whereabouts::run(&args),
            Command::Match(args) => commands::play::run(&args),
            Command::Play(args) => commands::person::run(&args),
            Command::Train(args) => commands::train::run(&args),
            Command::Cluster(args) => commands::cluster::run(&args),
            Command::Nodes(args) => commands::cluster::nodes(&args),
            Command::Node(args) => commands::cluster::node(&args),
            Command::Store(args) => commands::far::store(&args),
            Command::Restore(args) => commands::far::restore(&args),
            Command::Config(args) => commands::config::run(&args),
            Command::Registry(args) => commands::registry::run(&args),
            Command::Rules(args) => commands::rules::run(&args),
            Command::Doctor(args) => commands::doctor::run(&args),
            Command::Service(args) => commands::service::run(&args),
            Command::Completions(args) => commands::reference::completions(&args),
            Command::Man(args) => commands::reference::man(&args),
            Command::Worker => worker::run(),
            Command::Docs(args) => commands::docs::run(&args),
        }
    }
}

/// Prints the warnings of a configuration.
pub fn warn(settings: &Settings) {
    for warning in &settings.warnings {
        console::complain(&format!("warning: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::definition().debug_assert();
    }
}

//! `dlq`: dead letters, facts that a subscriber could not handle. Looking needs no manager; a
//! manager does what changes them. Source of flags, sections and limits: event contract, section 9.

mod act;
mod view;

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use courier::{Courier, DeadLetter, LetterFilter, LetterState};
use ringrift_pipeline::resolve;
use serde_json::{Map, Value};
use warden::Clock;

use super::{
    events::topics,
    offline::{block_on, open_log},
};
use crate::{
    cli::{Place, Print},
    console,
    data_dir::DataDir,
    exit::{Failure, OrExit as _, Outcome},
};

/// Letters that are looked at; more than a thousand are an alarm long before.
const MOST_LISTED: usize = 100_000;
/// Letters listed by `--watch`.
const MOST_WATCHED: usize = 10;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DlqArgs {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    again: AgainArgs,
    #[command(flatten)]
    age: AgeArgs,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Show all of one letter
    Show {
        /// Number of the letter
        letter: u64,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        print: Print,
    },
    /// Deliver letters again, each to the subscriber that could not handle it
    Retry {
        /// Numbers of letters that wait or were given up; none = all that wait, the oldest first
        letters: Vec<u64>,
        /// Only about this topic
        #[arg(short, long, visible_alias = "event-type", value_name = "TOPIC")]
        topic: Option<String>,
        #[command(flatten)]
        again: MostArgs,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        print: Print,
    },
    /// Remove letters that are recovered or given up
    Purge {
        #[command(flatten)]
        age: DaysArgs,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        print: Print,
    },
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the contract")]
struct LookArgs {
    /// Show how many there are and about what; shown always
    #[arg(short, long)]
    stats: bool,
    /// Show whether that is healthy; shown unless letters are listed
    #[arg(short = 'H', long)]
    health: bool,
    /// List letters that wait
    #[arg(short, long)]
    pending: bool,
    /// List letters whose last retry failed
    #[arg(short, long)]
    failed: bool,
    /// With --failed: also those that were given up
    #[arg(long, requires = "failed")]
    include_abandoned: bool,
    /// Show what the daemon does that retries by itself
    #[arg(long)]
    daemon_status: bool,
    /// Only about this topic
    #[arg(short, long, visible_alias = "event-type", value_name = "TOPIC")]
    topic: Option<String>,
    /// List at most so many, the newest first
    #[arg(short, long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Print again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Seconds between two prints of --watch
    #[arg(
        short, long, value_name = "S", default_value_t = 30, requires = "watch",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    interval: u64,
}

#[derive(Debug, Args)]
struct AgainArgs {
    /// The same as `dlq retry`
    #[arg(short, long)]
    retry: bool,
    #[command(flatten)]
    most: MostArgs,
}

#[derive(Debug, Args)]
struct MostArgs {
    /// Retry at most so many
    #[arg(long, visible_alias = "max", value_name = "N", default_value_t = 10)]
    max_events: usize,
}

#[derive(Debug, Args)]
struct AgeArgs {
    /// The same as `dlq purge`
    #[arg(long, conflicts_with = "retry")]
    purge: bool,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Debug, Args)]
struct DaysArgs {
    /// Purge only what was buried so many days ago
    #[arg(
        long, value_name = "DAYS", default_value_t = 7,
        value_parser = clap::value_parser!(u64).range(..=36_500)
    )]
    older_than_days: u64,
}

/// Runs the command.
pub fn run(args: &DlqArgs) -> Outcome {
    let DlqArgs { look, again, age, place, print, .. } = args;
    match &args.act {
        Some(Act::Show { letter, place, print }) => show(*letter, &place.existing()?, *print),
        Some(Act::Retry { letters, topic, again, place, print }) => {
            let wish = act::Wish { letters, topic: topic.as_deref(), most: again.max_events };
            act::retry(&place.dir()?, &wish, *print)
        }
        Some(Act::Purge { age, place, print }) => {
            act::purge(&place.dir()?, age.older_than_days, *print)
        }
        None if again.retry => {
            let most = again.most.max_events;
            let wish = act::Wish { letters: &[], topic: look.topic.as_deref(), most };
            act::retry(&place.dir()?, &wish, *print)
        }
        None if age.purge => act::purge(&place.dir()?, age.days.older_than_days, *print),
        None => display(look, &place.existing()?, *print),
    }
}

fn display(look: &LookArgs, dir: &DataDir, print: Print) -> Outcome {
    loop {
        let sections = block_on(sections(look, dir))?;
        let text = match (print.json, look.watch) {
            (true, true) => view::json(&sections).to_string(),
            (true, false) => serde_json::to_string_pretty(&view::json(&sections))?,
            (false, _) => view::text(&sections),
        };
        if look.watch && !print.json {
            if console::is_terminal() {
                console::say("\x1b[2J\x1b[H");
            }
            console::say(&super::lists::time(Clock::system().now_ms()));
        }
        if !console::is_heard(&text) || !look.watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(look.interval));
    }
}

async fn sections(look: &LookArgs, dir: &DataDir) -> Result<Vec<view::Section>, Failure> {
    let log = open_log(dir).await.or_usage()?;
    let about = About::of(look.topic.as_deref(), &log).await?;
    let lists = look.pending || look.failed;
    let mut sections = vec![view::stats(&log.letter_counts().await?, &about.open(&log).await?)];
    if look.health || look.watch || !lists {
        sections.push(view::health(&log.letter_counts().await?));
    }
    if look.pending || look.watch {
        let mut letters = about.letters(&log, Some(LetterState::Pending)).await?;
        letters.truncate(if look.pending { look.limit } else { MOST_WATCHED });
        sections.push(view::list("pending", "Pending Events", &letters));
    }
    if look.failed {
        let mut letters = about.letters(&log, None).await?;
        letters.retain(|letter| match letter.state {
            LetterState::Pending => letter.retried_ms.is_some(),
            LetterState::Abandoned => look.include_abandoned,
            LetterState::Retrying | LetterState::Recovered => false,
        });
        letters.truncate(look.limit);
        sections.push(view::list("failed", "Failed Events", &letters));
    }
    if look.daemon_status {
        sections.push(view::daemon(dir)?);
    }
    Ok(sections)
}

/// Letters about what.
struct About(Option<Vec<String>>);

impl About {
    /// A dead letter is often about what this version does not know, so a topic that some letter has
    /// is as good as one that exists.
    async fn of(topic: Option<&str>, log: &Courier) -> Result<Self, Failure> {
        let Some(text) = topic else { return Ok(Self(None)) };
        let known = resolve(text);
        if !known.is_empty() {
            return Ok(Self(Some(known.into_iter().map(str::to_owned).collect())));
        }
        let literal = Self(Some(vec![text.to_owned()]));
        if literal.letters(log, None).await?.is_empty() {
            topics(text)?;
        }
        Ok(literal)
    }

    /// The newest first.
    async fn letters(
        &self,
        log: &Courier,
        state: Option<LetterState>,
    ) -> Result<Vec<DeadLetter>, courier::Error> {
        let filter = LetterFilter { state, limit: MOST_LISTED, ..LetterFilter::default() };
        let mut letters = log.dead_letters(filter).await?;
        if let Some(topics) = &self.0 {
            letters.retain(|letter| topics.iter().any(|topic| *topic == view::topic_of(letter)));
        }
        Ok(letters)
    }

    /// Those that wait or are on their way.
    async fn open(&self, log: &Courier) -> Result<Vec<DeadLetter>, courier::Error> {
        let mut letters = self.letters(log, Some(LetterState::Pending)).await?;
        letters.extend(self.letters(log, Some(LetterState::Retrying)).await?);
        Ok(letters)
    }
}

fn show(letter: u64, dir: &DataDir, print: Print) -> Outcome {
    block_on(async {
        let log = open_log(dir).await.or_usage()?;
        let filter = LetterFilter { id: Some(letter), ..LetterFilter::default() };
        let Some(letter) = log.dead_letters(filter).await?.pop() else {
            return Err(Failure::usage(anyhow!(
                "no dead letter has the number {letter}; `ringrift dlq --pending` lists those that wait"
            )));
        };
        if print.json {
            console::say_json(&view::letter_json(&letter))?;
        } else {
            console::say(&view::whole(&letter)?);
        }
        Ok(())
    })
}

/// An object of these pairs.
fn object<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

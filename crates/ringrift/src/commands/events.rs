//! `events`: what happened, one line a fact.

use std::{cmp::Reverse, time::Duration};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use courier::{Courier, Fact, Stream};
use ringrift_pipeline::{Config, kinds, resolve};
use serde_json::{Value, json};

use super::{
    lists::time,
    offline::{block_on, open_log},
    status::PATIENCE,
};
use crate::{
    cli::{OfConfig, Place, Print},
    config::nearest,
    console,
    control::{Request, ask},
    data_dir::DataDir,
    exit::{Failure, OrExit as _, Outcome},
    facts::{Told, tell},
};

/// Facts shown if nobody says how many.
const SHOWN: usize = 50;
/// Older facts shown before `--tail` goes on, if nobody says how many.
const SHOWN_BEFORE_TAIL: usize = 10;
/// Facts read at a time.
const CHUNK: u16 = 1000;
/// Time between two looks for new facts.
const LOOK: Duration = Duration::from_millis(250);

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
    #[command(flatten)]
    config: OfConfig,
    /// Only this topic, e.g. `model.promoted`, or all below a word, e.g. `work`
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only this stream
    #[arg(long, value_enum)]
    stream: Option<Which>,
    /// Only facts behind this position, the oldest first; without --stream, of the pipeline
    #[arg(long, value_name = "POSITION", conflicts_with = "tail")]
    after: Option<u64>,
    /// At most so many: the newest, or with --after the next ones [default: 50; with --tail 10]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on with every new fact until the manager ends
    #[arg(long)]
    tail: bool,
    /// Show how far each subscriber is, instead of facts
    #[arg(long, conflicts_with_all = ["config", "topic", "after", "limit", "tail"])]
    subscribers: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// What the pipeline rests on; kept for ever
    Pipeline,
    /// What operators look back on; kept for a week
    Operational,
}

impl From<Which> for Stream {
    fn from(which: Which) -> Self {
        match which {
            Which::Pipeline => Self::Pipeline,
            Which::Operational => Self::Operational,
        }
    }
}

/// Runs the command.
pub fn run(args: &EventsArgs) -> Outcome {
    let filter = Filter::of(args)?;
    if args.tail {
        let dir = args.place.dir()?;
        // Whoever waits for facts that nobody would write waits for ever.
        ask(&dir, &Request::Status, PATIENCE)?;
        let limit = args.limit.unwrap_or(SHOWN_BEFORE_TAIL);
        return block_on(follow(&dir, &filter, limit, args.print.json));
    }
    let dir = args.place.existing()?;
    block_on(async {
        let log = open_log(&dir).await.or_usage()?;
        if args.subscribers {
            return subscribers(&log, &filter.streams, args.print).await;
        }
        let limit = args.limit.unwrap_or(SHOWN);
        let shown = match args.after {
            Some(after) => filter.next(&log, after, limit).await?,
            None => filter.newest(&log, &filter.heads(&log).await?, limit).await?,
        };
        if args.print.json {
            console::say_json(&shown.iter().map(Shown::json).collect::<Vec<_>>())?;
        } else if shown.is_empty() {
            console::say("no such facts");
        }
        for shown in shown.iter().filter(|_| !args.print.json) {
            console::say(&shown.line());
        }
        Ok(())
    })
}

/// Prints how far everybody is who has a position.
async fn subscribers(log: &Courier, streams: &[Stream], print: Print) -> Outcome {
    let mut standings = log.standings().await?;
    standings.retain(|standing| streams.contains(&standing.stream));
    if print.json {
        let rows: Vec<Value> = standings
            .iter()
            .map(|standing| {
                json!({
                    "subscriber": standing.subscriber,
                    "stream": standing.stream,
                    "position": standing.position,
                    "head": standing.head,
                    "lag": standing.lag(),
                })
            })
            .collect();
        console::say_json(&rows)?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = standings
        .iter()
        .map(|standing| {
            vec![
                standing.subscriber.clone(),
                standing.stream.name().to_owned(),
                format!("{:>9}", standing.position),
                format!("{:>6}", standing.lag()),
            ]
        })
        .collect();
    console::table(&["SUBSCRIBER", "STREAM", " POSITION", "BEHIND"], &rows);
    Ok(())
}

/// Prints the newest facts and every further one, until the manager or the reader is gone.
async fn follow(dir: &DataDir, filter: &Filter, limit: usize, as_json: bool) -> Outcome {
    let log = open_log(dir).await.or_usage()?;
    let mut heads = filter.heads(&log).await?;
    let mut shown = filter.newest(&log, &heads, limit).await?;
    loop {
        for shown in &shown {
            let line = if as_json { shown.json().to_string() } else { shown.line() };
            if !console::is_heard(&line) {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
        // Looked at before the facts, so that the last ones are told.
        let lives = dir.is_locked();
        shown = filter.since(&log, &mut heads).await?;
        if shown.is_empty() && !lives {
            console::complain("the manager has ended");
            return Ok(());
        }
    }
}

/// Which facts are meant.
struct Filter {
    streams: Vec<Stream>,
    /// None = all.
    topics: Option<Vec<&'static str>>,
    config: Option<Config>,
}

impl Filter {
    fn of(args: &EventsArgs) -> Result<Self, Failure> {
        let topics = match &args.topic {
            Some(topic) => Some(topics(topic)?),
            None => None,
        };
        let streams = match args.stream {
            Some(which) => vec![which.into()],
            None if args.after.is_some() => vec![Stream::Pipeline],
            None => Stream::ALL.to_vec(),
        };
        Ok(Self { streams, topics, config: args.config.config })
    }

    fn take(&self, stream: Stream, fact: Fact) -> Option<Shown> {
        let told = tell(stream, &fact.body);
        let fits = self.topics.as_ref().is_none_or(|topics| topics.contains(&&*told.topic))
            && (self.config.is_none() || self.config == told.config);
        fits.then_some(Shown { stream, fact, told })
    }

    /// Where each stream ends now.
    async fn heads(&self, log: &Courier) -> Result<Vec<(Stream, u64)>, courier::Error> {
        let mut heads = Vec::new();
        for stream in &self.streams {
            heads.push((*stream, log.head(*stream).await?));
        }
        Ok(heads)
    }

    /// The newest facts up to `heads`, the oldest of them first.
    async fn newest(
        &self,
        log: &Courier,
        heads: &[(Stream, u64)],
        limit: usize,
    ) -> Result<Vec<Shown>, courier::Error> {
        let mut found = Vec::new();
        for &(stream, head) in heads {
            found.extend(self.newest_of(log, stream, head, limit).await?);
        }
        found.sort_by_key(|shown| Reverse(shown.fact.time_ms));
        found.truncate(limit);
        found.reverse();
        Ok(found)
    }

    /// The newest facts of one stream, the newest first: read backwards, because nothing is indexed
    /// by topic and what people ask for is near the end.
    async fn newest_of(
        &self,
        log: &Courier,
        stream: Stream,
        head: u64,
        limit: usize,
    ) -> Result<Vec<Shown>, courier::Error> {
        // Retention may have removed all before it.
        let Some(oldest) = log.read(stream, 0, 1).await?.pop() else { return Ok(Vec::new()) };
        let (mut found, mut until) = (Vec::new(), head);
        while until >= oldest.position && found.len() < limit {
            let after = until.saturating_sub(CHUNK.into());
            let page = log.read(stream, after, CHUNK.into()).await?;
            let of_window = page.into_iter().filter(|fact| fact.position <= until).rev();
            found.extend(of_window.filter_map(|fact| self.take(stream, fact)));
            until = after;
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The next facts behind a position of the first stream.
    async fn next(
        &self,
        log: &Courier,
        mut after: u64,
        limit: usize,
    ) -> Result<Vec<Shown>, courier::Error> {
        let mut found = Vec::new();
        for &stream in self.streams.iter().take(1) {
            while found.len() < limit {
                let page = log.read(stream, after, CHUNK.into()).await?;
                let Some(last) = page.last() else { break };
                after = last.position;
                found.extend(page.into_iter().filter_map(|fact| self.take(stream, fact)));
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// All facts since `heads`, which move on.
    async fn since(
        &self,
        log: &Courier,
        heads: &mut [(Stream, u64)],
    ) -> Result<Vec<Shown>, courier::Error> {
        let mut found = Vec::new();
        for (stream, head) in heads {
            let page = log.read(*stream, *head, CHUNK.into()).await?;
            *head = page.last().map_or(*head, |fact| fact.position);
            found.extend(page.into_iter().filter_map(|fact| self.take(*stream, fact)));
        }
        found.sort_by_key(|shown| shown.fact.time_ms);
        Ok(found)
    }
}

/// The topics that a word on the command line means.
pub fn topics(text: &str) -> Result<Vec<&'static str>, Failure> {
    let topics = resolve(text);
    if topics.is_empty() {
        let spelling = text.to_lowercase().replace(['_', '-'], ".");
        let hint = nearest(&spelling, kinds().map(|kind| kind.topic))
            .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
        return Err(Failure::usage(anyhow!(
            "unknown topic '{text}'{hint} docs/events.md lists all of them"
        )));
    }
    Ok(topics)
}

/// A fact that is shown.
struct Shown {
    stream: Stream,
    fact: Fact,
    told: Told,
}

impl Shown {
    /// When, where in which stream (`p` or `o`), what about which config, in words.
    fn line(&self) -> String {
        let stream = match self.stream {
            Stream::Pipeline => 'p',
            Stream::Operational => 'o',
        };
        let config = self.told.config.map_or_else(|| "-".to_owned(), |config| config.to_string());
        format!(
            "{}  {:<8}  {:<21}  {config:<12}  {}",
            time(self.fact.time_ms),
            format!("{stream}{}", self.fact.position),
            self.told.topic,
            console::one_line(&self.told.sentence)
        )
    }

    fn json(&self) -> Value {
        json!({
            "stream": self.stream,
            "position": self.fact.position,
            "id": self.fact.id,
            "time": time(self.fact.time_ms),
            "time_ms": self.fact.time_ms,
            "topic": self.told.topic,
            "subject": self.fact.subject,
            "config": self.told.config,
            "source": self.fact.source,
            "cause": self.fact.cause,
            "sentence": self.told.sentence,
            "body": self.fact.body,
        })
    }
}

//! `cluster`: makes a data directory a node of a cluster, and shows the nodes.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, Subcommand};
use courier::{Batch, Courier, Embedded, Fact, MAX_BATCH, NewFact, Options, Stream};
use ringrift_daemons::{LEADER, NODES};
use serde_json::{Value, json};

use super::offline::{block_on, open_log};
use crate::{
    cli::{Place, Print},
    console,
    data_dir::DataDir,
    exit::{Failure, OrExit as _, Outcome},
    membership::{Begin, Membership, loopback, open_shared},
};

/// Facts that are copied between two signs of progress.
const PAGE: usize = 1000;

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Begin a cluster: this data directory becomes its first node, with its whole history
    Init(JoinArgs),
    /// Make an empty data directory a node of a cluster that was begun
    Join(JoinArgs),
    /// Show the nodes and which of them leads, as this node knows them
    Status(StatusArgs),
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// Addresses of the servers that keep the log, joined by commas, e.g. `nats://TOKEN@a.example:4222`; or @FILE, which holds them: other
    /// users of this machine see what stands in a command
    #[arg(long, value_name = "URLS")]
    servers: String,
    /// The name of the log on them: letters, digits, `-` and `_`
    #[arg(long, value_name = "NAME", default_value = "ringrift")]
    log: String,
    /// Where the other nodes fetch artefacts from this one: an address of this machine that they reach, and
    /// a port, 0 = any free one [default: 127.0.0.1:0, for nodes on this machine alone]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Bytes a second that this node sends to the others in all [default: as many as it can]
    #[arg(long, value_name = "BYTES")]
    send_rate: Option<u64>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// Runs the command.
pub fn run(args: &ClusterArgs) -> Outcome {
    match &args.command {
        ClusterCommand::Init(args) => init(args),
        ClusterCommand::Join(args) => join(args),
        ClusterCommand::Status(args) => status(args),
    }
}

impl JoinArgs {
    /// The directory, taken from managers, and what it is to belong to.
    fn prepare(&self) -> Result<(DataDir, crate::data_dir::Lock, Membership), Failure> {
        let dir = self.place.dir()?;
        dir.create().or_usage()?;
        let lock = dir.lock().or_usage()?;
        if let Some(there) = Membership::of(&dir).or_usage()? {
            return Err(Failure::usage(anyhow!(
                "{} is a node already, of the {there}; to make it one of another cluster, remove {} first",
                dir.root().display(),
                dir.membership().display()
            )));
        }
        let servers = match self.servers.strip_prefix('@') {
            Some(file) => fs_err::read_to_string(file).or_usage()?.trim().to_owned(),
            None => self.servers.clone(),
        };
        let membership = Membership {
            servers,
            log: self.log.clone(),
            listen: self.listen.unwrap_or_else(loopback),
            send_rate: self.send_rate,
        };
        membership.check().or_usage()?;
        Ok((dir, lock, membership))
    }
}

fn init(args: &JoinArgs) -> Outcome {
    let (dir, lock, membership) = args.prepare()?;
    let copied = multi_threaded()?.block_on(async {
        let shared = open_shared(&membership, &dir, Begin::Yes).await.or_usage()?;
        let own = dir.facts().exists().then(|| Embedded::open(&dir.facts(), Options::default()));
        let own = own.transpose().or_usage()?;
        check_target(own.as_ref(), &shared, &membership).await.or_usage()?;
        let Some(own) = own else { return Ok::<_, Failure>(0) };
        let mut copied = 0;
        for stream in Stream::ALL {
            copied += copy(&own, &shared, stream).await?;
        }
        Ok(copied)
    })?;
    // From here on the log is that of the cluster; the file stays for whoever wants to look.
    membership.write(&dir)?;
    if dir.facts().exists() {
        set_aside(&dir)?;
    }
    drop(lock);
    console::say(&format!(
        "{} is the first node of the {membership}; {copied} facts were copied",
        dir.root().display()
    ));
    console::say("  here    ringrift up, as before");
    console::say("  others  ringrift cluster join with the same --servers and --log");
    Ok(())
}

fn join(args: &JoinArgs) -> Outcome {
    let (dir, lock, membership) = args.prepare()?;
    if dir.facts().exists() {
        return Err(Failure::usage(anyhow!(
            "{} has a history of its own: name an empty directory with --data, or begin a cluster \
             from it with `ringrift cluster init`",
            dir.root().display()
        )));
    }
    // A log that nobody began is refused here.
    multi_threaded()?.block_on(open_shared(&membership, &dir, Begin::No)).or_usage()?;
    membership.write(&dir)?;
    drop(lock);
    console::say(&format!("{} is a node of the {membership}", dir.root().display()));
    console::say("  begin   ringrift up --profile coordinator | training | selfplay");
    Ok(())
}

/// Servers are talked to by tasks of their own.
fn multi_threaded() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Refuses a log that holds another history than the one that is to be copied.
async fn check_target(
    own: Option<&Courier>,
    shared: &Courier,
    membership: &Membership,
) -> anyhow::Result<()> {
    let theirs = digest(shared, Stream::Pipeline, u64::MAX).await?;
    let ours = match own {
        Some(own) => digest(own, Stream::Pipeline, theirs.0).await?,
        None => Digest::default(),
    };
    // The beginning of ours: an earlier copy was cut off, and is gone on with.
    ensure!(
        theirs.0 == 0 || theirs == ours,
        "the {membership} has a history already: `ringrift cluster join` makes an empty data directory \
         a node of it; --log names another log"
    );
    let Some(own) = own else { return Ok(()) };
    let letters = own.letter_counts().await?;
    let open = letters.pending + letters.retrying;
    ensure!(
        open == 0,
        "{open} dead letters wait, and are not copied: `ringrift dlq` shows them and has them delivered \
         or given up"
    );
    Ok(())
}

/// Copies a stream, with the times of its facts, and compares what arrived. What is there already is not
/// copied again.
async fn copy(own: &Courier, shared: &Courier, stream: Stream) -> Result<u64, Failure> {
    let head = own.head(stream).await?;
    let (mut at, mut copied) = (0, 0);
    loop {
        let facts = own.read(stream, at, PAGE).await?;
        let Some(last) = facts.last() else { break };
        at = last.position;
        copied += facts.len() as u64;
        // A batch has one time.
        for run in facts.chunk_by(|one, next| one.time_ms == next.time_ms) {
            for part in run.chunks(MAX_BATCH) {
                let batch = Batch::new(part.iter().map(again).collect());
                let what = || format!("copy the {} facts up to {at}", stream.name());
                shared.append(stream, batch, part[0].time_ms).await.with_context(what)?;
            }
        }
        console::status(&format!("{} facts: {at} of {head}", stream.name()));
    }
    console::status("");
    // Of the other stream the servers may have let go what is old.
    if stream == Stream::Pipeline
        && digest(own, stream, u64::MAX).await? != digest(shared, stream, u64::MAX).await?
    {
        let sentence = "the facts on the servers are not those of this directory, which was not \
                        changed: name another log with --log";
        return Err(anyhow!(sentence).into());
    }
    Ok(copied)
}

/// The same fact; where it lands is up to the log.
fn again(fact: &Fact) -> NewFact {
    let mut new = NewFact::new(&fact.id, &fact.subject, &fact.source, fact.body.clone());
    if let Some(cause) = &fact.cause {
        new = new.caused_by(cause);
    }
    new
}

/// How many facts there are, and what they say.
type Digest = (u64, String);

/// What the first facts of a stream say, in their order, whatever their positions.
async fn digest(log: &Courier, stream: Stream, most: u64) -> anyhow::Result<Digest> {
    let (mut at, mut count) = (0, 0);
    let mut seen = String::new();
    while count < most {
        let facts = log.read(stream, at, PAGE).await?;
        let Some(last) = facts.last() else { break };
        at = last.position;
        for fact in &facts {
            if count == most {
                break;
            }
            count += 1;
            let said =
                json!([fact.id, fact.subject, fact.time_ms, fact.source, fact.cause, fact.body]);
            seen = depot::Hash::of(format!("{seen}{said}").as_bytes()).to_string();
        }
    }
    Ok((count, seen))
}

/// Renames the log that was copied, so that nobody takes it for the one in use.
fn set_aside(dir: &DataDir) -> anyhow::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let name = |stem: &str| dir.root().join(format!("{stem}{end}"));
        let (from, to) = (name("facts.sqlite"), name("facts-before-cluster.sqlite"));
        if from.exists() {
            fs_err::rename(from, to)?;
        }
    }
    Ok(())
}

fn status(args: &StatusArgs) -> Outcome {
    let dir = args.place.existing()?;
    let membership = Membership::of(&dir).or_usage()?;
    let here = fs_err::read_to_string(dir.node()).unwrap_or_default();
    let (nodes, leader) = block_on(async {
        let log = open_log(&dir).await.or_usage()?;
        Ok((log.leases(NODES, i64::MIN).await?, log.lease(LEADER, i64::MIN).await?))
    })?;
    let now_ms = warden::Clock::system().now_ms();
    let seconds = |ms: i64| std::time::Duration::from_millis(ms.unsigned_abs()).as_secs_f64();
    let nodes: BTreeMap<String, Value> = nodes
        .iter()
        .map(|lease| {
            let silent = now_ms.saturating_sub(lease.expires_ms);
            let row = json!({
                "here": lease.holder == here.trim(),
                "leads": leader.as_ref().is_some_and(|leader| leader.holder == lease.holder),
                "life": lease.epoch,
                "overdue_seconds": if silent > 0 { Some(seconds(silent)) } else { None },
            });
            (lease.holder.clone(), row)
        })
        .collect();
    if args.print.json {
        let cluster = membership.as_ref().map(ToString::to_string);
        return Ok(console::say_json(&json!({ "cluster": cluster, "nodes": nodes }))?);
    }
    console::say(&match &membership {
        Some(membership) => membership.to_string(),
        None => {
            "no cluster: this directory is alone; `ringrift cluster init` begins one".to_owned()
        }
    });
    if nodes.is_empty() {
        console::say("no node runs, as far as is known here");
        return Ok(());
    }
    let cells: Vec<Vec<String>> = nodes
        .iter()
        .map(|(name, row)| {
            let role = if row["leads"] == true { "leads" } else { "" };
            let sign = match row["overdue_seconds"].as_f64() {
                Some(late) => {
                    format!("overdue for {} by this machine's clock", console::duration(late))
                }
                None => "alive".to_owned(),
            };
            let here = if row["here"] == true { "this one" } else { "" };
            vec![name.clone(), role.to_owned(), sign, here.to_owned()]
        })
        .collect();
    console::table(&["NODE", "ROLE", "LAST SIGN", ""], &cells);
    Ok(())
}

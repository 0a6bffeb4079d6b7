//! `cluster`: makes a data directory a node of a cluster, and shows the nodes.

mod leave;
mod moved;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, Subcommand};
use courier::{Batch, Courier, Embedded, Fact, MAX_BATCH, Options, Outbox, Stream};
use ringrift_daemons::{ClusterView, History, LEADER, NODES, Seen, again, view_of};
use ringrift_pipeline::NodeId;
use serde_json::{Value, json};

use leave::{LeaveArgs, leave};
use moved::end_what_held;

use super::offline::{Offline, block_on};
use crate::{
    admission,
    cli::{Place, Print},
    config::kind::positive_time,
    console,
    control::{Request, ask, status},
    data_dir::{DataDir, Lock},
    exit::{Failure, OrExit as _, Outcome},
    log_server::LogServer,
    membership::{Begin, Membership, check_listen, check_relays, loopback, open_shared},
};

/// What records, and tells servers, waits for both.
const LONG: Duration = Duration::from_mins(1);
/// Facts that are copied between two signs of progress.
const PAGE: usize = 1000;
/// The usual name of a configuration.
const CONFIGURATION: &str = "ringrift.toml";

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Begin a cluster: this data directory becomes its first node, with its whole history
    Init(InitArgs),
    /// Make a ticket with which one machine joins; a manager must run here
    Invite(InviteArgs),
    /// Make an empty data directory a node of a cluster that was begun
    Join(JoinArgs),
    /// Go on alone, with the whole history as this node knows it: the way back, and the way on when the servers
    /// of the log are lost
    Leave(LeaveArgs),
    /// Show the nodes and which of them leads, as this node knows them
    Status(StatusArgs),
}

/// What a node is to itself.
#[derive(Debug, Args)]
struct OwnArgs {
    /// Where the other nodes fetch artefacts from this one: an address of this machine that they reach, and
    /// a port, 0 = any free one [default: 127.0.0.1:0, for nodes on this machine alone]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Bytes a second that this node sends to the others in all [default: as many as it can]
    #[arg(long, value_name = "BYTES")]
    send_rate: Option<u64>,
    /// A relay over which nodes fetch from each other that cannot reach each other directly, e.g.
    /// `https://relay.example`, the same on all nodes; may be said several times [default: none]
    #[arg(long, value_name = "URL")]
    relay: Vec<String>,
    #[command(flatten)]
    place: Place,
}

/// What lets a node to servers that run already, beside their addresses.
#[derive(Debug, Args)]
struct TheirArgs {
    /// A file of NATS credentials, which lets this node to those servers; it is read at each start [default: what
    /// stands in their addresses]
    #[arg(long, value_name = "FILE", requires = "servers")]
    credentials: Option<PathBuf>,
    /// The certificate of who signed for those servers, a PEM file; it is read at each start [default: those that the
    /// system believes]
    #[arg(long, value_name = "FILE", requires = "servers")]
    ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Run the server of the log here, at an address of this machine that the other nodes reach, e.g.
    /// `10.0.0.1:4222`; needs the program nats-server. Said three times: the first runs here, the others on the
    /// machines that have those addresses
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "servers")]
    serve: Vec<SocketAddr>,
    /// Addresses of servers that run already, joined by commas, e.g. `nats://TOKEN@a.example:4222`; or @FILE, which holds them: other
    /// users of this machine see what stands in a command
    #[arg(long, value_name = "URLS", conflicts_with = "serve")]
    servers: Option<String>,
    #[command(flatten)]
    their: TheirArgs,
    /// The name of the log on them: letters, digits, `-` and `_`
    #[arg(long, value_name = "NAME", default_value = "ringrift")]
    log: String,
    #[command(flatten)]
    own: OwnArgs,
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// What `ringrift cluster invite` printed; or @FILE, which holds it, or @- for standard input
    #[arg(value_name = "TICKET", required_unless_present = "servers")]
    ticket: Option<String>,
    /// Without a ticket: addresses of servers that do not go by keys, as for `cluster init`
    #[arg(long, value_name = "URLS", conflicts_with = "ticket")]
    servers: Option<String>,
    #[command(flatten)]
    their: TheirArgs,
    /// The name of the log on them
    #[arg(long, value_name = "NAME", default_value = "ringrift", conflicts_with = "ticket")]
    log: String,
    #[command(flatten)]
    own: OwnArgs,
}

#[derive(Debug, Args)]
struct InviteArgs {
    /// The profile that the machine is wanted for: coordinator, training or selfplay
    #[arg(long, value_name = "PROFILE")]
    role: String,
    /// How long the ticket holds, e.g. 30m
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = positive_time)]
    lasts: Duration,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Let a node take no new work; what it has in hand it ends
    Drain(OneNodeArgs),
    /// Let a node that was drained take work again
    Resume(OneNodeArgs),
    /// Put a node out of the cluster: its key is refused from then on; drain it before
    Remove(OneNodeArgs),
}

#[derive(Debug, Args)]
struct OneNodeArgs {
    /// The node, as `ringrift nodes` names it [default for drain and resume: this one]
    name: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// Runs the command.
pub fn run(args: &ClusterArgs) -> Outcome {
    match &args.command {
        ClusterCommand::Init(args) => init(args),
        ClusterCommand::Invite(args) => invite(args),
        ClusterCommand::Join(args) => join(args),
        ClusterCommand::Leave(args) => leave(args),
        ClusterCommand::Status(args) => nodes(args),
    }
}

impl OwnArgs {
    /// The directory, taken from managers; refused if it is a node already.
    fn take(&self) -> Result<(DataDir, Lock), Failure> {
        let listen = self.listen.unwrap_or_else(loopback);
        check_listen(listen).or_usage()?;
        check_relays(&self.relay).or_usage()?;
        let dir = self.place.dir()?;
        dir.check_whole().or_usage()?;
        dir.create().or_usage()?;
        let lock = dir.lock().or_usage()?;
        if let Some(there) = Membership::of(&dir).or_usage()? {
            return Err(Failure::usage(anyhow!(
                "{} is a node already, of the {there}: name an empty directory with --data, or `ringrift cluster \
                 leave` makes it stand alone, with its history; what is in {} may be changed there",
                dir.root().display(),
                dir.membership().display()
            )));
        }
        // For another one they mean nothing, and nobody else has them.
        if dir.outbox().exists() {
            let waiting = block_on(async { Ok(Outbox::open(&dir.outbox())?.waiting().await?) })?;
            if waiting > 0 {
                return Err(Failure::usage(anyhow!(
                    "{} has {waiting} batches of games that wait for the log of another cluster: put the \
                     cluster.toml of that one back and start it, or move the file away",
                    dir.outbox().display()
                )));
            }
        }
        let bound = UdpSocket::bind(listen);
        let sentence =
            || format!("listen = {listen}: name a free port and an address of this machine");
        bound.with_context(sentence).or_usage()?;
        // What an earlier call looked at may be another log.
        leave::remove(&dir.replica().join("replica.sqlite"))?;
        Ok((dir, lock))
    }

    fn membership(&self, place: Where) -> Membership {
        let Where { servers, log, pass, credentials, ca, serve } = place;
        let listen = self.listen.unwrap_or_else(loopback);
        let (send_rate, relays) = (self.send_rate, self.relay.clone());
        Membership { servers, log, listen, send_rate, relays, pass, credentials, ca, serve }
    }
}

/// Where a log is, and what lets this node to it.
struct Where {
    servers: String,
    log: String,
    pass: Option<String>,
    credentials: Option<PathBuf>,
    ca: Option<PathBuf>,
    serve: Option<SocketAddr>,
}

impl Where {
    /// Servers that go by the keys of the cluster.
    fn of_keys(servers: String, log: String, pass: String, serve: Option<SocketAddr>) -> Self {
        Self { servers, log, pass: Some(pass), credentials: None, ca: None, serve }
    }

    fn told(servers: Option<&String>, their: &TheirArgs, log: &str) -> Result<Self, Failure> {
        let credentials = holds("--credentials", their.credentials.as_deref(), "NATS USER JWT")?;
        let ca = holds("--ca", their.ca.as_deref(), "BEGIN CERTIFICATE")?;
        let servers = text(servers.map(String::as_str).unwrap_or_default())?;
        Ok(Self { servers, log: log.to_owned(), pass: None, credentials, ca, serve: None })
    }
}

/// The whole path of a file that holds this, wherever the manager is started later.
fn holds(flag: &str, file: Option<&Path>, what: &str) -> Result<Option<PathBuf>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let path = std::path::absolute(file).context(flag.to_owned()).or_usage()?;
    let text = fs_err::read_to_string(&path).context(flag.to_owned()).or_usage()?;
    if text.contains(what) {
        return Ok(Some(path));
    }
    let file = path.display();
    Err(Failure::usage(anyhow!("{flag}: {file} has no line `{what}`: name another file")))
}

/// What was said, or stands in the @FILE that was named.
fn text(said: &str) -> Result<String, Failure> {
    let text = match said.strip_prefix('@') {
        Some("-") => std::io::read_to_string(std::io::stdin()).or_usage()?,
        Some(file) => fs_err::read_to_string(file).or_usage()?,
        None => said.to_owned(),
    };
    Ok(text.trim().to_owned())
}

fn init(args: &InitArgs) -> Outcome {
    let (dir, lock) = args.own.take()?;
    let serve = args.serve.first().copied();
    let place = if serve.is_some() {
        let (servers, pass) = admission::found(&dir, &args.serve, &args.log).or_usage()?;
        Where::of_keys(servers, args.log.clone(), pass, serve)
    } else {
        Where::told(args.servers.as_ref(), &args.their, &args.log)?
    };
    let membership = args.own.membership(place);
    let server = serve.map(|listen| LogServer::at(&dir, listen)).transpose().or_usage()?;
    let copied = multi_threaded()?.block_on(async {
        let shared = open_shared(&membership, &dir, Begin::Yes).await;
        let shared = shared.with_context(|| missing(&dir, &args.serve)).or_usage()?;
        let own = dir.facts().exists().then(|| Embedded::open(&dir.facts(), Options::default()));
        let own = own.transpose().or_usage()?;
        check_target(own.as_ref(), &shared, &membership).await.or_usage()?;
        let Some(own) = own else { return Ok::<_, Failure>(0) };
        // Here, so that a copy that was cut off is the beginning of the same history.
        end_what_held(&own, "cluster init").await?;
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
    drop((server, lock));
    console::say(&format!(
        "{} is the first node of the {membership}; {copied} facts were copied",
        dir.root().display()
    ));
    console::say("  here    ringrift up, as before");
    console::say(match serve {
        Some(_) => "  others  ringrift cluster invite --role selfplay, while it runs",
        None => "  others  ringrift cluster join with the same --servers and --log",
    });
    Ok(())
}

/// What a log that is not there may lack.
fn missing(dir: &DataDir, serve: &[SocketAddr]) -> String {
    let others: Vec<String> = (2..)
        .zip(serve.iter().skip(1))
        .map(|(number, at)| format!("{} to {}", dir.other_server(number).display(), at.ip()))
        .collect();
    if others.is_empty() {
        return "begin the log".to_owned();
    }
    format!(
        "begin the log, for which two of the three servers must run: copy {}, start `nats-server -c \
         server.conf` there in the folder, and call this again",
        others.join(" and ")
    )
}

fn join(args: &JoinArgs) -> Outcome {
    let (dir, lock) = args.own.take()?;
    if dir.facts().exists() {
        return Err(Failure::usage(anyhow!(
            "{} has a history of its own: name an empty directory with --data, or begin a cluster \
             from it with `ringrift cluster init`",
            dir.root().display()
        )));
    }
    let runtime = multi_threaded()?;
    let (place, role) = if let Some(ticket) = &args.ticket {
        let entered = runtime.block_on(admission::enter(&dir, &text(ticket)?)).or_usage()?;
        (Where::of_keys(entered.servers, entered.log, entered.pass, None), Some(entered.role))
    } else {
        (Where::told(args.servers.as_ref(), &args.their, &args.log)?, None)
    };
    let membership = args.own.membership(place);
    // A log that nobody began is refused here.
    runtime.block_on(open_shared(&membership, &dir, Begin::No)).or_usage()?;
    // Before it is a node: whoever is cut off in between calls this again, and a node without its role would run
    // all of the loop.
    let is_kept = match &role {
        Some(role) => keep_role(&dir, role)?,
        None => false,
    };
    membership.write(&dir)?;
    drop(lock);
    console::say(&format!("{} is a node of the {membership}", dir.root().display()));
    console::say(&match role {
        Some(role) if is_kept => format!("  begin   ringrift up, which runs the profile {role}"),
        Some(role) => format!("  begin   ringrift up --profile {role}"),
        None => "  begin   ringrift up --profile coordinator | training | selfplay".to_owned(),
    });
    Ok(())
}

/// Writes the profile that the machine was invited for into a configuration of its directory, where a person sees and
/// changes it; not if there is a configuration already.
fn keep_role(dir: &DataDir, role: &str) -> anyhow::Result<bool> {
    let path = dir.root().join(CONFIGURATION);
    let manager = BTreeMap::from([("manager", BTreeMap::from([("profile", role)]))]);
    let text = format!("# What this machine was invited for.\n{}", toml::to_string(&manager)?);
    let is_configured = std::env::var_os("RINGRIFT_CONFIG").is_some_and(|file| !file.is_empty());
    if path.exists() || is_configured || Path::new(CONFIGURATION).exists() {
        // That of an earlier call, which was cut off, is ours.
        return Ok(path.exists() && fs_err::read_to_string(&path)? == text);
    }
    let aside = path.with_extension("toml.new");
    fs_err::write(&aside, text)?;
    fs_err::rename(aside, &path)?;
    Ok(true)
}

fn invite(args: &InviteArgs) -> Outcome {
    let dir = args.place.existing()?;
    let (role, lasts_seconds) = (args.role.clone(), args.lasts.as_secs().max(1));
    let answer = ask(&dir, &Request::Invite { role, lasts_seconds }, LONG)?;
    if args.print.json {
        return Ok(console::say_json(&answer)?);
    }
    let ticket = answer["ticket"].as_str().unwrap_or_default();
    console::complain(&format!(
        "one machine joins as {} with this within {}, with `ringrift cluster join @FILE --listen \
         ADDRESS:PORT`:",
        args.role,
        console::duration(args.lasts.as_secs_f64())
    ));
    console::say(ticket);
    Ok(())
}

/// Runs `node`.
pub fn node(args: &NodeArgs) -> Outcome {
    let (args, request, done) = match &args.command {
        NodeCommand::Drain(args) => {
            let node = args.name.clone();
            (args, Request::Drain { node, draining: true }, "takes no new work from now on")
        }
        NodeCommand::Resume(args) => {
            let node = args.name.clone();
            (args, Request::Drain { node, draining: false }, "takes work again")
        }
        NodeCommand::Remove(args) => {
            let Some(node) = args.name.clone() else {
                let sentence = "which node? `ringrift nodes` shows their names";
                return Err(Failure::usage(anyhow!(sentence)));
            };
            (args, Request::Remove { node }, "is out: its key is refused from now on")
        }
    };
    let answer = ask(&args.place.existing()?, &request, LONG)?;
    if args.print.json {
        return Ok(console::say_json(&answer)?);
    }
    let node = answer["node"].as_str().or(answer["removed"].as_str()).unwrap_or_default();
    console::say(&format!("node {node} {done}"));
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
        Some(own) => digest(own, Stream::Pipeline, theirs.facts).await?,
        None => History::default(),
    };
    // The beginning of ours: an earlier copy was cut off, and is gone on with.
    ensure!(
        theirs.facts == 0 || theirs == ours,
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
        append_again(shared, stream, &facts).await?;
        console::status(&format!("{} facts: {at} of {head}", stream.name()));
    }
    console::status("");
    // Of the other stream the servers may have let go what is old.
    if stream == Stream::Pipeline
        && digest(own, stream, u64::MAX).await? != digest(shared, stream, u64::MAX).await?
    {
        let sentence = "what was copied is not what is there; this directory was not changed: \
                        name another log with --log";
        return Err(anyhow!(sentence).into());
    }
    Ok(copied)
}

/// Appends facts of another log, with their times and ids; those that are there already are not appended again.
pub(super) async fn append_again(
    log: &Courier,
    stream: Stream,
    facts: &[Fact],
) -> anyhow::Result<()> {
    // A batch has one time.
    for run in facts.chunk_by(|one, next| one.time_ms == next.time_ms) {
        for part in run.chunks(MAX_BATCH) {
            let batch = Batch::new(part.iter().map(again).collect());
            let what = || format!("copy {} facts of {}", part.len(), part[0].time_ms);
            log.append(stream, batch, part[0].time_ms).await.with_context(what)?;
        }
    }
    Ok(())
}

/// What the first facts of a stream say, in their order, whatever their positions.
pub(super) async fn digest(log: &Courier, stream: Stream, most: u64) -> anyhow::Result<History> {
    let (mut at, mut seen) = (0, History::default());
    while seen.facts < most {
        let facts = log.read(stream, at, PAGE).await?;
        let Some(last) = facts.last() else { break };
        at = last.position;
        let rest = usize::try_from(most - seen.facts).unwrap_or(usize::MAX);
        facts.iter().take(rest).for_each(|fact| seen.add(fact));
    }
    Ok(seen)
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

/// Runs `nodes`: the manager knows who is silent; without one the replica tells what was known last.
pub fn nodes(args: &StatusArgs) -> Outcome {
    let dir = args.place.existing()?;
    let membership = Membership::of(&dir).or_usage()?;
    let cluster = if membership.is_some() && dir.is_locked() {
        ask(&dir, &Request::Nodes, LONG)?
    } else {
        json!(block_on(known(&dir))?)
    };
    let nodes = cluster["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    if args.print.json {
        let by_name: BTreeMap<&str, &Value> =
            nodes.iter().filter_map(|node| Some((node["node"].as_str()?, node))).collect();
        let name = membership.as_ref().map(ToString::to_string);
        let shown = json!({
            "cluster": name, "leader": cluster["leader"], "artefacts": cluster["artefacts"],
            "few_copies": cluster["few_copies"], "nodes": by_name,
        });
        return Ok(console::say_json(&shown)?);
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
    let rows: Vec<Vec<String>> = nodes.iter().map(cells).collect();
    let head = ["NODE", "ROLE", "RUNS", "WORKERS", "ITEMS", "HAS", "MACHINE", "VERSION", "DOES"];
    console::table(&head, &rows);
    if let Some(sentence) = status::copies(&cluster) {
        console::say(&sentence);
    }
    Ok(())
}

/// What the log says of the nodes, by the clock of this machine.
async fn known(dir: &DataDir) -> Result<ClusterView, Failure> {
    let Offline { catalogue, log, .. } = &Offline::open(dir).await?;
    let now_ms = warden::Clock::system().now_ms();
    let leases = log.leases(NODES, i64::MIN).await?;
    let seen: Vec<Seen> = leases.iter().filter_map(|lease| Seen::once(lease, now_ms)).collect();
    let leader = log.lease(LEADER, i64::MIN).await?.map(|lease| NodeId(lease.holder));
    let here = fs_err::read_to_string(dir.node()).unwrap_or_default();
    Ok(view_of(catalogue, &seen, leader, &NodeId(here.trim().to_owned())).await?)
}

/// What a person sees of a node.
fn cells(node: &Value) -> Vec<String> {
    let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().map_or_else(String::new, |n| n.to_string());
    let here = if node["here"] == true { " (this one)" } else { "" };
    let role = match (node["leads"] == true, node["report"]["competes"] == true) {
        (true, _) => "leads",
        (false, true) => "stands by",
        (false, false) => "",
    };
    let slots = match (&node["workers"], node["report"]["free_slots"].as_u64()) {
        (Value::Number(all), Some(free)) => {
            format!("{} of {all}", all.as_u64().unwrap_or(free).saturating_sub(free))
        }
        (all, _) => number(all),
    };
    vec![
        format!("{}{here}", text("node")),
        role.to_owned(),
        text("runs"),
        slots,
        number(&node["items"]),
        number(&node["artefacts"]),
        machine(&node["can"]),
        text("version"),
        text("does"),
    ]
}

/// What a machine can do, in words; nothing of a node that did not say.
fn machine(can: &Value) -> String {
    let (Some(cores), Some(memory)) = (can["cores"].as_u64(), can["memory_bytes"].as_f64()) else {
        return String::new();
    };
    let (instructions, speed) = (&can["instructions"], &can["evaluations_per_second"]);
    format!(
        "{cores} cores, {:.1} GiB, {}, {speed} evaluations/s",
        memory / f64::from(1 << 30),
        instructions.as_str().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_to_let_in_is_looked_at_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.creds");
        let refused =
            |what| format!("{:#}", holds("--ca", Some(&file), what).unwrap_err().error.unwrap());
        let missing = refused("BEGIN CERTIFICATE");
        assert!(missing.starts_with("--ca: ") && missing.contains("node.creds"), "{missing}");
        fs_err::write(&file, "-----BEGIN NATS USER JWT-----\nSECRET\n").unwrap();
        let other = refused("BEGIN CERTIFICATE");
        assert!(other.contains("has no line `BEGIN CERTIFICATE`"), "{other}");
        assert!(!other.contains("SECRET"), "{other}");
        let found = holds("--credentials", Some(&file), "NATS USER JWT").unwrap();
        assert_eq!(found, Some(file.clone()));
        assert_eq!(holds("--ca", None, "").unwrap(), None);
    }

    #[test]
    fn a_node_is_one_line_with_what_it_does() {
        let node = json!({
            "node": "a", "here": true, "leads": false, "runs": "profile selfplay", "workers": 4,
            "items": 3, "artefacts": 71,
            "can": {
                "platform": "linux/x86_64", "cores": 8, "memory_bytes": 16_u64 << 30, "instructions": "avx2",
                "evaluations_per_second": 52_417,
            },
            "version": "0.0.0", "does": "3 x selfplay hex8_2p",
            "report": { "competes": false, "free_slots": 1 },
        });
        let shown = [
            "a (this one)",
            "",
            "profile selfplay",
            "3 of 4",
            "3",
            "71",
            "8 cores, 16.0 GiB, avx2, 52417 evaluations/s",
            "0.0.0",
            "3 x selfplay hex8_2p",
        ];
        assert_eq!(cells(&node), shown);
        let silent =
            json!({ "node": "b", "report": null, "workers": 2, "does": "its manager has ended" });
        assert_eq!(cells(&silent), ["b", "", "", "2", "", "", "", "", "its manager has ended"]);
    }
}

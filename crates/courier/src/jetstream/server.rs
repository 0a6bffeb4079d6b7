//! The connection: what the server must be, its streams, and publishing under conditions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Event, HeaderMap, Request};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::Options;
use super::streams::{self, LARGEST};
use super::wire::{BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE, EXPECTED, EXPECTED_ON, Names, Source};
use crate::error::{Error, OpenError};

/// The oldest server that does all we ask for: from 2.12 on a batch is atomic, and this is the oldest
/// of them that the suite passes with. (2.12.0 has no message ids in batches.)
const LEAST: (u64, u64, u64) = (2, 12, 8);

/// How long one question waits for its answer. A server answers in less than a millisecond; what
/// takes longer waits for an election, and is asked again.
const ANSWER: Duration = Duration::from_secs(2);

/// A question that can be asked twice is asked again after so long, and any answer will do: whoever is elected
/// meanwhile never heard of it.
const AGAIN: Duration = Duration::from_millis(400);

/// A connection on which nothing comes is asked for a sign so often, and given up at the third that stays away: a
/// line that is cut without a word, or a machine that hangs, ends no connection. Within the six seconds after which
/// a leader is replaced. The library's own default is a minute.
const SIGN: Duration = Duration::from_secs(1);

/// A leader asks its followers for a sign each second; if the last one is older than this, it may be that one of them
/// looks for another leader.
const HEARD_NS: u64 = 3_000_000_000;

/// Most messages of an atomic batch. Source: the server's own limit.
pub(super) const BATCH: usize = 1000;

/// Error numbers of the server. Source: its list of errors.
mod number {
    pub(super) const NO_STREAM: u64 = 10059;
    pub(super) const NAME_IN_USE: u64 = 10058;
    pub(super) const ONE_SERVER: u64 = 10074;
    pub(super) const NO_JETSTREAM: u64 = 10039;
    /// Another message was expected to be the last on a subject, or one is on its way to it.
    pub(super) const WRONG_LAST: [u64; 2] = [10071, 10164];
    /// Seen already, or on its way.
    pub(super) const SEEN: [u64; 2] = [10201, 10158];
}

/// A message to be published.
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: bytes::Bytes,
}

impl Message {
    pub(super) fn new(subject: String, payload: impl Into<bytes::Bytes>) -> Self {
        Self { subject, headers: HeaderMap::new(), payload: payload.into() }
    }

    /// The same message, taken only if the last one on its own subject is this one; 0 = none.
    pub(super) fn after(mut self, sequence: u64) -> Self {
        self.headers.insert(EXPECTED, sequence.to_string());
        self
    }

    /// The same message, taken only if the last one on another subject is this one.
    pub(super) fn after_on(mut self, subject: &str, sequence: u64) -> Self {
        self.headers.insert(EXPECTED, sequence.to_string());
        self.headers.insert(EXPECTED_ON, subject);
        self
    }

    /// Whether nothing is expected yet: a message has room for one condition.
    pub(super) fn is_free(&self) -> bool {
        self.headers.get(EXPECTED).is_none()
    }
}

/// What became of messages.
#[derive(Debug)]
pub(super) enum Published {
    /// All are in the stream, the last of them here and the others right before it.
    At(u64),
    /// None is: a condition did not hold, or could not be looked at because of others on their way.
    Refused,
    /// One is already in the stream, or on its way.
    Seen,
    /// Nobody knows: no answer came.
    Unknown(String),
}

impl Published {
    /// Why nothing is known to be in the stream, as a sentence.
    pub(super) fn why(self) -> String {
        match self {
            Self::At(_) => "it is in the stream".to_owned(),
            Self::Refused => "others were faster each time".to_owned(),
            Self::Seen => "one of the messages is on its way already".to_owned(),
            Self::Unknown(why) => why,
        }
    }
}

/// A connection to the cluster.
pub(super) struct Server {
    client: Client,
    context: Context,
    pub(super) names: Names,
    /// Counts connections that were lost: what was asked on one is not answered on the next.
    lost: watch::Receiver<u64>,
    /// Begins the ids of our batches.
    ours: String,
    batches: AtomicU64,
}

/// What the server says of a stream.
pub(super) struct StreamState {
    /// The last message.
    pub(super) last: u64,
    /// When it was made: tells it from one that was made anew under the same name.
    pub(super) created: String,
    /// Whether no other server can lead it.
    pub(super) is_surely_led: bool,
}

#[derive(Deserialize)]
struct Reply<T> {
    error: Option<Refusal>,
    #[serde(flatten)]
    answer: Option<T>,
}

#[derive(Debug, Clone, Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Acknowledged {
    error: Option<Refusal>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct Described {
    created: String,
    state: DescribedState,
    config: Config,
    #[serde(default)]
    cluster: DescribedCluster,
}

#[derive(Deserialize)]
struct DescribedState {
    last_seq: u64,
}

#[derive(Default, Deserialize)]
struct DescribedCluster {
    /// Of one server alone there is none.
    name: Option<String>,
    #[serde(default)]
    replicas: Vec<Replica>,
}

/// Another server that has the stream.
#[derive(Deserialize)]
struct Replica {
    /// How long ago the leader heard of it, in ns; 0 if it never did.
    #[serde(default)]
    active: u64,
}

impl Described {
    /// Whether each server that could replace the leader answered it so short a time ago that it waits still. One
    /// that hears nothing waits for 4 s at least; an answer may be a second on its way.
    fn is_surely_led(&self) -> bool {
        let heard = |replica: &Replica| (1..HEARD_NS).contains(&replica.active);
        self.cluster.replicas.iter().all(heard)
    }
}

/// No answer, or a no.
enum NoAnswer {
    Refused(Refusal),
    None(String),
}

fn answer_in<T: serde::de::DeserializeOwned>(reply: &[u8]) -> Result<T, NoAnswer> {
    match serde_json::from_slice(reply).map_err(|error| NoAnswer::None(error.to_string()))? {
        Reply { error: Some(refusal), .. } => Err(NoAnswer::Refused(refusal)),
        Reply { answer: Some(answer), .. } => Ok(answer),
        Reply { .. } => Err(NoAnswer::None("a reply without an answer".to_owned())),
    }
}

impl Server {
    /// Connects, checks what is there, and makes the streams that are missing.
    pub(super) async fn connect(options: &Options) -> Result<Self, OpenError> {
        let servers = options.shown();
        let (connected, lost) = watch::channel(0_u64);
        let named = options.name.clone();
        let turned_away = AtomicBool::new(false);
        let connect = options
            .connect()?
            .name(format!("{} log", options.name))
            .request_timeout(Some(ANSWER))
            .connection_timeout(ANSWER)
            .ping_interval(SIGN)
            // Quick at first, then every second: forty nodes must not storm a server that comes back.
            .reconnect_delay_callback(|tries| {
                Duration::from_millis(u64::try_from(tries).unwrap_or(20).min(20) * 50)
            })
            .event_callback(move |event| {
                match &event {
                    Event::Disconnected => warn!(log = named, "the log's server is out of reach"),
                    Event::Connected => {
                        turned_away.store(false, Ordering::Relaxed);
                        info!(log = named, "connected to the log's server");
                        connected.send_modify(|count| *count += 1);
                    }
                    // Said with each try.
                    Event::ClientError(error)
                        if error.to_string().contains("authorization violation") =>
                    {
                        if !turned_away.swap(true, Ordering::Relaxed) {
                            error!(
                                log = named,
                                "the log's servers do not let this node in any more"
                            );
                        }
                    }
                    other => debug!(log = named, event = %other, "the log's connection"),
                }
                std::future::ready(())
            });
        let client = options.client(connect).await?;
        let info = client.server_info();
        if !is_new_enough(&info.version) {
            let (major, minor, patch) = LEAST;
            let least = format!("{major}.{minor}.{patch}");
            return Err(OpenError::TooOld { server: servers, found: info.version, least });
        }
        if info.max_payload < LARGEST {
            let what = format!(
                "takes messages of {} bytes, at least {LARGEST} are needed: \
                 set `max_payload: 8MB` in its configuration",
                info.max_payload
            );
            return Err(OpenError::Unfit { server: servers, what });
        }
        let ours = client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned();
        let server = Self {
            context: jetstream::new(client.clone()),
            client,
            names: Names(options.name.clone()),
            lost,
            ours,
            batches: AtomicU64::new(0),
        };
        for source in Source::ALL {
            server.establish(source, options).await?;
        }
        Ok(server)
    }

    /// Makes a stream unless it is there, and checks what must be so.
    async fn establish(&self, source: Source, options: &Options) -> Result<(), OpenError> {
        let name = self.names.stream(source);
        let mut config = streams::config(&self.names, source, options);
        let until = tokio::time::Instant::now() + options.patience;
        loop {
            let detail = match self.describe(source).await {
                Ok(Described { config: found, cluster, .. }) => {
                    let what = streams::wrong(&config, &found)
                        .map(|wrong| format!("has a stream {name} that {wrong}"));
                    if let Some(what) = what {
                        return Err(OpenError::Unfit { server: options.shown(), what });
                    }
                    if cluster.name.is_some()
                        && let Some(weak) = streams::weak(&config, &found)
                    {
                        error!(log = options.name, "the stream {name} {weak}");
                    }
                    return Ok(());
                }
                Err(NoAnswer::Refused(no)) if no.err_code == number::NO_STREAM && !options.make => {
                    let what = format!("has no log of the name {:?}", options.name);
                    return Err(OpenError::Unfit { server: options.shown(), what });
                }
                Err(NoAnswer::Refused(no)) if no.err_code == number::NO_STREAM => {
                    let body = serde_json::to_string(&config).unwrap_or_default();
                    match self.ask::<Described>(&format!("STREAM.CREATE.{name}"), &body).await {
                        Ok(_) => {
                            info!(stream = name, replicas = config.num_replicas, "stream made");
                            continue;
                        }
                        // Another node was faster.
                        Err(NoAnswer::Refused(no)) if no.err_code == number::NAME_IN_USE => {
                            continue;
                        }
                        Err(NoAnswer::Refused(no))
                            if no.err_code == number::ONE_SERVER && options.replicas.is_none() =>
                        {
                            config.num_replicas = 1;
                            continue;
                        }
                        Err(NoAnswer::Refused(no)) => no.description,
                        Err(NoAnswer::None(detail)) => detail,
                    }
                }
                Err(NoAnswer::Refused(no)) if no.err_code == number::NO_JETSTREAM => {
                    let what = "has JetStream switched off: add `jetstream { store_dir: ... }` \
                                to its configuration";
                    let server = options.shown();
                    return Err(OpenError::Unfit { server, what: what.to_owned() });
                }
                Err(NoAnswer::Refused(no)) => no.description,
                Err(NoAnswer::None(detail)) => detail,
            };
            // A cluster that has just begun has no leader yet.
            if tokio::time::Instant::now() > until {
                let detail = format!("stream {name}: {detail}");
                return Err(OpenError::Unreachable { servers: options.shown(), detail });
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The last message of a stream, as its leader has it, and when the stream was made.
    pub(super) async fn state(&self, source: Source) -> Result<StreamState, Error> {
        match self.describe(source).await {
            Ok(described) => {
                let is_surely_led = described.is_surely_led();
                let Described { created, state, .. } = described;
                Ok(StreamState { last: state.last_seq, created, is_surely_led })
            }
            Err(NoAnswer::Refused(no)) => Err(Error::Unavailable(no.description)),
            Err(NoAnswer::None(detail)) => Err(Error::Unavailable(detail)),
        }
    }

    /// Removes the oldest operational facts but so many. Guards stay.
    pub(super) async fn keep(&self, stream: crate::Stream, facts: u64) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Purged {}
        let name = self.names.stream(Source::Facts(stream));
        let body = serde_json::json!({ "filter": self.names.fact(stream, ">"), "keep": facts });
        match self.ask::<Purged>(&format!("STREAM.PURGE.{name}"), &body.to_string()).await {
            Ok(_) => Ok(()),
            Err(NoAnswer::Refused(no)) => Err(Error::Unavailable(no.description)),
            Err(NoAnswer::None(detail)) => Err(Error::Unavailable(detail)),
        }
    }

    /// Changes when the connection is a new one.
    pub(super) fn lost(&self) -> watch::Receiver<u64> {
        let mut lost = self.lost.clone();
        lost.mark_unchanged();
        lost
    }

    /// The number of the connection.
    pub(super) fn connection(&self) -> u64 {
        *self.lost.borrow()
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// A subject that nobody else listens to.
    pub(super) fn inbox(&self) -> String {
        self.client.new_inbox()
    }

    /// Listens to a subject.
    pub(super) async fn listen(
        &self,
        subject: String,
    ) -> Result<async_nats::Subscriber, async_nats::SubscribeError> {
        self.client.subscribe(subject).await
    }

    /// A name that nobody else has, for a batch or a record.
    pub(super) fn unique(&self) -> String {
        format!("{}-{}", self.ours, self.batches.fetch_add(1, Ordering::Relaxed))
    }

    /// A message that says nothing but that it was taken.
    pub(super) fn nothing(&self, source: Source) -> Message {
        let node = blake3::hash(self.ours.as_bytes()).as_bytes()[0];
        Message::new(self.names.nothing(source, node), "")
    }

    /// What the leader of a stream says of it.
    async fn describe(&self, source: Source) -> Result<Described, NoAnswer> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.names.stream(source));
        let again_and_again = async {
            let mut asked = FuturesUnordered::new();
            loop {
                // Without a connection they would all wait to be sent.
                if asked.is_empty() || self.client.connection_state() == State::Connected {
                    asked.push(self.client.request(subject.clone(), bytes::Bytes::new()));
                }
                if let Ok(Some(reply)) = timeout(AGAIN, asked.next()).await {
                    return reply;
                }
            }
        };
        answer_in(&self.answer(again_and_again).await.map_err(NoAnswer::None)?)
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        question: &str,
        body: &str,
    ) -> Result<T, NoAnswer> {
        let subject = format!("$JS.API.{question}");
        let request = self.client.request(subject, body.to_owned().into());
        answer_in(&self.answer(request).await.map_err(NoAnswer::None)?)
    }

    /// Waits for an answer as long as one can come.
    async fn answer(
        &self,
        request: impl Future<Output = Result<async_nats::Message, async_nats::RequestError>>,
    ) -> Result<bytes::Bytes, String> {
        let mut lost = self.lost();
        tokio::select! {
            reply = timeout(ANSWER, request) => match reply {
                Ok(Ok(reply)) => Ok(reply.payload),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            },
            _ = lost.changed() => Err("the connection was lost".to_owned()),
        }
    }

    /// Publishes messages to one stream, all or none.
    pub(super) async fn publish(&self, mut messages: Vec<Message>) -> Published {
        if messages.len() > 1 {
            let id = self.unique();
            for (n, message) in messages.iter_mut().enumerate() {
                message.headers.insert(BATCH_ID, id.as_str());
                message.headers.insert(BATCH_SEQUENCE, (n + 1).to_string());
            }
        }
        let Some(mut last) = messages.pop() else { return Published::Unknown(String::new()) };
        if !messages.is_empty() {
            last.headers.insert(BATCH_COMMIT, "1");
        }
        let published = async {
            for Message { subject, headers, payload } in messages {
                if self.client.publish_with_headers(subject, headers, payload).await.is_err() {
                    return Err(async_nats::RequestError::new(async_nats::RequestErrorKind::Other));
                }
            }
            let request = Request::new().headers(last.headers).payload(last.payload);
            self.client.send_request(last.subject, request).await
        };
        let reply = match self.answer(published).await {
            Ok(reply) => reply,
            Err(detail) => return Published::Unknown(detail),
        };
        let reply: Acknowledged = match serde_json::from_slice(&reply) {
            Ok(reply) => reply,
            Err(error) => return Published::Unknown(error.to_string()),
        };
        match (reply.error, reply.seq) {
            (None, _) if reply.duplicate => Published::Seen,
            (None, seq) if seq > 0 => Published::At(seq),
            (Some(no), _) if number::WRONG_LAST.contains(&no.err_code) => Published::Refused,
            (Some(no), _) if number::SEEN.contains(&no.err_code) => Published::Seen,
            // A batch that lost a message, a server without a leader, a full disk: some of these say
            // no though the messages are in the stream, so none is believed.
            (Some(no), _) => Published::Unknown(format!("{} ({})", no.description, no.err_code)),
            (None, _) => Published::Unknown("an answer without a position".to_owned()),
        }
    }
}

/// The part before a dash, number by number.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= LEAST
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_leader_is_sure_that_it_leads_while_all_others_were_heard_a_moment_ago() {
        let is_surely_led = |active: &[u64]| {
            let replicas: Vec<_> = active.iter().map(|ns| json!({ "active": ns })).collect();
            let described = json!({
                "created": "", "state": { "last_seq": 1 }, "cluster": { "replicas": replicas },
                "config": Config::default(),
            });
            serde_json::from_value::<Described>(described).unwrap().is_surely_led()
        };
        for (active, is_sure) in [
            (&[][..], true),
            (&[500_000_000, 1_200_000_000], true),
            (&[500_000_000, 3_100_000_000], false),
            // Never since it leads.
            (&[0, 500_000_000], false),
        ] {
            assert_eq!(is_surely_led(active), is_sure, "{active:?}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (version, fits) in [
            ("2.9.10", false),
            ("2.11.11", false),
            ("2.12.0", false),
            ("2.12.7", false),
            ("2.12.8", true),
            ("2.12.10", true),
            ("2.15.1", true),
            ("2.15.0-beta.1", true),
            ("3.0.0", true),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), fits, "{version}");
        }
    }
}

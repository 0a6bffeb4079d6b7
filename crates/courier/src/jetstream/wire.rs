//! What is in a message: subjects, headers, and the records of the state stream.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_nats::HeaderMap;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::dead::DeadLetter;
use crate::error::AppendError;
use crate::fact::{MAX_BODY_BYTES, NewFact, Stream, check_name, check_subject};

/// Headers of the server. Source: its documents on consistency headers and atomic batches.
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
pub(super) const EXPECTED_ON: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
pub(super) const EXPECTED_IN_ALL: &str = "Nats-Expected-Last-Sequence";
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(super) const TIME_TO_LIVE: &str = "Nats-TTL";
pub(super) const BATCH_ID: &str = "Nats-Batch-Id";
pub(super) const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
pub(super) const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// Ours: all of a fact but its subject and its body, as JSON, which has no line breaks.
const FACT: &str = "Fact";

/// Begins the keys of the state stream under which nothing is.
const NOTHING: &str = "nothing.";

/// How many of those there are.
const KEYS_FOR_NOTHING: u8 = 64;

/// One of the three streams of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Facts(Stream),
    /// Leases, positions of subscribers and dead letters, the last state of each: a key-value bucket.
    State,
}

impl Source {
    pub(super) const ALL: [Self; 3] =
        [Self::Facts(Stream::Pipeline), Self::Facts(Stream::Operational), Self::State];

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Facts(Stream::Pipeline) => 0,
            Self::Facts(Stream::Operational) => 1,
            Self::State => 2,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Facts(stream) => stream.name(),
            Self::State => "state",
        }
    }
}

/// Names on the server, all under one name, so that several logs may share a server.
#[derive(Debug, Clone)]
pub(super) struct Names(pub(super) String);

impl Names {
    /// The stream of the server.
    pub(super) fn stream(&self, source: Source) -> String {
        match source {
            Source::Facts(stream) => format!("{}_{}", self.0, stream.name()),
            // The name of a bucket, so that the tools for buckets show it.
            Source::State => format!("KV_{}", self.0),
        }
    }

    /// The beginning of all subjects of a stream.
    pub(super) fn root(&self, source: Source) -> String {
        match source {
            Source::Facts(stream) => format!("{}.{}", self.0, stream.name()),
            Source::State => format!("$KV.{}", self.0),
        }
    }

    pub(super) fn fact(&self, stream: Stream, subject: &str) -> String {
        format!("{}.fact.{subject}", self.root(Source::Facts(stream)))
    }

    /// Where the guard of a lease lies.
    pub(super) fn guard(&self, stream: Stream, lease: &str) -> String {
        format!("{}.guard.{}", self.root(Source::Facts(stream)), token(lease))
    }

    /// Where a batch leaves the message that carries its fence, if none of its facts can.
    pub(super) fn fence(&self, stream: Stream) -> String {
        format!("{}.fence", self.root(Source::Facts(stream)))
    }

    /// Where a message that says nothing goes. A key keeps one of those, so each node has its own key, as far as a
    /// few suffice.
    pub(super) fn nothing(&self, source: Source, node: u8) -> String {
        match source {
            Source::Facts(stream) => self.fence(stream),
            Source::State => self.record(&format!("{NOTHING}{}", node % KEYS_FOR_NOTHING)),
        }
    }

    pub(super) fn record(&self, key: &str) -> String {
        format!("{}.{key}", self.root(Source::State))
    }

    /// The key of a record by its subject; none if records lie elsewhere.
    pub(super) fn key<'a>(&self, source: Source, subject: &'a str) -> Option<&'a str> {
        let is_state = source == Source::State;
        subject.strip_prefix(&self.root(source))?.strip_prefix('.').filter(|_| is_state)
    }
}

/// A name as one token of a subject and of a key: letters, digits, `-` and `_` stay, every other byte
/// becomes `=` and two hexadecimal digits.
pub(super) fn token(name: &str) -> String {
    use std::fmt::Write as _;
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            token.push(char::from(byte));
        } else {
            let _ = write!(token, "={byte:02X}");
        }
    }
    token
}

/// All of a fact but its subject and its body.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<Cow<'a, str>>,
    pub(super) time_ms: i64,
}

/// The headers of a fact, without what is expected.
///
/// The server refuses an id that it saw a short while ago; it gets a hash, because ids may be of any
/// letters and a header may not.
pub(super) fn fact_headers(fact: &NewFact, now_ms: i64) -> Result<HeaderMap, serde_json::Error> {
    let head = Head {
        id: (&*fact.id).into(),
        source: (&*fact.source).into(),
        cause: fact.cause.as_deref().map(Into::into),
        time_ms: now_ms,
    };
    let mut headers = HeaderMap::new();
    headers.insert(FACT, serde_json::to_string(&head)?);
    headers.insert(MESSAGE_ID, &blake3::hash(fact.id.as_bytes()).to_hex()[..32]);
    Ok(headers)
}

/// The state of a lease as far as fences look: a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Epoch {
    pub(super) epoch: u64,
    /// Given back.
    pub(super) over: bool,
}

/// Says which state of a lease the facts behind it may rely on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guard {
    pub(super) lease: String,
    #[serde(flatten)]
    pub(super) state: Epoch,
}

/// What the state stream keeps under a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Record {
    /// What tells this log from others.
    Identity { id: String },
    /// A lease, also when it is given back: for its epoch.
    Lease {
        name: String,
        holder: Option<String>,
        epoch: u64,
        expires_ms: i64,
        /// An older program writes none and reads over it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// How far a subscriber is, and how often the fact in its hands was delivered.
    Subscriber { stream: Stream, name: String, position: u64, in_hand: u64, attempts: u32 },
    /// The highest number of a letter so far.
    Letters { last: u64 },
    /// A dead letter.
    Letter(Box<DeadLetter>),
    /// A dead letter that was removed.
    Removed { letter: u64 },
}

impl Record {
    pub(super) fn key(&self) -> String {
        match self {
            Self::Identity { .. } => "identity".to_owned(),
            Self::Lease { name, .. } => format!("lease.{}", token(name)),
            Self::Subscriber { stream, name, .. } => {
                format!("subscriber.{}.{}", stream.name(), token(name))
            }
            Self::Letters { .. } => "letters".to_owned(),
            Self::Letter(letter) => format!("letter.{}", letter.id),
            Self::Removed { letter } => format!("letter.{letter}"),
        }
    }

    /// The largest number that has to fit the tables of a replica.
    fn largest(&self) -> u64 {
        match self {
            Self::Identity { .. } => 0,
            Self::Lease { epoch, .. } => *epoch,
            Self::Subscriber { position, in_hand, .. } => *position.max(in_hand),
            Self::Letters { last } => *last,
            Self::Letter(letter) => letter.id.max(letter.fact.position),
            Self::Removed { letter } => *letter,
        }
    }
}

/// Tables have signed numbers only.
fn check_number(number: u64) -> Result<(), String> {
    match i64::try_from(number) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("the number {number} is too large")),
    }
}

/// JSON of which a value can be made. Looking over it alone lets pass numbers and letters that are none.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self, A::Error> {
        while all.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Self, A::Error> {
        while all.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// A record and who wrote it: whoever did not hear an answer knows his own by it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) by: String,
    #[serde(flatten)]
    pub(super) record: Record,
}

/// A message of one of the streams, read.
#[derive(Debug)]
pub(super) enum Content {
    Fact(Arc<Stored>),
    Guard(Guard),
    Record(Box<Written>),
    /// Nothing that can be read, under the key of a record: the next who writes it comes after this.
    Unreadable {
        key: String,
    },
    /// Carried the fence of a batch, or showed who leads.
    Nothing,
}

/// A fact as it lies in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) time_ms: i64,
    pub(super) source: String,
    pub(super) cause: Option<String>,
    pub(super) body: String,
}

impl Stored {
    /// A fact as it will lie there.
    pub(super) fn of(fact: &NewFact, body: &str, now_ms: i64) -> Self {
        Self {
            id: fact.id.clone(),
            subject: fact.subject.clone(),
            time_ms: now_ms,
            source: fact.source.clone(),
            cause: fact.cause.clone(),
            body: body.to_owned(),
        }
    }
}

impl Content {
    /// Reads a message; says what is wrong with one that this engine did not write.
    pub(super) fn read(
        names: &Names,
        source: Source,
        subject: &str,
        headers: Option<&HeaderMap>,
        payload: &[u8],
    ) -> Result<Self, String> {
        let rest =
            subject.strip_prefix(&names.root(source)).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.ok_or("it is on a foreign subject")?;
        let unreadable = |error: serde_json::Error| error.to_string();
        if source == Source::State {
            if rest.starts_with(NOTHING) {
                return Ok(Self::Nothing);
            }
            let written: Box<Written> = serde_json::from_slice(payload).map_err(unreadable)?;
            if written.record.key() != rest {
                return Err(format!("it is a record of {}", written.record.key()));
            }
            check_number(written.record.largest())?;
            return Ok(Self::Record(written));
        }
        if let Some(subject) = rest.strip_prefix("fact.") {
            let head = headers.and_then(|headers| headers.get(FACT)).ok_or("it has no head")?;
            let head: Head<'_> = serde_json::from_str(head.as_str()).map_err(unreadable)?;
            if payload.len() > MAX_BODY_BYTES {
                return Err(format!("its body has {} bytes", payload.len()));
            }
            let refused = |error: AppendError| error.to_string();
            check_subject(subject).map_err(refused)?;
            check_name("id", &head.id).map_err(refused)?;
            check_name("source", &head.source).map_err(refused)?;
            if let Some(cause) = &head.cause {
                check_name("cause", cause).map_err(refused)?;
            }
            serde_json::from_slice::<Readable>(payload).map_err(unreadable)?;
            let body = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
            return Ok(Self::Fact(Arc::new(Stored {
                id: head.id.into_owned(),
                subject: subject.to_owned(),
                time_ms: head.time_ms,
                source: head.source.into_owned(),
                cause: head.cause.map(Cow::into_owned),
                body: body.to_owned(),
            })));
        }
        if let Some(of) = rest.strip_prefix("guard.") {
            let guard: Guard = serde_json::from_slice(payload).map_err(unreadable)?;
            if token(&guard.lease) != of {
                return Err(format!("it is a guard of {}", guard.lease));
            }
            check_number(guard.state.epoch)?;
            return Ok(Self::Guard(guard));
        }
        if rest == "fence" {
            Ok(Self::Nothing)
        } else {
            Err("it is on an unknown subject".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_one_token_and_no_two_names_share_one() {
        for (name, expected) in
            [("leader", "leader"), ("job.2", "job=2E2"), ("a=b", "a=3Db"), ("ä *", "=C3=A4=20=2A")]
        {
            assert_eq!(token(name), expected);
        }
    }

    #[test]
    fn a_fact_comes_out_of_its_message_as_it_went_in() {
        let names = Names("log".to_owned());
        let stream = Stream::Pipeline;
        let fact = NewFact::new(" ä:\u{2028} 1 ", "a.b", "m\u{a0}e", json!({ "x": [1, "\n"] }));
        let fact = fact.caused_by("\"quoted\"");
        let body = fact.body.to_string();
        let headers = fact_headers(&fact, 7).unwrap();
        let subject = names.fact(stream, &fact.subject);
        let content =
            Content::read(&names, Source::Facts(stream), &subject, Some(&headers), body.as_bytes());
        let Ok(Content::Fact(stored)) = content else { panic!("{content:?}") };
        assert_eq!(*stored, Stored::of(&fact, &body, 7));
    }

    #[test]
    fn what_others_wrote_is_named() {
        let names = Names("log".to_owned());
        let source = Source::Facts(Stream::Pipeline);
        for (subject, payload, part) in [
            ("other.pipeline.fact.a", "1", "foreign subject"),
            ("log.pipelines.fact.a", "1", "foreign subject"),
            ("log.pipeline.other", "1", "unknown subject"),
            ("log.pipeline.fact.a", "1", "no head"),
            ("log.pipeline.guard.a", "1", "invalid type"),
        ] {
            let wrong = Content::read(&names, source, subject, None, payload.as_bytes());
            let wrong = wrong.expect_err(subject);
            assert!(wrong.contains(part), "{wrong}");
        }
    }

    #[test]
    fn what_no_table_takes_is_named_before_it_gets_there() {
        let names = Names("log".to_owned());
        let wrong = |source, subject: &str, head: Option<serde_json::Value>, payload: &str| {
            let mut headers = HeaderMap::new();
            if let Some(head) = head {
                headers.insert(FACT, head.to_string());
            }
            let payload = payload.as_bytes();
            Content::read(&names, source, subject, Some(&headers), payload).expect_err(subject)
        };
        let facts = Source::Facts(Stream::Pipeline);
        let head = |id: &str| Some(json!({ "id": id, "source": "m", "time_ms": 1 }));
        let long = format!("\"{}\"", "x".repeat(MAX_BODY_BYTES));
        for (subject, head, payload, part) in [
            ("a", head("i"), &*long, "its body has 1048578 bytes"),
            ("a", head("i"), "1e999", "number out of range"),
            ("a", head("i"), r#"{"a":["\ud800"]}"#, "hex escape"),
            ("a", head("i"), "{}{", "trailing characters"),
            ("a", head(""), "1", "the id \"\""),
            ("a", head(&"i".repeat(256)), "1", "1 to 255 bytes"),
            (&*"a".repeat(256), head("i"), "1", "the subject"),
        ] {
            let wrong = wrong(facts, &names.fact(Stream::Pipeline, subject), head, payload);
            assert!(wrong.contains(part), "{wrong}");
        }
        let huge = u64::MAX;
        let guard = |lease: &str| json!({ "lease": lease, "epoch": huge, "over": false });
        for (lease, part) in [("l", "is too large"), ("m", "it is a guard of m")] {
            let guard = guard(lease).to_string();
            let wrong = wrong(facts, "log.pipeline.guard.l", None, &guard);
            assert!(wrong.contains(part), "{wrong}");
        }
        for (key, record, part) in [
            ("letters", json!({ "kind": "letters", "last": huge }), "is too large"),
            ("letter.1", json!({ "kind": "letters", "last": 1 }), "it is a record of letters"),
            ("letters", json!({ "kind": "letter", "last": 1 }), "missing field"),
        ] {
            let mut record = record;
            record["by"] = json!("me");
            let wrong = wrong(Source::State, &names.record(key), None, &record.to_string());
            assert!(wrong.contains(part), "{wrong}");
        }
    }

    #[test]
    fn a_later_state_of_a_lease_is_greater() {
        let states = [(1, false), (1, true), (2, false), (9, true)];
        let states = states.map(|(epoch, over)| Epoch { epoch, over });
        assert!(states.is_sorted_by(|a, b| a < b));
    }
}

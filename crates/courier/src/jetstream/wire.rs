//! What is in a message: subjects, headers, and the records of the state stream.

use std::borrow::Cow;
use std::sync::Arc;

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::dead::DeadLetter;
use crate::fact::{NewFact, Stream};

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
            return Ok(Self::Record(serde_json::from_slice(payload).map_err(unreadable)?));
        }
        if let Some(subject) = rest.strip_prefix("fact.") {
            let head = headers.and_then(|headers| headers.get(FACT)).ok_or("it has no head")?;
            let head: Head<'_> = serde_json::from_str(head.as_str()).map_err(unreadable)?;
            serde_json::from_slice::<serde::de::IgnoredAny>(payload).map_err(unreadable)?;
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
        if rest.starts_with("guard.") {
            return Ok(Self::Guard(serde_json::from_slice(payload).map_err(unreadable)?));
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
        let fact = NewFact::new(" ä:\u{2028} 1 ", "a.b", "m\u{85}e", json!({ "x": [1, "\n"] }));
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
    fn a_later_state_of_a_lease_is_greater() {
        let states = [(1, false), (1, true), (2, false), (9, true)];
        let states = states.map(|(epoch, over)| Epoch { epoch, over });
        assert!(states.is_sorted_by(|a, b| a < b));
    }
}

//! Facts and batches of facts, before and after they are in the log.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::AppendError;

/// Most bytes of one body as JSON. Source: the default `max_payload` of NATS servers, 1 MiB.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Most facts of one batch. Source: the limit of an atomic batch in JetStream, 1000 messages.
pub const MAX_BATCH: usize = 1000;

/// Most bytes of all bodies of a batch as JSON: bounds what waits for the writer in memory.
pub const MAX_BATCH_BYTES: usize = 8 << 20;

/// Longest id, subject, source or cause in bytes: an index entry stays well below a page.
const MAX_NAME_BYTES: usize = 255;

/// Which of the two logs; each has its own positions and its own ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Kept for ever: everything that can be derived is derived from it.
    Pipeline,
    /// Kept for a while: what happens too often to keep and matters only to people.
    Operational,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Self; 2] = [Self::Pipeline, Self::Operational];

    /// The name in messages and in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Operational => "operational",
        }
    }
}

/// A fact in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Place in its stream: from 1 upwards, strictly growing, not always without gaps.
    pub position: u64,
    /// Stable across retries and hops; unique in its stream.
    pub id: String,
    /// What it is about: tokens joined by dots, such as `order.paid.17`.
    pub subject: String,
    /// When it was appended, milliseconds since the Unix epoch, by the clock of who appended it.
    pub time_ms: i64,
    /// Who says so.
    pub source: String,
    /// The id of the fact that led to this one.
    pub cause: Option<String>,
    /// What happened.
    pub body: Value,
}

/// A fact that is not in the log yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewFact {
    /// Stable across retries: appending an id again changes nothing and gives the old position.
    pub id: String,
    /// Tokens joined by dots; printable ASCII without blank, `*` and `>`.
    pub subject: String,
    /// Who says so.
    pub source: String,
    /// The id of the fact that led to this one.
    pub cause: Option<String>,
    /// What happened; at most [`MAX_BODY_BYTES`] as JSON.
    pub body: Value,
    /// What the subject must look like for the batch to be taken.
    pub expect: Option<Expect>,
}

impl NewFact {
    /// The same in the log.
    pub(crate) fn at(self, position: u64, time_ms: i64) -> Fact {
        let Self { id, subject, source, cause, body, expect: _ } = self;
        Fact { position, id, subject, time_ms, source, cause, body }
    }

    /// A fact without cause and without expectation.
    pub fn new(
        id: impl Into<String>,
        subject: impl Into<String>,
        source: impl Into<String>,
        body: Value,
    ) -> Self {
        Self {
            id: id.into(),
            subject: subject.into(),
            source: source.into(),
            cause: None,
            body,
            expect: None,
        }
    }

    /// The same fact, led to by the fact with this id.
    #[must_use]
    pub fn caused_by(mut self, id: impl Into<String>) -> Self {
        self.cause = Some(id.into());
        self
    }

    /// The same fact, to be taken only if the last one on its subject is at `position`; 0 = none.
    #[must_use]
    pub fn after(mut self, position: u64) -> Self {
        self.expect = Some(Expect::LastOnSubject(position));
        self
    }
}

/// A condition on the log as it is before the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The last fact on the same subject is at this position; 0 = there is none.
    LastOnSubject(u64),
}

/// Proof that the appender still holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The lease's name.
    pub lease: String,
    /// The epoch that was granted.
    pub epoch: u64,
}

/// Facts that enter the log together or not at all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// One to [`MAX_BATCH`] facts, in order.
    pub facts: Vec<NewFact>,
    /// The batch is refused if this lease was lost.
    pub fence: Option<Fence>,
}

impl Batch {
    /// A batch of these facts, without a fence.
    pub fn new(facts: Vec<NewFact>) -> Self {
        Self { facts, fence: None }
    }

    /// The same batch, taken only while the lease is not lost.
    #[must_use]
    pub fn fenced(mut self, lease: &crate::Lease) -> Self {
        self.fence = Some(lease.fence());
        self
    }

    /// What every engine refuses before it looks at its log.
    ///
    /// Returns the bodies as JSON text, in order.
    pub(crate) fn checked(&self) -> Result<Vec<String>, AppendError> {
        if self.facts.is_empty() {
            return Err(AppendError::Invalid { what: "a batch without facts".to_owned() });
        }
        if self.facts.len() > MAX_BATCH {
            return Err(AppendError::TooLarge {
                what: "facts in a batch".to_owned(),
                size: self.facts.len(),
                limit: MAX_BATCH,
            });
        }
        let mut ids = std::collections::HashSet::new();
        let bodies: Vec<String> = self
            .facts
            .iter()
            .map(|fact| {
                check_name("id", &fact.id)?;
                check_name("source", &fact.source)?;
                if let Some(cause) = &fact.cause {
                    check_name("cause", cause)?;
                }
                check_subject(&fact.subject)?;
                if !ids.insert(fact.id.as_str()) {
                    let what = format!("a batch with the id {:?} twice", fact.id);
                    return Err(AppendError::Invalid { what });
                }
                let body = fact.body.to_string();
                if body.len() > MAX_BODY_BYTES {
                    return Err(AppendError::TooLarge {
                        what: format!("bytes in the body of {}", fact.subject),
                        size: body.len(),
                        limit: MAX_BODY_BYTES,
                    });
                }
                Ok(body)
            })
            .collect::<Result<_, _>>()?;
        let size = bodies.iter().map(String::len).sum();
        if size > MAX_BATCH_BYTES {
            let what = "bytes in the bodies of a batch".to_owned();
            return Err(AppendError::TooLarge { what, size, limit: MAX_BATCH_BYTES });
        }
        Ok(bodies)
    }
}

impl From<NewFact> for Batch {
    fn from(fact: NewFact) -> Self {
        Self::new(vec![fact])
    }
}

pub(crate) fn check_name(what: &str, name: &str) -> Result<(), AppendError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        let what = format!(
            "the {what} {name:?}: it must have 1 to {MAX_NAME_BYTES} bytes, none a control character"
        );
        return Err(AppendError::Invalid { what });
    }
    Ok(())
}

pub(crate) fn check_subject(subject: &str) -> Result<(), AppendError> {
    let fits = subject.len() <= MAX_NAME_BYTES
        && subject.split('.').all(|token| {
            !token.is_empty()
                && token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>'))
        });
    if fits {
        return Ok(());
    }
    Err(AppendError::Invalid {
        what: format!(
            "the subject {subject:?}: it must be tokens of printable ASCII joined by dots, \
             without `*` and `>`, at most {MAX_NAME_BYTES} bytes"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_subject_is_tokens_joined_by_dots() {
        for (subject, fits) in [
            ("a", true),
            ("order.paid.17", true),
            ("node:a/b.x_y-z", true),
            ("", false),
            (".a", false),
            ("a.", false),
            ("a..b", false),
            ("a b", false),
            ("a.*", false),
            ("a.>", false),
            ("ä", false),
        ] {
            assert_eq!(check_subject(subject).is_ok(), fits, "{subject:?}");
        }
        assert!(check_subject(&"x".repeat(255)).is_ok());
        assert!(check_subject(&"x".repeat(256)).is_err());
    }

    #[test]
    fn a_batch_is_refused_for_what_is_wrong_with_it() {
        let fact = |id: &str| NewFact::new(id, "s", "test", json!({}));
        assert!(Batch::new(vec![fact("a"), fact("b")]).checked().is_ok());
        for (batch, part) in [
            (Batch::default(), "without facts"),
            (Batch::new(vec![fact("a"), fact("a")]), "\"a\" twice"),
            (Batch::new(vec![fact("")]), "the id"),
            (Batch::new(vec![fact("a").caused_by("x\n")]), "the cause"),
            (Batch::new((0..=MAX_BATCH).map(|i| fact(&i.to_string())).collect()), "1001"),
            (NewFact::new("a", "s", "test", json!("x".repeat(MAX_BODY_BYTES))).into(), "body of s"),
        ] {
            let error = batch.checked().expect_err(part).to_string();
            assert!(error.contains(part), "{error} should name {part}");
        }
    }
}

//! Admission: how a machine without a pass gets one.
//!
//! Whoever holds the keys of the cluster makes a **ticket**: where the servers are, by which certificate they
//! are known, and a key that may do one thing for a while, ask at the **door**. The newcomer makes a key of
//! its own, asks with the ticket, and gets a pass for that key. Whether a ticket was used already
//! is decided by the one who answers, by a fact in the log; so a second machine with a copy of it stays
//! out, and the first one may ask again if the answer was lost.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::client::RequestErrorKind;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Options;
use super::keys::{Authority, Identity, KeyError, node_key, public_bytes};
use crate::error::OpenError;
use crate::without_secrets;

/// What a ticket begins with: the form of the rest.
const FORM: &str = "ticket1-";
/// Bytes of the longest question at the door.
const LONGEST: usize = 4096;
/// Longest name of a newcomer.
const NAME: usize = 100;
/// Time for an answer from the door.
const ANSWER: Duration = Duration::from_secs(10);

/// Time for a manager that just began to open its door.
const OPENS_WITHIN: Duration = Duration::from_secs(20);

/// Where newcomers ask.
pub(super) fn door(log: &str) -> String {
    format!("{log}.admission")
}

/// Where answers to this key come, and to nobody else.
pub(super) fn inbox(key: &str) -> String {
    format!("_INBOX_{key}")
}

/// Whether an answer that is sent there comes to this key.
fn is_own(reply: &str, key: &str) -> bool {
    reply.strip_prefix(&inbox(key)).is_some_and(|rest| rest.starts_with('.'))
}

/// What lets one machine in, once.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// Addresses of the servers, joined by commas.
    pub servers: String,
    /// The log's name.
    pub log: String,
    /// The certificate by which the servers are known, PEM.
    pub certificate: String,
    /// What the newcomer is for, in the words of whoever invites.
    pub role: String,
    secret: String,
    pass: String,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Not a ticket.
    #[error("this is no ticket: one begins with {FORM} and is as long as it was printed")]
    NotATicket,
    /// The servers do not answer, or the ticket's time is over.
    #[error(
        "the servers at {servers} are out of reach, or do not know this ticket, or its time is over: \
         {detail}"
    )]
    Unreachable {
        /// Their addresses.
        servers: String,
        /// What was said last.
        detail: String,
    },
    /// Nobody answers.
    #[error(
        "nobody who may let in answers: a manager must run on the node that has the keys of the cluster"
    )]
    NobodyThere,
    /// Refused.
    #[error("not let in: {0}")]
    Refused(String),
    /// A key is not as it must be.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate cannot be kept.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Ticket {
    /// A new one, which holds until then, milliseconds since the Unix epoch; gives the number of the invitation
    /// as well.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn make(
        authority: &Authority,
        servers: &str,
        log: &str,
        role: &str,
        expires_ms: i64,
    ) -> Result<(String, Self), KeyError> {
        let key = KeyPair::new_user();
        let number = key.public_key();
        let secret = key.seed().map_err(|error| KeyError::Sign {
            what: "a ticket".into(),
            detail: error.to_string(),
        })?;
        let ticket = Self {
            servers: without_secrets(servers),
            log: log.to_owned(),
            certificate: authority.certificate()?,
            role: role.to_owned(),
            secret,
            pass: authority.pass_to_the_door(&number, log, expires_ms)?,
        };
        Ok((number, ticket))
    }

    /// Asks to be let in under `name`, with this secret key; gives the pass. The servers'
    /// certificate is kept in the file `certificate`.
    ///
    /// # Errors
    /// See [`AdmissionError`].
    pub async fn enter(
        &self,
        secret: [u8; 32],
        name: &str,
        certificate: &Path,
    ) -> Result<String, AdmissionError> {
        let ticket = KeyPair::from_seed(&self.secret).map_err(|_| AdmissionError::NotATicket)?;
        let key = node_key(secret)?;
        let said = Said { key: key.public_key(), name: name.to_owned() };
        let question = Question {
            pass: self.pass.clone(),
            by_ticket: said.signed(&ticket)?,
            by_key: said.signed(&key)?,
            said,
        };
        fs_err::write(certificate, &self.certificate)?;

        let prefix = inbox(&ticket.public_key());
        let options = Options {
            identity: Some(Identity::of(ticket, self.pass.clone())),
            certificate: Some(certificate.to_owned()),
            ..Options::new(&self.servers, &self.log, "")
        };
        let unreachable =
            |detail: String| AdmissionError::Unreachable { servers: self.servers.clone(), detail };
        let client = async {
            let connect = options.connect()?.custom_inbox_prefix(prefix);
            options.client(connect.request_timeout(Some(ANSWER))).await
        };
        let client = client.await.map_err(|error| unreachable(error.to_string()))?;
        let payload = serde_json::to_vec(&question).map_err(|_| AdmissionError::NotATicket)?;
        let until = Instant::now() + OPENS_WITHIN;
        let answer = loop {
            match client.request(door(&self.log), payload.clone().into()).await {
                Ok(answer) => break answer,
                Err(error) if error.kind() != RequestErrorKind::NoResponders => {
                    return Err(unreachable(error.to_string()));
                }
                Err(_) if Instant::now() > until => return Err(AdmissionError::NobodyThere),
                Err(_) => tokio::time::sleep(OPENS_WITHIN / 50).await,
            }
        };
        match serde_json::from_slice(&answer.payload) {
            Ok(Answer::Pass(pass)) => Ok(pass),
            Ok(Answer::Refused(why)) => Err(AdmissionError::Refused(why)),
            Err(_) => Err(unreachable("an answer that is none".into())),
        }
    }
}

/// As it is handed on.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{FORM}{}", URL_SAFE_NO_PAD.encode(text))
    }
}

/// Without the secret.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket for {} at {}", self.log, self.servers)
    }
}

impl FromStr for Ticket {
    type Err = AdmissionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let coded = text.trim().strip_prefix(FORM).ok_or(AdmissionError::NotATicket)?;
        let json = URL_SAFE_NO_PAD.decode(coded).map_err(|_| AdmissionError::NotATicket)?;
        serde_json::from_slice(&json).map_err(|_| AdmissionError::NotATicket)
    }
}

/// What a newcomer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    key: String,
    name: String,
}

impl Said {
    fn text(&self) -> String {
        format!("let {} in as {}", self.key, self.name)
    }

    fn signed(&self, key: &KeyPair) -> Result<String, KeyError> {
        let signed = key.sign(self.text().as_bytes());
        let signed = signed.map_err(|error| KeyError::Sign {
            what: "the door".into(),
            detail: error.to_string(),
        })?;
        Ok(URL_SAFE_NO_PAD.encode(signed))
    }

    fn is_signed(&self, by: &str, signature: &str) -> bool {
        let key = KeyPair::from_public_key(by);
        let signature = URL_SAFE_NO_PAD.decode(signature);
        matches!((key, signature), (Ok(key), Ok(signature))
            if key.verify(self.text().as_bytes(), &signature).is_ok())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// What the authority signed: names the invitation and its end.
    pass: String,
    said: Said,
    /// Only who has the ticket asks.
    by_ticket: String,
    /// Only who has the key gets a pass for it.
    by_key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Pass(String),
    Refused(String),
}

/// Who asks to be let in; that it has both the ticket and the key is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// The number of its invitation.
    pub invitation: String,
    /// Its public key, as servers write it.
    pub key: String,
    /// Its name.
    pub name: String,
    /// When its ticket ends, milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

impl Newcomer {
    /// Who asks, if `authority` made its ticket.
    fn of(payload: &[u8], authority: &Authority) -> Result<Self, String> {
        if payload.len() > LONGEST {
            return Err(format!("{} bytes, at most {LONGEST} are allowed", payload.len()));
        }
        let question: Question = serde_json::from_slice(payload)
            .map_err(|_| "this is not how one asks here".to_owned())?;
        let Question { pass, said, by_ticket, by_key } = question;
        let (invitation, expires_ms) =
            authority.invited(&pass).ok_or("this ticket was not made here")?;
        let is_name = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            !name.is_empty() && name.len() <= NAME && name.chars().all(is_plain)
        };
        if !is_name(&said.name) {
            return Err("a name has letters, digits, `-` and `_`, 100 at most".to_owned());
        }
        let proven = public_bytes(&said.key).is_some()
            && said.is_signed(&invitation, &by_ticket)
            && said.is_signed(&said.key, &by_key);
        if !proven {
            return Err("the signatures are wrong".to_owned());
        }
        Ok(Self { invitation, key: said.key, name: said.name, expires_ms })
    }
}

/// Where newcomers are answered.
pub struct Door {
    client: Client,
    asked: async_nats::Subscriber,
    authority: Arc<Authority>,
    log: String,
}

impl Door {
    /// Opens it: from now on questions come here, or to another door of the same log.
    ///
    /// # Errors
    /// The servers do not answer.
    pub async fn open(options: &Options, authority: Arc<Authority>) -> Result<Self, OpenError> {
        let client = options.client(options.connect()?).await?;
        let asked = client.queue_subscribe(door(&options.name), "door".to_owned()).await;
        let asked = asked.map_err(|error| OpenError::Unreachable {
            servers: options.shown(),
            detail: error.to_string(),
        })?;
        Ok(Self { client, asked, authority, log: options.name.clone() })
    }

    /// Answers one after the other, for as long as the connection is wanted. `judge` says whether somebody may
    /// come in, and has recorded it when it says so; else why not, in a sentence for the newcomer.
    pub async fn answer<J, F>(mut self, judge: J)
    where
        J: Fn(Newcomer) -> F,
        F: Future<Output = Result<(), String>>,
    {
        while let Some(message) = self.asked.next().await {
            let Some(reply) = message.reply else { continue };
            let answer = match Newcomer::of(&message.payload, &self.authority) {
                // Nobody else has this answered in his name: what is written there is written by us.
                Ok(newcomer) if is_own(&reply, &newcomer.invitation) => {
                    self.let_in(newcomer, &judge).await
                }
                Ok(newcomer) => {
                    warn!(name = newcomer.name, %reply, "somebody wants an answer elsewhere");
                    continue;
                }
                Err(why) => {
                    warn!(why, "somebody who has no ticket asks to be let in");
                    continue;
                }
            };
            let answer = match answer {
                Ok(pass) => Answer::Pass(pass),
                Err(why) => {
                    warn!(why, "somebody is not let in");
                    Answer::Refused(why)
                }
            };
            let payload = serde_json::to_vec(&answer).unwrap_or_default();
            if let Err(error) = self.client.publish(reply, payload.into()).await {
                warn!(%error, "a newcomer has no answer; it may ask again");
            }
        }
    }

    async fn let_in<J, F>(&self, newcomer: Newcomer, judge: &J) -> Result<String, String>
    where
        J: Fn(Newcomer) -> F,
        F: Future<Output = Result<(), String>>,
    {
        judge(newcomer.clone()).await?;
        let pass = self.authority.pass(&newcomer.key, &newcomer.name, &self.log);
        let pass = pass.map_err(|error| error.to_string())?;
        info!(node = newcomer.name, "let in");
        Ok(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(authority: &Authority) -> (String, Ticket) {
        Ticket::make(authority, "tls://a:b@g.example:4222", "log", "any", 9_000).unwrap()
    }

    #[test]
    fn a_ticket_survives_its_way_and_is_not_shown() {
        let (_, ticket) = ticket(&Authority::generate().unwrap());
        let text = ticket.to_string();
        let read: Ticket = format!(" {text}\n").parse().unwrap();
        assert_eq!((read.servers.as_str(), read.role.as_str()), ("tls://g.example:4222", "any"));
        assert!(!format!("{read:?}").contains(&read.secret));
        for wrong in ["", "ticket1-", "ticket2-abc", &text[..text.len() - 9], &text[1..]] {
            let refused = wrong.parse::<Ticket>().unwrap_err().to_string();
            assert!(refused.contains("is no ticket"), "{refused}");
        }
    }

    #[test]
    fn only_who_has_ticket_and_key_is_listened_to() {
        let authority = Authority::generate().unwrap();
        let (invitation, ticket) = ticket(&authority);
        let held = KeyPair::from_seed(&ticket.secret).unwrap();
        let key = node_key([7; 32]).unwrap();
        let other = node_key([8; 32]).unwrap();
        let said = Said { key: key.public_key(), name: "there".into() };
        let ask = |said: &Said, by_ticket: &KeyPair, by_key: &KeyPair| {
            let question = Question {
                pass: ticket.pass.clone(),
                said: said.clone(),
                by_ticket: said.signed(by_ticket).unwrap(),
                by_key: said.signed(by_key).unwrap(),
            };
            Newcomer::of(&serde_json::to_vec(&question).unwrap(), &authority)
        };
        let heard = ask(&said, &held, &key).unwrap();
        assert_eq!((heard.key, heard.name), (key.public_key(), "there".to_owned()));
        assert_eq!((heard.invitation, heard.expires_ms), (invitation, 9_000));
        let wrong = Err("the signatures are wrong".to_owned());
        assert_eq!(ask(&said, &other, &key), wrong);
        assert_eq!(ask(&said, &held, &other), wrong);
        let long = "x".repeat(101);
        for name in ["", "../there", "a b", long.as_str()] {
            let said = Said { name: name.into(), ..said.clone() };
            assert!(ask(&said, &held, &key).unwrap_err().contains("a name has"), "{name}");
        }
        let long = Newcomer::of(&[b'x'; LONGEST + 1], &authority).unwrap_err();
        assert!(long.contains("at most 4096"), "{long}");
        assert!(Newcomer::of(b"{}", &authority).is_err());
    }

    #[test]
    fn a_ticket_that_somebody_else_made_is_none() {
        let authority = Authority::generate().unwrap();
        let (_, ticket) = ticket(&Authority::generate().unwrap());
        let key = node_key([7; 32]).unwrap();
        let ask = |pass: String, by: &KeyPair| {
            let said = Said { key: key.public_key(), name: "there".into() };
            let (by_ticket, by_key) = (said.signed(by).unwrap(), said.signed(&key).unwrap());
            let question = Question { pass, said, by_ticket, by_key };
            Newcomer::of(&serde_json::to_vec(&question).unwrap(), &authority)
        };
        let wrong = Err("this ticket was not made here".to_owned());
        let held = KeyPair::from_seed(&ticket.secret).unwrap();
        assert_eq!(ask(ticket.pass, &held), wrong);
        // The pass of a node is no ticket, although the same key signed it.
        let pass = authority.pass(&key.public_key(), "there", "log").unwrap();
        assert_eq!(ask(pass, &key), wrong);
    }

    #[test]
    fn an_answer_goes_to_who_asked_and_nowhere_else() {
        assert!(is_own("_INBOX_UABC.x.1", "UABC"));
        for elsewhere in ["_INBOX_UABCD.x", "_INBOX_UABC", "log.pipeline.fact.s", "_INBOX.x"] {
            assert!(!is_own(elsewhere, "UABC"), "{elsewhere}");
        }
    }
}

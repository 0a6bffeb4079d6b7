//! Where a log is, and how its servers are reached.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use tokio::time::timeout;

use super::keys::Identity;
use crate::embedded::Retention;
use crate::error::OpenError;
use crate::without_secrets;

/// Where the log is and how long to wait for it.
#[derive(Clone)]
pub struct Options {
    /// Addresses of servers, joined by commas: `nats://a.example:4222,nats://b.example:4222`. A user and password
    /// or a token may stand before the host, as in any address; `tls://` encrypts.
    pub servers: String,
    /// Who this node is to them; none = what stands in the file of credentials.
    pub identity: Option<Identity>,
    /// A file of credentials of NATS: a pass and the secret key that it is for. None = what stands in the addresses.
    pub credentials: Option<PathBuf>,
    /// The certificate of who signed for the servers, a PEM file; none = those that the system believes.
    pub certificate: Option<PathBuf>,
    /// The log's name, in front of everything on the server: letters, digits, `-` and `_`.
    pub name: String,
    /// This node's folder for the replica. Not for two nodes.
    pub folder: PathBuf,
    /// Whether a log that is not there is made; otherwise it is refused, so that a wrong name or a server
    /// that lost its store is noticed.
    pub make: bool,
    /// Replicas of the streams when they are made; none means three in a cluster, one otherwise.
    pub replicas: Option<usize>,
    /// How long anything is tried while no server answers. An election takes six seconds.
    pub patience: Duration,
    /// Appends that may wait for the stream to themselves; who comes later waits in his own task.
    pub queue: usize,
    /// What the operational stream keeps.
    pub retention: Retention,
}

/// Without what lets in: it may get into a log.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, folder, .. } = self;
        f.debug_struct("Options")
            .field("servers", &self.shown())
            .field("name", name)
            .field("folder", folder)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// A log of this name on these servers, with the usual limits.
    pub fn new(
        servers: impl Into<String>,
        name: impl Into<String>,
        folder: impl Into<PathBuf>,
    ) -> Self {
        Self {
            servers: servers.into(),
            identity: None,
            credentials: None,
            certificate: None,
            name: name.into(),
            folder: folder.into(),
            make: true,
            replicas: None,
            patience: Duration::from_secs(15),
            queue: 256,
            retention: Retention::default(),
        }
    }

    /// The addresses for people.
    pub(super) fn shown(&self) -> String {
        without_secrets(&self.servers)
    }

    /// Connects, or says why not.
    pub(super) async fn client(&self, connect: ConnectOptions) -> Result<Client, OpenError> {
        let servers = self.shown();
        let connecting = connect.connect(self.addresses().0);
        let detail = match timeout(self.patience, connecting).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) if error.kind() == ConnectErrorKind::AuthorizationViolation => {
                return Err(OpenError::TurnedAway { servers });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        Err(OpenError::Unreachable { servers, detail })
    }

    /// How the servers are connected to: what proves this node, and what proves them.
    pub(super) fn connect(&self) -> Result<ConnectOptions, OpenError> {
        let connect = ConnectOptions::new();
        let connect = match (&self.identity, &self.credentials, self.addresses().1) {
            (Some(identity), ..) => identity.prove(connect),
            (None, Some(file), _) => {
                let no_credentials =
                    |detail: String| OpenError::NoCredentials { path: file.clone(), detail };
                let text = fs_err::read_to_string(file);
                let text = text.map_err(|error| no_credentials(error.to_string()))?;
                // Not the error itself, which may quote a key.
                connect.credentials(&text).map_err(|_| {
                    let both = "a pass and a secret key, each between its lines of dashes";
                    no_credentials(format!("they are {both}"))
                })?
            }
            (None, None, Some(token)) => connect.token(token),
            (None, None, None) => connect,
        };
        Ok(match &self.certificate {
            Some(file) => connect.add_root_certificates(file.clone()).require_tls(true),
            None => connect,
        })
    }

    /// The addresses, and the token that stands before the host of one of them. A user with a password stays
    /// there, where the client finds it.
    fn addresses(&self) -> (Vec<String>, Option<String>) {
        let mut token = None;
        let addresses = self.servers.split(',').map(|address| {
            let address = address.trim();
            let (scheme, rest) = address.split_once("://").unwrap_or(("nats", address));
            match rest.rsplit_once('@') {
                Some((secret, host)) if !secret.contains(':') => {
                    token = Some(secret.to_owned());
                    format!("{scheme}://{host}")
                }
                _ => address.to_owned(),
            }
        });
        (addresses.collect(), token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_from_the_addresses_and_a_user_stays_there() {
        let check = |servers: &str, addresses: &[&str], token: Option<&str>| {
            let found = Options::new(servers, "log", "folder").addresses();
            assert_eq!(found.0, addresses, "{servers}");
            assert_eq!(found.1.as_deref(), token, "{servers}");
        };
        check("nats://a.example:4222, b", &["nats://a.example:4222", "b"], None);
        check(
            "tls://secret@a.example:4222,nats://b.example",
            &["tls://a.example:4222", "nats://b.example"],
            Some("secret"),
        );
        check("secret@a.example:4222", &["nats://a.example:4222"], Some("secret"));
        check("nats://me:secret@a.example", &["nats://me:secret@a.example"], None);
    }
}

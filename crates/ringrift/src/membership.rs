//! Which cluster a data directory belongs to: `cluster.toml` in it. Without that file it is alone, and its
//! log is a file.

use std::{fmt, io::Write as _, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
#[cfg(feature = "cluster")]
use courier::jetstream::{self, JetStream};
use courier::{Courier, Embedded, without_secrets};
#[cfg(feature = "cluster")]
use depot::peers::Key;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde::{Deserialize, Serialize};

use crate::{config::Durability, data_dir::DataDir};

/// The log that a node has together with others.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Addresses of the servers that keep the log, joined by commas; they may hold a password.
    pub servers: String,
    /// The name of the log on them.
    pub log: String,
    /// Where the other nodes fetch artefacts from this one: an address of this machine that they reach, and
    /// a port; 0 = any free one.
    #[serde(default = "loopback")]
    pub listen: SocketAddr,
    /// Bytes a second that this node sends to the others in all; none = as many as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_rate: Option<u64>,
    /// Relays over which nodes fetch from each other that cannot reach each other directly, the same on all of
    /// them; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<String>,
    /// What the servers let this node in for, if they go by keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
    /// The file of NATS credentials that lets this node to the servers, if they are others' and ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// The certificate of who signed for the servers, if they are others' and the system does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Where this node's manager runs a server of the log, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<SocketAddr>,
}

/// As people see it: without what lets in.
impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Membership({self})")
    }
}

/// Refuses what the other nodes could not use.
pub fn check_listen(listen: SocketAddr) -> anyhow::Result<()> {
    anyhow::ensure!(
        !listen.ip().is_unspecified(),
        "listen = {listen}: the other nodes need an address of this machine that they reach, e.g. \
         10.0.0.5:4433"
    );
    Ok(())
}

/// Refuses what is no address of a relay.
#[cfg(feature = "cluster")]
pub fn check_relays(relays: &[String]) -> anyhow::Result<()> {
    for relay in relays {
        relay.parse::<depot::peers::Relay>().context("relays")?;
    }
    Ok(())
}

/// Without the feature nobody fetches.
#[cfg(not(feature = "cluster"))]
pub fn check_relays(_: &[String]) -> anyhow::Result<()> {
    Ok(())
}

/// Where nobody but this machine fetches.
pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Membership {
    /// What the directory says; none if it is alone.
    ///
    /// # Errors
    /// The file is there and cannot be read: better no manager than one with another log.
    pub fn of(dir: &DataDir) -> anyhow::Result<Option<Self>> {
        let path = dir.membership();
        if !path.exists() {
            return Ok(None);
        }
        let text = fs_err::read_to_string(&path)?;
        // Not the error itself, which quotes the line: it may hold a password.
        let read: Self = toml::from_str(&text).map_err(|error| {
            anyhow::anyhow!(
                "read {}: {}; allowed are the keys servers, log, listen, send_rate, relays, \
                 pass, credentials, ca and serve; `ringrift cluster join` writes it",
                path.display(),
                error.message()
            )
        })?;
        check_listen(read.listen).with_context(|| format!("read {}", path.display()))?;
        check_relays(&read.relays).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(read))
    }

    /// Makes the directory a node of this cluster; readable by its owner alone.
    pub fn write(&self, dir: &DataDir) -> anyhow::Result<()> {
        let path = dir.membership();
        let aside = path.with_extension("toml.new");
        let text = toml::to_string(self)?;
        let mut file = fs_err::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs_err::rename(&aside, &path)?;
        fs_err::File::open(dir.root())?.sync_all()?;
        Ok(())
    }
}

/// Without passwords.
impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log {} at {}", self.log, without_secrets(&self.servers))
    }
}

/// Opens the log of a directory to write to: its own file, or that of its cluster.
pub async fn open_log(dir: &DataDir, durability: Durability) -> anyhow::Result<Courier> {
    if let Some(membership) = Membership::of(dir)? {
        return open_shared(&membership, dir, Begin::No).await;
    }
    let durability = match durability {
        Durability::Normal => courier::Durability::Normal,
        Durability::Full => courier::Durability::Full,
    };
    let path = dir.facts();
    let options = courier::Options { durability, ..courier::Options::default() };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&path, options)).await?;
    Ok(opened?)
}

/// The file that holds what this directory knows of its log.
pub fn known(dir: &DataDir) -> anyhow::Result<PathBuf> {
    Ok(match Membership::of(dir)? {
        Some(_) => dir.replica().join("replica.sqlite"),
        None => dir.facts(),
    })
}

/// Whether a log that is not there is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It is made.
    Yes,
    /// It is refused.
    No,
}

/// Opens the log of a cluster.
#[cfg(feature = "cluster")]
pub async fn open_shared(
    membership: &Membership,
    dir: &DataDir,
    begin: Begin,
) -> anyhow::Result<Courier> {
    let opened = JetStream::open(log_options(membership, dir, begin)?).await;
    opened.with_context(|| format!("open the {membership}"))
}

/// How the log of a cluster is reached.
#[cfg(feature = "cluster")]
pub fn log_options(
    membership: &Membership,
    dir: &DataDir,
    begin: Begin,
) -> anyhow::Result<jetstream::Options> {
    let identity = match &membership.pass {
        Some(pass) => {
            let key = Key::of_file(&dir.key()).context("read this node's key")?;
            Some(jetstream::Identity::new(key.secret(), pass)?)
        }
        None => None,
    };
    Ok(jetstream::Options {
        make: begin == Begin::Yes,
        certificate: match &identity {
            Some(_) => Some(dir.certificate()),
            None => membership.ca.clone(),
        },
        identity,
        credentials: membership.credentials.clone(),
        ..jetstream::Options::new(&membership.servers, &membership.log, dir.replica())
    })
}

/// Opens the log of a cluster.
#[cfg(not(feature = "cluster"))]
pub async fn open_shared(
    membership: &Membership,
    _: &DataDir,
    _: Begin,
) -> anyhow::Result<Courier> {
    anyhow::bail!(
        "this program was built without the feature `cluster`, and the data directory belongs to \
         one ({membership}): build it with `--features cluster`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path()).unwrap();
        (folder, dir)
    }

    #[test]
    fn what_is_written_is_read_and_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, dir) = here();
        assert_eq!(Membership::of(&dir).unwrap(), None);
        let membership = Membership {
            servers: "nats://a:secret@g.example:4222, tls://b@h.example,c.example".into(),
            log: "ringrift".into(),
            listen: loopback(),
            send_rate: None,
            relays: vec!["https://relay.example".into()],
            pass: None,
            credentials: Some("/etc/node.creds".into()),
            ca: Some("/etc/ca.pem".into()),
            serve: None,
        };
        membership.write(&dir).unwrap();
        assert_eq!(Membership::of(&dir).unwrap(), Some(membership.clone()));
        let mode = fs_err::metadata(dir.membership()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let shown = membership.to_string();
        assert_eq!(shown, "log ringrift at nats://g.example:4222, tls://h.example, c.example");
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn servers_of_others_are_reached_with_their_credentials_and_certificate() {
        let (_folder, dir) = here();
        let text = "servers = 'tls://a.example'\nlog = 'l'\n";
        let options = |text: &str| {
            fs_err::write(dir.membership(), text).unwrap();
            let membership = Membership::of(&dir).unwrap().unwrap();
            let options = log_options(&membership, &dir, Begin::No).unwrap();
            (options.credentials, options.certificate)
        };
        assert_eq!(options(text), (None, None), "as before these keys were there");
        let text = format!("{text}credentials = '/etc/node.creds'\nca = '/etc/ca.pem'\n");
        let expected = (Some("/etc/node.creds".into()), Some("/etc/ca.pem".into()));
        assert_eq!(options(&text), expected);
    }

    #[test]
    fn a_file_that_is_not_understood_is_named() {
        let (_folder, dir) = here();
        fs_err::write(dir.membership(), "server = 'nats://a.example'\n").unwrap();
        let refused = format!("{:#}", Membership::of(&dir).unwrap_err());
        assert!(refused.contains("cluster.toml") && refused.contains("`server`"), "{refused}");
        fs_err::write(dir.membership(), "servers = nats://secret@a.example\n").unwrap();
        let refused = format!("{:#}", Membership::of(&dir).unwrap_err());
        assert!(!refused.contains("secret"), "{refused}");
        let text = "servers = 'nats://a.example'\nlog = 'l'\nlisten = '0.0.0.0:1'\n";
        fs_err::write(dir.membership(), text).unwrap();
        let refused = format!("{:#}", Membership::of(&dir).unwrap_err());
        assert!(refused.contains("listen = 0.0.0.0:1: the other nodes need"), "{refused}");
    }
}

//! Keys: what a peer is known by.

use std::{fmt, io::Write as _, path::Path, str::FromStr};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde::{Deserialize, Serialize, de};

/// A peer: its public key, 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(super) iroh::EndpointId);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// What is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no peer: 64 hexadecimal digits of a public key are allowed")]
pub struct ParsePeerError(String);

impl FromStr for PeerId {
    type Err = ParsePeerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParsePeerError(text.chars().take(80).collect()))
    }
}

impl Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// A relay: its address, e.g. `https://relay.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay(pub(super) iroh::RelayUrl);

/// What is no relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no relay: an address like https://relay.example is allowed")]
pub struct ParseRelayError(String);

impl FromStr for Relay {
    type Err = ParseRelayError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_web = text.starts_with("https://") || text.starts_with("http://");
        let url = is_web.then(|| text.parse().ok()).flatten();
        url.map(Self).ok_or_else(|| ParseRelayError(text.chars().take(80).collect()))
    }
}

/// A secret key.
#[derive(Clone)]
pub struct Key(pub(super) iroh::SecretKey);

impl Key {
    /// A new one.
    pub fn generate() -> Self {
        Self(iroh::SecretKey::generate())
    }

    /// The key in a file that its owner alone may read; made at the first call.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no key.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map(Self).map_err(|_| {
                let what = format!(
                    "{} holds no secret key of 64 hexadecimal digits: put back a copy, or remove it \
                     to become another peer",
                    path.display()
                );
                std::io::Error::new(std::io::ErrorKind::InvalidData, what)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::make(path),
            Err(error) => Err(error),
        }
    }

    fn make(path: &Path) -> std::io::Result<Self> {
        let key = Self::generate();
        // 32 bytes as they are written in hexadecimal, which a hash is as well.
        let digits = crate::Hash::from_bytes(key.0.to_bytes()).to_string();
        // Written aside and linked, so that another process at the same point sees all of it or
        // nothing, and one of the two keys wins.
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(format!("{digits}\n").as_bytes())?;
        file.sync_all()?;
        let linked = fs::hard_link(&aside, path);
        fs::remove_file(&aside)?;
        match linked {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::of_file(path),
            Err(error) => Err(error),
        }
    }

    /// Its 32 bytes, for whoever proves the same identity elsewhere.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Whom it proves.
    pub fn peer(&self) -> PeerId {
        PeerId(self.0.public())
    }
}

/// Without the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key of {}", self.peer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_never_shown() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = Key::of_file(&path).unwrap();
        assert_eq!(Key::of_file(&path).unwrap().peer(), key.peer());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{key:?}").contains(fs::read_to_string(&path).unwrap().trim()));
        assert_eq!(key.peer().to_string().parse(), Ok(key.peer()));

        fs::write(&path, "rubbish").unwrap();
        let refused = Key::of_file(&path).unwrap_err().to_string();
        assert!(refused.contains("holds no secret key"), "{refused}");
        let refused = "rubbish".parse::<PeerId>().unwrap_err().to_string();
        assert!(refused.contains("\"rubbish\" is no peer"), "{refused}");
    }
}

//! Where a far store is, and what proves us there.

use std::{
    fmt,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use fs_err as fs;

/// What an address may be.
const ALLOWED: &str = "allowed are file:///FOLDER and s3://BUCKET or s3://BUCKET/PREFIX";

/// Where a store is. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A folder of this machine, e.g. of a disk in the network.
    Folder(PathBuf),
    /// A bucket of a service that speaks S3.
    Bucket {
        /// Its name.
        name: String,
        /// What all keys begin with; empty = nothing.
        prefix: String,
    },
}

/// Why a text is no address, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let refused = |what: &str| Err(ParseAddressError(format!("{what}: {ALLOWED}")));
        // Not shown: what stands before an @ is a password more often than not.
        if text.contains('@') {
            return refused("an address of a store holds no user and no password");
        }
        let shown: String = text.chars().take(80).collect();
        if let Some(folder) = text.strip_prefix("file://") {
            let path = Path::new(folder);
            if !path.is_absolute() || folder.contains(['%', '?', '#']) {
                return refused(&format!("'{shown}' names no folder by its whole path"));
            }
            return Ok(Self::Folder(path.components().collect()));
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            return refused(&format!("'{shown}' is no address of a store"));
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // Source: Amazon S3, "General purpose bucket naming rules".
        let is_name = (3..=63).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
            && !name.starts_with(['-', '.'])
            && !name.ends_with(['-', '.']);
        if !is_name {
            return refused(&format!(
                "'{shown}' names no bucket (3 to 63 lower case letters, digits, dots and hyphens)"
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        let is_part = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return refused(&format!(
                "the prefix of '{shown}' has more than letters, digits, dots, hyphens and single slashes"
            ));
        }
        Ok(Self::Bucket { name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Bucket { name, prefix } if prefix.is_empty() => write!(f, "s3://{name}"),
            Self::Bucket { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

/// Who may be talked to without encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plain {
    /// This machine alone.
    #[default]
    Loopback,
    /// Anybody: whoever listens in between reads what goes over the line, though not the secret key.
    Anybody,
}

/// Refuses the address of a service that is none, or that is not encrypted without need.
///
/// # Errors
/// A sentence.
pub fn check_endpoint(endpoint: &str, plain: Plain) -> Result<(), ParseAddressError> {
    let refused = |what: String| Err(ParseAddressError(what));
    if endpoint.contains('@') {
        return refused("an endpoint holds no user and no password".to_owned());
    }
    let allowed = "allowed is https://objects.example or https://objects.example:9000";
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return refused(format!("'{endpoint}' is no endpoint: {allowed}"));
    };
    let host = rest.trim_end_matches('/');
    let is_host = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    if !is_host || !matches!(scheme, "http" | "https") {
        return refused(format!("'{endpoint}' is no endpoint: {allowed}"));
    }
    if scheme == "https" || plain == Plain::Anybody || is_loopback(host) {
        return Ok(());
    }
    refused(format!(
        "'{endpoint}' is not encrypted and not on this machine: {allowed}; store.allow_http = true takes it all the same"
    ))
}

fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What proves us to a service. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name of the key.
    pub(crate) id: String,
    /// The key.
    pub(crate) secret: String,
    /// What keys that end by themselves need beside.
    pub(crate) session: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Names in files, and in upper case in the environment.
const NAMES: [&str; 3] = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];

impl Credentials {
    /// Those that can be looked up under the usual names, `AWS_ACCESS_KEY_ID` and so on; none if there are
    /// none.
    ///
    /// # Errors
    /// One of the two is there and the other is not.
    pub fn of_names(
        mut look_up: impl FnMut(&str) -> Option<String>,
    ) -> Result<Option<Self>, ParseAddressError> {
        let mut found = NAMES.map(|name| {
            look_up(&name.to_uppercase())
                .map(|text| text.trim().to_owned())
                .filter(|t| !t.is_empty())
        });
        match (found[0].take(), found[1].take()) {
            (Some(id), Some(secret)) => Ok(Some(Self { id, secret, session: found[2].take() })),
            (None, None) => Ok(None),
            _ => Err(ParseAddressError(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together, and one is missing"
                    .to_owned(),
            )),
        }
    }

    /// Those of a file, with lines such as `aws_access_key_id = ...`, that nobody but its owner may read.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or a key is missing; the sentence shows nothing of it.
    pub fn of_file(path: &Path) -> Result<Self, ParseAddressError> {
        let refused = |what: String| ParseAddressError(what);
        let file = path.display();
        let mode = fs::metadata(path).map_err(|e| refused(e.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(refused(format!("{file} may be read by others: `chmod 600 {file}`")));
        }
        let text = fs::read_to_string(path).map_err(|e| refused(e.to_string()))?;
        let look_up = |wanted: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.to_owned())
            })
        };
        Self::of_names(look_up)
            .ok()
            .flatten()
            .ok_or_else(|| refused(format!("{file} lacks a line {} or {}", NAMES[0], NAMES[1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_folder_or_a_bucket() {
        let check =
            |text: &str, expected: Result<&str, &str>| match (text.parse::<Address>(), expected) {
                (Ok(address), Ok(shown)) => assert_eq!(address.to_string(), shown, "{text}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{text}: {error}");
                    assert!(error.to_string().contains("s3://BUCKET/PREFIX"), "{error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            };
        check("file:///mnt/far/", Ok("file:///mnt/far"));
        check("s3://copies", Ok("s3://copies"));
        check("s3://copies/a/b-1/", Ok("s3://copies/a/b-1"));
        check("file://mnt/far", Err("by its whole path"));
        check("/mnt/far", Err("'/mnt/far' is no address"));
        check("S3://copies", Err("is no address"));
        check("s3://Copies", Err("names no bucket"));
        check("s3://ab", Err("names no bucket"));
        check("s3://copies/a//b", Err("the prefix of"));
        check("s3://copies/../b", Err("the prefix of"));
        check("s3://id:secret@copies/a", Err("no user and no password"));
        let error = "s3://id:secret@copies".parse::<Address>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn only_this_machine_is_talked_to_in_the_clear() {
        let check = |endpoint: &str, plain, part: Option<&str>| {
            let found = check_endpoint(endpoint, plain).err().map(|error| error.to_string());
            match (&found, part) {
                (None, None) => {}
                (Some(error), Some(part)) => assert!(error.contains(part), "{error}"),
                _ => panic!("{endpoint}: {found:?}"),
            }
        };
        check("https://objects.example", Plain::Loopback, None);
        check("http://127.0.0.1:9000", Plain::Loopback, None);
        check("http://localhost:9000/", Plain::Loopback, None);
        check("http://[::1]:9000", Plain::Loopback, None);
        check("http://objects.example:9000", Plain::Loopback, Some("is not encrypted"));
        check("http://127.0.0.1.example", Plain::Loopback, Some("is not encrypted"));
        check("http://objects.example:9000", Plain::Anybody, None);
        check("objects.example", Plain::Loopback, Some("is no endpoint"));
        check("ftp://objects.example", Plain::Loopback, Some("is no endpoint"));
        check("https://id:secret@objects.example", Plain::Loopback, Some("no password"));
    }

    #[test]
    fn credentials_come_in_pairs_and_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let write = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Credentials::of_file(&path)
        };
        let whole = "[default]\naws_access_key_id = a\naws_secret_access_key=s=/3\n";
        let read = write(whole, 0o600).unwrap();
        assert_eq!((read.id.as_str(), read.secret.as_str(), &read.session), ("a", "s=/3", &None));
        assert_eq!(format!("{read:?}"), "Credentials");
        let error = write(whole, 0o640).unwrap_err().to_string();
        assert!(error.contains("may be read by others") && !error.contains("s=/3"), "{error}");
        let error = write("aws_access_key_id = a\n", 0o600).unwrap_err().to_string();
        assert!(error.contains("lacks a line"), "{error}");

        let of = |pairs: &[(&str, &str)]| {
            Credentials::of_names(|name| {
                pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), Ok(None));
        assert!(of(&[("AWS_ACCESS_KEY_ID", "a")]).is_err());
        let both = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert_eq!(of(&both).unwrap().unwrap().secret, "s");
    }
}

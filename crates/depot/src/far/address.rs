//! Where a far store is.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Who keeps buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon, or whoever else speaks S3.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage, whose word for a bucket is container.
    Azure,
}

impl Service {
    const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// What its addresses begin with.
    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3://",
            Self::Google => "gs://",
            Self::Azure => "az://",
        }
    }

    /// Refuses a name that no bucket of it can have; says what one is.
    fn check_name(self, name: &str) -> Result<(), &'static str> {
        let made_of =
            |text: &str, beside: &[u8]| text.bytes().all(|b| is_plain(b) || beside.contains(&b));
        let between = |most: usize| (3..=most).contains(&name.len());
        let ends_plain = name.bytes().next().is_some_and(is_plain)
            && name.bytes().next_back().is_some_and(is_plain);
        let (is_name, rule) = match self {
            // Source: Amazon S3, "General purpose bucket naming rules".
            Self::S3 => (
                between(63) && made_of(name, b"-."),
                "3 to 63 lower case letters, digits, dots and hyphens",
            ),
            // Source: Google Cloud Storage, "Bucket naming guidelines". A name with dots is a domain.
            Self::Google => (
                between(if name.contains('.') { 222 } else { 63 })
                    && made_of(name, b"-_.")
                    && name.split('.').all(|part| (1..=63).contains(&part.len()))
                    && name.parse::<IpAddr>().is_err()
                    && !name.starts_with("goog"),
                "3 to 63 lower case letters, digits, hyphens, underscores and dots, and not Google's own name",
            ),
            // Source: Azure Storage, "Naming and referencing containers, blobs, and metadata".
            Self::Azure => (
                between(63) && made_of(name, b"-") && !name.contains("--"),
                "3 to 63 lower case letters, digits and single hyphens",
            ),
        };
        if is_name && ends_plain { Ok(()) } else { Err(rule) }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Where a store is. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A folder of this machine, e.g. of a disk in the network.
    Folder(PathBuf),
    /// A bucket.
    Bucket {
        /// Who keeps it.
        service: Service,
        /// Its name.
        name: String,
        /// What all keys begin with; empty = nothing.
        prefix: String,
    },
}

/// Why a text is no address, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseAddressError(pub(super) String);

impl Address {
    /// What one may be.
    pub const ALLOWED: &str = "file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, with or without a prefix";
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let refused =
            |what: &str| Err(ParseAddressError(format!("{what}: allowed is {}", Self::ALLOWED)));
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
        let service = Service::ALL.into_iter().find(|service| text.starts_with(service.scheme()));
        let Some(service) = service else {
            return refused(&format!("'{shown}' is no address of a store"));
        };
        let rest = &text[service.scheme().len()..];
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if let Err(rule) = service.check_name(name) {
            return refused(&format!("'{shown}' names no bucket ({rule})"));
        }
        let prefix = prefix.trim_end_matches('/');
        let is_part = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        // Source: as for its names.
        if service == Service::Azure && prefix.split('/').any(|part| part.ends_with('.')) {
            return refused(&format!(
                "a part of the prefix of '{shown}' ends with a dot, which Azure drops"
            ));
        }
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return refused(&format!(
                "the prefix of '{shown}' has more than letters, digits, dots, hyphens and single slashes"
            ));
        }
        Ok(Self::Bucket { service, name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Bucket { service, name, prefix } => {
                let slash = if prefix.is_empty() { "" } else { "/" };
                write!(f, "{}{name}{slash}{prefix}", service.scheme())
            }
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

/// A host without its port.
fn bare(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// An endpoint has no name, but a number.
#[cfg(feature = "buckets")]
pub(super) fn is_number(endpoint: &str) -> bool {
    let host = bare(endpoint.split_once("://").map_or(endpoint, |(_, host)| host));
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

fn is_loopback(host: &str) -> bool {
    let bare = bare(host);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
        check("gs://my_copies/a/", Ok("gs://my_copies/a"));
        check("gs://copies.example", Ok("gs://copies.example"));
        check("az://my-copies/a/b", Ok("az://my-copies/a/b"));
        let names = |scheme: &str, name: &str, is_one: bool| {
            let text = format!("{scheme}://{name}");
            assert_eq!(text.parse::<Address>().is_ok(), is_one, "{text}");
        };
        let long = "a".repeat(63);
        let domain = [&*long, &*long, &*long, "example"].join(".");
        for (name, in_s3, in_google, in_azure) in [
            (&*long, true, true, true),
            (&*format!("{long}a"), false, false, false),
            (&*domain, false, true, false),
            (&*format!("{domain}.{}", "a".repeat(23)), false, false, false),
            ("a.b", true, true, false),
            ("a_b", false, true, false),
            ("a--b", true, true, false),
            ("a..b", true, false, false),
            ("google-copies", true, false, true),
            ("10.0.0.1", true, false, false),
            ("-copies", false, false, false),
            ("copies_", false, false, false),
            ("$root", false, false, false),
            ("", false, false, false),
        ] {
            names("s3", name, in_s3);
            names("gs", name, in_google);
            names("az", name, in_azure);
        }
        check(
            "gs://ab",
            Err("names no bucket (3 to 63 lower case letters, digits, hyphens, under"),
        );
        check(
            "az://my_copies",
            Err("names no bucket (3 to 63 lower case letters, digits and single"),
        );
        check("az://copies/a./b", Err("which Azure drops"));
        check("s3://copies/a./b", Ok("s3://copies/a./b"));
        check("gs:/copies", Err("is no address"));
        check("gs://key@copies", Err("no user and no password"));
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
}

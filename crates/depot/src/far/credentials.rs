//! What proves us to a service.

use std::{
    fmt,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use fs_err as fs;

use super::{ParseAddressError, Service};

/// What proves us to a service. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(pub(super) Proof);

/// The kinds of proof, each for one service.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    S3 {
        /// The name of the key.
        id: String,
        secret: String,
        /// What keys that end by themselves need beside.
        session: Option<String>,
    },
    /// The JSON that Google hands out for a service account.
    Google(String),
    Azure {
        account: String,
        secret: AzureSecret,
    },
}

/// What is known of an account.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum AzureSecret {
    /// Its key, which may do everything.
    Key(String),
    /// A signature, which may do what somebody allowed it.
    Signature(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Longest file with credentials.
const LIMIT: u64 = 64 << 10;

impl Credentials {
    /// What a service needs, and where it may stand, as the end of "needs credentials: ...".
    #[cfg(feature = "buckets")]
    pub(super) fn wanted(service: Service) -> &'static str {
        match service {
            Service::S3 => {
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a file with them that \
                 store.credentials names"
            }
            Service::Google => {
                "the file of a service account, that store.credentials names, or else \
                 GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT in the environment"
            }
            Service::Azure => {
                "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, in the \
                 environment, or a file with them that store.credentials names"
            }
        }
    }

    /// Those that can be looked up under the usual names of a service, `AWS_ACCESS_KEY_ID` and so on; none if
    /// there are none.
    ///
    /// # Errors
    /// One is there and another that belongs to it is not, or a file that is named is refused.
    pub fn of_names(
        service: Service,
        mut look_up: impl FnMut(&str) -> Option<String>,
    ) -> Result<Option<Self>, ParseAddressError> {
        let mut found = |name: &str| {
            look_up(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let refused = |what: &str| Err(ParseAddressError(what.to_owned()));
        let proof = match service {
            Service::S3 => match (found("AWS_ACCESS_KEY_ID"), found("AWS_SECRET_ACCESS_KEY")) {
                (Some(id), Some(secret)) => {
                    Proof::S3 { id, secret, session: found("AWS_SESSION_TOKEN") }
                }
                (None, None) => return Ok(None),
                _ => {
                    return refused(
                        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together, and one is missing",
                    );
                }
            },
            Service::Google => {
                let file = found("GOOGLE_APPLICATION_CREDENTIALS")
                    .or_else(|| found("GOOGLE_SERVICE_ACCOUNT"));
                let Some(file) = file else { return Ok(None) };
                return Self::of_file(service, &PathBuf::from(file)).map(Some);
            }
            Service::Azure => {
                let account = found("AZURE_STORAGE_ACCOUNT_NAME");
                let key = found("AZURE_STORAGE_ACCOUNT_KEY").map(AzureSecret::Key);
                let secret =
                    key.or_else(|| found("AZURE_STORAGE_SAS_TOKEN").map(AzureSecret::Signature));
                match (account, secret) {
                    // It becomes a part of the service's address. Source: Azure Storage, "Storage account
                    // overview". Not shown: it may be a key in the wrong place.
                    (Some(account), _) if !is_account(&account) => {
                        return refused(
                            "AZURE_STORAGE_ACCOUNT_NAME is no name of an account: allowed are 3 to 24 lower case \
                             letters and digits",
                        );
                    }
                    (Some(account), Some(secret)) => Proof::Azure { account, secret },
                    (None, None) => return Ok(None),
                    _ => {
                        return refused(
                            "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, \
                             belong together, and one is missing",
                        );
                    }
                }
            }
        };
        Ok(Some(Self(proof)))
    }

    /// Those of a file that nobody but its owner may read: for Google the file of a service account, for the
    /// others lines such as `aws_access_key_id = ...`.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or something is missing; the sentence shows nothing of it.
    pub fn of_file(service: Service, path: &Path) -> Result<Self, ParseAddressError> {
        let refused = |what: String| ParseAddressError(what);
        let file = path.display();
        let metadata = fs::metadata(path).map_err(|e| refused(e.to_string()))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(refused(format!("{file} may be read by others: `chmod 600 {file}`")));
        }
        if metadata.len() > LIMIT {
            return Err(refused(format!("{file} is too long for a file of credentials")));
        }
        let text = fs::read_to_string(path).map_err(|e| refused(e.to_string()))?;
        let look_up = |wanted: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.to_owned())
            })
        };
        let first = match service {
            Service::Google if text.contains("private_key") => {
                return Ok(Self(Proof::Google(text)));
            }
            // Other kinds of credentials need a service of Google's for each token.
            Service::Google => {
                return Err(refused(format!(
                    "{file} is not the file of a service account: allowed is the JSON of one, with its private_key"
                )));
            }
            Service::S3 => "aws_access_key_id",
            Service::Azure => "azure_storage_account_name",
        };
        match Self::of_names(service, look_up) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(refused(format!("{file} lacks a line {first} = ..."))),
            Err(error) => Err(refused(format!("{file}: {error}"))),
        }
    }
}

fn is_account(name: &str) -> bool {
    (3..=24).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        service: Service,
        pairs: &[(&str, &str)],
    ) -> Result<Option<Credentials>, ParseAddressError> {
        Credentials::of_names(service, |name| {
            pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn refusal(found: Result<impl fmt::Debug, ParseAddressError>, part: &str) {
        let error = found.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("s=/3"), "{error}");
    }

    struct File(tempfile::TempDir);

    impl File {
        fn path(&self) -> PathBuf {
            self.0.path().join("keys")
        }

        fn read(
            &self,
            service: Service,
            text: &str,
            mode: u32,
        ) -> Result<Credentials, ParseAddressError> {
            fs::write(self.path(), text).unwrap();
            fs::set_permissions(self.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            Credentials::of_file(service, &self.path())
        }
    }

    #[test]
    fn credentials_for_s3_come_in_pairs_and_are_not_shown() {
        let file = File(tempfile::tempdir().unwrap());
        let whole = "[default]\naws_access_key_id = a\naws_secret_access_key=s=/3\n";
        let read = file.read(Service::S3, whole, 0o600).unwrap();
        assert_eq!(format!("{read:?}"), "Credentials");
        let keys = Proof::S3 { id: "a".into(), secret: "s=/3".into(), session: None };
        assert!(read.0 == keys);
        refusal(file.read(Service::S3, whole, 0o640), "may be read by others");
        refusal(file.read(Service::S3, "aws_secret_access_key = s=/3", 0o600), "one is missing");
        refusal(file.read(Service::S3, "key = s=/3", 0o600), "lacks a line aws_access_key_id");
        refusal(file.read(Service::S3, &"s=/3\n".repeat(20_000), 0o600), "too long");

        assert_eq!(of(Service::S3, &[]), Ok(None));
        refusal(of(Service::S3, &[("AWS_SECRET_ACCESS_KEY", "s=/3")]), "AWS_ACCESS_KEY_ID and");
        let both = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", " s=/3 ")];
        assert!(of(Service::S3, &both).unwrap().unwrap().0 == keys);
    }

    #[test]
    fn google_is_shown_the_file_of_a_service_account() {
        let file = File(tempfile::tempdir().unwrap());
        let whole = r#"{"type": "service_account", "private_key": "s=/3"}"#;
        let read = file.read(Service::Google, whole, 0o600).unwrap();
        assert!(read.0 == Proof::Google(whole.to_owned()));
        for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"] {
            let named = [(name, file.path().to_str().unwrap().to_owned())];
            let named = [(named[0].0, &*named[0].1)];
            assert_eq!(of(Service::Google, &named).unwrap().unwrap(), read);
        }
        assert_eq!(of(Service::Google, &[("AWS_ACCESS_KEY_ID", "a")]), Ok(None));
        refusal(of(Service::Google, &[("GOOGLE_SERVICE_ACCOUNT", "/nowhere")]), "/nowhere");
        refusal(file.read(Service::Google, whole, 0o644), "may be read by others");
        let user = r#"{"type": "authorized_user", "refresh_token": "s=/3"}"#;
        refusal(file.read(Service::Google, user, 0o600), "not the file of a service account");
    }

    #[test]
    fn azure_is_shown_an_account_and_its_key_or_a_signature() {
        let file = File(tempfile::tempdir().unwrap());
        let (account, key) = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY");
        let sas = "AZURE_STORAGE_SAS_TOKEN";
        let check = |found: Credentials, secret: AzureSecret| {
            assert!(found.0 == Proof::Azure { account: "copies1".into(), secret });
        };
        let pairs = [(account, "copies1"), (key, "s=/3"), (sas, "sig=1")];
        check(of(Service::Azure, &pairs).unwrap().unwrap(), AzureSecret::Key("s=/3".into()));
        let pairs = [(account, "copies1"), (sas, "sv=1&sig=s%3D")];
        let signature = AzureSecret::Signature("sv=1&sig=s%3D".into());
        check(of(Service::Azure, &pairs).unwrap().unwrap(), signature.clone());
        let text = "azure_storage_account_name=copies1\nAZURE_STORAGE_SAS_TOKEN = sv=1&sig=s%3D\n";
        check(file.read(Service::Azure, text, 0o600).unwrap(), signature);

        assert_eq!(of(Service::Azure, &[]), Ok(None));
        refusal(of(Service::Azure, &[(key, "s=/3")]), "belong together");
        refusal(of(Service::Azure, &[(account, "copies1")]), "belong together");
        refusal(of(Service::Azure, &[(account, "s=/3"), (key, "s=/3")]), "no name of an account");
        let text = "azure_storage_account_key = s=/3";
        refusal(file.read(Service::Azure, text, 0o600), "one is missing");
        refusal(file.read(Service::Azure, "s=/3", 0o600), "lacks a line azure_storage_account");
        let text = "azure_storage_account_name = s=/3";
        refusal(file.read(Service::Azure, text, 0o600), "no name of an account");
        refusal(file.read(Service::Azure, text, 0o604), "may be read by others");
    }
}

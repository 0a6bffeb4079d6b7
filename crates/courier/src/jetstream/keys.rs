//! Keys: who a node is to the servers, and who says that it may come.
//!
//! Servers know public halves only: that of an operator, who signs the account of the log, whose key signs
//! the pass of each node. So a node is let in without a change on any server, and put out by one message
//! to them. A node proves itself by signing what the server asks it to; its own secret never leaves it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{AuthError, ConnectOptions};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use nats_jwt_rs::Claims;
use nats_jwt_rs::account::{Account, JetStreamLimits, OperatorLimits};
use nats_jwt_rs::operator::Operator;
use nats_jwt_rs::types::{Limits, NO_LIMIT, NatsLimits, Permission, Permissions};
use nats_jwt_rs::user::User;
use nkeys::{KeyPair, KeyPairType};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyUsagePurpose};
use serde::{Deserialize, Serialize};

use super::Options;

/// What no node may ask of the servers: it would take from the log what others rely on. The stream of
/// operational facts is not among them, for the engine lets go what is old there.
fn denied(log: &str) -> Vec<String> {
    let asks = [
        "DELETE.>".to_owned(),
        format!("PURGE.{log}_pipeline"),
        format!("PURGE.KV_{log}"),
        "UPDATE.>".to_owned(),
        "MSG.DELETE.>".to_owned(),
        "RESTORE.>".to_owned(),
    ];
    asks.map(|ask| format!("$JS.API.STREAM.{ask}")).into()
}

/// Bytes of the longest message of whoever has only a ticket, and what it may listen to at a time.
const GUEST: (i64, i64) = (4096, 8);
/// What the pass of a ticket is called.
const INVITED: &str = "invited";

/// A key that is revoked is so for every pass that was ever made for it, seconds since the Unix epoch.
const FOR_EVER: u64 = 4_102_444_800;

/// Time for the servers to answer to a new list of those who are put out.
const ANSWER: Duration = Duration::from_secs(5);

/// What is wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file holds something else.
    #[error("{path} does not hold the keys of a cluster ({detail}): put back a copy of it")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A key, or what is to be signed, is not as it must be.
    #[error("sign for {what}: {detail}")]
    Sign {
        /// What was to be signed.
        what: String,
        /// Why it was not.
        detail: String,
    },
    /// The servers do not take the list.
    #[error("the servers at {servers} do not put anybody out: {detail}")]
    Refused {
        /// Their addresses.
        servers: String,
        /// What they said.
        detail: String,
    },
}

/// Who a node is to the servers.
#[derive(Clone)]
pub struct Identity {
    key: Arc<KeyPair>,
    pass: String,
}

impl Identity {
    /// The node with this secret key, and the pass that was made for it.
    ///
    /// # Errors
    /// No key can be made of these bytes.
    pub fn new(secret: [u8; 32], pass: impl Into<String>) -> Result<Self, KeyError> {
        Ok(Self { key: Arc::new(node_key(secret)?), pass: pass.into() })
    }

    pub(super) fn of(key: KeyPair, pass: String) -> Self {
        Self { key: Arc::new(key), pass }
    }

    pub(super) fn prove(&self, connect: ConnectOptions) -> ConnectOptions {
        let key = self.key.clone();
        connect.jwt(self.pass.clone(), move |nonce| {
            let signed = key.sign(&nonce).map_err(AuthError::new);
            std::future::ready(signed)
        })
    }
}

/// Without the secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {}", self.key.public_key())
    }
}

pub(super) fn node_key(secret: [u8; 32]) -> Result<KeyPair, KeyError> {
    KeyPair::new_from_raw(KeyPairType::User, secret).map_err(failed("a node"))
}

/// The public half of a node's key as servers write it.
///
/// # Errors
/// No key can be made of these bytes.
pub fn public_key(secret: [u8; 32]) -> Result<String, KeyError> {
    Ok(node_key(secret)?.public_key())
}

/// The 32 bytes of a public key that servers write like this; none if it is no node's.
pub fn public_bytes(key: &str) -> Option<[u8; 32]> {
    let (prefix, bytes) = nkeys::from_public_key(key).ok()?;
    (KeyPairType::from(prefix) == KeyPairType::User).then_some(bytes)
}

fn failed<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> KeyError {
    let what = what.to_owned();
    move |error| KeyError::Sign { what, detail: error.to_string() }
}

/// Where a server is to run.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where nodes reach it.
    pub listen: SocketAddr,
    /// Where nodes reach all servers of the log, this one among them.
    pub all: &'a [SocketAddr],
    /// Its folder: configuration, certificate and store. It may be moved to another machine, and is where
    /// the server is to be started.
    pub folder: &'a Path,
}

/// Servers reach each other so far above the port where nodes reach them.
pub const ROUTES: u16 = 2000;

/// Where servers reach each other.
pub fn route(listen: SocketAddr) -> SocketAddr {
    SocketAddr::new(listen.ip(), listen.port().wrapping_add(ROUTES))
}

/// Who says which nodes may come: the secret keys of a cluster.
pub struct Authority {
    operator: KeyPair,
    account: KeyPair,
    /// The servers' own account, by which they are told who is put out.
    system: KeyPair,
    /// Signs the servers' certificates.
    certificates: rcgen::KeyPair,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    operator: String,
    account: String,
    system: String,
    certificates: String,
}

impl Authority {
    /// That of a new cluster.
    ///
    /// # Errors
    /// No key can be made.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
            certificates: rcgen::KeyPair::generate().map_err(failed("servers"))?,
        })
    }

    /// That in a file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path)?;
        // Not the error itself, which may quote a key.
        let foreign = |detail: &str| KeyError::Foreign { path: path.into(), detail: detail.into() };
        let kept: Kept = serde_json::from_str(&text).map_err(|_| foreign("other keys"))?;
        let key = |seed: &str| KeyPair::from_seed(seed).map_err(|_| foreign("a key is damaged"));
        let certificates = rcgen::KeyPair::from_pem(&kept.certificates);
        Ok(Self {
            operator: key(&kept.operator)?,
            account: key(&kept.account)?,
            system: key(&kept.system)?,
            certificates: certificates.map_err(|_| foreign("the servers' key is damaged"))?,
        })
    }

    /// Writes it into a new file, for its owner alone.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let seed = |key: &KeyPair| key.seed().map_err(failed("the file"));
        let kept = Kept {
            operator: seed(&self.operator)?,
            account: seed(&self.account)?,
            system: seed(&self.system)?,
            certificates: self.certificates.serialize_pem(),
        };
        let text = serde_json::to_string_pretty(&kept).map_err(failed("the file"))?;
        // Written aside and linked, so that it is there as a whole or not at all, and never replaced.
        let aside = path.with_extension("new");
        remove_if_there(&aside)?;
        write_secret(&aside, &text)?;
        let linked = fs::hard_link(&aside, path);
        fs::remove_file(&aside)?;
        linked?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// The certificate by which the servers are known, PEM.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn certificate(&self) -> Result<String, KeyError> {
        let signed = of_the_authority().self_signed(&self.certificates);
        Ok(signed.map_err(failed("servers"))?.pem())
    }

    /// The pass of the node with this public key, to use this log.
    ///
    /// # Errors
    /// It is not the key of a node.
    pub fn pass(&self, key: &str, name: &str, log: &str) -> Result<String, KeyError> {
        let mut claims = user(key, name)?;
        claims.nats.permissions.permissions.publish.deny = denied(log);
        // Newcomers are answered by whoever has the keys, and overheard by nobody.
        claims.nats.permissions.permissions.subscribe.deny = vec![super::admission::door(log)];
        claims.encode(&self.account).map_err(failed(name))
    }

    /// The invitation that a pass to the door names, and its end; none if this authority did not make it.
    pub(super) fn invited(&self, pass: &str) -> Option<(String, i64)> {
        let claims = Claims::<User>::decode(pass).ok()?;
        let ours = claims.iss == self.account.public_key()
            && claims.name.as_deref() == Some(INVITED)
            && public_bytes(&claims.sub).is_some();
        Some((claims.sub, claims.exp?.checked_mul(1000)?)).filter(|_| ours)
    }

    /// Whether this authority signed a pass.
    pub fn signed(&self, pass: &str) -> bool {
        Claims::<User>::decode(pass).is_ok_and(|claims| claims.iss == self.account.public_key())
    }

    /// What this authority itself reaches the log with.
    ///
    /// # Errors
    /// The pass cannot be signed.
    pub fn identity(&self) -> Result<Identity, KeyError> {
        let key = KeyPair::new_user();
        let claims = user(&key.public_key(), "authority")?;
        let pass = claims.encode(&self.account).map_err(failed("the authority"))?;
        Ok(Identity::of(key, pass))
    }

    /// The pass of whoever holds a ticket: asks to be let in, nothing else, and not for long.
    pub(super) fn pass_to_the_door(
        &self,
        key: &str,
        log: &str,
        expires_ms: i64,
    ) -> Result<String, KeyError> {
        let mut claims = user(key, INVITED)?;
        claims.exp = Some(expires_ms / 1000);
        claims.nats.permissions.permissions = Permissions {
            publish: Permission { allow: vec![super::admission::door(log)], deny: Vec::new() },
            subscribe: Permission {
                allow: vec![format!("{}.>", super::admission::inbox(key))],
                deny: Vec::new(),
            },
            resp: None,
        };
        let (payload, subs) = GUEST;
        claims.nats.permissions.limits = Some(Limits {
            nats_limits: Some(NatsLimits {
                subs: Some(subs),
                data: Some(NO_LIMIT),
                payload: Some(payload),
            }),
            user_limits: None,
        });
        claims.encode(&self.account).map_err(failed("an invitation"))
    }

    /// The account of the log, without those who were put out.
    fn log_account(&self, out: &[String]) -> Result<String, KeyError> {
        let mut claims = Account::new_claims("log".into(), self.account.public_key());
        let limits = JetStreamLimits {
            memory_storage: Some(NO_LIMIT),
            disk_storage: Some(NO_LIMIT),
            streams: Some(NO_LIMIT),
            consumer: Some(NO_LIMIT),
            max_ack_pending: Some(NO_LIMIT),
            ..JetStreamLimits::default()
        };
        claims.nats.limits =
            Some(OperatorLimits { jetstream: Some(limits), ..OperatorLimits::default() });
        let out: BTreeMap<String, u64> = out.iter().map(|key| (key.clone(), FOR_EVER)).collect();
        claims.nats.revocations = (!out.is_empty()).then_some(out);
        claims.encode(&self.operator).map_err(failed("the account of the log"))
    }

    fn system_account(&self) -> Result<String, KeyError> {
        let claims = Account::new_claims("system".into(), self.system.public_key());
        claims.encode(&self.operator).map_err(failed("the servers' own account"))
    }

    /// Writes all that a server needs into its folder, `server.conf` last. What its store holds stays.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn furnish(&self, site: &Site<'_>) -> Result<(), KeyError> {
        fs::create_dir_all(site.folder)?;
        let mut operator = Operator::new_claims("cluster".into(), self.operator.public_key());
        operator.nats.system_account = Some(self.system.public_key());
        let operator = operator.encode(&self.operator).map_err(failed("the operator"))?;

        let key = rcgen::KeyPair::generate().map_err(failed("a server"))?;
        let issuer = Issuer::new(of_the_authority(), &self.certificates);
        let certificate = CertificateParams::new([site.listen.ip().to_string()])
            .and_then(|of_the_server| of_the_server.signed_by(&key, &issuer))
            .map_err(failed("a server"))?;
        let file = |name: &str| site.folder.join(name);
        remove_if_there(&file("server.key"))?;
        write_secret(&file("server.key"), &key.serialize_pem())?;
        fs::write(file("server.pem"), certificate.pem())?;

        fs::write(file("authority.pem"), self.certificate()?)?;
        let routes = if site.all.len() > 1 {
            let others: Vec<String> =
                site.all.iter().map(|at| format!("\"nats-route://{}\"", route(*at))).collect();
            format!(
                "cluster {{\n  name: log\n  listen: \"{}\"\n  routes: [{}]\n  tls {{ cert_file: \
                 \"server.pem\", key_file: \"server.key\", ca_file: \"authority.pem\", verify: true, \
                 timeout: 5 }}\n}}\n",
                route(site.listen),
                others.join(", ")
            )
        } else {
            String::new()
        };
        // Nobody else has what one server alone acknowledged: it is on its disk before.
        let flushed = if site.all.len() > 1 { "" } else { ", sync_interval: always" };
        let (account, system) = (self.account.public_key(), self.system.public_key());
        let text = format!(
            "# To be started in its folder. The keys in here are public.\n\
             server_name: {}\n\
             listen: {:?}\n\
             max_payload: 8MB\n\
             tls {{ cert_file: \"server.pem\", key_file: \"server.key\", timeout: 5 }}\n\
             jetstream {{ store_dir: \"store\"{flushed} }}\n\
             {routes}\
             operator: {operator}\n\
             system_account: {system}\n\
             resolver {{ type: full, dir: \"accounts\", allow_delete: false, interval: \"2m\" }}\n\
             resolver_preload {{\n  {account}: {}\n  {system}: {}\n}}\n",
            serde_json::json!(site.name),
            site.listen.to_string(),
            self.log_account(&[])?,
            self.system_account()?,
        );
        fs::write(file("server.conf"), text)?;
        Ok(())
    }

    /// Puts out everybody with one of these keys, for ever: what they say is refused from now on, and
    /// who is connected is cut off. Names all that were ever put out: the servers forget the others.
    ///
    /// # Errors
    /// The servers do not answer, or do not take it.
    pub async fn put_out(&self, keys: &[String], options: &Options) -> Result<(), KeyError> {
        let refused = |detail: String| KeyError::Refused { servers: options.shown(), detail };
        let key = KeyPair::new_user();
        let pass = user(&key.public_key(), "authority")?
            .encode(&self.system)
            .map_err(failed("the authority"))?;
        let options = Options { identity: Some(Identity::of(key, pass)), ..options.clone() };
        let client = async { options.client(options.connect()?).await };
        let client = client.await.map_err(|error| refused(error.to_string()))?;
        let account = self.log_account(keys)?;
        let asked = client.request("$SYS.REQ.CLAIMS.UPDATE", account.into());
        let answer = tokio::time::timeout(ANSWER, asked).await;
        let answer = answer.map_err(|_| refused("no answer".into()))?;
        let answer = answer.map_err(|error| refused(error.to_string()))?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
        match answer.get("error") {
            None if answer["data"]["code"] == 200 => Ok(()),
            _ => Err(refused(answer.to_string())),
        }
    }
}

/// Without the secrets.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority {}", self.operator.public_key())
    }
}

fn user(key: &str, name: &str) -> Result<Claims<User>, KeyError> {
    if public_bytes(key).is_none() {
        let (what, detail) = (name.to_owned(), format!("{key:?} is no public key of a node"));
        return Err(KeyError::Sign { what, detail });
    }
    Ok(User::new_claims(name.to_owned(), key.to_owned()))
}

/// The same each time: who signs is known by name and key.
fn of_the_authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "servers of a log");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A new file that its owner alone may read.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_cluster_are_for_their_owner_alone_and_never_shown() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authority.json");
        let authority = Authority::generate().unwrap();
        authority.write(&path).unwrap();
        assert!(authority.write(&path).is_err(), "another cluster's keys would be lost");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Authority::read(&path).unwrap();
        assert_eq!(format!("{read:?}"), format!("{authority:?}"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&format!("{read:?}")["Authority ".len()..]));

        fs::write(&path, text.replace("operator", "owner")).unwrap();
        let refused = Authority::read(&path).unwrap_err().to_string();
        assert!(refused.contains("does not hold the keys of a cluster"), "{refused}");
    }

    #[test]
    fn a_pass_is_made_for_the_key_of_a_node_alone() {
        let authority = Authority::generate().unwrap();
        let key = public_key([7; 32]).unwrap();
        let pass = Claims::<User>::decode(&authority.pass(&key, "there", "log").unwrap()).unwrap();
        assert_eq!((pass.sub.as_str(), pass.name.as_deref()), (key.as_str(), Some("there")));
        for wrong in ["", "U123", &authority.account.public_key()] {
            let refused = authority.pass(wrong, "there", "log").unwrap_err().to_string();
            assert!(refused.contains("is no public key of a node"), "{refused}");
        }
    }
}

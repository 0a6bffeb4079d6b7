//! Objects in a bucket of a service.

use std::{
    io::{ErrorKind, Read},
    sync::Once,
    time::Duration,
};

use futures_util::StreamExt as _;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutPayload, RetryConfig, UpdateVersion,
    aws::AmazonS3Builder,
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::GoogleCloudStorageBuilder,
    path::Path,
};
// Named for its feature alone: encryption without a library of its own choice, see `prepare`.
use reqwest as _;
use tokio::runtime::Runtime;
use tracing::warn;

use super::{
    Address, Credentials, FarError, FarResult, Objects, Options, Plain, Service, Version,
    address::is_number,
    check_endpoint,
    credentials::{AzureSecret, Proof},
};

/// Bytes sent at a time: what is longer goes up in parts of this size, and is there once all of them are.
/// Source: S3 and Google, parts of 5 MiB at least; Azure takes any.
const PART: usize = 8 << 20;
/// A service that does not take a connection within this is away.
const CONNECT: Duration = Duration::from_secs(5);
/// One that says nothing for so long, or takes no part within it, is away.
const SILENCE: Duration = Duration::from_mins(2);
/// Tries of one request; whoever calls tries again as a whole.
const RETRIES: usize = 2;
/// Time that they may take together.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// Where Google has its buckets.
const GOOGLE: &str = "https://storage.googleapis.com";
/// Where Azure has those of an account, after its name.
const AZURE: &str = "blob.core.windows.net";
/// What services call a bucket that is not there.
const NO_BUCKET: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];
/// What is in the text of a refusal; not every call gives it a kind of its own.
const REFUSALS: [&str; 2] = ["status code: 401", "status code: 403"];
/// What is in the text of a service that knows no conditions.
const UNABLE: &str = "status code: 501";
/// Most that is shown of what a service says.
const SHOWN: usize = 200;

pub(super) struct Bucket {
    store: Box<dyn ObjectStore>,
    service: Service,
    name: String,
    prefix: String,
    /// That pointers are replaced unseen is said once.
    said: Once,
    /// Of its own, so that every caller may block. None only while it is dropped.
    runtime: Option<Runtime>,
}

impl Bucket {
    pub(super) fn open(options: Options) -> FarResult<Self> {
        let shown = options.address.to_string();
        let Address::Bucket { service, name, prefix } = options.address else {
            return Err(FarError::Refused(format!("{shown} is no bucket")));
        };
        let Some(Credentials(proof)) = options.credentials else {
            let wanted = Credentials::wanted(service);
            return Err(FarError::Refused(format!("{shown} needs credentials: {wanted}")));
        };
        let endpoint = options.endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
        let shows_proof = matches!(
            proof,
            Proof::Google(_) | Proof::Azure { secret: AzureSecret::Signature(_), .. }
        );
        if let Some(endpoint) = &endpoint
            && shows_proof
            && check_endpoint(endpoint, Plain::Loopback).is_err()
        {
            return Err(FarError::Refused(format!(
                "{endpoint} is not encrypted, and whoever listens in between could use what proves us to {shown}: \
                 allowed is https:// alone"
            )));
        }
        prepare();
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT)
            .with_read_timeout(SILENCE)
            // What may be talked to in the clear was judged before.
            .with_allow_http(true);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
        };
        let store: object_store::Result<Box<dyn ObjectStore>> = match proof {
            Proof::S3 { id, secret, session } => {
                let mut builder = AmazonS3Builder::new()
                    .with_bucket_name(&name)
                    .with_region(options.region)
                    .with_access_key_id(id)
                    .with_secret_access_key(secret)
                    .with_client_options(client)
                    .with_retry(retry);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(session) = session {
                    builder = builder.with_token(session);
                }
                builder.build().map(|store| Box::new(store) as _)
            }
            Proof::Google(account) => GoogleCloudStorageBuilder::new()
                .with_bucket_name(&name)
                .with_service_account_key(account)
                // Always, since the file could name another one, that nobody has judged.
                .with_base_url(endpoint.as_deref().unwrap_or(GOOGLE))
                .with_client_options(client)
                .with_retry(retry)
                .build()
                .map(|store| Box::new(store) as _),
            Proof::Azure { account, secret } => {
                let endpoint = match endpoint {
                    // Source: Azure's own clients, "IP style". Nothing else says there whose account it is.
                    Some(endpoint) if is_number(&endpoint) => format!("{endpoint}/{account}"),
                    Some(endpoint) => endpoint,
                    None => format!("https://{account}.{AZURE}"),
                };
                let (kind, secret) = match secret {
                    AzureSecret::Key(key) => (AzureConfigKey::AccessKey, key),
                    AzureSecret::Signature(sas) => (AzureConfigKey::SasKey, sas),
                };
                MicrosoftAzureBuilder::new()
                    .with_container_name(&name)
                    .with_account(account)
                    .with_endpoint(endpoint)
                    .with_config(kind, secret)
                    .with_client_options(client)
                    .with_retry(retry)
                    .build()
                    .map(|store| Box::new(store) as _)
            }
        };
        // Not what it says: that could be a piece of what it was given.
        let store = store.map_err(|_| {
            FarError::Refused(format!(
                "what is there to prove us to {shown} cannot be read; it needs {}",
                Credentials::wanted(service)
            ))
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("far")
            .enable_all()
            .build()?;
        Ok(Self { store, service, name, prefix, said: Once::new(), runtime: Some(runtime) })
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("dropped with the bucket only").block_on(work)
    }

    fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() {
            Path::from(key)
        } else {
            Path::from(format!("{}/{key}", self.prefix))
        }
    }

    fn version_of(&self, object: ObjectMeta) -> Version {
        let name = match self.service {
            Service::Google => object.version,
            // A weak one names several contents, and no service compares it.
            Service::S3 | Service::Azure => object.e_tag.filter(|tag| !tag.starts_with("W/")),
        };
        name.map_or(Version::ANY, Version::new)
    }

    fn replace_unseen(&self, key: &str, contents: &[u8]) -> FarResult<bool> {
        self.said.call_once(|| {
            warn!(
                bucket = self.name,
                "the service cannot compare before it replaces: two that lead at once may go over each other"
            );
        });
        self.write(key, &mut &*contents, contents.len() as u64)?;
        Ok(true)
    }

    /// What an error means to whoever must act. Nothing of a refusal is shown: some services repeat what was
    /// signed.
    fn understood(&self, key: &str, error: &object_store::Error) -> FarError {
        use object_store::Error as E;
        let said = one_line(error);
        if is_without_bucket(&said) {
            return FarError::Refused(format!("the bucket {} is not there", self.name));
        }
        let is_refusal = matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. })
            || REFUSALS.iter().any(|status| said.contains(status));
        match error {
            E::NotFound { .. } => FarError::Absent { key: key.to_owned() },
            _ if is_refusal => FarError::Refused(format!(
                "the service refuses these credentials for the bucket {}",
                self.name
            )),
            _ if said.contains("PermanentRedirect")
                || said.contains("AuthorizationHeaderMalformed") =>
            {
                FarError::Refused(format!("the bucket {} is in another region", self.name))
            }
            _ => FarError::Away(said.chars().take(SHOWN).collect()),
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // Dropped where blocking is not allowed, a runtime would panic.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The library for encrypted lines, for the whole process, unless somebody chose one already.
fn prepare() {
    // An error says that one is chosen.
    drop(rustls::crypto::ring::default_provider().install_default());
}

fn is_without_bucket(said: &str) -> bool {
    NO_BUCKET.iter().any(|code| said.contains(code))
}

fn one_line(error: &object_store::Error) -> String {
    error.to_string().replace(char::is_control, " ")
}

impl Objects for Bucket {
    fn read(
        &self,
        key: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> FarResult<()>,
    ) -> FarResult<()> {
        self.block_on(async {
            let understood = |error| self.understood(key, &error);
            let range = (from > 0).then_some(GetRange::Offset(from));
            let options = GetOptions { range, ..GetOptions::default() };
            let found = self.store.get_opts(&self.path(key), options).await.map_err(understood)?;
            let mut blocks = found.into_stream();
            while let Some(block) = blocks.next().await {
                sink(&block.map_err(understood)?)?;
            }
            Ok(())
        })
    }

    fn write(&self, key: &str, contents: &mut dyn Read, bytes: u64) -> FarResult<()> {
        let path = self.path(key);
        let short = |found: u64| {
            let what = format!("{found} of {bytes} bytes could be read for {key}");
            FarError::from(std::io::Error::other(what))
        };
        let mut part = read_part(contents)?;
        if part.len() < PART {
            if part.len() as u64 != bytes {
                return Err(short(part.len() as u64));
            }
            let put = self.block_on(self.store.put(&path, PutPayload::from(part)));
            return put.map(drop).map_err(|error| self.understood(key, &error));
        }
        let understood = |error| self.understood(key, &error);
        self.block_on(async {
            let mut upload = self.store.put_multipart(&path).await.map_err(understood)?;
            let mut sent = 0;
            let sending = async {
                while !part.is_empty() {
                    sent += part.len() as u64;
                    upload
                        .put_part(PutPayload::from(std::mem::take(&mut part)))
                        .await
                        .map_err(understood)?;
                    part = read_part(contents)?;
                }
                if sent != bytes {
                    return Err(short(sent));
                }
                upload.complete().await.map(drop).map_err(understood)
            };
            let done = sending.await;
            if done.is_err() {
                // What cannot be taken back now lies there unseen, until the bucket's own rule for unfinished
                // uploads.
                drop(upload.abort().await);
            }
            done
        })
    }

    fn version(&self, key: &str) -> FarResult<Option<Version>> {
        match self.block_on(self.store.head(&self.path(key))) {
            Ok(object) => Ok(Some(self.version_of(object))),
            Err(error) => match self.understood(key, &error) {
                FarError::Absent { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// A service that gives neither tags nor generations, or says that it takes no conditions, gets a plain put, as
    /// it always did. One that takes them and does not look at them cannot be told from one that does.
    fn replace(&self, key: &str, version: Option<&Version>, contents: &[u8]) -> FarResult<bool> {
        let mode = match version.map(Version::name) {
            None => PutMode::Create,
            // Each service looks at its own.
            Some(Some(name)) => PutMode::Update(UpdateVersion {
                e_tag: Some(name.to_owned()),
                version: Some(name.to_owned()),
            }),
            Some(None) => return self.replace_unseen(key, contents),
        };
        let (path, payload) = (self.path(key), PutPayload::from(contents.to_vec()));
        let put = self.block_on(self.store.put_opts(&path, payload, mode.into()));
        let Err(error) = put else { return Ok(true) };
        let said = one_line(&error);
        let is_other = matches!(
            error,
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. }
        );
        if is_other && !is_without_bucket(&said) {
            return Ok(false);
        }
        if said.contains(UNABLE) {
            return self.replace_unseen(key, contents);
        }
        Err(self.understood(key, &error))
    }

    fn list(&self, folder: &str, found: &mut dyn FnMut(&str, u64)) -> FarResult<()> {
        let strip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        self.block_on(async {
            let path = self.path(folder);
            let mut objects = self.store.list(Some(&path));
            while let Some(object) = objects.next().await {
                let object = object.map_err(|error| self.understood(folder, &error))?;
                found(object.location.as_ref().get(strip..).unwrap_or_default(), object.size);
            }
            Ok(())
        })
    }
}

/// The next part; shorter than one only at the end.
fn read_part(from: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::new();
    while part.len() < PART {
        let before = part.len();
        part.resize((before + (128 << 10)).min(PART), 0);
        let n = match from.read(&mut part[before..]) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                part.truncate(before);
                continue;
            }
            Err(error) => return Err(error),
        };
        part.truncate(before + n);
        if n == 0 {
            break;
        }
    }
    Ok(part)
}

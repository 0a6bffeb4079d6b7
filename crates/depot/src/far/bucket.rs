//! Objects in a bucket of a service that speaks S3.

use std::{
    io::{ErrorKind, Read},
    time::Duration,
};

use futures_util::StreamExt as _;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _,
    PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
// Named for its feature alone: encryption without a library of its own choice, see `prepare`.
use reqwest as _;
use tokio::runtime::Runtime;

use super::{Address, Credentials, FarError, FarResult, Objects, Options};

/// Bytes sent at a time: what is longer goes up in parts of this size, and is there once all of them are.
/// Source: S3, parts of 5 MiB at least.
const PART: usize = 8 << 20;
/// A service that does not take a connection within this is away.
const CONNECT: Duration = Duration::from_secs(5);
/// One that says nothing for so long, or takes no part within it, is away.
const SILENCE: Duration = Duration::from_mins(2);
/// Tries of one request; whoever calls tries again as a whole.
const RETRIES: usize = 2;
/// Time that they may take together.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// Most that is shown of what a service says.
const SHOWN: usize = 200;

pub(super) struct Bucket {
    store: AmazonS3,
    name: String,
    prefix: String,
    /// Of its own, so that every caller may block. None only while it is dropped.
    runtime: Option<Runtime>,
}

impl Bucket {
    pub(super) fn open(options: Options) -> FarResult<Self> {
        let shown = options.address.to_string();
        let Address::Bucket { name, prefix } = options.address else {
            return Err(FarError::Refused(format!("{shown} is no bucket")));
        };
        let Some(Credentials { id, secret, session }) = options.credentials else {
            return Err(FarError::Refused(format!(
                "{shown} needs credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, \
                 or a file that store.credentials names"
            )));
        };
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
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&name)
            .with_region(options.region)
            .with_access_key_id(id)
            .with_secret_access_key(secret)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = options.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(session) = session {
            builder = builder.with_token(session);
        }
        let store = builder.build().map_err(|error| FarError::Refused(one_line(&error)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("far")
            .enable_all()
            .build()?;
        Ok(Self { store, name, prefix, runtime: Some(runtime) })
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

    /// What an error means to whoever must act. Nothing of a refusal is shown: some services repeat what was
    /// signed.
    fn understood(&self, key: &str, error: &object_store::Error) -> FarError {
        use object_store::Error as E;
        let said = one_line(error);
        if said.contains("NoSuchBucket") {
            return FarError::Refused(format!("the bucket {} is not there", self.name));
        }
        match error {
            E::NotFound { .. } => FarError::Absent { key: key.to_owned() },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => FarError::Refused(format!(
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

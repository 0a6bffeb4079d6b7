//! A store far away: a folder of another disk or machine, or a bucket of a service.
//!
//! Files lie there by the hash of what is in them, so they never change, and whoever writes one twice
//! writes the same. Nothing that the store says is believed: a file counts as there once it was read
//! back and hashed, and what is fetched is hashed on its way into the depot. Sizes decide nothing.
//!
//! Beside the files there are *pointers*, objects under a name of their own, which are replaced; whoever
//! writes one makes sure that what it points to is there first. One is replaced only as long as it is what its
//! writer has seen, and it is the store that compares: whoever slept in between goes over nothing that is newer.
//! There is no way to delete something.
//!
//! ```text
//! blobs/ab/abcd...ef    a file of a depot
//! FOLDER/abcd...ef      contents that somebody put into a folder of his own
//! NAME                  a pointer
//! ```
//!
//! Everything here blocks, for as long as a line takes: an async caller uses a blocking thread.

mod address;
#[cfg(feature = "buckets")]
mod bucket;
mod credentials;
mod folder;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    io::{self, Read, Write as _},
    ops::ControlFlow,
    sync::Arc,
    thread,
    time::Duration,
};

use tracing::{info, warn};

pub use address::{Address, ParseAddressError, Plain, Service, check_endpoint};
pub use credentials::Credentials;

use crate::{Depot, Error, Fault, Hash, Stored};

/// Tries without progress before a store counts as away.
const TRIES: u32 = 3;
/// Pause after the first of them; it doubles.
const PAUSE: Duration = Duration::from_secs(1);

/// How a far store is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it is.
    pub address: Address,
    /// Where the service is; none = where Amazon, Google or Azure has it.
    pub endpoint: Option<String>,
    /// The region that the bucket is in; for S3 alone.
    pub region: String,
    /// Who may be talked to without encryption.
    pub plain: Plain,
    /// What proves us.
    pub credentials: Option<Credentials>,
    /// Bytes a second in either direction; none = as many as it can.
    pub rate: Option<u64>,
}

/// Why something far away was not done.
#[derive(Debug, thiserror::Error)]
pub enum FarError {
    /// It is not there.
    #[error("{key} is not in the far store")]
    Absent {
        /// Its key.
        key: String,
    },
    /// The store does not take us, or is not there as it was configured: a person must act.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached now.
    #[error("the far store cannot be reached: {0}")]
    Away(String),
    /// It is there, and not what its name says.
    #[error("{key} in the far store is damaged: {what}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// Something on this machine.
    #[error(transparent)]
    Here(#[from] Error),
    /// Whoever watched it wanted it to end.
    #[error("it was asked to stop")]
    Stopped,
}

impl From<io::Error> for FarError {
    fn from(error: io::Error) -> Self {
        Self::Here(error.into())
    }
}

impl FarError {
    /// Something in the store can be made good by writing it again.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Damaged { .. })
    }
}

/// Result with the error of this part.
pub type FarResult<T> = Result<T, FarError>;

/// Is told how many bytes have moved, and says whether to go on.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Which contents an object has: a name that the store gives them, and another one to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Option<String>);

impl Version {
    /// That of any contents, in a store that cannot tell them apart.
    pub const ANY: Self = Self(None);

    /// That of the contents with this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Some(name.into()))
    }

    /// The name; none if the store gives none.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Objects under keys, somewhere: what a kind of store must be able to do.
pub trait Objects: Send + Sync + 'static {
    /// Reads an object from a byte on, block by block. An error of `sink` ends it.
    fn read(
        &self,
        key: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> FarResult<()>,
    ) -> FarResult<()>;

    /// Writes `bytes` bytes under a key, over what was there. The object is there as a whole or as it was.
    fn write(&self, key: &str, contents: &mut dyn Read, bytes: u64) -> FarResult<()>;

    /// Which contents an object has, damaged ones too; none if there is no such object.
    fn version(&self, key: &str) -> FarResult<Option<Version>>;

    /// Writes an object as [`Objects::write`] does, if it still has this version, or if there still is none; says
    /// whether it did. Over [`Version::ANY`] it always writes.
    fn replace(&self, key: &str, version: Option<&Version>, contents: &[u8]) -> FarResult<bool>;

    /// Names all objects below a folder, keys whole, with their sizes.
    fn list(&self, folder: &str, found: &mut dyn FnMut(&str, u64)) -> FarResult<()>;
}

/// What became of a file that was to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is there now, so many bytes.
    New(u64),
    /// It was there already, and whole.
    There(u64),
}

/// A far store; a clone is the same store.
#[derive(Clone)]
pub struct Far(Arc<Inner>);

struct Inner {
    objects: Box<dyn Objects>,
    shown: String,
    rate: Option<u64>,
    pause: Duration,
}

impl std::fmt::Debug for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Far({})", self.0.shown)
    }
}

impl std::fmt::Display for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.shown)
    }
}

impl Far {
    /// Opens a store. Nobody is asked yet.
    ///
    /// # Errors
    /// [`FarError::Refused`] if it cannot be one.
    pub fn open(options: Options) -> FarResult<Self> {
        let (shown, rate) = (options.address.to_string(), options.rate);
        let objects: Box<dyn Objects> = match options {
            Options { address: Address::Folder(root), .. } => Box::new(folder::Folder::new(&root)),
            #[cfg(feature = "buckets")]
            options => Box::new(bucket::Bucket::open(options)?),
            #[cfg(not(feature = "buckets"))]
            _ => {
                return Err(FarError::Refused(format!(
                    "this program was built without the feature `buckets`, so {shown} is out of its reach"
                )));
            }
        };
        Ok(Self(Arc::new(Inner { objects, shown, rate, pause: PAUSE })))
    }

    /// A store on other objects; `pause` is that after a first failure.
    pub fn over(objects: impl Objects, shown: &str, pause: Duration) -> Self {
        let (objects, shown) = (Box::new(objects), shown.to_owned());
        Self(Arc::new(Inner { objects, shown, rate: None, pause }))
    }

    /// Makes sure that a file of a depot is there, whole. One that is there and damaged is replaced.
    ///
    /// # Errors
    /// [`FarError::Here`] if it is not whole in the depot.
    pub fn put(&self, depot: &Depot, hash: &Hash, watch: Watch<'_>) -> FarResult<Sent> {
        let key = blob_key(hash);
        if let Some(bytes) = self.whole(&key, hash, watch)? {
            return Ok(Sent::There(bytes));
        }
        let bytes = depot.open_verified(hash)?.metadata()?.len();
        let path = depot.path_of(hash)?.ok_or(Error::Fault(Fault::Missing { hash: *hash }))?;
        self.write(&key, bytes, &|| Ok(Box::new(fs_err::File::open(&path)?)), watch)?;
        self.hash_of(&key, hash, watch)?;
        Ok(Sent::New(bytes))
    }

    /// Reads a file back and hashes it; gives its size.
    ///
    /// # Errors
    /// It is absent or damaged.
    pub fn verify(&self, hash: &Hash, watch: Watch<'_>) -> FarResult<u64> {
        self.hash_of(&blob_key(hash), hash, watch)
    }

    /// Brings a file of so many bytes into a depot, under an ending. Space is reserved before the first byte
    /// arrives; a line that breaks is taken up again where it broke. A file that is there and whole stays.
    pub fn fetch(
        &self,
        depot: &Depot,
        hash: &Hash,
        (bytes, extension): (u64, &str),
        watch: Watch<'_>,
    ) -> FarResult<Stored> {
        if depot.verify(hash).is_ok() {
            return Ok(Stored { hash: *hash, bytes, new: false });
        }
        let _space = depot.reserve(bytes)?;
        let mut incoming = depot.incoming_file()?;
        let key = blob_key(hash);
        let actual = self.read(&key, Some(bytes), watch, &mut |block| {
            incoming.file.write_all(block)?;
            Ok(())
        })?;
        check(&key, hash, &actual)?;
        Ok(depot.keep(incoming, *hash, bytes, extension)?)
    }

    /// Puts contents into a folder, under their hash.
    pub fn put_into(&self, folder: &str, contents: &[u8], watch: Watch<'_>) -> FarResult<Hash> {
        let hash = Hash::of(contents);
        let key = format!("{folder}/{hash}");
        if self.whole(&key, &hash, watch)?.is_none() {
            let open = || -> io::Result<Box<dyn Read>> {
                Ok(Box::new(io::Cursor::new(contents.to_vec())))
            };
            self.write(&key, contents.len() as u64, &open, watch)?;
            self.hash_of(&key, &hash, watch)?;
        }
        Ok(hash)
    }

    /// Reads contents of a folder that have this hash, at most `limit` bytes.
    ///
    /// # Errors
    /// They are absent, damaged or longer.
    pub fn read_from(
        &self,
        folder: &str,
        hash: &Hash,
        limit: u64,
        watch: Watch<'_>,
    ) -> FarResult<Vec<u8>> {
        let key = format!("{folder}/{hash}");
        let (contents, actual) = self.read_small(&key, limit, watch)?;
        check(&key, hash, &actual)?;
        Ok(contents)
    }

    /// Which contents a pointer has, damaged ones too; none if there is no pointer. Ask before reading it: then
    /// [`Far::point`] replaces what was read, or nothing.
    pub fn version(&self, name: &str) -> FarResult<Option<Version>> {
        self.persist(|| self.0.objects.version(name))
    }

    /// Writes a pointer if it still has this version, or if there still is none, and reads it back. Says whether
    /// it has these contents now; if not, somebody else has written.
    ///
    /// # Errors
    /// None of them says that nothing was written: whoever goes on looks again.
    pub fn point(
        &self,
        name: &str,
        version: Option<&Version>,
        contents: &[u8],
        watch: Watch<'_>,
    ) -> FarResult<bool> {
        let is_replaced = self.persist_watched(&mut *watch, |watch| {
            self.pace(contents.len(), watch)?;
            self.0.objects.replace(name, version, contents)
        })?;
        // Also if it is refused: an answer that was lost lets the next try find what the last one has written.
        match self.read_small(name, contents.len() as u64, watch) {
            Ok((found, _)) if found == contents => Ok(true),
            Err(error) if is_replaced || !error.is_loss() => Err(error),
            Ok(_) if is_replaced => {
                let what = "it is not what was written a moment ago: somebody else wrote there since, or the \
                            store does not keep what it takes";
                let what = what.to_owned();
                Err(FarError::Damaged { key: name.to_owned(), what })
            }
            _ => Ok(false),
        }
    }

    /// Reads a pointer of at most `limit` bytes; none if there is none.
    pub fn pointer(&self, name: &str, limit: u64, watch: Watch<'_>) -> FarResult<Option<Vec<u8>>> {
        match self.read_small(name, limit, watch) {
            Ok((contents, _)) => Ok(Some(contents)),
            Err(FarError::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keys below a folder and their sizes, in order.
    pub fn list(&self, folder: &str) -> FarResult<Vec<(String, u64)>> {
        self.persist(|| {
            let mut keys = Vec::new();
            self.0.objects.list(folder, &mut |key, bytes| {
                keys.push((key.to_owned(), bytes));
            })?;
            keys.sort();
            Ok(keys)
        })
    }

    /// The size of what is there whole; none if nothing is, or something damaged.
    fn whole(&self, key: &str, hash: &Hash, watch: Watch<'_>) -> FarResult<Option<u64>> {
        match self.hash_of(key, hash, watch) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(FarError::Absent { .. }) => Ok(None),
            Err(FarError::Damaged { key, what }) => {
                warn!(key, what, "a damaged object is replaced");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn hash_of(&self, key: &str, hash: &Hash, watch: Watch<'_>) -> FarResult<u64> {
        let mut bytes = 0;
        let actual = self.read(key, None, watch, &mut |block| {
            bytes += block.len() as u64;
            Ok(())
        })?;
        check(key, hash, &actual)?;
        Ok(bytes)
    }

    fn read_small(&self, key: &str, limit: u64, watch: Watch<'_>) -> FarResult<(Vec<u8>, Hash)> {
        let mut contents = Vec::new();
        let mut too_long = false;
        let read = self.read(key, None, watch, &mut |block| {
            too_long = contents.len() as u64 + block.len() as u64 > limit;
            if too_long {
                return Err(FarError::Stopped);
            }
            contents.extend_from_slice(block);
            Ok(())
        });
        match read {
            Err(FarError::Stopped) if too_long => {
                let what = format!("it has more than {limit} bytes");
                Err(FarError::Damaged { key: key.to_owned(), what })
            }
            read => Ok((contents, read?)),
        }
    }

    /// Reads an object, goes on where a line broke, and gives its hash.
    fn read(
        &self,
        key: &str,
        expected: Option<u64>,
        watch: Watch<'_>,
        sink: &mut dyn FnMut(&[u8]) -> FarResult<()>,
    ) -> FarResult<Hash> {
        let mut hasher = blake3::Hasher::new();
        let (mut at, mut failures) = (0_u64, 0);
        loop {
            let before = at;
            let read = self.0.objects.read(key, at, &mut |block| {
                at += block.len() as u64;
                if let Some(bytes) = expected.filter(|bytes| at > *bytes) {
                    let what = format!("it has more than its {bytes} bytes");
                    return Err(FarError::Damaged { key: key.to_owned(), what });
                }
                hasher.update(block);
                sink(block)?;
                self.pace(block.len(), watch)
            });
            match read {
                Ok(()) => break,
                // The line broke just behind the last byte.
                Err(FarError::Away(_)) if expected == Some(at) => break,
                Err(FarError::Away(what)) => {
                    failures = if at > before { 1 } else { failures + 1 };
                    self.rest(failures, what, watch)?;
                }
                Err(error) => return Err(error),
            }
        }
        let actual = Hash::from_bytes(*hasher.finalize().as_bytes());
        match expected {
            Some(bytes) if at != bytes => {
                let what = format!("it has {at} of its {bytes} bytes");
                Err(FarError::Damaged { key: key.to_owned(), what })
            }
            _ => Ok(actual),
        }
    }

    fn write(
        &self,
        key: &str,
        bytes: u64,
        open: &dyn Fn() -> io::Result<Box<dyn Read>>,
        watch: Watch<'_>,
    ) -> FarResult<()> {
        let mut failures = 0;
        loop {
            let stopped = Cell::new(false);
            let mut contents =
                Paced { from: open()?, far: self, watch: &mut *watch, stopped: &stopped };
            match self.0.objects.write(key, &mut contents, bytes) {
                Err(_) if stopped.get() => return Err(FarError::Stopped),
                Err(FarError::Away(what)) => {
                    failures += 1;
                    self.rest(failures, what, watch)?;
                }
                written => return written,
            }
        }
    }

    /// Tries again what needs no watching.
    fn persist<T>(&self, mut work: impl FnMut() -> FarResult<T>) -> FarResult<T> {
        self.persist_watched(&mut |_| ControlFlow::Continue(()), |_| work())
    }

    fn persist_watched<T>(
        &self,
        watch: Watch<'_>,
        mut work: impl FnMut(Watch<'_>) -> FarResult<T>,
    ) -> FarResult<T> {
        let mut failures = 0;
        loop {
            match work(&mut *watch) {
                Err(FarError::Away(what)) => {
                    failures += 1;
                    self.rest(failures, what, &mut *watch)?;
                }
                done => return done,
            }
        }
    }

    fn rest(&self, failures: u32, what: String, watch: Watch<'_>) -> FarResult<()> {
        if failures >= TRIES {
            return Err(FarError::Away(what));
        }
        info!(store = %self, what, failures, "the far store is tried again");
        thread::sleep(self.0.pause * (1 << (failures - 1)));
        go_on(watch(0))
    }

    /// Waits for as long as so many bytes may take at least.
    fn pace(&self, bytes: usize, watch: Watch<'_>) -> FarResult<()> {
        if let Some(rate) = self.0.rate {
            let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
            thread::sleep(Duration::from_nanos(nanos));
        }
        go_on(watch(bytes as u64))
    }
}

fn go_on(said: ControlFlow<()>) -> FarResult<()> {
    match said {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(FarError::Stopped),
    }
}

fn blob_key(hash: &Hash) -> String {
    let name = hash.to_string();
    format!("blobs/{}/{name}", &name[..2])
}

fn check(key: &str, expected: &Hash, actual: &Hash) -> FarResult<()> {
    if expected == actual {
        return Ok(());
    }
    let what = format!("its contents have the hash {actual}");
    Err(FarError::Damaged { key: key.to_owned(), what })
}

/// What is read no faster than allowed, and watched.
struct Paced<'a> {
    from: Box<dyn Read>,
    far: &'a Far,
    watch: Watch<'a>,
    stopped: &'a Cell<bool>,
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        if self.far.pace(n, self.watch).is_err() {
            self.stopped.set(true);
            return Err(io::Error::other("it was asked to stop"));
        }
        Ok(n)
    }
}

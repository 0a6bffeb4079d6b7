//! The data directory: where everything lies, and who may use it.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::FlockOperation;

use crate::logs::FILE;

/// Longest path of a Unix socket in bytes, its end mark included. Source: `sun_path` of Linux.
const SOCKET_PATH_MAX: usize = 108;

/// Paths inside a data directory; making one touches no disk.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory at `path`, made absolute.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path)
            .with_context(|| format!("find the data directory {}", path.display()))?;
        Ok(Self(path))
    }

    /// Makes the directory and its folders.
    pub fn create(&self) -> anyhow::Result<()> {
        for folder in [self.0.clone(), self.run(), self.logs()] {
            fs_err::create_dir_all(&folder).context("make the data directory")?;
        }
        Ok(())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The log: facts, positions, leases.
    pub fn facts(&self) -> PathBuf {
        self.0.join("facts.sqlite")
    }

    /// What a node of a cluster says when it can reach the log again.
    pub fn outbox(&self) -> PathBuf {
        self.0.join("outbox.sqlite")
    }

    /// Which cluster this directory belongs to.
    pub fn membership(&self) -> PathBuf {
        self.0.join("cluster.toml")
    }

    /// The secret key of this node of a cluster.
    #[cfg(feature = "cluster")]
    pub fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    /// The folder of a cluster's keys and of its server, if those are here.
    pub fn cluster(&self) -> PathBuf {
        self.0.join("cluster")
    }

    /// The secret keys of the cluster, on the node that lets others in.
    #[cfg(feature = "cluster")]
    pub fn authority(&self) -> PathBuf {
        self.cluster().join("authority.json")
    }

    /// The certificate by which the servers are known.
    #[cfg(feature = "cluster")]
    pub fn certificate(&self) -> PathBuf {
        self.cluster().join("servers.pem")
    }

    /// The folder of a server of the log that is to run on another machine.
    pub fn other_server(&self, number: usize) -> PathBuf {
        self.cluster().join("servers").join(number.to_string())
    }

    /// The folder of what this node knows of a cluster's log.
    pub fn replica(&self) -> PathBuf {
        self.0.join(ringrift_daemons::REPLICA)
    }

    /// The catalogue, a fold of the log.
    pub fn catalogue(&self) -> PathBuf {
        self.0.join("catalogue.sqlite")
    }

    /// Working directories of workers.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// What a restore lays aside until it is finished.
    pub fn restore(&self) -> PathBuf {
        self.0.join("restore")
    }

    /// Refuses a directory in which a restore was begun and not finished.
    ///
    /// # Errors
    /// A sentence.
    pub fn check_whole(&self) -> anyhow::Result<()> {
        let folder = self.restore();
        if folder.exists() {
            bail!(
                "{} holds a restore that is not finished: `ringrift restore` with the same --from goes on with it",
                self.0.display()
            );
        }
        Ok(())
    }

    /// Logs.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The log of the manager and its daemons.
    pub fn log(&self) -> PathBuf {
        self.logs().join(FILE)
    }

    /// What the workers of a kind say on their standard error.
    pub fn worker_log(&self, kind: &str) -> PathBuf {
        self.logs().join("workers").join(format!("{kind}.log"))
    }

    /// What belongs to a running manager.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The real port of probes and page.
    pub fn port(&self) -> PathBuf {
        self.run().join("port")
    }

    /// The operator's token.
    pub fn token(&self) -> PathBuf {
        self.run().join("token")
    }

    /// The name of this installation.
    pub fn node(&self) -> PathBuf {
        self.0.join("node")
    }

    /// Has a manager ever written here?
    pub fn exists(&self) -> bool {
        self.facts().exists() || self.membership().exists()
    }

    /// Where the manager's socket lies. A path that is too long for a socket is replaced by one in
    /// a runtime folder, which `run/socket-path` names.
    pub fn socket(&self) -> anyhow::Result<PathBuf> {
        let usual = self.run().join("socket");
        if usual.as_os_str().len() < SOCKET_PATH_MAX {
            return Ok(usual);
        }
        let note = self.run().join("socket-path");
        let path = fs_err::read_to_string(&note).context("find the manager's socket")?;
        Ok(PathBuf::from(path.trim()))
    }

    /// A place for the socket of a manager that starts; makes what the place needs.
    pub fn make_socket_place(&self) -> anyhow::Result<PathBuf> {
        let usual = self.run().join("socket");
        let note = self.run().join("socket-path");
        if usual.as_os_str().len() < SOCKET_PATH_MAX {
            remove_if_there(&note)?;
            remove_if_there(&usual)?;
            return Ok(usual);
        }
        let hash = blake3_of(self.0.as_os_str().as_encoded_bytes());
        let runtime =
            std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = runtime.join(format!("ringrift-{hash}"));
        // Made for the owner alone: in a shared folder nobody else may put a socket there.
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&folder)
        {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", folder.display()));
            }
            _ => {}
        }
        let owner = rustix::fs::stat(&folder)
            .with_context(|| format!("look at {}", folder.display()))?
            .st_uid;
        if owner != rustix::process::geteuid().as_raw() {
            bail!("{} belongs to another user; set XDG_RUNTIME_DIR", folder.display());
        }
        let socket = folder.join("socket");
        remove_if_there(&socket)?;
        fs_err::write(&note, format!("{}\n", socket.display()))?;
        Ok(socket)
    }

    /// Reads the operator's token, or makes one; only the owner may read the file.
    pub fn make_token(&self) -> anyhow::Result<String> {
        let path = self.token();
        if let Ok(token) = fs_err::read_to_string(&path)
            && token.trim().len() >= 32
        {
            return Ok(token.trim().to_owned());
        }
        let mut random = [0_u8; 32];
        fs_err::File::open("/dev/urandom")?.read_exact(&mut random)?;
        // The hash says no less than the random bytes, in hexadecimal digits.
        let token = depot::Hash::of(&random).to_string();
        remove_if_there(&path)?;
        let mut file = fs_err::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context("make the operator's token")?;
        writeln!(file, "{token}")?;
        Ok(token)
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`Taken`] if a manager holds it already.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.run().join("lock");
        let mut file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .context("open the lock of the data directory")?;
        match rustix::fs::flock(file.file(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                return Err(Taken { data: self.0.clone(), pid: pid.trim().to_owned() }.into());
            }
            Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        file.sync_all()?;
        Ok(Lock { _file: file })
    }

    /// Is a manager at work here?
    pub fn is_locked(&self) -> bool {
        fs_err::File::open(self.run().join("lock")).is_ok_and(|file| {
            rustix::fs::flock(file.file(), FlockOperation::NonBlockingLockShared).is_err()
        })
    }
}

/// The directory is taken until this is dropped, or its process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: fs_err::File,
}

/// Another manager holds the directory.
#[derive(Debug, thiserror::Error)]
#[error(
    "{data} is in use by the manager with process id {pid}; \
     `ringrift status` asks it, `ringrift stop` ends it"
)]
pub struct Taken {
    /// The directory.
    pub data: PathBuf,
    /// The manager's process id, as text.
    pub pid: String,
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn blake3_of(bytes: &[u8]) -> String {
    depot::Hash::of(bytes).to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path()).unwrap();
        data.create().unwrap();
        assert!(!data.is_locked());
        let lock = data.lock().unwrap();
        assert!(data.is_locked());
        let refused = data.lock().unwrap_err().to_string();
        assert!(refused.contains(&format!("process id {}", std::process::id())), "{refused}");
        drop(lock);
        assert!(!data.is_locked());
        drop(data.lock().unwrap());
    }

    #[test]
    fn the_token_is_made_once_and_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path()).unwrap();
        data.create().unwrap();
        let token = data.make_token().unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(data.make_token().unwrap(), token);
        let mode = fs_err::metadata(data.token()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_replaced_and_noted() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        let data = DataDir::new(&long).unwrap();
        data.create().unwrap();
        let made = data.make_socket_place().unwrap();
        assert!(made.as_os_str().len() < SOCKET_PATH_MAX, "{}", made.display());
        assert_eq!(data.socket().unwrap(), made);
        fs_err::remove_dir_all(made.parent().unwrap()).unwrap();
    }
}

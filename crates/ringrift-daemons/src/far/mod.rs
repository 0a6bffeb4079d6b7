//! The far store: where copies of artefacts and facts lie that outlive every node. See [`Archive`] for what
//! is in it.

mod archive;
pub(crate) mod rounds;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use depot::far::{Far, FarError, FarResult, Watch};
use ringrift_pipeline::BlobRow;
use warden::{Cx, Outcome};

pub use archive::{Archive, History, Manifest, Mark, Segment, again};
pub(crate) use archive::{MOST_FACTS, end_in, next_facts};

/// Roles of artefacts that always go there: they cannot be made again.
pub const ORIGINALS: [&str; 3] = ["weights", "games", "records"];
/// Roles of artefacts that go there if the configuration says so: they were made of the others.
pub const DERIVED: [&str; 3] = ["samples", "window", "checkpoint"];

/// Longest wait for the catalogue to show what the log has.
pub(crate) const FOLD_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks whether bytes move.
const LOOK: Duration = Duration::from_secs(1);

/// The store that the configuration names, if it names one; a clone is the same.
#[derive(Debug, Clone, Default)]
pub struct FarStore(Option<Arc<Kept>>);

/// A far store and what goes there.
#[derive(Debug)]
pub struct Kept {
    /// Where.
    pub far: Far,
    /// Roles of the artefacts that go there, sorted.
    pub roles: Vec<String>,
}

impl FarStore {
    /// This store, for [`ORIGINALS`] and these of [`DERIVED`].
    pub fn of(far: Far, derived: &[String]) -> Self {
        let mut roles: Vec<String> = ORIGINALS.map(str::to_owned).into();
        roles.extend_from_slice(derived);
        roles.sort();
        roles.dedup();
        Self(Some(Arc::new(Kept { far, roles })))
    }

    /// It, if there is one.
    pub fn get(&self) -> Option<&Arc<Kept>> {
        self.0.as_ref()
    }
}

impl Kept {
    /// Does this artefact go there?
    pub fn wants(&self, row: &BlobRow) -> bool {
        self.roles.contains(&row.role)
    }

    /// Tells positions in this store from those in another one.
    pub(crate) fn subscriber(&self, name: &str) -> String {
        let place = depot::Hash::of(self.far.to_string().as_bytes()).to_string();
        format!("{name}.{}", &place[..8])
    }
}

/// What an error of the far store is to a cycle: an obstacle, unless something here is broken.
pub(crate) fn obstacle<S>(error: anyhow::Error, status: S) -> anyhow::Result<Outcome<S>> {
    let reason = match error.downcast::<FarError>() {
        Ok(FarError::Here(here)) if !here.is_full() => return Err(here.into()),
        Ok(far) => far.to_string(),
        Err(error) => return Err(error),
    };
    Ok(Outcome::blocked(reason).with_status(status))
}

/// What a daemon says that has nothing to do.
pub(crate) const IDLE: &str = "no far store is configured: store.url names one";

/// The ending that an artefact of this role has in a depot.
pub fn extension(role: &str) -> &'static str {
    match role {
        "games" | "records" => "gz",
        "samples" | "window" => "npz",
        "weights" | "checkpoint" => "safetensors",
        _ => "bin",
    }
}

/// Runs a call on the far store on a blocking thread: a beat while bytes move, and an end within a block when the
/// daemon is to stop.
pub(crate) async fn watched<T: Send + 'static>(
    cx: &Cx,
    call: impl FnOnce(Watch<'_>) -> FarResult<T> + Send + 'static,
) -> anyhow::Result<FarResult<T>> {
    cx.beat()?;
    let (token, moved) = (cx.token(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&moved);
    let mut work = tokio::task::spawn_blocking(move || {
        call(&mut |bytes| {
            counted.fetch_add(bytes, Ordering::Relaxed);
            if token.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    let mut seen = 0;
    loop {
        tokio::select! {
            done = &mut work => {
                let done = done.context("wait for the far store")?;
                if matches!(done, Err(FarError::Stopped)) {
                    cx.beat()?;
                }
                return Ok(done);
            }
            () = tokio::time::sleep(LOOK) => {
                let now = moved.load(Ordering::Relaxed);
                if now != seen {
                    seen = now;
                    cx.beat()?;
                }
            }
        }
    }
}

//! Files by content hash: store, verify, trash, retention; copies of them far away.
//!
//! A [`Depot`] is a folder of files that never change, each named by the BLAKE3 hash of what is in
//! it. A file is there as a whole or not at all: it is written aside, flushed, and renamed. What is
//! read at a border of trust is hashed while it is read. There is one way out: [`Depot::trash`],
//! which asks for a [`Warrant`], and later [`Depot::empty_trash`].
//!
//! Everything here blocks; an async caller uses a blocking thread. Time comes in as a value
//! (milliseconds since the Unix epoch).
//!
//! ```text
//! blobs/ab/abcd...ef.npz    the file; `ab` are the first two digits of its hash
//! blobs/incoming/           files that are being written
//! trash/1700000000000-abcd...ef.npz        a file that was deleted at that time
//! trash/1700000000000-abcd...ef.npz.why    why
//! quarantine/abcd...ef-is-0123...9a.npz    a file whose contents are wrong, and what they are
//! ```

mod error;
pub mod far;
mod hash;
#[cfg(feature = "peers")]
pub mod peers;
mod quarantine;
mod retention;
mod store;
mod trash;
mod verify;

pub use error::{Error, Fault, Result};
pub use hash::{Hash, ParseHashError};
pub use quarantine::Quarantined;
pub use retention::{Doomed, Item, Rule, plan_retention};
pub use store::{Depot, Entry, Options, Reservation, Stored, Usage};
pub use trash::{Emptied, Receipt, Trashed, Warrant};
pub use verify::Progress;

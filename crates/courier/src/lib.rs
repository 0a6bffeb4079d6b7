//! Facts: what happened, kept in a durable log, and what follows from it.
//!
//! Four things, one store:
//!
//! * the **log** ([`Engine::append`], [`Engine::read`]): facts with a subject, an id that is stable
//!   across retries, and compare-and-append, which makes of a subject a state machine that cannot
//!   fork;
//! * **subscribers** ([`Subscriber`]): a durable position each, at least once delivery, and
//!   **dead letters** for what a handler cannot digest;
//! * **leases** with epochs ([`Engine::acquire`]): who may do what, and a fence that refuses the
//!   appends of whoever lost it;
//! * **projections** ([`Folder`]): the log folded into an SQLite file that may be deleted at any
//!   time and is rebuilt from the log.
//!
//! [`Courier`] is the handle to all of it. [`Embedded`] is the engine for one machine: one SQLite
//! file, one writer thread. A second engine has to pass the suite in `conformance` (feature
//! `conformance`) and nothing else.
//!
//! Time comes in as a value (milliseconds since the Unix epoch): nothing here reads a clock.

mod courier;
mod dead;
mod embedded;
mod error;
mod fact;
mod fold;
#[cfg(feature = "jetstream")]
pub mod jetstream;
mod lease;
mod lost;
mod outbox;
mod pool;
mod sightings;
mod subscriber;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use courier::{Answer, Courier, Engine, Page, Repeats, Standing};
pub use dead::{DeadLetter, LetterCounts, LetterFilter, LetterState, NewLetter};
pub use embedded::{Durability, Embedded, Options, Retention};
pub use error::{AppendError, Error, Fenced, LeaseError, OpenError};
pub use fact::{
    Batch, Expect, Fact, Fence, MAX_BATCH, MAX_BATCH_BYTES, MAX_BODY_BYTES, NewFact, Stream,
};
pub use fold::{Digest, FoldError, Folder, Projection, TableDigest, folded, refold};
pub use lease::Lease;
pub use lost::lost;
pub use outbox::{HandedIn, Kept, Outbox};
pub use pool::Reader;
pub use sightings::Sightings;
pub use subscriber::{Delivery, Failed, Subscriber};

/// Addresses, joined by commas, as people and logs may see them: without users, passwords and tokens.
pub fn without_secrets(addresses: &str) -> String {
    // A secret may have commas: from where an address begins with its scheme to the last @ all may be one.
    let mut parts: Vec<String> = Vec::new();
    for part in addresses.split(',').map(str::trim) {
        match parts.last_mut() {
            Some(last) if !part.contains("://") => *last = format!("{last}, {part}"),
            _ => parts.push(part.to_owned()),
        }
    }
    let open = |part: &String| match (part.split_once("://"), part.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => part.clone(),
    };
    parts.iter().map(open).collect::<Vec<_>>().join(", ")
}

/// The SQLite binding of the projections, so that their authors share its version.
pub use rusqlite;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_secret_is_shown() {
        let check = |addresses: &str, shown: &str| assert_eq!(without_secrets(addresses), shown);
        check("nats://a.example:4222,nats://b.example", "nats://a.example:4222, nats://b.example");
        check(
            "nats://n.example:secret@a.example, tls://token@b.example",
            "nats://a.example, tls://b.example",
        );
        check("n.example:secret@a.example", "a.example");
        check(
            "nats://n.example:sec,ret@a.example,nats://b.example",
            "nats://a.example, nats://b.example",
        );
        check("nats://n.example:s,ec,r@t@a.example, b.example", "nats://a.example, b.example");
    }
}

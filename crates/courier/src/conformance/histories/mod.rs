//! Histories: whether what concurrent compare-and-append and lease operations saw, while something below them
//! fails, could have happened one after the other.
//!
//! Several nodes compete for one subject and one lease and write what they ask and what they are told into a
//! [`History`]; the tests of an engine break meanwhile what an engine has to bear. What nobody answered is
//! [`resolve`]d with the log as it is at the end, and then all of it is [`judge`]d.
//!
//! Where all nodes share a runtime, [`record`] does the first part; where each is on a host of its own, it is a
//! [`Competitor`].

mod history;
mod linear;
mod record;
mod search;

pub use history::{History, Life};
pub use linear::{Appended, Tally, What};
pub use record::{Competitor, facts, judge, record, resolve, run};
pub use search::Operation;

//! Configuration: one table of keys, four layers, and for each value where it comes from.
//!
//! Flag > environment > file > default. Nothing is guessed: what cannot be read is an error that
//! names the key or variable, the value, what is allowed, and the nearest name.

pub mod kind;
mod layers;
mod replaced;
mod schema;
mod settings;

use std::fmt;

pub use layers::{Flags, Sources, load};
pub use replaced::REPLACED;
pub use schema::{ALIASES, JOB_KINDS, keys};
pub use settings::{Durability, Resolved, Settings, Store};

/// What is wrong with a configuration, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// The word most like `text` in either case, if one is like it at all.
pub fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_lowercase();
    words
        .map(|word| (strsim::damerau_levenshtein(&word.to_lowercase(), &text), word))
        .min()
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .map(|(_, word)| word)
}

//! Ids: newtypes, so that one kind is never taken for another.

use std::fmt;

use ringrift_rules::Config;
use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// BLAKE3 of an artefact's bytes, 64 lower-case hex digits.
    BlobHash
}
text_id! {
    /// A model: `<config>-m<generation, 4 digits>`; generation 0 has random weights.
    ModelId
}
text_id! {
    /// A unit of work: `<kind>-<config>-<number, 6 digits>`.
    WorkId
}
text_id! {
    /// A machine that takes part.
    NodeId
}

impl ModelId {
    /// The id of generation `generation` of `config`.
    pub fn new(config: Config, generation: u32) -> Self {
        Self(format!("{config}-m{generation:04}"))
    }
}

impl WorkId {
    /// The id of the `number`-th item of `kind` for `config`.
    pub fn new(kind: crate::WorkKind, config: Config, number: u64) -> Self {
        Self(format!("{kind}-{config}-{number:06}"))
    }

    /// The configuration of the game that the id names.
    pub fn config(&self) -> Option<Config> {
        self.0.split('-').nth(1)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_id_names_its_config() {
        let config: Config = "square8_3p".parse().unwrap();
        assert_eq!(WorkId::new(crate::WorkKind::Train, config, 7).config(), Some(config));
        assert_eq!(WorkId("combine-hex8_2p-12".into()).config(), "hex8_2p".parse().ok());
        assert_eq!(WorkId("by hand".into()).config(), None);
    }
}

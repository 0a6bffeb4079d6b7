//! Ids: newtypes, so that one kind is never taken for another.

use std::fmt;

use ringrift_rules::Config;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Longest id that is read, bytes: one part of a path has 255, and something may be put behind it.
const LONGEST: usize = 200;

/// Ids name files and folders, and facts come from other machines: one that leads elsewhere is not read.
fn read(text: String) -> Result<String, String> {
    let is_allowed = |c: char| c != '/' && c != '\\' && !c.is_control();
    if !text.is_empty()
        && text.len() <= LONGEST
        && !text.starts_with('.')
        && text.chars().all(is_allowed)
    {
        return Ok(text);
    }
    let shown: String = text.chars().take(80).collect();
    Err(format!(
        "{shown:?} is no id: 1 to {LONGEST} bytes are allowed, without slashes and control characters, that do \
         not begin with a dot"
    ))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

macro_rules! read_as_name {
    ($($name:ident)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                read(String::deserialize(from)?).map(Self).map_err(de::Error::custom)
            }
        }
    )*};
}

text_id! {
    /// BLAKE3 of an artefact's bytes, 64 lower-case hex digits. The depot takes nothing else for a hash.
    #[derive(Deserialize)]
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

read_as_name! { ModelId WorkId NodeId }

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

    #[test]
    fn an_id_that_leads_elsewhere_is_not_read() {
        for text in ["selfplay-hex8_2p-000007", "hex8_2p-m0001", "selfplay-hex8_2p-a.example.7.1"] {
            let json = format!("{text:?}");
            assert_eq!(serde_json::from_str::<WorkId>(&json).unwrap().as_str(), text);
        }
        let long = "x".repeat(LONGEST + 1);
        for text in ["/srv/data", "../../etc", "..", ".", "", "a/b", "a\\b", "a\nb", "a\0b", &long]
        {
            let json = serde_json::to_string(text).unwrap();
            let refused = serde_json::from_str::<WorkId>(&json).unwrap_err().to_string();
            assert!(refused.contains("is no id: 1 to 200 bytes"), "{text:?}: {refused}");
            assert!(serde_json::from_str::<ModelId>(&json).is_err(), "{text:?}");
            assert!(serde_json::from_str::<NodeId>(&json).is_err(), "{text:?}");
        }
    }
}

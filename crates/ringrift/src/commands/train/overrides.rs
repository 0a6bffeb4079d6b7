//! `--set section.key=value`: single numbers of a settings struct, by name.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::config::nearest;

/// Keys that a run sets itself.
const GIVEN: [&str; 6] =
    ["selfplay.seed", "selfplay.first", "train.seed", "train.checkpoint_steps", "games", "seed"];

/// `settings` with the changes of the command line.
///
/// # Errors
/// One sentence: no `KEY=VALUE`, an unknown key with the nearest known one, a value of another type.
pub fn apply<T>(settings: T, changes: &[String]) -> Result<T, String>
where
    T: Serialize + DeserializeOwned,
{
    let mut settings = settings;
    for change in changes {
        let (key, text) =
            change.split_once('=').ok_or_else(|| format!("--set {change}: write KEY=VALUE"))?;
        let mut value = serde_json::to_value(&settings).map_err(|error| error.to_string())?;
        let known = leaves(&value);
        if GIVEN.contains(&key) {
            return Err(format!("--set {change}: a run sets {key} itself"));
        }
        if !known.iter().any(|(name, _)| name == key) {
            let hint = nearest(key, known.iter().map(|(name, _)| name.as_str()))
                .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
            return Err(format!("--set {change}: there is no key '{key}'{hint}"));
        }
        // What is no JSON is a word.
        let new = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        let pointer = format!("/{}", key.replace('.', "/"));
        if let Some(place) = value.pointer_mut(&pointer) {
            *place = new;
        }
        settings =
            serde_json::from_value(value).map_err(|error| format!("--set {change}: {error}"))?;
    }
    Ok(settings)
}

/// The changes that lead from the defaults to `settings`.
pub fn differences<T: Serialize + Default>(settings: &T) -> anyhow::Result<Vec<String>> {
    let defaults = leaves(&serde_json::to_value(T::default())?);
    let there = leaves(&serde_json::to_value(settings)?);
    let changed = there.into_iter().filter(|leaf| !defaults.contains(leaf));
    let written = changed.map(|(key, value)| match value {
        Value::String(word) => format!("{key}={word}"),
        value => format!("{key}={value}"),
    });
    Ok(written.collect())
}

/// Every key that has a value of its own; a list is one value.
fn leaves(value: &Value) -> Vec<(String, Value)> {
    let Value::Object(map) = value else { return vec![(String::new(), value.clone())] };
    let inner = map.iter().flat_map(|(key, value)| {
        leaves(value).into_iter().map(move |(rest, value)| {
            (if rest.is_empty() { key.clone() } else { format!("{key}.{rest}") }, value)
        })
    });
    inner.collect()
}

#[cfg(test)]
mod tests {
    use ringrift_learn::session::Settings;

    use super::*;

    fn set(changes: &[&str]) -> Result<Settings, String> {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply(Settings::default(), &changes)
    }

    #[test]
    fn a_change_reaches_its_key_and_can_be_written_again() {
        let changes = [
            "early=[]",
            "gate.guards=[\"random\",\"rollout:8\"]",
            "parent=champion",
            "selfplay.games=20",
        ];
        let settings = set(&changes).unwrap();
        assert_eq!((settings.selfplay.games, settings.early.len()), (20, 0));
        assert_eq!(settings.gate.guards.len(), 2);
        assert_eq!(differences(&settings).unwrap(), changes);
        assert_eq!(differences(&Settings::default()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_key_is_documented() {
        let text = include_str!("../../../../../docs/learning.md");
        for (key, _) in leaves(&serde_json::to_value(Settings::default()).unwrap()) {
            let known = GIVEN.contains(&key.as_str()) || text.contains(&format!("`{key}`"));
            assert!(known, "{key} is missing in docs/learning.md");
        }
    }

    #[test]
    fn a_wrong_change_is_refused_with_one_sentence() {
        let check = |change: &str, parts: &[&str]| {
            let error = set(&[change]).unwrap_err();
            for part in parts.iter().chain(&[change]) {
                assert!(error.contains(part), "{error}");
            }
        };
        check("selfplay.game=20", &["no key 'selfplay.game'", "did you mean selfplay.games?"]);
        check("train", &["write KEY=VALUE"]);
        check("train=3", &["no key 'train'"]);
        check("train.steps=many", &["expected u32"]);
        check("reuse=[1]", &["expected f64"]);
        check("parent=father", &["unknown variant `father`, expected `newest` or `champion`"]);
        check("selfplay.seed=3", &["a run sets selfplay.seed itself"]);
    }
}

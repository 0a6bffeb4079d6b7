//! Numbers in configuration that have a range: a value outside it is an error that names the range.

use std::fmt::Display;

use serde::{Deserialize, Deserializer, de::Error as _};

/// 0 to 1.
pub(crate) fn share<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + From<u8> + Display,
{
    within(input, |value| *value >= T::from(0) && *value <= T::from(1), "0 to 1")
}

/// More than 0, at most 1.
pub(crate) fn some_share<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + From<u8> + Display,
{
    within(input, |value| *value > T::from(0) && *value <= T::from(1), "more than 0, at most 1")
}

/// 1 or more.
pub(crate) fn at_least_one<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + From<u8> + Display,
{
    within(input, |value| *value >= T::from(1), "1 or more")
}

/// More than 0.
pub(crate) fn positive<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + From<u8> + Display,
{
    within(input, |value| *value > T::from(0), "more than 0")
}

/// Between 0 and 1, neither of them.
pub(crate) fn rate<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + From<u8> + Display,
{
    within(input, |value| *value > T::from(0) && *value < T::from(1), "more than 0, less than 1")
}

// Not a number compares with nothing, so it is in no range.
fn within<'de, D, T>(input: D, fits: impl FnOnce(&T) -> bool, allowed: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Display,
{
    let value = T::deserialize(input)?;
    if fits(&value) {
        return Ok(value);
    }
    Err(D::Error::custom(format!("{value} is out of range; allowed is {allowed}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::registry;

    /// What the daemon says of one key of its section.
    fn check(daemon: &str, key: &str, value: &serde_json::Value, expected: Option<&str>) {
        let entry = registry()
            .map(|(_, entry)| entry)
            .find(|entry| entry.spec.id.0 == daemon)
            .unwrap_or_else(|| panic!("{daemon} is not there"));
        match (entry.check(json!({ key: value })), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected, "{key}"),
            other => panic!("{daemon}.{key}: {other:?}"),
        }
    }

    #[test]
    fn values_out_of_range_name_the_range() {
        let one = "0 is out of range; allowed is 1 or more";
        check("TRAINING_TRIGGER", "steps", &json!(0), Some(one));
        check("TRAINING_TRIGGER", "steps", &json!(1), None);
        check("QUEUE_POPULATOR", "games_per_item", &json!(0), Some(one));
        let share = "1.5 is out of range; allowed is 0 to 1";
        check("QUEUE_POPULATOR", "fast_share", &json!(1.5), Some(share));
        check("AUTO_PROMOTION", "guard_score", &json!(1.5), Some(share));
        check("AUTO_PROMOTION", "guard_score", &json!(1), None);
        let rate = "0 is out of range; allowed is more than 0, less than 1";
        check("EVALUATION", "alpha", &json!(0.0), Some(rate));
        let positive = "-1 is out of range; allowed is more than 0";
        check("TRAINING_TRIGGER", "learning_rate", &json!(-1.0), Some(positive));
    }

    #[test]
    fn every_default_is_in_its_range() {
        for (_, entry) in registry() {
            entry.check(entry.defaults()).unwrap_or_else(|error| {
                panic!("{}: {error:#}", entry.spec.id);
            });
        }
    }
}

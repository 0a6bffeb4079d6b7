//! Durations in configuration: a bare number is seconds, text is like `5m` or `1h 30m`.

use std::time::Duration;

use serde::{Deserializer, Serializer, de};

/// Writes seconds.
pub fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
    if value.subsec_nanos() == 0 {
        out.serialize_u64(value.as_secs())
    } else {
        out.serialize_f64(value.as_secs_f64())
    }
}

/// Reads seconds or text.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = Duration;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("seconds as a number, or text like \"5m\"")
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Duration, E> {
            Ok(Duration::from_secs(value))
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Duration, E> {
            u64::try_from(value).map(Duration::from_secs).map_err(|_| {
                E::custom(format!("{value} is negative; a duration is 0 or more seconds"))
            })
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Duration, E> {
            Duration::try_from_secs_f64(value)
                .map_err(|e| E::custom(format!("{value} is no duration: {e}")))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            if let Ok(number) = text.parse::<f64>() {
                return self.visit_f64(number);
            }
            humantime::parse_duration(text).map_err(|e| {
                E::custom(format!(
                    "'{text}' is no duration ({e}); allowed are seconds or text like 5m"
                ))
            })
        }
    }

    input.deserialize_any(Visitor)
}

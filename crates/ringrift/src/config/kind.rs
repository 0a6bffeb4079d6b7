//! Kinds of values: how a text or a TOML value becomes one, and what is allowed.

use std::{net::IpAddr, time::Duration};

use depot::far::{Address, ParseAddressError, Plain, check_endpoint};
use hosts::{BadDestination, BadId, InstanceId, Ssh};
use ringrift_pipeline::Config;
use serde_json::Value;

use super::nearest;

/// What a key may hold. Values travel as JSON so that one table serves every key.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A whole number within a range.
    Whole {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// The same, or not set at all.
    MaybeWhole {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A duration in seconds within a range, or text like `5m`.
    Seconds {
        /// Shortest.
        min: f64,
        /// Longest.
        max: f64,
    },
    /// A size in bytes, or text like `2 GiB`.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// An address of this machine that only this machine reaches.
    ///
    /// The page has neither TLS nor a token, so it must not be served on any other.
    Loopback,
    /// Yes or no.
    Flag,
    /// One of some words.
    Word(Vec<&'static str>),
    /// Configs of the game.
    Configs,
    /// A program and its first arguments.
    Command,
    /// Where a far store is, or nothing.
    FarStore,
    /// The address of a service, or nothing.
    Endpoint,
    /// A path, or nothing.
    Path,
    /// Some of these words, or none of them.
    Words(Vec<&'static str>),
    /// A machine as `ssh` knows it.
    Destination,
    /// What a provider calls a machine.
    Instance,
    /// A name that the operator gave, or that a node has.
    Name,
    /// A daemon's own key: of the type of its default; the daemon judges the rest.
    Daemon {
        /// The default.
        default: Value,
    },
}

impl Kind {
    /// What somebody wrote, for a sentence about it: without what may hold a password.
    pub fn shown<'a>(&self, text: &'a str) -> &'a str {
        if matches!(self, Self::FarStore | Self::Endpoint) && text.contains('@') {
            "..."
        } else {
            text
        }
    }

    /// What is allowed, as the end of "allowed is ...".
    pub fn allowed(&self) -> String {
        match self {
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::MaybeWhole { min, max } => {
                format!("a whole number from {min} to {max}, or nothing")
            }
            Self::Seconds { min, max } => {
                format!("{} to {} seconds, or text like 5m", number(*min), number(*max))
            }
            Self::Bytes { min, max } => {
                format!("{} to {}, as bytes or text like 2 GiB", bytes_text(*min), bytes_text(*max))
            }
            Self::Loopback => "a loopback address: 127.0.0.1 or ::1".into(),
            Self::Flag | Self::Daemon { default: Value::Bool(_) } => "1, 0, true or false".into(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Configs => {
                let names: Vec<String> = Config::ALL.iter().map(ToString::to_string).collect();
                format!("a list out of {}", names.join(", "))
            }
            Self::Command => "a program with its first arguments".into(),
            Self::FarStore => Address::ALLOWED.into(),
            Self::Endpoint => "https://objects.example or https://objects.example:9000".into(),
            Self::Path => "a path".into(),
            Self::Words(words) => format!("a list out of {}", words.join(", ")),
            Self::Destination => BadDestination.to_string(),
            Self::Instance => BadId.to_string(),
            Self::Name => "lower case letters, digits and hyphens, at most 100".into(),
            Self::Daemon { default: Value::Number(_) } => {
                "a number (durations: seconds, or text like 5m)".into()
            }
            Self::Daemon { default: Value::Array(_) } => "a list".into(),
            Self::Daemon { .. } => "text".into(),
        }
    }

    /// Reads the text of a flag or a variable. The error names what is allowed.
    pub fn read_text(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Self::Configs => self.read_list(text.split(',').map(|name| Value::from(name.trim()))),
            Self::Words(_) => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                self.read_value(&words.map(Value::from).collect())
            }
            Self::Command => {
                let words: Vec<Value> = text.split_whitespace().map(Value::from).collect();
                if words.is_empty() { Err(self.allowed()) } else { Ok(words.into()) }
            }
            Self::Flag => flag(text).map(Value::Bool).ok_or_else(|| self.allowed()),
            Self::Daemon { default } => match default {
                Value::Bool(_) => flag(text).map(Value::Bool).ok_or_else(|| self.allowed()),
                // A duration may be written as text; only the daemon knows which numbers are one.
                Value::Number(_) => Ok(text_number(text).unwrap_or_else(|| text.into())),
                Value::Array(_) => {
                    Ok(text.split(',').map(|part| Value::from(part.trim())).collect())
                }
                Value::Null => Ok(text_number(text).unwrap_or_else(|| text.into())),
                _ => Ok(text.into()),
            },
            Self::Whole { .. } | Self::MaybeWhole { .. } => {
                let number: u64 = text.parse().map_err(|_| self.allowed())?;
                self.read_value(&number.into())
            }
            Self::Seconds { .. }
            | Self::Bytes { .. }
            | Self::Loopback
            | Self::Word(_)
            | Self::FarStore
            | Self::Endpoint
            | Self::Name
            | Self::Path
            | Self::Destination
            | Self::Instance => self.read_value(&text.into()),
        }
    }

    /// Reads a value of the file. The error names what is allowed.
    pub fn read_value(&self, value: &Value) -> Result<Value, String> {
        let no = || self.allowed();
        match self {
            Self::Whole { min, max } | Self::MaybeWhole { min, max } => {
                let number = value.as_u64().filter(|n| (*min..=*max).contains(n)).ok_or_else(no)?;
                Ok(number.into())
            }
            Self::Seconds { min, max } => {
                let seconds = match value {
                    Value::String(text) => seconds(text),
                    other => other.as_f64(),
                };
                let seconds = seconds
                    .filter(|s| s.is_finite() && (*min..=*max).contains(s))
                    .ok_or_else(no)?;
                Ok(seconds.into())
            }
            Self::Bytes { min, max } => {
                let bytes = match value {
                    Value::String(text) => bytes(text),
                    other => other.as_u64(),
                };
                Ok(bytes.filter(|b| (*min..=*max).contains(b)).ok_or_else(no)?.into())
            }
            Self::Loopback => {
                let text = value.as_str().ok_or_else(no)?;
                let address: IpAddr = text.parse().map_err(|_| no())?;
                if address.is_loopback() { Ok(text.into()) } else { Err(no()) }
            }
            Self::Flag => match value {
                Value::Bool(yes) => Ok((*yes).into()),
                _ => Err(no()),
            },
            Self::Word(words) => {
                let text = value.as_str().ok_or_else(no)?;
                // The old system wrote levels in upper case.
                if let Some(word) = words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
                    return Ok((*word).into());
                }
                Err(with_nearest(no(), text, words.iter().copied()))
            }
            Self::Configs => self.read_list(value.as_array().ok_or_else(no)?.iter().cloned()),
            Self::FarStore => {
                let text = value.as_str().ok_or_else(no)?;
                let address: Address =
                    text.parse().map_err(|e: ParseAddressError| e.to_string())?;
                Ok(address.to_string().into())
            }
            Self::Endpoint => {
                let text = value.as_str().ok_or_else(no)?;
                // Whether it may be unencrypted, another key says.
                check_endpoint(text, Plain::Anybody).map_err(|e| e.to_string())?;
                Ok(text.into())
            }
            Self::Path => Ok(value.as_str().filter(|text| !text.is_empty()).ok_or_else(no)?.into()),
            Self::Words(words) => {
                let mut chosen: Vec<&str> = Vec::new();
                for said in value.as_array().ok_or_else(no)? {
                    let said = said.as_str().ok_or_else(no)?;
                    match words.iter().find(|word| **word == said) {
                        Some(word) if !chosen.contains(word) => chosen.push(word),
                        Some(_) => {}
                        None => return Err(with_nearest(no(), said, words.iter().copied())),
                    }
                }
                Ok(chosen.into())
            }
            Self::Command => {
                let words = value.as_array().filter(|words| !words.is_empty()).ok_or_else(no)?;
                if words.iter().all(|word| word.as_str().is_some_and(|word| !word.is_empty())) {
                    Ok(value.clone())
                } else {
                    Err(no())
                }
            }
            Self::Destination => {
                let text = value.as_str().ok_or_else(no)?;
                Ssh::to(text).map(|_| text.into()).map_err(|_| no())
            }
            Self::Instance => {
                // Some providers number their machines.
                let text = match value {
                    Value::Number(number) => number.to_string(),
                    other => other.as_str().ok_or_else(no)?.to_owned(),
                };
                text.parse::<InstanceId>().map(|id| id.as_str().into()).map_err(|_| no())
            }
            Self::Name => {
                let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                let text = value.as_str().ok_or_else(no)?;
                let is_name = !text.is_empty() && text.len() <= 100 && text.chars().all(fits);
                if is_name { Ok(text.into()) } else { Err(no()) }
            }
            Self::Daemon { default } => match (default, value) {
                (Value::Bool(_), value) if !value.is_boolean() => Err(no()),
                (Value::Array(_), value) if !value.is_array() => Err(no()),
                _ => Ok(value.clone()),
            },
        }
    }

    fn read_list(&self, names: impl Iterator<Item = Value>) -> Result<Value, String> {
        let mut configs: Vec<String> = Vec::new();
        for name in names {
            let name = name.as_str().ok_or_else(|| self.allowed())?.to_owned();
            let config: Config = name.parse().map_err(|_| {
                let all: Vec<String> = Config::ALL.iter().map(ToString::to_string).collect();
                with_nearest(self.allowed(), &name, all.iter().map(String::as_str))
            })?;
            if !configs.contains(&config.to_string()) {
                configs.push(config.to_string());
            }
        }
        if configs.is_empty() { Err(self.allowed()) } else { Ok(configs.into()) }
    }
}

fn with_nearest<'a>(allowed: String, text: &str, words: impl Iterator<Item = &'a str>) -> String {
    match nearest(text, words) {
        Some(nearest) => format!("{allowed}; did you mean {nearest}?"),
        None => allowed,
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn text_number(text: &str) -> Option<Value> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
}

/// A number of seconds, or text like `1h 30m`.
pub fn seconds(text: &str) -> Option<f64> {
    text.trim().parse().ok().or_else(|| {
        humantime::parse_duration(text.trim()).ok().map(|duration| duration.as_secs_f64())
    })
}

/// The time that a flag says.
///
/// # Errors
/// It is none above 0.
pub fn positive_time(text: &str) -> Result<Duration, String> {
    let allowed = || format!("'{text}' is no time: allowed are seconds above 0, or text like 20m");
    let time = seconds(text).ok_or_else(allowed)?;
    Duration::try_from_secs_f64(time).ok().filter(|time| !time.is_zero()).ok_or_else(allowed)
}

fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A size for people.
pub fn bytes_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = 1_u64 << shift;
        if bytes >= whole {
            let tenths = bytes / (whole / 10).max(1);
            return if tenths.is_multiple_of(10) || tenths >= 1000 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

fn number(value: f64) -> String {
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: &Kind, text: &str, expected: Result<Value, &str>) {
        match (kind.read_text(text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(found), Err(part)) => assert!(found.contains(part), "{text}: {found}"),
            (found, expected) => panic!("{text}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_text_becomes_a_value_or_the_error_says_what_is_allowed() {
        let whole = Kind::Whole { min: 1, max: 9 };
        check(&whole, "7", Ok(json!(7)));
        check(&whole, "10", Err("a whole number from 1 to 9"));
        check(&whole, "-1", Err("a whole number"));
        check(&whole, "x", Err("a whole number"));
        let seconds = Kind::Seconds { min: 1.0, max: 3600.0 };
        check(&seconds, "30", Ok(json!(30.0)));
        check(&seconds, "2m", Ok(json!(120.0)));
        check(&seconds, "0", Err("1 to 3600 seconds"));
        check(&seconds, "NaN", Err("seconds"));
        let bytes = Kind::Bytes { min: 1 << 20, max: 1 << 40 };
        check(&bytes, "2 GiB", Ok(json!(2_u64 << 30)));
        check(&bytes, "1048576", Ok(json!(1 << 20)));
        check(&bytes, "99999999999 TiB", Err("1 MiB to 1 TiB"));
        check(&bytes, "two", Err("1 MiB"));
        check(&Kind::Flag, "on", Ok(json!(true)));
        check(&Kind::Flag, "maybe", Err("1, 0, true or false"));
        check(&Kind::Loopback, "::1", Ok(json!("::1")));
        check(&Kind::Loopback, "localhost", Err("a loopback address"));
        check(&Kind::Loopback, "0.0.0.0", Err("a loopback address"));
        check(&Kind::Word(vec!["info", "warn"]), "INFO", Ok(json!("info")));
        check(&Kind::Word(vec!["normal", "full"]), "ful", Err("did you mean full?"));
        check(&Kind::Configs, "hex8_2p, square8_2p", Ok(json!(["hex8_2p", "square8_2p"])));
        check(&Kind::Configs, "hex8_2p,hex8_2p", Ok(json!(["hex8_2p"])));
        check(&Kind::Configs, "hex8_2", Err("did you mean hex8_2p?"));
        check(&Kind::Configs, "", Err("a list out of"));
        check(&Kind::Command, "python3 trainer.py", Ok(json!(["python3", "trainer.py"])));
        check(&Kind::Command, " ", Err("a program"));
        check(&Kind::FarStore, "s3://far-away/a/", Ok(json!("s3://far-away/a")));
        check(&Kind::FarStore, "az://far-away/a/", Ok(json!("az://far-away/a")));
        check(&Kind::FarStore, "far-away", Err("s3://BUCKET/PREFIX"));
        assert_eq!(Kind::FarStore.shown("s3://id:secret@far-away"), "...");
        check(&Kind::Endpoint, "http://127.0.0.1:9000", Ok(json!("http://127.0.0.1:9000")));
        check(&Kind::Endpoint, "127.0.0.1:9000", Err("https://objects.example"));
        check(&Kind::Name, "eu-central-1", Ok(json!("eu-central-1")));
        check(&Kind::Name, "Eu", Err("lower case letters"));
        check(&Kind::Path, "", Err("a path"));
        let words = Kind::Words(vec!["samples", "window"]);
        check(&words, "window, samples,window", Ok(json!(["window", "samples"])));
        check(&words, "", Ok(json!([])));
        check(&words, "sample", Err("did you mean samples?"));
    }

    #[test]
    fn a_daemons_key_takes_the_type_of_its_default() {
        let of = |default: Value| Kind::Daemon { default };
        check(&of(json!(true)), "0", Ok(json!(false)));
        check(&of(json!(true)), "2", Err("1, 0"));
        check(&of(json!(30)), "45", Ok(json!(45)));
        check(&of(json!(30)), "1.5", Ok(json!(1.5)));
        check(&of(json!(30)), "5m", Ok(json!("5m")));
        check(&of(json!("x")), "5", Ok(json!("5")));
        check(&of(json!([])), "a, b", Ok(json!(["a", "b"])));
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (bytes, text) in [(512, "512 B"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB")] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}

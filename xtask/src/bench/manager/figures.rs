//! Figures, goals and verdicts: the arithmetic of the table.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// What several measurements of one thing gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub min: f64,
    /// What rows are compared by: on a shared machine the rest contains the neighbours.
    pub median: f64,
    pub p95: f64,
    pub n: usize,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied();
        let last = values.len().checked_sub(1)?;
        let (min, median, p95) = (at(0)?, at(values.len() / 2)?, at(last * 95 / 100)?);
        Some(Self { min, median, p95, n: values.len() })
    }

    /// A bench writes a list of measurements, their summary, or one number.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(values) => Self::of(values.iter().filter_map(Value::as_f64).collect()),
            Value::Object(fields) => {
                let median = fields.get("median")?.as_f64()?;
                let field = |name| fields.get(name).and_then(Value::as_f64).unwrap_or(median);
                let n = fields.get("n").and_then(Value::as_u64).and_then(|n| n.try_into().ok());
                Some(Self { min: field("min"), median, p95: field("p95"), n: n.unwrap_or(1) })
            }
            _ => Self::of(vec![value.as_f64()?]),
        }
    }
}

/// One contender in one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Measured(Spread),
    /// Not there, and why: one sentence.
    Absent(String),
}

impl Reading {
    pub fn of(values: Vec<f64>, why_none: &str) -> Self {
        Spread::of(values).map_or_else(|| Self::Absent(why_none.to_owned()), Self::Measured)
    }

    pub fn median(&self) -> Option<f64> {
        match self {
            Self::Measured(spread) => Some(spread.median),
            Self::Absent(_) => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Microseconds,
    PerSecond,
    Mebibytes,
    Percent,
    Processes,
}

impl Unit {
    pub fn show(self, figure: f64) -> String {
        match self {
            Self::Microseconds if figure < 1_000.0 => format!("{figure:.1} us"),
            Self::Microseconds if figure < 100_000.0 => format!("{:.2} ms", figure / 1e3),
            Self::Microseconds => format!("{:.0} ms", figure / 1e3),
            Self::PerSecond => format!("{figure:.0}/s"),
            Self::Mebibytes => format!("{figure:.1} MiB"),
            Self::Percent => format!("{figure:.4} %"),
            Self::Processes => format!("{figure:.0}"),
        }
    }

    /// More is better.
    fn rises(self) -> bool {
        self == Self::PerSecond
    }
}

/// Source of every goal: the table of the issue that asked for this bench.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtMost(f64),
    /// The second is a multiple of the bare figure of the same run; either is enough.
    AtMostOrTimesBare(f64, f64),
    AtLeast(f64),
    AtLeastTimesBare(f64),
    Exactly(f64),
}

impl Goal {
    pub fn show(self, unit: Unit) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {}", unit.show(limit)),
            Self::AtMostOrTimesBare(limit, times) => {
                format!("<= {} or {times} x bare", unit.show(limit))
            }
            Self::AtLeast(limit) => format!(">= {}", unit.show(limit)),
            Self::AtLeastTimesBare(times) => format!(">= {times} x bare"),
            Self::Exactly(figure) => format!("= {}", unit.show(figure)),
        }
    }

    /// None: what it compares with was not measured.
    fn met(self, ours: f64, bare: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(ours <= limit),
            Self::AtMostOrTimesBare(limit, times) => {
                Some(ours <= limit || bare.is_some_and(|bare| ours <= times * bare))
            }
            Self::AtLeast(limit) => Some(ours >= limit),
            Self::AtLeastTimesBare(times) => bare.map(|bare| ours >= times * bare),
            Self::Exactly(figure) => Some((ours - figure).abs() < 0.5),
        }
    }

    /// How far a figure is from good; for peers, which have no goal of their own.
    fn distance(self, unit: Unit, figure: f64) -> f64 {
        match self {
            Self::Exactly(wanted) => (figure - wanted).abs(),
            _ if unit.rises() => -figure,
            _ => figure,
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The word that selects it.
    pub name: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    pub goal: Goal,
    pub ours: Reading,
    /// The least that can be done, in the same run; none where nothing is comparable.
    pub bare: Option<Reading>,
    pub peers: Vec<(String, Reading)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Met,
    NotMet,
    NotMeasured,
}

impl Row {
    pub fn verdict(&self) -> Verdict {
        let bare = self.bare.as_ref().and_then(Reading::median);
        match self.ours.median().and_then(|ours| self.goal.met(ours, bare)) {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::NotMet,
            None => Verdict::NotMeasured,
        }
    }

    pub fn best_peer(&self) -> Option<(&str, f64)> {
        let measured =
            self.peers.iter().filter_map(|(name, it)| Some((name.as_str(), it.median()?)));
        let distance = |figure| self.goal.distance(self.unit, figure);
        measured.min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)))
    }
}

pub fn microseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6
}

pub fn mebibytes(bytes: u64) -> f64 {
    let kibibytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    f64::from(kibibytes) / 1024.0
}

/// Both in nanoseconds.
pub fn percent(ran: u64, took: u64) -> f64 {
    100.0 * microseconds(ran) / microseconds(took)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(unit: Unit, goal: Goal, ours: f64, bare: Option<f64>, peers: &[f64]) -> Row {
        let reading = |figure| Reading::of(vec![figure], "");
        let peers = peers.iter().map(|&figure| (figure.to_string(), reading(figure))).collect();
        let (ours, bare) = (reading(ours), bare.map(reading));
        Row { name: "row", title: "a row", unit, goal, ours, bare, peers }
    }

    #[test]
    fn a_spread_is_read_from_all_shapes_that_benches_write() {
        let spread = |min, median, p95, n| Some(Spread { min, median, p95, n });
        assert_eq!(Spread::read(&json!([3.0, 1.0, 2.0])), spread(1.0, 2.0, 2.0, 3));
        assert_eq!(
            Spread::read(&json!({"min": 1, "median": 2, "p95": 9})),
            spread(1.0, 2.0, 9.0, 1)
        );
        assert_eq!(Spread::read(&json!(7)), spread(7.0, 7.0, 7.0, 1));
        assert_eq!(Spread::read(&json!([])), None);
        assert_eq!(Spread::read(&json!(null)), None);
    }

    #[test]
    fn goals_are_judged_by_the_figures_of_the_same_run() {
        let check = |goal, ours, bare, verdict| {
            let row = row(Unit::Microseconds, goal, ours, bare, &[]);
            assert_eq!(row.verdict(), verdict, "{goal:?} {ours} {bare:?}");
        };
        check(Goal::AtMost(28.0), 28.0, None, Verdict::Met);
        check(Goal::AtMost(28.0), 28.1, None, Verdict::NotMet);
        check(Goal::AtMostOrTimesBare(10.0, 2.0), 19.0, Some(10.0), Verdict::Met);
        check(Goal::AtMostOrTimesBare(10.0, 2.0), 21.0, Some(10.0), Verdict::NotMet);
        check(Goal::AtMostOrTimesBare(10.0, 2.0), 11.0, None, Verdict::NotMet);
        check(Goal::AtLeastTimesBare(0.8), 80.0, Some(100.0), Verdict::Met);
        check(Goal::AtLeastTimesBare(0.8), 80.0, None, Verdict::NotMeasured);
        check(Goal::Exactly(100.0), 101.0, None, Verdict::NotMet);
    }

    #[test]
    fn the_best_peer_is_the_one_nearest_to_good() {
        let best = |unit, goal| {
            let row = row(unit, goal, 1.0, None, &[200.0, 101.0, 90.0]);
            row.best_peer().map(|(_, figure)| figure)
        };
        assert_eq!(best(Unit::Microseconds, Goal::AtMost(1.0)), Some(90.0));
        assert_eq!(best(Unit::PerSecond, Goal::AtLeast(1.0)), Some(200.0));
        assert_eq!(best(Unit::Processes, Goal::Exactly(100.0)), Some(101.0));
    }
}

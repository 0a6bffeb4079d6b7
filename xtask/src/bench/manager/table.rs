//! The table as people read it.

use super::figures::{Reading, Row, Spread, Verdict};

/// The rows of a run. Each is shown as soon as it is known, since a run takes minutes; the table of
/// all comes at its end.
#[derive(Default)]
pub struct Sheet {
    rows: Vec<Row>,
}

impl Sheet {
    pub fn add(&mut self, row: Row) {
        eprintln!("{}", news(&row));
        self.rows.push(row);
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// A row in one line.
fn news(row: &Row) -> String {
    let [title, ours, peer, bare, _, _, goal, verdict] = cells(row);
    let beside: Vec<String> = [("", ours), (" best peer", peer), (" bare", bare)]
        .into_iter()
        .filter(|(name, figure)| name.is_empty() || figure != NONE)
        .map(|(name, figure)| format!("{name} {figure}"))
        .collect();
    let figures = beside.join(",");
    format!("  {title}:{figures} (goal {goal}: {verdict})")
}

/// What stands where there is no figure.
const NONE: &str = "-";

const HEADS: [&str; 8] = ["row", "ours", "best peer", "bare", "/ peer", "/ bare", "goal", ""];

pub fn print(rows: &[Row]) {
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    }
    println!("\nEach contender: median (min to p95, n)");
    for row in rows {
        println!("{}", row.title);
        let bare = row.bare.iter().map(|reading| ("bare", reading));
        let peers = row.peers.iter().map(|(name, reading)| (name.as_str(), reading));
        for (name, reading) in std::iter::once(("ours", &row.ours)).chain(bare).chain(peers) {
            println!("  {name:12} {}", detail(row, reading));
        }
    }
}

fn cells(row: &Row) -> [String; 8] {
    let none = || NONE.to_owned();
    let show = |figure: f64| row.unit.show(figure);
    let ours = row.ours.median();
    let bare = row.bare.as_ref().and_then(Reading::median);
    let peer = row.best_peer();
    let ratio = |other: Option<f64>| match (ours, other) {
        (Some(ours), Some(other)) if other > 0.0 => format!("{:.2}", ours / other),
        _ => none(),
    };
    let verdict = match (row.verdict(), &row.ours) {
        (Verdict::Met, _) => "met".to_owned(),
        (Verdict::NotMet, _) => "NOT MET".to_owned(),
        (Verdict::NotMeasured, Reading::Absent(why)) => format!("not measured: {why}"),
        (Verdict::NotMeasured, Reading::Measured(_)) => "no bare figure in this run".to_owned(),
    };
    [
        row.title.to_owned(),
        ours.map_or_else(none, show),
        peer.map_or_else(none, |(name, figure)| format!("{} {name}", show(figure))),
        bare.map_or_else(none, show),
        ratio(peer.map(|(_, figure)| figure)),
        ratio(bare),
        row.goal.show(row.unit),
        verdict,
    ]
}

fn detail(row: &Row, reading: &Reading) -> String {
    match reading {
        Reading::Absent(why) => format!("absent: {why}"),
        Reading::Measured(Spread { min, median, p95, n }) => {
            let show = |figure: &f64| row.unit.show(*figure);
            format!("{} ({} to {}, {n})", show(median), show(min), show(p95))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::manager::figures::{Goal, Unit};

    #[test]
    fn a_row_is_told_in_one_line_with_what_it_is_compared_with() {
        let reading = |figure| Reading::of(vec![figure], "");
        let mut row = Row {
            name: "kill",
            title: "a child killed",
            unit: Unit::Microseconds,
            goal: Goal::AtMost(2_100.0),
            ours: reading(1_500.0),
            bare: Some(reading(900.0)),
            peers: vec![("runit".to_owned(), reading(2_970.0))],
        };
        assert_eq!(
            news(&row),
            "  a child killed: 1.50 ms, best peer 2.97 ms runit, bare 900.0 us (goal <= 2.10 ms: met)"
        );
        row.ours = Reading::Absent("it fell over".to_owned());
        (row.bare, row.peers) = (None, Vec::new());
        assert_eq!(news(&row), "  a child killed: - (goal <= 2.10 ms: not measured: it fell over)");
    }
}

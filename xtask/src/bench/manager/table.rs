//! The table as people read it.

use super::figures::{Reading, Row, Spread, Verdict};

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
    let none = || "-".to_owned();
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

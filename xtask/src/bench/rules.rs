//! The rules engine on one core, with the reference engines and the goals beside.

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Deserialize;

use crate::workspace::{Workspace, capture};

/// What the example `bench` of `ringrift-rules` prints.
#[derive(Deserialize)]
struct Printed {
    signature: u64,
    costs: Vec<Cost>,
}

#[derive(Deserialize)]
struct Cost {
    config: String,
    games: u64,
    moves: u64,
    longest: u64,
    bound: u64,
    games_per_second: f64,
    moves_per_second: f64,
    sampled_moves_per_second: f64,
    list_ns: f64,
    apply_ns: f64,
    copy_ns: f64,
    sample_ns: f64,
}

/// Random legal play of the reference engines: moves and games a second of the TypeScript engine
/// with the complete legal list, moves a second of the Python engine; and the goal in moves a second.
/// Source: spec/anchors.md, "Rules engines: random legal play".
const ANCHORS: [(&str, f64, f64, f64, f64); 4] = [
    ("square8_2p", 2022.0, 15.6, 382.0, 1_000_000.0),
    ("hex8_2p", 1202.0, 7.25, 386.0, 1_000_000.0),
    ("square19_2p", 416.0, 0.703, 82.0, 100_000.0),
    ("hexagonal_2p", 203.0, 0.205, 62.0, 80_000.0),
];

/// Nanoseconds of a copy and of a move on a small board that are the goal.
const COPY_GOAL: f64 = 60.0;
const APPLY_GOAL: f64 = 150.0;

/// Measures and prints; the words name configs, none = all that are measured.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let mut command = workspace.cargo(&["run", "--quiet", "--release", "--package"]);
    command.args(["ringrift-rules", "--example", "rules_bench", "--", "6"]).args(words);
    let text = capture(command).context("run the example rules_bench")?;
    let printed: Printed = serde_json::from_str(&text).context("read what it printed")?;
    for line in table(&printed) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

fn table(printed: &Printed) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<13} {:>9} {:>11} {:>11} {:>8} {:>8} {:>8} {:>8}   {}",
        "config", "games/s", "moves/s", "sampled/s", "list ns", "apply", "copy", "sample", "beside"
    )];
    for cost in &printed.costs {
        lines.push(format!(
            "{:<13} {:>9.1} {:>11.0} {:>11.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0}   {}",
            cost.config,
            cost.games_per_second,
            cost.moves_per_second,
            cost.sampled_moves_per_second,
            cost.list_ns,
            cost.apply_ns,
            cost.copy_ns,
            cost.sample_ns,
            beside(cost),
        ));
    }
    let (games, moves) =
        printed.costs.iter().fold((0, 0), |(g, m), cost| (g + cost.games, m + cost.moves));
    lines.push(format!("{games} games with {moves} moves played to their end"));
    lines.push("a second is one of processor time of one thread".to_owned());
    let longest = |cost: &Cost| format!("{} {} of {}", cost.config, cost.longest, cost.bound);
    let longest: Vec<String> = printed.costs.iter().map(longest).collect();
    lines.push(format!("longest game of the bound that none exceeds: {}", longest.join(", ")));
    lines.push(format!("Bench: {}", printed.signature));
    lines
}

/// The anchors as ratios, and whether the goals are met.
fn beside(cost: &Cost) -> String {
    let Some((_, moves, games, python, goal)) =
        ANCHORS.into_iter().find(|anchor| anchor.0 == cost.config)
    else {
        return "no anchor".to_owned();
    };
    let met = |met: bool| if met { "met" } else { "NOT met" };
    let text = format!(
        "TypeScript x{:.0} ({:.0}x games), Python x{:.0}; goal {goal:.0} {}",
        cost.moves_per_second / moves,
        cost.games_per_second / games,
        cost.moves_per_second / python,
        met(cost.moves_per_second >= goal),
    );
    if !cost.config.contains('8') {
        return text;
    }
    format!(
        "{text}, copy {COPY_GOAL:.0} {}, apply {APPLY_GOAL:.0} {}",
        met(cost.copy_ns <= COPY_GOAL),
        met(cost.apply_ns <= APPLY_GOAL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_ratios_goals_and_the_signature() {
        let text = r#"{"signature":7,"costs":[
            {"config":"hex8_2p","games":2,"moves":300,"longest":160,"bound":2300,"games_per_second":72.5,
             "moves_per_second":12020,"sampled_moves_per_second":1,"list_ns":1,"apply_ns":1,
             "copy_ns":100,"sample_ns":1},
            {"config":"hexagonal_4p","games":1,"moves":900,"longest":900,"bound":34000,"games_per_second":1,
             "moves_per_second":1,"sampled_moves_per_second":1,"list_ns":1,"apply_ns":1,
             "copy_ns":1,"sample_ns":1}]}"#;
        let lines = table(&serde_json::from_str(text).unwrap());
        for part in [
            "TypeScript x10 (10x games), Python x31",
            "goal 1000000 NOT met",
            "copy 60 NOT met, apply 150 met",
        ] {
            assert!(lines[1].contains(part), "{part} is missing: {}", lines[1]);
        }
        assert!(lines[2].ends_with("no anchor"));
        assert_eq!(lines[3], "3 games with 1200 moves played to their end");
        assert!(lines[5].ends_with("hex8_2p 160 of 2300, hexagonal_4p 900 of 34000"));
        assert_eq!(lines[6], "Bench: 7");
    }
}

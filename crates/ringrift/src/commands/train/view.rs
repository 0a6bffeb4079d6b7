//! A run for people: its live line, a line per iteration, its closing table.

use std::time::Duration;

use ringrift_learn::{
    arena,
    rating::Rating,
    session::{Duel, Limit, Live, Point, Report, Stand, Step, Verdict},
};
use ringrift_rules::Config;

use super::overrides::differences;
use crate::console;

/// Characters of the bar.
const BAR: usize = 20;

/// What is going on, on one line.
pub fn live_line(live: &Live, now: Duration) -> String {
    if live.step == Step::Close {
        return format!("closing match: {} of {} openings", live.done, live.total);
    }
    let filled = (1..=BAR).filter(|cell| part_of(*cell) <= live.part).count();
    let bar = "#".repeat(filled) + &".".repeat(BAR - filled);
    let step = match live.step {
        Step::Play => "plays",
        Step::Export => "exports",
        Step::Train => "trains",
        Step::Gate | Step::Close => "matches",
    };
    let total = if live.total > 0 { format!("/{}", live.total) } else { String::new() };
    let mut words = vec![format!(
        "[{bar}] {:>3.0} %  iteration {}: {step} {}{total}",
        live.part * 100.0,
        live.iteration,
        live.done
    )];
    words.push(format!("{:.1} games/s", live.games_per_second));
    if let Some([policy, value]) = live.loss {
        words.push(format!("{:.0} samples/s", live.samples_per_second));
        words.push(format!("loss {policy:.3} + {value:.3}"));
    }
    let age = now.saturating_sub(live.net_since).as_secs();
    words.push(format!("net {} ({age} s old)", live.net));
    if let Some(rating) = &live.rating {
        words.push(format!("champion net {} {}", live.champion, rating_text(rating)));
    }
    words.join(" | ")
}

/// The share of the run at which a cell of the bar is full.
fn part_of(cell: usize) -> f64 {
    let count = |cells: usize| f64::from(u32::try_from(cells).unwrap_or(u32::MAX));
    count(cell) / count(BAR)
}

/// What an iteration brought, on one line.
pub fn point_line(number: usize, point: &Point, champion: usize) -> String {
    let [full, fast] = point.simulations;
    let played = point.time.play + point.time.train;
    let mut words = vec![format!(
        "{number}: {:.1} min, {} games of {:.0} moves ({full}/{fast} simulations)",
        point.seconds / 60.0,
        point.games,
        point.mean_length
    )];
    if played > 0.0 {
        let games = f64::from(u32::try_from(point.games).unwrap_or(u32::MAX));
        words.push(format!("{:.1} games/s", games / played));
    }
    if let (Some(training), Some(window)) = (&point.training, point.window) {
        words.push(format!(
            "{} steps on {window} rows, {:.0} samples/s, policy {:.3} value {:.3}",
            training.steps,
            training.samples_per_second,
            training.loss.policy_loss,
            training.loss.value_loss
        ));
    }
    if let (Some(net), Some(gate)) = (point.net, &point.gate) {
        words.push(format!("net {net} {}-{}", gate.wins, gate.losses));
    }
    words.push(match &point.verdict {
        Verdict::Promoted => "promoted".to_owned(),
        Verdict::Kept(reason) => reason.clone(),
    });
    if let Some(rating) = &point.rating {
        words.push(format!("champion net {champion} {}", rating_text(rating)));
    }
    words.join(" | ")
}

fn rating_text(rating: &Rating) -> String {
    format!("{:+.0} ({:+.0} to {:+.0})", rating.elo, rating.low, rating.high)
}

const HEAD: [&str; 9] =
    ["against", "simulations", "games", "won-lost", "%", "Elo (95 %)", "LOS", "distinct", "test"];

/// A match after the end, as a row of the table.
fn duel_row(duel: &Duel) -> Vec<String> {
    let result = &duel.result;
    let [low, high] = duel.interval.map(|share| share * 100.0);
    let simulations = match duel.simulations {
        0 => "one move ahead".to_owned(),
        1 => "1 (policy alone)".to_owned(),
        simulations => simulations.to_string(),
    };
    vec![
        duel.against.clone(),
        simulations,
        result.games.to_string(),
        format!("{}-{}", result.wins, result.losses),
        format!("{:.1} ({low:.1} to {high:.1})", result.score * 100.0),
        elo(result),
        los(duel.los),
        result.distinct_games.to_string(),
        test(result),
    ]
}

/// What the sequential test of a match says, where there was one.
fn test(result: &arena::Report) -> String {
    let (Some(bounds), Some(decision), Some(llr)) = (result.test, result.decision, result.llr)
    else {
        return String::new();
    };
    let word = match decision {
        arena::Decision::H0 => "not stronger",
        arena::Decision::H1 => "stronger",
        arena::Decision::Undecided => "undecided",
    };
    format!("{word}: [{:.0}, {:.0}] Elo, LLR {llr:.2}", bounds.elo0, bounds.elo1)
}

/// A line about a match that has just ended.
pub fn duel_line(duel: &Duel) -> String {
    let Duel { against, simulations, result, .. } = duel;
    let score = result.score * 100.0;
    let search = match simulations {
        0 => "one move ahead".to_owned(),
        simulations => format!("{simulations} simulations"),
    };
    format!("{search} against {against}: {}-{}, {score:.1} %", result.wins, result.losses)
}

/// Elo with its interval. Who never lost has no upper end, and its own figure says only how many games there were.
fn elo(result: &arena::Report) -> String {
    if result.losses == 0 {
        format!("above {:+.0}", result.elo_low)
    } else if result.wins == 0 {
        format!("below {:+.0}", result.elo_high)
    } else {
        format!("{:+.0} ({:+.0} to {:+.0})", result.elo, result.elo_low, result.elo_high)
    }
}

fn los(los: f64) -> String {
    if los > 0.9999 {
        "> 0.9999".to_owned()
    } else if los < 0.0001 {
        "< 0.0001".to_owned()
    } else {
        format!("{los:.4}")
    }
}

/// The whole run: what it was, what its champion is worth, how to repeat it.
pub fn summary(report: &Report) -> anyhow::Result<()> {
    let minutes = report.seconds / 60.0;
    let stopped = match &report.stand {
        Stand::Learning | Stand::Learned => String::new(),
        Stand::Stopped => ", stopped before its end".to_owned(),
        Stand::Failed(why) => format!(", failed: {why}"),
    };
    console::say(&format!(
        "{}, seed {}: {minutes:.1} minutes on {} threads{stopped}: {} iterations, {} games, {} rows, {} steps, {} promotions",
        report.config,
        report.seed,
        report.threads,
        report.points.len(),
        report.games,
        report.rows,
        report.steps,
        report.promotions()
    ));
    if let Some(net) = report.nets.get(report.champion) {
        console::say(&format!(
            "champion: net {} of {}, made after {:.1} minutes, {}",
            report.champion,
            report.nets.len() - 1,
            net.seconds / 60.0,
            net.hash
        ));
    }
    if let Some(rating) = report.points.last().and_then(|point| point.rating.as_ref()) {
        console::say(&format!(
            "rating at {} simulations: {}, random = 0, from {} games",
            report.settings.gate.simulations,
            rating_text(rating),
            rating.games
        ));
    }
    closing(report.config, &report.closing);
    console::say("");
    console::say(&format!("repeat: {}", repeat(report)?));
    Ok(())
}

/// The table of the matches after the end.
pub fn closing(config: Config, duels: &[Duel]) {
    if duels.is_empty() {
        return;
    }
    console::say("");
    let rows: Vec<Vec<String>> = duels.iter().map(duel_row).collect();
    console::table(&HEAD, &rows);
    let minutes = duels.iter().map(|duel| duel.result.seconds).sum::<f64>() / 60.0;
    let seats = match config.players {
        2 => "with both seats".to_owned(),
        seats => format!(
            "from each of the {seats} seats, alone against the others; equal players win {:.1} %",
            100.0 / f64::from(seats)
        ),
    };
    console::say(&format!(
        "These matches took {minutes:.1} minutes beyond those of the run; each opening was played {seats}."
    ));
}

/// The command that does the same run.
pub fn repeat(report: &Report) -> anyhow::Result<String> {
    let limit = match report.limit {
        Limit::Minutes(minutes) => format!("--minutes {minutes}"),
        Limit::Steps(steps) => format!("--steps {steps}"),
    };
    let mut words = vec![format!(
        "ringrift train --config {} {limit} --threads {} --seed {}",
        report.config, report.threads, report.seed
    )];
    words.extend(
        differences(&report.settings)?.iter().map(|change| format!("--set {}", quoted(change))),
    );
    Ok(words.join(" "))
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._=-:/".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

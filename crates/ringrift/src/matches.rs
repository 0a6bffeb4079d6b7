//! A match of the learning library in the words of the pipeline.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use ringrift_learn::arena::{Decision, Report};
use ringrift_pipeline::{BlobHash, MatchResult, TestDecision};

/// The result that is stored and shown.
pub fn result_of(report: &Report) -> anyhow::Result<MatchResult> {
    let count = |number: u64| u32::try_from(number).context("count games");
    let [none, one, two] = report.pairs[..] else {
        bail!(
            "{} openings of which up to {} games were won are no pairs",
            report.pairs.iter().sum::<u64>(),
            report.pairs.len() - 1
        );
    };
    let finishes =
        report.finishes.iter().map(|(finish, games)| Ok((finish.clone(), count(*games)?)));
    let finishes = finishes.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    Ok(MatchResult {
        a: report.a.clone(),
        b: report.b.clone(),
        games: count(report.games)?,
        wins: count(report.wins)?,
        losses: count(report.losses)?,
        pairs: [count(none)?, count(one)?, count(two)?],
        score: report.score,
        elo: report.elo,
        elo_low: report.elo_low,
        elo_high: report.elo_high,
        llr: report.llr.unwrap_or(0.0),
        decision: report.decision.map(|decision| match decision {
            Decision::H1 => TestDecision::Stronger,
            Decision::H0 => TestDecision::NotStronger,
            Decision::Undecided => TestDecision::Undecided,
        }),
        finishes: (!finishes.is_empty()).then_some(finishes),
        distinct_games: count(report.distinct_games)?,
        book: Some(BlobHash(report.book.hash.clone())),
        seconds: report.seconds,
    })
}

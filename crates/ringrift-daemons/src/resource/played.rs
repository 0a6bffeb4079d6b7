//! What a worker that played games hands over.

use ringrift_pipeline::{GamesCommitted, Job, SelfplayReport};

use crate::{Finished, Order, WorkError};

/// What a finished worker says it played; the games themselves are replayed later, before they count.
pub(super) fn facts_of(order: &Order, finished: &Finished) -> Result<GamesCommitted, WorkError> {
    let Job::Selfplay(job) = &order.job else {
        return Err(WorkError::Never("it is no self-play".into()));
    };
    let report: SelfplayReport = finished.report_as()?;
    let product = finished.product("games")?;
    let lie = |what: String| Err(WorkError::Lied(what));
    let wins: u32 = report.seat_wins.iter().sum();
    if report.games > job.games {
        return lie(format!("{} games, where {} were asked for", report.games, job.games));
    }
    if report.seat_wins.len() != usize::from(order.config.players) || wins != report.games {
        return lie(format!("{:?} wins per seat in {} games", report.seat_wins, report.games));
    }
    if report.positions < u64::from(report.games) {
        return lie(format!("{} decisions in {} games", report.positions, report.games));
    }
    if !report.seconds.is_finite() || report.seconds < 0.0 {
        return lie(format!("{} seconds of play", report.seconds));
    }
    Ok(GamesCommitted {
        batch: product.hash.clone(),
        bytes: product.bytes,
        config: order.config,
        work: order.work.clone(),
        model: job.model.id.clone(),
        games: report.games,
        positions: report.positions,
        seat_wins: report.seat_wins,
        seconds: report.seconds,
    })
}

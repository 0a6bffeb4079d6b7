//! Combine: from several sample files to the one window that training reads.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::progress::{Flow, Progress};
use crate::samples::Samples;

/// Name of the file in the output folder.
pub const WINDOW_FILE: &str = "window.npz";

/// How large the window is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most rows; older ones are left out, whole games at a time.
    pub rows: u64,
    /// Most rows of one position, the newest ones: an opening that every game begins with would otherwise outweigh all else.
    pub alike: u64,
}

impl Default for Settings {
    /// About 3,500 games of the small boards; more fits memory many times over, but older games are weaker.
    fn default() -> Self {
        Self { rows: 250_000, alike: 50 }
    }
}

/// What was combined.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Sample files that gave rows.
    pub parts: u64,
    /// Games in the window.
    pub games: u64,
    /// Games left out because they were there already.
    pub doubled_games: u64,
    /// Rows in the window.
    pub rows: u64,
    /// Rows left out because their position was there often enough.
    pub alike_rows: u64,
    /// Rows with a policy target.
    pub policies: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Whether the caller stopped before the end; then nothing was written.
    pub stopped: bool,
}

/// Combines sample files, oldest first, to [`WINDOW_FILE`] in `out_dir`.
///
/// # Errors
/// Settings that no window can follow, different configs, a game file that two parts contain, an unreadable part, no rows, or a file that cannot be written.
pub fn run(
    settings: &Settings,
    inputs: &[PathBuf],
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> anyhow::Result<Report> {
    ensure!(settings.rows > 0, "rows is 0, a window needs at least 1");
    ensure!(settings.alike > 0, "alike is 0, so that there would be no row of any position");
    let mut report = Report { file: out_dir.join(WINDOW_FILE), ..Report::default() };
    let mut parts: Vec<Samples> = Vec::new();
    let (mut sources, mut fingerprints) = (BTreeSet::new(), BTreeSet::new());
    // Newest first, until the window is full; so the newer of two equal games stays.
    let mut kept: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut positions: HashMap<u64, u64> = HashMap::new();
    let (mut rows, mut is_full) = (0, false);
    for (done, input) in (0_u64..).zip(inputs.iter().rev()) {
        if progress.beat(done, inputs.len() as u64) == Flow::Stop {
            report.stopped = true;
            return Ok(report);
        }
        if is_full {
            break;
        }
        let part = Samples::read(input)?;
        if let Some(first) = parts.first() {
            ensure!(
                first.config == part.config,
                "{} is of {}, the others are of {}",
                input.display(),
                part.config,
                first.config
            );
        }
        for source in &part.sources {
            ensure!(
                sources.insert(source.clone()),
                "{} repeats the games of file {source}",
                input.display()
            );
        }
        for game in part.rows_by_game().into_iter().rev() {
            let Some(&first) = game.first() else { continue };
            let number = usize::try_from(part.game[first]).context("samples are checked")?;
            // A game that does not fit ends the window: a smaller, older one instead would not be the newest.
            is_full = rows + game.len() as u64 > settings.rows;
            if is_full {
                break;
            }
            if fingerprints.insert(part.game_fingerprints[number]) {
                let mut chosen = game;
                let before = chosen.len();
                chosen.retain(|&row| {
                    let seen = positions.entry(position_key(&part, row)).or_default();
                    *seen += 1;
                    *seen <= settings.alike
                });
                report.alike_rows += (before - chosen.len()) as u64;
                rows += chosen.len() as u64;
                if !chosen.is_empty() {
                    kept.push((parts.len(), chosen));
                }
            } else {
                report.doubled_games += 1;
            }
        }
        parts.push(part);
    }
    let Some(first) = parts.first() else { anyhow::bail!("there is no sample file to combine") };

    let mut window = Samples::new(first.config);
    window.sources = parts.iter().rev().flat_map(|part| part.sources.clone()).collect();
    for (index, game) in kept.iter().rev() {
        let part = &parts[*index];
        let old = usize::try_from(part.game[game[0]]).context("samples are checked")?;
        let number = window.push_game_from(part, old)?;
        for &row in game {
            window.push_from(part, row, number);
        }
    }
    ensure!(window.len() > 0, "the sample files have no rows");
    window.write(&report.file)?;
    report.parts = parts.len() as u64;
    report.games = window.game_fingerprints.len() as u64;
    report.rows = window.len() as u64;
    report.policies = window.policies() as u64;
    report.seconds = progress.elapsed().as_secs_f64();
    Ok(report)
}

/// What rows of one position share: all that the player to move sees.
fn position_key(part: &Samples, row: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    part.features(row).hash(&mut hasher);
    hasher.finish()
}

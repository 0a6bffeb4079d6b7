//! Game files: gzip JSON lines, one played game a line, with what the search thought on the way.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use fs_err::File;
use ringrift_rules::record::{GameRecord, replay};
use ringrift_rules::{Config, Move, RULES_VERSION, State};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::files::write_atomically;
use crate::progress::{Flow, Progress};

/// Longest line that is read, in bytes; a game of the largest board takes less than a tenth.
const LONGEST_LINE: u64 = 64 << 20;

/// A finished game of self-play.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlayedGame {
    /// Rules the game followed.
    pub rules: String,
    /// BLAKE3 hash of the network that learns from the game, hexadecimal.
    pub model: String,
    /// Search that was used, in words.
    pub search: String,
    /// The moves and the result.
    pub record: GameRecord,
    /// The searched decisions, in order.
    pub decisions: Vec<Decision>,
}

/// What a search found at one point of a game.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Moves made before.
    pub at: usize,
    /// Worth of the position per seat, seat 1 first.
    pub values: Vec<f32>,
    /// Improved policy of a full search: notation and probability of every move that has one to speak of. Empty after a fast
    /// search, which gives no policy target.
    pub policy: Vec<(String, f32)>,
}

/// Writes a game file; visible only when complete.
pub(crate) fn write(path: &Path, games: &[PlayedGame]) -> anyhow::Result<()> {
    write_lines(path, games)
}

/// Writes values as gzip JSON lines.
pub(crate) fn write_lines<T: Serialize>(path: &Path, lines: &[T]) -> anyhow::Result<()> {
    write_atomically(path, |file| {
        let mut gzip = GzEncoder::new(file, Compression::fast());
        for line in lines {
            serde_json::to_writer(&mut gzip, line)?;
            gzip.write_all(b"\n")?;
        }
        gzip.finish()?;
        Ok(())
    })
}

/// The games of a file, one by one.
pub struct Games {
    lines: BufReader<MultiGzDecoder<BufReader<File>>>,
    number: usize,
    buffer: Vec<u8>,
}

impl Games {
    /// Opens a game file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let gzip = MultiGzDecoder::new(BufReader::new(File::open(path)?));
        Ok(Self { lines: BufReader::new(gzip), number: 0, buffer: Vec::new() })
    }

    fn read(&mut self) -> anyhow::Result<Option<PlayedGame>> {
        let Some(game) = self.line::<PlayedGame>()? else { return Ok(None) };
        ensure!(
            game.rules == RULES_VERSION,
            "game {}: played by rules {:?}, this program has {RULES_VERSION:?}",
            self.number,
            game.rules
        );
        Ok(Some(game))
    }

    fn line<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        self.buffer.clear();
        self.number += 1;
        let mut line = self.lines.by_ref().take(LONGEST_LINE);
        line.read_until(b'\n', &mut self.buffer)
            .with_context(|| format!("game {}: unreadable", self.number))?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        ensure!(self.buffer.ends_with(b"\n"), "game {}: cut off", self.number);
        let game = serde_json::from_slice(&self.buffer)
            .with_context(|| format!("game {}: no played game", self.number))?;
        Ok(Some(game))
    }
}

impl Iterator for Games {
    type Item = anyhow::Result<PlayedGame>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// What [`check`] found in a good file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// Games replayed.
    pub games: u64,
    /// Recorded moves replayed.
    pub moves: u64,
    /// Searched decisions checked.
    pub positions: u64,
    /// Whether the caller stopped before the end; then the rest was not looked at.
    pub stopped: bool,
}

/// Replays every game of a file through the rules: each move legal, result and final digest as recorded, each policy target a
/// distribution over legal moves.
///
/// # Errors
/// At the first fault, with number and id of the game and the number of the move.
pub fn check(path: &Path, progress: &mut dyn Progress) -> anyhow::Result<CheckReport> {
    let mut report = CheckReport::default();
    for game in Games::open(path).with_context(|| format!("open {}", path.display()))? {
        let checked = game.and_then(|game| check_game(&game).map(|_| game));
        let game = checked.with_context(|| format!("check {}", path.display()))?;
        report.games += 1;
        report.moves += game.record.moves.len() as u64;
        report.positions += game.decisions.len() as u64;
        if progress.beat(report.games, 0) == Flow::Stop {
            report.stopped = true;
            break;
        }
    }
    Ok(report)
}

/// Replays every game of a match's file through the rules: each move legal, result and final digest as recorded.
///
/// # Errors
/// At the first fault, with number and id of the game and the number of the move.
pub fn check_match(path: &Path, progress: &mut dyn Progress) -> anyhow::Result<CheckReport> {
    let mut report = CheckReport::default();
    let mut games = Games::open(path).with_context(|| format!("open {}", path.display()))?;
    let place = || format!("check {}", path.display());
    while let Some(record) = games.line::<GameRecord>().with_context(place)? {
        let id = || format!("game {}", record.id);
        replay(&record).with_context(id).with_context(place)?;
        ensure!(
            record.result.is_some(),
            "check {}: game {}: it has no result",
            path.display(),
            record.id
        );
        report.games += 1;
        report.moves += record.moves.len() as u64;
        if progress.beat(report.games, 0) == Flow::Stop {
            report.stopped = true;
            break;
        }
    }
    Ok(report)
}

/// Replays one game, see [`check`]; gives its last position.
pub(crate) fn check_game(game: &PlayedGame) -> anyhow::Result<State> {
    let id = &game.record.id;
    let end = replay(&game.record).with_context(|| format!("game {id}"))?;
    ensure!(game.record.result.is_some(), "game {id}: it has no result");
    visit(game, |visited| {
        let sum: f32 = visited.policy.iter().sum();
        // Each probability is rounded to four digits, so each move may add half of the last one.
        let moves = f64::from(u32::try_from(visited.moves.len())?);
        let proper =
            visited.policy.is_empty() || (f64::from(sum) - 1.0).abs() < 1e-3 + 5e-5 * moves;
        ensure!(proper, "move {}: the policy adds up to {sum}", visited.decision.at + 1);
        Ok(())
    })?;
    Ok(end)
}

/// A decision met while a game is played again.
pub(crate) struct Visited<'a> {
    pub(crate) state: &'a State,
    pub(crate) moves: &'a [Move],
    pub(crate) decision: &'a Decision,
    /// One probability per legal move; empty after a fast search.
    pub(crate) policy: &'a [f32],
}

/// Plays a game again and shows every searched decision.
pub(crate) fn visit(
    game: &PlayedGame,
    mut look: impl FnMut(&Visited<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let record = &game.record;
    let mut state = State::new(record.config, record.options);
    let (mut moves, mut policy) = (Vec::new(), Vec::new());
    let mut decisions = game.decisions.iter().peekable();
    for (at, text) in record.moves.iter().enumerate() {
        let place = || format!("game {}, move {}", record.id, at + 1);
        if let Some(decision) = decisions.next_if(|decision| decision.at == at) {
            state.legal_moves(&mut moves);
            spread(decision, &state, &moves, &mut policy).with_context(place)?;
            let visited = Visited { state: &state, moves: &moves, decision, policy: &policy };
            look(&visited).with_context(place)?;
        }
        let played = state.parse(text).with_context(place)?;
        state.apply(&played).with_context(place)?;
    }
    let rest = decisions.next();
    ensure!(rest.is_none(), "game {}: its decisions are not in order of the moves", record.id);
    Ok(())
}

/// From named moves to one probability per legal move.
fn spread(
    decision: &Decision,
    state: &State,
    moves: &[Move],
    policy: &mut Vec<f32>,
) -> anyhow::Result<()> {
    let seats = usize::from(state.config().players);
    ensure!(decision.values.len() == seats, "it has {} values", decision.values.len());
    let in_range = decision.values.iter().all(|value| (-1.0..=1.0).contains(value));
    ensure!(in_range, "{:?} are no values of a position", decision.values);
    policy.clear();
    if decision.policy.is_empty() {
        return Ok(());
    }
    policy.resize(moves.len(), 0.0);
    let names: Vec<String> = moves.iter().map(|played| state.notate(played)).collect();
    for (name, probability) in &decision.policy {
        let index = names.iter().position(|known| known == name);
        let index =
            index.with_context(|| format!("the policy names {name:?}, which is illegal"))?;
        ensure!((0.0..=1.0).contains(probability), "{probability} is no probability");
        policy[index] = *probability;
    }
    Ok(())
}

/// The improved policy in the form of a [`Decision`]: moves below 1 in 2000 left out, the rest adding up to 1, four digits.
pub(crate) fn name_policy(state: &State, moves: &[Move], policy: &[f32]) -> Vec<(String, f32)> {
    let kept = || moves.iter().zip(policy).filter(|(_, p)| **p >= 5e-4);
    let sum: f32 = kept().map(|(_, p)| p).sum();
    kept().map(|(played, p)| (state.notate(played), (p / sum * 1e4).round() / 1e4)).collect()
}

/// A number that two different games hardly share: for finding doubled games.
pub(crate) fn fingerprint(record: &GameRecord) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for text in std::iter::once(&record.config.to_string()).chain(&record.moves) {
        hasher.update(text.as_bytes());
        hasher.update(b"\n");
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    i64::from_le_bytes(first)
}

/// BLAKE3 of bytes, hexadecimal: how artefacts are named.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Games of one config only.
pub(crate) fn expect_config(game: &PlayedGame, config: Config) -> anyhow::Result<()> {
    let found = game.record.config;
    ensure!(found == config, "game {} is of {found}, not of {config}", game.record.id);
    Ok(())
}

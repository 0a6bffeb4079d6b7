//! Samples: what training learns from, in memory and as an NPZ file.
//!
//! | array | type, shape | content |
//! |---|---|---|
//! | `meta` | u8 | JSON: encoder, rules version, config, sources, counts |
//! | `feature_offsets`, `features` | i64 N+1, i32 | features that are on in row i, as the player to move sees them |
//! | `feature_views` | i32 seats x F | what feature f is to the seat v turns later |
//! | `feature_turns`, `row_turns` | i32 S x F, S x R | symmetry s of the board takes f to f + this, and move rows alike |
//! | `feature_classes`, `row_classes` | i32 F, R | those of a class say the same of different cells; -1: alone |
//! | `result_values` | f32 N x seats | how the game ended, from the mover's seat on |
//! | `search_values` | f32 N x seats | what the search thought, from the mover's seat on |
//! | `policy_offsets` | i64 N+1 | legal moves of row i; none where the search was a fast one |
//! | `policy_rows`, `policy_values` | u16 M x 8, f32 M | rows that make up each move, and its target probability |
//! | `mover`, `phase` | i8 N | 0-based seat to move; phase, in the order of a turn |
//! | `move_number`, `game` | i32 N | moves made before; index into the next array |
//! | `game_fingerprints`, `game_lengths` | i64 G, i32 G | a hash of the moves of each game; its recorded moves |
//! | `game_territory`, `game_eliminated` | f32 G x seats | share of the cells, share of the rings that win, at the end; seat 1 first |
//! | `game_reasons` | i8 G | why each game ended, in the order of [`Reason::ALL`] |
//!
//! Values are utilities: -1..1 with two seats, chances to win with more. Views, turns and classes are the encoder's, for trainers
//! that do not have it. A turn is a difference because equal differences in a row cost next to nothing in a packed file.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ringrift_player::{ENCODER_ID, Encoder, MOVE_ROWS, MoveRows};
use ringrift_rules::{Config, Phase, RULES_VERSION, Reason, State};
use serde::{Deserialize, Serialize};

use crate::npz::{NpzReader, NpzWriter};

/// Version of the file layout.
const FORMAT: &str = "ringrift-samples-2";

/// What a sample file says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Layout of the file.
    pub format: String,
    /// The encoder that made features and move rows.
    pub encoder: String,
    /// The rules the games followed.
    pub rules: String,
    /// Board and number of seats, as text.
    pub config: String,
    /// Number of rows.
    pub rows: u64,
    /// Rows that have a policy target.
    pub policies: u64,
    /// Number of games.
    pub games: u64,
    /// BLAKE3 hashes of the game files the rows come from, hexadecimal.
    pub sources: Vec<String>,
}

/// Rows of one config.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Samples {
    pub(crate) config: Config,
    pub(crate) sources: Vec<String>,
    pub(crate) feature_offsets: Vec<i64>,
    pub(crate) features: Vec<i32>,
    pub(crate) result_values: Vec<f32>,
    pub(crate) search_values: Vec<f32>,
    pub(crate) policy_offsets: Vec<i64>,
    pub(crate) policy_rows: Vec<MoveRows>,
    pub(crate) policy_values: Vec<f32>,
    pub(crate) mover: Vec<i8>,
    pub(crate) phase: Vec<i8>,
    pub(crate) move_number: Vec<i32>,
    pub(crate) game: Vec<i32>,
    pub(crate) game_fingerprints: Vec<i64>,
    pub(crate) game_lengths: Vec<i32>,
    pub(crate) game_territory: Vec<f32>,
    pub(crate) game_eliminated: Vec<f32>,
    pub(crate) game_reasons: Vec<i8>,
}

impl Samples {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            sources: Vec::new(),
            feature_offsets: vec![0],
            features: Vec::new(),
            result_values: Vec::new(),
            search_values: Vec::new(),
            policy_offsets: vec![0],
            policy_rows: Vec::new(),
            policy_values: Vec::new(),
            mover: Vec::new(),
            phase: Vec::new(),
            move_number: Vec::new(),
            game: Vec::new(),
            game_fingerprints: Vec::new(),
            game_lengths: Vec::new(),
            game_territory: Vec::new(),
            game_eliminated: Vec::new(),
            game_reasons: Vec::new(),
        }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.mover.len()
    }

    pub(crate) fn seats(&self) -> usize {
        usize::from(self.config.players)
    }

    /// Features of a row.
    pub(crate) fn features(&self, row: usize) -> &[i32] {
        &self.features[range(&self.feature_offsets, row)]
    }

    /// Legal moves of a row, as indices of `policy_rows` and `policy_values`.
    pub(crate) fn policy(&self, row: usize) -> Range<usize> {
        range(&self.policy_offsets, row)
    }

    /// Number of rows with a policy target.
    pub(crate) fn policies(&self) -> usize {
        (0..self.len()).filter(|&row| !self.policy(row).is_empty()).count()
    }

    /// Appends a game without rows; gives its index.
    pub(crate) fn push_game(
        &mut self,
        fingerprint: i64,
        length: usize,
        end: &State,
    ) -> anyhow::Result<i32> {
        let outcome = end.outcome().context("the game is not over")?;
        self.game_fingerprints.push(fingerprint);
        self.game_lengths.push(i32::try_from(length)?);
        let cells = u32::try_from(self.config.board.cell_count())?;
        for seat in self.config.seats() {
            self.game_territory.push(share(end.territory(seat), cells));
            self.game_eliminated.push(share(end.eliminated(seat), end.ring_victory()));
        }
        self.game_reasons.push(i8::try_from(outcome.reason as usize)?);
        Ok(i32::try_from(self.game_fingerprints.len() - 1)?)
    }

    /// Appends a game of another set without its rows; gives its index here.
    pub(crate) fn push_game_from(&mut self, other: &Self, game: usize) -> anyhow::Result<i32> {
        let seats = self.seats();
        self.game_fingerprints.push(other.game_fingerprints[game]);
        self.game_lengths.push(other.game_lengths[game]);
        let shares = game * seats..(game + 1) * seats;
        self.game_territory.extend_from_slice(&other.game_territory[shares.clone()]);
        self.game_eliminated.extend_from_slice(&other.game_eliminated[shares]);
        self.game_reasons.push(other.game_reasons[game]);
        Ok(i32::try_from(self.game_fingerprints.len() - 1)?)
    }

    /// Appends a row of another set, of a game that has `game` as index here.
    pub(crate) fn push_from(&mut self, other: &Self, row: usize, game: i32) {
        let seats = self.seats();
        self.features.extend_from_slice(other.features(row));
        self.feature_offsets.push(offset(self.features.len()));
        let values = row * seats..(row + 1) * seats;
        self.result_values.extend_from_slice(&other.result_values[values.clone()]);
        self.search_values.extend_from_slice(&other.search_values[values]);
        let policy = other.policy(row);
        self.policy_rows.extend_from_slice(&other.policy_rows[policy.clone()]);
        self.policy_values.extend_from_slice(&other.policy_values[policy]);
        self.policy_offsets.push(offset(self.policy_rows.len()));
        self.mover.push(other.mover[row]);
        self.phase.push(other.phase[row]);
        self.move_number.push(other.move_number[row]);
        self.game.push(game);
    }

    /// Rows of each game, in the order of games.
    pub(crate) fn rows_by_game(&self) -> Vec<Vec<usize>> {
        let mut games = vec![Vec::new(); self.game_fingerprints.len()];
        for (row, &game) in self.game.iter().enumerate() {
            games[usize::try_from(game).expect("samples are checked when read")].push(row);
        }
        games
    }

    /// Value targets of all rows, from the mover's seat on: per game, from its end backwards,
    /// target = (1 - lambda) * opinion of the search + lambda * target of the next row.
    pub(crate) fn value_targets(&self, lambda: f32) -> Vec<f32> {
        let seats = self.seats();
        let mut targets = self.result_values.clone();
        for rows in self.rows_by_game() {
            for pair in rows.windows(2).rev() {
                let (here, next) = (pair[0], pair[1]);
                for view in 0..seats {
                    // The same seat as the next row's mover sees it.
                    let seat = view + self.mover_index(here) + seats - self.mover_index(next);
                    let later = targets[next * seats + seat % seats];
                    let opinion = self.search_values[here * seats + view];
                    targets[here * seats + view] = (1.0 - lambda) * opinion + lambda * later;
                }
            }
        }
        targets
    }

    fn mover_index(&self, row: usize) -> usize {
        usize::try_from(self.mover[row]).expect("samples are checked when read")
    }

    fn meta(&self) -> Meta {
        Meta {
            format: FORMAT.to_owned(),
            encoder: ENCODER_ID.to_owned(),
            rules: RULES_VERSION.to_owned(),
            config: self.config.to_string(),
            rows: self.len() as u64,
            policies: self.policies() as u64,
            games: self.game_fingerprints.len() as u64,
            sources: self.sources.clone(),
        }
    }

    /// Writes the file; equal samples give equal bytes.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let rows = self.len();
        let meta = serde_json::to_vec(&self.meta())?;
        let mut npz = NpzWriter::default();
        npz.add("meta", &[meta.len()], &meta);
        npz.add("feature_offsets", &[rows + 1], &self.feature_offsets);
        npz.add("features", &[self.features.len()], &self.features);
        let encoder = Encoder::new(self.config);
        let views: Vec<i32> = (0..self.seats())
            .flat_map(|turn| encoder.view(turn).iter().map(|&feature| feature.cast_signed()))
            .collect();
        npz.add("feature_views", &[self.seats(), views.len() / self.seats()], &views);
        add_tables(&mut npz, &encoder);
        npz.add("result_values", &[rows, self.seats()], &self.result_values);
        npz.add("search_values", &[rows, self.seats()], &self.search_values);
        npz.add("policy_offsets", &[rows + 1], &self.policy_offsets);
        let moves = self.policy_rows.len();
        npz.add("policy_rows", &[moves, MOVE_ROWS], self.policy_rows.as_flattened());
        npz.add("policy_values", &[moves], &self.policy_values);
        npz.add("mover", &[rows], &self.mover);
        npz.add("phase", &[rows], &self.phase);
        npz.add("move_number", &[rows], &self.move_number);
        npz.add("game", &[rows], &self.game);
        let games = self.game_fingerprints.len();
        npz.add("game_fingerprints", &[games], &self.game_fingerprints);
        npz.add("game_lengths", &[games], &self.game_lengths);
        npz.add("game_territory", &[games, self.seats()], &self.game_territory);
        npz.add("game_eliminated", &[games, self.seats()], &self.game_eliminated);
        npz.add("game_reasons", &[games], &self.game_reasons);
        npz.write(path)
    }

    /// Reads a file and checks that every number in it can be used.
    ///
    /// # Errors
    /// One sentence: unreadable, of another format, encoder or rules version, or inconsistent.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        Self::read_unnamed(path).with_context(|| format!("read samples {}", path.display()))
    }

    fn read_unnamed(path: &Path) -> anyhow::Result<Self> {
        let mut npz = NpzReader::open(path)?;
        let meta = read_meta(&mut npz)?;
        let config: Config = meta.config.parse()?;
        let mut samples = Self::new(config);
        samples.sources = meta.sources;
        samples.feature_offsets = npz.read("feature_offsets")?.1;
        samples.features = npz.read("features")?.1;
        samples.result_values = npz.read("result_values")?.1;
        samples.search_values = npz.read("search_values")?.1;
        samples.policy_offsets = npz.read("policy_offsets")?.1;
        let (shape, rows) = npz.read::<u16>("policy_rows")?;
        ensure!(shape.get(1) == Some(&MOVE_ROWS), "policy_rows has shape {shape:?}");
        samples.policy_rows = rows.as_chunks().0.to_vec();
        samples.policy_values = npz.read("policy_values")?.1;
        samples.mover = npz.read("mover")?.1;
        samples.phase = npz.read("phase")?.1;
        samples.move_number = npz.read("move_number")?.1;
        samples.game = npz.read("game")?.1;
        samples.game_fingerprints = npz.read("game_fingerprints")?.1;
        samples.game_lengths = npz.read("game_lengths")?.1;
        samples.game_territory = npz.read("game_territory")?.1;
        samples.game_eliminated = npz.read("game_eliminated")?.1;
        samples.game_reasons = npz.read("game_reasons")?.1;
        ensure!(
            samples.len() as u64 == meta.rows,
            "it has {} rows, its header says {}",
            samples.len(),
            meta.rows
        );
        samples.check()?;
        Ok(samples)
    }

    /// Refuses what would index out of range or poison training.
    fn check(&self) -> anyhow::Result<()> {
        let (rows, seats) = (self.len(), self.seats());
        let games = self.game_fingerprints.len();
        let encoder = Encoder::new(self.config);
        check_offsets("feature_offsets", &self.feature_offsets, rows, self.features.len())?;
        check_offsets("policy_offsets", &self.policy_offsets, rows, self.policy_rows.len())?;
        let lengths = [
            ("result_values", self.result_values.len(), rows * seats),
            ("search_values", self.search_values.len(), rows * seats),
            ("policy_values", self.policy_values.len(), self.policy_rows.len()),
            ("phase", self.phase.len(), rows),
            ("move_number", self.move_number.len(), rows),
            ("game", self.game.len(), rows),
            ("game_lengths", self.game_lengths.len(), games),
            ("game_territory", self.game_territory.len(), games * seats),
            ("game_eliminated", self.game_eliminated.len(), games * seats),
            ("game_reasons", self.game_reasons.len(), games),
        ];
        for (name, found, wanted) in lengths {
            ensure!(found == wanted, "{name} has {found} values instead of {wanted}");
        }
        let below = |x: i64, limit: usize| u64::try_from(x).is_ok_and(|x| x < limit as u64);
        let features = &self.features;
        if let Some(x) = features.iter().find(|x| !below((**x).into(), encoder.features())) {
            bail!("feature {x} does not exist");
        }
        let rows = self.policy_rows.as_flattened();
        if let Some(x) = rows.iter().find(|x| !below((**x).into(), encoder.rows())) {
            bail!("move row {x} does not exist");
        }
        for (name, values, limit) in [
            ("mover", &self.mover, seats),
            ("phase", &self.phase, Phase::ALL.len()),
            ("game_reasons", &self.game_reasons, Reason::ALL.len()),
        ] {
            if let Some(x) = values.iter().find(|x| !below((**x).into(), limit)) {
                bail!("{name} has the impossible value {x}");
            }
        }
        if let Some(x) = self.game.iter().find(|x| !below((**x).into(), games)) {
            bail!("game {x} does not exist");
        }
        let values = self.result_values.iter().chain(&self.search_values);
        if let Some(x) = values.into_iter().find(|x| !(-1.0..=1.0).contains(*x)) {
            bail!("{x} is no value of a position");
        }
        let shares = self.game_territory.iter().chain(&self.game_eliminated);
        if let Some(x) = shares.into_iter().find(|x| !(0.0..=1.0).contains(*x)) {
            bail!("{x} is no share of a board or of rings");
        }
        for row in 0..self.len() {
            let policy = &self.policy_values[self.policy(row)];
            let sum: f32 = policy.iter().sum();
            // Rounding of a thousand probabilities stays below this.
            let whole = policy.is_empty() || (sum - 1.0).abs() < 1e-2;
            ensure!(whole && policy.iter().all(|p| *p >= 0.0), "row {row} has no proper policy");
        }
        Ok(())
    }
}

/// What a trainer without the encoder needs to know of features and move rows.
fn add_tables(npz: &mut NpzWriter, encoder: &Encoder) {
    let (features, rows) = (encoder.feature_symmetries(), encoder.row_symmetries());
    let features = features.iter().flat_map(|table| (0..).zip(table).map(|(f, &to)| turn(f, to)));
    let rows = rows.iter().flat_map(|table| (0..).zip(table).map(|(r, &to)| turn(r, to.into())));
    let symmetries = encoder.config().board.geometry().symmetries().len();
    npz.add("feature_turns", &[symmetries, encoder.features()], &features.collect::<Vec<_>>());
    npz.add("row_turns", &[symmetries, encoder.rows()], &rows.collect::<Vec<_>>());
    for (name, classes) in
        [("feature_classes", encoder.feature_classes()), ("row_classes", encoder.row_classes())]
    {
        let of: Vec<i32> = classes
            .of
            .iter()
            .map(|class| class.map_or(-1, |class| i32::try_from(class).expect("classes are few")))
            .collect();
        npz.add(name, &[of.len()], &of);
    }
}

fn turn(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

fn read_meta(npz: &mut NpzReader) -> anyhow::Result<Meta> {
    let (_, text) = npz.read::<u8>("meta")?;
    let meta: Meta = serde_json::from_slice(&text).context("its header is unreadable")?;
    for (name, found, wanted) in [
        ("format", &meta.format, FORMAT),
        ("encoder", &meta.encoder, ENCODER_ID),
        ("rules version", &meta.rules, RULES_VERSION),
    ] {
        ensure!(found == wanted, "its {name} is {found:?}, this program needs {wanted:?}");
    }
    Ok(meta)
}

/// The header of a sample file.
///
/// # Errors
/// One sentence: unreadable, or of another format, encoder or rules version.
pub fn meta(path: &Path) -> anyhow::Result<Meta> {
    NpzReader::open(path)
        .and_then(|mut npz| read_meta(&mut npz))
        .with_context(|| format!("read samples {}", path.display()))
}

fn check_offsets(name: &str, offsets: &[i64], rows: usize, end: usize) -> anyhow::Result<()> {
    let fits = offsets.len() == rows + 1
        && offsets.first() == Some(&0)
        && offsets.last() == Some(&offset(end))
        && offsets.is_sorted();
    ensure!(fits, "{name} does not fit the array it divides");
    Ok(())
}

fn range(offsets: &[i64], row: usize) -> Range<usize> {
    let at = |index: usize| usize::try_from(offsets[index]).expect("offsets were checked");
    at(row)..at(row + 1)
}

/// Part of a whole, at most 1.
fn share(part: u16, whole: u32) -> f32 {
    let whole = u16::try_from(whole).expect("boards and rings are counted in hundreds");
    (f32::from(part) / f32::from(whole.max(1))).min(1.0)
}

/// A length as NPZ offset.
pub(crate) fn offset(length: usize) -> i64 {
    i64::try_from(length).expect("memory ends before 2^63")
}

#[cfg(test)]
mod tests;

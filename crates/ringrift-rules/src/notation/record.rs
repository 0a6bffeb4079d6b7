//! Game records: what self-play stores and `verify` replays.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::NotationError;
use crate::config::{Config, Options};
use crate::illegal::Illegal;
use crate::state::State;
use crate::victory::Reason;

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// How [`Options`] are written: the names of the reference games.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct OptionsText {
    #[serde(rename = "swapRuleEnabled")]
    swap_rule: bool,
    rings_per_player: Option<u16>,
    #[serde(rename = "lpsRoundsRequired")]
    lps_rounds: u8,
}

impl Default for OptionsText {
    fn default() -> Self {
        Options::default().into()
    }
}

impl From<Options> for OptionsText {
    fn from(options: Options) -> Self {
        let Options { swap_rule, rings_per_player, lps_rounds } = options;
        Self { swap_rule, rings_per_player, lps_rounds }
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OptionsText::from(*self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OptionsText { swap_rule, rings_per_player, lps_rounds } =
            OptionsText::deserialize(deserializer)?;
        Ok(Self { swap_rule, rings_per_player, lps_rounds })
    }
}

/// A finished game, from its first position to its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GameRecord {
    /// Name of the game.
    pub id: String,
    /// Board and number of players.
    pub config: Config,
    /// Options of the game.
    #[serde(default)]
    pub options: Options,
    /// Seed the players drew from.
    pub seed: u64,
    /// Who played, by seat.
    pub players: Vec<String>,
    /// The moves in notation.
    pub moves: Vec<String>,
    /// How it ended; `None` for a game that was broken off.
    pub result: Option<GameResult>,
}

/// Result of a recorded game.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GameResult {
    /// Number of the seat that won.
    pub winner: u8,
    /// Name of the [`Reason`].
    pub reason: String,
    /// Digest of the last position.
    pub digest: String,
}

impl GameResult {
    /// The result of a position, if the game is over there.
    pub fn of(state: &State) -> Option<Self> {
        state.outcome().map(|outcome| Self {
            winner: outcome.winner.number(),
            reason: outcome.reason.name().to_owned(),
            digest: state.digest(),
        })
    }

    /// The reason, if its name is known.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.name() == self.reason)
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentence of each says it; numbers of moves start at 1")]
pub enum ReplayError {
    #[error("the record names {found} players, its configuration has {needed}")]
    Players { found: usize, needed: u8 },
    #[error("move {number}: {source}")]
    Unreadable { number: usize, source: NotationError },
    #[error("move {number}: {source}")]
    Illegal { number: usize, source: Illegal },
    #[error("after move {number} the record says {recorded:?}, the rules say {replayed:?}")]
    Result { number: usize, recorded: Option<GameResult>, replayed: Option<GameResult> },
}

impl ReplayError {
    /// Number of the move at fault, from 1; that of the last one for a wrong result, 0 for wrong
    /// players.
    pub const fn move_number(&self) -> usize {
        match self {
            Self::Players { .. } => 0,
            Self::Unreadable { number, .. }
            | Self::Illegal { number, .. }
            | Self::Result { number, .. } => *number,
        }
    }
}

/// Plays a record again and compares its result; gives the last position.
///
/// # Errors
/// At the first move that is unreadable or illegal, or if the result differs.
pub fn replay(record: &GameRecord) -> Result<State, ReplayError> {
    if record.players.len() != usize::from(record.config.players) {
        let (found, needed) = (record.players.len(), record.config.players);
        return Err(ReplayError::Players { found, needed });
    }
    let mut state = State::new(record.config, record.options);
    for (number, text) in (1..).zip(&record.moves) {
        let mv = state.parse(text).map_err(|source| ReplayError::Unreadable { number, source })?;
        state.apply(&mv).map_err(|source| ReplayError::Illegal { number, source })?;
    }
    let replayed = GameResult::of(&state);
    if replayed != record.result {
        let (number, recorded) = (record.moves.len(), record.result.clone());
        return Err(ReplayError::Result { number, recorded, replayed });
    }
    Ok(state)
}

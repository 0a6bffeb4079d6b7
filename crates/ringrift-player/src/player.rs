//! Players: whoever chooses a move.

use std::fmt;
use std::str::FromStr;

use ringrift_rules::{Config, Move, State};

use crate::heuristic::{HEURISTIC_NAME, Heuristic};
use crate::linear::{Active, Linear, best_for};
use crate::network::Network;
use crate::rollout;
use crate::search::{SearchSettings, Searcher};
use crate::values::Values;

/// A chosen move and what led to it.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The legal moves.
    pub moves: Vec<Move>,
    /// Index of the chosen one.
    pub chosen: usize,
    /// One probability per legal move, if the player has an opinion about all of them.
    pub policy: Option<Vec<f32>>,
    /// Worth of the position per seat, if the player has an opinion.
    pub values: Option<Values>,
    /// Simulations really done; 0 for a forced move.
    pub simulations: u32,
}

impl Choice {
    /// The chosen move.
    pub fn played(&self) -> &Move {
        &self.moves[self.chosen]
    }

    fn without_opinion(moves: Vec<Move>, chosen: usize) -> Self {
        Self { moves, chosen, policy: None, values: None, simulations: 0 }
    }
}

/// Chooses moves.
pub trait Player: Send {
    /// Chooses a move of an unfinished game; equal positions and generators give equal choices.
    fn choose(&mut self, state: &State, rng: &mut fastrand::Rng) -> Choice;

    /// How reports and ratings call it: a text that makes an equal player again.
    fn name(&self) -> String;
}

/// What a player is, in one word: `random`, `heuristic`, `linear:FILE`, `rollout:SIMS` or `model:SOURCE@SIMS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayerSpec {
    /// Any legal move.
    Random,
    /// The hand-written evaluation, one move ahead; reports call it [`HEURISTIC_NAME`].
    Heuristic,
    /// A linear value function, one move ahead.
    Linear {
        /// Where it is: a file, or an id that the caller knows.
        source: String,
    },
    /// UCT with random games to the end.
    Rollout {
        /// Random games per decision.
        simulations: u32,
    },
    /// Gumbel search with a network.
    Model {
        /// Where the network is: a file, or an id that the caller knows.
        source: String,
        /// Simulations per decision.
        simulations: u32,
    },
}

/// A text that names no player.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlayerError {
    /// The word before the colon is unknown.
    #[error(
        "unknown player {0:?}; a player is random, heuristic, linear:FILE, rollout:SIMS or model:FILE@SIMS"
    )]
    Unknown(String),
    /// No number of simulations, or an impossible one.
    #[error(
        "player {player:?}: {number:?} is no number of simulations from 1 to {MOST_SIMULATIONS}"
    )]
    Simulations {
        /// The whole text.
        player: String,
        /// The part that should be a number.
        number: String,
    },
    /// Nothing between `model:` and `@`.
    #[error("player {0:?} names no model; write model:FILE@SIMS")]
    Source(String),
    /// Nothing after `linear:`.
    #[error("player {0:?} names no file; write linear:FILE")]
    File(String),
}

/// More simulations than this per decision are a typing error: a tree of this size needs gigabytes.
pub const MOST_SIMULATIONS: u32 = 1_000_000;

impl FromStr for PlayerSpec {
    type Err = ParsePlayerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let simulations = |number: &str| {
            number.parse().ok().filter(|n| (1..=MOST_SIMULATIONS).contains(n)).ok_or_else(|| {
                ParsePlayerError::Simulations { player: text.to_owned(), number: number.to_owned() }
            })
        };
        match text.split_once(':') {
            None if text == "random" => Ok(Self::Random),
            None if text == "heuristic" || text == HEURISTIC_NAME => Ok(Self::Heuristic),
            Some(("rollout", number)) => Ok(Self::Rollout { simulations: simulations(number)? }),
            Some(("linear", "")) => Err(ParsePlayerError::File(text.to_owned())),
            Some(("linear", source)) => Ok(Self::Linear { source: source.to_owned() }),
            Some(("model", rest)) => {
                let (source, number) = rest.rsplit_once('@').unwrap_or((rest, ""));
                if source.is_empty() {
                    return Err(ParsePlayerError::Source(text.to_owned()));
                }
                Ok(Self::Model { source: source.to_owned(), simulations: simulations(number)? })
            }
            _ => Err(ParsePlayerError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for PlayerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::Heuristic => f.write_str("heuristic"),
            Self::Linear { source } => write!(f, "linear:{source}"),
            Self::Rollout { simulations } => write!(f, "rollout:{simulations}"),
            Self::Model { source, simulations } => write!(f, "model:{source}@{simulations}"),
        }
    }
}

impl PlayerSpec {
    /// Makes the player; `load` turns the source of a model or of a linear function into the bytes of its file.
    ///
    /// # Errors
    /// What `load` returns, and one that cannot be read or is of another config. There is no fallback.
    pub fn open(
        &self,
        config: Config,
        load: impl FnOnce(&str) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Box<dyn Player>> {
        Ok(match self {
            Self::Random => Box::new(RandomPlayer),
            Self::Heuristic => Box::new(HeuristicPlayer::default()),
            Self::Linear { source } => Box::new(LinearPlayer {
                name: self.to_string(),
                linear: Linear::for_config(&load(source)?, config)?,
                active: Active::default(),
            }),
            Self::Rollout { simulations } => Box::new(RolloutPlayer { simulations: *simulations }),
            Self::Model { source, simulations } => {
                let network = Network::for_config(&load(source)?, config)?;
                Box::new(ModelPlayer::new(self.to_string(), network, *simulations))
            }
        })
    }
}

/// Plays any legal move.
struct RandomPlayer;

impl Player for RandomPlayer {
    fn choose(&mut self, state: &State, rng: &mut fastrand::Rng) -> Choice {
        let mut moves = Vec::new();
        state.legal_moves(&mut moves);
        let chosen = rng.usize(..moves.len());
        Choice::without_opinion(moves, chosen)
    }

    fn name(&self) -> String {
        PlayerSpec::Random.to_string()
    }
}

/// Plays one of the moves that look best right after them.
#[derive(Default)]
struct HeuristicPlayer {
    heuristic: Heuristic,
}

impl Player for HeuristicPlayer {
    fn choose(&mut self, state: &State, rng: &mut fastrand::Rng) -> Choice {
        let mut moves = Vec::new();
        state.legal_moves(&mut moves);
        let chosen = if moves.len() == 1 { 0 } else { self.heuristic.choose(state, &moves, rng) };
        Choice::without_opinion(moves, chosen)
    }

    fn name(&self) -> String {
        HEURISTIC_NAME.to_owned()
    }
}

/// Plays the move after which a linear function likes the position best.
struct LinearPlayer {
    name: String,
    linear: Linear,
    active: Active,
}

impl Player for LinearPlayer {
    fn choose(&mut self, state: &State, rng: &mut fastrand::Rng) -> Choice {
        let mut moves = Vec::new();
        state.legal_moves(&mut moves);
        if moves.len() == 1 {
            return Choice::without_opinion(moves, 0);
        }
        let mut values = Vec::new();
        self.linear.look_ahead(state, &moves, &mut self.active, &mut values);
        let chosen = best_for(state.to_move().index(), &values, rng);
        Choice { moves, chosen, policy: None, values: Some(values[chosen]), simulations: 0 }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Plays what random games to the end recommend.
struct RolloutPlayer {
    simulations: u32,
}

impl Player for RolloutPlayer {
    fn choose(&mut self, state: &State, rng: &mut fastrand::Rng) -> Choice {
        let mut moves = Vec::new();
        state.legal_moves(&mut moves);
        if moves.len() == 1 {
            return Choice::without_opinion(moves, 0);
        }
        let (policy, values) = rollout::search(state, &moves, self.simulations, rng);
        Choice {
            chosen: crate::gumbel::best(policy.iter().copied()),
            moves,
            policy: Some(policy),
            values: Some(values),
            simulations: self.simulations,
        }
    }

    fn name(&self) -> String {
        PlayerSpec::Rollout { simulations: self.simulations }.to_string()
    }
}

/// Plays what Gumbel search with a network finds, without root noise.
pub struct ModelPlayer {
    name: String,
    searcher: Searcher,
    settings: SearchSettings,
}

impl ModelPlayer {
    /// A player for matches; `name` is how reports call it.
    pub fn new(name: String, network: Network, simulations: u32) -> Self {
        Self::with(name, network, SearchSettings { simulations, ..SearchSettings::default() })
    }

    /// A player with a search of one's own making.
    pub fn with(name: String, network: Network, settings: SearchSettings) -> Self {
        Self { name, searcher: Searcher::new(network), settings }
    }
}

impl Player for ModelPlayer {
    fn choose(&mut self, state: &State, rng: &mut fastrand::Rng) -> Choice {
        let mut moves = Vec::new();
        state.legal_moves(&mut moves);
        if moves.len() == 1 {
            return Choice::without_opinion(moves, 0);
        }
        let found = self.searcher.search(state, &moves, &self.settings, rng);
        Choice {
            moves,
            chosen: found.chosen,
            policy: Some(found.policy),
            values: Some(found.values),
            simulations: found.simulations,
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_reads_back_from_its_name() {
        for text in
            ["random", "heuristic", "linear:a:b", "rollout:128", "model:/data/a@b.safetensors@32"]
        {
            assert_eq!(text.parse::<PlayerSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_player_reads_back_from_how_reports_call_it() {
        let config = "hex8_2p".parse().unwrap();
        for text in ["random", "heuristic", "rollout:7"] {
            let spec: PlayerSpec = text.parse().unwrap();
            let name = spec.open(config, |_| anyhow::bail!("no file")).unwrap().name();
            assert_eq!(name.parse::<PlayerSpec>().unwrap(), spec);
        }
    }

    fn check_refused(text: &str, sentence: &str) {
        let error = text.parse::<PlayerSpec>().unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }

    #[test]
    fn a_wrong_player_is_refused_with_what_is_wrong_about_it() {
        check_refused("minimax:3", "unknown player \"minimax:3\"; a player is random, heuristic,");
        check_refused("linear:", "names no file; write linear:FILE");
        check_refused("rollout", "unknown player");
        check_refused("rollout:0", "\"0\" is no number of simulations");
        check_refused("rollout:-5", "\"-5\" is no number");
        check_refused("model:a", "\"\" is no number of simulations");
        check_refused("model:a@many", "\"many\" is no number");
        check_refused("model:@32", "names no model");
    }
}

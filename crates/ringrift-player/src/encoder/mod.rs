//! From positions and moves to numbers: the one translation that search, sample files and training share.

mod features;
mod rows;

use ringrift_rules::{Config, Move, State};

use features::FeatureLayout;
use rows::RowLayout;
pub use rows::{MOVE_ROWS, MoveRows};

/// Name of this translation: part of every sample file and network, changed whenever a number changes its meaning.
pub const ENCODER_ID: &str = "nnue-pv-features-2";

/// The features of a position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Numbers of the features that are on, as the player to move sees them.
    pub features: Vec<u32>,
    /// 0-based seat to move.
    pub mover: u8,
}

/// Translates the positions and moves of one config.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: Config,
    features: FeatureLayout,
    rows: RowLayout,
    views: Vec<Vec<u32>>,
}

impl Encoder {
    /// The translation for a config.
    pub fn new(config: Config) -> Self {
        let features = FeatureLayout::new(config);
        let views = (0..usize::from(config.players)).map(|turn| features.view(turn)).collect();
        Self { config, features, rows: RowLayout::new(config), views }
    }

    /// Board and number of seats.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Number of features there are.
    pub fn features(&self) -> usize {
        self.features.total()
    }

    /// Number of move rows there are.
    pub fn rows(&self) -> usize {
        self.rows.total()
    }

    /// Translates a position of an unfinished game.
    pub fn encode(&self, state: &State, out: &mut Encoded) {
        self.features.encode(state, &mut out.features);
        out.mover = state.to_move().number() - 1;
    }

    /// Translates legal moves of a position.
    pub fn encode_moves(&self, state: &State, moves: &[Move], out: &mut Vec<MoveRows>) {
        out.clear();
        out.extend(moves.iter().map(|played| self.rows.encode(state, played)));
    }

    /// For every feature, the one that says the same to the seat `turn` places after the player to move.
    pub fn view(&self, turn: usize) -> &[u32] {
        &self.views[turn]
    }

    /// For each symmetry of the board, for every feature, its image.
    pub fn feature_symmetries(&self) -> Vec<Vec<u32>> {
        let symmetries = self.config.board.geometry().symmetries();
        symmetries.iter().map(|symmetry| self.features.permuted(symmetry)).collect()
    }

    /// For each symmetry of the board, for every move row, its image.
    pub fn row_symmetries(&self) -> Vec<Vec<u16>> {
        let symmetries = self.config.board.geometry().symmetries();
        symmetries.iter().map(|symmetry| self.rows.permuted(symmetry)).collect()
    }

    /// For every feature, its class: features of a class say the same of different cells. `None`: alone of its kind.
    ///
    /// Training moves a whole class together besides each member, so that what is learned on one cell helps on all.
    pub fn feature_classes(&self) -> Classes {
        let of = (0..self.features()).map(|feature| self.features.fact(feature)).collect();
        Classes { of, count: self.features.stride() }
    }

    /// The same for move rows.
    pub fn row_classes(&self) -> Classes {
        let of = (0..self.rows()).map(|row| self.rows.class(row)).collect();
        Classes { of, count: RowLayout::classes() }
    }
}

/// A division of numbers into classes.
#[derive(Debug, Clone)]
pub struct Classes {
    /// Class of each number.
    pub of: Vec<Option<usize>>,
    /// How many classes there are.
    pub count: usize,
}

#[cfg(test)]
mod tests;

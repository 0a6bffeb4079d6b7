//! Boards, configurations, options and the numbers of section 1.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// One of the four boards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Board {
    /// 8 x 8 squares.
    Square8,
    /// 19 x 19 squares.
    Square19,
    /// Hexagon of radius 4.
    Hex8,
    /// Hexagon of radius 12.
    Hexagonal,
}

impl Board {
    /// All boards, in the order of section 1 of the specification.
    pub const ALL: [Self; 4] = [Self::Square8, Self::Square19, Self::Hex8, Self::Hexagonal];

    /// Name in records and configuration, for example `hex8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Square8 => "square8",
            Self::Square19 => "square19",
            Self::Hex8 => "hex8",
            Self::Hexagonal => "hexagonal",
        }
    }

    /// Whether cells are hexagons: six directions instead of eight.
    pub const fn is_hex(self) -> bool {
        matches!(self, Self::Hex8 | Self::Hexagonal)
    }

    /// Number of cells.
    pub const fn cell_count(self) -> usize {
        match self {
            Self::Square8 => 64,
            Self::Square19 => 361,
            Self::Hex8 => 61,
            Self::Hexagonal => 469,
        }
    }

    /// Rings each player starts with (R020).
    pub const fn rings_per_player(self) -> u16 {
        match self {
            Self::Square8 | Self::Hex8 => 18,
            Self::Square19 => 72,
            Self::Hexagonal => 96,
        }
    }

    /// Shortest run the reference's line detector reports, `Ld` of section 1.
    pub const fn detection_length(self) -> u8 {
        match self {
            Self::Square8 => 3,
            Self::Square19 | Self::Hex8 | Self::Hexagonal => 4,
        }
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A board and a number of players: what a model is trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Config {
    /// The board.
    pub board: Board,
    /// Number of players, 2 to 4.
    pub players: u8,
}

impl Config {
    /// The twelve configurations, by board, then by number of players.
    pub const ALL: [Self; 12] = {
        let mut all = [Self { board: Board::Square8, players: 2 }; 12];
        let mut index = 0;
        let mut players = 2;
        while index < 12 {
            all[index] = Self { board: Board::ALL[index / 3], players };
            index += 1;
            players = if players == 4 { 2 } else { players + 1 };
        }
        all
    };

    /// Markers a line needs, `L` of section 1 (R120).
    pub const fn line_length(self) -> u8 {
        match (self.board, self.players) {
            (Board::Square8 | Board::Hex8, 3 | 4) => 3,
            _ => 4,
        }
    }

    /// Fewest markers of a run that may be processed as a line: max(L, Ld) (section 15-B).
    pub const fn eligible_length(self) -> u8 {
        let (needed, detected) = (self.line_length(), self.board.detection_length());
        if needed > detected { needed } else { detected }
    }

    /// Rings credited to a player that win the game, `V` of section 1 (R061).
    pub const fn ring_victory(self, rings_per_player: u16) -> u32 {
        // round(rpp * (N + 1) / 3): thirds only, so never a tie between two roundings.
        let thirds = rings_per_player as u32 * (self.players as u32 + 1);
        (2 * thirds + 3) / 6
    }

    /// Collapsed cells needed for a territory victory, `Tmin` of section 1 (R062).
    #[expect(clippy::cast_possible_truncation, reason = "a board has at most 469 cells")]
    pub const fn territory_victory(self) -> u32 {
        self.board.cell_count() as u32 / self.players as u32 + 1
    }

    /// No game has more moves, bookkeeping moves included.
    ///
    /// S = markers + collapsed cells + eliminated rings is at most 2 cells + all rings and never
    /// falls (section 14). In a round of turns it grows: who controls a stack must move it, capture
    /// or give up its cap, and without any stack somebody must place or the game is over. A turn has
    /// six moves that leave S as it is (placement, swap, skipped capture, lines, territory, one
    /// more where it is left), and lines add at most one for each cell that collapses.
    pub const fn most_moves(self, rings_per_player: u16) -> u64 {
        let rings = rings_per_player as u64 * self.players as u64;
        let most_progress = 2 * self.board.cell_count() as u64 + rings;
        6 * self.players as u64 * (most_progress + 1) + 2 * most_progress
    }

    /// The seats in order.
    pub fn seats(self) -> impl DoubleEndedIterator<Item = Seat> + ExactSizeIterator + Clone {
        Seat::ALL.into_iter().take(usize::from(self.players))
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}_{}p", self.board, self.players))
    }
}

/// A text that names no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseConfigError {
    /// The text given.
    pub text: String,
    /// The configuration with the most similar name.
    pub nearest: Config,
}

impl fmt::Display for ParseConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, nearest } = self;
        let allowed = allowed();
        write!(f, "unknown configuration {text:?}, did you mean {nearest}? Allowed: {allowed}")
    }
}

impl core::error::Error for ParseConfigError {}

fn allowed() -> String {
    Config::ALL.map(|config| config.to_string()).join(", ")
}

impl FromStr for Config {
    type Err = ParseConfigError;

    fn from_str(text: &str) -> Result<Self, ParseConfigError> {
        let mut nearest = (usize::MAX, Self::ALL[0]);
        for config in Self::ALL {
            let name = config.to_string();
            if name == text {
                return Ok(config);
            }
            nearest = nearest.min((edit_distance(&name, text), config));
        }
        Err(ParseConfigError { text: text.to_owned(), nearest: nearest.1 })
    }
}

/// Levenshtein distance; a dependency for one error message would be too much.
fn edit_distance(left: &str, right: &str) -> usize {
    // Only names of a dozen letters are compared; a long text is cut, it is far from all of them.
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in right.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(a != b)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[right.len()]
}

/// Options of a game (section 1, "Options"); all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options {
    /// Whether seat 2 may swap sides in its first turn; ignored with 3 or 4 players (R180).
    pub swap_rule: bool,
    /// Rings each player starts with; `None` = the board's number.
    pub rings_per_player: Option<u16>,
    /// Rounds of being the only player with real actions that win (R172).
    pub lps_rounds: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { swap_rule: false, rings_per_player: None, lps_rounds: 3 }
    }
}

/// A seat: player 1 to 4, in turn order. Rings and markers of a seat have its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat(u8);

impl Seat {
    /// The four seats.
    pub const ALL: [Self; 4] = [Self(1), Self(2), Self(3), Self(4)];

    /// The seat with this number, 1 to 4.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= 4 { Some(Self(number)) } else { None }
    }

    /// Number of the seat, 1 to 4.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Position in arrays by seat: number - 1.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// The seat that plays after this one among `players` seats.
    #[must_use]
    pub const fn next(self, players: u8) -> Self {
        if self.0 >= players { Self(1) } else { Self(self.0 + 1) }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_reads_back_from_its_name() {
        for config in Config::ALL {
            assert_eq!(config.to_string().parse(), Ok(config));
        }
        assert_eq!(Config::ALL.iter().collect::<std::collections::HashSet<_>>().len(), 12);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_and_all_allowed_ones() {
        let error = "hex8_2".parse::<Config>().unwrap_err();
        assert_eq!(error.nearest.to_string(), "hex8_2p");
        let text = error.to_string();
        assert!(text.contains("did you mean hex8_2p?") && text.contains("hexagonal_4p"), "{text}");
    }

    #[test]
    fn the_numbers_of_section_1_come_out() {
        let numbers = |name: &str| {
            let config: Config = name.parse().unwrap();
            let rings = config.board.rings_per_player();
            (config.line_length(), config.ring_victory(rings), config.territory_victory())
        };
        assert_eq!(numbers("square8_2p"), (4, 18, 33));
        assert_eq!(numbers("square8_3p"), (3, 24, 22));
        assert_eq!(numbers("square8_4p"), (3, 30, 17));
        assert_eq!(numbers("hex8_2p"), (4, 18, 31));
        assert_eq!(numbers("hex8_3p"), (3, 24, 21));
        assert_eq!(numbers("hex8_4p"), (3, 30, 16));
        assert_eq!(numbers("square19_2p"), (4, 72, 181));
        assert_eq!(numbers("square19_3p"), (4, 96, 121));
        assert_eq!(numbers("square19_4p"), (4, 120, 91));
        assert_eq!(numbers("hexagonal_2p"), (4, 96, 235));
        assert_eq!(numbers("hexagonal_3p"), (4, 128, 157));
        assert_eq!(numbers("hexagonal_4p"), (4, 160, 118));
    }
}

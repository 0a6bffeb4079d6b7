//! A running game's position, small enough for a progress line: a worker makes it, the page draws it.

use ringrift_rules::{Board, Cell, Config, Coordinate, Move, Seat, State};
use serde::{Deserialize, Serialize};

/// A position, and the move that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardView {
    /// Board and number of players, e.g. `hex8_2p`.
    pub config: String,
    /// What is on the cells; empty ones are left out.
    pub cells: Vec<CellView>,
    /// Moves made so far.
    pub move_number: u32,
    /// Seat to move, 1 to 4.
    pub to_move: u8,
    /// Phase of its turn.
    pub phase: String,
    /// Per seat, in order.
    pub seats: Vec<SeatView>,
    /// The move that led here; none at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_move: Option<MoveView>,
    /// Seat that won; none while the game runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<u8>,
}

/// What is on one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellView {
    /// Column and row on square boards, the first two cube coordinates on hexagons.
    pub at: [i8; 2],
    /// The thing.
    #[serde(flatten)]
    pub on: On,
}

/// A thing on a cell; numbers are seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// A stack, rings from top to bottom.
    Stack(Vec<u8>),
    /// A marker.
    Marker(u8),
    /// Territory.
    Collapsed(u8),
}

/// Counters of one seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeatView {
    /// Rings in hand.
    pub hand: u16,
    /// Rings credited as eliminated.
    pub eliminated: u16,
    /// Collapsed cells.
    pub territory: u16,
}

/// A move, for a line under the board and an arrow on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveView {
    /// Its kind in words, e.g. `move stack`.
    pub text: String,
    /// The cell that was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<[i8; 2]>,
    /// The cell it acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<[i8; 2]>,
}

impl BoardView {
    /// The position as it stands.
    pub fn of(state: &State) -> Self {
        let geometry = state.geometry();
        let cells = geometry.cells().filter_map(|cell| {
            let on = match state.cell(cell) {
                Cell::Empty => return None,
                Cell::Marker(seat) => On::Marker(seat.number()),
                Cell::Collapsed(seat) => On::Collapsed(seat.number()),
                Cell::Stack(stack) => On::Stack(stack.rings().map(Seat::number).collect()),
            };
            Some(CellView { at: place(geometry.coordinate(cell)), on })
        });
        let seats = state.config().seats().map(|seat| SeatView {
            hand: state.hand(seat),
            eliminated: state.eliminated(seat),
            territory: state.territory(seat),
        });
        Self {
            config: state.config().to_string(),
            cells: cells.collect(),
            move_number: state.move_number(),
            to_move: state.to_move().number(),
            phase: state.phase().name().to_owned(),
            seats: seats.collect(),
            last_move: None,
            winner: state.outcome().map(|outcome| outcome.winner.number()),
        }
    }

    /// The same position, with the move that led to it.
    #[must_use]
    pub fn after(mut self, mv: &Move, state: &State) -> Self {
        let geometry = state.geometry();
        let at = |cell| place(geometry.coordinate(cell));
        let text = mv.kind().name().replace('_', " ");
        self.last_move = Some(MoveView { text, from: mv.from().map(at), to: mv.to().map(at) });
        self
    }

    /// Reads what a worker sent. A worker may be any program, so whatever is not a position of the
    /// named board is dropped: a page that draws nothing is better than one that draws nonsense.
    pub fn read(value: &serde_json::Value) -> Option<Self> {
        let view = Self::deserialize(value).ok()?;
        let config: Config = view.config.parse().ok()?;
        let seats = 1..=config.players;
        let on_board = |at: &[i8; 2]| config.board.geometry().cell_at(at[0], at[1], None).is_some();
        let fits = view.seats.len() == usize::from(config.players)
            && seats.contains(&view.to_move)
            && view.winner.is_none_or(|seat| seats.contains(&seat))
            && view.cells.len() <= config.board.cell_count()
            && view.cells.iter().all(|cell| {
                on_board(&cell.at)
                    && match &cell.on {
                        On::Stack(rings) => {
                            !rings.is_empty()
                                && rings.len() <= most_rings(config.board)
                                && rings.iter().all(|seat| seats.contains(seat))
                        }
                        On::Marker(seat) | On::Collapsed(seat) => seats.contains(seat),
                    }
            })
            && view.phase.len() <= 40
            && view.last_move.as_ref().is_none_or(|mv| {
                mv.text.len() <= 80 && mv.from.iter().chain(mv.to.iter()).all(on_board)
            });
        fits.then_some(view)
    }
}

fn place(at: Coordinate) -> [i8; 2] {
    [at.x, at.y]
}

/// No stack is taller than all rings of four players.
fn most_rings(board: Board) -> usize {
    4 * usize::from(board.rings_per_player())
}

#[cfg(test)]
mod tests {
    use ringrift_rules::{Options, SplitMix64};
    use serde_json::json;

    use super::*;

    fn played(config: &str, moves: usize) -> (State, Move) {
        let mut state = State::new(config.parse().unwrap(), Options::default());
        let mut random = SplitMix64::new(5);
        let (mut legal, mut last) = (Vec::new(), None);
        for _ in 0..moves {
            state.legal_moves(&mut legal);
            let mv = legal[random.below(legal.len())];
            state.apply_legal(&mv);
            last = Some(mv);
        }
        (state, last.unwrap())
    }

    #[test]
    fn a_position_survives_the_way_through_json() {
        for config in ["hex8_2p", "square8_2p", "hexagonal_4p"] {
            let (state, last) = played(config, 60);
            let view = BoardView::of(&state).after(&last, &state);
            let text = serde_json::to_value(&view).unwrap();
            assert_eq!(BoardView::read(&text), Some(view), "{text}");
        }
    }

    #[test]
    fn what_is_no_position_is_dropped() {
        let (state, _) = played("hex8_2p", 60);
        let good = serde_json::to_value(BoardView::of(&state)).unwrap();
        let broken = |path: &str, value: serde_json::Value| {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value;
            assert_eq!(BoardView::read(&bad), None, "{path}");
        };
        broken("/config", json!("chess"));
        broken("/to_move", json!(3));
        broken("/cells/0/at", json!([9, 9]));
        broken("/cells/0", json!({"at": [0, 0], "stack": []}));
        broken("/cells/0", json!({"at": [0, 0], "stack": [1, 7]}));
        broken("/cells/0", json!({"at": [0, 0], "script": "x"}));
        broken("/seats", json!([]));
        broken("/phase", json!("x".repeat(41)));
        assert!(BoardView::read(&good).is_some());
        assert_eq!(BoardView::read(&json!(null)), None);
    }
}

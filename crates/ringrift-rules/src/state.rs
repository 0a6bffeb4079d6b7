//! A position: board, counters, turn, and the changes that rules are made of.

pub(crate) mod hash;

use crate::config::{Board, Config, Options, Seat};
use crate::geometry::{CellId, Geometry, Symmetry};
use crate::stack::{Stack, StackView, Stacks};
use crate::victory::Outcome;
use alloc::boxed::Box;
use alloc::vec;
#[cfg(feature = "json")]
use alloc::vec::Vec;

/// Phase of a turn (section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the phase of the same name in section 3")]
pub enum Phase {
    RingPlacement,
    Movement,
    Capture,
    ChainCapture,
    LineProcessing,
    TerritoryProcessing,
    ForcedElimination,
    GameOver,
}

impl Phase {
    /// All phases, in the order of a turn.
    pub const ALL: [Self; 8] = [
        Self::RingPlacement,
        Self::Movement,
        Self::Capture,
        Self::ChainCapture,
        Self::LineProcessing,
        Self::TerritoryProcessing,
        Self::ForcedElimination,
        Self::GameOver,
    ];

    /// Name in records, for example `ring_placement`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingPlacement => "ring_placement",
            Self::Movement => "movement",
            Self::Capture => "capture",
            Self::ChainCapture => "chain_capture",
            Self::LineProcessing => "line_processing",
            Self::TerritoryProcessing => "territory_processing",
            Self::ForcedElimination => "forced_elimination",
            Self::GameOver => "game_over",
        }
    }
}

impl core::fmt::Display for Phase {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// What is on a cell.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// Nothing.
    Empty,
    /// A marker of a player.
    Marker(Seat),
    /// A stack of rings.
    Stack(StackView<'a>),
    /// Territory of a player; nothing enters it any more.
    Collapsed(Seat),
}

/// Who was able to act in the running round, and for how long only one was (section 13.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LastPlayerStanding {
    /// Seat whose turn opens a round.
    pub first: Option<Seat>,
    /// By seat: whether it had a real action at its turn in this round; `None` = no turn yet.
    pub acted: [Option<bool>; 4],
    /// Only seat with real actions in the last full rounds.
    pub candidate: Option<Seat>,
    /// Number of those rounds.
    pub streak: u8,
}

/// Numbers that end the game; a position read from JSON may bring its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Rings of one colour in all.
    pub(crate) rings_per_player: u16,
    /// `V`.
    pub(crate) ring_victory: u32,
    /// `Tmin`.
    pub(crate) territory: u32,
}

/// Counters by seat. All but `hand` and `eliminated` follow from the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) hand: [u16; 4],
    pub(crate) eliminated: [u16; 4],
    pub(crate) territory: [u16; 4],
    pub(crate) markers: [u16; 4],
    pub(crate) controlled: [u16; 4],
    pub(crate) on_board: [u16; 4],
}

/// Where in a turn the game is, and what later moves must know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, none excludes another"
)]
pub(crate) struct Turn {
    pub(crate) seat: Seat,
    pub(crate) phase: Phase,
    /// Stack that received a ring this turn: only it may move.
    pub(crate) must_move: Option<CellId>,
    /// Stack that may capture (phase capture) or must (chain capture).
    pub(crate) attacker: Option<CellId>,
    pub(crate) line_payment: bool,
    /// A processed region awaits its payment. Its cells are all collapsed, so every stack that is
    /// left stands outside of it and the region itself need not be kept.
    pub(crate) region_payment: bool,
    /// The player changed the board this turn.
    pub(crate) acted: bool,
    /// The player made a recovery slide this turn.
    pub(crate) recovered: bool,
    /// Moves made so far.
    pub(crate) moves: u32,
    /// Whether seats 1 and 2 have made any move, and the swap was used (pie rule).
    pub(crate) moved: [bool; 2],
    pub(crate) swapped: bool,
    pub(crate) lps: LastPlayerStanding,
    /// Number of the move after whose turn a seat was found without any ring, for the ranking.
    pub(crate) gone: [Option<u32>; 4],
    pub(crate) outcome: Option<Outcome>,
}

/// Cell codes: 0 empty, 1-4 marker, 5-8 collapsed, from 16 on a stack in that slot.
const EMPTY: u16 = 0;
const LAST_OPEN: u16 = 4;
const COLLAPSED: u16 = 4;
const STACK: u16 = 16;

/// A position of a game.
///
/// Flat: one code per cell, a dense list of the stacks, counters by seat. A copy costs two
/// allocations, a copy over another position of the same game none, and moves none: the list has room
/// for all stacks that can ever stand. Equality is equality of positions with their turn, tracker and
/// number of moves.
#[derive(Debug)]
pub struct State {
    config: Config,
    options: Options,
    pub(crate) limits: Limits,
    pub(crate) geometry: &'static Geometry,
    codes: Box<[u16]>,
    /// Codes point into it.
    pub(crate) stacks: Stacks,
    /// Keys of all that is on the board, joined by exclusive or.
    board_hash: u64,
    pub(crate) counts: Counts,
    pub(crate) turn: Turn,
}

impl Clone for State {
    fn clone(&self) -> Self {
        Self {
            config: self.config,
            options: self.options,
            limits: self.limits,
            geometry: self.geometry,
            codes: self.codes.clone(),
            stacks: self.stacks.clone(),
            board_hash: self.board_hash,
            counts: self.counts,
            turn: self.turn.clone(),
        }
    }

    /// Copies into memory that is there: without an allocation, if that held a position of the same game.
    fn clone_from(&mut self, source: &Self) {
        let Self { config, options, limits, geometry, codes, stacks, board_hash, counts, turn } =
            source;
        self.config = *config;
        self.options = *options;
        self.limits = *limits;
        self.geometry = geometry;
        self.codes.clone_from(codes);
        self.stacks.clone_from(stacks);
        self.board_hash = *board_hash;
        self.counts = *counts;
        self.turn.clone_from(turn);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (self.config, self.options, self.limits) == (other.config, other.options, other.limits)
            && self.counts == other.counts
            && self.turn == other.turn
            && self.geometry.cells().all(|cell| match (self.stack(cell), other.stack(cell)) {
                (Some(mine), Some(theirs)) => self.stacks.are_equal(mine, &other.stacks, theirs),
                (None, None) => self.codes[cell.index()] == other.codes[cell.index()],
                _ => false,
            })
    }
}

impl Eq for State {}

impl State {
    /// The initial position: empty board, all rings in hand, seat 1 to place.
    ///
    /// # Panics
    /// If the configuration does not have 2 to 4 players.
    pub fn new(config: Config, options: Options) -> Self {
        assert!((2..=4).contains(&config.players), "a game has 2 to 4 players");
        let rings_per_player = options.rings_per_player.unwrap_or(config.board.rings_per_player());
        let mut counts = Counts::default();
        for seat in config.seats() {
            counts.hand[seat.index()] = rings_per_player;
        }
        let geometry = config.board.geometry();
        let most_stacks = usize::from(rings_per_player) * usize::from(config.players);
        Self {
            config,
            options,
            limits: Limits {
                rings_per_player,
                ring_victory: config.ring_victory(rings_per_player),
                territory: config.territory_victory(),
            },
            geometry,
            codes: vec![EMPTY; geometry.len()].into_boxed_slice(),
            stacks: Stacks::with_room(most_stacks.min(geometry.len())),
            board_hash: 0,
            counts,
            turn: Turn {
                seat: Seat::ALL[0],
                phase: Phase::RingPlacement,
                must_move: None,
                attacker: None,
                line_payment: false,
                region_payment: false,
                acted: false,
                recovered: false,
                moves: 0,
                moved: [false; 2],
                swapped: false,
                lps: LastPlayerStanding::default(),
                gone: [None; 4],
                outcome: None,
            },
        }
    }

    /// Board and number of players.
    pub const fn config(&self) -> Config {
        self.config
    }

    /// The board.
    pub const fn board(&self) -> Board {
        self.config.board
    }

    /// Cells and directions of the board.
    pub const fn geometry(&self) -> &'static Geometry {
        self.geometry
    }

    /// Options of the game.
    pub const fn options(&self) -> Options {
        self.options
    }

    /// Rings of one colour in all.
    pub const fn rings_per_player(&self) -> u16 {
        self.limits.rings_per_player
    }

    /// Eliminated rings that win, `V` of section 1.
    pub const fn ring_victory(&self) -> u32 {
        self.limits.ring_victory
    }

    /// Collapsed cells needed for a territory victory, `Tmin` of section 1.
    pub const fn territory_victory(&self) -> u32 {
        self.limits.territory
    }

    /// Phase of the turn.
    pub const fn phase(&self) -> Phase {
        self.turn.phase
    }

    /// Seat to move; without meaning when the game is over.
    pub const fn to_move(&self) -> Seat {
        self.turn.seat
    }

    /// Whether the game is over.
    pub const fn is_over(&self) -> bool {
        matches!(self.turn.phase, Phase::GameOver)
    }

    /// Result, when the game is over; none if it ended without winner, as when one of three players
    /// left it.
    pub const fn outcome(&self) -> Option<&Outcome> {
        self.turn.outcome.as_ref()
    }

    /// What is on a cell.
    #[inline]
    pub fn cell(&self, cell: CellId) -> Cell<'_> {
        let code = self.codes[cell.index()];
        match code {
            EMPTY => Cell::Empty,
            1..=4 => Cell::Marker(Seat::ALL[usize::from(code - 1)]),
            5..=8 => Cell::Collapsed(Seat::ALL[usize::from(code - COLLAPSED - 1)]),
            _ => {
                let stack = self.stacks.get(usize::from(code - STACK));
                Cell::Stack(StackView { stack, all: &self.stacks })
            }
        }
    }

    /// Rings in the hand of a seat.
    pub const fn hand(&self, seat: Seat) -> u16 {
        self.counts.hand[seat.index()]
    }

    /// Rings credited to a seat as eliminated, whatever their colour.
    pub const fn eliminated(&self, seat: Seat) -> u16 {
        self.counts.eliminated[seat.index()]
    }

    /// Collapsed cells of a seat.
    pub const fn territory(&self, seat: Seat) -> u16 {
        self.counts.territory[seat.index()]
    }

    /// Markers of a seat.
    pub const fn markers(&self, seat: Seat) -> u16 {
        self.counts.markers[seat.index()]
    }

    /// Stacks that a seat controls.
    pub const fn stacks(&self, seat: Seat) -> u16 {
        self.counts.controlled[seat.index()]
    }

    /// Rings of a seat's colour on the board, at any depth of any stack.
    pub const fn rings_on_board(&self, seat: Seat) -> u16 {
        self.counts.on_board[seat.index()]
    }

    /// Whether a ring of the seat is left in its hand or on the board.
    pub const fn has_any_ring(&self, seat: Seat) -> bool {
        self.hand(seat) > 0 || self.rings_on_board(seat) > 0
    }

    /// Stack that received a ring this turn and alone may move.
    pub const fn must_move(&self) -> Option<CellId> {
        self.turn.must_move
    }

    /// Stack that may capture (phase capture) or must go on capturing (chain capture).
    pub const fn chain_cell(&self) -> Option<CellId> {
        self.turn.attacker
    }

    /// Whether a ring is due for a line.
    pub const fn payment_pending(&self) -> bool {
        self.turn.line_payment
    }

    /// Whether rings are due for a region.
    pub const fn region_payment_pending(&self) -> bool {
        self.turn.region_payment
    }

    /// Whether the player to move has changed the board this turn.
    pub const fn acted_this_turn(&self) -> bool {
        self.turn.acted
    }

    /// Whether the player to move has made a recovery slide this turn.
    pub const fn recovered_this_turn(&self) -> bool {
        self.turn.recovered
    }

    /// Whether the swap was used (pie rule).
    pub const fn swapped(&self) -> bool {
        self.turn.swapped
    }

    /// Tracker of the last player standing.
    pub const fn last_player_standing(&self) -> &LastPlayerStanding {
        &self.turn.lps
    }

    /// Moves made so far, bookkeeping moves included.
    pub const fn move_number(&self) -> u32 {
        self.turn.moves
    }

    /// A hash of the position: what is on the board, in hand and eliminated, turn and tracker, but not the number of moves, so that
    /// positions reached in another order of moves share it. Moves keep the board's part in step.
    pub fn position_hash(&self) -> u64 {
        self.board_hash ^ hash::beside_the_board(&self.counts, &self.turn)
    }

    /// The image of the position under a symmetry of its board.
    #[must_use]
    pub fn permuted(&self, symmetry: &Symmetry) -> Self {
        let mut image = self.clone();
        for cell in self.geometry.cells() {
            image.codes[symmetry.cell(cell).index()] = self.codes[cell.index()];
        }
        image.stacks.relocate(|cell| symmetry.cell(cell));
        image.board_hash = image.recompute_board_hash();
        image.turn.must_move = self.turn.must_move.map(|cell| symmetry.cell(cell));
        image.turn.attacker = self.turn.attacker.map(|cell| symmetry.cell(cell));
        image
    }
}

/// Reading the board, for the rules.
impl State {
    pub(crate) const fn is_open_code(code: u16) -> bool {
        code <= LAST_OPEN
    }

    pub(crate) const fn is_empty_code(code: u16) -> bool {
        code == EMPTY
    }

    pub(crate) const fn is_collapsed_code(code: u16) -> bool {
        code > LAST_OPEN && code < STACK
    }

    /// What is on each cell, in order.
    pub(crate) fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// All stacks, in no particular order.
    pub(crate) fn unordered_stacks(&self) -> &[Stack] {
        self.stacks.all()
    }

    /// Whether a ring of the player lies below the top ring of a stack.
    pub(crate) fn buries(&self, stack: &Stack, seat: Seat) -> bool {
        stack.buries(seat, &self.stacks)
    }

    /// Neither a stack nor collapsed: may be passed and landed on.
    pub(crate) fn is_open(&self, cell: CellId) -> bool {
        self.codes[cell.index()] <= LAST_OPEN
    }

    pub(crate) fn is_empty(&self, cell: CellId) -> bool {
        self.codes[cell.index()] == EMPTY
    }

    pub(crate) fn is_collapsed(&self, cell: CellId) -> bool {
        (LAST_OPEN + 1..STACK).contains(&self.codes[cell.index()])
    }

    pub(crate) fn has_marker(&self, cell: CellId) -> bool {
        (1..=LAST_OPEN).contains(&self.codes[cell.index()])
    }

    pub(crate) fn has_marker_of(&self, cell: CellId, seat: Seat) -> bool {
        self.codes[cell.index()] == u16::from(seat.number())
    }

    pub(crate) fn stack(&self, cell: CellId) -> Option<&Stack> {
        let slot = self.codes[cell.index()].checked_sub(STACK)?;
        Some(self.stacks.get(usize::from(slot)))
    }

    /// All stacks, in the order of their cells.
    pub(crate) fn all_stacks(&self) -> impl Iterator<Item = &Stack> {
        self.codes
            .iter()
            .filter_map(|code| code.checked_sub(STACK))
            .map(|slot| self.stacks.get(usize::from(slot)))
    }

    /// Stacks that a seat controls, in the order of their cells.
    pub(crate) fn stacks_of(&self, seat: Seat) -> impl Iterator<Item = &Stack> {
        self.all_stacks().filter(move |stack| stack.controller() == seat)
    }

    pub(crate) const fn stack_count(&self) -> usize {
        self.stacks.count()
    }
}

/// Changing the board. Each keeps codes, stacks and counters in step.
impl State {
    /// Puts a marker on an empty cell.
    pub(crate) fn put_marker(&mut self, cell: CellId, seat: Seat) {
        debug_assert!(self.is_empty(cell));
        self.set_code(cell, u16::from(seat.number()));
        self.counts.markers[seat.index()] += 1;
    }

    /// Takes a marker off, if there is one; says whether there was.
    pub(crate) fn take_marker(&mut self, cell: CellId) -> bool {
        let Cell::Marker(owner) = self.cell(cell) else { return false };
        self.board_hash ^= hash::of_code(cell, u16::from(owner.number()));
        self.codes[cell.index()] = EMPTY;
        self.counts.markers[owner.index()] -= 1;
        true
    }

    /// Collapses a cell without a stack, whatever marker it holds.
    pub(crate) fn collapse(&mut self, cell: CellId, seat: Seat) {
        debug_assert!(self.is_open(cell));
        self.take_marker(cell);
        self.set_code(cell, COLLAPSED + u16::from(seat.number()));
        self.counts.territory[seat.index()] += 1;
    }

    /// Lifts the stack of a cell, which is empty then.
    pub(crate) fn lift(&mut self, cell: CellId) -> Option<Stack> {
        let slot = usize::from(self.codes[cell.index()].checked_sub(STACK)?);
        let (stack, moved) = self.stacks.take(slot);
        self.board_hash ^= stack.key(&self.stacks);
        self.codes[cell.index()] = EMPTY;
        if let Some(moved) = moved {
            self.codes[moved.index()] = Self::stack_code(slot);
        }
        self.counts.controlled[stack.controller().index()] -= 1;
        Some(stack)
    }

    /// Puts a stack on an empty cell; a stack without rings is gone.
    pub(crate) fn put(&mut self, cell: CellId, mut stack: Stack) {
        debug_assert!(self.is_empty(cell));
        if stack.height() == 0 {
            return;
        }
        stack.cell = cell;
        self.board_hash ^= stack.key(&self.stacks);
        self.counts.controlled[stack.controller().index()] += 1;
        let slot = self.stacks.push(stack);
        self.codes[cell.index()] = Self::stack_code(slot);
    }

    /// Writes the code of a marker or a collapsed cell over an empty one.
    fn set_code(&mut self, cell: CellId, code: u16) {
        self.board_hash ^= hash::of_code(cell, code);
        self.codes[cell.index()] = code;
    }

    fn recompute_board_hash(&self) -> u64 {
        let codes = self.geometry.cells().zip(&self.codes);
        let plain = codes.filter(|(_, code)| (EMPTY + 1..STACK).contains(*code));
        let keys = plain.map(|(cell, &code)| hash::of_code(cell, code));
        let stacks = self.stacks.all().iter().map(|stack| stack.key(&self.stacks));
        keys.chain(stacks).fold(0, |hash, key| hash ^ key)
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 469 stacks and 10,000 rings")]
    const fn stack_code(slot: usize) -> u16 {
        STACK + slot as u16
    }

    /// Makes room for all stacks that can ever stand, so that moves need not: only placing makes new ones.
    #[cfg(feature = "json")]
    pub(crate) fn reserve(&mut self) {
        let hands: usize = self.counts.hand.iter().map(|hand| usize::from(*hand)).sum();
        self.stacks.reserve(hands.min(self.codes.len() - self.stacks.count()));
    }

    /// Changes the stack of a cell, which may vanish by that. Nothing happens without a stack.
    pub(crate) fn change(&mut self, cell: CellId, change: impl FnOnce(&mut Self, &mut Stack)) {
        if let Some(mut stack) = self.lift(cell) {
            change(self, &mut stack);
            self.put(cell, stack);
        }
    }

    /// Books rings of one colour that left the board, credited to the player to move.
    pub(crate) fn eliminate(&mut self, colour: Seat, count: u16) {
        self.counts.on_board[colour.index()] -= count;
        self.counts.eliminated[self.turn.seat.index()] += count;
    }

    /// Sets up the stacks of a position that is read from outside; their cells are empty and differ.
    #[cfg(feature = "json")]
    pub(crate) fn set_up_stacks(&mut self, bottom_first: &[(CellId, Vec<Seat>)]) {
        for (cell, rings) in bottom_first {
            self.stacks.set_up_upper(*cell, rings);
        }
        for (cell, rings) in bottom_first {
            for ring in rings {
                self.counts.on_board[ring.index()] += 1;
            }
            self.put(*cell, Stack::from_bottom(*cell, rings, &self.stacks));
        }
    }
}

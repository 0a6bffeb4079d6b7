//! The rules a second time: slow, obvious, straight from the text of the specification.
//!
//! Maps and lists; cells are pairs of numbers, moves are their notation. Nothing is shared with the
//! engine but the types that cross its border: configuration, options, positions as JSON.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::struct_excessive_bools,
    reason = "obvious before careful: the numbers of a board are small"
)]

mod capture;
pub(crate) mod compare;
pub(crate) mod counts;
mod lines;
pub(crate) mod positions;
mod recovery;
mod territory;
mod turn;
mod victory;

use std::collections::{BTreeMap, BTreeSet};

use ringrift_rules::json::{BoardText, Position, SwapText, TrackerText};
use ringrift_rules::{Board, Config, Options};

/// (x, y); z of a hexagon is -x-y.
pub(crate) type Cell = (i8, i8);

/// Tracker of section 13.3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tracker {
    first: Option<u8>,
    mask: BTreeMap<u8, bool>,
    candidate: Option<u8>,
    streak: u8,
}

/// A position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Oracle {
    config: Config,
    options: Options,
    hand: BTreeMap<u8, u16>,
    eliminated: BTreeMap<u8, u16>,
    /// Rings top first.
    stacks: BTreeMap<Cell, Vec<u8>>,
    markers: BTreeMap<Cell, u8>,
    collapsed: BTreeMap<Cell, u8>,
    player: u8,
    phase: &'static str,
    must_move: Option<Cell>,
    landing: Option<Cell>,
    chain: Option<Cell>,
    line_payment: bool,
    region_payment: bool,
    acted: bool,
    recovered: bool,
    first_moved: bool,
    second_moved: bool,
    swapped: bool,
    tracker: Tracker,
    result: Option<(u8, &'static str)>,
}

const PHASES: [&str; 7] = [
    "ring_placement",
    "movement",
    "capture",
    "chain_capture",
    "line_processing",
    "territory_processing",
    "forced_elimination",
];

// ---- boards and numbers (section 1)

impl Oracle {
    fn is_hex(&self) -> bool {
        matches!(self.config.board, Board::Hex8 | Board::Hexagonal)
    }

    fn on_board(&self, (x, y): Cell) -> bool {
        match self.config.board {
            Board::Square8 => (0..8).contains(&x) && (0..8).contains(&y),
            Board::Square19 => (0..19).contains(&x) && (0..19).contains(&y),
            Board::Hex8 => x.abs().max(y.abs()).max((-x - y).abs()) <= 4,
            Board::Hexagonal => x.abs().max(y.abs()).max((-x - y).abs()) <= 12,
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for x in -12..19 {
            for y in -12..19 {
                if self.on_board((x, y)) {
                    cells.push((x, y));
                }
            }
        }
        cells
    }

    fn directions(&self) -> Vec<Cell> {
        if self.is_hex() {
            vec![(1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)]
        } else {
            vec![(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
        }
    }

    fn axes(&self) -> Vec<Cell> {
        if self.is_hex() {
            vec![(1, 0), (1, -1), (0, -1)]
        } else {
            vec![(1, 0), (0, 1), (1, 1), (1, -1)]
        }
    }

    fn neighbours(&self, (x, y): Cell) -> Vec<Cell> {
        let all = self.directions().into_iter().map(|(dx, dy)| (x + dx, y + dy));
        all.filter(|cell| self.on_board(*cell)).collect()
    }

    fn territory_neighbours(&self, (x, y): Cell) -> Vec<Cell> {
        if self.is_hex() {
            return self.neighbours((x, y));
        }
        let all = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)];
        all.into_iter().filter(|cell| self.on_board(*cell)).collect()
    }

    fn seats(&self) -> Vec<u8> {
        (1..=self.config.players).collect()
    }

    fn rings_per_player(&self) -> u16 {
        let usual = match self.config.board {
            Board::Square8 | Board::Hex8 => 18,
            Board::Square19 => 72,
            Board::Hexagonal => 96,
        };
        self.options.rings_per_player.unwrap_or(usual)
    }

    fn line_length(&self) -> usize {
        match (self.config.board, self.config.players) {
            (Board::Square8 | Board::Hex8, 3 | 4) => 3,
            _ => 4,
        }
    }

    fn detection_length(&self) -> usize {
        if self.config.board == Board::Square8 { 3 } else { 4 }
    }

    pub(crate) fn key(&self, (x, y): Cell) -> String {
        if self.is_hex() { format!("{x},{y},{}", -x - y) } else { format!("{x},{y}") }
    }

    fn keys(&self, cells: &[Cell]) -> String {
        let sorted: BTreeSet<Cell> = cells.iter().copied().collect();
        sorted.into_iter().map(|cell| self.key(cell)).collect::<Vec<_>>().join(" ")
    }
}

// ---- state (section 2)

impl Oracle {
    fn controller(&self, cell: Cell) -> Option<u8> {
        self.stacks.get(&cell).map(|rings| rings[0])
    }

    fn cap(rings: &[u8]) -> usize {
        rings.iter().take_while(|ring| **ring == rings[0]).count()
    }

    fn is_buried_in(player: u8, rings: &[u8]) -> bool {
        rings[1..].contains(&player)
    }

    fn controlled(&self, player: u8) -> Vec<Cell> {
        let own = self.stacks.iter().filter(|(_, rings)| rings[0] == player);
        own.map(|(cell, _)| *cell).collect()
    }

    fn colour_on_board(&self, player: u8) -> usize {
        self.stacks.values().flatten().filter(|ring| **ring == player).count()
    }

    fn has_any_ring(&self, player: u8) -> bool {
        self.hand[&player] > 0 || self.colour_on_board(player) > 0
    }

    fn territory(&self, player: u8) -> usize {
        self.collapsed.values().filter(|owner| **owner == player).count()
    }

    fn own_markers(&self, player: u8) -> Vec<Cell> {
        self.markers.iter().filter(|(_, owner)| **owner == player).map(|(cell, _)| *cell).collect()
    }

    fn is_recovery_eligible(&self, player: u8) -> bool {
        self.controlled(player).is_empty()
            && !self.own_markers(player).is_empty()
            && self.stacks.values().any(|rings| Self::is_buried_in(player, rings))
    }

    /// Removes a ring, credited to the player to move; a stack without rings is gone.
    fn eliminate(&mut self, cell: Cell, from_top: usize) {
        if let Some(rings) = self.stacks.get_mut(&cell) {
            rings.remove(from_top);
            if rings.is_empty() {
                self.stacks.remove(&cell);
            }
            *self.eliminated.get_mut(&self.player).unwrap() += 1;
        }
    }

    fn eliminate_cap(&mut self, cell: Cell) {
        for _ in 0..Self::cap(&self.stacks[&cell]) {
            self.eliminate(cell, 0);
        }
    }

    /// Takes the player's bottom-most ring of a stack.
    fn extract(&mut self, cell: Cell) {
        let found = self
            .stacks
            .get(&cell)
            .and_then(|rings| rings.iter().rposition(|ring| *ring == self.player));
        if let Some(from_top) = found {
            self.eliminate(cell, from_top);
        }
    }

    fn collapse(&mut self, cell: Cell) {
        self.markers.remove(&cell);
        self.collapsed.insert(cell, self.player);
    }
}

// ---- positions in and out

impl Oracle {
    /// A position that the engine has accepted.
    pub(crate) fn of(position: &Position, config: Config, options: Options) -> Self {
        let cell = |key: &String| -> Cell {
            let mut numbers = key.split(',').map(|number| number.parse::<i8>().unwrap());
            (numbers.next().unwrap(), numbers.next().unwrap())
        };
        let by_seat = |numbers: &[u16]| (1u8..).zip(numbers.iter().copied()).collect();
        let swap = position.swap.clone().unwrap_or_default();
        let lps = position.lps.clone().unwrap_or_default();
        let seat = |number: u8| (number > 0).then_some(number);
        Self {
            config,
            options,
            hand: by_seat(&position.h),
            eliminated: by_seat(&position.e),
            stacks: position.board.stacks.iter().map(|(k, v)| (cell(k), v.clone())).collect(),
            markers: position.board.markers.iter().map(|(k, v)| (cell(k), *v)).collect(),
            collapsed: position.board.collapsed.iter().map(|(k, v)| (cell(k), *v)).collect(),
            player: position.pl,
            phase: PHASES.into_iter().find(|phase| *phase == position.ph).unwrap(),
            must_move: position.must.as_ref().map(cell),
            landing: position.land.as_ref().map(cell),
            chain: position.chain.as_ref().map(cell),
            line_payment: position.pay != 0,
            region_payment: position.region.is_some(),
            acted: position.acted != 0,
            recovered: position.recovered != 0,
            first_moved: swap.p1moved != 0,
            second_moved: swap.p2moved != 0,
            swapped: swap.used != 0,
            tracker: Tracker {
                first: seat(lps.first),
                mask: lps.mask.iter().map(|(k, v)| (k.parse().unwrap(), *v != 0)).collect(),
                candidate: seat(lps.cand),
                streak: lps.streak,
            },
            result: None,
        }
    }

    /// Everything that the engine keeps too.
    pub(crate) fn position(&self) -> Position {
        let key = |cell: Option<Cell>| cell.map(|cell| self.key(cell));
        let tracker = &self.tracker;
        Position {
            pl: self.player,
            ph: self.phase.to_owned(),
            h: self.hand.values().copied().collect(),
            e: self.eliminated.values().copied().collect(),
            t: self.seats().iter().map(|seat| self.territory(*seat) as u16).collect(),
            pay: self.line_payment.into(),
            board: BoardText {
                stacks: self.stacks.iter().map(|(c, v)| (self.key(*c), v.clone())).collect(),
                markers: self.markers.iter().map(|(c, v)| (self.key(*c), *v)).collect(),
                collapsed: self.collapsed.iter().map(|(c, v)| (self.key(*c), *v)).collect(),
            },
            acted: self.acted.into(),
            recovered: self.recovered.into(),
            must: key(self.must_move),
            land: key(self.landing),
            chain: key(self.chain),
            region: self.region_payment.then(Vec::new),
            swap: self.options.swap_rule.then(|| SwapText {
                p1moved: self.first_moved.into(),
                p2moved: self.second_moved.into(),
                used: self.swapped.into(),
            }),
            lps: tracker.first.map(|first| TrackerText {
                first,
                mask: tracker.mask.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect(),
                cand: tracker.candidate.unwrap_or(0),
                streak: tracker.streak,
            }),
        }
    }

    /// Winner and reason, when the game is over.
    pub(crate) fn result(&self) -> Option<(u8, &'static str)> {
        self.result
    }
}

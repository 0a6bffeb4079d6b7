//! Positions that no game need reach: what two readings of the rules differ on.

use std::collections::BTreeMap;

use ringrift_rules::json::{BoardText, Position, SwapText, TrackerText};
use ringrift_rules::{Config, Geometry, Options, Seat, SplitMix64};

/// A position with the game that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) config: Config,
    pub(crate) options: Options,
    pub(crate) position: Position,
}

struct Maker<'a> {
    config: Config,
    geometry: &'static Geometry,
    random: &'a mut SplitMix64,
    board: BoardText,
    /// Seats that still have anything on the board.
    living: Vec<u8>,
}

/// Makes a case: a random mixture of what is dangerous.
pub(crate) fn make(config: Config, random: &mut SplitMix64) -> Case {
    let mut living: Vec<u8> = (1..=config.players).collect();
    // Every third position has seats that are gone, but for their territory.
    while living.len() > 1 && random.below(3) == 0 {
        living.remove(random.below(living.len()));
    }
    let geometry = config.board.geometry();
    let mut maker = Maker { config, geometry, random, board: BoardText::default(), living };
    for _ in 0..=maker.random.below(3) {
        match maker.random.below(6) {
            0 => maker.walls(),
            1 => maker.runs(),
            2 => maker.towers(),
            3 => maker.ruins(),
            4 => maker.bare_player(),
            _ => maker.scatter(),
        }
    }
    maker.finish()
}

impl Maker<'_> {
    fn chance(&mut self, one_in: usize) -> bool {
        self.random.below(one_in) == 0
    }

    fn cell(&mut self) -> usize {
        self.random.below(self.geometry.len())
    }

    fn key(&self, cell: usize) -> String {
        self.geometry.key(ringrift_rules::CellId::from_index(cell)).to_owned()
    }

    fn seat(&mut self) -> u8 {
        self.living[self.random.below(self.living.len())]
    }

    fn any_seat(&mut self) -> u8 {
        let players = usize::from(self.config.players);
        1 + u8::try_from(self.random.below(players)).unwrap()
    }

    fn clear(&mut self, key: &str) {
        self.board.stacks.remove(key);
        self.board.markers.remove(key);
        self.board.collapsed.remove(key);
    }

    fn marker(&mut self, cell: usize, seat: u8) {
        let key = self.key(cell);
        self.clear(&key);
        self.board.markers.insert(key, seat);
    }

    fn collapsed(&mut self, cell: usize, seat: u8) {
        let key = self.key(cell);
        self.clear(&key);
        self.board.collapsed.insert(key, seat);
    }

    fn stack(&mut self, cell: usize, rings: Vec<u8>) {
        let key = self.key(cell);
        self.clear(&key);
        self.board.stacks.insert(key, rings);
    }

    fn rings(&mut self, most: usize) -> Vec<u8> {
        let height = 1 + self.random.below(most);
        // Mostly one colour, so that caps are high.
        let main = self.seat();
        (0..height).map(|_| if self.chance(3) { self.seat() } else { main }).collect()
    }

    /// A little of everything, everywhere.
    fn scatter(&mut self) {
        let dense = 2 + self.random.below(12);
        for cell in 0..self.geometry.len() {
            match self.random.below(dense) {
                0 => {
                    let seat = self.seat();
                    self.marker(cell, seat);
                }
                1 if self.chance(2) => {
                    let rings = self.rings(4);
                    self.stack(cell, rings);
                }
                2 if self.chance(3) => {
                    let seat = self.any_seat();
                    self.collapsed(cell, seat);
                }
                _ => {}
            }
        }
    }

    /// Walls of markers or territory along rays, some twice: nested regions with stacks between.
    fn walls(&mut self) {
        let seat = self.seat();
        let collapsed = self.chance(3);
        for _ in 0..2 + self.random.below(5) {
            let at = self.cell();
            let direction = self.random.below(self.geometry.directions());
            let start = ringrift_rules::CellId::from_index(at);
            let ray = self.geometry.ray(start, u8::try_from(direction).unwrap()).to_vec();
            for cell in std::iter::once(start).chain(ray) {
                let index = cell.index();
                if self.chance(9) {
                    continue;
                }
                let owner = if self.chance(6) { self.seat() } else { seat };
                if collapsed || self.chance(8) {
                    self.collapsed(index, owner);
                } else {
                    self.marker(index, owner);
                }
            }
        }
        for _ in 0..=self.random.below(6) {
            let at = self.cell();
            let rings = self.rings(3);
            self.stack(at, rings);
        }
    }

    /// Runs of markers of one colour that cross each other, with gaps: lines, now or after a slide.
    fn runs(&mut self) {
        let seat = self.seat();
        for _ in 0..=self.random.below(4) {
            let start = ringrift_rules::CellId::from_index(self.cell());
            let axis = self.geometry.axes()[self.random.below(self.geometry.axes().len())];
            let length = 2 + self.random.below(6);
            let ray: Vec<_> = self.geometry.ray(start, axis).iter().copied().take(length).collect();
            for cell in std::iter::once(start).chain(ray) {
                if !self.chance(7) {
                    self.marker(cell.index(), seat);
                }
            }
        }
    }

    /// Tall stacks of many colours.
    fn towers(&mut self) {
        for _ in 0..=self.random.below(8) {
            let at = self.cell();
            let most = if self.chance(6) { 80 } else { 12 };
            let rings = self.rings(most);
            self.stack(at, rings);
        }
    }

    /// Nearly all collapsed: players who are blocked, bare boards.
    fn ruins(&mut self) {
        for cell in 0..self.geometry.len() {
            if !self.chance(5) {
                let seat = self.any_seat();
                self.collapsed(cell, seat);
            }
        }
        for _ in 0..self.random.below(4) {
            let at = self.cell();
            let rings = self.rings(3);
            self.stack(at, rings);
        }
    }

    /// A player with markers and buried rings and no stack: recovery.
    fn bare_player(&mut self) {
        let seat = self.seat();
        self.runs();
        for _ in 0..2 + self.random.below(8) {
            let at = self.cell();
            self.marker(at, seat);
        }
        for rings in self.board.stacks.values_mut() {
            if rings[0] == seat {
                rings.insert(0, seat % self.config.players + 1);
            }
        }
        for _ in 0..=self.random.below(3) {
            let other = seat % self.config.players + 1;
            let at = self.cell();
            let mut rings = vec![other];
            for _ in 0..=self.random.below(3) {
                rings.push(if self.chance(2) { seat } else { other });
            }
            self.stack(at, rings);
        }
    }

    fn finish(mut self) -> Case {
        let players = usize::from(self.config.players);
        let usual = self.config.board.rings_per_player();
        let options = Options {
            swap_rule: self.chance(4),
            rings_per_player: if self.chance(5) {
                Some(3 + self.random.below(9) as u16)
            } else {
                None
            },
            lps_rounds: 1 + self.random.below(3) as u8,
        };
        let rings = options.rings_per_player.unwrap_or(usual);
        let mut hands = vec![0u16; players];
        let mut eliminated = vec![0u16; players];
        for seat in self.living.clone() {
            let index = usize::from(seat) - 1;
            if !self.chance(3) {
                hands[index] = self.random.below(usize::from(rings) / 2 + 2) as u16;
            }
        }
        for count in &mut eliminated {
            *count = self.random.below(usize::from(rings)) as u16;
        }
        let seat = self.seat();
        let board = std::mem::take(&mut self.board);
        let who = Seat::new(seat).unwrap();
        let mut position = Position::at_turn_start(who, &hands, &eliminated, board);
        self.turn(&mut position);
        Case { config: self.config, options, position }
    }

    /// A point of the turn, with a memory that fits it.
    fn turn(&mut self, position: &mut Position) {
        let phases = ["ring_placement", "movement", "line_processing", "territory_processing"];
        phases[self.random.below(4)].clone_into(&mut position.ph);
        let own: Vec<String> = position
            .board
            .stacks
            .iter()
            .filter(|(_, rings)| rings[0] == position.pl)
            .map(|(key, _)| key.clone())
            .collect();
        match position.ph.as_str() {
            "ring_placement" => {}
            "movement" => {
                if !own.is_empty() && self.chance(3) {
                    position.must = Some(own[self.random.below(own.len())].clone());
                    position.acted = 1;
                }
            }
            phase => {
                position.acted = u8::from(!self.chance(3));
                position.recovered = u8::from(position.acted == 1 && self.chance(3));
                let pays = !own.is_empty() && position.acted == 1 && self.chance(4);
                if pays && phase == "line_processing" {
                    position.pay = 1;
                } else if pays && position.recovered == 0 {
                    position.region = Some(Vec::new());
                }
            }
        }
        position.swap = Some(SwapText {
            p1moved: 1,
            p2moved: u8::from(self.chance(2)),
            used: u8::from(self.chance(4)),
        });
        if !self.chance(3) {
            let mut mask = BTreeMap::new();
            for seat in 1..=self.config.players {
                if !self.chance(3) {
                    mask.insert(seat.to_string(), u8::from(self.chance(3)));
                }
            }
            let candidate = if self.chance(2) { self.any_seat() } else { 0 };
            let streak = if candidate == 0 { 0 } else { 1 + self.random.below(3) as u8 };
            position.lps =
                Some(TrackerText { first: self.any_seat(), mask, cand: candidate, streak });
        }
    }
}

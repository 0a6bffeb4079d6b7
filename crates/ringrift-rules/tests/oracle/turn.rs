//! Moves, the legal ones of each phase, and the turn state machine (sections 3, 4, 10 to 12).

use super::{Cell, Oracle};

/// A move, with what is needed to make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Place(Cell, u16),
    /// Moves without cells, by their notation.
    Word(&'static str),
    Walk(Cell, Cell),
    Capture(Cell, Cell, Cell),
    Continue(Cell, Cell, Cell),
    /// Mode, from, to, and who pays or what collapses.
    Recover(&'static str, Cell, Cell, Price),
    Line(Vec<Cell>),
    LineOption(Vec<Cell>, Vec<Cell>),
    Pay(&'static str, Cell),
    Region(Vec<Cell>),
    GiveUp(Cell),
}

/// What a recovery slide costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Price {
    Ring(Cell),
    Free(Vec<Cell>),
}

fn fnv64(text: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

impl Oracle {
    /// The notation of a move.
    pub(crate) fn text(&self, action: &Action) -> String {
        let key = |cell: &Cell| self.key(*cell);
        match action {
            Action::Place(to, count) => format!("P {} {count}", key(to)),
            Action::Word(word) => (*word).to_owned(),
            Action::Walk(from, to) => format!("M {}>{}", key(from), key(to)),
            Action::Capture(from, target, to) => {
                format!("C {}*{}>{}", key(from), key(target), key(to))
            }
            Action::Continue(from, target, to) => {
                format!("K {}*{}>{}", key(from), key(target), key(to))
            }
            Action::Recover(mode, from, to, Price::Ring(payer)) => {
                format!("R {mode} {}>{} 1 x{}", key(from), key(to), key(payer))
            }
            Action::Recover(mode, from, to, Price::Free(cells)) => {
                format!("R {mode} {}>{} 2 x {}", key(from), key(to), self.keys(cells))
            }
            Action::Line(cells) => format!("L {}", self.keys(cells)),
            Action::LineOption(line, collapse) => {
                format!("O {} / {}", self.keys(line), self.keys(collapse))
            }
            Action::Pay(context, cell) => format!("E {context} {}", key(cell)),
            Action::Region(cells) => {
                let keys = self.keys(cells);
                let first = cells.iter().min().unwrap();
                format!("T {} {} {:016x}", key(first), cells.len(), fnv64(&keys))
            }
            Action::GiveUp(cell) => format!("F {}", key(cell)),
        }
    }

    /// All legal moves with their notation, sorted by it.
    pub(crate) fn legal(&self) -> Vec<(String, Action)> {
        let mut texts: Vec<(String, Action)> =
            self.actions().into_iter().map(|action| (self.text(&action), action)).collect();
        texts.sort_by(|a, b| a.0.cmp(&b.0));
        texts
    }

    fn actions(&self) -> Vec<Action> {
        if self.result.is_some() {
            return Vec::new();
        }
        let own = || self.controlled(self.player).into_iter();
        match self.phase {
            "ring_placement" => self.placements(),
            "movement" => self.movements(),
            "capture" => {
                let from = self.landing.unwrap();
                let segments = self.segments(from).into_iter();
                let mut list: Vec<Action> =
                    segments.map(|(target, to)| Action::Capture(from, target, to)).collect();
                list.push(Action::Word("SC"));
                list
            }
            "chain_capture" => {
                let from = self.chain.unwrap();
                let segments = self.segments(from).into_iter();
                segments.map(|(target, to)| Action::Continue(from, target, to)).collect()
            }
            "line_processing" if self.line_payment => {
                own().map(|cell| Action::Pay("line", cell)).collect()
            }
            "line_processing" => self.line_decisions(),
            "territory_processing" if self.region_payment && self.recovered => {
                self.payers().into_iter().map(|cell| Action::Pay("recovery", cell)).collect()
            }
            "territory_processing" if self.region_payment => {
                own().map(|cell| Action::Pay("territory", cell)).collect()
            }
            "territory_processing" => {
                let regions = self.regions();
                let word = if regions.is_empty() { "NT" } else { "ST" };
                let mut list: Vec<Action> = regions.into_iter().map(Action::Region).collect();
                list.push(Action::Word(word));
                list
            }
            "forced_elimination" => own().map(Action::GiveUp).collect(),
            other => panic!("no phase {other}"),
        }
    }

    // ---- placement (section 4)

    fn placements(&self) -> Vec<Action> {
        let mut list = Vec::new();
        for cell in self.cells() {
            if !self.may_place(self.player, cell, 1) {
                continue;
            }
            for count in 1..=3 {
                if self.may_place(self.player, cell, count) {
                    list.push(Action::Place(cell, count));
                }
            }
        }
        if self.may_skip_placement() {
            list.push(Action::Word("SP"));
        }
        if list.is_empty() {
            list.push(Action::Word("NP"));
        }
        let swap = self.options.swap_rule
            && self.config.players == 2
            && self.player == 2
            && self.first_moved
            && !self.second_moved
            && !self.swapped;
        if swap {
            list.push(Action::Word("SW"));
        }
        list
    }

    /// Each count judged by itself.
    pub(super) fn may_place(&self, player: u8, cell: Cell, count: u16) -> bool {
        let left =
            usize::from(self.rings_per_player()).saturating_sub(self.colour_on_board(player));
        if count < 1 || count > self.hand[&player] || usize::from(count) > left {
            return false;
        }
        if self.collapsed.contains_key(&cell) || self.markers.contains_key(&cell) {
            return false;
        }
        if count > if self.stacks.contains_key(&cell) { 1 } else { 3 } {
            return false;
        }
        let mut then = self.clone();
        let rings = then.stacks.entry(cell).or_default();
        for _ in 0..count {
            rings.insert(0, player);
        }
        then.can_move_or_capture(cell)
    }

    fn may_skip_placement(&self) -> bool {
        let own = self.controlled(self.player);
        let able = own.iter().any(|cell| self.can_move_or_capture(*cell));
        self.hand[&self.player] > 0
            && (able || own.is_empty() && self.is_recovery_eligible(self.player))
    }

    // ---- movement phase

    fn movements(&self) -> Vec<Action> {
        let mut list = Vec::new();
        for from in self.controlled(self.player) {
            if self.must_move.is_some_and(|must| must != from) {
                continue;
            }
            list.extend(self.walks(from).into_iter().map(|to| Action::Walk(from, to)));
            let segments = self.segments(from).into_iter();
            list.extend(segments.map(|(target, to)| Action::Capture(from, target, to)));
        }
        if self.is_recovery_eligible(self.player) {
            list.extend(self.slides());
            list.push(Action::Word("SR"));
        }
        if list.is_empty() {
            list.push(Action::Word("NM"));
        }
        list
    }

    // ---- making moves

    /// Makes a legal move.
    pub(crate) fn make(&mut self, action: &Action) {
        match self.player {
            1 => self.first_moved = true,
            2 => self.second_moved = true,
            _ => {}
        }
        match action {
            Action::Place(cell, count) => {
                let player = self.player;
                let rings = self.stacks.entry(*cell).or_default();
                for _ in 0..*count {
                    rings.insert(0, player);
                }
                *self.hand.get_mut(&player).unwrap() -= count;
                self.must_move = Some(*cell);
                self.acted = true;
                self.phase = "movement";
            }
            Action::Word("SP" | "NP") => self.phase = "movement",
            Action::Word("SW") => self.swapped = true,
            Action::Walk(from, to) => {
                self.travel(*from, None, *to);
                self.acted = true;
                if self.may_capture_on(*to) {
                    self.phase = "capture";
                    self.landing = Some(*to);
                    // The stack that received a ring stays known while its turn of moving lasts.
                    self.must_move = self.must_move.map(|_| *to);
                } else {
                    self.enter_lines();
                }
            }
            Action::Capture(from, target, to) | Action::Continue(from, target, to) => {
                self.travel(*from, Some(*target), *to);
                self.acted = true;
                self.landing = None;
                if self.may_capture_on(*to) {
                    self.phase = "chain_capture";
                    self.chain = Some(*to);
                    self.must_move = self.must_move.map(|_| *to);
                } else {
                    self.enter_lines();
                }
            }
            Action::Word("SC" | "NM" | "SR") => self.enter_lines(),
            Action::Recover(mode, from, to, price) => {
                self.slide(mode, *from, *to, price);
                self.acted = true;
                self.recovered = true;
                self.enter_lines();
            }
            Action::Line(line) => self.take_line(line, true),
            Action::LineOption(line, collapse) => self.take_line(collapse, line == collapse),
            Action::Pay("line", cell) => {
                self.eliminate(*cell, 0);
                self.acted = true;
                self.line_payment = false;
            }
            Action::Word("NL") => self.line_exit(),
            Action::Region(cells) => {
                self.take_region(cells);
                self.acted = true;
                self.region_payment = true;
            }
            Action::Pay(context, cell) => {
                if *context == "recovery" {
                    self.extract(*cell);
                } else {
                    self.eliminate_cap(*cell);
                }
                self.acted = true;
                self.region_payment = false;
                if self.regions().is_empty() {
                    self.end_turn();
                }
            }
            Action::Word("ST" | "NT") => {
                if !self.acted && !self.controlled(self.player).is_empty() {
                    self.phase = "forced_elimination";
                } else {
                    self.end_turn();
                }
            }
            Action::GiveUp(cell) => {
                self.eliminate_cap(*cell);
                self.acted = true;
                self.end_turn();
            }
            Action::Word(other) => panic!("no move {other}"),
        }
    }

    fn may_capture_on(&self, cell: Cell) -> bool {
        self.controller(cell) == Some(self.player) && !self.segments(cell).is_empty()
    }

    fn enter_lines(&mut self) {
        self.must_move = None;
        self.landing = None;
        self.chain = None;
        self.phase = "line_processing";
    }

    pub(super) fn line_exit(&mut self) {
        let region = !self.regions().is_empty();
        let blocked = !self.acted && !self.controlled(self.player).is_empty();
        self.phase = if !region && blocked { "forced_elimination" } else { "territory_processing" };
    }

    /// Section 12.
    fn end_turn(&mut self) {
        if let Some(result) = self.victory(self.player) {
            self.result = Some(result);
            return;
        }
        let players = self.config.players;
        let mut next = self.player % players + 1;
        while !self.has_any_ring(next) {
            next = next % players + 1;
        }
        self.player = next;
        self.phase = "ring_placement";
        self.must_move = None;
        self.landing = None;
        self.chain = None;
        self.line_payment = false;
        self.region_payment = false;
        self.acted = false;
        self.recovered = false;
        self.track();
    }
}

//! Numbers of the features of a position, as one seat sees it.

use ringrift_rules::{Cell, CellId, Config, Phase, Seat, StackView, State, Symmetry};

/// Heights 1 to 5, and 6 for more. Source: spec/learning.md section 3.4.
pub(super) const HEIGHTS: usize = 6;
/// Caps 1 to 3, and 4 for more. Source: as above.
pub(super) const CAPS: usize = 4;
/// Buried rings of one colour in a stack: 1, 2, more.
const BURIED: usize = 3;
/// Tactical facts about a stack: an other player can capture it, it can capture an other player's, it can go nowhere.
pub(super) const TACTICS: usize = 3;
/// Longest run of own markers through a marker: 2, more.
const RUNS: usize = 2;
/// A counter switches on one feature per threshold reached, in 18ths of the number that counts (rings of a player, or what wins):
/// finer where a game is about to end.
const HAND: [u32; 12] = [1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 17, 18];
const PROGRESS: [u32; 12] = [1, 2, 4, 6, 8, 10, 12, 13, 14, 15, 16, 17];
/// Rounds that one player was the only one able to act: 1, 2, more.
const STREAKS: usize = 3;
/// Yes-or-no facts about the turn: line payment due, region payment due, acted, recovered, swapped.
const FLAGS: usize = 5;

/// Where each kind of feature begins.
///
/// Owners are relative: 0 is the seat that looks, 1 the next one. Cells come first, each with the same facts in the same order.
#[derive(Debug, Clone)]
pub(super) struct FeatureLayout {
    players: usize,
    cells: usize,
    /// Facts per cell.
    stride: usize,
    hand: usize,
    eliminated: usize,
    territory: usize,
    streak: usize,
    phase: usize,
    flags: usize,
    total: usize,
}

impl FeatureLayout {
    pub(super) fn new(config: Config) -> Self {
        let players = usize::from(config.players);
        let cells = config.board.cell_count();
        let stride = players * (2 + HEIGHTS * CAPS + BURIED + TACTICS + RUNS) + 2;
        let hand = cells * stride;
        let eliminated = hand + players * HAND.len();
        let territory = eliminated + players * PROGRESS.len();
        let streak = territory + players * PROGRESS.len();
        let phase = streak + players * STREAKS;
        let flags = phase + players * Phase::ALL.len();
        let total = flags + FLAGS;
        Self { players, cells, stride, hand, eliminated, territory, streak, phase, flags, total }
    }

    pub(super) const fn total(&self) -> usize {
        self.total
    }

    /// Number of facts that every cell has.
    pub(super) const fn stride(&self) -> usize {
        self.stride
    }

    /// Which of the facts that every cell has a feature is; `None` for those that belong to no cell.
    pub(super) fn fact(&self, feature: usize) -> Option<usize> {
        (feature < self.hand).then_some(feature % self.stride)
    }

    const fn buried(&self) -> usize {
        self.players * (2 + HEIGHTS * CAPS)
    }

    pub(super) const fn tactics(&self) -> usize {
        self.buried() + self.players * BURIED
    }

    const fn runs(&self) -> usize {
        self.tactics() + self.players * TACTICS
    }

    /// For every feature, the one that says the same to the seat `turn` places further on.
    pub(super) fn view(&self, turn: usize) -> Vec<u32> {
        let owner = |owner: usize| (owner + self.players - turn) % self.players;
        // A block of `size` numbers per owner, that begins at `base`.
        let turned = |feature: usize, base: usize, size: usize| {
            let (o, rest) = ((feature - base) / size, (feature - base) % size);
            base + owner(o) * size + rest
        };
        let (stack, buried) = (2 * self.players, self.buried());
        let (tactics, runs) = (self.tactics(), self.runs());
        let fact = |fact: usize| match fact {
            f if f < self.players => turned(f, 0, 1),
            f if f < stack => turned(f, self.players, 1),
            f if f < buried => turned(f, stack, HEIGHTS * CAPS),
            f if f < tactics => turned(f, buried, BURIED),
            f if f < runs => turned(f, tactics, TACTICS),
            f if f < self.stride - 2 => turned(f, runs, RUNS),
            f => f,
        };
        (0..self.total)
            .map(|feature| {
                number(match feature {
                    f if f < self.hand => f - f % self.stride + fact(f % self.stride),
                    f if f < self.eliminated => turned(f, self.hand, HAND.len()),
                    f if f < self.territory => turned(f, self.eliminated, PROGRESS.len()),
                    f if f < self.streak => turned(f, self.territory, PROGRESS.len()),
                    f if f < self.phase => turned(f, self.streak, STREAKS),
                    f if f < self.flags => turned(f, self.phase, Phase::ALL.len()),
                    f => f,
                })
            })
            .collect()
    }

    /// For every feature, its image under a symmetry of the board.
    pub(super) fn permuted(&self, symmetry: &Symmetry) -> Vec<u32> {
        (0..self.total)
            .map(|feature| match self.fact(feature) {
                Some(fact) => {
                    let cell = symmetry.cell(CellId::from_index(feature / self.stride));
                    number(cell.index() * self.stride + fact)
                }
                None => number(feature),
            })
            .collect()
    }

    /// Lists the features of a position as the player to move sees it.
    pub(super) fn encode(&self, state: &State, out: &mut Vec<u32>) {
        out.clear();
        let mover = state.to_move();
        let owner = |seat: Seat| self.relative(mover, seat);
        for index in 0..self.cells {
            let base = index * self.stride;
            match state.cell(CellId::from_index(index)) {
                Cell::Empty => {}
                Cell::Marker(seat) => {
                    out.push(number(base + owner(seat)));
                    let run = longest_run(state, CellId::from_index(index), seat);
                    if run > 1 {
                        let run = (run - 2).min(RUNS - 1);
                        out.push(number(base + self.runs() + owner(seat) * RUNS + run));
                    }
                }
                Cell::Collapsed(seat) => out.push(number(base + self.players + owner(seat))),
                Cell::Stack(stack) => {
                    self.encode_stack(base, mover, stack, out);
                    self.encode_tactics(state, CellId::from_index(index), stack, out);
                }
            }
        }
        if let Some(cell) = state.must_move() {
            out.push(number(cell.index() * self.stride + self.stride - 2));
        }
        if let Some(cell) = state.chain_cell() {
            out.push(number(cell.index() * self.stride + self.stride - 1));
        }
        let mut count = |base: usize, steps: &[u32], value: u16, whole: u32| {
            // Thresholds ascend.
            let reached = steps.iter().take_while(|&step| u32::from(value) * 18 >= step * whole);
            out.extend(reached.zip(base..).map(|(_, feature)| number(feature)));
        };
        for seat in state.config().seats() {
            let owner = owner(seat);
            let rings = u32::from(state.rings_per_player());
            count(self.hand + owner * HAND.len(), &HAND, state.hand(seat), rings);
            let base = self.eliminated + owner * PROGRESS.len();
            count(base, &PROGRESS, state.eliminated(seat), state.ring_victory());
            let base = self.territory + owner * PROGRESS.len();
            count(base, &PROGRESS, state.territory(seat), state.territory_victory());
        }
        let standing = state.last_player_standing();
        if let (Some(seat), 1..) = (standing.candidate, standing.streak) {
            let streak = usize::from(standing.streak).min(STREAKS) - 1;
            out.push(number(self.streak + owner(seat) * STREAKS + streak));
        }
        out.push(number(self.phase + state.phase() as usize));
        let flags = [
            state.payment_pending(),
            state.region_payment_pending(),
            state.acted_this_turn(),
            state.recovered_this_turn(),
            state.swapped(),
        ];
        let set = flags.iter().enumerate().filter(|(_, flag)| **flag);
        out.extend(set.map(|(index, _)| number(self.flags + index)));
    }

    fn encode_stack(&self, base: usize, mover: Seat, stack: StackView<'_>, out: &mut Vec<u32>) {
        let class = stack_class(stack.height(), stack.cap());
        let owner = self.relative(mover, stack.controller());
        out.push(number(base + 2 * self.players + owner * HEIGHTS * CAPS + class));
        if stack.cap() == stack.height() {
            return;
        }
        let mut buried = [0_usize; 4];
        for ring in stack.rings().skip(usize::from(stack.cap())) {
            buried[ring.index()] += 1;
        }
        let block = base + self.buried();
        for (seat, &count) in Seat::ALL.iter().zip(&buried).filter(|(_, count)| **count > 0) {
            let owner = self.relative(mover, *seat);
            out.push(number(block + owner * BURIED + count.min(BURIED) - 1));
        }
    }

    /// Who can capture whom, as if it were the turn of the attacker and every stack were free to move.
    fn encode_tactics(
        &self,
        state: &State,
        cell: CellId,
        stack: StackView<'_>,
        out: &mut Vec<u32>,
    ) {
        let geometry = state.geometry();
        let mine = stack.controller();
        let (mut threatened, mut attacks, mut moves) = (false, false, false);
        for direction in (0..).take(geometry.directions()) {
            let ray = geometry.ray(cell, direction);
            let stop = ray.iter().position(|&met| !is_open(state.cell(met)));
            moves |= stop.unwrap_or(ray.len()) >= usize::from(stack.height());
            let Some(stop) = stop else { continue };
            let Cell::Stack(other) = state.cell(ray[stop]) else { continue };
            if stack.cap() >= other.cap() && lands(state, &ray[stop + 1..], stop + 2, stack) {
                moves = true;
                attacks |= other.controller() != mine;
            }
            if other.cap() >= stack.cap() && other.controller() != mine {
                let behind = geometry.ray(cell, geometry.opposite(direction));
                threatened |= lands(state, behind, stop + 2, other);
            }
        }
        let owner = self.relative(state.to_move(), mine);
        let base = cell.index() * self.stride + self.tactics() + owner * TACTICS;
        let facts = [threatened, attacks, !moves];
        out.extend((0..).zip(facts).filter(|(_, is)| *is).map(|(fact, _)| number(base + fact)));
    }

    pub(super) const fn relative(&self, mover: Seat, seat: Seat) -> usize {
        (seat.index() + self.players - mover.index()) % self.players
    }
}

/// Number of a stack's size, below `HEIGHTS * CAPS`.
pub(super) fn stack_class(height: u16, cap: u16) -> usize {
    let height = usize::from(height).clamp(1, HEIGHTS) - 1;
    let cap = usize::from(cap).clamp(1, CAPS) - 1;
    height * CAPS + cap
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer than 2^32 features")
}

/// Whether a stack passes over the cell.
const fn is_open(cell: Cell<'_>) -> bool {
    matches!(cell, Cell::Empty | Cell::Marker(_))
}

/// Whether a capture that is `steps` long on the first of these cells can land on one of them: far enough, and nothing in the way.
fn lands(state: &State, cells: &[CellId], steps: usize, attacker: StackView<'_>) -> bool {
    let open = cells.iter().take_while(|&&cell| is_open(state.cell(cell))).count();
    open > 0 && steps + open > usize::from(attacker.height())
}

/// Length of the longest run of markers of a seat through one of them.
fn longest_run(state: &State, cell: CellId, seat: Seat) -> usize {
    let geometry = state.geometry();
    let beside = |direction: u8| {
        let ray = geometry.ray(cell, direction).iter();
        ray.take_while(|&&met| matches!(state.cell(met), Cell::Marker(owner) if owner == seat))
            .count()
    };
    let lengths =
        geometry.axes().iter().map(|&axis| 1 + beside(axis) + beside(geometry.opposite(axis)));
    lengths.max().unwrap_or(1)
}

//! What the features ask of a position, gathered in one pass over its cells.

use ringrift_rules::{Board, Cell, CellId, Geometry, Seat, State};

use crate::values::MAX_SEATS;

/// One number per seat; entries beyond the number of players mean nothing.
pub(super) type BySeat = [f64; MAX_SEATS];

/// What is on a cell, as far as the heuristic cares.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ground {
    Empty,
    Marker(Seat),
    /// Whose territory it is makes no difference to any feature.
    Collapsed,
    Stack {
        controller: Seat,
        cap: u16,
    },
}

impl Ground {
    /// A stack of somebody else than `seat`: its cap.
    pub(super) fn enemy_cap(self, seat: Seat) -> Option<u16> {
        match self {
            Self::Stack { controller, cap } if controller != seat => Some(cap),
            _ => None,
        }
    }

    pub(super) fn is_marker_of(self, seat: Seat) -> bool {
        matches!(self, Self::Marker(owner) if owner == seat)
    }

    pub(super) const fn is_stack(self) -> bool {
        matches!(self, Self::Stack { .. })
    }

    /// Neither collapsed nor a stack; markers do not matter.
    pub(super) const fn is_open(self) -> bool {
        matches!(self, Self::Empty | Self::Marker(_))
    }
}

/// A stack, and what is around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) cell: CellId,
    pub(super) controller: Seat,
    pub(super) height: u16,
    pub(super) cap: u16,
    /// Adjacent cells that are open.
    pub(super) open: u16,
    /// Adjacent stacks whose cap is no larger, by who controls them.
    pub(super) lesser: [u16; MAX_SEATS],
}

impl Standing {
    /// w of the specification: where it could go by the look of the neighbours.
    pub(super) fn ways(&self) -> u16 {
        let all: u16 = self.lesser.iter().sum();
        self.open + all - self.lesser[self.controller.index()]
    }
}

/// A position, sorted by what the features look at. Kept from position to position, so that evaluating allocates nothing.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) geometry: &'static Geometry,
    players: usize,
    ground: Vec<Ground>,
    pub(super) stacks: Vec<Standing>,
    /// Markers by owner, in the order of cells: by x, then by y.
    pub(super) markers: [Vec<CellId>; MAX_SEATS],
    /// Rings of a seat in stacks that it does not control.
    pub(super) buried: [u16; MAX_SEATS],
    /// Whether a ring from a hand could stand on some cell.
    pub(super) has_open_cell: bool,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            geometry: Board::Square8.geometry(),
            players: 0,
            ground: Vec::new(),
            stacks: Vec::new(),
            markers: Default::default(),
            buried: [0; MAX_SEATS],
            has_open_cell: false,
        }
    }
}

impl Survey {
    /// Takes a position in.
    pub(super) fn look_at(&mut self, state: &State) {
        self.geometry = state.geometry();
        self.players = usize::from(state.config().players);
        self.ground.clear();
        self.stacks.clear();
        self.markers.iter_mut().for_each(Vec::clear);
        self.has_open_cell = false;
        self.buried = [0; MAX_SEATS];
        for seat in state.config().seats() {
            self.buried[seat.index()] = state.rings_on_board(seat);
        }
        for cell in self.geometry.cells() {
            let ground = match state.cell(cell) {
                Cell::Empty => Ground::Empty,
                Cell::Marker(seat) => {
                    self.markers[seat.index()].push(cell);
                    Ground::Marker(seat)
                }
                Cell::Collapsed(_) => Ground::Collapsed,
                Cell::Stack(stack) => {
                    let (controller, height, cap) =
                        (stack.controller(), stack.height(), stack.cap());
                    let below = stack.rings().skip(cap.into()).filter(|ring| *ring == controller);
                    let own = below.fold(cap, |own, _| own + 1);
                    self.buried[controller.index()] -= own;
                    let (open, lesser) = (0, [0; MAX_SEATS]);
                    self.stacks.push(Standing { cell, controller, height, cap, open, lesser });
                    Ground::Stack { controller, cap }
                }
            };
            self.has_open_cell |= ground.is_open();
            self.ground.push(ground);
        }
        for index in 0..self.stacks.len() {
            let mut stack = self.stacks[index];
            for cell in self.adjacent(stack.cell) {
                match self.ground(cell) {
                    Ground::Stack { controller, cap } => {
                        stack.lesser[controller.index()] += u16::from(stack.cap >= cap);
                    }
                    ground => stack.open += u16::from(ground.is_open()),
                }
            }
            self.stacks[index] = stack;
        }
    }

    pub(super) fn ground(&self, cell: CellId) -> Ground {
        self.ground[cell.index()]
    }

    /// The cells one step away, as the reference finds them: none on hex8, whose name its table of neighbours does not know (oddity O1).
    pub(super) fn adjacent(&self, cell: CellId) -> impl Iterator<Item = CellId> {
        let known = self.geometry.board() != Board::Hex8;
        self.geometry.neighbours(cell).filter(move |_| known)
    }

    /// The cells from `cell` on in each direction in which the reference reads lines: none on hex8 either (oddity O2).
    pub(super) fn line_rays(&self, cell: CellId) -> impl Iterator<Item = &'static [CellId]> {
        let known = self.geometry.board() != Board::Hex8;
        let rays = self.rays(cell);
        rays.filter(move |_| known)
    }

    /// The cells from `cell` on in each direction of movement.
    pub(super) fn rays(&self, cell: CellId) -> impl Iterator<Item = &'static [CellId]> {
        let geometry = self.geometry;
        (0u8..).take(geometry.directions()).map(move |direction| geometry.ray(cell, direction))
    }

    /// Stacks that a seat controls.
    pub(super) fn stacks_of(&self, seat: Seat) -> impl Iterator<Item = &Standing> {
        self.stacks.iter().filter(move |stack| stack.controller == seat)
    }

    pub(super) fn markers_of(&self, seat: Seat) -> &[CellId] {
        &self.markers[seat.index()]
    }

    pub(super) const fn players(&self) -> usize {
        self.players
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = Seat> + use<> {
        Seat::ALL.into_iter().take(self.players)
    }

    /// All seats but one.
    pub(super) fn others(&self, seat: Seat) -> impl Iterator<Item = Seat> + use<> {
        self.seats().filter(move |other| *other != seat)
    }

    /// One number for each seat.
    pub(super) fn by_seat(&self, mut number: impl FnMut(Seat) -> f64) -> BySeat {
        let mut numbers = [0.0; MAX_SEATS];
        for seat in self.seats() {
            numbers[seat.index()] = number(seat);
        }
        numbers
    }

    /// What a seat has more than the opponent that has most, or less: "f(A) - maxopp f".
    pub(super) fn lead(&self, seat: Seat, numbers: &BySeat) -> f64 {
        let most = self.others(seat).map(|other| numbers[other.index()]);
        numbers[seat.index()] - most.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// |dx| + |dy| + |dz|: on hexagons twice the number of steps.
pub(super) fn taxicab(geometry: &Geometry, one: CellId, other: CellId) -> u8 {
    let (a, b) = (geometry.coordinate(one), geometry.coordinate(other));
    a.x.abs_diff(b.x) + a.y.abs_diff(b.y) + a.z.abs_diff(b.z)
}

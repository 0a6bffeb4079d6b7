//! Which learned rows a move is made of.

use ringrift_rules::{
    Cell, CellId, Config, EliminationContext, Geometry, Move, Region, Seat, State, Symmetry,
};

use super::features::{CAPS, HEIGHTS, stack_class};

/// Rows of one move; every move has as many.
pub const MOVE_ROWS: usize = 8;

/// The rows of one move; their sum, times the vector of the position, is the move's logit.
pub type MoveRows = [u16; MOVE_ROWS];

/// Row of a move that has nothing to say in some respect.
const NOTHING: usize = 0;
/// Sizes of stacks that are told apart.
const STACKS: usize = HEIGHTS * CAPS;
/// Moves by type and, where it matters, by amount.
const KINDS: usize = 27;
/// Types of moves that leave a cell: movement, capture, continued capture, recovery.
const SOURCES: usize = 4;
/// The first type that leaves a cell.
const FIRST_JOURNEY: usize = 6;
/// Distances 1 to 7, and 8 for more.
const DISTANCES: usize = 8;
/// Markers passed: 0 to 2, and 3 for more.
const PASSED: usize = 4;
/// Region sizes: 1, 2, 3-4, 5-8, 9-16, more.
const REGIONS: usize = 6;
/// Rings in a region: 0, 1-2, 3-5, more.
const REGION_RINGS: usize = 4;
/// Roles of a stack other than the moving one: target, placed on, pays, struck.
const ROLES: usize = 4;

/// Where each kind of row begins.
#[derive(Debug, Clone)]
pub(super) struct RowLayout {
    players: usize,
    cells: usize,
    directions: usize,
    to: usize,
    from: usize,
    heading: usize,
    reach: usize,
    source: usize,
    role: usize,
    landing: usize,
    region: usize,
    total: usize,
}

impl RowLayout {
    pub(super) fn new(config: Config) -> Self {
        let players = usize::from(config.players);
        let cells = config.board.cell_count();
        let directions = config.board.geometry().directions();
        let to = 1 + KINDS;
        let from = to + KINDS * cells;
        let heading = from + SOURCES * cells;
        let reach = heading + 2 * cells * directions;
        let source = reach + 2 * DISTANCES * HEIGHTS;
        let role = source + SOURCES * STACKS;
        let landing = role + ROLES * players * STACKS;
        let region = landing + 2 * (1 + players) * PASSED * PASSED;
        let total = region + REGIONS * REGION_RINGS * REGION_RINGS;
        assert!(u16::try_from(total).is_ok(), "rows are numbered with 16 bits");
        Self {
            players,
            cells,
            directions,
            to,
            from,
            heading,
            reach,
            source,
            role,
            landing,
            region,
            total,
        }
    }

    pub(super) const fn total(&self) -> usize {
        self.total
    }

    /// Rows that differ only in the cell have the same class; `None` for those that belong to no cell.
    pub(super) fn class(&self, row: usize) -> Option<usize> {
        match row {
            r if r < self.to || r >= self.reach => None,
            r if r < self.from => Some((r - self.to) / self.cells),
            r if r < self.heading => Some(KINDS + (r - self.from) / self.cells),
            r => Some(KINDS + SOURCES + (r - self.heading) / (self.cells * self.directions)),
        }
    }

    /// Number of classes.
    pub(super) const fn classes() -> usize {
        KINDS + SOURCES + 2
    }

    /// For every row, its image under a symmetry of the board.
    pub(super) fn permuted(&self, symmetry: &Symmetry) -> Vec<u16> {
        let cell = |index: usize| symmetry.cell(CellId::from_index(index)).index();
        (0..self.total)
            .map(|row| {
                number(match row {
                    r if r < self.to || r >= self.reach => r,
                    r if r < self.heading => {
                        let at = (r - self.to) % self.cells;
                        r - at + cell(at)
                    }
                    r => {
                        let place = (r - self.heading) % (self.cells * self.directions);
                        let direction = u8::try_from(place % self.directions)
                            .expect("there are at most 8 directions");
                        r - place
                            + cell(place / self.directions) * self.directions
                            + usize::from(symmetry.direction(direction))
                    }
                })
            })
            .collect()
    }

    /// The rows of a legal move.
    pub(super) fn encode(&self, state: &State, played: &Move) -> MoveRows {
        let kind = kind(played);
        let mut rows = Rows { rows: [number(NOTHING); MOVE_ROWS], len: 0 };
        rows.add(1 + kind);
        let to = |cell: CellId| self.to + kind * self.cells + cell.index();
        match played {
            Move::PlaceRing { to: cell, .. } => {
                rows.add(to(*cell));
                self.add_role(state, 1, *cell, &mut rows);
            }
            Move::EliminateRings { to: cell, .. } | Move::ForcedElimination { to: cell } => {
                rows.add(to(*cell));
                self.add_role(state, 2, *cell, &mut rows);
            }
            Move::MoveStack { from, to: landing } => {
                self.add_journey(state, kind, *from, None, *landing, &mut rows);
            }
            Move::OvertakingCapture { from, target, to: landing }
            | Move::ContinueCapture { from, target, to: landing } => {
                self.add_journey(state, kind, *from, Some(*target), *landing, &mut rows);
            }
            Move::RecoverySlide { from, to: landing, how } => {
                rows.add(to(*landing));
                rows.add(self.from + 3 * self.cells + from.index());
                self.add_role(state, 3, *landing, &mut rows);
                if let Some(payer) = how.payer() {
                    self.add_role(state, 2, payer, &mut rows);
                }
            }
            // A run has no first cell that every symmetry keeps, so both ends count alike.
            Move::ProcessLine(run) | Move::ChooseLineOption { collapse: run, .. } => {
                rows.add(to(run.start()));
                if let Some(end) = run.cells(state.geometry()).last() {
                    rows.add(to(end));
                }
            }
            Move::ChooseTerritory(region) => {
                rows.add(self.region_row(state, *region));
            }
            Move::SkipPlacement
            | Move::NoPlacementAction
            | Move::SwapSides
            | Move::SkipCapture
            | Move::NoMovementAction
            | Move::SkipRecovery
            | Move::NoLineAction
            | Move::SkipTerritory
            | Move::NoTerritoryAction => {}
        }
        rows.rows
    }

    /// Rows of a stack that travels: where from, which way, how far, how large, over what, onto what.
    fn add_journey(
        &self,
        state: &State,
        kind: usize,
        from: CellId,
        target: Option<CellId>,
        to: CellId,
        rows: &mut Rows,
    ) {
        let geometry = state.geometry();
        let group = kind - FIRST_JOURNEY;
        // First what moves share that follow one another in the list of legal ones: the logits of those take less work.
        rows.add(self.from + group * self.cells + from.index());
        let captures = usize::from(target.is_some());
        let Some((direction, steps)) = geometry.lane(from, to) else { return };
        let place = (captures * self.cells + from.index()) * self.directions;
        rows.add(self.heading + place + usize::from(direction));
        let Cell::Stack(stack) = state.cell(from) else { return };
        let distance = usize::from(steps).clamp(1, DISTANCES) - 1;
        let height = usize::from(stack.height()).clamp(1, HEIGHTS) - 1;
        rows.add(self.source + group * STACKS + stack_class(stack.height(), stack.cap()));
        rows.add(self.to + kind * self.cells + to.index());
        rows.add(self.reach + (captures * DISTANCES + distance) * HEIGHTS + height);
        if let Some(target) = target {
            self.add_role(state, 0, target, rows);
        }
        rows.add(self.landing_row(state, geometry, (from, direction, steps), captures));
    }

    /// What a journey does to markers: own ones on the way collapse, others flip, one at the end costs a ring.
    fn landing_row(
        &self,
        state: &State,
        geometry: &Geometry,
        (from, direction, steps): (CellId, u8, u8),
        captures: usize,
    ) -> usize {
        let mover = state.to_move();
        let (mut own, mut foreign, mut landing) = (0, 0, 0);
        for (step, &cell) in (1..=steps).zip(geometry.ray(from, direction)) {
            let Cell::Marker(owner) = state.cell(cell) else { continue };
            if step == steps {
                landing = 1 + self.relative(mover, owner);
            } else if owner == mover {
                own += 1;
            } else {
                foreign += 1;
            }
        }
        let passed = own.min(PASSED - 1) * PASSED + foreign.min(PASSED - 1);
        let landing = captures * (1 + self.players) + landing;
        self.landing + landing * PASSED * PASSED + passed
    }

    fn add_role(&self, state: &State, role: usize, cell: CellId, rows: &mut Rows) {
        if let Cell::Stack(stack) = state.cell(cell) {
            let owner = self.relative(state.to_move(), stack.controller());
            let class = stack_class(stack.height(), stack.cap());
            rows.add(self.role + (role * self.players + owner) * STACKS + class);
        }
    }

    fn region_row(&self, state: &State, region: Region) -> usize {
        let (mut own, mut foreign) = (0, 0);
        for cell in state.region_cells(region).iter() {
            if let Cell::Stack(stack) = state.cell(cell) {
                if stack.controller() == state.to_move() {
                    own += stack.height();
                } else {
                    foreign += stack.height();
                }
            }
        }
        let rings = |count: u16| match count {
            0 => 0,
            1..=2 => 1,
            3..=5 => 2,
            _ => 3,
        };
        let size = (region.size().next_power_of_two().ilog2() as usize).min(REGIONS - 1);
        self.region + (size * REGION_RINGS + rings(own)) * REGION_RINGS + rings(foreign)
    }

    const fn relative(&self, mover: Seat, seat: Seat) -> usize {
        (seat.index() + self.players - mover.index()) % self.players
    }
}

struct Rows {
    rows: MoveRows,
    len: usize,
}

impl Rows {
    fn add(&mut self, row: usize) {
        self.rows[self.len] = number(row);
        self.len += 1;
    }
}

/// Number of a move's type, below `KINDS`.
fn kind(played: &Move) -> usize {
    match played {
        Move::PlaceRing { count, .. } => usize::from(*count).clamp(1, 3) - 1,
        Move::SkipPlacement => 3,
        Move::NoPlacementAction => 4,
        Move::SwapSides => 5,
        Move::MoveStack { .. } => FIRST_JOURNEY,
        Move::OvertakingCapture { .. } => 7,
        Move::ContinueCapture { .. } => 8,
        Move::SkipCapture => 9,
        Move::NoMovementAction => 10,
        Move::RecoverySlide { how, .. } => match (how.mode(), how.payer()) {
            ("line", Some(_)) => 11,
            ("line", None) => 12,
            ("fallback", _) => 13,
            _ => 14,
        },
        Move::SkipRecovery => 15,
        Move::ProcessLine(_) => 16,
        Move::ChooseLineOption { line, collapse } if line.len() == collapse.len() => 17,
        Move::ChooseLineOption { .. } => 18,
        Move::EliminateRings { context: EliminationContext::Line, .. } => 19,
        Move::EliminateRings { context: EliminationContext::Territory, .. } => 20,
        Move::EliminateRings { context: EliminationContext::Recovery, .. } => 21,
        Move::NoLineAction => 22,
        Move::ChooseTerritory(_) => 23,
        Move::SkipTerritory => 24,
        Move::NoTerritoryAction => 25,
        Move::ForcedElimination { .. } => 26,
    }
}

fn number(row: usize) -> u16 {
    u16::try_from(row).expect("checked when the layout was made")
}

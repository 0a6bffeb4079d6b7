//! Cells, directions, rays and symmetries of the four boards, computed once.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use once_cell::race::OnceBox;

use crate::config::Board;
use crate::rows::RowPlan;

/// A cell: its index in the [`Geometry`] of the board, ordered by x, then by y.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellId(pub u16);

impl CellId {
    /// Position in arrays by cell.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The cell at a position in arrays by cell.
    #[expect(clippy::cast_possible_truncation, reason = "a board has at most 469 cells")]
    pub const fn from_index(index: usize) -> Self {
        Self(index as u16)
    }
}

/// Place of a cell: (x, y) on square boards, cube coordinates on hexagons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coordinate {
    /// Column, or first cube coordinate.
    pub x: i8,
    /// Row, or second cube coordinate.
    pub y: i8,
    /// Third cube coordinate, -x-y; 0 on square boards.
    pub z: i8,
}

/// The 8 king directions in circular order; opposite = +4.
const SQUARE: [(i8, i8); 8] =
    [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)];
/// The 6 hex directions in circular order, as (x, y); opposite = +3.
const HEX: [(i8, i8); 6] = [(1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)];
/// Line axes in the order that recovery looks at them (section 7), as indices of directions.
const SQUARE_AXES: [u8; 4] = [0, 2, 1, 7];
const HEX_AXES: [u8; 3] = [0, 5, 4];
/// Lane of two cells that share no line.
const NO_LANE: (u8, u8) = (u8::MAX, 0);

/// All that is fixed about a board.
#[derive(Debug)]
pub struct Geometry {
    board: Board,
    coordinates: Vec<Coordinate>,
    keys: Vec<String>,
    ray_starts: Vec<u32>,
    rays: Vec<CellId>,
    adjacent_starts: Vec<u32>,
    adjacent: Vec<CellId>,
    lanes: Vec<(u8, u8)>,
    row_plans: Vec<RowPlan>,
    rows_and_bits: Vec<(u8, u8)>,
    symmetries: Vec<Symmetry>,
}

impl Board {
    /// The geometry of this board, built at the first call.
    pub fn geometry(self) -> &'static Geometry {
        static ALL: [OnceBox<Geometry>; 4] = [const { OnceBox::new() }; 4];
        ALL[self as usize].get_or_init(|| Box::new(Geometry::build(self)))
    }

    /// Steps in the directions of movement.
    pub(crate) const fn directions(self) -> &'static [(i8, i8)] {
        if self.is_hex() { &HEX } else { &SQUARE }
    }

    /// Steps to the neighbours for territory: no diagonals on square boards (section 1).
    pub(crate) const fn sides(self) -> &'static [(i8, i8)] {
        const SIDES: [(i8, i8); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];
        if self.is_hex() { &HEX } else { &SIDES }
    }

    /// The same place with all three coordinates, if it is on the board.
    fn place(self, x: i8, y: i8) -> Option<Coordinate> {
        let side = |size: i8| (0..size).contains(&x) && (0..size).contains(&y);
        let disc = |radius: i8| {
            let range = -radius..=radius;
            range.contains(&x) && range.contains(&y) && range.contains(&(-x - y))
        };
        let (inside, z) = match self {
            Self::Square8 => (side(8), 0),
            Self::Square19 => (side(19), 0),
            Self::Hex8 => (disc(4), -x - y),
            Self::Hexagonal => (disc(12), -x - y),
        };
        inside.then_some(Coordinate { x, y, z })
    }
}

impl Geometry {
    fn build(board: Board) -> Self {
        let range = -12..19;
        let coordinates: Vec<Coordinate> = range
            .clone()
            .flat_map(|x| range.clone().filter_map(move |y| board.place(x, y)))
            .collect();
        let find = |x: i8, y: i8| {
            let wanted = board.place(x, y)?;
            coordinates.binary_search(&wanted).ok().map(CellId::from_index)
        };
        let keys = coordinates
            .iter()
            .map(|at| {
                if board.is_hex() {
                    format!("{},{},{}", at.x, at.y, at.z)
                } else {
                    format!("{},{}", at.x, at.y)
                }
            })
            .collect();

        let (mut rays, mut ray_starts) = (Vec::new(), vec![0]);
        let (mut adjacent, mut adjacent_starts) = (Vec::new(), vec![0]);
        let mut lanes = vec![NO_LANE; coordinates.len() * coordinates.len()];
        for (from, at) in coordinates.iter().enumerate() {
            for (direction, (dx, dy)) in (0u8..).zip(board.directions()) {
                let (mut x, mut y, mut steps) = (at.x + dx, at.y + dy, 1u8);
                while let Some(cell) = find(x, y) {
                    rays.push(cell);
                    lanes[from * coordinates.len() + cell.index()] = (direction, steps);
                    // Territory spreads over sides only: no diagonals on square boards (section 1).
                    if steps == 1 && (board.is_hex() || dx * dy == 0) {
                        adjacent.push(cell);
                    }
                    (x, y, steps) = (x + dx, y + dy, steps + 1);
                }
                ray_starts.push(length(&rays));
            }
            adjacent_starts.push(length(&adjacent));
        }
        let symmetries = Symmetry::all(board, &coordinates, find);
        let (row_plans, rows_and_bits) = rows(&coordinates);
        Self {
            board,
            coordinates,
            keys,
            ray_starts,
            rays,
            adjacent_starts,
            adjacent,
            lanes,
            row_plans,
            rows_and_bits,
            symmetries,
        }
    }

    /// The board.
    pub const fn board(&self) -> Board {
        self.board
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.coordinates.len()
    }

    /// Never: every board has cells.
    pub fn is_empty(&self) -> bool {
        self.coordinates.is_empty()
    }

    /// All cells in order.
    pub fn cells(&self) -> impl DoubleEndedIterator<Item = CellId> + ExactSizeIterator + use<> {
        (0..self.coordinates.len()).map(CellId::from_index)
    }

    /// Place of a cell.
    pub fn coordinate(&self, cell: CellId) -> Coordinate {
        self.coordinates[cell.index()]
    }

    /// Text key of a cell: `x,y` or `x,y,z`.
    pub fn key(&self, cell: CellId) -> &str {
        &self.keys[cell.index()]
    }

    /// The cell with this text key. On hexagons `x,y` is accepted too, as old fixtures use it.
    pub fn cell(&self, key: &str) -> Option<CellId> {
        let mut numbers = key.split(',').map(|number| number.trim().parse::<i8>().ok());
        let (x, y) = (numbers.next()??, numbers.next()??);
        let z = match numbers.next() {
            Some(z) => Some(z?),
            None => None,
        };
        if numbers.next().is_some() {
            return None;
        }
        self.cell_at(x, y, z)
    }

    /// The cell at a place; `z` may be absent, and must fit where it is given.
    pub fn cell_at(&self, x: i8, y: i8, z: Option<i8>) -> Option<CellId> {
        // Keeps -x-y within i8 for whatever a file holds.
        if !(-64..=63).contains(&x) || !(-64..=63).contains(&y) {
            return None;
        }
        let wanted = self.board.place(x, y)?;
        if z.is_some_and(|z| z != wanted.z) {
            return None;
        }
        self.coordinates.binary_search(&wanted).ok().map(CellId::from_index)
    }

    /// Number of movement directions: 8 or 6. The opposite of `d` is `d + directions / 2`, cyclic.
    pub const fn directions(&self) -> usize {
        self.board.directions().len()
    }

    /// The opposite direction.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 8 directions")]
    pub const fn opposite(&self, direction: u8) -> u8 {
        let count = self.directions() as u8;
        (direction + count / 2) % count
    }

    /// Directions along which lines are read, in the order of section 7: 4 or 3.
    pub const fn axes(&self) -> &'static [u8] {
        if self.board.is_hex() { &HEX_AXES } else { &SQUARE_AXES }
    }

    /// The cells met from `cell` in a direction, nearest first, up to the edge of the board.
    #[inline]
    pub fn ray(&self, cell: CellId, direction: u8) -> &[CellId] {
        let at = cell.index() * self.directions() + usize::from(direction);
        &self.rays[self.ray_starts[at] as usize..self.ray_starts[at + 1] as usize]
    }

    /// The neighbours of a cell in movement directions.
    pub fn neighbours(&self, cell: CellId) -> impl Iterator<Item = CellId> + '_ {
        (0u8..).take(self.directions()).filter_map(move |d| self.ray(cell, d).first().copied())
    }

    /// The neighbours for territory: 4 on square boards, 6 on hexagons.
    pub fn adjacent(&self, cell: CellId) -> &[CellId] {
        let at = cell.index();
        &self.adjacent[self.adjacent_starts[at] as usize..self.adjacent_starts[at + 1] as usize]
    }

    /// Direction and number of steps from one cell to another, if they share a line.
    #[inline]
    pub fn lane(&self, from: CellId, to: CellId) -> Option<(u8, u8)> {
        let lane = self.lanes[from.index() * self.len() + to.index()];
        (lane != NO_LANE).then_some(lane)
    }

    /// Distance in steps: king metric on square boards, hex metric on hexagons.
    pub fn distance(&self, from: CellId, to: CellId) -> u8 {
        let (a, b) = (self.coordinate(from), self.coordinate(to));
        // On hexagons the largest difference of cube coordinates is half of their sum.
        (a.x.abs_diff(b.x)).max(a.y.abs_diff(b.y)).max(a.z.abs_diff(b.z))
    }

    /// Rows of equal x, in the order of their cells.
    pub(crate) fn row_plans(&self) -> &[RowPlan] {
        &self.row_plans
    }

    /// Row of a cell, and its bit there.
    pub(crate) fn row_and_bit(&self, cell: CellId) -> (usize, u32) {
        let (row, bit) = self.rows_and_bits[cell.index()];
        (row.into(), bit.into())
    }

    /// The symmetries of the board, the identity first: 8 on square boards, 12 on hexagons.
    pub fn symmetries(&self) -> &[Symmetry] {
        &self.symmetries
    }
}

/// The rows of a board, and where in them each cell is.
#[expect(clippy::cast_possible_truncation, reason = "at most 25 rows, 469 cells")]
#[expect(clippy::cast_sign_loss, reason = "y counts from the smallest")]
fn rows(coordinates: &[Coordinate]) -> (Vec<RowPlan>, Vec<(u8, u8)>) {
    let lowest = coordinates.iter().map(|at| at.y).min().unwrap_or(0);
    let mut plans: Vec<RowPlan> = Vec::new();
    let mut places = Vec::with_capacity(coordinates.len());
    let mut last = None;
    for (index, at) in coordinates.iter().enumerate() {
        let bit = (at.y - lowest) as u8;
        if last != Some(at.x) {
            plans.push(RowPlan { first_cell: index as u16, first_bit: bit, len: 0 });
            last = Some(at.x);
        }
        if let Some(plan) = plans.last_mut() {
            plan.len += 1;
        }
        places.push((plans.len() as u8 - 1, bit));
    }
    (plans, places)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rays of the largest board: about 34 000 cells"
)]
const fn length(cells: &[CellId]) -> u32 {
    cells.len() as u32
}

/// A rotation or reflection of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symmetry {
    board: Board,
    cells: Vec<CellId>,
    directions: Vec<u8>,
}

impl Symmetry {
    fn all(
        board: Board,
        coordinates: &[Coordinate],
        find: impl Fn(i8, i8) -> Option<CellId>,
    ) -> Vec<Self> {
        let turns = if board.is_hex() { 6 } else { 4 };
        let edge = match board {
            Board::Square8 => 7,
            Board::Square19 => 18,
            Board::Hex8 | Board::Hexagonal => 0,
        };
        // `edge` shifts a turned square back onto the board, and is 0 for a turned direction.
        let image = |reflected: bool, turns: usize, (mut x, mut y): (i8, i8), edge: i8| {
            if reflected {
                (x, y) = (y, x);
            }
            for _ in 0..turns {
                (x, y) = if board.is_hex() { (-y, x + y) } else { (edge - y, x) };
            }
            (x, y)
        };
        let vectors = board.directions();
        let mut all = Vec::new();
        for reflected in [false, true] {
            for turn in 0..turns {
                let cells = coordinates.iter().filter_map(|at| {
                    let (x, y) = image(reflected, turn, (at.x, at.y), edge);
                    find(x, y)
                });
                let directions = vectors.iter().filter_map(|&vector| {
                    let turned = image(reflected, turn, vector, 0);
                    (0u8..).zip(vectors).find(|(_, v)| **v == turned).map(|(index, _)| index)
                });
                all.push(Self { board, cells: cells.collect(), directions: directions.collect() });
            }
        }
        all
    }

    /// The board it belongs to.
    pub const fn board(&self) -> Board {
        self.board
    }

    /// Where a cell goes.
    pub fn cell(&self, cell: CellId) -> CellId {
        self.cells[cell.index()]
    }

    /// Where each cell goes, by cell.
    pub fn cells(&self) -> &[CellId] {
        &self.cells
    }

    /// Where a direction goes.
    pub fn direction(&self, direction: u8) -> u8 {
        self.directions[usize::from(direction)]
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}, {})", self.x, self.y, self.z)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_have_the_published_number_of_cells_and_keys_read_back() {
        for board in Board::ALL {
            let geometry = board.geometry();
            assert_eq!(geometry.len(), board.cell_count());
            for cell in geometry.cells() {
                assert_eq!(geometry.cell(geometry.key(cell)), Some(cell));
            }
        }
        let hex = Board::Hex8.geometry();
        assert_eq!(hex.cell("1,2"), hex.cell("1,2,-3"));
        for wrong in ["1,2,3", "4,4,-8", "1", "1,2,-3,0", "a,b", "127,127", "-128,-128"] {
            assert_eq!(hex.cell(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rays_lanes_and_distances_agree() {
        for board in Board::ALL {
            let geometry = board.geometry();
            for cell in geometry.cells() {
                for direction in (0u8..).take(geometry.directions()) {
                    for (steps, &met) in (1u8..).zip(geometry.ray(cell, direction)) {
                        assert_eq!(geometry.lane(cell, met), Some((direction, steps)));
                        let back = geometry.opposite(direction);
                        assert_eq!(geometry.lane(met, cell), Some((back, steps)));
                        assert_eq!(geometry.distance(cell, met), steps);
                    }
                }
            }
        }
    }

    #[test]
    fn symmetries_are_distinct_permutations_that_keep_rays() {
        for board in Board::ALL {
            let geometry = board.geometry();
            let symmetries = geometry.symmetries();
            assert_eq!(symmetries.len(), if board.is_hex() { 12 } else { 8 });
            assert!(symmetries[0].cells().iter().copied().eq(geometry.cells()));
            for (index, symmetry) in symmetries.iter().enumerate() {
                assert!(!symmetries[..index].contains(symmetry));
                assert_eq!(symmetry.directions.len(), geometry.directions());
                let mut images = symmetry.cells().to_vec();
                images.sort_unstable();
                assert!(images.into_iter().eq(geometry.cells()));
                for cell in geometry.cells() {
                    for direction in (0u8..).take(geometry.directions()) {
                        let ray = geometry.ray(cell, direction).iter().map(|c| symmetry.cell(*c));
                        let image =
                            geometry.ray(symmetry.cell(cell), symmetry.direction(direction));
                        assert!(ray.eq(image.iter().copied()));
                    }
                }
            }
        }
    }
}

//! N-tuples: every four cells in a row, as one number.

use ringrift_rules::{Cell, CellId, Config, Seat, State};

/// Cells of a pattern: as many as the longest line that the rules ask for.
const LENGTH: usize = 4;
/// Bits that say what is on a cell.
const BITS: u32 = 3;
/// Numbers that a pattern can have.
const CODES: u32 = 1 << (BITS * 4);

/// The rows of four cells of a board.
///
/// A pattern says the same wherever it lies and from whichever end it is read, so all rows share a table; on square boards those along
/// the sides one and the diagonals another.
#[derive(Debug, Clone)]
pub(super) struct Patterns {
    rows: Vec<([CellId; LENGTH], u32)>,
    tables: u32,
    /// For each code, the smaller of it and its mirror image.
    canonical: Vec<u32>,
}

impl Patterns {
    pub(super) fn new(config: Config) -> Self {
        let geometry = config.board.geometry();
        let mut rows = Vec::new();
        for cell in geometry.cells() {
            for &axis in geometry.axes() {
                let [second, third, fourth, ..] = *geometry.ray(cell, axis) else { continue };
                let table = u32::from(!geometry.adjacent(cell).contains(&second));
                rows.push(([cell, second, third, fourth], table * CODES));
            }
        }
        let mirrored = |code: u32| {
            let symbol = |at: u32| (code >> (BITS * at)) & ((1 << BITS) - 1);
            (0..4).fold(0, |image, at| (image << BITS) | symbol(at))
        };
        Self {
            rows,
            tables: if config.board.is_hex() { 1 } else { 2 },
            canonical: (0..CODES).map(|code| code.min(mirrored(code))).collect(),
        }
    }

    /// How many numbers there are.
    pub(super) const fn total(&self) -> u32 {
        self.tables * CODES
    }

    /// Lists the patterns of a position as a seat sees them, each moved up by `base`; rows of empty cells say nothing.
    pub(super) fn list(
        &self,
        state: &State,
        seat: Seat,
        symbols: &mut Vec<u8>,
        base: u32,
        out: &mut Vec<u32>,
    ) {
        symbols.clear();
        symbols.extend(state.geometry().cells().map(|cell| symbol(state.cell(cell), seat)));
        for (cells, table) in &self.rows {
            let code = cells
                .iter()
                .fold(0, |code, cell| (code << BITS) | u32::from(symbols[cell.index()]));
            if code != 0 {
                out.push(base + table + self.canonical[code as usize]);
            }
        }
    }
}

/// What is on a cell: nothing, territory, a marker or a stack of mine or of another, with a cap of one ring or more.
fn symbol(cell: Cell<'_>, seat: Seat) -> u8 {
    match cell {
        Cell::Empty => 0,
        Cell::Collapsed(_) => 1,
        Cell::Marker(owner) => 2 + u8::from(owner != seat),
        Cell::Stack(stack) => {
            4 + 2 * u8::from(stack.controller() != seat) + u8::from(stack.cap() > 1)
        }
    }
}

//! The board as text, for people.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::string::ToString as _;
use core::fmt::Write as _;

use crate::state::{Cell, State};

impl State {
    /// The board as text: `.` empty, `a`-`d` a marker of seat 1-4, `A3` a stack of seat 1 with three
    /// rings (`+` for ten and more), `#1` territory of seat 1; then counters and whose turn it is.
    ///
    /// Square boards have x to the right and y downwards, hexagons rows of equal y, shifted.
    pub fn render(&self) -> String {
        let letter = |seat: crate::Seat, first: u8| char::from(first + seat.number() - 1);
        let mut text = String::new();
        let places = || self.geometry.cells().map(|cell| (self.geometry.coordinate(cell), cell));
        let rows: alloc::collections::BTreeSet<i8> = places().map(|(at, _)| at.y).collect();
        for row in rows {
            let mut line = String::new();
            if self.board().is_hex() {
                // A cell is four characters wide; each row away from the middle shifts by half.
                line.push_str(&" ".repeat(2 * usize::from(row.unsigned_abs())));
            }
            for (_, cell) in places().filter(|(at, _)| at.y == row) {
                let shown = match self.cell(cell) {
                    Cell::Empty => ".".to_owned(),
                    Cell::Marker(seat) => letter(seat, b'a').to_string(),
                    Cell::Collapsed(seat) => format!("#{seat}"),
                    Cell::Stack(stack) => {
                        let height = stack.height();
                        let height = if height < 10 { height.to_string() } else { "+".to_owned() };
                        format!("{}{height}", letter(stack.controller(), b'A'))
                    }
                };
                let _ = write!(line, "{shown:<4}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        for seat in self.config().seats() {
            let _ = writeln!(
                text,
                "{seat}: hand {}, eliminated {}, territory {}, markers {}, stacks {}",
                self.hand(seat),
                self.eliminated(seat),
                self.territory(seat),
                self.markers(seat),
                self.stacks(seat),
            );
        }
        let _ = match self.outcome() {
            Some(outcome) => writeln!(text, "{} won: {}", outcome.winner, outcome.reason),
            None if self.is_over() => writeln!(text, "over without winner"),
            None => writeln!(text, "{} to move: {}", self.to_move(), self.phase()),
        };
        text
    }
}

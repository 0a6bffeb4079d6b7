//! Lines of markers (section 8).

use crate::config::Seat;
use crate::moves::{Move, Run};
use crate::rows::{Rows, with_rows};
use crate::sink::Sink;
use crate::state::State;

impl State {
    /// Eligible lines of a player: maximal runs of his markers that are long enough.
    pub fn lines(&self, seat: Seat) -> impl Iterator<Item = Run> {
        self.runs(seat, self.config().eligible_length())
    }

    /// Maximal runs of at least `least` markers of a player.
    pub fn runs(&self, seat: Seat, least: u8) -> impl Iterator<Item = Run> {
        // No run at all is the usual case, and soon seen.
        let cells = if self.has_run(seat, least) { self.geometry.len() } else { 0 };
        let own = self.geometry.cells().take(cells).filter(move |c| self.has_marker_of(*c, seat));
        own.flat_map(move |start| {
            self.geometry.axes().iter().filter_map(move |&axis| {
                let before = self.geometry.ray(start, self.geometry.opposite(axis)).first();
                if before.is_some_and(|cell| self.has_marker_of(*cell, seat)) {
                    return None;
                }
                let ray = self.geometry.ray(start, axis);
                let more = ray.iter().take_while(|cell| self.has_marker_of(**cell, seat));
                let len = more.fold(1u8, |len, _| len + 1);
                (len >= least).then(|| Run::new(self.geometry, start, axis, len))
            })
        })
    }

    /// Whether a player has a run of this many markers.
    pub(crate) fn has_run(&self, seat: Seat, least: u8) -> bool {
        self.markers(seat) >= u16::from(least) && with_rows!(self, has_run_in(seat, least))
    }

    fn has_run_in<const R: usize>(&self, seat: Seat, least: u8) -> bool {
        let own: Rows<R> = self.rows(|code| code == u16::from(seat.number()));
        let directions = self.board().directions();
        self.geometry.axes().iter().any(|&axis| {
            let (dx, dy) = directions[usize::from(axis)];
            let mut begun = own;
            for step in (1i8..).take(usize::from(least).saturating_sub(1)) {
                begun = begun.and(&own.seen_from(dx * step, dy * step));
            }
            !begun.is_empty()
        })
    }

    pub(crate) fn list_lines(&self, out: &mut impl Sink) {
        let needed = self.config().line_length();
        for line in self.lines(self.turn.seat) {
            if line.len() == needed {
                out.push(Move::ProcessLine(line));
                continue;
            }
            out.push(Move::ChooseLineOption { line, collapse: line });
            for skip in 0..=line.len() - needed {
                let collapse = line.window(self.geometry, skip, needed);
                out.push(Move::ChooseLineOption { line, collapse });
            }
        }
        if out.is_empty() {
            out.push(Move::NoLineAction);
        }
    }
}

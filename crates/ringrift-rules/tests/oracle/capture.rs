//! Movement and capture (sections 5 and 6).

use super::{Cell, Oracle};

fn step((x, y): Cell, (dx, dy): Cell, count: i8) -> Cell {
    (x + dx * count, y + dy * count)
}

impl Oracle {
    /// Neither collapsed nor under a stack.
    fn is_free(&self, cell: Cell) -> bool {
        !self.collapsed.contains_key(&cell) && !self.stacks.contains_key(&cell)
    }

    /// Landing cells of a movement.
    pub(super) fn walks(&self, from: Cell) -> Vec<Cell> {
        let height = self.stacks[&from].len();
        let mut found = Vec::new();
        for direction in self.directions() {
            let mut distance = 1;
            while self.on_board(step(from, direction, distance)) {
                let to = step(from, direction, distance);
                let clear = (1..distance).all(|d| self.is_free(step(from, direction, d)));
                if distance as usize >= height && clear && self.is_free(to) {
                    found.push(to);
                }
                distance += 1;
            }
        }
        found
    }

    /// Target and landing cell of each segment of capture.
    pub(super) fn segments(&self, from: Cell) -> Vec<(Cell, Cell)> {
        let rings = &self.stacks[&from];
        let mut found = Vec::new();
        for direction in self.directions() {
            let on_ray = |distance: i8| step(from, direction, distance);
            let mut at = 1;
            while self.on_board(on_ray(at)) && self.is_free(on_ray(at)) {
                at += 1;
            }
            let target = on_ray(at);
            let Some(captured) = self.stacks.get(&target) else { continue };
            if Self::cap(rings) < Self::cap(captured) {
                continue;
            }
            let mut landing = at + 1;
            while self.on_board(on_ray(landing)) && self.is_free(on_ray(landing)) {
                if landing as usize >= rings.len() {
                    found.push((target, on_ray(landing)));
                }
                landing += 1;
            }
        }
        found
    }

    pub(super) fn can_move_or_capture(&self, from: Cell) -> bool {
        !self.walks(from).is_empty() || !self.segments(from).is_empty()
    }

    /// The effects of a movement or a segment.
    pub(super) fn travel(&mut self, from: Cell, target: Option<Cell>, to: Cell) {
        let player = self.player;
        let mut rings = self.stacks.remove(&from).unwrap();
        self.markers.insert(from, player);
        let direction = ((to.0 - from.0).signum(), (to.1 - from.1).signum());
        let mut distance = 1;
        while step(from, direction, distance) != to {
            let cell = step(from, direction, distance);
            match self.markers.get(&cell) {
                Some(owner) if *owner == player => self.collapse(cell),
                Some(_) => {
                    self.markers.insert(cell, player);
                }
                None => {}
            }
            distance += 1;
        }
        if let Some(target) = target {
            let captured = self.stacks.get_mut(&target).unwrap();
            rings.push(captured.remove(0));
            if captured.is_empty() {
                self.stacks.remove(&target);
            }
        }
        if self.markers.remove(&to).is_some() {
            rings.remove(0);
            *self.eliminated.get_mut(&player).unwrap() += 1;
        }
        if !rings.is_empty() {
            self.stacks.insert(to, rings);
        }
    }
}

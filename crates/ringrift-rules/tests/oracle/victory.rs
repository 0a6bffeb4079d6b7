//! Victory (section 13).

use super::Oracle;

impl Oracle {
    /// Sections 13.1 and 13.2, at the end of a turn of `last`.
    pub(super) fn victory(&self, last: u8) -> Option<(u8, &'static str)> {
        let seats = self.seats();
        let players = u32::from(self.config.players);
        let rings = u32::from(self.rings_per_player());
        // round(rpp * (N + 1) / 3)
        let threshold = (f64::from(rings) * f64::from(players + 1) / 3.0).round() as u16;
        if let Some(winner) = seats.iter().find(|s| self.eliminated[s] >= threshold) {
            return Some((*winner, "ring_elimination"));
        }
        let minimum = self.cells().len() / players as usize + 1;
        for seat in &seats {
            let own = self.territory(*seat);
            if own >= minimum && own > self.collapsed.len() - own {
                return Some((*seat, "territory_control"));
            }
        }
        if !self.stacks.is_empty() {
            for seat in &seats {
                let controls_all = self.controlled(*seat).len() == self.stacks.len();
                let alone = seats.iter().all(|other| other == seat || !self.has_any_ring(*other));
                if controls_all && alone {
                    return Some((*seat, "last_player_standing"));
                }
            }
            return None;
        }
        let can_enter = self.cells().into_iter().any(|cell| {
            !self.collapsed.contains_key(&cell)
                && !self.markers.contains_key(&cell)
                && self.neighbours(cell).iter().any(|next| !self.collapsed.contains_key(next))
        });
        if can_enter && seats.iter().any(|seat| self.hand[seat] > 0) {
            return None;
        }
        let strictly_most = |score: &dyn Fn(u8) -> usize| {
            seats.iter().copied().find(|seat| {
                let own = score(*seat);
                own > 0 && seats.iter().all(|other| other == seat || score(*other) < own)
            })
        };
        if let Some(winner) = strictly_most(&|seat| self.territory(seat)) {
            return Some((winner, "territory_control"));
        }
        let gone = |seat: u8| usize::from(self.eliminated[&seat] + self.hand[&seat]);
        if let Some(winner) = strictly_most(&gone) {
            return Some((winner, "ring_elimination"));
        }
        let winner = strictly_most(&|seat| self.own_markers(seat).len()).unwrap_or(last);
        Some((winner, "last_player_standing"))
    }

    fn has_real_action(&self, player: u8) -> bool {
        let cells = self.cells();
        cells.into_iter().any(|cell| self.may_place(player, cell, 1))
            || self.controlled(player).iter().any(|cell| self.can_move_or_capture(*cell))
    }

    /// Section 13.3, at a turn start that follows a rotation.
    pub(super) fn track(&mut self) {
        let player = self.player;
        let alive: Vec<u8> = self.seats().into_iter().filter(|s| self.has_any_ring(*s)).collect();
        if !alive.contains(&player) {
            return;
        }
        if self.tracker.first.is_none_or(|first| !alive.contains(&first)) {
            self.tracker.first = Some(player);
            self.tracker.mask.clear();
            if self.tracker.candidate.is_none_or(|candidate| !alive.contains(&candidate)) {
                self.tracker.streak = 0;
                self.tracker.candidate = None;
            }
        } else if self.tracker.first == Some(player) && !self.tracker.mask.is_empty() {
            let able: Vec<u8> = alive
                .iter()
                .copied()
                .filter(|seat| self.tracker.mask.get(seat) == Some(&true))
                .collect();
            if let [only] = able[..] {
                if self.tracker.candidate == Some(only) {
                    self.tracker.streak = self.tracker.streak.saturating_add(1);
                } else {
                    self.tracker.candidate = Some(only);
                    self.tracker.streak = 1;
                }
            } else {
                self.tracker.candidate = None;
                self.tracker.streak = 0;
            }
            self.tracker.mask.clear();
            self.tracker.first = Some(player);
        }
        let real = self.has_real_action(player);
        self.tracker.mask.insert(player, real);
        let others_cannot =
            alive.iter().all(|seat| *seat == player || !self.has_real_action(*seat));
        if self.tracker.streak >= self.options.lps_rounds
            && self.tracker.candidate == Some(player)
            && real
            && others_cannot
        {
            self.result = Some((player, "last_player_standing_rounds"));
        }
    }
}

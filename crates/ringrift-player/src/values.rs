//! What a position is worth to each seat.

/// Most seats a game has. Source: spec/rules.md section 1.
pub const MAX_SEATS: usize = 4;

/// The worth of one position, one number per seat.
///
/// With two seats a number lies in -1..=1 (lost..won) and the two are exact opposites; with three or four it is the
/// chance to win, 0..=1, and they add up to 1. Source: spec/learning.md section 5, row 5.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values {
    seats: [f32; MAX_SEATS],
    players: u8,
}

impl Values {
    /// Nobody gains anything: the start of a sum.
    pub fn zero(players: usize) -> Self {
        Self { seats: [0.0; MAX_SEATS], players: small(players) }
    }

    /// The worth of a finished game that `winner` (0-based) has won.
    pub fn won(players: usize, winner: usize) -> Self {
        let lost = if players == 2 { -1.0 } else { 0.0 };
        let mut seats = [0.0; MAX_SEATS];
        seats[..players].fill(lost);
        seats[winner] = 1.0;
        Self { seats, players: small(players) }
    }

    /// Turns one raw number per seat into values: what a network says.
    ///
    /// Two seats: tanh of half the difference, so that exchanging the seats flips the sign to the last bit. More: softmax.
    pub fn from_raw(raw: &[f32]) -> Self {
        let mut seats = [0.0; MAX_SEATS];
        if let [own, other] = *raw {
            let value = ((own - other) * 0.5).tanh();
            seats[0] = value;
            seats[1] = -value;
        } else {
            let highest = raw.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for (seat, &x) in seats.iter_mut().zip(raw) {
                *seat = (x - highest).exp();
                sum += *seat;
            }
            for seat in &mut seats[..raw.len()] {
                *seat /= sum;
            }
        }
        Self { seats, players: small(raw.len()) }
    }

    /// One value per seat, seat 1 first.
    pub fn seats(&self) -> &[f32] {
        &self.seats[..usize::from(self.players)]
    }

    /// The value of a seat (0-based) as a chance to win, 0..=1.
    pub fn chance(&self, seat: usize) -> f32 {
        if self.players == 2 { self.seats[seat].midpoint(1.0) } else { self.seats[seat] }
    }

    /// The same values counted from another seat: entry 0 of the result is seat `first` (0-based).
    #[must_use]
    pub fn from_view(&self, first: usize) -> Self {
        let mut rotated = *self;
        rotated.seats[..usize::from(self.players)].rotate_left(first);
        rotated
    }

    /// Undoes [`Values::from_view`]: entry 0 of `self` belongs to seat `first`.
    #[must_use]
    pub fn to_seats(&self, first: usize) -> Self {
        let mut rotated = *self;
        rotated.seats[..usize::from(self.players)].rotate_right(first);
        rotated
    }

    /// Adds `other` times `weight`, seat by seat.
    pub fn add(&mut self, other: &Self, weight: f32) {
        for (sum, x) in self.seats.iter_mut().zip(&other.seats) {
            *sum += x * weight;
        }
    }

    /// The nearest values that a position can have: what a mean of such values loses by rounding is given back.
    #[must_use]
    pub fn in_range(&self) -> Self {
        let mut result = *self;
        let least = if self.players == 2 { -1.0 } else { 0.0 };
        for seat in &mut result.seats {
            *seat = seat.clamp(least, 1.0);
        }
        result
    }

    /// All seats multiplied by `factor`.
    #[must_use]
    pub fn scaled(&self, factor: f32) -> Self {
        let mut result = *self;
        for seat in &mut result.seats {
            *seat *= factor;
        }
        result
    }
}

fn small(players: usize) -> u8 {
    u8::try_from(players).expect("a game has at most four seats")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seats_are_exact_opposites() {
        for (a, b) in [(0.3, -1.7), (12.5, 12.4), (0.0, 0.0), (-30.0, 44.0)] {
            let values = Values::from_raw(&[a, b]);
            let swapped = Values::from_raw(&[b, a]);
            assert_eq!(values.seats()[0].to_bits(), (-values.seats()[1]).to_bits());
            assert_eq!(swapped.seats(), [values.seats()[1], values.seats()[0]]);
        }
    }

    #[test]
    fn three_and_four_seats_add_up_to_one() {
        for raw in [&[0.1, 2.0, -3.0][..], &[90.0, -90.0, 0.0, 89.0][..]] {
            let sum: f32 = Values::from_raw(raw).seats().iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "sum {sum}");
        }
    }

    #[test]
    fn a_view_starts_at_its_seat_and_can_be_undone() {
        let values = Values::from_raw(&[0.1, 2.0, -3.0]);
        let view = values.from_view(2);
        let [one, two, three] = *values.seats() else { panic!("three seats") };
        assert_eq!(view.seats(), [three, one, two]);
        assert_eq!(view.to_seats(2), values);
    }

    #[test]
    fn a_mean_of_values_is_a_value_in_spite_of_rounding() {
        let mut mean = Values::zero(2);
        (0..3).for_each(|_| mean.add(&Values::won(2, 0), 0.333_333_4));
        assert!(mean.seats()[0] > 1.0);
        assert_eq!(mean.in_range().seats(), [1.0, -1.0]);
        assert_eq!(Values::won(3, 1).scaled(0.5).in_range().seats(), [0.0, 0.5, 0.0]);
    }

    #[test]
    fn a_won_game_is_one_for_the_winner_only() {
        assert_eq!(Values::won(2, 1).seats(), [-1.0, 1.0]);
        assert_eq!(Values::won(3, 0).seats(), [1.0, 0.0, 0.0]);
        let chances: Vec<f32> = [0, 1].map(|seat| Values::won(2, 1).chance(seat)).to_vec();
        assert_eq!(chances, [0.0, 1.0]);
    }
}

//! Auxiliary targets: how the game of a row ended, beyond who won.
//!
//! They shape what the hidden layer knows and are no part of play. Source: Wu 2019 (KataGo), where such targets were among the largest
//! gains; spec/learning.md section 3.4.

use ringrift_player::AUXILIARY;

use crate::samples::Samples;

/// Outputs of every view: the seat's share of the cells, its share of the rings that win.
const SHARES: usize = 2;
/// Output of the mover's view: how near the end is.
const NEARNESS: usize = SHARES;
/// Outputs of the mover's view: one for each reason that play can end by.
const REASONS: usize = AUXILIARY - NEARNESS - 1;
/// Moves to the end at which the nearness is one half.
const HALF_WAY: f32 = 32.0;

/// How the game of a row ended, as one seat sees it.
pub(super) struct Ending {
    shares: [f32; SHARES],
    /// Only the mover's view is asked about the game as a whole.
    whole: Option<Whole>,
}

struct Whole {
    nearness: f32,
    reason: usize,
}

impl Ending {
    /// The ending of a row, seen by the seat `view` places after the player to move.
    pub(super) fn of(samples: &Samples, row: usize, view: usize) -> Self {
        let index = |x: i32| usize::try_from(x).expect("samples are checked when read");
        let (seats, game) = (samples.seats(), index(samples.game[row]));
        let seat = (index(samples.mover[row].into()) + view) % seats;
        let at = game * seats + seat;
        let whole = (view == 0).then(|| {
            let left = samples.game_lengths[game] - samples.move_number[row];
            let left = f32::from(i16::try_from(left).unwrap_or(i16::MAX));
            let reason = index(samples.game_reasons[game].into());
            Whole { nearness: HALF_WAY / (HALF_WAY + left), reason }
        });
        Self { shares: [samples.game_territory[at], samples.game_eliminated[at]], whole }
    }

    /// Half the squared error of shares and nearness plus the cross entropy of the reason; `slopes` gets the derivative by output.
    pub(super) fn loss(&self, outputs: &[f32; AUXILIARY], slopes: &mut [f32; AUXILIARY]) -> f64 {
        let mut loss = 0.0;
        let mut square = |at: usize, target: f32| {
            slopes[at] = outputs[at] - target;
            loss += f64::from(slopes[at] * slopes[at]) * 0.5;
        };
        for (at, &share) in self.shares.iter().enumerate() {
            square(at, share);
        }
        let Some(whole) = &self.whole else { return loss };
        square(NEARNESS, whole.nearness);
        // A game that somebody left says nothing of how play ends.
        if whole.reason >= REASONS {
            return loss;
        }
        let logits = &outputs[NEARNESS + 1..];
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|x| (x - highest).exp()).sum();
        for (reason, (&logit, slope)) in logits.iter().zip(&mut slopes[NEARNESS + 1..]).enumerate()
        {
            let log = logit - highest - sum.ln();
            *slope = log.exp();
            if reason == whole.reason {
                *slope -= 1.0;
                loss -= f64::from(log);
            }
        }
        loss
    }
}

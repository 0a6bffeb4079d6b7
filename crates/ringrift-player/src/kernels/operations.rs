//! The arithmetic, written once for any sixteen lanes.

use super::lanes::{LANES, Lanes, ROUNDER};
use super::{AdamStep, Arms, Long, Short};
use crate::encoder::{MOVE_ROWS, MoveRows};
use crate::weights::{ACCUMULATOR, HIDDEN};

const SHORT: usize = HIDDEN / LANES;

#[inline(always)]
fn long(row: &Long) -> &[[f32; LANES]; ACCUMULATOR / LANES] {
    row.as_chunks().0.try_into().expect("a row is a whole number of registers")
}

#[inline(always)]
fn short(row: &Short) -> &[[f32; LANES]; SHORT] {
    row.as_chunks().0.try_into().expect("a row is a whole number of registers")
}

#[inline(always)]
fn short_mut(row: &mut Short) -> &mut [[f32; LANES]; SHORT] {
    row.as_chunks_mut().0.try_into().expect("a row is a whole number of registers")
}

#[inline(always)]
fn load_short<V: Lanes>(row: &Short) -> [V; SHORT] {
    let row = short(row);
    [V::load(&row[0]), V::load(&row[1])]
}

#[inline(always)]
fn store_short<V: Lanes>(values: [V; SHORT], row: &mut Short) {
    for (value, row) in values.into_iter().zip(short_mut(row)) {
        value.store(row);
    }
}

#[inline(always)]
pub(super) fn accumulate<V: Lanes>(
    start: &Long,
    table: &[Long],
    view: &[u32],
    features: &[u32],
    sum: &mut Long,
) {
    // As much at a time as stays in registers.
    if V::MANY {
        accumulate_part::<V, { ACCUMULATOR / LANES }>(start, table, view, features, sum);
    } else {
        accumulate_part::<V, 2>(start, table, view, features, sum);
    }
}

/// How many rows before its turn a row is asked for.
const AHEAD: usize = 8;

#[inline(always)]
fn accumulate_part<V: Lanes, const PART: usize>(
    start: &Long,
    table: &[Long],
    view: &[u32],
    features: &[u32],
    sum: &mut Long,
) {
    for first in (0..ACCUMULATOR / LANES).step_by(PART) {
        let mut sums = [V::splat(0.0); PART];
        for (part, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&long(start)[first + part]);
        }
        for (place, &feature) in features.iter().enumerate() {
            // Most rows come from afar, and no pattern tells the processor which one is next.
            if let Some(&later) = features.get(place + AHEAD) {
                let row = long(&table[view[later as usize] as usize]);
                V::announce(&row[first..first + PART]);
            }
            let row = long(&table[view[feature as usize] as usize]);
            for (part, sum) in sums.iter_mut().enumerate() {
                *sum = sum.plus(V::load(&row[first + part]));
            }
        }
        let (out, _) = sum.as_chunks_mut::<LANES>();
        for (part, sum) in sums.into_iter().enumerate() {
            sum.larger(V::splat(0.0)).store(&mut out[first + part]);
        }
    }
}

#[inline(always)]
fn add_row<V: Lanes>(input: &Long, matrix: &[Short], lane: usize, sum: &mut [V; SHORT]) {
    let x = V::splat(input[lane]);
    for (sum, row) in sum.iter_mut().zip(load_short::<V>(&matrix[lane])) {
        *sum = x.times_plus(row, *sum);
    }
}

#[inline(always)]
pub(super) fn product<V: Lanes>(start: &Short, matrix: &[Short], input: &Long, out: &mut Short) {
    // Two sums, as the next addition to one would have to wait for the last.
    let mut even = load_short::<V>(start);
    let mut odd = [V::splat(0.0); SHORT];
    // About half of the lanes are silent: their rows are not even loaded.
    for (first, lanes) in (0..).step_by(4 * LANES).zip(long(input).as_chunks::<4>().0) {
        let parts = lanes.iter().rev().map(|lanes| u64::from(V::load(lanes).positive()));
        let mut left = parts.fold(0, |all, part| all << LANES | part);
        while left != 0 {
            add_row(input, matrix, first + left.trailing_zeros() as usize, &mut even);
            left &= left - 1;
            if left == 0 {
                break;
            }
            add_row(input, matrix, first + left.trailing_zeros() as usize, &mut odd);
            left &= left - 1;
        }
    }
    store_short([even[0].plus(odd[0]), even[1].plus(odd[1])], out);
}

#[inline(always)]
pub(super) fn value<V: Lanes>(hidden: &Short, weights: &Short) -> f32 {
    let (x, w) = (load_short::<V>(hidden), load_short::<V>(weights));
    let zero = V::splat(0.0);
    x[1].larger(zero).times_plus(w[1], x[0].larger(zero).times(w[0])).sum()
}

#[inline(always)]
pub(super) fn logits<V: Lanes>(
    vector: &Short,
    moves: &[Short],
    bias: &[f32],
    rows: &[MoveRows],
    out: &mut [f32],
) {
    let vector = load_short::<V>(vector);
    let nothing = load_short::<V>(&moves[0]);
    let mut known = [u16::MAX; MOVE_ROWS / 2];
    let mut head = Bag::<V>::empty();
    for (rows, out) in rows.iter().zip(out) {
        let (first, rest) = rows.as_chunks::<{ MOVE_ROWS / 2 }>().0.split_at(1);
        // What neighbours in a list of moves share (stack and direction) comes first.
        if first[0] != known {
            known = first[0];
            head = Bag::empty();
            head.add(&known, moves, bias);
        }
        let mut bag = head;
        bag.add(&rest[0], moves, bias);
        let unused = V::splat(bag.unused);
        let sum =
            [unused.times_plus(nothing[0], bag.sum[0]), unused.times_plus(nothing[1], bag.sum[1])];
        let product = sum[1].times_plus(vector[1], sum[0].times(vector[0]));
        *out = product.sum() + (bag.unused * bias[0] + bag.bias);
    }
}

/// A sum of rows; row 0, which unused places hold, is only counted.
#[derive(Clone, Copy)]
struct Bag<V> {
    sum: [V; SHORT],
    bias: f32,
    unused: f32,
}

impl<V: Lanes> Bag<V> {
    #[inline(always)]
    fn empty() -> Self {
        Self { sum: [V::splat(0.0); SHORT], bias: 0.0, unused: 0.0 }
    }

    #[inline(always)]
    fn add(&mut self, rows: &[u16], moves: &[Short], bias: &[f32]) {
        for &row in rows {
            if row == 0 {
                self.unused += 1.0;
                continue;
            }
            for (sum, row) in self.sum.iter_mut().zip(load_short::<V>(&moves[usize::from(row)])) {
                *sum = sum.plus(row);
            }
            self.bias += bias[usize::from(row)];
        }
    }
}

/// e to the power of `x`, within two units of the last place; no less than e^-87, and not a number if `x` is none.
///
/// Source: the Cephes library, expf: reduction by ln 2 in two parts, and its polynomial of the fifth degree.
#[inline(always)]
fn exp<V: Lanes>(x: V) -> V {
    let x = V::splat(88.0).smaller(V::splat(-87.0).larger(x));
    let rounder = V::splat(ROUNDER);
    let whole = x.times_plus(V::splat(std::f32::consts::LOG2_E), rounder).minus(rounder);
    let rest = whole.times_plus(V::splat(-0.693_359_4), x);
    let rest = whole.times_plus(V::splat(2.121_944_4e-4), rest);
    let mut sum = V::splat(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        sum = sum.times_plus(rest, V::splat(coefficient));
    }
    let fraction = sum.times_plus(rest.times(rest), rest).plus(V::splat(1.0));
    fraction.times(whole.power_of_two())
}

/// Replaces every sixteen numbers by what an expression makes of their place and of them; behind the end it sees `fill`.
///
/// No function with a closure: a closure would be compiled without the instructions of the operation that it is part of.
macro_rules! update {
    ($values:expr, $fill:expr, |$place:pat_param, $x:pat_param| $expression:expr) => {{
        let (whole, rest) = $values.as_chunks_mut::<LANES>();
        let places = whole.len();
        for (place, values) in whole.iter_mut().enumerate() {
            let ($place, $x) = (place, V::load(values));
            $expression.store(values);
        }
        if !rest.is_empty() {
            let ($place, $x) = (places, V::load_part(rest, $fill));
            $expression.store_part(rest);
        }
    }};
}

/// Softmax of scores of which the highest one is known, in place; the logarithm of the sum of all e^score.
#[inline(always)]
fn normalise<V: Lanes>(scores: &mut [f32], highest: V) -> f32 {
    let highest = highest.highest();
    // Behind the end there are the smallest powers, which change no sum of which the largest part is 1.
    let mut sum = V::splat(0.0);
    update!(scores, f32::NEG_INFINITY, |_, score| {
        let power = exp(score.minus(V::splat(highest)));
        sum = sum.plus(power);
        power
    });
    let sum = sum.sum();
    let factor = V::splat(1.0 / sum);
    update!(scores, 0.0, |_, power| power.times(factor));
    highest + sum.ln()
}

/// The sixteen numbers of a slice at a place, `fill` behind its end.
#[inline(always)]
fn load_at<V: Lanes>(values: &[f32], index: usize, fill: f32) -> V {
    let rest = &values[index * LANES..];
    match rest.first_chunk() {
        Some(values) => V::load(values),
        None => V::load_part(rest, fill),
    }
}

#[inline(always)]
pub(super) fn softmax<V: Lanes>(logits: &[f32], out: &mut [f32]) -> f32 {
    assert_eq!(logits.len(), out.len(), "one probability per logit");
    let mut highest = V::splat(f32::NEG_INFINITY);
    update!(out, 0.0, |place, _| {
        let score = load_at::<V>(logits, place, f32::NEG_INFINITY);
        highest = score.larger(highest);
        score
    });
    normalise(out, highest)
}

#[inline(always)]
pub(super) fn improve<V: Lanes>(arms: &Arms<'_>, mixed: f32, factor: f32, out: &mut [f32]) {
    assert_eq!(arms.logits.len(), out.len(), "one probability per arm");
    let (mixed, factor) = (V::splat(mixed), V::splat(factor));
    let mut highest = V::splat(f32::NEG_INFINITY);
    update!(out, 0.0, |place, _| {
        let q = load_at::<V>(arms.q, place, 0.0);
        let completed = q.or_else(load_at(arms.visits, place, 0.0), mixed);
        let score = factor.times_plus(completed, load_at(arms.logits, place, f32::NEG_INFINITY));
        highest = score.larger(highest);
        score
    });
    normalise(out, highest);
}

#[inline(always)]
pub(super) fn laggard<V: Lanes>(policy: &mut [f32], visits: &[f32], whole: f32) -> usize {
    assert_eq!(policy.len(), visits.len(), "one probability per arm");
    let share = V::splat(-1.0 / whole);
    let mut highest = V::splat(f32::NEG_INFINITY);
    update!(policy, f32::NEG_INFINITY, |place, policy| {
        let score = load_at::<V>(visits, place, 0.0).times_plus(share, policy);
        highest = score.larger(highest);
        score
    });
    let highest = highest.highest();
    policy.iter().position(|score| *score >= highest).unwrap_or(0)
}

#[inline(always)]
pub(super) fn dot<V: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let mut sum = V::splat(0.0);
    for index in 0..a.len().div_ceil(LANES) {
        sum = load_at::<V>(a, index, 0.0).times_plus(load_at(b, index, 0.0), sum);
    }
    sum.sum()
}

#[inline(always)]
pub(super) fn product_back<V: Lanes>(up: &Short, transposed: &[Long], back: &mut Long) {
    if V::MANY {
        product_back_part::<V, { ACCUMULATOR / LANES }>(up, transposed, back);
    } else {
        product_back_part::<V, 2>(up, transposed, back);
    }
}

#[inline(always)]
fn product_back_part<V: Lanes, const PART: usize>(
    up: &Short,
    transposed: &[Long],
    back: &mut Long,
) {
    let (out, _) = back.as_chunks_mut::<LANES>();
    for first in (0..ACCUMULATOR / LANES).step_by(PART) {
        let mut sums = [V::splat(0.0); PART];
        for (part, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(&out[first + part]);
        }
        for (&x, row) in up.iter().zip(transposed) {
            let x = V::splat(x);
            let row = long(row);
            for (part, sum) in sums.iter_mut().enumerate() {
                *sum = x.times_plus(V::load(&row[first + part]), *sum);
            }
        }
        for (part, sum) in sums.into_iter().enumerate() {
            sum.store(&mut out[first + part]);
        }
    }
}

#[inline(always)]
pub(super) fn outer<V: Lanes>(inputs: &[Long], ups: &[Short], slopes: &mut [Short]) {
    // A few rows of slopes stay in registers while all samples pass by.
    const ROWS: usize = 4;
    for (first, slopes) in slopes.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        let mut sums = [[V::splat(0.0); SHORT]; ROWS];
        for (sum, slope) in sums.iter_mut().zip(slopes.iter()) {
            *sum = load_short(slope);
        }
        for (input, up) in inputs.iter().zip(ups) {
            let up = load_short::<V>(up);
            let xs = &input.as_chunks::<ROWS>().0[first];
            for (sums, &x) in sums.iter_mut().zip(xs) {
                let x = V::splat(x);
                for (sum, up) in sums.iter_mut().zip(up) {
                    *sum = x.times_plus(up, *sum);
                }
            }
        }
        for (sum, slope) in sums.into_iter().zip(slopes) {
            store_short(sum, slope);
        }
    }
}

#[inline(always)]
pub(super) fn gate<V: Lanes>(input: &Long, back: &mut Long) {
    for (x, back) in long(input).iter().zip(back.as_chunks_mut().0) {
        V::load(back).where_positive(V::load(x)).store(back);
    }
}

#[inline(always)]
pub(super) fn scatter<V: Lanes>(row: &Long, view: &[u32], features: &[u32], table: &mut [Long]) {
    let mut parts = [V::splat(0.0); ACCUMULATOR / LANES];
    for (part, row) in parts.iter_mut().zip(long(row)) {
        *part = V::load(row);
    }
    for &feature in features {
        let sums = &mut table[view[feature as usize] as usize];
        for (part, sum) in parts.iter().zip(sums.as_chunks_mut().0) {
            V::load(sum).plus(*part).store(sum);
        }
    }
}

#[inline(always)]
pub(super) fn moves_back<V: Lanes>(
    vector: &Short,
    shares: &[(u16, f32)],
    moves: &[Short],
    slopes: &mut [Short],
    up: &mut Short,
) {
    let vector = load_short::<V>(vector);
    let mut sums = load_short::<V>(up);
    for &(row, share) in shares {
        let (row, share) = (usize::from(row), V::splat(share));
        let weights = load_short::<V>(&moves[row]);
        let slope = &mut slopes[row];
        let old = load_short::<V>(slope);
        let mut new = old;
        for lane in 0..SHORT {
            sums[lane] = share.times_plus(weights[lane], sums[lane]);
            new[lane] = share.times_plus(vector[lane], old[lane]);
        }
        store_short(new, slope);
    }
    store_short(sums, up);
}

#[inline(always)]
pub(super) fn add<V: Lanes>(values: &[f32], sum: &mut [f32]) {
    assert_eq!(values.len(), sum.len(), "rows of one length");
    update!(sum, 0.0, |place, x| x.plus(load_at::<V>(values, place, 0.0)));
}

#[inline(always)]
pub(super) fn adam<V: Lanes>(
    step: &AdamStep,
    values: &mut [f32],
    slopes: &mut [f32],
    means: &mut [f32],
    squares: &mut [f32],
) {
    let all = values.len();
    assert!(
        slopes.len() == all && means.len() == all && squares.len() == all,
        "one slope, mean and square per number"
    );
    let (xs, x_rest) = values.as_chunks_mut();
    let (gs, g_rest) = slopes.as_chunks_mut();
    let (ms, m_rest) = means.as_chunks_mut();
    let (vs, v_rest) = squares.as_chunks_mut();
    for ((x, slope), (mean, square)) in xs.iter_mut().zip(gs).zip(ms.iter_mut().zip(vs)) {
        adam_lanes::<V>(step, x, slope, mean, square);
    }
    let mut parts = [[0.0; LANES]; 4];
    let rests = [x_rest, g_rest, m_rest, v_rest];
    for (part, rest) in parts.iter_mut().zip(&rests) {
        part[..rest.len()].copy_from_slice(rest);
    }
    let [x, slope, mean, square] = &mut parts;
    adam_lanes::<V>(step, x, slope, mean, square);
    for (part, rest) in parts.iter().zip(rests) {
        rest.copy_from_slice(&part[..rest.len()]);
    }
}

#[inline(always)]
fn adam_lanes<V: Lanes>(
    step: &AdamStep,
    x: &mut [f32; LANES],
    slope: &mut [f32; LANES],
    mean: &mut [f32; LANES],
    square: &mut [f32; LANES],
) {
    let (g, m, v) = (V::load(slope), V::load(mean), V::load(square));
    let m = g.minus(m).times_plus(V::splat(step.mean_gain), m);
    let v = g.times(g).minus(v).times_plus(V::splat(step.square_gain), v);
    m.store(mean);
    v.store(square);
    V::splat(0.0).store(slope);
    let deviation = v.times(V::splat(step.square_scale)).root().plus(V::splat(step.tiny));
    let by = m.times(V::splat(step.mean_scale)).over(deviation);
    let kept = V::load(x).times(V::splat(step.shrink));
    by.times_plus(V::splat(-step.rate), kept).store(x);
}

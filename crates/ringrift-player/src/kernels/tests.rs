use super::*;
use crate::encoder::MOVE_ROWS;

/// What may differ between the portable form and the others: the rounding of products.
const TOLERANCE: f32 = 2e-5;

/// A generator's numbers from -1 to 1.
fn numbers(rng: &mut fastrand::Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

fn row<const N: usize>(rng: &mut fastrand::Rng) -> [f32; N] {
    numbers(rng, N).try_into().unwrap()
}

fn rows<const N: usize>(rng: &mut fastrand::Rng, count: usize) -> Vec<[f32; N]> {
    (0..count).map(|_| row(rng)).collect()
}

/// Everything that one form of the arithmetic makes of the same numbers.
fn results(kernels: Kernels) -> Vec<(&'static str, Vec<f32>)> {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut all = Vec::new();
    let table: Vec<Long> = rows(&mut rng, 90);
    let view: Vec<u32> = (0..90).map(|n| (n * 7 + 3) % 90).collect();
    let features: Vec<u32> = (0..61).map(|_| rng.u32(..90)).collect();
    let mut long: Long = [0.0; ACCUMULATOR];
    kernels.accumulate(&row(&mut rng), &table, &view, &features, &mut long);
    all.push(("accumulate", long.to_vec()));

    let (start, matrix): (Short, Vec<Short>) = (row(&mut rng), rows(&mut rng, ACCUMULATOR));
    let mut short: Short = [0.0; HIDDEN];
    kernels.product(&start, &matrix, &row(&mut rng), &mut short);
    all.push(("product", short.to_vec()));
    all.push(("value", vec![kernels.value(&short, &start)]));

    let (moves, bias): (Vec<Short>, _) = (rows(&mut rng, 50), numbers(&mut rng, 50));
    let keys: Vec<MoveRows> = (0..37)
        .map(|used| {
            let mut keys = [0; MOVE_ROWS];
            keys[..=used % MOVE_ROWS].fill_with(|| rng.u16(..50));
            keys
        })
        .collect();
    let mut logits = vec![0.0; keys.len()];
    kernels.logits(&start, &moves, &bias, &keys, &mut logits);
    all.push(("logits", logits.clone()));

    for len in [1, 15, 16, 17, 37] {
        let mut policy = vec![0.0; len];
        all.push(("log sum", vec![kernels.softmax(&logits[..len], &mut policy)]));
        all.push(("softmax", policy.clone()));
        let visits: Vec<f32> = (0..len).map(|_| f32::from(rng.u8(..3))).collect();
        let q = numbers(&mut rng, len);
        let arms = Arms { logits: &logits[..len], visits: &visits, q: &q };
        kernels.improve(&arms, 0.4, 3.5, &mut policy);
        all.push(("improve", policy.clone()));
        all.push(("dot", vec![kernels.dot(&policy, &q)]));
        let index = kernels.laggard(&mut policy, &visits, 1.0 + visits.iter().sum::<f32>());
        all.push(("laggard", vec![f32::from(u8::try_from(index).unwrap())]));
        let mut sum = q.clone();
        kernels.add(&visits, &mut sum);
        all.push(("add", sum));
    }

    let mut back: Long = row(&mut rng);
    kernels.product_back(&short, &table[..HIDDEN], &mut back);
    kernels.gate(&row(&mut rng), &mut back);
    all.push(("product_back, gate", back.to_vec()));
    let mut slopes = matrix.clone();
    let (inputs, ups): (Vec<Long>, Vec<Short>) = (rows(&mut rng, 5), rows(&mut rng, 5));
    kernels.outer(&inputs, &ups, &mut slopes);
    all.push(("outer", slopes.as_flattened().to_vec()));
    let mut sums = table.clone();
    kernels.scatter(&back, &view, &features, &mut sums);
    all.push(("scatter", sums.as_flattened().to_vec()));
    let shares: Vec<(u16, f32)> = (0..20).map(|_| (rng.u16(..50), rng.f32() - 0.5)).collect();
    let mut slopes = moves.clone();
    kernels.moves_back(&start, &shares, &moves, &mut slopes, &mut short);
    all.push(("moves_back", [slopes.as_flattened(), &short].concat()));

    let step = AdamStep {
        rate: 0.01,
        shrink: 0.999,
        mean_gain: 0.1,
        square_gain: 0.001,
        mean_scale: 5.0,
        square_scale: 200.0,
        tiny: 1e-8,
    };
    let (mut x, mut slope) = (numbers(&mut rng, 37), numbers(&mut rng, 37));
    let (mut mean, mut square) = (numbers(&mut rng, 37), vec![0.3; 37]);
    kernels.adam(&step, &mut x, &mut slope, &mut mean, &mut square);
    all.push(("adam", [x, slope, mean, square].concat()));
    all
}

#[test]
fn every_form_of_the_arithmetic_gives_the_same_and_two_of_them_to_the_last_bit() {
    let forms: Vec<Kernels> = Instructions::ALL.into_iter().filter_map(Kernels::of).collect();
    assert_eq!(forms[0].instructions(), Instructions::Portable);
    let portable = results(forms[0]);
    let others: Vec<_> = forms[1..].iter().map(|kernels| results(*kernels)).collect();
    for (other, kernels) in others.iter().zip(&forms[1..]) {
        for ((name, expected), (_, found)) in portable.iter().zip(other) {
            assert_eq!(expected.len(), found.len());
            for (a, b) in expected.iter().zip(found) {
                let near = (a - b).abs() <= TOLERANCE * a.abs().max(1.0);
                assert!(near, "{name} by {kernels:?}: {b} is not {a}");
            }
        }
    }
    if let [avx2, avx512] = others.as_slice() {
        assert_eq!(avx2, avx512);
    }
    assert_eq!(Kernels::detect().instructions(), forms[forms.len() - 1].instructions());
}

fn forms() -> impl Iterator<Item = Kernels> {
    Instructions::ALL.into_iter().filter_map(Kernels::of)
}

#[test]
fn the_sums_are_those_of_plain_loops() {
    let mut rng = fastrand::Rng::with_seed(8);
    let (start, table): (Long, Vec<Long>) = (row(&mut rng), rows(&mut rng, 5));
    let (short, matrix): (Short, Vec<Short>) = (row(&mut rng), rows(&mut rng, ACCUMULATOR));
    let bias = numbers(&mut rng, ACCUMULATOR);
    let keys: MoveRows = [9, 0, 4, 4, 7, 0, 0, 0];
    for kernels in forms() {
        let mut sum: Long = [0.0; ACCUMULATOR];
        kernels.accumulate(&start, &table, &[4, 3, 2, 1, 0], &[0, 0, 3], &mut sum);
        for (lane, x) in sum.iter().enumerate() {
            let expected = (start[lane] + 2.0 * table[4][lane] + table[1][lane]).max(0.0);
            assert!((x - expected).abs() < 1e-5);
        }
        let mut out: Short = [0.0; HIDDEN];
        kernels.product(&short, &matrix, &sum, &mut out);
        for (lane, x) in out.iter().enumerate() {
            let products = sum.iter().zip(&matrix).map(|(x, row)| x.max(0.0) * row[lane]);
            assert!((x - short[lane] - products.sum::<f32>()).abs() < 1e-4);
        }
        let mut logit = [0.0];
        kernels.logits(&short, &matrix, &bias, &[keys], &mut logit);
        let sum = |of: &dyn Fn(usize) -> f32| keys.iter().map(|key| of(usize::from(*key))).sum();
        let product = |key: usize| matrix[key].iter().zip(&short).map(|(w, x)| w * x).sum::<f32>();
        let expected: f32 = sum(&|key| bias[key] + product(key));
        assert!((logit[0] - expected).abs() < 1e-4, "{} {expected}", logit[0]);
    }
}

#[test]
fn probabilities_are_those_of_the_library_and_extremes_stay_finite() {
    for kernels in forms() {
        let logits: Vec<f32> = (0..200_u8).map(|n| f32::from(n) * 0.4 - 40.0).collect();
        let mut policy = vec![0.0; logits.len()];
        let log_sum = kernels.softmax(&logits, &mut policy);
        let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        assert!((f64::from(log_sum) - sum.ln()).abs() < 1e-5);
        for (x, p) in logits.iter().zip(&policy) {
            let expected = f64::from(*x).exp() / sum;
            // The difference to the largest logit is rounded, which its power multiplies.
            assert!((f64::from(*p) - expected).abs() <= 1e-5 * expected, "{x} {p}");
        }
        kernels.softmax(&[-1e30, 3.0, -1e30], &mut policy[..3]);
        assert!(policy[0] < 1e-30 && policy[1] > 0.999_999);
        kernels.softmax(&[f32::NAN, 3.0, 1.0], &mut policy[..3]);
        assert!(policy[..3].iter().any(|p| p.is_nan()), "what is no number must not be hidden");
    }
}

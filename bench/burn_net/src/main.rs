//! The network in burn on one core, for `cargo xtask bench learn`: prints one JSON object.
//! `burn-net FOLDER SECONDS`, with what the example `bench` of ringrift-learn leaves in FOLDER.
//!
//! Everything that a batch needs is put together before the clock starts, so that only the library is measured.

use std::time::Duration;

use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rustix::time::{ClockId, clock_gettime};
use safetensors::SafeTensors;
use serde::Deserialize;

const INFERENCE_BATCH: usize = 64;
const TRAINING_BATCH: usize = 256;
const ACCUMULATOR: usize = 128;
const SHORT: usize = 32;
const MOVE_ROWS: usize = 8;

#[derive(Deserialize)]
struct Handed {
    features: usize,
    rows: usize,
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    views: Vec<Vec<i64>>,
    rows: Vec<[i64; MOVE_ROWS]>,
    policy: Vec<f32>,
    chance: f32,
    logits: Vec<f32>,
    value: f32,
}

#[derive(Module, Debug)]
struct Net {
    features: Param<Tensor<2>>,
    features_bias: Param<Tensor<2>>,
    hidden: Param<Tensor<2>>,
    hidden_bias: Param<Tensor<2>>,
    value: Param<Tensor<2>>,
    policy: Param<Tensor<2>>,
    policy_bias: Param<Tensor<2>>,
    moves: Param<Tensor<2>>,
    moves_bias: Param<Tensor<2>>,
}

impl Net {
    fn read(bytes: &[u8], handed: &Handed, device: &Device) -> Self {
        let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
        let read = |name: &str, rows: usize, columns: usize, pad: usize| {
            let view = file.tensor(name).expect("a tensor of this name");
            let (chunks, _) = view.data().as_chunks::<4>();
            let mut values: Vec<f32> = chunks.iter().map(|x| f32::from_le_bytes(*x)).collect();
            values.resize((rows + pad) * columns, 0.0);
            let data = TensorData::new(values, [rows + pad, columns]);
            Param::from_tensor(Tensor::<2>::from_data(data, device))
        };
        Self {
            // The last row is zero: what shorter lists of features are filled up with.
            features: read("features.weight", handed.features, ACCUMULATOR, 1),
            features_bias: read("features.bias", 1, ACCUMULATOR, 0),
            hidden: read("hidden.weight", ACCUMULATOR, SHORT, 0),
            hidden_bias: read("hidden.bias", 1, SHORT, 0),
            value: read("value.weight", SHORT, 1, 0),
            policy: read("policy.weight", ACCUMULATOR, SHORT, 0),
            policy_bias: read("policy.bias", 1, SHORT, 0),
            moves: read("moves.weight", handed.rows, SHORT, 0),
            moves_bias: read("moves.bias", handed.rows, 1, 0),
        }
    }

    fn forward(&self, batch: &Batch) -> (Tensor<2>, Tensor<1>) {
        let (count, seats) = (batch.count, batch.seats);
        let rows = self.features.val().select(0, batch.features.clone());
        let sums = rows.reshape([count * seats, batch.most_features, ACCUMULATOR]).sum_dim(1);
        let sums = sums.reshape([count * seats, ACCUMULATOR]);
        let accumulator = relu(sums + self.features_bias.val());
        let hidden = accumulator.clone().matmul(self.hidden.val()) + self.hidden_bias.val();
        let raw = relu(hidden).matmul(self.value.val()).reshape([count, seats]);
        let mover = accumulator.select(0, batch.movers.clone());
        let vector = mover.matmul(self.policy.val()) + self.policy_bias.val();
        let moves = batch.moves;
        let rows = self.moves.val().select(0, batch.rows.clone());
        let rows = rows.reshape([moves, MOVE_ROWS, SHORT]).sum_dim(1).reshape([moves, SHORT]);
        let product = (rows * vector.select(0, batch.owners.clone())).sum_dim(1);
        let bias = self.moves_bias.val().select(0, batch.rows.clone());
        let bias = bias.reshape([moves, MOVE_ROWS]).sum_dim(1);
        (raw, (product + bias).reshape([moves]))
    }
}

struct Batch {
    count: usize,
    seats: usize,
    most_features: usize,
    moves: usize,
    most_moves: usize,
    features: Tensor<1, Int>,
    movers: Tensor<1, Int>,
    rows: Tensor<1, Int>,
    owners: Tensor<1, Int>,
    /// For every place of the table of logits, which one stands there; one behind the last where there is none.
    places: Tensor<1, Int>,
    policy: Tensor<2>,
    chances: Tensor<2>,
}

impl Batch {
    fn new(positions: &[Position], pad: usize, device: &Device) -> Self {
        let views = || positions.iter().flat_map(|position| &position.views);
        let most_features = views().map(Vec::len).max().unwrap_or(1);
        let most_moves = positions.iter().map(|position| position.rows.len()).max().unwrap_or(1);
        let moves: usize = positions.iter().map(|position| position.rows.len()).sum();
        let seats = positions[0].views.len();
        let (mut features, mut owners, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for view in views() {
            features.extend_from_slice(view);
            features.resize(features.len() + most_features - view.len(), pad as i64);
        }
        let (mut policy, mut chances) = (Vec::new(), Vec::new());
        for (owner, position) in positions.iter().enumerate() {
            let first = owners.len() as i64;
            let own = position.rows.len();
            owners.extend(std::iter::repeat_n(owner as i64, own));
            places.extend(first..first + own as i64);
            places.resize((owner + 1) * most_moves, moves as i64);
            policy.extend_from_slice(&position.policy);
            policy.resize((owner + 1) * most_moves, 0.0);
            chances.extend([position.chance, 1.0 - position.chance]);
        }
        let rows: Vec<i64> = positions.iter().flat_map(|p| p.rows.iter().flatten().copied()).collect();
        let movers = (0..positions.len()).map(|position| (position * seats) as i64).collect();
        let ints = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), device)
        };
        let count = positions.len();
        Self {
            count,
            seats,
            most_features,
            moves,
            most_moves,
            features: ints(features),
            movers: ints(movers),
            rows: ints(rows),
            owners: ints(owners),
            places: ints(places),
            policy: Tensor::from_data(TensorData::new(policy, [count, most_moves]), device),
            chances: Tensor::from_data(TensorData::new(chances, [count, 2]), device),
        }
    }

    fn loss(&self, net: &Net, device: &Device) -> Tensor<1> {
        let (raw, logits) = net.forward(self);
        let none = Tensor::<1>::from_floats([-1e9], device);
        let table = Tensor::cat(vec![logits, none], 0).select(0, self.places.clone());
        let table = table.reshape([self.count, self.most_moves]);
        let policy = (log_softmax(table, 1) * self.policy.clone()).sum();
        let value = (log_softmax(raw, 1) * self.chances.clone()).sum();
        (policy + value).div_scalar(-(self.count as f32))
    }
}

fn clock() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("the clock goes on")
}

/// The best of three attempts, in positions per second of processor time.
fn per_second(batches: &[Batch], size: usize, seconds: f64, mut work: impl FnMut(&Batch)) -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let (start, mut done) = (clock(), 0);
        let took = loop {
            batches.iter().for_each(&mut work);
            done += size * batches.len();
            let took = (clock() - start).as_secs_f64();
            if took >= seconds / 3.0 {
                break took;
            }
        };
        best = best.max(done as f64 / took);
    }
    best
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, seconds] = words.as_slice() else { panic!("usage: burn-net FOLDER SECONDS") };
    let seconds: f64 = seconds.parse().expect("a number of seconds");
    let read = |name: &str| std::fs::read(format!("{folder}/{name}")).expect("a file to read");
    let handed: Handed = serde_json::from_slice(&read("positions.json")).expect("positions");
    let weights = read("network.safetensors");
    let positions = &handed.positions;
    let cut = |size: usize, device: &Device| -> Vec<Batch> {
        positions.chunks_exact(size).map(|part| Batch::new(part, handed.features, device)).collect()
    };

    let device = Device::flex();
    let net = Net::read(&weights, &handed, &device).no_grad();
    let (raw, logits) = net.forward(&Batch::new(positions, handed.features, &device));
    let raw: Vec<f32> = raw.into_data().try_to_vec::<f32>().expect("numbers");
    let logits: Vec<f32> = logits.into_data().try_to_vec::<f32>().expect("numbers");
    let values = raw.chunks(2).map(|raw| ((raw[0] - raw[1]) / 2.0).tanh());
    let expected = positions.iter().map(|position| position.value);
    let difference = values
        .zip(expected)
        .chain(logits.iter().copied().zip(positions.iter().flat_map(|p| p.logits.iter().copied())))
        .map(|(found, expected)| (found - expected).abs())
        .fold(0.0, f32::max);
    let evaluate = |batch: &Batch| {
        let (raw, logits) = net.forward(batch);
        std::hint::black_box((raw.into_data(), logits.into_data()));
    };
    let single = per_second(&cut(1, &device), 1, seconds, evaluate);
    let batched = per_second(&cut(INFERENCE_BATCH, &device), INFERENCE_BATCH, seconds, evaluate);

    let device = device.autodiff();
    let mut net = Some(Net::read(&weights, &handed, &device));
    let mut optimiser = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(1.0).init();
    let trained = per_second(&cut(TRAINING_BATCH, &device), TRAINING_BATCH, seconds, |batch| {
        let learner = net.take().expect("it is put back after every step");
        let gradients = batch.loss(&learner, &device).backward();
        let gradients = GradientsParams::from_grads(gradients, &learner);
        net = Some(optimiser.step(2e-3, learner, gradients));
    });
    let printed = serde_json::json!({
        "version": "0.22.1",
        "difference": difference,
        "single": single,
        "batched": batched,
        "trained": trained,
    });
    println!("{printed}");
}

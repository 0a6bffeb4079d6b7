use std::path::PathBuf;

use super::*;
use crate::progress::Unwatched;
use crate::testing::{StopAfter, config, samples};

fn settings(steps: u32) -> Settings {
    Settings { steps, batch: 16, warmup: 2, checkpoint_steps: 4, ..Settings::default() }
}

fn out(folder: &Path, name: &str) -> PathBuf {
    let out = folder.join(name);
    fs_err::create_dir_all(&out).unwrap();
    out
}

/// Compares the gradient of a whole row with differences of the loss, for the largest slopes of every tensor.
#[test]
fn the_gradient_agrees_with_a_numeric_derivative() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hex8_2p", "square8_3p"] {
        let samples = Samples::read(&samples(folder.path(), config(name), 2, 1)).unwrap();
        let network = Network::random(config(name), 5);
        let tables = Tables::new(network.encoder());
        let targets = samples.value_targets(0.9);
        let row = (0..samples.len()).find(|&row| samples.policy(row).len() > 3).unwrap();
        let symmetry = 3;
        let (value_weight, auxiliary_weight) = (0.7, 0.4);
        let kernels = network.kernels();
        let loss = |weights: &Weights, learning: Option<Learning<'_>>| {
            let pass = Pass {
                kernels,
                samples: &samples,
                tables: &tables,
                targets: &targets,
                value_weight,
                auxiliary_weight,
                weights,
            };
            let loss = pass.row(row, symmetry, learning, &mut Workspace::default());
            loss.policy
                + f64::from(value_weight) * loss.value
                + f64::from(auxiliary_weight) * loss.auxiliary
        };
        let mut gradient = Gradient::zero(network.encoder());
        let transposed = Transposed::of(network.weights());
        let learning = Learning { gradient: &mut gradient, transposed: &transposed, scale: 1.0 };
        loss(network.weights(), Some(learning));
        let gradient = gradient.complete(kernels).sums;
        for tensor in 0..gradient.tensors().len() {
            let slopes = gradient.tensors()[tensor];
            let mut order: Vec<usize> = (0..slopes.len()).collect();
            order.sort_by(|&a, &b| slopes[b].abs().total_cmp(&slopes[a].abs()));
            for &index in order.iter().take(5) {
                let shifted = |by: f32| {
                    let mut weights = network.weights().clone();
                    weights.tensors_mut()[tensor][index] += by;
                    loss(&weights, None)
                };
                let step = 1e-3;
                let numeric = (shifted(step) - shifted(-step)) / (2.0 * f64::from(step));
                let found = f64::from(slopes[index]);
                assert!(
                    (numeric - found).abs() < 2e-2 * found.abs().max(0.05),
                    "{name}, tensor {tensor}, {index}: {found} is not {numeric}"
                );
            }
            assert!(slopes.iter().any(|slope| *slope != 0.0), "tensor {tensor} learns nothing");
        }
    }
}

#[test]
fn an_interrupted_training_gives_the_same_network_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let window = samples(folder.path(), config("hex8_2p"), 6, 1);
    let whole = out(folder.path(), "whole");
    let parts = out(folder.path(), "parts");
    let expected = run(&settings(21), &window, None, &whole, &mut Unwatched).unwrap();
    let mut report = Report::default();
    // Stopped in mid-stretch of the curve, at a checkpoint and between two.
    for beats in [7, 4, 6] {
        report = run(&settings(21), &window, None, &parts, &mut StopAfter(beats)).unwrap();
        assert!(!report.finished && report.hash.is_empty());
    }
    assert_eq!(report.steps, 17);
    let report = run(&settings(21), &window, None, &parts, &mut Unwatched).unwrap();
    assert_eq!((report.finished, report.steps), (true, 21));
    assert_eq!(report.hash, expected.hash);
    assert_eq!(report.curve, expected.curve);
    assert_eq!(report.validation, expected.validation);
    assert_eq!(fs_err::read(&report.file).unwrap(), fs_err::read(&expected.file).unwrap());
    assert!(!parts.join(CHECKPOINT_FILE).exists());

    let network = Network::from_bytes(&fs_err::read(&report.file).unwrap()).unwrap();
    assert_eq!(network.generation(), 1);
}

#[test]
fn training_lowers_both_losses_on_what_it_learns_from() {
    let folder = tempfile::tempdir().unwrap();
    let window = samples(folder.path(), config("square8_2p"), 4, 1);
    let settings = Settings {
        batch: 64,
        rate: 5e-3,
        weight_decay: 0.0,
        lambda: 1.0,
        validation_share: 0.0,
        ..settings(200)
    };
    let out = out(folder.path(), "out");
    let report = run(&settings, &window, None, &out, &mut Unwatched).unwrap();
    let (first, last) = (report.curve[0], report.curve[report.curve.len() - 1]);
    assert!(last.policy_loss < first.policy_loss * 0.97, "{first:?} {last:?}");
    assert!(last.value_loss < first.value_loss * 0.9, "{first:?} {last:?}");
    assert_eq!((report.validation, report.curve.len()), (None, 20));
}

fn check_refused(result: anyhow::Result<Report>, sentence: &str) {
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains(sentence), "{error}");
}

#[test]
fn what_cannot_be_learned_from_is_refused_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = samples(folder.path(), config("hex8_2p"), 3, 1);
    let out = out(folder.path(), "out");
    let train = |settings: &Settings, window: &Path, parent: Option<&[u8]>| {
        run(settings, window, parent, &out, &mut Unwatched)
    };
    let foreign = Network::random(config("square8_2p"), 1).to_bytes();
    check_refused(train(&settings(2), &path, Some(&foreign)), "has config \"square8_2p\"");
    let wild = Settings { rate: 1e30, warmup: 0, ..settings(9) };
    check_refused(train(&wild, &path, None), "is not a finite number");
    assert!(!out.join(CANDIDATE_FILE).exists());
    check_refused(train(&Settings { lambda: 1.5, ..settings(2) }, &path, None), "lambda is 1.5");

    // Rows without any policy target.
    let mut samples = Samples::read(&path).unwrap();
    samples.policy_offsets.fill(0);
    samples.policy_rows.clear();
    samples.policy_values.clear();
    let mute = folder.path().join("mute.npz");
    samples.write(&mute).unwrap();
    check_refused(train(&settings(2), &mute, None), "no row of the window has a policy target");

    // A checkpoint of another training.
    run(&settings(9), &path, None, &out, &mut StopAfter(3)).unwrap();
    check_refused(train(&settings(10), &path, None), "belongs to a training with other settings");
    let checkpoint = out.join(CHECKPOINT_FILE);
    let mut bytes = fs_err::read(&checkpoint).unwrap();
    bytes.truncate(bytes.len() - 3);
    fs_err::write(&checkpoint, bytes).unwrap();
    check_refused(train(&settings(9), &path, None), "the network file is damaged");
}

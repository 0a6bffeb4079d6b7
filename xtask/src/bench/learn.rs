//! The network beside PyTorch and burn: the same weights, the same positions of self-play, one core each, in one run.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::torch;
use crate::workspace::{Workspace, capture};

const CONFIG: &str = "square8_2p";
/// Games of self-play that the positions come from.
const GAMES: &str = "200";
/// Seconds of processor time per figure.
const SECONDS: &str = "6";
/// The goals. Source: issue 6, "T1, T2, T3".
const INFERENCE_GOAL: f64 = 3.0;
const TRAINING_GOAL: f64 = 1.5;
/// Source: spec/learning.md section 4, T1 to T3; games of two processes on two cores.
const GAMES_GOAL: f64 = 15.0;
const TRAINED_GOAL: f64 = 120_000.0;
const NETWORK_GOAL: f64 = 1_000_000.0;
/// How far the outputs of two programs may lie apart. Source: spec/learning.md section 4, I1.
const SAME: f64 = 1e-4;

/// What the example `bench` of `ringrift-learn` prints.
#[derive(Deserialize)]
struct Ours {
    config: String,
    kernels: String,
    games_per_second: f64,
    simulations_per_second: f64,
    features: f64,
    moves: f64,
    network_per_second: f64,
    network_batch_per_second: f64,
    value_per_second: f64,
    evaluate_per_second: f64,
    encode_per_second: f64,
    encode_moves_per_second: f64,
    legal_moves_per_second: f64,
    trained_per_second: f64,
}

/// What the other programs print.
#[derive(Deserialize)]
struct Theirs {
    version: String,
    difference: f64,
    single: f64,
    batched: f64,
    trained: f64,
}

/// Measures and prints; the words may be `--peers` and some of `torch,burn`, and `--kernels` and their name.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let choice = match Choice::read(words) {
        Ok(choice) => choice,
        Err(sentence) => {
            eprintln!("{sentence}");
            return Ok(ExitCode::from(2));
        }
    };
    let home = tempfile::tempdir()?;
    eprintln!("ours: {GAMES} games of self-play, network, training");
    let ours: Ours = read(&ours(workspace, home.path(), &choice)?)?;
    let peers = choice.peers.iter().map(|&name| {
        eprintln!("{name}: inference and training");
        let measured = match name {
            "torch" => torch(workspace, home.path()),
            _ => burn(workspace, home.path()),
        };
        let checked = measured.and_then(|text| {
            let theirs: Theirs = read(&text)?;
            let far = theirs.difference;
            ensure!(far <= SAME, "its outputs lie {far} from ours: not the same network");
            Ok(theirs)
        });
        (name, checked)
    });
    let peers: Vec<(&str, anyhow::Result<Theirs>)> = peers.collect();
    for line in table(&ours, &peers) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

const PEERS: [&str; 2] = ["torch", "burn"];

struct Choice {
    peers: Vec<&'static str>,
    kernels: Option<String>,
}

impl Choice {
    fn read(words: &[&str]) -> Result<Self, String> {
        let mut choice = Self { peers: PEERS.to_vec(), kernels: None };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let value = words.next().ok_or(format!("{word} wants a value"));
            match word {
                "--peers" => {
                    let names = value?.split(',').filter(|name| *name != "none");
                    let known = |name| PEERS.into_iter().find(|known| *known == name);
                    choice.peers = names
                        .map(|name| {
                            known(name).ok_or(format!(
                                "no peer `{name}`; there are: {}, none",
                                PEERS.join(", ")
                            ))
                        })
                        .collect::<Result<_, _>>()?;
                }
                "--kernels" => choice.kernels = Some((*value?).to_owned()),
                _ => {
                    return Err(format!(
                        "bench learn knows no `{word}`; allowed are --peers and --kernels"
                    ));
                }
            }
        }
        Ok(choice)
    }
}

fn ours(workspace: &Workspace, home: &Path, choice: &Choice) -> anyhow::Result<String> {
    let mut command = workspace.cargo(&["run", "--quiet", "--release", "--package"]);
    command.args(["ringrift-learn", "--example", "learn_bench", "--", CONFIG]);
    command.arg(home).args([GAMES, SECONDS]).args(&choice.kernels);
    capture(command).context("run the example learn_bench")
}

fn torch(workspace: &Workspace, home: &Path) -> anyhow::Result<String> {
    let mut command = workspace.command(torch::python(workspace)?);
    command.arg("-Wignore").arg(workspace.root().join("bench/torch_net.py"));
    command.arg(home).arg(SECONDS).env("OMP_NUM_THREADS", "1");
    capture(command).context("run bench/torch_net.py")
}

fn burn(workspace: &Workspace, home: &Path) -> anyhow::Result<String> {
    eprintln!("burn: building it takes minutes, once");
    let mut command = workspace.cargo(&["run", "--quiet", "--release", "--locked"]);
    command.arg("--manifest-path").arg(workspace.root().join("bench/burn_net/Cargo.toml"));
    command.env("CARGO_TARGET_DIR", workspace.root().join("target/burn_net"));
    command.arg("--").arg(home).arg(SECONDS);
    capture(command).context("build and run bench/burn_net")
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).with_context(|| format!("read what it printed: {text}"))
}

/// Title, our figure, theirs, and how many times theirs ours should be.
type Row = (&'static str, f64, fn(&Theirs) -> f64, f64);

fn table(ours: &Ours, peers: &[(&str, anyhow::Result<Theirs>)]) -> Vec<String> {
    let rows: [Row; 3] = [
        ("network, one position", ours.network_per_second, |it| it.single, INFERENCE_GOAL),
        ("network, batches of 64", ours.network_batch_per_second, |it| it.batched, INFERENCE_GOAL),
        ("training, batches of 256", ours.trained_per_second, |it| it.trained, TRAINING_GOAL),
    ];
    let mut lines = vec![format!("{:<26} {:>10}  beside", "positions a second", "ours")];
    for (title, figure, theirs, goal) in rows {
        let mut beside = Vec::new();
        for (name, peer) in peers {
            let Ok(peer) = peer else { continue };
            let ratio = figure / theirs(peer);
            // The goals are about PyTorch.
            let verdict = match (*name, ratio >= goal) {
                ("torch", true) => format!(" (goal {goal}x met)"),
                ("torch", false) => format!(" (goal {goal}x NOT met)"),
                _ => String::new(),
            };
            beside.push(format!("{name} {:.0} x{ratio:.1}{verdict}", theirs(peer)));
        }
        let beside = if beside.is_empty() { "-".to_owned() } else { beside.join(", ") };
        lines.push(format!("{title:<26} {figure:>10.0}  {beside}"));
    }
    let goal = |figure: f64, goal: f64| {
        format!("goal {goal:.0} {}", if figure >= goal { "met" } else { "NOT met" })
    };
    lines.push(format!(
        "{:<26} {:>10.0}  {}",
        "network without moves",
        ours.value_per_second,
        goal(ours.value_per_second, NETWORK_GOAL)
    ));
    for (title, figure) in [
        ("encoding and network", ours.evaluate_per_second),
        ("encoding of positions", ours.encode_per_second),
        ("encoding of their moves", ours.encode_moves_per_second),
        ("their legal lists", ours.legal_moves_per_second),
        ("simulations of a search", ours.simulations_per_second),
    ] {
        lines.push(format!("{title:<26} {figure:>10.0}"));
    }
    lines.push(format!(
        "training: {}; self-play with 64 simulations a decision: {:.1} games/s a core, on two {}",
        goal(ours.trained_per_second, TRAINED_GOAL),
        ours.games_per_second,
        goal(ours.games_per_second * 2.0, GAMES_GOAL)
    ));
    lines.push(format!(
        "{}, {} kernels; a position has {:.0} features seen by each seat, and {:.0} moves",
        ours.config, ours.kernels, ours.features, ours.moves
    ));
    lines.push(
        "ours trains with order, symmetries and auxiliary outputs, the others without; a second is one of processor time"
            .to_owned(),
    );
    for (name, peer) in peers {
        lines.push(match peer {
            Ok(peer) => {
                format!("{name} {}, outputs within {:.0e} of ours", peer.version, peer.difference)
            }
            Err(why) => format!("{name} is not measured: {why:#}"),
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Ours {
        let text = r#"{"config":"square8_2p","kernels":"avx2","games_per_second":7.4,
            "simulations_per_second":1,"features":50.2,"moves":47.9,"network_per_second":900000,
            "network_batch_per_second":1000000,"value_per_second":1000000,"evaluate_per_second":1,
            "encode_per_second":1,"encode_moves_per_second":1,"legal_moves_per_second":1,
            "trained_per_second":120000,"extra":1}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_table_shows_ratios_and_goals_of_the_same_network_alone() {
        let torch =
            r#"{"version":"2","difference":1e-6,"single":20000,"batched":500000,"trained":60000}"#;
        let peers =
            [("torch", read::<Theirs>(torch)), ("burn", Err(anyhow::anyhow!("it does not build")))];
        let lines = table(&ours(), &peers);
        for (line, part) in [
            (1, "network, one position          900000  torch 20000 x45.0 (goal 3x met)"),
            (2, "torch 500000 x2.0 (goal 3x NOT met)"),
            (3, "torch 60000 x2.0 (goal 1.5x met)"),
            (4, "goal 1000000 met"),
            (
                10,
                "goal 120000 met; self-play with 64 simulations a decision: 7.4 games/s a core, on two goal 15 NOT met",
            ),
            (
                11,
                "square8_2p, avx2 kernels; a position has 50 features seen by each seat, and 48 moves",
            ),
            (13, "torch 2, outputs within 1e-6 of ours"),
            (14, "burn is not measured: it does not build"),
        ] {
            assert!(lines[line].contains(part), "{part} is missing: {}", lines[line]);
        }
    }

    #[test]
    fn without_peers_there_are_no_ratios() {
        assert!(table(&ours(), &[])[1].ends_with('-'));
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let refused = |words: &[&str]| Choice::read(words).err().unwrap();
        assert_eq!(refused(&["--peers", "jax"]), "no peer `jax`; there are: torch, burn, none");
        assert_eq!(refused(&["--peers"]), "--peers wants a value");
        assert_eq!(
            refused(&["fast", "x"]),
            "bench learn knows no `fast`; allowed are --peers and --kernels"
        );
        assert!(Choice::read(&["--peers", "none"]).unwrap().peers.is_empty());
    }
}

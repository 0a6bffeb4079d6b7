//! The loop without daemons, on one config: prints what every iteration costs and how strong its network is.
//!
//! `cargo run --release -p ringrift-learn --example loop -- hex8_2p FOLDER [key=value ...]`, where a key is a field of a settings
//! struct with its section, for example `selfplay.games=200 train.steps=400 iterations=6`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ringrift_learn::{Flow, Progress, arena, combine, export, selfplay, train};
use ringrift_player::{Network, PlayerSpec};
use ringrift_rules::Config;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[expect(
    clippy::disallowed_types,
    reason = "an example without tests needs no clock that can be paused"
)]
type Clock = std::time::Instant;

struct Watch(Clock);

impl Progress for Watch {
    fn beat(&mut self, _done: u64, _total: u64) -> Flow {
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn watch() -> Watch {
    Watch(Clock::now())
}

/// Settings of a section: the defaults with what the command line changes.
fn settings<T: Serialize + DeserializeOwned + Default>(
    section: &str,
    arguments: &[(String, String)],
) -> anyhow::Result<T> {
    let mut value = serde_json::to_value(T::default())?;
    for (key, text) in arguments {
        if let Some((part, field)) = key.split_once('.')
            && part == section
        {
            value[field] = serde_json::from_str(text).with_context(|| format!("{key}={text}"))?;
        }
    }
    Ok(serde_json::from_value(value)?)
}

fn number(arguments: &[(String, String)], name: &str, default: u32) -> anyhow::Result<u32> {
    match arguments.iter().find(|(key, _)| key == name) {
        Some((_, text)) => Ok(text.parse()?),
        None => Ok(default),
    }
}

/// Plays a match between two players; a model's source is its file.
fn play(
    settings: &arena::Settings,
    config: Config,
    a: &str,
    b: &str,
) -> anyhow::Result<arena::Report> {
    let load = |path: &str| Ok(fs_err::read(path)?);
    let mut a = a.parse::<PlayerSpec>()?.open(config, load)?;
    let mut b = b.parse::<PlayerSpec>()?.open(config, load)?;
    arena::run(settings, config, &mut *a, &mut *b, None, &mut watch())
}

fn model(path: &Path, simulations: u32) -> String {
    format!("model:{}@{simulations}", path.display())
}

#[expect(clippy::print_stdout, reason = "the figures are what this example is for")]
fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(config), Some(folder)) = (words.next(), words.next()) else {
        bail!("usage: loop CONFIG FOLDER [key=value ...]");
    };
    let config: Config = config.parse()?;
    let folder = PathBuf::from(folder);
    let arguments: Vec<(String, String)> = words
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => bail!("{word:?} is not key=value"),
        })
        .collect::<anyhow::Result<_>>()?;
    let iterations = number(&arguments, "iterations", 8)?;
    let simulations = number(&arguments, "simulations", 32)?;
    let seed = number(&arguments, "seed", 1)?;
    let check = arena::Settings { pairs: 100, test: None, seed: 77 };

    fs_err::create_dir_all(&folder)?;
    let first = folder.join("model0.safetensors");
    fs_err::write(&first, Network::random(config, seed.into()).to_bytes())?;
    let (mut champion, mut newest) = (first.clone(), first.clone());
    let mut first_promoted: Option<PathBuf> = None;
    let mut samples = Vec::new();
    let start = Clock::now();
    for iteration in 1..=iterations {
        let out = folder.join(format!("iteration{iteration}"));
        fs_err::create_dir_all(&out)?;
        let mut play_settings: selfplay::Settings = settings("selfplay", &arguments)?;
        play_settings.seed = u64::from(seed) * 1000 + u64::from(iteration);
        let played = selfplay::run(
            &play_settings,
            config,
            &fs_err::read(&newest)?,
            &[],
            &out,
            &mut watch(),
        )?;
        let exported = export::run(
            &settings("export", &arguments)?,
            config,
            std::slice::from_ref(&played.file),
            &out,
            &mut watch(),
        )?;
        samples.push(exported.file.clone());
        let window = combine::run(&settings("combine", &arguments)?, &samples, &out, &mut watch())?;
        let trained = train::run(
            &settings("train", &arguments)?,
            &window.file,
            Some(&fs_err::read(&newest)?),
            &out,
            &mut watch(),
        )?;
        newest.clone_from(&trained.file);
        let mut test: arena::Settings = settings("arena", &arguments)?;
        test.seed = u64::from(iteration);
        let verdict =
            play(&test, config, &model(&newest, simulations), &model(&champion, simulations))?;
        let promoted = verdict.decision == Some(arena::Decision::H1);
        println!(
            "{iteration}: {:.0} s | {} games {:.1} s wins {:?} length {:.0} {:?} | export {:.1} s | \
             window {} rows | train {:.1} s {:.0}/s policy {:.3} value {:.3} validation {:?} | match \
             {} games {:.1} s score {:.2} {:?}",
            start.elapsed().as_secs_f64(),
            played.games,
            played.seconds,
            played.wins,
            played.mean_length,
            played.reasons,
            exported.seconds,
            window.rows,
            trained.seconds,
            trained.samples_per_second,
            trained.curve.last().map_or(0.0, |point| point.policy_loss),
            trained.curve.last().map_or(0.0, |point| point.value_loss),
            trained.validation.map(|both| both.map(|p| (p.policy_loss, p.value_loss))),
            verdict.games,
            verdict.seconds,
            verdict.score,
            verdict.decision,
        );
        if promoted {
            champion.clone_from(&newest);
            let against_first =
                play(&check, config, &model(&champion, simulations), &model(&first, simulations))?;
            let random = play(&check, config, &model(&champion, simulations), "random")?;
            let before = match &first_promoted {
                Some(path) => Some(play(
                    &check,
                    config,
                    &model(&champion, simulations),
                    &model(path, simulations),
                )?),
                None => None,
            };
            println!(
                "   promoted: model 0 {:.3}, random {:.3}, first promoted {:?}",
                against_first.score,
                random.score,
                before.map(|report| report.score)
            );
            first_promoted.get_or_insert_with(|| champion.clone());
        }
    }
    let random = play(&check, config, &model(&first, simulations), "random")?;
    println!("model 0 against random {:.3}", random.score);
    Ok(())
}

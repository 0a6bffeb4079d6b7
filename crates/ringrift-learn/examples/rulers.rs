//! The fixed rulers of strength against each other, on one config: prints each match with its interval and its games per second.
//!
//! `cargo run --release -p ringrift-learn --example rulers -- CONFIG PAIRS FOLDER [key=value ...]`, where a key is a field of the settings
//! of the linear baseline, which is trained first; `games=0` leaves it out.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ringrift_learn::{Flow, Progress, arena, linear};
use ringrift_player::PlayerSpec;
use ringrift_rules::Config;

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

#[expect(clippy::print_stdout, reason = "the figures are what this example is for")]
fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(config), Some(pairs), Some(folder)) = (words.next(), words.next(), words.next())
    else {
        bail!("usage: rulers CONFIG PAIRS FOLDER [key=value ...]");
    };
    let config: Config = config.parse()?;
    let pairs = pairs.parse().with_context(|| format!("{pairs:?} is no number of pairs"))?;
    let folder = PathBuf::from(folder);
    let mut settings = serde_json::to_value(linear::Settings::default())?;
    for word in words {
        let Some((key, text)) = word.split_once('=') else { bail!("{word:?} is not key=value") };
        settings[key] = serde_json::from_str(text).with_context(|| word.clone())?;
    }
    let mut rulers = vec!["random".to_owned(), "heuristic".to_owned()];
    if settings["games"] != 0 {
        fs_err::create_dir_all(&folder)?;
        let settings = serde_json::from_value(settings)?;
        let report = linear::run(&settings, config, None, &folder, &mut Watch(Clock::now()))?;
        println!("linear: {report:?}");
        rulers.push(format!("linear:{}", report.file.display()));
    }
    for (index, a) in rulers.iter().enumerate() {
        for b in &rulers[..index] {
            let open = |text: &str| {
                text.parse::<PlayerSpec>()?.open(config, |path| Ok(fs_err::read(path)?))
            };
            let settings = arena::Settings { pairs, test: None, ..arena::Settings::default() };
            let (mut a, mut b) = (open(a)?, open(b)?);
            let mut watch = Watch(Clock::now());
            let report = arena::run(&settings, config, &mut *a, &mut *b, None, &mut watch)?;
            println!(
                "{config}: {} against {}: {} of {} games, {:.3}, Elo {:.0} [{:.0}, {:.0}], {:.1} games/s, {} moves a game",
                report.a,
                report.b,
                report.wins,
                report.games,
                report.score,
                report.elo,
                report.elo_low,
                report.elo_high,
                f64::from(u32::try_from(report.games)?) / report.seconds,
                report.moves / report.games,
            );
        }
    }
    Ok(())
}

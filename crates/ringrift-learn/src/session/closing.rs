//! Matches after the end: what the champion is worth, by a measure that does not change from run to run.

use anyhow::Context;
use ringrift_player::{ModelPlayer, Network, Player, PlayerSpec};

use super::gate::open_fixed;
use super::report::{Duel, Report};
use super::watch::{Step, Watch};
use super::{Order, game_seed, player_name};
use crate::arena::{self, Bounds};

/// Whom the champion meets.
enum Opponent {
    Fixed(PlayerSpec),
    /// A network of the run, by its number.
    Net(usize),
}

/// One match that is to be played.
struct Planned {
    against: String,
    opponent: Opponent,
    /// At least so many; of three seats as many as make whole rounds. With a test at most so many.
    games: u32,
    /// The test that ends the match as soon as it is decided.
    test: Option<Bounds>,
    simulations: u32,
}

/// Seed of the openings of a closing match, counted from 0, of a run.
pub(crate) fn closing_seed(run: u64, number: u64) -> u64 {
    game_seed(run ^ 0xc105_0001, number)
}

pub(super) fn run(order: &Order<'_>, report: &mut Report, watch: &Watch<'_>) -> anyhow::Result<()> {
    for (number, planned) in (0_u64..).zip(plan(order, report)?) {
        let seats = u32::from(order.config.players);
        let openings = planned.games.div_ceil(seats);
        let phase = watch.begin(Step::Close, openings.into(), None);
        if phase.is_over() {
            break;
        }
        let settings = arena::Settings {
            pairs: openings,
            test: planned.test,
            seed: closing_seed(order.seed, number),
            seating: arena::Seating::Rotated,
        };
        let read = |net: usize| -> anyhow::Result<Network> {
            let bytes = report.nets[net].read(order.folder)?;
            Ok(Network::for_config(&bytes, order.config)?)
        };
        let ours = read(report.champion)?;
        let name = player_name(&report.nets[report.champion].hash, planned.simulations);
        let theirs = match planned.opponent {
            Opponent::Fixed(_) => None,
            Opponent::Net(net) => {
                Some((player_name(&report.nets[net].hash, planned.simulations), read(net)?))
            }
        };
        let open = || -> anyhow::Result<[Box<dyn Player>; 2]> {
            let ours = ModelPlayer::new(name.clone(), ours.clone(), planned.simulations);
            let theirs: Box<dyn Player> = match (&planned.opponent, &theirs) {
                (Opponent::Fixed(spec), _) => open_fixed(spec, order.config)?,
                (Opponent::Net(_), Some((name, network))) => {
                    Box::new(ModelPlayer::new(name.clone(), network.clone(), planned.simulations))
                }
                (Opponent::Net(net), None) => anyhow::bail!("network {net} was not read"),
            };
            Ok([Box::new(ours), theirs])
        };
        let out = order.folder.join(format!("closing-{}", number + 1));
        fs_err::create_dir_all(&out)?;
        let mut result = arena::run_on(
            order.threads,
            &settings,
            order.config,
            &open,
            Some(&out),
            &mut phase.work(),
        )?;
        if let Some(file) = &mut result.file {
            *file = file.strip_prefix(order.folder).context("a match lies in the run")?.to_owned();
        }
        if result.games == 0 {
            break;
        }
        let duel = Duel::new(planned.against, planned.simulations, result);
        watch.host().dueled(&duel);
        report.closing.push(duel);
        report.write(order.folder)?;
    }
    Ok(())
}

fn plan(order: &Order<'_>, report: &Report) -> anyhow::Result<Vec<Planned>> {
    let closing = &order.settings.closing;
    let mut plan = Vec::new();
    for ruler in &closing.rulers {
        plan.push(Planned {
            against: ruler.player.clone(),
            opponent: Opponent::Fixed(ruler.spec()?),
            games: ruler.games,
            simulations: ruler.simulations,
            test: None,
        });
    }
    // A match of a network against itself says nothing.
    let half = report.half.filter(|half| *half != 0);
    // Whether the second half made it stronger is the question of the gate; a test is of pairs, so of two seats.
    let test = (order.config.players == 2).then_some(order.settings.gate.test);
    let nets = [
        (Some(0), closing.first_games, None, "at the start"),
        (half, closing.half_games, test, "at half time"),
    ];
    for (net, games, test, when) in nets {
        if let Some(net) = net.filter(|net| *net != report.champion && games > 0) {
            plan.push(Planned {
                against: format!("net {net}, {when}"),
                opponent: Opponent::Net(net),
                games,
                simulations: closing.simulations,
                test,
            });
        }
    }
    Ok(plan)
}

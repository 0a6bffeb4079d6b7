//! Who becomes champion: file checks, the sequential test, the guards.

use std::path::Path;

use anyhow::Context;
use ringrift_player::{ModelPlayer, Network, Player, PlayerSpec};
use ringrift_rules::Config;

use super::report::{Point, Time, Verdict};
use super::watch::{Phase, Step};
use super::{ANCHOR, Session, gate_seed, player_name};
use crate::arena::{self, Decision, Seating};

impl Session<'_> {
    pub(super) fn player_name(&self, net: usize, simulations: u32) -> String {
        player_name(&self.report.nets[net].hash, simulations)
    }

    /// Matches the first network against the anchor and the guards, so that there is something to compare with.
    pub(super) fn anchor(&mut self) -> anyhow::Result<()> {
        let folder = self.order.folder.join("anchor");
        for guard in self.guards() {
            let phase = self.watch.begin(Step::Gate, 0, self.order.end());
            let report = self.guard(0, &guard, &folder, 0, &phase)?;
            self.store(&report);
        }
        Ok(())
    }

    fn guards(&self) -> Vec<String> {
        let mut guards = self.settings.gate.guards.clone();
        if !guards.iter().any(|guard| guard == ANCHOR) {
            guards.insert(0, ANCHOR.to_owned());
        }
        guards
    }

    /// Takes a candidate among the networks of the run, and decides whether it is the new champion.
    pub(super) fn judge(
        &mut self,
        folder: &Path,
        candidate: &Path,
        point: &mut Point,
        time: &mut Time,
    ) -> anyhow::Result<()> {
        let bytes = fs_err::read(candidate)?;
        if let Err(fault) = fit_network(&bytes, self.order.config) {
            point.verdict = Verdict::Kept(format!("file checks: {fault:#}"));
            return Ok(());
        }
        let parent = match self.settings.parent {
            super::Parent::Newest => self.newest(),
            super::Parent::Champion => self.report.champion,
        };
        self.add_net(candidate, &bytes, Some(parent))?;
        let net = self.newest();
        point.net = Some(net);

        let number = self.report.points.len() + 1;
        let gate = &self.settings.gate;
        let phase = self.watch.begin(Step::Gate, gate.pairs.into(), self.order.end());
        let settings = arena::Settings {
            pairs: gate.pairs,
            test: Some(gate.test),
            seed: gate_seed(self.order.seed, number),
            seating: Seating::Shared,
        };
        let champion = self.report.champion;
        let report = self.play_match(&settings, net, champion, folder, &phase)?;
        self.store(&report);
        let decision = report.decision;
        point.gate = Some(report);
        let verdict = match decision {
            Some(Decision::H1) => self.ask_guards(folder, net, number, &phase, point)?,
            Some(Decision::H0) => Some("no stronger than the champion".to_owned()),
            _ => Some("not proven to be stronger than the champion".to_owned()),
        };
        point.verdict = match verdict {
            None => {
                self.report.champion = net;
                self.champions.push(net);
                Verdict::Promoted
            }
            Some(reason) => Verdict::Kept(reason),
        };
        time.gate = phase.seconds();
        Ok(())
    }

    /// Matches against the guards; a reason to refuse the candidate, if there is one.
    fn ask_guards(
        &mut self,
        folder: &Path,
        net: usize,
        number: usize,
        phase: &Phase<'_>,
        point: &mut Point,
    ) -> anyhow::Result<Option<String>> {
        for guard in self.guards() {
            let report = self.guard(net, &guard, folder, number, phase)?;
            self.store(&report);
            let before = self.last_against(&guard);
            let gate = &self.settings.gate;
            let fault = if report.games == 0 {
                Some(format!("the run ended before the match against {guard}"))
            } else if report.score >= gate.guard_score {
                None
            } else {
                before.filter(|before| report.elo < before - gate.guard_loss).map(|before| {
                    format!("against {guard} {:+.0} Elo, the champion has {before:+.0}", report.elo)
                })
            };
            point.guards.push(report);
            if fault.is_some() {
                return Ok(fault);
            }
        }
        Ok(None)
    }

    /// Elo of the champion in its last match against a guard.
    fn last_against(&self, guard: &str) -> Option<f64> {
        let name = self.player_name(self.report.champion, self.settings.gate.simulations);
        let met = self.report.matches.iter().rev().find(|m| m.a == name && m.b == guard)?;
        let games = met.wins + met.losses;
        let score = crate::progress::float(met.wins) / crate::progress::float(games.max(1));
        Some(arena::elo(score, games))
    }

    fn guard(
        &self,
        net: usize,
        guard: &str,
        folder: &Path,
        number: usize,
        phase: &Phase<'_>,
    ) -> anyhow::Result<arena::Report> {
        let gate = &self.settings.gate;
        let settings = arena::Settings {
            pairs: gate.guard_pairs,
            test: None,
            seed: self.seed(3, number),
            seating: Seating::Shared,
        };
        let spec: PlayerSpec = guard.parse()?;
        let config = self.order.config;
        let network = Network::for_config(&self.bytes(net)?, config)?;
        let name = self.player_name(net, gate.simulations);
        let open = || -> anyhow::Result<[Box<dyn Player>; 2]> {
            let ours = ModelPlayer::new(name.clone(), network.clone(), gate.simulations);
            Ok([Box::new(ours), open_fixed(&spec, config)?])
        };
        let out = folder.join(format!("against-{}", guard.replace(':', "-")));
        fs_err::create_dir_all(&out)?;
        let threads = self.order.threads;
        let report =
            arena::run_on(threads, &settings, config, &open, Some(&out), &mut phase.work())?;
        self.within(report)
    }

    fn play_match(
        &self,
        settings: &arena::Settings,
        a: usize,
        b: usize,
        folder: &Path,
        phase: &Phase<'_>,
    ) -> anyhow::Result<arena::Report> {
        let (config, simulations) = (self.order.config, self.settings.gate.simulations);
        let read =
            |net: usize| Ok::<_, anyhow::Error>(Network::for_config(&self.bytes(net)?, config)?);
        let networks = [read(a)?, read(b)?];
        let names = [a, b].map(|net| self.player_name(net, simulations));
        let open = || -> anyhow::Result<[Box<dyn Player>; 2]> {
            let player = |index: usize| -> Box<dyn Player> {
                let (name, network) = (names[index].clone(), networks[index].clone());
                Box::new(ModelPlayer::new(name, network, simulations))
            };
            Ok([player(0), player(1)])
        };
        let threads = self.order.threads;
        let report =
            arena::run_on(threads, settings, config, &open, Some(folder), &mut phase.work())?;
        self.within(report)
    }

    /// The report as it is kept: its file as seen from the folder of the run.
    fn within(&self, mut report: arena::Report) -> anyhow::Result<arena::Report> {
        if let Some(file) = &mut report.file {
            let inside = file.strip_prefix(self.order.folder).context("a match lies in the run")?;
            *file = inside.to_owned();
        }
        Ok(report)
    }

    fn store(&mut self, report: &arena::Report) {
        if report.games > 0 {
            self.report.matches.push(report.result());
        }
    }
}

/// Opens a player that needs no file.
pub(super) fn open_fixed(spec: &PlayerSpec, config: Config) -> anyhow::Result<Box<dyn Player>> {
    spec.open(config, |source| anyhow::bail!("{source} is no fixed player"))
}

/// A network that may play: it reads, it is of the config, and what it says of positions of the game are numbers.
pub(super) fn fit_network(bytes: &[u8], config: Config) -> anyhow::Result<Network> {
    let network = Network::for_config(bytes, config)?;
    let mut scratch = ringrift_player::Scratch::default();
    let (mut moves, mut logits) = (Vec::new(), Vec::new());
    for opening in arena::book(config, GOLDEN_POSITIONS, 0)? {
        opening.state.legal_moves(&mut moves);
        let values = network.evaluate(&opening.state, &moves, &mut scratch, &mut logits);
        let mut numbers = values.seats().iter().chain(&logits);
        anyhow::ensure!(
            numbers.all(|x| x.is_finite()),
            "what it says after {} is no number",
            opening.moves.join(" ")
        );
    }
    Ok(network)
}

/// Positions that a network is tried on. Source: spec/learning.md section 4.1.
const GOLDEN_POSITIONS: u32 = 100;

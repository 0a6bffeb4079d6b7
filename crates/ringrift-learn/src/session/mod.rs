//! A whole run of learning without daemons: from a random network to a champion, with its curve and its proofs.
//!
//! Every step is the code that the workers of the manager run: self-play, export, combine, train, matches. A run with one thread and
//! a number of steps depends on its order alone: the same games, samples and weights, to the byte. With more threads some play while
//! one trains, so that chance has a say in which network plays a game; with minutes the clock has one in where an iteration ends.
//!
//! Self-play takes the newest network that passed the file checks. What people get is the champion: it changes by a sequential test
//! alone, and a guard match against fixed players.

mod closing;
mod gate;
mod play;
mod report;
mod settings;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use ringrift_player::Network;
use ringrift_rules::Config;

use crate::games::hash;
use crate::outcomes::Outcomes;
use crate::progress::float;
use crate::selfplay::game_seed;
use crate::{combine, rating, train};
#[cfg(test)]
pub(crate) use closing::closing_seed;
use play::{Exported, Ground, Part};
pub use report::{Duel, Limit, Net, Point, RUN_FILE, Report, Stand, Time, Training, Verdict};
pub use settings::{Closing, Gate, Parent, Ruler, Settings, Stage, Window};
pub use watch::{Host, Live, Step};
use watch::{Phase, Watch};

/// The anchor of the ratings, and the guard that is always there.
const ANCHOR: &str = "random";
/// Iterations whose games the next ones are compared with.
const COMPARED_ITERATIONS: usize = 5;
/// Most threads of a run.
const MOST_THREADS: usize = 256;

/// What to do.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// Board and number of seats.
    pub config: Config,
    /// How long to learn.
    pub limit: Limit,
    /// Threads that work.
    pub threads: usize,
    /// Where all chance comes from.
    pub seed: u64,
    /// All other numbers.
    pub settings: &'a Settings,
    /// Folder of the run, which nothing else may be in.
    pub folder: &'a Path,
}

/// Learns until the limit is reached or the caller stops it.
///
/// The folder has the games, samples, networks and matches of each iteration, and [`RUN_FILE`]. Samples that left the window are
/// removed: they can be made again from the games.
///
/// # Errors
/// An order out of range, a folder that is not empty, and what the steps return; what came before stays in the folder.
pub fn run(order: &Order<'_>, host: &dyn Host) -> anyhow::Result<Report> {
    order.check()?;
    order.claim_folder()?;
    let watch = Watch::new(host);
    let mut session = Session::new(order, &watch)?;
    while session.goes_on() {
        if let Err(error) = session.iterate() {
            session.end(Stand::Failed(format!("{error:#}")))?;
            return Err(error);
        }
    }
    let stand = if host.stopping() { Stand::Stopped } else { Stand::Learned };
    session.end(stand)
}

/// Matches the champion of a run against the rulers, the first network and that of half time, and adds the results to the report.
///
/// # Errors
/// As a match; what was played before stays in the report.
pub fn close(order: &Order<'_>, report: &mut Report, host: &dyn Host) -> anyhow::Result<()> {
    let watch = Watch::new(host);
    closing::run(order, report, &watch)
}

impl Order<'_> {
    /// Refuses what no run could go by.
    ///
    /// # Errors
    /// A sentence with what is wrong and what is allowed.
    pub fn check(&self) -> anyhow::Result<()> {
        self.settings.check()?;
        let threads = self.threads;
        ensure!(
            (1..=MOST_THREADS).contains(&threads),
            "threads is {threads}; allowed are 1 to {MOST_THREADS}"
        );
        match self.limit {
            Limit::Steps(steps) => ensure!(steps > 0, "steps is 0; a run needs at least 1"),
            Limit::Minutes(minutes) => {
                let fits = minutes > 0.0 && minutes <= 1e6;
                ensure!(fits, "minutes is {minutes}; allowed is more than 0, at most 1000000");
            }
        }
        Ok(())
    }

    /// Makes the folder; refuses one that is not empty.
    fn claim_folder(&self) -> anyhow::Result<()> {
        fs_err::create_dir_all(self.folder)?;
        let is_empty = fs_err::read_dir(self.folder)?.next().is_none();
        ensure!(is_empty, "the folder {} is not empty", self.folder.display());
        Ok(())
    }

    /// When a run by minutes is over, by the caller's clock.
    fn end(&self) -> Option<Duration> {
        match self.limit {
            Limit::Minutes(minutes) => Some(Duration::from_secs_f64(minutes * 60.0)),
            Limit::Steps(_) => None,
        }
    }
}

struct Session<'a> {
    order: &'a Order<'a>,
    settings: &'a Settings,
    watch: &'a Watch<'a>,
    report: Report,
    /// Numbers of the networks that were champion, the present one last.
    champions: Vec<usize>,
    /// Number of the next game.
    next_game: u64,
    /// Games that were played while a network was trained: the beginning of the next iteration.
    carried: Vec<Part>,
    /// Sample files, oldest first.
    samples: Vec<Exported>,
    /// Ends of the games of the last iterations.
    ends: VecDeque<Outcomes>,
    /// Rows since the last training.
    fresh: u64,
    /// Seconds that training and matches of an iteration take.
    rest: f64,
}

impl<'a> Session<'a> {
    fn new(order: &'a Order<'a>, watch: &'a Watch<'a>) -> anyhow::Result<Self> {
        let settings = order.settings;
        let report =
            Report::new(order.config, order.seed, order.threads, order.limit, settings.clone());
        let mut session = Self {
            order,
            settings,
            watch,
            report,
            champions: vec![0],
            next_game: 0,
            carried: Vec::new(),
            samples: Vec::new(),
            ends: VecDeque::new(),
            fresh: 0,
            rest: 0.0,
        };
        let first = Network::random(order.config, order.seed).to_bytes();
        let path = order.folder.join("net-000.safetensors");
        crate::files::write_bytes(&path, &first)?;
        session.add_net(&path, &first, None)?;
        session.anchor()?;
        session.report.write(order.folder)?;
        Ok(session)
    }

    /// How much of the run is over.
    fn part(&self) -> f64 {
        let part = match self.order.limit {
            Limit::Minutes(minutes) => self.seconds() / (minutes * 60.0),
            Limit::Steps(steps) => f64::from(self.report.steps) / f64::from(steps),
        };
        part.min(1.0)
    }

    fn seconds(&self) -> f64 {
        self.watch.host().elapsed().as_secs_f64()
    }

    fn goes_on(&self) -> bool {
        if self.watch.host().stopping() {
            return false;
        }
        match self.order.limit {
            Limit::Steps(steps) => self.report.steps < steps,
            // Less than that is too little for another network.
            Limit::Minutes(minutes) => minutes * 60.0 - self.seconds() > 1.2 * self.rest,
        }
    }

    fn seed(&self, purpose: u64, number: usize) -> u64 {
        seed_of(self.order.seed, purpose, number)
    }

    fn bytes(&self, net: usize) -> anyhow::Result<Vec<u8>> {
        self.report.nets[net].read(self.order.folder)
    }

    fn newest(&self) -> usize {
        self.report.nets.len() - 1
    }

    fn add_net(&mut self, path: &Path, bytes: &[u8], parent: Option<usize>) -> anyhow::Result<()> {
        let file = path.strip_prefix(self.order.folder).context("a network lies in the run")?;
        let file = file.to_string_lossy().into_owned();
        let seconds = self.seconds();
        self.report.nets.push(Net { hash: hash(bytes), file, seconds, parent });
        let mut live = self.watch.live();
        live.net = self.report.nets.len() - 1;
        live.net_since = self.watch.host().elapsed();
        Ok(())
    }

    /// One turn: games, samples, a candidate, its verdict.
    fn iterate(&mut self) -> anyhow::Result<()> {
        let number = self.report.points.len() + 1;
        let folder = self.order.folder.join(format!("iteration-{number:03}"));
        fs_err::create_dir_all(&folder)?;
        {
            let mut live = self.watch.live();
            (live.iteration, live.part) = (number, self.part());
        }
        let mut time = Time::default();
        let parts = self.play(&folder, &mut time)?;
        let mut point = self.point(&parts);
        self.export(&folder, &parts, &mut point, &mut time)?;
        if self.fresh > 0 && !self.watch.host().stopping() {
            let candidate = self.train(&folder, &mut point, &mut time)?;
            if let Some(candidate) = candidate {
                self.judge(&folder, &candidate, &mut point, &mut time)?;
            }
        }
        self.rest = time.train + time.gate;
        self.note(point, time)
    }

    /// Plays until the iteration has its games.
    fn play(&mut self, folder: &Path, time: &mut Time) -> anyhow::Result<Vec<Part>> {
        let mut parts = std::mem::take(&mut self.carried);
        let settings = self.settings.selfplay_after(self.report.games);
        let there: u64 = parts.iter().map(|part| part.report.games).sum();
        let wanted = u64::from(settings.games).saturating_sub(there);
        // What is left of the minutes must do for training and matches.
        let reserve = Duration::from_secs_f64(self.rest);
        let until = self.order.end().map(|end| end.saturating_sub(reserve));
        let phase = self.watch.begin(Step::Play, wanted, until);
        if wanted > 0 {
            let ground = self.ground(folder, Some(wanted))?;
            parts.extend(ground.play_on(self.order.threads, &phase)?);
            self.next_game = ground.next();
        }
        time.play = phase.seconds();
        Ok(parts)
    }

    fn ground<'b>(&self, folder: &'b Path, wanted: Option<u64>) -> anyhow::Result<Ground<'b>> {
        let mut settings = self.settings.selfplay_after(self.report.games);
        settings.seed = self.order.seed;
        let net = self.newest();
        // The present champion counts as an opponent once a newer network plays.
        let pool = self.champions.iter().rev().filter(|champion| **champion != net);
        let opponents = pool.take(self.settings.pool).map(|net| self.bytes(*net));
        Ok(Ground::new(
            settings,
            self.order.config,
            (net, self.bytes(net)?),
            opponents.collect::<anyhow::Result<_>>()?,
            folder,
            (self.next_game, wanted),
            self.order.threads,
        ))
    }

    /// What is known of an iteration once its games are there.
    fn point(&mut self, parts: &[Part]) -> Point {
        let settings = self.settings.selfplay_after(self.report.games);
        let mut reasons = BTreeMap::new();
        let mut wins = vec![0; usize::from(self.order.config.players)];
        let (mut games, mut moves) = (0, 0);
        for Part { report, .. } in parts {
            games += report.games;
            moves += report.moves;
            for (sum, won) in wins.iter_mut().zip(&report.wins) {
                *sum += won;
            }
            for (reason, count) in &report.reasons {
                *reasons.entry(reason.clone()).or_default() += count;
            }
        }
        self.report.games += games;
        Point {
            seconds: 0.0,
            simulations: [settings.simulations, settings.fast_simulations],
            games,
            wins,
            reasons,
            mean_length: float(moves) / float(games.max(1)),
            rows: 0,
            window: None,
            training: None,
            net: None,
            gate: None,
            guards: Vec::new(),
            verdict: Verdict::Kept("the run ended before there was a candidate".to_owned()),
            rating: None,
            time: Time::default(),
        }
    }

    fn export(
        &mut self,
        folder: &Path,
        parts: &[Part],
        point: &mut Point,
        time: &mut Time,
    ) -> anyhow::Result<()> {
        let phase = self.watch.begin(Step::Export, point.games, None);
        let mut settings = self.settings.export.clone();
        for ends in &self.ends {
            settings.earlier.merge(ends);
        }
        let (threads, config) = (self.order.threads, self.order.config);
        let made = play::export_on(threads, &settings, config, parts, folder, &phase)?;
        let mut ends = Outcomes::default();
        for made in &made {
            ends.merge(&made.report.outcomes);
        }
        self.ends.push_back(ends);
        if self.ends.len() > COMPARED_ITERATIONS {
            self.ends.pop_front();
        }
        point.rows = made.iter().map(|made| made.report.rows).sum();
        self.report.rows += point.rows;
        self.fresh += point.rows;
        self.samples.extend(made);
        time.export = phase.seconds();
        Ok(())
    }

    /// Trains a candidate while the other threads play on; gives its file once it is there.
    fn train(
        &mut self,
        folder: &Path,
        point: &mut Point,
        time: &mut Time,
    ) -> anyhow::Result<Option<PathBuf>> {
        let settings = self.training(self.report.points.len() + 1);
        let phase = self.watch.begin(Step::Train, settings.steps.into(), self.order.end());
        let ground = self.ground(folder, None)?;
        let (trained, played) = std::thread::scope(|scope| {
            let (ground, shared) = (&ground, &phase);
            let players: Vec<_> =
                (1..self.order.threads).map(|_| scope.spawn(move || ground.play(shared))).collect();
            let trained = self.fit(&settings, folder, point, &phase);
            phase.end();
            let played =
                players.into_iter().map(|player| player.join().unwrap_or_else(play::resume));
            (trained, played.collect::<Vec<_>>())
        });
        self.next_game = ground.next();
        for parts in played {
            self.carried.extend(parts?);
        }
        let trained = trained?;
        time.train = phase.seconds();
        let mut live = self.watch.live();
        if let Some(training) = &point.training {
            live.loss = Some([training.loss.policy_loss, training.loss.value_loss]);
            live.samples_per_second = training.samples_per_second;
        }
        drop(live);
        let Some(report) = trained else { return Ok(None) };
        self.report.steps += report.steps;
        self.fresh = 0;
        Ok(Some(report.file))
    }

    /// Settings of a training: steps by what is new, the rate by how far the run is.
    fn training(&self, number: usize) -> train::Settings {
        let mut settings = self.settings.train.clone();
        let left = match self.order.limit {
            Limit::Steps(steps) => steps - self.report.steps,
            Limit::Minutes(_) => u32::MAX,
        };
        let wanted = float(self.fresh) * self.settings.reuse / f64::from(settings.batch.max(1));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a conversion that stops at the largest step count"
        )]
        let wanted = wanted.ceil() as u32;
        settings.steps = settings.steps.min(wanted).min(left).max(1);
        #[expect(clippy::cast_possible_truncation, reason = "a share of 1")]
        let part = self.part() as f32;
        let heat = 1.0 - part * (1.0 - self.settings.cooling);
        settings.rate *= heat;
        settings.last_rate *= heat;
        settings.seed = self.seed(1, number);
        // Nobody goes on from a checkpoint of a run: what is not finished is left.
        settings.checkpoint_steps = u32::MAX;
        settings
    }

    /// Window and training, on this thread.
    fn fit(
        &mut self,
        settings: &train::Settings,
        folder: &Path,
        point: &mut Point,
        phase: &Phase<'_>,
    ) -> anyhow::Result<Option<train::Report>> {
        let newest = self.newest();
        let oldest = newest.saturating_sub(self.settings.window.nets as usize);
        self.samples.retain(|file| file.net >= oldest || remove(&file.report.file));
        let rows = self.settings.window.rows(self.report.rows);
        let files: Vec<PathBuf> =
            self.samples.iter().map(|file| file.report.file.clone()).collect();
        let work = &mut phase.work();
        let window = combine::run(
            &combine::Settings { rows, ..combine::Settings::default() },
            &files,
            folder,
            work,
        )?;
        if window.stopped {
            return Ok(None);
        }
        point.window = Some(window.rows);
        let parent = match self.settings.parent {
            Parent::Newest => newest,
            Parent::Champion => self.report.champion,
        };
        let bytes = self.bytes(parent)?;
        let report = train::run(settings, &window.file, Some(&bytes), folder, &mut phase.work())?;
        fs_err::remove_file(&window.file)?;
        // Rows only get older: a file that gave none will give none.
        let unseen = self.samples.len() - usize::try_from(window.parts)?;
        for file in self.samples.drain(..unseen) {
            remove(&file.report.file);
        }
        if !report.finished {
            fs_err::remove_file(folder.join(train::CHECKPOINT_FILE))?;
            return Ok(None);
        }
        let loss = report.curve.last().copied().context("a training has a loss")?;
        point.training = Some(Training {
            steps: report.steps,
            loss,
            validation: report.validation,
            samples_per_second: report.samples_per_second,
        });
        Ok(Some(report))
    }

    /// Closes an iteration.
    fn note(&mut self, mut point: Point, time: Time) -> anyhow::Result<()> {
        let half = self.part() >= 0.5;
        if half && self.report.half.is_none() {
            // A champion of this iteration came after half time.
            let before = match point.verdict {
                Verdict::Promoted => self.champions.iter().rev().nth(1),
                Verdict::Kept(_) => self.champions.last(),
            };
            self.report.half = before.copied();
        }
        self.report.ratings = rating::rate(&self.report.matches, ANCHOR)?;
        let name = self.player_name(self.report.champion, self.settings.gate.simulations);
        point.rating = self.report.ratings.iter().find(|rating| rating.player == name).cloned();
        point.time = time;
        point.seconds = self.seconds();
        self.report.seconds = point.seconds;
        {
            let mut live = self.watch.live();
            live.rating.clone_from(&point.rating);
            (live.champion, live.part) = (self.report.champion, self.part());
        }
        self.watch.host().iterated(&point, self.report.champion);
        self.report.points.push(point);
        self.report.write(self.order.folder)
    }

    fn end(mut self, stand: Stand) -> anyhow::Result<Report> {
        self.report.stand = stand;
        self.report.seconds = self.seconds();
        self.report.write(self.order.folder)?;
        Ok(self.report)
    }
}

/// Seed of one step of an iteration of a run.
fn seed_of(run: u64, purpose: u64, iteration: usize) -> u64 {
    game_seed(game_seed(run ^ 0x7ea2_0001, purpose), iteration as u64)
}

/// Seed of the match of a candidate against the champion.
pub(crate) fn gate_seed(run: u64, iteration: usize) -> u64 {
    seed_of(run, 2, iteration)
}

/// Removes a sample file; a failure costs space and nothing else, so that the file counts as gone either way.
fn remove(file: &Path) -> bool {
    let _ = fs_err::remove_file(file);
    false
}

/// How a network of the run is called in matches and ratings: by its hash, with its search.
fn player_name(hash: &str, simulations: u32) -> String {
    ringrift_player::PlayerSpec::Model { source: hash.to_owned(), simulations }.to_string()
}

#[cfg(test)]
mod tests;

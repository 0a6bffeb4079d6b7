//! A worker in few lines: it speaks the contract and plays nothing. The tests run it, and its first
//! argument says how it behaves; `honest` is the example to read.

use std::{
    io::{BufRead as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use fs_err as fs;
use ringrift_pipeline::{
    Artefact, BatchCheck, BlobHash, CheckReport, GauntletReport, Job, MatchResult, SamplesReport,
    SelfplayReport, TestDecision, TrainReport, WORKER_CONTRACT, WorkerJob, WorkerLine,
};
use serde_json::json;

/// Rows that every game gives.
const ROWS_PER_GAME: u64 = 30;

fn main() {
    if let Err(error) = work() {
        // The last line is what the manager quotes.
        complain(&format!("{error:#}"));
        std::process::exit(1);
    }
}

fn work() -> anyhow::Result<()> {
    let mode = std::env::args().nth(1).context("say how to behave, e.g. 'honest'")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the job")?;
    let job: WorkerJob = serde_json::from_str(&line).context("understand the job")?;
    ensure!(job.contract == WORKER_CONTRACT, "contract {} is unknown", job.contract);
    // The end of the input means that the parent is gone.
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        drop(std::io::Read::read_to_end(&mut std::io::stdin(), &mut rest));
        std::process::exit(1);
    });
    let mut worker = Worker { mode, job };
    worker.run()
}

struct Worker {
    mode: String,
    job: WorkerJob,
}

impl Worker {
    fn is(&self, mode: &str) -> bool {
        self.mode == mode
    }

    fn run(&mut self) -> anyhow::Result<()> {
        match self.mode.as_str() {
            "fails" => bail!("out of luck"),
            "try-again" => std::process::exit(75),
            "never" => {
                complain("the job makes no sense");
                std::process::exit(125);
            }
            "killed" => {
                std::process::Command::new("kill")
                    .args(["-9", &std::process::id().to_string()])
                    .status()?;
            }
            "chatter" => say_raw("hello, I am a worker")?,
            "huge-line" => say_raw(&"x".repeat(3 << 20))?,
            "silent" => {
                std::thread::sleep(Duration::from_mins(10));
            }
            _ => say(&WorkerLine::Beat)?,
        }
        if self.is("slow") {
            // Says that it lives until it is told to stop; then it leaves without a report.
            loop {
                std::thread::sleep(Duration::from_millis(20));
                say(&WorkerLine::Progress { done: 1, total: 2, note: String::new(), view: None })?;
            }
        }
        let report = match self.job.job.clone() {
            Job::Seed(seed) => {
                self.hand_over("weights", "weights.safetensors", &format!("seed {}", seed.seed))?;
                json!({})
            }
            Job::Selfplay(job) => {
                let games: Vec<String> =
                    (0..job.games).map(|game| format!("game {} {game}", job.seed)).collect();
                self.hand_over("games", "games.txt", &games.join("\n"))?;
                let odd = job.games / 2;
                json!(SelfplayReport {
                    games: if self.is("boasts") { job.games * 10 } else { job.games },
                    positions: u64::from(job.games) * ROWS_PER_GAME,
                    moves: u64::from(job.games) * ROWS_PER_GAME,
                    seat_wins: vec![job.games - odd, odd],
                    reasons: [("rings".to_owned(), job.games)].into(),
                    seconds: 0.1,
                })
            }
            Job::Check(job) => json!(CheckReport {
                batches: job
                    .batches
                    .iter()
                    .map(|batch| {
                        Ok(BatchCheck {
                            batch: batch.clone(),
                            games: self.lines(batch)?,
                            fault: self
                                .is("finds-fault")
                                .then(|| "game 3, move 17: no such move".to_owned()),
                        })
                    })
                    .collect::<anyhow::Result<_>>()?,
            }),
            Job::Export(job) => {
                let all = self.all_lines(&job.batches)?;
                self.hand_over("samples", "samples.npz", &all.join("\n"))?;
                samples(&all, u64::MAX)
            }
            Job::Combine(job) => {
                let all = self.all_lines(&job.samples)?;
                self.hand_over("window", "window.npz", &all.join("\n"))?;
                samples(&all, job.max_rows)
            }
            Job::Train(job) => {
                let from = job.checkpoint.as_ref().map(|hash| self.lines(hash)).transpose()?;
                let half = format!("{} at half of {} steps", job.candidate, job.steps);
                self.hand_over("checkpoint", "checkpoint.bin", &half)?;
                if self.is("dies-at-half") && from.is_none() {
                    bail!("power cut");
                }
                let weights = format!("{} trained on {}, from {from:?}", job.candidate, job.window);
                self.hand_over("weights", "weights.safetensors", &weights)?;
                json!(TrainReport {
                    steps: if self.is("lazy") { 1 } else { job.steps },
                    samples: u64::from(job.steps) * u64::from(job.batch),
                    policy_loss: 1.5,
                    value_loss: 0.5,
                    seconds: 0.1,
                })
            }
            Job::Gauntlet(job) => {
                if self.is("refuses-file") {
                    json!(GauntletReport {
                        main: None,
                        guard: None,
                        heuristic: None,
                        fault: Some("it was made for another board".into()),
                    })
                } else {
                    self.hand_over("records", "records.txt", &format!("{job:?}"))?;
                    let (a, b) = (&job.candidate.id, &job.champion.id);
                    let won = !self.is("weak");
                    let mut main = result(&format!("model:{a}@32"), &format!("model:{b}@32"), won);
                    if self.is("impossible-score") {
                        main.score = 1.5;
                    }
                    let against =
                        |ruler: &str| won.then(|| result(&format!("model:{a}@32"), ruler, true));
                    let (guard, heuristic) = (against("random"), against("heuristic-ref-1"));
                    json!(GauntletReport { main: Some(main), guard, heuristic, fault: None })
                }
            }
        };
        if self.is("no-report") {
            return Ok(());
        }
        if self.is("two-reports") {
            say(&WorkerLine::Result { report: report.clone() })?;
        }
        say(&WorkerLine::Result { report })
    }

    /// The lines of an input.
    fn lines(&self, hash: &BlobHash) -> anyhow::Result<Vec<String>> {
        let path = self.job.inputs.get(hash).with_context(|| format!("no input {hash}"))?;
        Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect())
    }

    fn all_lines(&self, hashes: &[BlobHash]) -> anyhow::Result<Vec<String>> {
        let mut all = Vec::new();
        for hash in hashes {
            all.extend(self.lines(hash)?);
        }
        Ok(all)
    }

    fn hand_over(&self, role: &str, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.job.dir.join(file);
        if !self.is("missing-file") {
            fs::write(&path, text)?;
        }
        if self.is("link") {
            fs::remove_file(&path)?;
            fs::os::unix::fs::symlink("/etc/hostname", &path)?;
        }
        let mut artefact = Artefact {
            role: role.to_owned(),
            file: file.to_owned(),
            hash: BlobHash(depot::Hash::of(text.as_bytes()).to_string()),
            bytes: text.len() as u64,
        };
        match self.mode.as_str() {
            "wrong-hash" => {
                artefact.hash = BlobHash(depot::Hash::of(b"something else").to_string());
            }
            "wrong-size" => artefact.bytes += 1,
            "path-trick" => "../../../facts.sqlite".clone_into(&mut artefact.file),
            "no-hash" => artefact.hash = BlobHash("../../etc".to_owned()),
            _ => {}
        }
        say(&WorkerLine::Artefact(artefact))
    }
}

fn samples(lines: &[String], most: u64) -> serde_json::Value {
    let games = lines.len() as u64;
    json!(SamplesReport {
        rows: (games * ROWS_PER_GAME).min(most),
        games,
        encoder: "test-1".into(),
        report: json!(null),
    })
}

/// A plausible match of 100 games.
fn result(a: &str, b: &str, won: bool) -> MatchResult {
    let (pairs, wins) = if won { ([0, 10, 40], 90) } else { ([20, 20, 10], 40) };
    let sign = if won { 1.0 } else { -1.0 };
    MatchResult {
        a: a.to_owned(),
        b: b.to_owned(),
        games: 100,
        wins,
        losses: 100 - wins,
        pairs,
        score: f64::from(wins) / 100.0,
        elo: sign * 120.0,
        elo_low: sign * 120.0 - 40.0,
        elo_high: sign * 120.0 + 40.0,
        llr: sign * 3.1,
        decision: Some(if won { TestDecision::Stronger } else { TestDecision::NotStronger }),
        finishes: None,
        distinct_games: 100,
        book: None,
        seconds: 0.1,
    }
}

fn say(line: &WorkerLine) -> anyhow::Result<()> {
    say_raw(&serde_json::to_string(line)?)
}

fn say_raw(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("speak")
}

fn complain(what: &str) {
    // The last words before a code that says it all; nobody is left to hear of an error.
    drop(writeln!(std::io::stderr(), "{what}"));
}

//! A person on the terminal, at a table with players of ours: `play` and `rules play`.

use std::{
    io::BufRead,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use ringrift_player::{Player, PlayerSpec};
use ringrift_rules::{
    Config, Departure, Move, Options, Reason, Seat, State,
    binary::encode,
    record::{GameRecord, GameResult},
};

use super::play::open;
use crate::{
    cli::Place,
    console,
    exit::{Failure, Outcome},
};

/// The person's place.
#[derive(Debug, Args)]
pub struct SeatArgs {
    /// Config of the game
    #[arg(long, value_name = "CONFIG")]
    config: Config,
    /// Your seat
    #[arg(long, default_value_t = 1)]
    seat: u8,
    /// Seed of the other seats
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Offer the pie rule, to seat 2 of two
    #[arg(long)]
    swap_rule: bool,
    /// Write the game to this file when it is over or left, as a binary record
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

const HELP: &str = "\
A move in notation (P 3,3 2), or its number in the list. Besides:
  moves [TEXT]   list the legal moves, or those that contain TEXT
  board          draw the board
  resign         give up
  quit           leave the game";

/// Plays one game, with `other` on all seats but the person's.
pub fn sit(args: &SeatArgs, other: &PlayerSpec) -> Outcome {
    let seat = Seat::new(args.seat).filter(|seat| seat.number() <= args.config.players);
    let seat = seat.ok_or_else(|| {
        let players = args.config.players;
        Failure::usage(anyhow!("--seat: {} is no seat; allowed are 1 to {players}", args.seat))
    })?;
    let other = open(other, args.config, &args.place)?;
    let options = Options { swap_rule: args.swap_rule, ..Options::default() };
    let state = State::new(args.config, options);
    let rng = fastrand::Rng::with_seed(args.seed);
    let (input, moves) = (Box::new(std::io::stdin().lock()), Vec::new());
    let mut table = Table { state, seat, other, rng, input, moves };
    table.play()?;
    if let Some(path) = &args.save {
        table.save(path, args.seed)?;
    }
    Ok(())
}

/// What a person asked for.
enum Wish {
    Make(Move),
    Resign,
    Quit,
}

struct Table {
    state: State,
    seat: Seat,
    other: Box<dyn Player>,
    rng: fastrand::Rng,
    input: Box<dyn BufRead>,
    /// What was played, in notation.
    moves: Vec<String>,
}

impl Table {
    fn play(&mut self) -> anyhow::Result<()> {
        console::say(&format!("You are seat {}. `help` says what to type.", self.seat));
        while !self.state.is_over() {
            let mut moves = Vec::new();
            self.state.legal_moves(&mut moves);
            // Nobody wants to type that nothing can be done.
            let forced = moves.len() == 1 && moves[0].is_bookkeeping();
            let mv = if forced {
                moves.remove(0)
            } else if self.state.to_move() != self.seat {
                *self.other.choose(&self.state, &mut self.rng).played()
            } else {
                match self.ask(&moves)? {
                    Wish::Make(mv) => mv,
                    Wish::Resign => {
                        self.state.depart(self.seat, Departure::Resignation);
                        break;
                    }
                    Wish::Quit => return Ok(()),
                }
            };
            let text = self.state.notate(&mv);
            console::say(&format!("{} {text}   {}", self.state.to_move(), self.describe(&mv)));
            self.state.apply(&mv).context("make the move")?;
            self.moves.push(text);
        }
        console::say(self.state.render().trim_end());
        if let Some(outcome) = self.state.outcome() {
            let ranked = outcome.ranking.iter().zip(outcome.ranks.iter());
            let ranks: Vec<String> =
                ranked.map(|(seat, rank)| format!("{rank}. seat {seat}")).collect();
            console::say(&ranks.join(", "));
        }
        Ok(())
    }

    /// Writes the moves. A game that was given up has no result of the rules.
    fn save(&self, path: &Path, seed: u64) -> anyhow::Result<()> {
        let config = self.state.config();
        let name = |seat: Seat| {
            if seat == self.seat { "person".to_owned() } else { self.other.name() }
        };
        let played_out = !self
            .state
            .outcome()
            .is_some_and(|outcome| matches!(outcome.reason, Reason::Resignation | Reason::Timeout));
        let record = GameRecord {
            id: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            config,
            options: self.state.options(),
            seed,
            players: config.seats().map(name).collect(),
            moves: self.moves.clone(),
            result: GameResult::of(&self.state).filter(|_| played_out),
        };
        let bytes = encode(&record).context("write the record")?;
        fs_err::write(path, &bytes)?;
        let count = record.moves.len();
        console::say(&format!("{}: {count} moves in {} bytes", path.display(), bytes.len()));
        Ok(())
    }

    fn ask(&mut self, moves: &[Move]) -> anyhow::Result<Wish> {
        console::say(self.state.render().trim_end());
        let texts: Vec<String> = moves.iter().map(|mv| self.state.notate(mv)).collect();
        list(&texts, "", 12);
        loop {
            let mut line = String::new();
            if self.input.read_line(&mut line).context("read what is typed")? == 0 {
                return Ok(Wish::Quit);
            }
            let line = line.trim();
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "" => {}
                "help" => console::say(HELP),
                "moves" => list(&texts, rest, usize::MAX),
                "board" => console::say(self.state.render().trim_end()),
                "resign" => return Ok(Wish::Resign),
                "quit" | "exit" => return Ok(Wish::Quit),
                _ => {
                    let chosen = texts.iter().position(|text| text == line).or_else(|| {
                        line.parse().ok().and_then(|number: usize| number.checked_sub(1))
                    });
                    if let Some(mv) = chosen.and_then(|index| moves.get(index)) {
                        return Ok(Wish::Make(*mv));
                    }
                    console::say(&self.refusal(line, moves.len()));
                }
            }
        }
    }

    /// Why a line is no move here.
    fn refusal(&self, line: &str, count: usize) -> String {
        if line.parse::<i64>().is_ok() {
            return format!("{line} is no number in the list; allowed are 1 to {count}");
        }
        match self.state.parse(line) {
            Err(error) => format!("{error}; `help` says what to type"),
            Ok(mv) => match self.state.clone().apply(&mv) {
                Err(illegal) => illegal.to_string(),
                Ok(()) => format!("{line} is written in another way"),
            },
        }
    }

    /// A move in words.
    fn describe(&self, mv: &Move) -> String {
        mv.describe(self.state.geometry())
    }
}

fn list(texts: &[String], part: &str, most: usize) {
    let fitting: Vec<(usize, &String)> =
        (1..).zip(texts).filter(|(_, text)| text.contains(part)).collect();
    let shown: Vec<String> =
        fitting.iter().take(most).map(|(number, text)| format!("{number}) {text}")).collect();
    console::say(&shown.join("   "));
    if fitting.len() > most {
        console::say(&format!("... {} moves in all; `moves` lists them", fitting.len()));
    }
}

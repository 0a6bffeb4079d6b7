//! The engine against the oracle, and the smallest position on which they differ.

use ringrift_rules::json::Position;
use ringrift_rules::{Config, SplitMix64, State};

use super::Oracle;
use super::positions::{Case, make};

/// What both make of a position; `None` if the engine does not read it.
fn read(case: &Case) -> Option<(State, Oracle)> {
    let state = case.position.state(case.config, case.options).ok()?;
    Some((state, Oracle::of(&case.position, case.config, case.options)))
}

/// Compares the legal lists.
fn lists(state: &State, oracle: &Oracle) -> Result<(), String> {
    let fast = state.legal_texts();
    let slow: Vec<String> = oracle.legal().into_iter().map(|(text, _)| text).collect();
    if fast == slow {
        return Ok(());
    }
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|text| !those.contains(text)).cloned().collect()
    };
    Err(format!(
        "legal moves: the engine alone lists {:?}, the oracle alone {:?}",
        only(&fast, &slow),
        only(&slow, &fast)
    ))
}

/// Compares everything about two positions but their legal lists.
fn positions(state: &State, oracle: &Oracle) -> Result<(), String> {
    let result = state.outcome().map(|o| (o.winner.number(), o.reason.name()));
    if result != oracle.result() {
        return Err(format!("result: engine {result:?}, oracle {:?}", oracle.result()));
    }
    if result.is_some() {
        return Ok(());
    }
    let (fast, slow) = (Position::of(state), oracle.position());
    if fast == slow {
        return Ok(());
    }
    let text = |position: &Position| serde_json::to_string(position).unwrap();
    Err(format!("position:\n  engine {}\n  oracle {}", text(&fast), text(&slow)))
}

/// Makes a move in both.
fn step(state: &mut State, oracle: &mut Oracle, text: &str) -> Result<(), String> {
    let mv = state.parse(text).map_err(|error| error.to_string())?;
    state.apply(&mv).map_err(|error| error.to_string())?;
    let (_, action) = oracle.legal().into_iter().find(|(own, _)| own == text).unwrap();
    oracle.make(&action);
    positions(state, oracle).map_err(|reason| format!("after {text}: {reason}"))
}

/// Compares a position: its list, and where some of its moves lead (`most` = all below that many).
pub(crate) fn check(case: &Case, most: usize) -> Result<(), String> {
    let Some((state, oracle)) = read(case) else { return Ok(()) };
    lists(&state, &oracle)?;
    let texts = state.legal_texts();
    let stride = texts.len().div_ceil(most).max(1);
    for text in texts.iter().step_by(stride) {
        step(&mut state.clone(), &mut oracle.clone(), text)?;
    }
    Ok(())
}

/// Leaves out whatever can be left out while the two still differ.
pub(crate) fn shrink(mut case: Case, differ: impl Fn(&Case) -> bool) -> Case {
    loop {
        let smaller = simpler(&case).into_iter().find(|simpler| differ(simpler));
        match smaller {
            Some(simpler) => case = simpler,
            None => return case,
        }
    }
}

/// All cases that are simpler by one thing.
fn simpler(case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut simpler = case.clone();
        change(&mut simpler);
        if simpler != *case {
            found.push(simpler);
        }
    };
    let board = &case.position.board;
    for key in board.stacks.keys() {
        with(&|case| {
            case.position.board.stacks.remove(key);
        });
    }
    for key in board.markers.keys() {
        with(&|case| {
            case.position.board.markers.remove(key);
        });
    }
    for key in board.collapsed.keys() {
        with(&|case| {
            case.position.board.collapsed.remove(key);
        });
    }
    for (key, rings) in &board.stacks {
        for ring in (0..rings.len()).filter(|_| rings.len() > 1) {
            with(&|case| {
                case.position.board.stacks.get_mut(key).unwrap().remove(ring);
            });
        }
    }
    for seat in 0..case.position.h.len() {
        with(&|case| case.position.h[seat] = 0);
        with(&|case| case.position.h[seat] = case.position.h[seat].min(1));
        with(&|case| case.position.e[seat] = 0);
    }
    with(&|case| case.position.lps = None);
    with(&|case| case.position.swap = None);
    with(&|case| case.options.swap_rule = false);
    with(&|case| case.options.rings_per_player = None);
    found
}

/// Compares at least `wanted` positions: made ones, and those that play from them meets.
///
/// Gives how many, and how many moves were listed. Panics with the smallest position that differs.
pub(crate) fn sweep(config: Config, wanted: u64, seed: u64) -> (u64, u64) {
    let mut random = SplitMix64::new(seed);
    let (mut compared, mut listed) = (0, 0);
    while compared < wanted {
        let case = make(config, &mut random);
        if let Err(reason) = check(&case, 6) {
            report(case, &reason);
        }
        let Some((mut state, mut oracle)) = read(&case) else { continue };
        for _ in 0..16 {
            compared += 1;
            let before = state.clone();
            let texts = state.legal_texts();
            listed += texts.len() as u64;
            if texts.is_empty() {
                assert!(state.is_over(), "no legal move\n{}", state.render());
                break;
            }
            let text = any_of_any_kind(&texts, &mut random);
            let met = step(&mut state, &mut oracle, text).and_then(|()| lists(&state, &oracle));
            if let Err(reason) = met {
                let position = Position::of(&before);
                report(Case { position, ..case }, &reason);
            }
        }
    }
    (compared, listed)
}

/// A move of a random kind, so that rare ones come up.
fn any_of_any_kind<'a>(texts: &'a [String], random: &mut SplitMix64) -> &'a str {
    let word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    let mut words: Vec<String> = texts.iter().map(|text| word(text)).collect();
    words.dedup();
    let chosen = &words[random.below(words.len())];
    let group: Vec<&String> = texts.iter().filter(|text| word(text) == *chosen).collect();
    group[random.below(group.len())]
}

fn report(case: Case, reason: &str) -> ! {
    let differs = |case: &Case| check_deep(case).is_err();
    let small = if differs(&case) { shrink(case, differs) } else { case };
    let again = check_deep(&small).err().unwrap_or_else(|| reason.to_owned());
    let board = read(&small).map_or_else(String::new, |(state, _)| state.render());
    panic!(
        "{again}\n{} {:?}\n{}\n{board}",
        small.config,
        small.options,
        serde_json::to_string(&small.position).unwrap()
    );
}

/// All moves, and the lists after them.
pub(crate) fn check_deep(case: &Case) -> Result<(), String> {
    check(case, usize::MAX)?;
    let Some((state, oracle)) = read(case) else { return Ok(()) };
    for text in state.legal_texts().iter().take(60) {
        let (mut state, mut oracle) = (state.clone(), oracle.clone());
        step(&mut state, &mut oracle, text)?;
        lists(&state, &oracle).map_err(|reason| format!("after {text}: {reason}"))?;
    }
    Ok(())
}

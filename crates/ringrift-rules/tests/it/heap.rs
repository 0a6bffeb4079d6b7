//! Moves without the heap: what listing, making, drawing and copying ask of it, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell as Counter;

use ringrift_rules::{Cell, Config, Kind, Move, Options, SplitMix64, State};

use crate::oracle::positions::make;

/// Counts what this thread asks of the heap.
struct Counting;

thread_local! {
    static ASKED: Counter<u64> = const { Counter::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// What the work asks of the heap.
fn asked<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = ASKED.with(Counter::get);
    let done = work();
    (ASKED.with(Counter::get) - before, done)
}

/// What came up, so that a test can tell that it met what it is about.
#[derive(Default)]
struct Met {
    moves: u64,
    regions: u64,
    /// Lists of several regions.
    choices: u64,
    /// Moves beside a stack of more than 64 rings, and those that took rings of one.
    tall: u64,
    shrunk: u64,
}

/// Rings of all stacks of more than 64.
fn tall_rings(state: &State) -> u64 {
    let heights = state.geometry().cells().map(|cell| match state.cell(cell) {
        Cell::Stack(stack) => u64::from(stack.height()),
        _ => 0,
    });
    heights.filter(|height| *height > 64).sum()
}

/// Plays on at random, any kind of move as likely, and counts at every step.
fn play(mut state: State, most: u32, random: &mut SplitMix64, met: &mut Met) {
    let (mut list, mut kinds) = (Vec::new(), Vec::new());
    let start = state.clone();
    let mut over = state.clone();
    for _ in 0..most {
        let place = || format!("{}\n{}", state.config(), state.render());
        // The first time the buffer grows to what it needs.
        state.legal_moves(&mut list);
        let (listing, ()) = asked(|| state.legal_moves(&mut list));
        assert_eq!(listing, 0, "listing on {}", place());
        let (counting, count) = asked(|| state.count_legal_moves());
        assert_eq!((counting, count), (0, list.len()), "counting on {}", place());
        let (drawing, drawn) = asked(|| state.sample(random));
        assert_eq!((drawing, drawn.is_some()), (0, !list.is_empty()), "drawing on {}", place());
        let (copying, mut copy) = asked(|| state.clone());
        assert_eq!(copying, 2, "copying on {}", place());
        if list.is_empty() {
            assert!(state.is_over());
            break;
        }
        kinds.clear();
        kinds.extend(list.iter().map(Move::kind));
        kinds.dedup();
        let kind = kinds[random.below(kinds.len())];
        list.retain(|mv| mv.kind() == kind);
        let mv = &list[random.below(list.len())];

        let tall = tall_rings(&state);
        let (copying, ()) = asked(|| over.clone_from(&state));
        assert_eq!(copying, 0, "copying over another position on {}", place());
        let (making, ()) = asked(|| over.apply_legal(mv));
        assert_eq!(making, 0, "{} on {}", mv.kind(), place());
        let (making, made) = asked(|| copy.apply(mv));
        assert_eq!((making, made), (0, Ok(())), "{} on {}", mv.kind(), place());
        assert!(copy == over);

        met.moves += 1;
        met.regions += u64::from(kind == Kind::ChooseTerritory);
        met.choices += u64::from(kind == Kind::ChooseTerritory && list.len() > 1);
        met.tall += u64::from(tall > 0);
        met.shrunk += u64::from(tall_rings(&copy) < tall);
        state = copy;
    }
    // A copy that was made late has room for the beginning too.
    let mut late = state.clone();
    let (copying, ()) = asked(|| late.clone_from(&start));
    assert_eq!(copying, 0, "copying the beginning over {}", state.render());
    assert!(late == start);
}

#[test]
fn games_ask_nothing_of_the_heap() {
    for (seed, config) in (0..).zip(Config::ALL) {
        let mut random = SplitMix64::new(seed);
        let mut met = Met::default();
        for _ in 0..if config.board.cell_count() < 100 { 8 } else { 1 } {
            play(State::new(config, Options::default()), 3000, &mut random, &mut met);
        }
        assert!(met.moves > 300 && met.regions > 0, "{config}: {}, {}", met.moves, met.regions);
    }
}

/// Positions that no game reaches: stacks of up to 80 rings, regions within regions.
#[test]
fn made_positions_ask_nothing_of_the_heap() {
    let mut all_shrunk = 0;
    for (seed, config) in (0..).zip(Config::ALL) {
        let mut random = SplitMix64::new(seed);
        let mut met = Met::default();
        for _ in 0..if config.board.cell_count() < 100 { 300 } else { 150 } {
            let case = make(config, &mut random);
            if let Ok(state) = case.position.state(case.config, case.options) {
                play(state, 24, &mut random, &mut met);
            }
        }
        let Met { moves, regions, choices, tall, shrunk } = met;
        let all = [moves, regions, choices, tall];
        assert!(all.iter().all(|count| *count > 0), "{config}: {all:?}");
        all_shrunk += shrunk;
    }
    assert!(all_shrunk > 20, "{all_shrunk}");
}

use super::*;
use crate::config::{Config, Options};

fn start(config: &str) -> State {
    State::new(config.parse::<Config>().unwrap(), Options::default())
}

#[test]
fn the_hash_is_the_published_one() {
    assert_eq!(hex(fnv64("hello")), "a430d84680aabd0b");
}

#[test]
fn a_text_that_is_no_move_is_refused_with_what_is_wrong() {
    let state = start("hex8_2p");
    let check = |text: &str, reason: &str| {
        let error = state.parse(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    };
    check("", "first word");
    check("Q 0,0,0", "first word");
    check("P 0,0,0", "number of rings missing");
    check("P 0,0,0 x", "no number");
    check("P 9,0,-9 1", "not on the board");
    check("P 0,0 1", "usual form");
    check("M 0,0,0", "> between");
    check("C 0,0,0>1,0,-1", "* before");
    check("L 0,0,0 2,0,-2", "not a row");
    check("O 0,0,0", "miss");
    check("E tax 0,0,0", "context");
    check("T 0,0,0 4 0000000000000000", "no such region");
    check("R line 0,0,0>1,0,-1 3 x0,0,0", "mode and option");
    check("NP ", "usual form");
}

#[test]
fn moves_of_every_shape_read_back_from_their_text() {
    let state = start("square8_2p");
    for text in [
        "P 3,4 2",
        "SP",
        "NP",
        "SW",
        "M 0,0>0,2",
        "C 0,0*0,1>0,2",
        "K 7,7*5,5>3,3",
        "SC",
        "NM",
        "R line 0,0>0,1 1 x3,3",
        "R line 0,0>0,1 2 x 0,1 0,2 0,3 0,4",
        "R fallback 0,0>0,1 1 x3,3",
        "R stack_strike 0,0>0,1 1 x3,3",
        "SR",
        "L 0,3 1,2 2,1 3,0",
        "O 0,0 1,1 2,2 3,3 4,4 / 1,1 2,2 3,3 4,4",
        "E line 0,0",
        "E territory 0,0",
        "E recovery 0,0",
        "NL",
        "ST",
        "NT",
        "F 5,5",
    ] {
        let mv = state.parse(text).unwrap();
        assert_eq!(state.notate(&mv), text);
    }
}

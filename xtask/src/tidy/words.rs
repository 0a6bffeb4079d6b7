//! Generic crates do not know the game: not in code, not in comments, not in tests.

use super::source::{numbered, words};
use super::tree::Tree;
use super::{Finding, edges};

/// A word or its plural. "model" is here as the learned artefact, which is what it means elsewhere.
const WORDS: &[&str] = &[
    "ringrift",
    "board",
    "ring",
    "elo",
    "selfplay",
    "gauntlet",
    "champion",
    "hex8",
    "hexagonal",
    "square8",
    "square19",
    "mcts",
    "perft",
    "model",
];

/// The same words where they mean something else, known by the word before or after.
const ORDINARY: &[[&str; 2]] = &[
    ["cpu", "model"],
    ["gpu", "model"],
    ["disk", "model"],
    ["memory", "model"],
    ["data", "model"],
    ["ring", "buffer"],
];

/// Rule `words`.
pub fn generic_crates(tree: &Tree, findings: &mut Vec<Finding>) {
    for name in edges::GENERIC {
        for (path, file) in tree.below(&format!("crates/{name}/")) {
            let lines = std::iter::once((0, path)).chain(numbered(&file.text));
            for (line, text) in lines {
                for word in forbidden(text) {
                    findings.push(Finding {
                        path: path.to_owned(),
                        line,
                        rule: "words",
                        sentence: format!(
                            "`{word}` is a word of the game; a generic crate uses words that another game could use"
                        ),
                    });
                }
            }
        }
    }
}

fn forbidden(line: &str) -> Vec<String> {
    let words = words(line);
    let singular = |word: &str| word.strip_suffix('s').unwrap_or(word).to_owned();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| words[index].as_str());
        let after = words.get(index + 1).map(|word| singular(word));
        let one = singular(word);
        let ordinary = ORDINARY.iter().any(|[first, second]| {
            (one == *second && before == Some(first))
                || (one == *first && after.as_deref() == Some(second))
        });
        if word == "self" && after.as_deref() == Some("play") {
            found.push("self-play".to_owned());
        } else if !ordinary && (WORDS.contains(&word.as_str()) || WORDS.contains(&one.as_str())) {
            found.push(word.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_game_are_found_in_any_spelling() {
        let check = |line, expected: &[&str]| assert_eq!(forbidden(line), expected, "{line}");
        check("struct BoardId(u8); // the RINGS of hex8_2p", &["board", "rings", "hex8"]);
        check("let elo = model.elo();", &["elo", "model", "elo"]);
        check(
            "fn self_play() // self-play, SelfPlay, selfplay",
            &["self-play", "self-play", "self-play", "selfplay"],
        );
        check("# RingRift and ringrift-rules", &["ring", "ringrift"]);
    }

    #[test]
    fn ordinary_words_are_left_alone() {
        for line in [
            "a string on the keyboard; the dashboard is during boarding",
            "the CPU model, a ring buffer, RingBuffer<T>, data models",
            "self.player, developer, melody, modelled",
            "io_uring and squares",
        ] {
            assert_eq!(forbidden(line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn only_generic_crates_are_searched_and_file_names_count() {
        let files = [
            ("crates/depot/src/board.rs", "//! A\n\nfn b() {}\n"),
            ("crates/ringrift-rules/src/board.rs", "board\n"),
            ("crates/hosts/Cargo.toml", "\ndescription = \"for RINGRIFT\"\n"),
        ];
        let sentence =
            "is a word of the game; a generic crate uses words that another game could use [words]";
        assert_eq!(
            super::super::says(generic_crates, &files),
            [
                format!("crates/depot/src/board.rs:1: `board` {sentence}"),
                format!("crates/hosts/Cargo.toml:2: `ringrift` {sentence}"),
            ]
        );
    }
}

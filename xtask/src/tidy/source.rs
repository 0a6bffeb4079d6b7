//! A textual reading of Rust: good enough for rules about names, far from a parser.

/// Lines that are not comments, numbered from 1.
pub fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(text).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// As [`code`], without the tests at the end of the file.
pub fn production(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = test_module_line(text).unwrap_or(usize::MAX);
    code(text).take_while(move |&(number, _)| number < tests)
}

pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The line of `#[cfg(test)]` above an inline `mod`; a declaration of a file (`mod tests;`) is not one.
fn test_module_line(text: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let opens = |line: &str| line.contains("mod ") && line.ends_with('{');
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && opens(pair[1]))
        .map(|index| index + 1)
}

/// Whether `name` stands in the line as a whole identifier.
pub fn mentions(line: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + name.len()..].starts_with(part))
}

/// The words of a line in lower case: `SelfPlay`, `self_play` and `self-play` are `self`, `play`.
pub fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = ' ';
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_alphanumeric() {
            let next_is_lower = rest.peek().is_some_and(|next| next.is_lowercase());
            let hump = c.is_uppercase() && (!previous.is_uppercase() || next_is_lower);
            if hump || !previous.is_alphanumeric() {
                words.push(String::new());
            }
            words.last_mut().expect("a word was begun").extend(c.to_lowercase());
        }
        previous = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_humps_and_signs() {
        let check = |line, expected: &[&str]| assert_eq!(words(line), expected, "{line}");
        check("let board_size = BoardId(2);", &["let", "board", "size", "board", "id", "2"]);
        check("the HTTPServer, HEX8_2P", &["the", "http", "server", "hex8", "2", "p"]);
        check("a dashboard on square8", &["a", "dashboard", "on", "square8"]);
        check("self-play SelfPlay", &["self", "play", "self", "play"]);
    }

    #[test]
    fn production_ends_where_the_tests_begin() {
        let text = "use a;\n// b\nmod c {}\n#[cfg(test)]\nmod tests {\n  use d;\n}\n";
        let lines: Vec<&str> = production(text).map(|(_, line)| line).collect();
        assert_eq!(lines, ["use a;", "mod c {}"]);
    }

    #[test]
    fn a_declared_test_file_ends_nothing() {
        assert_eq!(production("#[cfg(test)]\nmod tests;\nuse a;\n").count(), 3);
    }

    #[test]
    fn an_identifier_is_found_only_whole() {
        assert!(mentions("use toml::Table;", "toml"));
        assert!(!mentions("use toml_edit::Table;", "toml"));
        assert!(mentions("my_toml(toml)", "toml"));
    }
}

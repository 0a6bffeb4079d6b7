//! What people and scripts read: standard output and standard error, and nothing else prints.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

/// Prints a line. A reader that is gone (`| head`) is no error of ours.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Prints a line; tells whether somebody still reads. For what would else print for ever.
pub fn is_heard(line: &str) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// The same text without line breaks and other control characters: what a worker or a file says
/// must not write on a terminal by itself.
pub fn one_line(text: &str) -> String {
    let lines: Vec<&str> =
        text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" | ").replace(char::is_control, " ")
}

/// Prints a line on standard error.
pub fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Prints a value as indented JSON.
pub fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Does a person look at standard output?
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Replaces the line at the cursor, on a terminal only: a status line.
pub fn status(line: &str) {
    if is_terminal() {
        let mut out = io::stdout().lock();
        drop(write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush()));
    }
}

/// Rows as columns of equal width; numbers should come right-aligned already.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(padded.join("  ").trim_end());
    };
    line(&head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
}

/// A duration for people: `5 s`, `3 min`, `2.5 h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays_on_one_line() {
        assert_eq!(one_line("one\r\n  two\n\n"), "one | two");
        assert_eq!(one_line("\u{1b}[31mred\u{7}"), " [31mred ");
    }
}

//! Sizes: what one person can hold in view.

use std::collections::BTreeMap;

use super::Finding;
use super::source::numbered;
use super::tree::{Tree, extension, split};

/// Lines of a source file. Source of this and the next two: house style, section 1.
const MAX_LINES: usize = 700;
/// Rust files directly in a folder.
const MAX_FILES: usize = 20;
/// Folders below `src`: a daemon's category, and in it the folder of its tests.
const MAX_DEPTH: usize = 2;
/// Lines of the overview that a stranger reads first.
const MAX_OVERVIEW_LINES: usize = 250;
/// Bytes of all test data: a clone stays a matter of seconds.
const MAX_TESTDATA: u64 = 6_000_000;

/// What is written by hand and read from top to bottom.
const SOURCES: &[&str] = &["rs", "py", "sh", "sql", "js", "css", "html"];

/// Rule `size`: lines per file.
pub fn sizes(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, file) in tree.iter() {
        let is_source = SOURCES.contains(&extension(path));
        let limit = match path {
            "ARCHITECTURE.md" => MAX_OVERVIEW_LINES,
            _ if is_source && !path.starts_with("testdata/") => MAX_LINES,
            _ => continue,
        };
        let lines = numbered(&file.text).count();
        if lines > limit {
            findings.push(Finding {
                path: path.to_owned(),
                line: limit + 1,
                rule: "size",
                sentence: format!("{lines} lines; at most {limit}"),
            });
        }
    }
}

/// Rule `folders`: files per folder and folders below `src`.
pub fn folders(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut report = |path: &str, sentence: String| {
        findings.push(Finding { path: path.to_owned(), line: 0, rule: "folders", sentence });
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, _) in tree.rust("") {
        let (folder, _) = split(path);
        *counts.entry(folder).or_default() += 1;
        let below_source = folder.split_once("/src/").map(|(_, below)| below.split('/').count());
        if below_source.is_some_and(|depth| depth > MAX_DEPTH) {
            report(path, format!("lies deeper than {MAX_DEPTH} folders below src; lift it"));
        }
    }
    for (folder, count) in counts {
        if count > MAX_FILES {
            report(folder, format!("{count} Rust files in one folder; at most {MAX_FILES}"));
        }
    }
}

/// Rule `testdata`: bytes of all of it.
pub fn testdata(tree: &Tree, findings: &mut Vec<Finding>) {
    let bytes: u64 = tree.below("testdata/").map(|(_, file)| file.size).sum();
    if bytes > MAX_TESTDATA {
        findings.push(Finding {
            path: "testdata".to_owned(),
            line: 0,
            rule: "testdata",
            sentence: format!("{bytes} bytes; at most {MAX_TESTDATA}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    #[test]
    fn a_file_may_have_700_lines_and_not_one_more() {
        let (fits, long) = ("x\n".repeat(700), "x\n".repeat(701));
        let files = [
            ("ARCHITECTURE.md", &*"x\n".repeat(251)),
            ("crates/a/src/fits.rs", &fits),
            ("crates/a/src/long.rs", &long),
            ("crates/a/src/page.html", &long),
            ("docs/configuration.md", &long),
            ("testdata/games.py", &long),
        ];
        assert_eq!(
            says(sizes, &files),
            [
                "ARCHITECTURE.md:251: 251 lines; at most 250 [size]",
                "crates/a/src/long.rs:701: 701 lines; at most 700 [size]",
                "crates/a/src/page.html:701: 701 lines; at most 700 [size]",
            ]
        );
    }

    #[test]
    fn a_folder_may_have_20_rust_files_and_not_one_more() {
        let names: Vec<String> = (0..41)
            .map(|n| format!("crates/a/src/{}/{n}.rs", if n < 20 { "full" } else { "over" }))
            .collect();
        let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        files.push(("crates/a/src/full/page.html", ""));
        assert_eq!(
            says(folders, &files),
            ["crates/a/src/over:1: 21 Rust files in one folder; at most 20 [folders]"]
        );
    }

    #[test]
    fn a_third_folder_below_src_is_too_deep() {
        let files = [("crates/a/src/b/c/d.rs", ""), ("crates/a/src/b/c/d/e.rs", "")];
        assert_eq!(
            says(folders, &files),
            ["crates/a/src/b/c/d/e.rs:1: lies deeper than 2 folders below src; lift it [folders]"]
        );
    }

    #[test]
    fn test_data_has_one_budget() {
        let half = "x".repeat(3_000_001);
        let files = [("testdata/a", &*half), ("testdata/b/c", &*half), ("docs/d", &*half)];
        assert_eq!(
            says(testdata, &files),
            ["testdata:1: 6000002 bytes; at most 6000000 [testdata]"]
        );
    }
}

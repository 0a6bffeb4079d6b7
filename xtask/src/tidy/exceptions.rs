//! Exceptions to the rules: lines with reasons in one file; one that excuses nothing is an error.

use anyhow::Context as _;
use serde::Deserialize;

use super::Finding;
use super::tree::Tree;

pub const FILE: &str = "xtask/tidy.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exceptions {
    exception: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    /// The word in brackets at the end of a finding.
    rule: String,
    /// A file, or a folder with `/` at the end.
    path: String,
    /// Text that the finding or its line contains; without it every finding of the rule there.
    contains: Option<String>,
    reason: String,
}

impl Exceptions {
    pub fn read(tree: &Tree) -> anyhow::Result<Self> {
        toml::from_str(tree.text(FILE).unwrap_or_default()).with_context(|| format!("read {FILE}"))
    }

    /// The findings that are left, and one for every exception that has no use or no reason.
    pub fn apply(&self, tree: &Tree, findings: Vec<Finding>) -> Vec<Finding> {
        let mut used = vec![false; self.exception.len()];
        let mut left: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| {
                let mut excused = false;
                for (exception, used) in self.exception.iter().zip(&mut used) {
                    if exception.covers(tree, finding) {
                        *used = true;
                        excused = true;
                    }
                }
                !excused
            })
            .collect();
        for (exception, used) in self.exception.iter().zip(used) {
            if !used {
                left.push(exception.complaint("excuses nothing; remove it"));
            }
            if exception.reason.trim().is_empty() {
                left.push(exception.complaint("has no reason; each exception says why"));
            }
        }
        left
    }
}

impl Exception {
    fn covers(&self, tree: &Tree, finding: &Finding) -> bool {
        let here = if self.path.ends_with('/') {
            finding.path.starts_with(&self.path)
        } else {
            finding.path == self.path
        };
        let said = |needle: &String| {
            let text = tree.text(&finding.path).unwrap_or_default();
            let line = finding.line.checked_sub(1).and_then(|index| text.lines().nth(index));
            finding.sentence.contains(needle) || line.is_some_and(|line| line.contains(needle))
        };
        here && self.rule == finding.rule && self.contains.as_ref().is_none_or(said)
    }

    fn complaint(&self, what: &str) -> Finding {
        let sentence = format!("the exception from `{}` for {} {what}", self.rule, self.path);
        Finding { path: FILE.to_owned(), line: 0, rule: "exceptions", sentence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(exceptions: &str) -> Vec<String> {
        let tree = Tree::of(&[(FILE, exceptions), ("crates/hosts/src/lib.rs", "ring 0\nring 3\n")]);
        let finding = |line| Finding {
            path: "crates/hosts/src/lib.rs".to_owned(),
            line,
            rule: "words",
            sentence: "no".to_owned(),
        };
        let exceptions = Exceptions::read(&tree).unwrap();
        let left = exceptions.apply(&tree, vec![finding(1), finding(2)]);
        left.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn an_exception_covers_only_the_line_that_it_quotes() {
        let text = r#"exception = [{ rule = "words", path = "crates/hosts/", contains = "ring 0", reason = "the processor's" }]"#;
        assert_eq!(left(text), ["crates/hosts/src/lib.rs:2: no [words]"]);
    }

    #[test]
    fn an_exception_that_excuses_nothing_is_a_finding() {
        let text = r#"exception = [
            { rule = "words", path = "crates/hosts/src/lib.rs", reason = "the processor's" },
            { rule = "size", path = "crates/hosts/src/lib.rs", reason = "long" },
        ]"#;
        let expected = "xtask/tidy.toml:1: the exception from `size` for crates/hosts/src/lib.rs \
                        excuses nothing; remove it [exceptions]";
        assert_eq!(left(text), [expected]);
    }

    #[test]
    fn an_exception_without_a_reason_is_a_finding() {
        let text = r#"exception = [{ rule = "words", path = "crates/hosts/", reason = " " }]"#;
        let expected = "xtask/tidy.toml:1: the exception from `words` for crates/hosts/ \
                        has no reason; each exception says why [exceptions]";
        assert_eq!(left(text), [expected]);
    }
}

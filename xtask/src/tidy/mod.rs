//! The layout rules: what the compiler and clippy cannot see.
//!
//! Every rule is a function from the tree of files to findings; nothing here changes a file.

mod edges;
mod exceptions;
mod layout;
mod manifest;
mod modules;
mod source;
mod text;
mod tree;
mod words;

use std::fmt;

use anyhow::bail;

use crate::workspace::Workspace;
use exceptions::Exceptions;
use tree::Tree;

/// A broken rule at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 = the file as a whole.
    line: usize,
    /// The word by which `tidy.toml` names the rule.
    rule: &'static str,
    /// What is wrong; what is allowed.
    sentence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {} [{}]", self.path, self.line.max(1), self.sentence, self.rule)
    }
}

/// Each rule adds what it finds.
type Rule = fn(&Tree, &mut Vec<Finding>);

const RULES: &[Rule] = &[
    edges::flat,
    edges::between_crates,
    edges::must_not_know,
    edges::unused,
    words::generic_crates,
    layout::sizes,
    layout::folders,
    layout::testdata,
    modules::unreachable,
    modules::daemons,
    text::attributes,
    text::unfinished,
    text::machines,
    text::hosts,
    text::conflicts,
    text::links,
];

/// Prints every finding that no exception covers; an error if there is one.
pub fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let tree = Tree::read(workspace)?;
    let exceptions = Exceptions::read(&tree)?;
    let findings = exceptions.apply(&tree, findings(&tree));
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!(
            "{} findings; exceptions, with reasons, go into {}",
            findings.len(),
            exceptions::FILE
        );
    }
    Ok(())
}

fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        rule(tree, &mut findings);
    }
    findings.sort();
    findings
}

/// What the rule says about a tree of these files, as the lines a person would read.
#[cfg(test)]
fn says(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    rule(&Tree::of(files), &mut findings);
    findings.sort();
    findings.iter().map(Finding::to_string).collect()
}

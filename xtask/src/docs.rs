//! Documents that the binary writes about itself: it knows its registry and its configuration.

use anyhow::{Context as _, bail};

use crate::workspace::{Workspace, capture};

/// What `ringrift docs TOPIC` prints, and where it is kept.
const DOCUMENTS: &[(&str, &str)] = &[
    ("daemons", "docs/daemons.md"),
    ("configuration", "docs/configuration.md"),
    ("events", "docs/events.md"),
];

const NOTICE: &str = "<!-- Derived: `cargo xtask docs` writes this file. -->\n\n";

/// Writes every document that differs.
pub fn write(workspace: &Workspace) -> anyhow::Result<()> {
    for (path, text) in stale(workspace)? {
        fs_err::write(workspace.root().join(path), text)?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Fails, naming them, if documents differ from what the binary would print.
pub fn verify(workspace: &Workspace) -> anyhow::Result<()> {
    let stale: Vec<&str> = stale(workspace)?.into_iter().map(|(path, _)| path).collect();
    if !stale.is_empty() {
        bail!("stale: {}; run cargo xtask docs", stale.join(", "));
    }
    Ok(())
}

fn stale(workspace: &Workspace) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut stale = Vec::new();
    for &(topic, path) in DOCUMENTS {
        let text = derive(workspace, topic).with_context(|| format!("derive {path}"))?;
        // A file that is missing or unreadable as text is as stale as one that differs.
        if fs_err::read_to_string(workspace.root().join(path)).ok().as_ref() != Some(&text) {
            stale.push((path, text));
        }
    }
    Ok(stale)
}

fn derive(workspace: &Workspace, topic: &str) -> anyhow::Result<String> {
    let mut command = workspace.cargo(&["run", "--quiet", "--package", "ringrift"]);
    command.args(["--bin", "ringrift", "--", "docs", topic]);
    // The documents show defaults, not what this shell happens to have set.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGRIFT_") {
            command.env_remove(name);
        }
    }
    let text = capture(command)?;
    if text.trim().is_empty() {
        bail!("`ringrift docs {topic}` printed nothing");
    }
    Ok(format!("{NOTICE}{}\n", text.trim_end()))
}

//! docs/runbook.md, run from top to bottom.
//!
//! A fenced block `sh` is a script; the fence `text` behind it holds lines that it prints, in that
//! order, with `...` for what differs. A fence `rust` is compiled by the doc tests of `warden`. A comment before it says more: `<!-- run: exit=3 -->`,
//! `manager=none` (it runs without a manager; else with one), `foreground` (it becomes the manager),
//! `by-hand (why)` (the test must not run it, and says so in a list below).

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::{TempDir, tempdir};

use crate::bench::{Ended, RINGRIFT, run, wait_for};

/// A start on a busy machine, and the first games.
const START: Duration = Duration::from_mins(1);

/// Blocks that change the machine that runs them.
const BY_HAND: &[&str] = &["ringrift service install --user"];

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "marks of a block; each stands alone")]
pub struct Block {
    line: usize,
    pub script: String,
    expected: Vec<String>,
    exit: i32,
    without_manager: bool,
    foreground: bool,
    by_hand: bool,
    /// It needs a server of the log.
    pub cluster: bool,
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook.md");
    fs_err::read_to_string(path).unwrap()
}

pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut next = Block::default();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let fenced = |lines: &mut std::iter::Enumerate<std::str::Lines<'_>>| -> Vec<String> {
            lines.map(|(_, line)| line.to_owned()).take_while(|line| line != "```").collect()
        };
        if let Some(wishes) = line.strip_prefix("<!-- run: ") {
            let wishes = wishes.strip_suffix(" -->").unwrap();
            if wishes.starts_with("by-hand (") {
                next.by_hand = true;
                continue;
            }
            for wish in wishes.split(' ') {
                match wish.split_once('=') {
                    Some(("exit", code)) => next.exit = code.parse().unwrap(),
                    Some(("manager", "none")) => next.without_manager = true,
                    None if wish == "foreground" => next.foreground = true,
                    None if wish == "cluster" => {
                        next.cluster = true;
                        next.without_manager = true;
                    }
                    _ => panic!("line {}: unknown wish {wish}", number + 1),
                }
            }
        } else if line == "```sh" {
            next.line = number + 1;
            next.script = fenced(&mut lines).join("\n");
            blocks.push(std::mem::take(&mut next));
        } else if line == "```rust" || line == "```toml" {
            fenced(&mut lines);
        } else if line == "```text" {
            blocks.last_mut().unwrap().expected = fenced(&mut lines);
        } else {
            assert!(!line.starts_with("```"), "line {}: unknown fence {line}", number + 1);
        }
    }
    blocks
}

/// Does a line look like this, with `...` for anything?
fn looks_like(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn check_printed(block: &Block, printed: &str) {
    let mut lines = printed.lines();
    for expected in &block.expected {
        assert!(
            lines.any(|line| looks_like(line, expected)),
            "line {}: nothing (more) looks like {expected:?} in\n{printed}",
            block.line
        );
    }
}

/// An operator's place: a folder, the program on the path, and the manager that runs there now.
pub struct Desk {
    pub dir: TempDir,
    manager: Option<Child>,
    /// More variables.
    pub env: Vec<(String, String)>,
    /// What stands for something else here.
    pub means: Vec<(String, String)>,
}

impl Desk {
    pub fn new() -> Self {
        Self { dir: tempdir().unwrap(), manager: None, env: Vec::new(), means: Vec::new() }
    }

    fn bash(&self, script: &str) -> Command {
        let port = fs_err::read_to_string(self.dir.path().join("ringrift-data/run/port"));
        let mut script = match port {
            Ok(port) => script.replace("localhost:8790", &format!("localhost:{}", port.trim())),
            Err(_) => script.to_owned(),
        };
        for (written, meant) in &self.means {
            script = script.replace(written, meant);
        }
        let programs = PathBuf::from(RINGRIFT).parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)));
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]).current_dir(self.dir.path());
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("RINGRIFT_") {
                command.env_remove(key);
            }
        }
        // Others may have the usual port; one config is enough to have something to show.
        command
            .env("PATH", path.unwrap())
            .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/python"))
            .env("RINGRIFT_HTTP_PORT", "0")
            .env("RINGRIFT_LOOP_CONFIGS", "hex8_2p")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn ended(&self, script: &str) -> Ended {
        // Both outputs in one, as a person sees them.
        self.bash(&format!("exec 2>&1\n{script}")).output().unwrap().into()
    }

    fn has_manager(&mut self) -> bool {
        // One that was told to stop takes a moment to be gone.
        let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        if self.manager.as_mut().is_some_and(ended) {
            self.manager = None;
        }
        self.manager.is_some()
    }

    pub fn stop(&mut self) {
        if self.has_manager() {
            let stopped = self.ended("ringrift stop");
            assert_eq!(stopped.code, 0, "{stopped:?}");
            let mut manager = self.manager.take().unwrap();
            wait_for("the manager to end", START, || manager.try_wait().unwrap());
        }
    }

    /// Becomes a manager; gives what it printed by the time that all its daemons ran.
    fn start(&mut self, script: &str) -> String {
        self.stop();
        let path = self.dir.path().join("up.out");
        let output = fs_err::File::create(&path).unwrap().into_file();
        let mut manager = self
            .bash(&format!("exec {script}"))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let printed = || fs_err::read_to_string(&path).unwrap();
        wait_for("all daemons to run", START, || {
            let early = manager.try_wait().unwrap();
            assert_eq!(early, None, "{}", printed());
            let status = self.ended("ringrift status --json");
            let summary = (status.code == 0).then(|| status.json()["summary"].clone())?;
            (summary["running"] == summary["asked"] && summary["asked"] != 0).then_some(())
        });
        self.manager = Some(manager);
        printed()
    }

    /// A manager that has something to show.
    pub fn work(&mut self) {
        if !self.has_manager() {
            self.start("ringrift up");
            wait_for("games to be accepted", START, || {
                let told = self.ended("ringrift events --topic games.accepted").out;
                told.contains("replay without a fault").then_some(())
            });
        }
    }

    pub fn follow(&mut self, block: &Block) {
        if block.foreground {
            let printed = self.start(&block.script);
            return check_printed(block, &printed);
        }
        if block.without_manager {
            self.stop();
        } else {
            self.work();
        }
        let ended = self.ended(&block.script);
        assert_eq!(ended.code, block.exit, "line {}: {}\n{}", block.line, block.script, ended.out);
        check_printed(block, &ended.out);
        if block
            .script
            .lines()
            .any(|line| line.trim().ends_with(" stop") || line.ends_with("--stop"))
        {
            let mut manager = self.manager.take().unwrap();
            wait_for("the manager to end", START, || manager.try_wait().unwrap());
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(mut manager) = self.manager.take() {
            drop(manager.kill());
            drop(manager.wait());
        }
    }
}

#[test]
fn every_command_of_the_runbook_does_what_the_page_says() {
    let mut desk = Desk::new();
    let (mut run, mut by_hand) = (0, Vec::new());
    for block in blocks(&page()) {
        let first = block.script.lines().next().unwrap().to_owned();
        if block.by_hand {
            by_hand.push(first);
        } else {
            desk.follow(&block);
            run += 1;
        }
    }
    desk.stop();
    assert_eq!(by_hand, BY_HAND);
    assert!(run > 20, "the page was not read");
}

/// What the prose names exists as well.
#[test]
fn commands_and_variables_in_the_text_exist() {
    let page = page();
    let folder = tempdir().unwrap();
    let known = run(folder.path(), &["docs", "configuration"]).out;
    let quoted: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let mut seen = 0;
    for text in quoted {
        // The place of the data is no key: it is where keys are looked for.
        let is_variable = text.starts_with("RINGRIFT_") && text != "RINGRIFT_DATA_DIR";
        assert!(!is_variable || known.contains(&format!("`{text}`")), "{text} is no variable");
        let Some(command) = text.strip_prefix("ringrift ") else { continue };
        let name = command.split(' ').next().unwrap();
        seen += 1;
        assert_eq!(run(folder.path(), &[name, "--help"]).code, 0, "`{text}` is no command");
    }
    assert!(seen > 5, "the page was not read");
}

#[test]
fn a_pattern_stands_for_what_differs() {
    let check =
        |line, pattern, expected| assert_eq!(looks_like(line, pattern), expected, "{pattern}");
    check("stopped", "stopped", true);
    check("stopped!", "stopped", false);
    check("a 17 b 18 c", "a ... b ... c", true);
    check("a 17 b 18 d", "a ... b ... c", false);
    check("clean: 3", "clean: ...", true);
    check("x clean: 3", "clean: ...", false);
    check("x clean", "...clean", true);
    check("", "...", true);
}

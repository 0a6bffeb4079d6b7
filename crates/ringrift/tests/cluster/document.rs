//! The commands of docs/cluster.md, run as they stand there, each on the host that has the address of its block.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    bed::{Bed, Host},
    nodes::{Process, wait_for},
};

/// A block of commands: where, and what.
struct Block {
    address: String,
    commands: Vec<String>,
}

/// The blocks whose first line is the fence with `sh` and an address.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(address) = line.strip_prefix("```sh ") else { continue };
        let commands =
            lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        blocks.push(Block { address: address.to_owned(), commands });
    }
    blocks
}

/// Somebody at a machine: a folder, programs that are found by their names, and a manager in the background.
struct Person {
    host: Host,
    folder: PathBuf,
    path: String,
    manager: Option<Process>,
}

impl Person {
    fn shell(&self, command: &str) -> Command {
        let mut shell = self.host.command("sh");
        shell.args(["-c", command]).current_dir(&self.folder).env("PATH", &self.path);
        // The hosts share a disk that is nobody's own.
        shell.env("RINGRIFT_DISK_SPACE_MANAGER_MOST_USED", "0.99");
        shell.env("RINGRIFT_AUTO_SYNC_FETCH_BELOW", "1");
        shell.env("RINGRIFT_DISK_SPACE_MANAGER_CALM_USED", "0.98");
        shell
    }

    fn run(&mut self, command: &str) -> String {
        println!("{}$ {command}", self.host.address);
        if command.starts_with("ringrift up ") {
            let log = self.folder.join("up.out");
            self.manager = Some(Process::start(self.shell(&format!("exec {command}")), &log));
            let up = || self.shell("ringrift status --data D").output().unwrap().status.success();
            wait_for("the manager to answer", Duration::from_mins(2), || up().then_some(()));
            return String::new();
        }
        let output = self.shell(command).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        if command.starts_with("ringrift stop ") {
            self.manager.take().expect("a manager runs").finish();
        }
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn nodes(&self) -> Value {
        let shown = self.shell("ringrift nodes --json --data D").output().unwrap();
        serde_json::from_slice::<Value>(&shown.stdout).unwrap()["nodes"].take()
    }
}

#[test]
fn the_commands_of_the_document_do_what_it_says() {
    let Some(server) = testkit::nats_server() else { return };
    let names = ["first", "second", "third"];
    let Some(bed) = Bed::make(&names, &[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let programs = [Path::new(env!("CARGO_BIN_EXE_ringrift")), &server];
    let mut path: Vec<String> =
        programs.iter().map(|file| file.parent().unwrap().display().to_string()).collect();
    path.push(std::env::var_os("PATH").unwrap().into_string().unwrap());
    let mut people: Vec<Person> = names
        .iter()
        .map(|name| {
            let own = folder.path().join(name);
            fs_err::create_dir(&own).unwrap();
            let host = bed.host(name).clone();
            Person { host, folder: own, path: path.join(":"), manager: None }
        })
        .collect();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cluster.md");
    let mut third = String::new();
    let mut run = Vec::new();
    for block in blocks(&fs_err::read_to_string(document).unwrap()) {
        let at = people.iter().position(|person| person.host.address == block.address).unwrap();
        for command in &block.commands {
            if command.starts_with("ringrift node remove ") {
                // The host is lost.
                people[2].manager = None;
            }
            people[at].run(&command.replace("NAME", &third));
            run.push(command.clone());
        }
        // Somebody carries the tickets.
        for ticket in ["ticket-2", "ticket-3"] {
            let made = people[0].folder.join(ticket);
            for other in &people[1..] {
                if made.is_file() {
                    fs_err::copy(&made, other.folder.join(ticket)).unwrap();
                }
            }
        }
        if third.is_empty() && people[2].manager.is_some() {
            third = fs_err::read_to_string(people[2].folder.join("D/node")).unwrap();
            third = third.trim().to_owned();
            let nodes = wait_for("three nodes", Duration::from_mins(1), || {
                let nodes = people[0].nodes();
                nodes.as_object().filter(|nodes| nodes.len() == 3).cloned()
            });
            assert!(nodes.contains_key(&third), "{nodes:?}");
        }
    }
    let removed = people[0].nodes();
    assert_eq!(removed[&third]["removed"], true, "{removed}");
    assert_eq!(removed.as_object().unwrap().len(), 3, "the history went along: {removed}");
    for word in ["init", "invite", "join", "nodes", "drain", "resume", "stop", "leave", "remove"] {
        assert!(run.iter().any(|command| command.contains(word)), "no block shows `{word}`");
    }
    people[0].run("ringrift stop --data D");
    people[1].manager = None;
}

//! Artefacts on their way from host to host, and what is left of that when somebody dies.

use std::{os::unix::fs::MetadataExt as _, thread, time::Duration};

use tokio::time::Instant;

use crate::{
    CONFIG, Cluster,
    nodes::{Node, wait_for},
};

/// A transfer is watched for so long after a death. It may take longer: many others wait for the same slow line.
const WATCHED: Duration = Duration::from_secs(90);

impl Node {
    /// What it has begun to fetch and has not whole: hashes, and bytes that are there.
    fn pieces(&self) -> Vec<(String, u64)> {
        let folder = self.data.join("peers/data");
        let Ok(files) = fs_err::read_dir(folder) else { return Vec::new() };
        let pieces = files.flatten().filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let hash = name.strip_suffix(".data")?.to_owned();
            // Pieces come in any order, so its length says nothing.
            let bytes = file.metadata().ok()?.blocks() * 512;
            Some((hash, bytes))
        });
        pieces.filter(|(hash, _)| !self.has(hash)).collect()
    }

    fn piece(&self, hash: &str) -> Option<u64> {
        self.pieces().into_iter().find(|(of, _)| of == hash).map(|(_, bytes)| bytes)
    }

    /// From its next life on it sends as fast as it can.
    pub fn sends_freely(&self) {
        let file = self.data.join("cluster.toml");
        let text = fs_err::read_to_string(&file).unwrap();
        let (bound, rest): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("send_rate"));
        assert_eq!(bound.len(), 1, "{text}");
        fs_err::write(&file, rest.join("\n")).unwrap();
    }

    /// The games that a node played and nobody else has, as far as the log says.
    fn only_of(&self, maker: &str, taker: &str) -> Vec<String> {
        let question = "SELECT hash, works.node, (SELECT group_concat(holdings.node) FROM holdings
                          WHERE holdings.hash = batches.hash)
                        FROM batches JOIN works ON works.id = batches.work";
        let batches = self.ask(question, |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, Option<String>>(1)?,
                row.get::<_, Option<String>>(2)?,
            ))
        });
        let of_maker = batches.into_iter().filter(|(_, by, _)| by.as_deref() == Some(maker));
        let alone = of_maker.filter(|(_, _, holders)| {
            let mut holders = holders.iter().flat_map(|holders| holders.split(','));
            holders.all(|holder| holder == maker || holder == taker)
        });
        alone.map(|(hash, ..)| hash).collect()
    }
}

impl Cluster {
    /// Kills the giver or the taker of something while it is on its way: of what was there nothing is thrown away. Gives
    /// what it was.
    pub fn interrupt(&mut self, killed: &str, giver: &str, taker: &str) -> String {
        let from = self.node(giver).name();
        let hash = wait_for("a transfer", Duration::from_mins(5), || {
            let node = self.node(taker);
            let begun = node.pieces().into_iter().filter(|(_, bytes)| *bytes > 0);
            let begun: Vec<String> = begun.map(|(hash, _)| hash).collect();
            if begun.is_empty() {
                return None;
            }
            let theirs = node.only_of(&from, &node.name());
            begun.into_iter().find(|hash| theirs.contains(hash))
        });
        self.node_mut(killed).kill();
        let Some(before) = self.node(taker).piece(&hash) else {
            println!("{hash} was whole before {killed} died");
            self.node_mut(killed).up(CONFIG, &[]);
            return self.interrupt(killed, giver, taker);
        };
        println!(
            "{killed} is killed while {giver} gives {taker} {hash}, of which {before} bytes came"
        );
        self.node_mut(killed).up(CONFIG, &[]);
        let (mut absent, began) = (0, Instant::now());
        while began.elapsed() < WATCHED {
            let node = self.node(taker);
            match node.piece(&hash) {
                Some(bytes) => assert!(bytes >= before, "{before} bytes were there, now {bytes}"),
                None if node.has(&hash) => {
                    println!("{hash} became whole");
                    break;
                }
                // On its way from one place to the other.
                None => absent += 1,
            }
            assert!(absent < 50, "what was there of {hash} was thrown away");
            thread::sleep(Duration::from_millis(100));
        }
        hash
    }
}

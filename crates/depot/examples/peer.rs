//! A peer as a process of its own, for tests that kill it: `peer FOLDER [BYTES A SECOND]` says who it is and
//! where, and does what the lines of its standard input say:
//!
//! ```text
//! member ID ADDRESS       lets somebody in
//! fetch HASH BYTES        fetches from all members, the first one first
//! served                  says how many bytes were given
//! ```

#![expect(clippy::print_stdout, reason = "it speaks to the test that started it")]

use std::{collections::BTreeMap, error::Error, io::BufRead as _, net::SocketAddr, path::Path};

use depot::{
    Depot, Options,
    peers::{self, Key, PeerId, Peers, Want},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().ok_or("a folder is missing")?;
    let rate = words.next().map(|rate| rate.parse()).transpose()?;
    let depot = Depot::open(Path::new(&folder), Options::default())?;
    let key = Key::of_file(&Path::new(&folder).join("key"))?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let peers =
        Peers::open(&depot, peers::Options { key, listen, rate, relays: Vec::new() }).await?;
    println!("{} {}", peers.id(), peers.addresses().first().ok_or("it listens nowhere")?);
    let (mut members, mut from) = (BTreeMap::new(), Vec::new());
    let (say, mut told) = tokio::sync::mpsc::channel::<String>(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if say.blocking_send(line).is_err() {
                break;
            }
        }
    });
    while let Some(line) = told.recv().await {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["member", id, address] => {
                let peer: PeerId = id.parse()?;
                members.insert(peer, vec![address.parse()?]);
                from.push(peer);
                peers.admit(members.clone());
            }
            ["fetch", hash, bytes] => {
                let (hash, bytes) = (hash.parse()?, bytes.parse()?);
                let want = Want { hash, bytes, extension: "npz".into() };
                match peers.fetch(&want, &from).await {
                    Ok(stored) => println!("fetched {}", stored.bytes),
                    Err(error) => println!("failed: {error}"),
                }
            }
            ["served"] => println!("{}", peers.served().bytes),
            _ => return Err(format!("{line:?} is no order").into()),
        }
    }
    peers.close().await;
    Ok(())
}

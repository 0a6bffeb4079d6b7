//! A connection that can be cut, or stand still, between a node and its server.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

#[derive(Clone, Copy)]
struct Fault {
    /// Connections that began before this count are cut.
    cuts: u64,
    /// Until then nothing passes.
    still_until: Instant,
    /// What the server says is lost.
    is_mute: bool,
}

/// Ended when it is dropped.
pub(crate) struct Proxy {
    address: String,
    fault: watch::Sender<Fault>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// In front of a server.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("nats://{}", listener.local_addr().unwrap());
        let fault =
            watch::Sender::new(Fault { cuts: 0, still_until: Instant::now(), is_mute: false });
        let faults = fault.subscribe();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(pass(client, server.clone(), faults.clone()));
            }
        });
        Self { address, fault, _accepting: accepting }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Closes all connections; new ones are taken, and hear what is said.
    pub(crate) fn cut(&self) {
        self.fault.send_modify(|fault| {
            fault.cuts += 1;
            fault.is_mute = false;
        });
    }

    /// Loses what the server says, until the connection is cut.
    pub(crate) fn mute(&self) {
        self.fault.send_modify(|fault| fault.is_mute = true);
    }

    /// Lets nothing pass for so long, and loses nothing.
    pub(crate) fn hold(&self, time: Duration) {
        self.fault.send_modify(|fault| fault.still_until = Instant::now() + time);
    }
}

async fn pass(client: TcpStream, server: String, mut faults: watch::Receiver<Fault>) {
    let cuts = faults.borrow().cuts;
    let server = server.trim_start_matches("nats://");
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let there = one_way(from_client, to_server, faults.clone(), |_| false);
    let back = one_way(from_server, to_client, faults.clone(), |fault| fault.is_mute);
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = faults.wait_for(|fault| fault.cuts > cuts) => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: watch::Receiver<Fault>,
    is_lost: impl Fn(&Fault) -> bool,
) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let still_until = faults.borrow().still_until;
        sleep_until(still_until).await;
        if is_lost(&faults.borrow()) {
            continue;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

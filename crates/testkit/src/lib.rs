//! What tests and benchmarks with real servers share: ports that stay theirs, and the server's program.

use std::{
    env,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Below every port that a system gives away by itself (Linux from 32,768, others from 49,152): asking it
/// for a free port and letting go of it again gives one that any connection may have a moment later, or
/// while the server of the test is down.
const PORTS: std::ops::Range<u16> = 10_000..28_000;

/// The UDP sockets that mark this process's ports as taken. They end with the process.
static MARKS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A TCP port of loopback for a server of this process's: nobody listens on it, the system gives it to no
/// connection, and no other caller of this function gets it while this process runs.
///
/// # Panics
/// None is left.
pub fn port() -> u16 {
    port_and(&[])
}

/// Such a port, of which the ports so much above are this caller's too.
///
/// # Panics
/// None is left.
pub fn port_and(above: &[u16]) -> u16 {
    let first = fastrand::u16(PORTS);
    let found = (first..PORTS.end).chain(PORTS.start..first).find(|&port| {
        let all = [0].iter().chain(above).map(|more| port + more);
        let marks: Option<Vec<_>> = all.map(marked).collect();
        marks.is_some_and(|marks| {
            MARKS.lock().unwrap_or_else(PoisonError::into_inner).extend(marks);
            true
        })
    });
    found.expect("some of 18,000 ports are free")
}

/// Takes a port that nobody listens on, as far as others ask here too.
fn marked(port: u16) -> Option<UdpSocket> {
    let mark = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(mark)
}

/// The program `nats-server`: the one of `NATS_SERVER`, or the one that `cargo xtask check` puts there. Says
/// what is not tested if there is none.
///
/// # Panics
/// There is none where everything must be there (`CI=true`).
#[expect(clippy::print_stdout, reason = "says what is absent")]
pub fn nats_server() -> Option<PathBuf> {
    let named = env::var_os("NATS_SERVER").map(PathBuf::from);
    let ours =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats/bin/nats-server");
    let found = named.or_else(|| Some(ours).filter(|file| file.is_file()));
    if found.is_none() {
        println!(
            "absent: nats-server, so what goes over JetStream is not tested; \
             to have it: cargo xtask check, or name it in NATS_SERVER"
        );
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "nats-server is missing");
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_one_that_is_listened_on() {
        let first = port_and(&[2_000]);
        let listens = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(marked(first).is_none() && marked(first + 2_000).is_none());
        let many: BTreeSet<_> = (0..500).map(|_| port()).collect();
        assert_eq!(many.len(), 500);
        assert!(!many.contains(&first) && !many.contains(&(first + 2_000)));
        drop(listens);
        // Free to listen on, and still this caller's.
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap());
        assert!(marked(first).is_none());
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = port();
        MARKS.lock().unwrap().retain(|mark| mark.local_addr().unwrap().port() != taken);
        let listens = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
        assert!(marked(taken).is_none());
        drop(listens);
        assert!(marked(taken).is_some());
    }
}

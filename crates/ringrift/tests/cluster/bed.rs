//! Hosts on one machine: network namespaces with addresses of their own, joined by a bridge.
//!
//! Everything is made by the bed and named after its process; everything goes with it. It needs the rights
//! to make namespaces and the program `ip`; without them it says what is absent.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::wire::Wire;

/// Beds of this process.
static BEDS: AtomicU32 = AtomicU32::new(0);

/// Hosts that can reach each other, until somebody cuts them off.
pub struct Bed {
    /// Begins the names of all that was made.
    prefix: String,
    hosts: Vec<Host>,
    /// Those whose cable may be spoilt.
    wires: BTreeMap<String, Wire>,
}

/// A host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name on the bed.
    pub name: String,
    /// Its address.
    pub address: String,
    namespace: String,
}

impl Host {
    /// A program on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]).stdin(Stdio::null());
        command
    }

    /// Shows a port of this host's loopback on a free one of ours, for as long as this process runs.
    pub fn show(&self, port: u16) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let shown = listener.local_addr().unwrap();
        let namespace = self.namespace.clone();
        thread::spawn(move || {
            for asked in listener.incoming().filter_map(Result::ok) {
                let namespace = namespace.clone();
                thread::spawn(move || {
                    if let Err(error) = relay(&asked, &namespace, port) {
                        println!("show port {port} of {namespace}: {error}");
                    }
                });
            }
        });
        shown
    }

    /// Does something as this host: what is opened meanwhile is on its net.
    pub fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace.clone();
        let acts = thread::spawn(move || {
            enter(&namespace).unwrap();
            act()
        });
        acts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Moves this thread into a namespace, for good.
pub fn enter(namespace: &str) -> std::io::Result<()> {
    let place = fs_err::File::open(format!("/run/netns/{namespace}"))?;
    Ok(move_into_link_name_space(place.file().as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Carries a connection into a namespace; a thread is in one for good.
fn relay(asked: &TcpStream, namespace: &str, port: u16) -> std::io::Result<()> {
    enter(namespace)?;
    let shown = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (mut from, mut to) = (asked.try_clone()?, shown.try_clone()?);
    let back = thread::spawn(move || std::io::copy(&mut &shown, &mut from));
    std::io::copy(&mut &*asked, &mut to)?;
    to.shutdown(std::net::Shutdown::Write)?;
    drop(back.join());
    Ok(())
}

/// Runs `ip` or `mount` with these words.
pub fn run(words: &str) -> Result<(), String> {
    let mut parts = words.split_whitespace();
    let program = parts.next().ok_or("no program")?;
    let output = Command::new(program).args(parts).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{words}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Bed {
    /// Makes hosts of these names, some of them on a cable that may be spoilt; none, with a line that says why,
    /// where that is not possible.
    pub fn make(names: &[&str], on_wires: &[&str]) -> Option<Self> {
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        // Names of interfaces have 15 letters at most.
        let prefix = format!("rr{:x}{number}", std::process::id());
        let mut bed = Self { prefix, hosts: Vec::new(), wires: BTreeMap::new() };
        match bed.build(names, on_wires) {
            Ok(()) => Some(bed),
            Err(why) => {
                println!(
                    "absent: network namespaces ({why}), so nothing is tried over several hosts; to have \
                     them: run as root with the package iproute2"
                );
                None
            }
        }
    }

    fn build(&mut self, names: &[&str], on_wires: &[&str]) -> Result<(), String> {
        let hub = self.hub();
        run(&format!("ip netns add {hub}"))?;
        run(&format!("ip -n {hub} link add name hub0 type bridge"))?;
        run(&format!("ip -n {hub} link set dev hub0 up"))?;
        for (number, name) in names.iter().enumerate() {
            let namespace = format!("{}-{name}", self.prefix);
            let address = format!("10.0.0.{}", number + 1);
            self.hosts.push(Host {
                name: (*name).to_owned(),
                address: address.clone(),
                namespace: namespace.clone(),
            });
            run(&format!("ip netns add {namespace}"))?;
            let port = format!("p{number}");
            if on_wires.contains(name) {
                let wire = Wire::lay((&namespace, "eth0"), (&hub, &port), number as u64)?;
                self.wires.insert((*name).to_owned(), wire);
            } else {
                run(&format!(
                    "ip -n {hub} link add name {port} type veth peer name eth0 netns {namespace}"
                ))?;
            }
            run(&format!("ip -n {hub} link set dev {port} master hub0"))?;
            run(&format!("ip -n {hub} link set dev {port} up"))?;
            run(&format!("ip -n {namespace} link set dev lo up"))?;
            run(&format!("ip -n {namespace} address add {address}/24 dev eth0"))?;
            run(&format!("ip -n {namespace} link set dev eth0 up"))?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> &Host {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.unwrap_or_else(|| panic!("the bed has no host {name}"))
    }

    /// From now on nothing that `from` sends reaches `to`.
    pub fn mute(&self, from: &str, to: &str) {
        let (from, to) = (self.host(from), self.host(to));
        run(&format!("ip -n {} route add blackhole {}/32", from.namespace, to.address)).unwrap();
    }

    /// From now on those here and those there do not reach each other.
    pub fn part(&self, here: &[&str], there: &[&str]) {
        for one in here {
            for other in there {
                self.mute(one, other);
                self.mute(other, one);
            }
        }
    }

    /// Everybody reaches everybody again.
    pub fn heal(&self) {
        for host in &self.hosts {
            run(&format!("ip -n {} route flush type blackhole", host.namespace)).unwrap();
        }
    }

    /// From now on this part of what a host sends is lost, and the rest comes so late.
    pub fn spoil(&self, host: &str, lost_of_thousand: u64, late: Duration) {
        let wire = self.wires.get(host);
        let wire = wire.unwrap_or_else(|| panic!("{host} is not on a wire"));
        wire.spoil(lost_of_thousand, late);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Processes hold their namespace; whoever started them has ended them by now.
        let mut trouble = Vec::new();
        let names = self.hosts.iter().map(|host| host.namespace.clone()).chain([self.hub()]);
        for name in names {
            if let Err(why) = run(&format!("ip netns del {name}")) {
                trouble.push(why);
            }
        }
        if !trouble.is_empty() {
            println!("the bed is not all gone: {}", trouble.join("; "));
        }
    }
}

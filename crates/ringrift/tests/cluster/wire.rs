//! A cable made of a program: frames go through this process, which may lose some and hold others up. So a bad
//! line can be had on every kernel, also on those without netem.

use std::{
    io::{Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use fs_err::File;
use rustix::ioctl::{Setter, ioctl, opcode};
use tokio::time::Instant;

use crate::bed::enter;

/// Frames on their way in one direction; what comes on top is lost, as in a switch.
const ON_THE_WAY: usize = 10_000;
/// The largest frame: the kernel cuts what is longer before it comes here.
const FRAME: usize = 65_536;

/// What a wire does to frames that a host sends.
#[derive(Debug, Default)]
struct Weather {
    /// Of a thousand frames.
    lost: AtomicU64,
    late_ms: AtomicU64,
}

/// A cable between two namespaces, for as long as they are there.
#[derive(Debug, Clone)]
pub struct Wire(Arc<Weather>);

impl Wire {
    /// Lays a cable between two interfaces that this makes.
    pub fn lay(host: (&str, &str), hub: (&str, &str), seed: u64) -> Result<Self, String> {
        let said = |error: std::io::Error| format!("a cable to {}: {error}", host.0);
        let (host, hub) = (end(host).map_err(said)?, end(hub).map_err(said)?);
        let weather = Arc::new(Weather::default());
        let (leave, arrives) = mpsc::sync_channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
        let (from, to) = (host.try_clone().map_err(said)?, hub.try_clone().map_err(said)?);
        thread::spawn({
            let weather = Arc::clone(&weather);
            let mut chance = fastrand::Rng::with_seed(seed);
            move || {
                each_frame(from, |frame| {
                    if chance.u64(..1000) >= weather.lost.load(Ordering::Relaxed) {
                        let late = Duration::from_millis(weather.late_ms.load(Ordering::Relaxed));
                        drop(leave.try_send((Instant::now() + late, frame.to_vec())));
                    }
                });
            }
        });
        thread::spawn(move || {
            let mut to = to;
            for (due, frame) in arrives {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // An interface that is down takes nothing, as a cable that is pulled.
                drop(to.write_all(&frame));
            }
        });
        thread::spawn(move || {
            let mut to = host;
            each_frame(hub, |frame| drop(to.write_all(frame)));
        });
        Ok(Self(weather))
    }

    /// From now on this part of what the host sends is lost, and the rest comes so late.
    pub fn spoil(&self, lost_of_thousand: u64, late: Duration) {
        self.0.lost.store(lost_of_thousand, Ordering::Relaxed);
        self.0.late_ms.store(u64::try_from(late.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

/// Reads frames until the interface is gone.
fn each_frame(mut from: File, mut take: impl FnMut(&[u8])) {
    let mut frame = vec![0; FRAME];
    loop {
        match from.read(&mut frame) {
            Ok(0) => return,
            Ok(length) => take(&frame[..length]),
            // Not up yet, or not any more.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return,
        }
    }
}

/// The request `TUNSETIFF` with the name of an interface. Source: `linux/if_tun.h`.
const SET_INTERFACE: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
/// `IFF_TAP | IFF_NO_PI`: whole frames and nothing else.
const FRAMES_ALONE: i16 = 0x1002;

/// `struct ifreq`, as far as this request reads it.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes an interface in a namespace; whoever holds the file is the other end of its cable.
fn end((namespace, name): (&str, &str)) -> std::io::Result<File> {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    // A thread is in a namespace for good, what it opened is not.
    thread::spawn(move || {
        enter(&namespace)?;
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        let mut interface = Interface { name: [0; 16], flags: FRAMES_ALONE, rest: [0; 22] };
        interface.name[..name.len()].copy_from_slice(name.as_bytes());
        #[expect(unsafe_code, reason = "the kernel has no other way to make such an interface")]
        // SAFETY: the request reads a `struct ifreq`, whose layout and size `Interface` has.
        unsafe {
            ioctl(file.file(), Setter::<SET_INTERFACE, Interface>::new(interface))?;
        }
        Ok(file)
    })
    .join()
    .expect("opening does not panic")
}

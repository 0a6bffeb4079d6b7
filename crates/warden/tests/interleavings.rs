//! Every order of steps in which daemons and supervisor can share what is told.
//!
//! The very sources of the crate, on locks that loom schedules: a call that is lost leaves the
//! supervisor asleep for ever, which loom finds and shows.

use warden::Health;

/// Stands where the crate has the locks of the standard library.
mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("nothing panics while it holds one of these locks")
    }
}

#[path = "../src/bell.rs"]
mod bell;
#[path = "../src/told.rs"]
mod told;

use loom::{future::block_on, model::Builder, sync::Arc, thread};

use bell::Bell;
use sync::{Mutex, lock};
use told::Told;

/// What a daemon and its supervisor share, as in the crate.
struct Shared {
    told: Mutex<Told>,
    bell: Arc<Bell>,
    at: usize,
}

impl Shared {
    fn new(bell: &Arc<Bell>, at: usize) -> Arc<Self> {
        Arc::new(Self { told: Mutex::default(), bell: bell.clone(), at })
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        let must_call = {
            let mut told = lock(&self.told);
            change(&mut told);
            told.must_call()
        };
        if must_call {
            self.bell.call(self.at);
        }
    }
}

/// The supervisor's side: sleeps, wakes, looks, until all is as it should be.
fn listen(bell: &Bell, daemons: &[Arc<Shared>], done: impl Fn(&[Told]) -> bool) {
    let mut copies: Vec<Told> = daemons.iter().map(|_| Told::default()).collect();
    while !done(&copies) {
        block_on(bell.called());
        let called = bell.take();
        assert!(called.len() <= daemons.len(), "nobody is on the list twice: {called:?}");
        for at in called {
            lock(&daemons[at].told).copy_to(&mut copies[at]);
        }
    }
}

/// All orders with at most three switches that nobody asked for; without that bound the same takes
/// several times as long, and found no more.
fn in_every_order(play: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(play);
}

#[test]
fn two_daemons_that_become_ready_at_once_are_both_seen() {
    in_every_order(|| {
        let bell = Arc::<Bell>::default();
        let daemons = [Shared::new(&bell, 0), Shared::new(&bell, 1)];
        let tasks = daemons
            .clone()
            .map(|daemon| thread::spawn(move || daemon.tell(|told| told.ready = true)));
        listen(&bell, &daemons, |told| told.iter().all(|told| told.ready));
        for task in tasks {
            task.join().unwrap();
        }
        assert!(bell.take().is_empty());
    });
}

#[test]
fn what_is_told_during_a_look_calls_for_another() {
    in_every_order(|| {
        let bell = Arc::<Bell>::default();
        let daemon = Shared::new(&bell, 0);
        let task = {
            let daemon = daemon.clone();
            thread::spawn(move || {
                daemon.tell(|told| told.ready = true);
                daemon.tell(|told| told.result(None, Health::Healthy));
                daemon.tell(|told| told.result(Some(7.into()), Health::Unhealthy("x".into())));
            })
        };
        listen(&bell, std::slice::from_ref(&daemon), |told| {
            told[0].ready
                && told[0].results == 2
                && told[0].bad_in_a_row == 1
                && told[0].details == 7
        });
        task.join().unwrap();
    });
}

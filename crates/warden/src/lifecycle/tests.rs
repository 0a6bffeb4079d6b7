//! Random requests, ends and times against the machine, with the world it commands played by us.

use proptest::prelude::*;

use super::*;

const A: DaemonId = DaemonId("A");
const B: DaemonId = DaemonId("B");
const C: DaemonId = DaemonId("C");

static SPECS: [Spec; 4] = [
    Spec { id: A, ready_within: Duration::from_secs(5), ..Spec::DEFAULT },
    Spec { id: B, needs: &[A], critical: true, ..Spec::DEFAULT },
    Spec { id: C, needs: &[A, B], max_restarts: Some(1), ..Spec::DEFAULT },
    Spec { id: DaemonId("D"), leader_only: true, ..Spec::DEFAULT },
];

fn rules() -> Rules {
    Rules {
        restart: Arc::default(),
        health_interval: Duration::from_secs(30),
        critical_health_interval: Duration::from_secs(15),
        shutdown_timeout: Duration::from_secs(30),
        dependency_wait: Duration::from_secs(30),
        abort_grace: Duration::from_secs(1),
        bad_results: 3,
        memory_limit: 90,
    }
}

/// What may happen next; a number chooses the daemon.
#[derive(Debug, Clone)]
enum Step {
    Start(usize),
    Stop(usize),
    Restart(usize),
    Retry(usize, bool),
    Ready(usize),
    End(usize, End),
    Read(usize, u32),
    Wait(u64),
    Lead(Leadership),
    Weigh(u8),
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        2 => Just(End::Crashed("boom".into())),
        1 => Just(End::Finished),
        1 => Just(End::Missing("driver".into())),
        1 => Just(End::Aborted),
    ];
    prop_oneof![
        4 => (0..4_usize).prop_map(Step::Start),
        1 => (0..4_usize).prop_map(Step::Stop),
        1 => (0..4_usize).prop_map(Step::Restart),
        1 => (0..4_usize, any::<bool>()).prop_map(|(at, force)| Step::Retry(at, force)),
        6 => (0..4_usize).prop_map(Step::Ready),
        4 => (0..4_usize, end).prop_map(|(at, end)| Step::End(at, end)),
        2 => (0..4_usize, 0..4_u32).prop_map(|(at, bad)| Step::Read(at, bad)),
        4 => (0..40_000_u64).prop_map(Step::Wait),
        1 => (3_500_000..3_700_000_u64).prop_map(Step::Wait),
        2 => prop_oneof![Just(Leadership::Held), Just(Leadership::Lost)].prop_map(Step::Lead),
        2 => (0..100_u8).prop_map(Step::Weigh),
    ]
}

fn allowed(from: State, to: State) -> bool {
    use State::{Degraded, Failed, ImportFailed, Restarting, Running, Starting, Stopped, Stopping};
    match to {
        Starting => matches!(from, Stopped | Failed | ImportFailed),
        Running => matches!(from, Starting | Restarting),
        Restarting => matches!(from, Starting | Running | Degraded),
        Stopping | Failed | ImportFailed | Degraded => {
            matches!(from, Starting | Running | Restarting)
        }
        Stopped => true,
    }
}

/// The tasks as a driver would hold them.
struct World {
    machine: Lifecycle,
    now: At,
    tasks: [Option<Task>; 4],
}

#[derive(Debug, Clone, Copy)]
struct Task {
    run: u64,
    ready: bool,
    ending: bool,
}

impl World {
    fn new() -> Self {
        let specs: Vec<&'static Spec> = SPECS.iter().collect();
        Self { machine: Lifecycle::new(&specs, rules()).unwrap(), now: At::ZERO, tasks: [None; 4] }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        let machine = &mut self.machine;
        match step {
            Step::Start(at) => drop(machine.start(now, &[at], Asker::Person)),
            Step::Stop(at) => machine.stop(now, at),
            Step::Restart(at) => drop(machine.restart(now, at)),
            Step::Retry(at, force) => {
                let before = machine.state(at);
                let tried = machine.retry(now, at, force).is_some();
                assert!(!tried || force || before != State::ImportFailed);
            }
            Step::Ready(at) => {
                if let Some(task) = &mut self.tasks[at] {
                    task.ready = true;
                    machine.ready(now, at, task.run);
                }
            }
            Step::End(at, end) => {
                if let Some(task) = self.tasks[at].take() {
                    machine.ended(now, at, task.run, end);
                }
            }
            Step::Read(at, bad) => {
                if let Some(task) = self.tasks[at] {
                    let health = Health::Unhealthy("sick".into());
                    let vitals = Vitals { health, bad_in_a_row: bad, ..Vitals::default() };
                    machine.read(now, at, task.run, &vitals);
                }
            }
            Step::Wait(ms) => {
                // Time never jumps over a deadline, as a driver would not.
                let end = now + Duration::from_millis(ms);
                while let Some(next) = self.machine.next_deadline().filter(|&next| next <= end) {
                    self.now = next.max(self.now);
                    self.read_what_is_due();
                    self.machine.tick(self.now);
                    self.obey();
                }
                self.now = end;
                self.machine.tick(end);
            }
            Step::Lead(leadership) => machine.lead(now, leadership),
            Step::Weigh(used) => machine.weigh(now, Some(used)),
            Step::Shutdown => machine.shutdown(now),
        }
        self.obey();
    }

    fn read_what_is_due(&mut self) {
        for at in 0..4 {
            if let Some(task) = self.tasks[at]
                && self.machine.read_due(self.now, at)
            {
                self.machine.read(self.now, at, task.run, &Vitals::default());
            }
        }
    }

    fn obey(&mut self) {
        for command in self.machine.take_commands() {
            match command {
                Command::Spawn { at, run } => {
                    assert!(self.tasks[at].is_none(), "two tasks of one daemon");
                    assert!(!self.machine.draining(), "a start during a shutdown");
                    self.tasks[at] = Some(Task { run, ready: false, ending: false });
                }
                Command::Ask { at, run } | Command::Abort { at, run } => {
                    let task = self.tasks[at].as_mut().expect("a task to end");
                    assert_eq!(task.run, run);
                    task.ending = true;
                }
                Command::Moved { at, from, to, .. } => {
                    assert!(allowed(from, to), "{}: {from} -> {to}", SPECS[at].id);
                    if to == State::Running {
                        assert!(self.tasks[at].is_some_and(|task| task.ready), "not ready");
                    }
                }
                Command::Late { at, obstacle } => assert_ne!(obstacle, Obstacle::Need(at)),
                Command::Hung { at } => assert!(self.tasks[at].is_some_and(|task| task.ending)),
                Command::Remember { at } => {
                    let history = self.machine.history(self.now, at, 0);
                    assert_eq!(history.given_up, self.machine.state(at) == State::Failed);
                }
                Command::CrashLoop { crashes, .. } => assert!(crashes >= 3),
                Command::Tripped { .. } | Command::Closed { .. } => panic!("there is no breaker"),
                Command::Pause { .. } => {}
            }
        }
        for (at, spec) in SPECS.iter().enumerate() {
            assert_eq!(self.machine.has_task(at), self.tasks[at].is_some(), "{}", spec.id);
            let limit = rules().restart.limit(spec);
            assert!(self.machine.restarts(at) <= limit);
            if self.machine.state(at) == State::Running {
                assert!(self.tasks[at].is_some_and(|task| task.ready && !task.ending));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_history_reaches_a_forbidden_state(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }

    #[test]
    fn a_shutdown_ends_whatever_the_tasks_do(
        before in prop::collection::vec(step(), 0..40),
        during in prop::collection::vec(step(), 0..10),
    ) {
        let mut world = World::new();
        for step in before {
            world.take(step);
        }
        world.take(Step::Shutdown);
        for step in during {
            world.take(step);
        }
        // Three levels of 30 s, and the grace after each abort. Nobody needs to end for it.
        world.take(Step::Wait(3 * 31_000));
        prop_assert!(world.machine.drained());
        for at in 0..4 {
            prop_assert!(!world.machine.has_task(at) || world.machine.is_hung(at));
        }
    }

    #[test]
    fn a_second_shutdown_ends_within_the_grace(
        before in prop::collection::vec(step(), 0..40),
    ) {
        let mut world = World::new();
        for step in before {
            world.take(step);
        }
        world.take(Step::Shutdown);
        world.take(Step::Shutdown);
        world.take(Step::Wait(1_000));
        prop_assert!(world.machine.drained());
    }
}

#[test]
fn a_change_is_news_of_that_daemon_and_of_those_who_need_it_only() {
    let mut world = World::new();
    for step in [Step::Start(2), Step::Start(3)] {
        world.take(step);
    }
    (0..4).for_each(|at| world.take(Step::Ready(at)));
    assert_eq!(world.machine.take_changed().len(), 4);
    world.take(Step::Read(0, 0));
    // A says that it is unhealthy, and B and C need it.
    assert_eq!(world.machine.take_changed(), [0, 1, 2]);
    world.take(Step::Read(0, 0));
    assert_eq!(world.machine.take_changed(), [0]);
    world.take(Step::Wait(1));
    assert_eq!(world.machine.take_changed(), [0; 0]);
}

#[test]
fn silence_counts_once_for_each_full_limit_however_often_it_is_read() {
    let vitals = Vitals { in_cycle: true, ..Vitals::default() };
    let check = |seconds| judge(&Spec::DEFAULT, Duration::from_secs(seconds), &vitals).1;
    assert_eq!([59, 60, 119, 120, 179, 180].map(check), [0, 1, 1, 2, 2, 3]);
}

#[test]
fn an_overdue_cycle_degrades_and_never_counts_as_bad() {
    let due = Some(Duration::from_secs(100));
    let vitals = Vitals { health: Health::Healthy, due, ..Vitals::default() };
    let check = |seconds| judge(&Spec::DEFAULT, Duration::from_secs(seconds), &vitals);
    assert_eq!(check(159), (Health::Healthy, 0));
    assert_eq!(check(165), (Health::Degraded("cycle overdue by 65 s".into()), 0));
}

//! Real processes: what they print, how they end, and that nothing of them stays behind.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::time::Instant;
use warden::worker::{
    Cause, Exit, LINE_MAX_BYTES, StartError, Worker, WorkerEnd, WorkerLine, WorkerSpec, Workers,
};

/// Longest wait for something that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);
/// Tells the helper below where to work.
const HELPER_DIR: &str = "WARDEN_TEST_HELPER_DIR";

struct Room {
    dir: TempDir,
    workers: Workers,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workers = Workers::new(&dir.path().join("run")).unwrap();
        Self { dir, workers }
    }

    fn spec(&self, script: &str) -> WorkerSpec {
        shell(self.dir.path(), script)
    }

    async fn start(&self, script: &str) -> Worker {
        self.workers.start(self.spec(script)).await.unwrap()
    }

    fn has_records(&self) -> bool {
        has_records(&self.dir.path().join("run"))
    }
}

fn has_records(run: &Path) -> bool {
    fs_err::metadata(run.join("workers/records")).unwrap().len() > 0
}

fn shell(dir: &Path, script: &str) -> WorkerSpec {
    let mut spec = WorkerSpec::new("/bin/sh", dir.join("work"), "{}".into());
    spec.args = vec!["-c".into(), script.into()];
    spec
}

/// All lines, then the end.
async fn see_out(mut worker: Worker) -> (Vec<String>, WorkerEnd) {
    let mut lines = Vec::new();
    while let Some(line) = worker.next_line().await {
        match line {
            WorkerLine::Text(text) => lines.push(text),
            WorkerLine::Oversized { bytes } => lines.push(format!("oversized {bytes}")),
        }
    }
    (lines, worker.finished().await)
}

async fn line(worker: &mut Worker) -> String {
    match tokio::time::timeout(SOON, worker.next_line()).await.unwrap() {
        Some(WorkerLine::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Waits until the condition holds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Alive, and not just a zombie that somebody has yet to reap.
fn lives(pid: u32) -> bool {
    fs_err::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn exit_codes_lines_and_standard_error_come_back() {
    let room = Room::new();
    for (code, exit) in
        [(0, Exit::Done), (75, Exit::TryAgain), (125, Exit::NeverAgain), (3, Exit::Failed(3))]
    {
        let script = format!("echo one; echo two >&2; printf three; exit {code}");
        let (lines, end) = see_out(room.start(&script).await).await;
        assert_eq!((lines, end.exit, end.asked), (vec!["one".into(), "three".into()], exit, None));
        assert_eq!(end.last_words, ["two"]);
    }
    let (_, end) = see_out(room.start("kill -9 $$").await).await;
    assert_eq!(end.exit, Exit::Signal(9));
    eventually("all records gone", || !room.has_records() && room.workers.running().is_empty())
        .await;
    let log = fs_err::read_to_string(room.dir.path().join("work/worker.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.ends_with("] two")).count(), 4);
}

#[tokio::test]
async fn the_job_is_one_line_and_the_input_stays_open() {
    let room = Room::new();
    let mut spec =
        room.spec("read -r job; echo \"$job in $PWD for $WHO\"; read -r more; echo closed");
    spec.job = r#"{"n":1}"#.into();
    spec.env = vec![("WHO".into(), "me".into())];
    let mut worker = room.workers.start(spec).await.unwrap();
    let dir = room.dir.path().join("work").canonicalize().unwrap();
    assert_eq!(line(&mut worker).await, format!(r#"{{"n":1}} in {} for me"#, dir.display()));
    let view = room.workers.running();
    assert_eq!((view.len(), view[0].pid, view[0].program.as_str()), (1, worker.pid(), "sh"));
    // It waits for more input now, and must not see an end of it.
    worker.terminate();
    let (lines, end) = see_out(worker).await;
    assert_eq!((lines, end.exit), (vec![], Exit::KilledFor(Cause::Stopped)));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let room = Room::new();
    let mut spec = room.spec("true");
    spec.job = "{\n}".into();
    assert!(matches!(room.workers.start(spec).await, Err(StartError::Job(_))));
    let mut spec = room.spec("true");
    spec.program = PathBuf::from("/no/such/program");
    let refused = room.workers.start(spec).await.unwrap_err();
    assert_eq!(refused.to_string(), "start /no/such/program");
    let mut spec = room.spec("true");
    fs_err::write(room.dir.path().join("file"), "").unwrap();
    spec.dir = room.dir.path().join("file/below");
    assert!(matches!(room.workers.start(spec).await, Err(StartError::Prepare { .. })));
    assert!(!room.has_records());
}

#[tokio::test]
async fn a_worker_asked_to_stop_may_finish_what_it_has_in_hand() {
    let room = Room::new();
    let script = "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut worker = room.start(script).await;
    assert_eq!(line(&mut worker).await, "ready");
    worker.terminate();
    let (lines, end) = see_out(worker).await;
    assert_eq!((lines, end.exit), (vec!["saved".into()], Exit::Done));
    assert_eq!(end.asked, Some(Cause::Stopped));
}

#[tokio::test]
async fn a_worker_that_ignores_the_request_is_killed_after_the_grace() {
    let room = Room::new();
    let mut spec = room.spec("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    spec.limits.grace = Duration::from_millis(200);
    let mut worker = room.workers.start(spec).await.unwrap();
    assert_eq!(line(&mut worker).await, "ready");
    let asked = Instant::now();
    worker.terminator().cancel();
    let end = worker.finished().await;
    assert_eq!(end.exit, Exit::KilledFor(Cause::Stopped));
    assert!(asked.elapsed() >= Duration::from_millis(200));
    assert_eq!(worker.finished().await.exit, end.exit);
}

#[tokio::test]
async fn silence_is_noticed_and_talking_is_not_silence() {
    let room = Room::new();
    let mut spec = room.spec("echo up; sleep 1000");
    spec.limits.beat = Duration::from_millis(300);
    let (lines, end) = see_out(room.workers.start(spec).await.unwrap()).await;
    assert_eq!((lines.len(), end.exit), (1, Exit::KilledFor(Cause::Silence)));
    assert!(end.duration >= Duration::from_millis(300));

    // Talks for longer than the limit, with ten lines in each.
    let mut spec = room.spec("i=0; while [ $i -lt 30 ]; do echo $i; sleep 0.1; i=$((i+1)); done");
    spec.limits.beat = Duration::from_secs(1);
    let (lines, end) = see_out(room.workers.start(spec).await.unwrap()).await;
    assert_eq!((lines.len(), end.exit), (30, Exit::Done));
}

#[tokio::test]
async fn a_reader_that_is_slow_does_not_make_the_worker_silent() {
    let room = Room::new();
    // More lines than the queue and the pipe hold together.
    let mut spec = room.spec("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done");
    spec.limits.beat = Duration::from_millis(300);
    let mut worker = room.workers.start(spec).await.unwrap();
    assert_eq!(line(&mut worker).await, "0");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (lines, end) = see_out(worker).await;
    assert_eq!((lines.len(), end.exit), (19_999, Exit::Done));
}

#[tokio::test]
async fn a_life_may_have_a_limit() {
    let room = Room::new();
    let mut spec = room.spec("while :; do echo .; sleep 0.05; done");
    spec.limits.run = Some(Duration::from_millis(300));
    let (_, end) = see_out(room.workers.start(spec).await.unwrap()).await;
    assert_eq!(end.exit, Exit::KilledFor(Cause::TooLong));
}

#[tokio::test]
async fn memory_is_counted_over_the_whole_group() {
    let room = Room::new();
    // A process below the worker holds the memory.
    let mut spec = room
        .spec("echo up; \"$HOG\" --exact workers::helper_that_eats_memory --ignored >&2 & wait");
    let own = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
    spec.env = vec![("HOG".into(), own), (HELPER_DIR.into(), ".".into())];
    spec.limits.memory = Some(60 << 20);
    let (lines, end) = see_out(room.workers.start(spec).await.unwrap()).await;
    assert_eq!((lines.len(), end.exit), (1, Exit::KilledFor(Cause::Memory)));
    assert!(end.peak_memory > 60 << 20, "{}", end.peak_memory);
}

#[tokio::test]
async fn what_a_worker_started_goes_with_it() {
    let room = Room::new();
    let mut worker = room.start("sleep 1000 & echo $!; exit 0").await;
    let child = line(&mut worker).await.parse().unwrap();
    assert_eq!(worker.finished().await.exit, Exit::Done);
    eventually("grandchild gone", || !lives(child)).await;
}

#[tokio::test]
async fn dropping_a_worker_kills_it() {
    let room = Room::new();
    let mut worker = room.start("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000").await;
    let (pid, child) = (worker.pid(), line(&mut worker).await.parse().unwrap());
    drop(worker);
    eventually("both gone", || !lives(pid) && !lives(child)).await;
    eventually("record gone", || !room.has_records()).await;
}

#[tokio::test]
async fn dropping_the_last_handle_kills_all_and_leaves_no_record() {
    let room = Room::new();
    let mut worker = room.start("sleep 1000 & echo $!; wait").await;
    let (pid, child) = (worker.pid(), line(&mut worker).await.parse().unwrap());
    drop(room.workers);
    assert!(lives(pid), "a worker keeps the house open");
    drop(worker);
    eventually("both gone", || !lives(pid) && !lives(child)).await;
    assert!(!has_records(&room.dir.path().join("run")));
}

#[tokio::test]
async fn many_asked_for_at_once_all_run_and_all_go() {
    let room = Room::new();
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (workers, spec) = (room.workers.clone(), room.spec("sleep 1000 & echo $!; wait"));
        starts.spawn(async move { workers.start(spec).await.unwrap() });
    }
    let mut workers = starts.join_all().await;
    let mut pids = Vec::new();
    for worker in &mut workers {
        pids.extend([worker.pid(), line(worker).await.parse().unwrap()]);
    }
    assert_eq!(room.workers.running().len(), 30);
    assert!(pids.iter().all(|&pid| lives(pid)));
    drop(workers);
    eventually("all gone", || pids.iter().all(|&pid| !lives(pid))).await;
    eventually("all records gone", || !room.has_records()).await;
}

#[tokio::test]
async fn an_endless_line_does_not_fill_our_memory() {
    let room = Room::new();
    let bytes = 3 * LINE_MAX_BYTES;
    let script = format!("head -c {bytes} /dev/zero | tr '\\0' x; echo; echo next");
    let (lines, end) = see_out(room.start(&script).await).await;
    assert_eq!((lines, end.exit), (vec![format!("oversized {bytes}"), "next".into()], Exit::Done));
}

#[tokio::test]
async fn two_workers_share_one_log_and_it_is_rotated() {
    let room = Room::new();
    let talk = "i=0; while [ $i -lt 200 ]; do echo some words for the log $i >&2; i=$((i+1)); done";
    let mut ends = Vec::new();
    for _ in 0..2 {
        let mut spec = room.spec(talk);
        spec.log = room.dir.path().join("logs/shared.log");
        spec.log_max_bytes = 4_000;
        spec.log_keep = 2;
        ends.push(room.workers.start(spec).await.unwrap());
    }
    for worker in ends {
        let (_, end) = see_out(worker).await;
        assert_eq!(end.last_words.len(), 20);
        assert_eq!(end.last_words[19], "some words for the log 199");
    }
    let folder = room.dir.path().join("logs");
    for name in ["shared.log", "shared.log.1", "shared.log.2"] {
        let text = fs_err::read_to_string(folder.join(name)).unwrap();
        assert!(text.len() <= 4_000, "{name}: {}", text.len());
        assert!(text.lines().all(|line| line.contains("] some words for the log ")), "{name}");
    }
    assert_eq!(fs_err::read_dir(folder).unwrap().count(), 3);
}

/// Not a test: the parent that the tests below kill. Does nothing when it is run as a test.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn helper_that_owns_workers() {
    let Some(dir) = std::env::var_os(HELPER_DIR).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let workers = Workers::new(&dir.join("run")).unwrap();
        let spec = shell(&dir, "trap '' TERM; sleep 1000 & echo $$ $!; wait; sleep 1000");
        let mut worker = workers.start(spec).await.unwrap();
        let pids = line(&mut worker).await;
        fs_err::write(dir.join("draft"), pids).unwrap();
        fs_err::rename(dir.join("draft"), dir.join("pids")).unwrap();
        std::future::pending::<()>().await;
    });
}

/// Not a test either: the process that holds too much memory.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn helper_that_eats_memory() {
    if std::env::var_os(HELPER_DIR).is_some() {
        let held = vec![1_u8; 200 << 20];
        std::thread::sleep(Duration::from_secs(1_000));
        drop(held);
    }
}

/// The helper at work; killed and reaped when dropped.
struct Helper {
    dir: TempDir,
    process: Child,
    worker: u32,
    grandchild: u32,
}

impl Helper {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "workers::helper_that_owns_workers", "--ignored", "--nocapture"])
            .env(HELPER_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = dir.path().join("pids");
        eventually("helper at work", || told.exists()).await;
        let pids = fs_err::read_to_string(told).unwrap();
        let (worker, grandchild) = pids.split_once(' ').unwrap();
        let (worker, grandchild) = (worker.parse().unwrap(), grandchild.parse().unwrap());
        assert!(lives(worker) && lives(grandchild));
        Self { dir, process, worker, grandchild }
    }

    /// The shell that stands guard for it.
    fn guardian(&self) -> u32 {
        let guards = |pid: u32| {
            let read = |file: &str| fs_err::read_to_string(format!("/proc/{pid}/{file}"));
            let parent = format!(" {} ", self.process.id());
            read("cmdline").is_ok_and(|line| line.contains("worker-guardian"))
                && read("stat").is_ok_and(|stat| {
                    stat.rsplit_once(')').unwrap().1.get(2..).unwrap().starts_with(&parent)
                })
        };
        let mut pids = fs_err::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.find(|&pid| guards(pid)).expect("a guardian")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test]
async fn when_the_parent_is_killed_the_worker_and_what_it_started_are_gone() {
    let mut helper = Helper::start().await;
    helper.process.kill().unwrap();
    helper.process.wait().unwrap();
    let killed = Instant::now();
    eventually("both gone", || !lives(helper.worker) && !lives(helper.grandchild)).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    // Its record is stale, and the next life clears it without hurting anybody.
    let run = helper.dir.path().join("run");
    assert!(has_records(&run));
    drop(Workers::new(&run).unwrap());
    assert!(!has_records(&run));
}

#[tokio::test]
async fn what_survives_without_a_guardian_is_ended_by_the_next_life() {
    let mut helper = Helper::start().await;
    kill(helper.guardian());
    helper.process.kill().unwrap();
    helper.process.wait().unwrap();
    eventually("worker gone by its parent-death signal", || !lives(helper.worker)).await;
    assert!(lives(helper.grandchild), "nobody is left to end it");
    let next = Workers::new(&helper.dir.path().join("run")).unwrap();
    assert!(!lives(helper.grandchild));
    drop(next);
}

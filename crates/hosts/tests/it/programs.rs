//! Running programs of others.

use std::{path::Path, time::Duration};

use hosts::{Limits, RunError, run};
use tokio::time::{Instant, sleep, timeout};

use crate::shell;

const SHORT: Limits = Limits::of(Duration::from_millis(300));
const LONG: Limits = Limits::of(Duration::from_secs(20));

/// Whether this process runs; one that ended and was not waited for does not count as gone.
fn is_there(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

/// Waits until a process is gone.
async fn gone(pid: &str) {
    let going = async {
        while is_there(pid) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), going).await.expect("it is ended");
}

async fn written(file: &Path) -> String {
    let writing = async {
        loop {
            match fs_err::read_to_string(file) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(Duration::from_secs(10), writing).await.expect("it is written")
}

#[tokio::test]
async fn what_a_program_says_and_how_it_ends_is_told() {
    let output = run(&shell("echo out; echo err >&2"), LONG).await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert!(!output.cut);
    let refused = async |script: &str| run(&shell(script), LONG).await.unwrap_err().to_string();
    assert_eq!(
        refused("echo first >&2; echo 'no such\tunit' >&2; echo >&2; exit 5").await,
        "/bin/sh ended with exit code 5: no such unit"
    );
    assert_eq!(refused("exit 1").await, "/bin/sh ended with exit code 1");
    assert_eq!(refused("echo why; exit 1").await, "/bin/sh ended with exit code 1: why");
    assert!(refused("kill -9 $$").await.contains("signal: 9"));
    let missing = run(&["/no/such/program".to_owned()], LONG).await.unwrap_err();
    assert!(matches!(missing, RunError::Start { .. }), "{missing}");
    assert!(missing.to_string().contains("/no/such/program"), "{missing}");
    assert!(matches!(run(&[], LONG).await, Err(RunError::Nothing)));
}

#[tokio::test]
async fn arguments_arrive_as_they_are_and_no_shell_looks_at_them() {
    let words = ["/usr/bin/printf", "%s|", "a b", "$HOME", "'", "", "*", "a\nb"];
    let output = run(&words.map(str::to_owned), LONG).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b|$HOME|'||*|a\nb|");
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let file = pids.display();
    // Neither of them listens to a friendly word.
    let hangs = format!(
        "trap '' TERM INT HUP; (trap '' TERM HUP; exec sleep 1000) & echo $$ $! >{file}; sleep 1000"
    );
    let began = Instant::now();
    let late = run(&shell(&hangs), SHORT).await.unwrap_err();
    assert_eq!(late.to_string(), "/bin/sh was not done within 0.3 s and was ended");
    assert!(began.elapsed() < Duration::from_secs(5));
    let text = written(&pids).await;
    let (own, child) = text.trim().split_once(' ').unwrap();
    assert!(!is_there(own), "it was waited for");
    gone(child).await;
}

#[tokio::test]
async fn a_program_that_nobody_waits_for_any_more_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = shell(&format!("echo $$ >{}; sleep 1000", file.display()));
    let pid = tokio::select! {
        ended = run(&command, LONG) => panic!("{ended:?}"),
        pid = written(&file) => pid,
    };
    gone(&pid).await;
}

#[tokio::test]
async fn a_service_that_a_command_leaves_behind_is_left_alone_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    // It holds the outputs of the command.
    let starts = format!("sleep 1000 & echo $! >{}; echo started", file.display());
    let began = Instant::now();
    let output = run(&shell(&starts), LONG).await.unwrap();
    assert_eq!(output.stdout, b"started\n");
    assert!(began.elapsed() < Duration::from_secs(10));
    let pid = written(&file).await;
    assert!(is_there(&pid));
    run(&["/bin/kill".to_owned(), pid.trim().to_owned()], LONG).await.unwrap();
}

#[tokio::test]
async fn a_program_may_say_more_than_is_kept() {
    let floods = shell("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2");
    let output = run(&floods, Limits { output: 1000, ..LONG }).await.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len(), output.cut), (1000, 1000, true));
    let endless = run(&["/bin/cat".to_owned(), "/dev/zero".to_owned()], SHORT).await.unwrap_err();
    assert!(matches!(endless, RunError::Late { .. }), "{endless}");
    let long = run(&shell("head -c 5000 /dev/zero | tr '\\0' x >&2; exit 1"), LONG).await;
    assert!(long.unwrap_err().to_string().len() < 300, "an error quotes a piece of it");
}

//! What a manager knows of its daemons outlives its death.

use std::{path::Path, process::Child, time::Duration};

use courier::{Batch, Embedded, NewFact, Options, Stream};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::bench::{command, run, wait_for};

const SOON: Duration = Duration::from_mins(1);

/// A manager of a small profile; killed when this is dropped.
struct Manager(Child);

impl Manager {
    fn up(folder: &Path) -> Self {
        let args = ["up", "--profile", "coordinator", "--configs", "hex8_2p", "--port", "0"];
        let mut command = command(folder, &args);
        let out = fs_err::File::create(folder.join("up.log")).unwrap().into_file();
        command.args(["--data", "data"]).stdout(out.try_clone().unwrap()).stderr(out);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The daemons as `status --json` shows them, once a manager answers.
fn daemons(folder: &Path) -> Value {
    wait_for("a manager to answer", SOON, || {
        let status = run(folder, &["status", "--json", "--data", "data"]);
        (status.code == 0).then(|| status.json()["daemons"].clone())
    })
}

fn note(folder: &Path, body: &Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let path = folder.join("data/facts.sqlite");
        let log = Embedded::open(&path, Options::default()).unwrap();
        let subject = format!("restarts.{}", body["daemon"].as_str().unwrap());
        let fact = NewFact::new(format!("{subject}/test"), subject, "test", body.clone());
        let now = warden::Clock::system().now_ms();
        log.append(Stream::Operational, Batch::new(vec![fact]), now).await.unwrap();
    });
}

#[test]
fn what_was_given_up_is_failed_after_each_sigkill_and_crashes_are_not_forgotten() {
    let dir = tempdir().unwrap();
    fs_err::create_dir(dir.path().join("data")).unwrap();
    let past = |daemon: &str, crashes: u32, given_up: bool| {
        json!({
            "topic": "daemon.restarts_changed", "daemon": daemon, "crashes": crashes,
            "recent_ms": [], "given_up": given_up, "last_error": "the disk made noises",
        })
    };
    note(dir.path(), &past("EVALUATION", 5, true));
    note(dir.path(), &past("DATA_PIPELINE", 3, false));

    for life in 1..=3 {
        let manager = Manager::up(dir.path());
        let daemons = daemons(dir.path());
        let failed = &daemons["EVALUATION"];
        assert_eq!(failed["state"], "failed", "life {life}: {failed}");
        assert_eq!(
            (&failed["restarts"], &failed["last_error"]),
            (&json!(5), &json!("the disk made noises")),
            "life {life}"
        );
        wait_for("what was not given up to run", SOON, || {
            let pipeline = self::daemons(dir.path())["DATA_PIPELINE"].clone();
            assert_eq!(pipeline["restarts"], 3, "life {life}: {pipeline}");
            (pipeline["state"] == "running").then_some(())
        });
        // SIGKILL.
        drop(manager);
    }
}

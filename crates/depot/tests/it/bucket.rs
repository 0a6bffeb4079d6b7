//! Buckets of a real service: moto, from the package index of Python.

use std::{
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use depot::far::{Credentials, Far, FarError, Options, Plain, Sent};

use super::{Bench, flip};

/// The Python that `cargo xtask check` puts there. Says so if there is none.
fn python() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/s3/bin/python");
    let found = Some(ours).filter(|file| file.is_file());
    if found.is_none() {
        println!(
            "absent: moto, so far stores in buckets are not tested; to have it: cargo xtask check"
        );
    }
    found
}

struct Service {
    url: String,
    id: String,
    secret: String,
    process: Child,
    _stdin: ChildStdin,
}

impl Service {
    fn start(port: u16) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/s3_server.py");
        let mut process = Command::new(python()?)
            .arg(script)
            .args([&port.to_string(), "far-away"])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "1000000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let [url, id, secret]: [String; 3] = serde_json::from_str(&line).unwrap();
        let stdin = process.stdin.take().unwrap();
        Some(Self { url, id, secret, process, _stdin: stdin })
    }

    fn far(&self, bucket: &str, secret: &str) -> Far {
        let pairs = [("AWS_ACCESS_KEY_ID", &*self.id), ("AWS_SECRET_ACCESS_KEY", secret)];
        let look_up = |name: &str| {
            pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        Far::open(Options {
            address: format!("s3://{bucket}/some/where").parse().unwrap(),
            endpoint: Some(self.url.clone()),
            region: "us-east-1".to_owned(),
            plain: Plain::Loopback,
            credentials: Credentials::of_names(look_up).unwrap(),
            rate: None,
        })
        .unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn all(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn refused(result: Result<impl std::fmt::Debug, FarError>, part: &str, secret: &str) {
    match result {
        Err(FarError::Refused(what)) => {
            assert!(what.contains(part) && !what.contains(secret), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bucket_keeps_small_and_large_files_and_refuses_strangers() {
    let Some(service) = Service::start(0) else { return };
    let bench = Bench::new();
    let far = service.far("far-away", &service.secret);
    let small = bench.depot.put_bytes(b"small", "txt").unwrap().hash;
    // Three parts, the last one short.
    let bytes: Vec<u8> = (0..(20_u32 << 20)).map(|i| (i % 251) as u8).collect();
    let large = bench.depot.put_bytes(&bytes, "bin").unwrap().hash;
    for (hash, length) in [(small, 5), (large, 20 << 20)] {
        assert_eq!(far.put(&bench.depot, &hash, &mut all).unwrap(), Sent::New(length));
        assert_eq!(far.put(&bench.depot, &hash, &mut all).unwrap(), Sent::There(length));
    }
    let mut keys = far.list("blobs").unwrap();
    keys.sort_by_key(|(_, bytes)| *bytes);
    assert_eq!(keys[0], (format!("blobs/{}/{small}", &small.to_string()[..2]), 5));
    assert_eq!((keys.len(), keys[1].1), (2, 20 << 20));

    let other = Bench::new();
    far.fetch(&other.depot, &large, (20 << 20, "bin"), &mut all).unwrap();
    other.depot.verify(&large).unwrap();
    assert_eq!(far.pointer("head", 99, &mut all).unwrap(), None);
    far.point("head", b"one", &mut all).unwrap();
    far.point("head", b"two", &mut all).unwrap();
    assert_eq!(far.pointer("head", 99, &mut all).unwrap().unwrap(), b"two");

    refused(service.far("far-away", "wrong").verify(&small, &mut all), "refuses these", "wrong");
    let stranger = service.far("nowhere", &service.secret);
    refused(stranger.verify(&small, &mut all), "bucket nowhere is not there", &service.secret);
    refused(stranger.put(&bench.depot, &small, &mut all), "is not there", &service.secret);
    refused(stranger.list("blobs"), "is not there", &service.secret);

    // An upload that is stopped leaves nothing that can be seen.
    let path = bench.depot.path_of(&large).unwrap().unwrap();
    flip(&path, 9);
    let third = bench.depot.put_file(&path, "bin").unwrap().hash;
    let mut left = 10 << 20;
    let mut stop = |n: u64| {
        left -= i64::try_from(n).unwrap();
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let stopped = far.put(&bench.depot, &third, &mut stop);
    assert!(matches!(stopped, Err(FarError::Stopped)), "{stopped:?}");
    assert!(matches!(far.verify(&third, &mut all), Err(FarError::Absent { .. })));
}

#[test]
fn a_service_that_is_away_is_said_to_be() {
    let Some(service) = Service::start(0) else { return };
    let bench = Bench::new();
    let small = bench.depot.put_bytes(b"small", "txt").unwrap().hash;
    let far = service.far("far-away", &service.secret);
    far.put(&bench.depot, &small, &mut all).unwrap();
    drop(service);
    let away = far.verify(&small, &mut all);
    assert!(matches!(&away, Err(FarError::Away(what)) if !what.is_empty()), "{away:?}");
}

//! Buckets of three services: S3 by moto, Google by moto behind a check of its tokens, Azure by Azurite.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    ops::ControlFlow,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use depot::far::{
    Credentials, Far, FarError, FarResult, Options, Plain, Sent, Service as Kind, Version,
};

use super::{Bench, flip};

/// What `cargo xtask check` puts there. Says so if there is none.
fn tool(path: &str, name: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools").join(path);
    let found = Some(ours).filter(|file| file.is_file());
    if found.is_none() {
        println!(
            "absent: {name}, so far stores in its buckets are not tested; to have it: cargo xtask check"
        );
    }
    found
}

struct Service {
    kind: Kind,
    url: String,
    /// What proves us, by the usual names.
    ours: Vec<(&'static str, String)>,
    /// Files that are named there.
    _files: tempfile::TempDir,
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Service {
    /// One with the bucket `far-away`.
    fn start(kind: Kind) -> Option<Self> {
        let python = tool("s3/bin/python", "moto")?;
        let (script, words) = match kind {
            Kind::S3 => ("s3_server.py", vec!["0".into()]),
            Kind::Google => ("gcs_server.py", vec![]),
            Kind::Azure => {
                let main = "azure/node_modules/azurite/dist/src/blob/main.js";
                ("azure_server.py", vec![tool(main, "Azurite")?.into_os_string()])
            }
        };
        let mut process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(script))
            .args(words)
            .arg("far-away")
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "1000000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Vec<String> = serde_json::from_str(&line).unwrap();
        let files = tempfile::tempdir().unwrap();
        let names: &[&'static str] = match kind {
            Kind::S3 => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            Kind::Google => &["GOOGLE_APPLICATION_CREDENTIALS", "STRANGER"],
            Kind::Azure => &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "SAS"],
        };
        let mut ours: Vec<(&'static str, String)> =
            names.iter().copied().zip(said[1..].iter().cloned()).collect();
        if kind == Kind::Google {
            for (name, contents) in &mut ours {
                let path = files.path().join(name);
                fs_err::write(&path, &*contents).unwrap();
                fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
                *contents = path.display().to_string();
            }
        }
        let stdin = process.stdin.take();
        Some(Self { kind, url: said[0].clone(), ours, _files: files, process, stdin })
    }

    fn value(&self, name: &str) -> &str {
        &self.ours.iter().find(|(n, _)| *n == name).unwrap().1
    }

    fn far(&self, bucket: &str) -> Far {
        self.opened(bucket, &self.ours, &self.url).unwrap()
    }

    fn opened(
        &self,
        bucket: &str,
        pairs: &[(&'static str, String)],
        endpoint: &str,
    ) -> FarResult<Far> {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Google => "gs",
            Kind::Azure => "az",
        };
        let look_up =
            |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        Far::open(Options {
            address: format!("{scheme}://{bucket}/some/where").parse().unwrap(),
            endpoint: Some(endpoint.to_owned()),
            region: "us-east-1".to_owned(),
            plain: Plain::Loopback,
            credentials: Credentials::of_names(self.kind, look_up).unwrap(),
            rate: None,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ends with its input, and ends what it has started.
        drop(self.stdin.take());
        drop(self.process.wait());
    }
}

/// A line to a service that breaks after 6 MiB of answers, so many times. Ends with the process.
struct Frail {
    url: String,
    breaks: Arc<AtomicUsize>,
}

impl Frail {
    fn before(url: &str, breaks: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = format!("http://{}", listener.local_addr().unwrap());
        let to = url.strip_prefix("http://").unwrap().to_owned();
        let breaks = Arc::new(AtomicUsize::new(breaks));
        let left = Arc::clone(&breaks);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, off) = (near.unwrap(), TcpStream::connect(&to).unwrap());
                let (mut from, mut into) = (near.try_clone().unwrap(), off.try_clone().unwrap());
                thread::spawn(move || io::copy(&mut from, &mut into));
                let left = Arc::clone(&left);
                thread::spawn(move || pass_on(&off, &near, &left));
            }
        });
        Self { url: ours, breaks }
    }
}

fn pass_on(mut off: &TcpStream, mut near: &TcpStream, left: &AtomicUsize) {
    let passed = io::copy(&mut off.take(6 << 20), &mut near);
    let whole = matches!(passed, Ok(bytes) if bytes == 6 << 20);
    let less = |left: usize| left.checked_sub(1);
    if whole && left.try_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
        drop(io::copy(&mut off, &mut near));
    }
    drop((off.shutdown(Shutdown::Both), near.shutdown(Shutdown::Both)));
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

/// Two that write one pointer, in a service that compares.
fn check_pointers(older: &Far, newer: &Far) {
    let point = |far: &Far, version: &Option<Version>, contents: &[u8]| {
        far.point("head", version.as_ref(), contents, &mut all).unwrap()
    };
    let nothing = older.version("head").unwrap();
    assert_eq!(nothing, None);
    assert!(point(newer, &nothing, b"one"));
    assert!(!point(older, &nothing, b"else"), "there is one already");
    let one = older.version("head").unwrap();
    assert!(one.as_ref().and_then(Version::name).is_some(), "{one:?}");
    assert!(point(newer, &one, b"two"));
    assert!(!point(older, &one, b"else"), "whoever slept goes over nothing newer");
    assert_eq!(older.pointer("head", 99, &mut all).unwrap().unwrap(), b"two");
    let two = older.version("head").unwrap();
    assert!(point(older, &two, b"three"), "it has looked again");
    assert!(!point(newer, &two, b"else"));
    assert_eq!(newer.pointer("head", 99, &mut all).unwrap().unwrap(), b"three");
}

/// What every service does; wrong are proofs that it does not take, with what must not be shown of them.
fn check_service(service: &Service, wrong: &[(Vec<(&'static str, String)>, &str)]) {
    let bench = Bench::new();
    let far = service.far("far-away");
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
    check_pointers(&far, &service.far("far-away"));

    // A line that breaks is taken up where it broke.
    let frail = Frail::before(&service.url, 2);
    let far_off = service.opened("far-away", &service.ours, &frail.url).unwrap();
    let third = Bench::new();
    far_off.fetch(&third.depot, &large, (20 << 20, "bin"), &mut all).unwrap();
    third.depot.verify(&large).unwrap();
    assert_eq!(frail.breaks.load(Ordering::Relaxed), 0);

    for (pairs, secret) in wrong {
        let stranger = service.opened("far-away", pairs, &service.url).unwrap();
        refused(stranger.verify(&small, &mut all), "refuses these credentials", secret);
        refused(stranger.put(&bench.depot, &small, &mut all), "refuses these", secret);
        refused(stranger.list("blobs"), "refuses these", secret);
    }
    let nowhere = service.far("nowhere");
    for (_, secret) in &service.ours[1..] {
        refused(nowhere.verify(&small, &mut all), "bucket nowhere is not there", secret);
        refused(nowhere.put(&bench.depot, &small, &mut all), "is not there", secret);
        refused(nowhere.list("blobs"), "is not there", secret);
    }

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

/// Once nobody listens any more: tried again, and then said, without what proves us.
fn check_away(service: Service) {
    let bench = Bench::new();
    let small = bench.depot.put_bytes(b"small", "txt").unwrap().hash;
    let far = service.far("far-away");
    far.put(&bench.depot, &small, &mut all).unwrap();
    let secret = service.ours.last().unwrap().1.clone();
    drop(service);
    match far.verify(&small, &mut all) {
        Err(FarError::Away(what)) => assert!(!what.is_empty() && !what.contains(&secret), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bucket_keeps_small_and_large_files_and_refuses_strangers() {
    let Some(service) = Service::start(Kind::S3) else { return };
    let mut wrong = service.ours.clone();
    wrong[1].1 = "wrong".into();
    check_service(&service, &[(wrong, "wrong")]);
    check_away(service);
}

#[test]
fn a_bucket_of_google_does_the_same() {
    let Some(service) = Service::start(Kind::Google) else { return };
    let stranger = vec![("GOOGLE_SERVICE_ACCOUNT", service.value("STRANGER").to_owned())];
    check_service(&service, &[(stranger, "PRIVATE KEY")]);
    // A token is all that is needed, for an hour.
    let open = service.opened("far-away", &service.ours, "http://objects.example");
    refused(open, "allowed is https:// alone", "PRIVATE KEY");
    let torn = service.value("STRANGER").to_owned();
    fs_err::write(&torn, "{\"private_key\": 5, \"private_key_id\": \"hush\"}").unwrap();
    let pairs = [("GOOGLE_SERVICE_ACCOUNT", torn)];
    let open = service.opened("far-away", &pairs, &service.url);
    refused(open, "cannot be read; it needs the file of a service account", "hush");
    check_away(service);
}

#[test]
fn a_container_of_azure_does_the_same_with_a_key_or_a_signature() {
    let Some(service) = Service::start(Kind::Azure) else { return };
    let account = service.ours[0].clone();
    let with = |name: &'static str, value: &str| vec![account.clone(), (name, value.to_owned())];
    let (key, sas) = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN");
    let signature = service.value("SAS").to_owned();
    let wrong = signature.replace("sig=", "sig=a");
    check_service(&service, &[(with(key, "d3Jvbmc="), "d3Jvbmc="), (with(sas, &wrong), "sig=a")]);
    let open = service.opened("far-away", &with(key, "no base"), &service.url);
    refused(open, "cannot be read; it needs AZURE_STORAGE_ACCOUNT_NAME", "no base");
    let open = service.opened("far-away", &with(sas, &signature), "http://objects.example");
    refused(open, "allowed is https:// alone", &signature);
    // Its key is only signed with.
    service.opened("far-away", &service.ours, "http://objects.example").unwrap();

    let mut signed = Service::start(Kind::Azure).unwrap();
    let ours = with(sas, signed.value("SAS"));
    signed.ours = ours;
    let wrong = vec![signed.ours[0].clone(), (sas, wrong)];
    check_service(&signed, &[(wrong, "sig=a")]);
    check_away(signed);
}

/// A service that speaks little S3: one object, and no conditions, which it refuses; and shown with a tag or
/// without one. Ends with the process.
fn simple_service(shown: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut object = None;
        for line in listener.incoming() {
            let mut line = BufReader::new(line.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let at = head.len();
                line.read_line(&mut head).unwrap();
                let said = head[at..].to_lowercase();
                if let Some(bytes) = said.strip_prefix("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            line.read_exact(&mut body).unwrap();
            let is_conditional = head.to_lowercase().contains("\r\nif-");
            let (status, answer) = match (&head[..3], &object) {
                ("PUT", _) if is_conditional => ("501 Not Implemented", Vec::new()),
                ("PUT", _) => {
                    object = Some(body);
                    ("200 OK\r\netag: \"1\"", Vec::new())
                }
                (_, None) => ("404 Not Found", Vec::new()),
                (_, Some(object)) => (shown, object.clone()),
            };
            let said = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            let near = line.get_mut();
            near.write_all(said.as_bytes()).unwrap();
            if !head.starts_with("HEAD") {
                near.write_all(&answer).unwrap();
            }
        }
    });
    url
}

#[test]
fn a_service_that_cannot_compare_gets_pointers_as_it_always_did() {
    let weak = "200 OK\r\netag: W/\"1\"";
    let strong = "200 OK\r\netag: \"1\"";
    for (shown, is_named) in [("200 OK", false), (weak, false), (strong, true)] {
        let far = Far::open(Options {
            address: "s3://far-away".parse().unwrap(),
            endpoint: Some(simple_service(shown)),
            region: "us-east-1".to_owned(),
            plain: Plain::Loopback,
            credentials: Credentials::of_names(Kind::S3, |_| Some("ours".to_owned())).unwrap(),
            rate: None,
        })
        .unwrap();
        assert!(
            far.point("head", far.version("head").unwrap().as_ref(), b"one", &mut all).unwrap()
        );
        let one = far.version("head").unwrap().unwrap();
        assert_eq!(one.name().is_some(), is_named);
        assert!(far.point("head", Some(&one), b"two", &mut all).unwrap());
        assert_eq!(far.pointer("head", 9, &mut all).unwrap().unwrap(), b"two");
    }
}

//! Far stores: in folders, and in buckets of a real service.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use crate::{
    bench::{Ended, check_refused, command, run, run_with, wait_for},
    runbook::{Desk, blocks},
};

const SOON: Duration = Duration::from_mins(1);

/// The part of docs/cluster.md that this is about.
fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cluster.md");
    let page = fs_err::read_to_string(path).unwrap();
    let part = page.split("\n## ").find(|part| part.starts_with("Far stores")).unwrap();
    part.to_owned()
}

/// Does all that the page says, with another place for its far store.
fn follow_the_page(mut desk: Desk, place: &str) -> Desk {
    desk.means.push(("s3://far-away/ringrift".into(), place.into()));
    let mut ran = 0;
    for block in blocks(&page()) {
        if block.cluster && !with_servers(&mut desk) {
            continue;
        }
        desk.follow(&block);
        ran += 1;
    }
    desk.stop();
    assert!(ran >= 4, "the page was not read");
    desk
}

#[cfg(feature = "cluster")]
fn with_servers(desk: &mut Desk) -> bool {
    let Some(program) = testkit::nats_server() else { return false };
    let free = format!("127.0.0.1:{}", testkit::port());
    desk.means.push(("10.0.0.1:4222".into(), free));
    desk.env.push(("NATS_SERVER".into(), program.display().to_string()));
    true
}

#[cfg(not(feature = "cluster"))]
fn with_servers(_: &mut Desk) -> bool {
    false
}

#[test]
fn every_command_of_the_page_works_with_a_folder() {
    let desk = Desk::new();
    let far = desk.dir.path().join("far");
    fs_err::create_dir(&far).unwrap();
    follow_the_page(desk, &format!("file://{}", far.display()));
}

/// A directory with a history and its far store, which are not touched by what follows.
struct Bench {
    desk: Desk,
}

impl Bench {
    fn new() -> Self {
        let mut desk = Desk::new();
        let far = desk.dir.path().join("far");
        fs_err::create_dir(&far).unwrap();
        let url = format!("file://{}", far.display());
        desk.env.push(("RINGRIFT_STORE_URL".into(), url));
        desk.work();
        desk.stop();
        Self { desk }
    }

    fn folder(&self) -> &Path {
        self.desk.dir.path()
    }

    fn url(&self) -> String {
        self.desk.env[0].1.clone()
    }

    fn restore(&self, data: &str, more: &[&str]) -> Ended {
        let url = self.url();
        run(self.folder(), &[&["restore", "--from", &url, "--data", data], more].concat())
    }

    fn store(&self, word: &str) -> Ended {
        run(
            self.folder(),
            &["store", word, "--url", &self.url(), "--json", "--data", "ringrift-data"],
        )
    }

    /// Objects below a folder of the store.
    fn objects(&self, folder: &str) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.folder().join("far").join(folder)];
        while let Some(next) = open.pop() {
            for entry in fs_err::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

/// Other bytes of the same number.
fn spoil(path: &Path) {
    let mut bytes = fs_err::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::remove_file(path).unwrap();
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn what_is_damaged_far_away_is_named_and_given_up_only_if_somebody_says_so() {
    let bench = Bench::new();
    let status = bench.store("status").json();
    assert_eq!(status["lacks"].as_array().unwrap().len(), 0, "{status}");
    assert!(status["facts"].as_u64().unwrap() > 3 && status["artefacts"].as_u64().unwrap() > 1);
    assert_eq!(bench.store("verify").json()["clean"], true);

    // The same size, one bit.
    spoil(&bench.objects("blobs")[0]);
    let verified = bench.store("verify");
    assert_eq!((verified.code, verified.json()["faults"].as_object().unwrap().len()), (1, 1));
    let refused = bench.restore("b", &[]);
    check_refused(&refused, 1, &["does not give 1 artefacts", "--accept-losses"]);
    assert!(refused.out.contains("is damaged"), "{}", refused.out);
    // Nothing starts in a directory that is not whole, and nothing is made there.
    let up = run(bench.folder(), &["up", "--port", "0", "--data", "b"]);
    check_refused(&up, 2, &["a restore that is not finished"]);
    assert!(!bench.folder().join("b/facts.sqlite").exists());
    let accepted = bench.restore("b", &["--accept-losses"]);
    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert!(accepted.out.contains("clean: "), "{}", accepted.out);
    let events = run(bench.folder(), &["events", "--topic", "artefact.trashed", "--data", "b"]).out;
    assert!(events.contains("lost: "), "{events}");

    let again = bench.restore("b", &[]);
    check_refused(&again, 2, &["has a history of its own"]);
    fs_err::create_dir_all(bench.folder().join("c/mine")).unwrap();
    check_refused(&bench.restore("c", &[]), 2, &["c is not empty, mine lies there"]);
}

#[test]
fn a_pointer_or_a_segment_that_is_half_written_is_no_reason_to_guess() {
    let bench = Bench::new();
    let head = bench.folder().join("far/head");
    let whole = fs_err::read(&head).unwrap();
    let replace = |bytes: &[u8]| {
        fs_err::remove_file(&head).unwrap();
        fs_err::write(&head, bytes).unwrap();
    };
    replace(&whole[..whole.len() / 2]);
    let refused = bench.restore("b", &[]);
    check_refused(&refused, 1, &["head in the far store is damaged", "--manifest "]);
    assert!(!bench.folder().join("b/restore").exists());
    let mark = refused.err.trim().rsplit(' ').next().unwrap().to_owned();
    let restored = bench.restore("b", &["--manifest", &mark]);
    assert_eq!(restored.code, 0, "{restored:?}");
    let wrong = bench.restore("c", &["--manifest", "newest"]);
    assert!(wrong.code == 2 && wrong.err.contains("allowed is FACTS/HASH"), "{wrong:?}");

    replace(&whole);
    for segment in bench.objects("facts") {
        spoil(&segment);
    }
    let refused = bench.restore("c", &[]);
    check_refused(&refused, 1, &["facts/", "is damaged"]);
    check_refused(&bench.store("verify"), 1, &["facts/", "is damaged"]);

    fs_err::remove_file(&head).unwrap();
    fs_err::remove_dir_all(bench.folder().join("far/manifests")).unwrap();
    check_refused(&bench.restore("d", &[]), 2, &["holds nothing that S3_BACKUP has written"]);
    fs_err::remove_dir_all(bench.folder().join("far")).unwrap();
    check_refused(&bench.restore("d", &[]), 1, &["far of the far store is not there"]);
}

#[test]
fn a_restore_that_is_killed_is_called_again_and_a_backup_goes_on_behind_it() {
    let bench = Bench::new();
    let facts = bench.store("status").json()["facts"].as_u64().unwrap();
    let url = bench.url();
    let args = ["restore", "--from", &url, "--data", "b"];
    let mut killed = 0;
    // Faster the second time, so that it is caught in another place.
    for rate in ["2000", "20000"] {
        let mut slow = command(bench.folder(), &args);
        slow.env("RINGRIFT_STORE_RATE", rate);
        let mut child = slow.stdout(std::process::Stdio::null()).spawn().unwrap();
        wait_for("the restore to begin", SOON, || {
            let begun = bench.folder().join("b/restore/plan.json").exists();
            (begun || child.try_wait().unwrap().is_some()).then_some(())
        });
        std::thread::sleep(Duration::from_millis(150));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        child.wait().unwrap();
    }
    assert_eq!(killed, 2, "they were too fast");
    let other = run(bench.folder(), &["restore", "--from", "file:///nowhere", "--data", "b"]);
    check_refused(&other, 2, &["was begun in"]);
    let restored = bench.restore("b", &[]);
    assert_eq!(restored.code, 0, "{restored:?}");
    assert!(!bench.folder().join("b/restore").exists());

    // It goes on there, its copies too; the directory that was lost is not copied any more.
    let up = |data: &str, until: &dyn Fn() -> Option<()>| {
        let args = ["up", "--port", "0", "--configs", "hex8_2p", "--data", data];
        let mut manager = command(bench.folder(), &args);
        manager.env("RINGRIFT_STORE_URL", &url).env("RINGRIFT_S3_BACKUP_PAUSE", "0");
        manager.env("RINGRIFT_S3_BACKUP_INTERVAL", "1");
        let out = fs_err::File::create(bench.folder().join("up.out")).unwrap().into_file();
        let mut child = manager.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        wait_for("the manager to do it", SOON, until);
        // A power cut, not a stop.
        child.kill().unwrap();
        child.wait().unwrap();
    };
    up("b", &|| (bench.store("status").json()["facts"].as_u64() > Some(facts + 5)).then_some(()));
    let verified = bench.store("verify");
    assert_eq!(verified.code, 0, "{verified:?}");
    up("ringrift-data", &|| {
        let status = run(bench.folder(), &["status", "--data", "ringrift-data"]).out;
        status.contains("holds another history").then_some(())
    });
    assert_eq!(bench.restore("c", &[]).code, 0);
}

#[test]
fn a_disk_that_is_too_small_is_seen_before_the_first_artefact() {
    let bench = Bench::new();
    let bytes = bench.store("status").json()["artefact_bytes"].as_u64().unwrap();
    // Room for the log, not for the artefacts beside what a store keeps free.
    let script = format!(
        "set -e; mkdir -p small; mount -t tmpfs -o size={} tmpfs small; \
         set +e; {} restore --from {} --data small/b; echo \"code $?\"; \
         ls small/b/blobs | grep -v incoming; mount -o remount,size=1g small; \
         {} restore --from {} --data small/b; echo \"code $?\"",
        (5 << 20) + bytes / 2,
        crate::bench::RINGRIFT,
        bench.url(),
        crate::bench::RINGRIFT,
        bench.url(),
    );
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount", "--", "bash", "-c", &script]);
    let Ok(output) = inside.current_dir(bench.folder()).output() else {
        return absent("unshare");
    };
    let ended = Ended::from(output);
    if ended.out.is_empty() {
        return absent(&format!("mounts for users ({})", ended.err.trim()));
    }
    let codes: Vec<&str> = ended.out.lines().filter(|line| line.starts_with("code ")).collect();
    assert_eq!(codes, ["code 1", "code 0"], "{ended:?}");
    assert!(ended.err.contains("do not fit below"), "{ended:?}");
    assert!(ended.out.contains("clean: "), "{ended:?}");
}

#[expect(clippy::print_stdout, reason = "says what is absent")]
fn absent(what: &str) {
    println!("absent: {what}, so that part is not tested");
}

#[test]
fn a_store_that_nobody_can_use_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    check_refused(&run(folder, &["restore"]), 2, &["no far store is named"]);
    check_refused(&run(folder, &["store", "status"]), 2, &["no far store is named"]);
    let wrong = run(folder, &["restore", "--from", "s3://id:hush@far-away"]);
    check_refused(&wrong, 2, &["--from: '...'", "no user and no password"]);
    assert!(!wrong.err.contains("hush"), "{}", wrong.err);
    let nothing = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let bucket = run_with(folder, &["restore", "--from", "s3://far-away"], &nothing);
    let sentence = if cfg!(feature = "buckets") {
        "needs credentials: AWS_ACCESS_KEY_ID"
    } else {
        "feature `buckets`"
    };
    check_refused(&bucket, 2, &[sentence]);
    if cfg!(feature = "buckets") {
        let keys = folder.join("keys");
        fs_err::write(&keys, "AZURE_STORAGE_ACCOUNT_KEY = hush\n").unwrap();
        fs_err::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
        let env = [("RINGRIFT_STORE_CREDENTIALS", keys.to_str().unwrap())];
        let google = run_with(folder, &["restore", "--from", "gs://far-away"], &env);
        check_refused(&google, 2, &["is not the file of a service account"]);
        let azure = run_with(folder, &["restore", "--from", "az://far-away/a"], &env);
        check_refused(&azure, 2, &["AZURE_STORAGE_ACCOUNT_NAME", "one is missing"]);
        assert!(!format!("{}{}", google.err, azure.err).contains("hush"));
    }
}

#[cfg(feature = "buckets")]
mod buckets {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, ChildStdin, Stdio},
    };

    use super::*;

    /// A service on loopback; ends with this.
    struct Service {
        process: Child,
        stdin: Option<ChildStdin>,
        env: Vec<(String, String)>,
        /// What must be written down nowhere.
        secrets: Vec<String>,
        /// A file that is named in `env`.
        _files: tempfile::TempDir,
    }

    impl Service {
        /// One whose addresses begin like this.
        fn start(scheme: &str) -> Option<Self> {
            let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
            let python = tools.join("s3/bin/python");
            let azurite = tools.join("azure/node_modules/azurite/dist/src/blob/main.js");
            if !python.is_file() || scheme == "az" && !azurite.is_file() {
                absent(
                    "moto or Azurite (cargo xtask check installs them), services that have buckets",
                );
                return None;
            }
            let (script, words, names) = match scheme {
                "gs" => ("gcs", vec![], vec!["GOOGLE_APPLICATION_CREDENTIALS"]),
                "az" => (
                    "azure",
                    vec![azurite.into_os_string()],
                    vec!["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"],
                ),
                _ => ("s3", vec!["0".into()], vec!["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
            };
            let mut process = Command::new(python)
                .arg(tools.join(format!("../../testdata/{script}_server.py")))
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
            let mut said: Vec<String> = serde_json::from_str(&line).unwrap();
            let files = tempfile::tempdir().unwrap();
            let secrets = match scheme {
                // A line in the middle of its key.
                "gs" => vec![said[1].split("\\n").nth(9).unwrap().to_owned()],
                "az" => vec![said[2].clone()],
                _ => said[1..].to_vec(),
            };
            if scheme == "gs" {
                let path = files.path().join("account.json");
                fs_err::write(&path, &said[1]).unwrap();
                fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
                said[1] = path.display().to_string();
            }
            let names = ["RINGRIFT_STORE_ENDPOINT"].into_iter().chain(names);
            let env = names.map(str::to_owned).zip(said).collect();
            let stdin = process.stdin.take();
            Some(Self { process, stdin, env, secrets, _files: files })
        }

        fn env(&self) -> Vec<(&str, &str)> {
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            // It ends with its input, and ends what it has started.
            drop(self.stdin.take());
            drop(self.process.wait());
        }
    }

    fn check_page(place: &str) {
        let scheme = place.split(':').next().unwrap();
        let Some(service) = Service::start(scheme) else { return };
        let mut desk = Desk::new();
        desk.env.clone_from(&service.env);
        let desk = follow_the_page(desk, place);
        let mut open = vec![desk.dir.path().to_owned()];
        let mut looked_at = 0;
        while let Some(next) = open.pop() {
            for entry in fs_err::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let bytes = fs_err::read(&path).unwrap();
                looked_at += 1;
                for secret in &service.secrets {
                    let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                    assert!(!found, "{} holds a credential", path.display());
                }
            }
        }
        assert!(looked_at > 5);
    }

    #[test]
    fn every_command_of_the_page_works_with_a_bucket_and_no_secret_is_written_down() {
        check_page("s3://far-away/ringrift");
    }

    #[test]
    fn every_command_of_the_page_works_with_a_bucket_of_google() {
        check_page("gs://far-away/ringrift");
    }

    #[test]
    fn every_command_of_the_page_works_with_a_container_of_azure() {
        check_page("az://far-away/ringrift");
    }

    #[test]
    fn a_service_that_refuses_or_is_away_is_said_to_be() {
        let Some(service) = Service::start("s3") else { return };
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let restore = |url: &str, env: &[(&str, &str)]| {
            run_with(folder, &["restore", "--from", url, "--data", "b"], env)
        };
        let mut env = service.env();
        check_refused(&restore("s3://far-away/a", &env), 2, &["holds nothing"]);
        check_refused(&restore("s3://nowhere", &env), 1, &["the bucket nowhere is not there"]);
        let keys = folder.join("keys");
        fs_err::write(&keys, "aws_access_key_id=a\naws_secret_access_key=wrongwrong\n").unwrap();
        let named = keys.display().to_string();
        let mut by_file = env.clone();
        by_file.push(("RINGRIFT_STORE_CREDENTIALS", &named));
        check_refused(&restore("s3://far-away/a", &by_file), 2, &["may be read by others"]);
        fs_err::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
        let refused = restore("s3://far-away/a", &by_file);
        check_refused(&refused, 1, &["refuses these credentials for the bucket far-away"]);
        assert!(!refused.err.contains("wrongwrong"), "{}", refused.err);
        env[0] = ("RINGRIFT_STORE_ENDPOINT", "http://objects.example:9");
        check_refused(&restore("s3://far-away/a", &env), 2, &["is not encrypted"]);
        let gone = service.env[0].1.clone();
        let env = service.env.clone();
        drop(service);
        let mut env: Vec<(&str, &str)> =
            env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        env[0].1 = &gone;
        check_refused(&restore("s3://far-away/a", &env), 1, &["the far store cannot be reached"]);
    }
}

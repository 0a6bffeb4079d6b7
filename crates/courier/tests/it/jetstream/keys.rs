//! A server that goes by keys: who is let in, and who is not.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use courier::jetstream::{
    AdmissionError, Authority, Door, Identity, JetStream, Options, Site, Ticket, public_key,
};
use courier::{Courier, NewFact, OpenError, Stream};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

const ONE: [u8; 32] = [1; 32];
const TWO: [u8; 32] = [2; 32];
const HOUR: Duration = Duration::from_hours(1);

/// A server as an authority sets it up.
struct Keyed {
    program: PathBuf,
    authority: Arc<Authority>,
    dir: TempDir,
    listen: SocketAddr,
    child: Option<Child>,
}

impl Keyed {
    fn start() -> Option<Self> {
        let program = testkit::nats_server()?;
        let dir = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], testkit::port()));
        let authority = Arc::new(Authority::generate().unwrap());
        let site = Site { name: "one", listen, all: &[listen], folder: dir.path() };
        authority.furnish(&site).unwrap();
        fs_err::write(dir.path().join("ca.pem"), authority.certificate().unwrap()).unwrap();
        let mut keyed = Self { program, authority, dir, listen, child: None };
        keyed.begin();
        Some(keyed)
    }

    fn begin(&mut self) {
        let log = fs_err::File::create(self.dir.path().join("server.log")).unwrap();
        let child = Command::new(&self.program)
            .arg("-c")
            .arg("server.conf")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .spawn();
        self.child = Some(child.unwrap());
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(self.listen).is_err() {
            let said = || fs_err::read_to_string(self.dir.path().join("server.log"));
            assert!(Instant::now() < until, "{}", said().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn servers(&self) -> String {
        format!("tls://{}", self.listen)
    }

    /// How somebody with this secret and this pass reaches the log.
    fn options(&self, secret: [u8; 32], pass: &str) -> Options {
        Options {
            identity: Some(Identity::new(secret, pass).unwrap()),
            certificate: Some(self.dir.path().join("ca.pem")),
            patience: Duration::from_secs(30),
            ..Options::new(self.servers(), "test", self.dir.path().join(format!("{}", secret[0])))
        }
    }

    fn pass(&self, secret: [u8; 32]) -> String {
        self.authority.pass(&public_key(secret).unwrap(), "node", "test").unwrap()
    }

    async fn open(&self, secret: [u8; 32]) -> Courier {
        JetStream::open(self.options(secret, &self.pass(secret))).await.unwrap()
    }
}

impl Drop for Keyed {
    fn drop(&mut self) {
        self.end();
    }
}

/// For what is to be refused.
fn impatient(options: Options) -> Options {
    Options { patience: Duration::from_secs(3), ..options }
}

/// The file of credentials that NATS knows: a pass, and the secret key that it is for.
fn credentials(keyed: &Keyed, secret: [u8; 32], pass: &str) -> PathBuf {
    let key = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, secret).unwrap();
    let file = keyed.dir.path().join("node.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{pass}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        key.seed().unwrap()
    );
    fs_err::write(&file, text).unwrap();
    file
}

async fn append(log: &Courier, id: &str) -> Result<(), courier::AppendError> {
    let fact = NewFact::new(id, "s", "test", json!({}));
    log.append(Stream::Pipeline, fact.into(), 1).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_a_pass_for_its_own_key_uses_the_log() {
    let Some(keyed) = Keyed::start() else { return };
    let log = keyed.open(ONE).await;
    append(&log, "a").await.unwrap();
    append(&keyed.open(TWO).await, "b").await.unwrap();
    assert_eq!(log.read(Stream::Pipeline, 0, 10).await.unwrap().len(), 2);

    let pass = keyed.pass(ONE);
    let other = Authority::generate().unwrap();
    let other = other.pass(&public_key(TWO).unwrap(), "node", "test").unwrap();
    let unnamed = Options { identity: None, ..keyed.options(TWO, &pass) };
    let blind = Options { certificate: None, ..keyed.options(ONE, &pass) };
    for (what, options) in [
        ("nobody", unnamed),
        ("somebody else's pass", keyed.options(TWO, &pass)),
        ("a pass of another cluster", keyed.options(TWO, &other)),
        ("rubbish for a pass", keyed.options(TWO, "rubbish")),
    ] {
        let refused = JetStream::open(impatient(options)).await.unwrap_err();
        assert!(matches!(refused, OpenError::TurnedAway { .. }), "{what}: {refused}");
        assert!(refused.to_string().contains("do not let this node in"), "{refused}");
    }
    let refused = JetStream::open(impatient(blind)).await.unwrap_err();
    let is_unreachable = matches!(refused, OpenError::Unreachable { .. });
    assert!(is_unreachable, "a server that is not known: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_credentials_lets_in_like_a_key_of_ones_own() {
    let Some(keyed) = Keyed::start() else { return };
    let (one, two) = (keyed.pass(ONE), keyed.pass(TWO));
    let file = credentials(&keyed, ONE, &one);
    let options =
        Options { identity: None, credentials: Some(file.clone()), ..keyed.options(ONE, "") };
    append(&JetStream::open(options.clone()).await.unwrap(), "a").await.unwrap();

    credentials(&keyed, ONE, &two);
    let refused = JetStream::open(impatient(options.clone())).await.unwrap_err();
    assert!(matches!(refused, OpenError::TurnedAway { .. }), "somebody else's pass: {refused}");
    let path = file.display().to_string();
    fs_err::write(&file, format!("{one}\nSU-SECRET\n")).unwrap();
    let refused = JetStream::open(options.clone()).await.unwrap_err();
    assert!(matches!(refused, OpenError::NoCredentials { .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.starts_with(&format!("{path} holds no credentials")), "{said}");
    assert!(said.contains("a pass and a secret key"), "{said}");
    assert!(!said.contains("SECRET") && !said.contains(&one), "{said}");
    fs_err::remove_file(&file).unwrap();
    let refused = JetStream::open(options).await.unwrap_err().to_string();
    assert!(refused.contains(&path) && refused.contains("No such file"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_token_is_known_by_a_certificate_that_is_nobody_elses() {
    let Some(mut keyed) = Keyed::start() else { return };
    keyed.end();
    let text = format!(
        "listen: \"{}\"\nmax_payload: 8MB\njetstream {{ store_dir: \"store\" }}\n\
         tls {{ cert_file: \"server.pem\", key_file: \"server.key\", timeout: 5 }}\n\
         authorization {{ token: \"secret\" }}\n",
        keyed.listen
    );
    fs_err::write(keyed.dir.path().join("server.conf"), text).unwrap();
    keyed.begin();
    let options = |token: &str, certificate: Option<PathBuf>| Options {
        certificate,
        ..Options::new(
            format!("tls://{token}@{}", keyed.listen),
            "test",
            keyed.dir.path().join("n"),
        )
    };
    let ca = Some(keyed.dir.path().join("ca.pem"));
    append(&JetStream::open(options("secret", ca.clone())).await.unwrap(), "a").await.unwrap();
    let blind = JetStream::open(impatient(options("secret", None))).await.unwrap_err();
    assert!(matches!(blind, OpenError::Unreachable { .. }), "{blind}");
    let stranger = JetStream::open(impatient(options("other", ca))).await.unwrap_err();
    assert!(matches!(stranger, OpenError::TurnedAway { .. }), "{stranger}");
}

#[test]
fn one_server_alone_flushes_what_it_acknowledges_and_three_have_it_of_each_other() {
    let authority = Authority::generate().unwrap();
    let all = [4222, 4223, 4224].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    for (count, flushes) in [(1, true), (3, false)] {
        let dir = tempfile::tempdir().unwrap();
        let site = Site { name: "one", listen: all[0], all: &all[..count], folder: dir.path() };
        authority.furnish(&site).unwrap();
        let text = fs_err::read_to_string(dir.path().join("server.conf")).unwrap();
        assert_eq!(text.contains("sync_interval: always"), flushes, "{text}");
        // The server understands it.
        let Some(program) = testkit::nats_server() else { continue };
        let tried = Command::new(program)
            .args(["-t", "-c", "server.conf"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_nothing_from_the_log() {
    let Some(keyed) = Keyed::start() else { return };
    let log = keyed.open(ONE).await;
    append(&log, "a").await.unwrap();
    let key = Arc::new(nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, TWO).unwrap());
    let client = connect(&keyed, key, keyed.pass(TWO), None).await.unwrap();
    let is_answered = async |question: &str, within: Duration| {
        let asked = client.request(format!("$JS.API.STREAM.{question}"), "".into());
        matches!(tokio::time::timeout(within, asked).await, Ok(Ok(_)))
    };
    let soon = Duration::from_millis(500);
    for denied in [
        "DELETE.test_pipeline",
        "DELETE.KV_test",
        "PURGE.test_pipeline",
        "PURGE.KV_test",
        "UPDATE.test_pipeline",
        "MSG.DELETE.test_pipeline",
    ] {
        assert!(!is_answered(denied, soon).await, "{denied}");
    }
    // What the engine itself needs, to let go old operational facts.
    assert!(is_answered("PURGE.test_operational", Duration::from_secs(30)).await);
    let mut overheard = client.subscribe("test.admission").await.unwrap();
    client.publish("test.admission", "x".into()).await.unwrap();
    let message = tokio::time::timeout(Duration::from_millis(300), overheard.next()).await;
    assert!(!matches!(message, Ok(Some(_))), "a node listens at the door");
    assert_eq!(log.read(Stream::Pipeline, 0, 10).await.unwrap().len(), 1);
}

async fn connect(
    keyed: &Keyed,
    key: Arc<nkeys::KeyPair>,
    pass: String,
    inbox: Option<String>,
) -> Result<async_nats::Client, async_nats::ConnectError> {
    let connect = async_nats::ConnectOptions::with_jwt(pass, move |nonce| {
        std::future::ready(key.sign(&nonce).map_err(async_nats::AuthError::new))
    });
    let connect = connect.add_root_certificates(keyed.dir.path().join("ca.pem"));
    let connect = match inbox {
        Some(inbox) => connect.custom_inbox_prefix(inbox),
        None => connect,
    };
    connect.connect(keyed.servers()).await
}

/// Lets whoever holds a ticket in, once.
async fn door(keyed: &Keyed) -> JoinSet<()> {
    let identity = Some(keyed.authority.identity().unwrap());
    let options = Options { identity, ..keyed.options(ONE, "") };
    let door = Door::open(&options, keyed.authority.clone()).await.unwrap();
    let used: Arc<Mutex<HashMap<String, String>>> = Arc::default();
    let mut open = JoinSet::new();
    open.spawn(door.answer(move |newcomer| {
        let mut used = used.lock().unwrap();
        let by = used.entry(newcomer.invitation).or_insert_with(|| newcomer.key.clone());
        let answer = if *by == newcomer.key { Ok(()) } else { Err("used already".to_owned()) };
        std::future::ready(answer)
    }));
    open
}

#[expect(clippy::disallowed_methods, reason = "the server goes by the real time")]
fn ticket(keyed: &Keyed, lasts: Duration) -> (String, Ticket) {
    let until = (SystemTime::now() + lasts).duration_since(UNIX_EPOCH).unwrap();
    let until_ms = i64::try_from(until.as_millis()).unwrap();
    Ticket::make(&keyed.authority, &keyed.servers(), "test", "any", until_ms).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_lets_one_machine_in_and_that_is_all_it_does() {
    let Some(keyed) = Keyed::start() else { return };
    let log = keyed.open(ONE).await;
    append(&log, "a").await.unwrap();
    let certificate = keyed.dir.path().join("joined.pem");
    let (number, ticket) = ticket(&keyed, HOUR);
    let early = ticket.enter(TWO, "two", &certificate).await;
    assert!(matches!(early, Err(AdmissionError::NobodyThere)), "{early:?}");

    let door = door(&keyed).await;
    let pass = ticket.enter(TWO, "two", &certificate).await.unwrap();
    append(&JetStream::open(keyed.options(TWO, &pass)).await.unwrap(), "b").await.unwrap();
    ticket.enter(TWO, "two", &certificate).await.expect("the answer may have been lost");
    let refused = ticket.enter([3; 32], "three", &certificate).await.unwrap_err().to_string();
    assert_eq!(refused, "not let in: used already");

    // With what stands in the ticket nothing else is done: not read, not written, not listened to.
    let text = ticket.to_string();
    let held = URL_SAFE_NO_PAD.decode(&text["ticket1-".len()..]).unwrap();
    let held: Value = serde_json::from_slice(&held).unwrap();
    let key = Arc::new(nkeys::KeyPair::from_seed(held["secret"].as_str().unwrap()).unwrap());
    let pass = held["pass"].as_str().unwrap().to_owned();
    let guest = connect(&keyed, key, pass, Some(format!("_INBOX_{number}"))).await.unwrap();
    let mut heard = guest.subscribe(">").await.unwrap();
    let mut answers = guest.subscribe("_INBOX.>").await.unwrap();
    guest.publish("test.pipeline.fact.s", "{}".into()).await.unwrap();
    // Not even by having the one who answers write it.
    let said = serde_json::to_vec(&json!({})).unwrap();
    let elsewhere = "test.pipeline.fact.s".to_owned();
    guest.publish_with_reply("test.admission", elsewhere, said.into()).await.unwrap();
    let asked = guest.request("$JS.API.STREAM.INFO.test_pipeline", "".into());
    let answer = tokio::time::timeout(Duration::from_millis(500), asked).await;
    assert!(!matches!(answer, Ok(Ok(_))), "a guest reads");
    append(&log, "c").await.unwrap();
    for heard in [&mut heard, &mut answers] {
        let message = tokio::time::timeout(Duration::from_millis(300), heard.next()).await;
        assert!(!matches!(message, Ok(Some(_))), "a guest listens");
    }
    assert_eq!(log.read(Stream::Pipeline, 0, 10).await.unwrap().len(), 3);
    drop(door);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_whose_time_is_over_opens_nothing() {
    let Some(keyed) = Keyed::start() else { return };
    drop(keyed.open(ONE).await);
    let door = door(&keyed).await;
    let (_, ticket) = ticket(&keyed, Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let certificate = keyed.dir.path().join("joined.pem");
    let refused = ticket.enter(TWO, "two", &certificate).await.unwrap_err().to_string();
    assert!(refused.contains("or its time is over"), "{refused}");
    drop(door);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_out_is_cut_off_at_once_and_stays_out() {
    let Some(mut keyed) = Keyed::start() else { return };
    let (one, two) = (keyed.open(ONE).await, keyed.open(TWO).await);
    append(&two, "a").await.unwrap();
    let out = [public_key(TWO).unwrap()];
    // What the server was started with is of the second before: of two accounts it keeps the younger one.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    keyed.authority.put_out(&out, &keyed.options(ONE, "")).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(3), append(&two, "b")).await;
    assert!(!matches!(refused, Ok(Ok(()))));
    append(&one, "c").await.unwrap();
    let again = || JetStream::open(impatient(keyed.options(TWO, &keyed.pass(TWO))));
    assert!(again().await.is_err(), "a new pass for the same key");

    drop((one, two));
    keyed.end();
    keyed.begin();
    let again = || JetStream::open(impatient(keyed.options(TWO, &keyed.pass(TWO))));
    assert!(again().await.is_err(), "after the server was started again");
    let one = keyed.open(ONE).await;
    let facts = one.read(Stream::Pipeline, 0, 10).await.unwrap();
    assert_eq!(facts.iter().map(|fact| fact.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
}

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

use super::servers::{free_port, program};

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
        let program = program()?;
        let dir = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
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
        ("a server that is not known", blind),
    ] {
        let refused = JetStream::open(impatient(options)).await;
        assert!(matches!(refused, Err(OpenError::Unreachable { .. })), "{what}");
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

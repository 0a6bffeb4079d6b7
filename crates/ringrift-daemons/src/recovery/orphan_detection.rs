//! `ORPHAN_DETECTION`: finds games that no fact names, and artefacts that nobody has.
//!
//! Reads   files of games in the store that the log does not name; in a cluster, who has what and who lives.
//! Writes  `games.committed` for games whose maker died between handing them over and telling so; an alarm on
//!         files of games that cannot be told, and, on the node that leads, one on artefacts that no living node
//!         has.
//! Never   deletes, and takes nothing on trust: games that are told here are replayed before they count, like
//!         any others. What their maker tells after all is told once.
//!
//! What else no fact names is for `DISK_SPACE_MANAGER` to remove, later than this daemon looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use courier::Stream;
use depot::Depot;
use flate2::read::MultiGzDecoder;
use ringrift_pipeline::{
    BlobHash, Catalogue, Config as GameConfig, GamesCommitted, ModelId, NodeId, Record, Topic as _,
    WorkId,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR_FULL, EPHEMERAL, Emits, Leases, Loop, TRAINING_FULL, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    sync::whereabouts::{Since, others},
};

/// Name of the alarm on games that cannot be told.
pub(crate) const ORPHANS: &str = "orphans";
/// Name of the alarm on artefacts that nobody has.
pub(crate) const LOST: &str = "lost";

/// The ending of files of games.
const ENDING: &str = "gz";
/// Longest line that is read, bytes. Source: the reader of the workers.
const LONGEST_LINE: u64 = 64 << 20;
/// Most that a file may hold when it is unpacked, bytes.
const LARGEST_FILE: u64 = 4 << 30;
/// Most artefacts that nobody has that are looked at.
const MOST: u32 = 1000;

/// `[daemons.orphan_detection]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Age of a file that nobody named before it is looked at: what a worker handed over a moment ago is named a
    /// moment later. Less than the age at which it is removed, `daemons.disk_space_manager.orphan_age`.
    #[serde(with = "crate::seconds")]
    pub min_age: Duration,
    /// How long nobody may have an artefact until that is an alarm: a node that restarts is soon back.
    #[serde(with = "crate::seconds")]
    pub patience: Duration,
    /// Files that are read in one cycle.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_read_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_age: Duration::from_mins(15),
            patience: Duration::from_mins(15),
            max_read_per_cycle: 100,
        }
    }
}

/// What it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Batches that were told here since the daemon started.
    pub registered: u64,
    /// Games in them.
    pub games: u64,
    /// Files of games that cannot be told, and why.
    pub refused: BTreeMap<String, String>,
    /// Wall clock of the last look, milliseconds since the Unix epoch.
    pub last_scan_ms: Option<i64>,
    /// Artefacts that no living node has, on the node that leads.
    pub lost: Vec<String>,
}

/// The daemon.
pub struct OrphanDetection {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    leases: Leases,
    alarms: Alarms,
    /// Files that hold no games, so that they are read once.
    no_games: BTreeSet<BlobHash>,
    homeless: Since<BlobHash>,
    status: Status,
}

impl Emits for OrphanDetection {
    const EMITS: Topics = &[&[GamesCommitted::TOPIC], crate::alarms::EMITS];
}

impl Daemon for OrphanDetection {
    const SPEC: Spec = Spec {
        id: DaemonId("ORPHAN_DETECTION"),
        about: "finds game files that no fact names",
        priority: Priority::Low,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL, TRAINING_FULL, EPHEMERAL],
        period: Duration::from_mins(5),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, Leases);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, leases): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            leases,
            alarms: Alarms::default(),
            no_games: BTreeSet::new(),
            homeless: Since::default(),
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if let Some((hash, why)) = last.refused.iter().next() {
            return Health::Degraded(format!("games of {hash} cannot be told: {why}"));
        }
        match last.lost.first() {
            Some(artefact) => Health::Degraded(format!("{artefact} is on no node that lives")),
            None => Health::Healthy,
        }
    }
}

impl OrphanDetection {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        // Also where nobody plays any more.
        self.catalogue.hand_in().await?;
        self.register(cx).await?;
        self.status.last_scan_ms = Some(cx.now());
        self.look_for_lost(cx).await?;
        Ok(Outcome::Done(self.status.clone()))
    }

    /// Tells the games that nobody told.
    async fn register(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let age = i64::try_from(self.config.min_age.as_millis()).unwrap_or(i64::MAX);
        let born_before = cx.now().saturating_sub(age);
        // The files first: one that is named between the two looks is then known.
        let mut old = self.blobs.with(move |depot| old_games(depot, born_before)).await??;
        // What waits for a log out of reach is told by who played it.
        let kept = self.catalogue.kept_artefacts().await?;
        old.retain(|file| !kept.contains(&file.hash));
        let head = self.catalogue.log().head(Stream::Pipeline).await?;
        if self.catalogue.position().await? < head {
            // A catalogue that is behind the log does not know yet what it will name.
            return Ok(());
        }
        self.status.refused.retain(|hash, _| old.iter().any(|file| file.hash.as_str() == hash));
        self.no_games.retain(|hash| old.iter().any(|file| file.hash == *hash));
        let mut read = 0;
        for file in old {
            if read >= self.config.max_read_per_cycle {
                break;
            }
            if self.no_games.contains(&file.hash)
                || self.catalogue.blob(&file.hash).await?.is_some()
            {
                self.status.refused.remove(file.hash.as_str());
                continue;
            }
            cx.beat()?;
            read += 1;
            let path = file.path.clone();
            match tokio::task::spawn_blocking(move || read_games(&path)).await? {
                Ok(found) => self.tell(file, found, cx).await?,
                Err(error) => {
                    info!(hash = %file.hash, error = format!("{error:#}"), "named by nobody, and no games");
                    self.no_games.insert(file.hash);
                }
            }
        }
        let number = self.status.refused.len();
        let sentence = self.status.refused.iter().next().map(|(hash, why)| {
            format!(
                "{number} files of games cannot be told and will be removed, e.g. {hash}: {why}"
            )
        });
        self.alarms.set(&self.catalogue, ORPHANS, sentence, cx.now()).await?;
        Ok(())
    }

    async fn tell(&mut self, file: File, found: Found, cx: &Cx) -> anyhow::Result<()> {
        let models = self.catalogue.models(Some(found.config)).await?;
        let model = models.into_iter().find(|model| model.weights.as_str() == found.model);
        let Some(model) = model else {
            let why = format!("they were played by {}, which the log does not know", found.model);
            warn!(hash = %file.hash, why, "games of nobody");
            self.status.refused.insert(file.hash.to_string(), why);
            return Ok(());
        };
        let committed = found.committed(&file, model.id);
        let games = u64::from(committed.games);
        self.catalogue.record(vec![Record::first(committed)], cx.now()).await?;
        warn!(hash = %file.hash, games, config = %found.config, "games that nobody had told are told");
        self.status.registered += 1;
        self.status.games += games;
        Ok(())
    }

    /// What the log names and no living node has; the node that leads says so for all.
    async fn look_for_lost(&mut self, cx: &Cx) -> anyhow::Result<()> {
        if !self.the_loop.shared || !self.leases.leads() {
            self.homeless.note([]);
            self.status.lost.clear();
            // What was said while this node led is for another one to say now.
            self.alarms.set(&self.catalogue, LOST, None, cx.now()).await?;
            return Ok(());
        }
        cx.beat()?;
        let others = others(&self.catalogue, &self.the_loop).await?;
        let mut living: BTreeSet<NodeId> = others.into_iter().map(|row| row.node).collect();
        living.retain(|node| self.the_loop.nodes.lives(node));
        living.insert(self.the_loop.node.clone());
        let rows = self.catalogue.with_fewer_copies_among(&living, 1, MOST).await?;
        // An offered copy is one, too.
        let rows = rows
            .into_iter()
            .filter(|row| !row.holders.iter().any(|holder| living.contains(&holder.node)));
        let rows: BTreeMap<BlobHash, String> =
            rows.map(|row| (row.blob.hash, row.blob.role)).collect();
        self.homeless.note(rows.keys().cloned());
        self.status.lost = self
            .homeless
            .for_at_least(self.config.patience)
            .map(|hash| format!("{} {hash}", rows.get(hash).map_or("", String::as_str)))
            .collect();
        let number = self.status.lost.len();
        let sentence = self
            .status
            .lost
            .first()
            .map(|first| format!("{number} artefacts are on no node that lives, e.g. {first}"));
        self.alarms.set(&self.catalogue, LOST, sentence, cx.now()).await?;
        Ok(())
    }
}

/// A file of games in the store.
#[derive(Debug)]
struct File {
    hash: BlobHash,
    bytes: u64,
    path: PathBuf,
}

fn old_games(depot: &Depot, born_before_ms: i64) -> depot::Result<Vec<File>> {
    let mut old = Vec::new();
    for entry in depot.list()?.into_iter().filter(|entry| entry.extension == ENDING) {
        let born = fs_err::metadata(&entry.path).and_then(|meta| meta.modified());
        // Gone meanwhile, or of no known age.
        let Ok(born) = born else { continue };
        let since = born.duration_since(UNIX_EPOCH).unwrap_or_default();
        if i64::try_from(since.as_millis()).unwrap_or(i64::MAX) <= born_before_ms {
            let hash = BlobHash(entry.hash.to_string());
            old.push(File { hash, bytes: entry.bytes, path: entry.path });
        }
    }
    Ok(old)
}

/// What a file of games holds.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    config: GameConfig,
    /// The hash of the weights that played.
    model: String,
    games: u32,
    positions: u64,
    seat_wins: Vec<u32>,
}

impl Found {
    fn committed(&self, file: &File, model: ModelId) -> GamesCommitted {
        let short: String = file.hash.as_str().chars().take(12).collect();
        GamesCommitted {
            batch: file.hash.clone(),
            bytes: file.bytes,
            config: self.config,
            work: WorkId(format!("orphan-{}-{short}", self.config)),
            model,
            games: self.games,
            positions: self.positions,
            seat_wins: self.seat_wins.clone(),
            // Nobody knows any more.
            seconds: 0.0,
        }
    }
}

/// What is read of a game here; the rest is the affair of who replays it.
#[derive(Deserialize)]
struct Line {
    model: String,
    record: Game,
    decisions: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Game {
    config: GameConfig,
    result: Option<Won>,
}

#[derive(Deserialize)]
struct Won {
    winner: u8,
}

/// Reads a file of games, as far as their fact needs it.
fn read_games(path: &Path) -> anyhow::Result<Found> {
    let unpacked = MultiGzDecoder::new(BufReader::new(fs_err::File::open(path)?));
    let mut lines = BufReader::new(unpacked.take(LARGEST_FILE));
    let mut found: Option<Found> = None;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).context("unpack")?;
        if line.is_empty() {
            break;
        }
        ensure!(line.ends_with(b"\n"), "game {number}: cut off");
        let game: Line = serde_json::from_slice(&line).with_context(|| format!("game {number}"))?;
        let config = game.record.config;
        let players = usize::from(config.players);
        let found = found.get_or_insert_with(|| Found {
            config,
            model: game.model.clone(),
            games: 0,
            positions: 0,
            seat_wins: vec![0; players],
        });
        ensure!(found.config == config && found.model == game.model, "game {number}: of others");
        let winner = game.record.result.context("it has no result")?.winner;
        let seat = usize::from(winner).checked_sub(1).and_then(|at| found.seat_wins.get_mut(at));
        *seat.with_context(|| format!("game {number}: seat {winner} won"))? += 1;
        found.games += 1;
        found.positions += game.decisions.len() as u64;
    }
    found.context("it is empty")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use courier::Lease;
    use flate2::{Compression, write::GzEncoder};
    use serde_json::json;

    use super::*;
    use crate::{
        alarms::alarm_of,
        lease_of,
        testbed::{Bed, done, hex, stops_in_mid_cycle},
    };

    fn leases() -> Leases {
        let name = lease_of(&NodeId("here".into()));
        Leases::of_node(&Lease {
            name,
            holder: "here".into(),
            epoch: 1,
            expires_ms: 0,
            note: String::new(),
        })
    }

    fn daemon(bed: &Bed) -> OrphanDetection {
        let ports = (
            bed.catalogue_of::<OrphanDetection>(),
            bed.blobs.clone(),
            bed.the_loop.clone(),
            leases(),
        );
        OrphanDetection::new(Config::default(), ports)
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    fn game(model: &str, winner: u8) -> String {
        let result = json!({ "winner": winner, "reason": "rings", "digest": "-" });
        let record = json!({ "id": "g", "config": "hex8_2p", "moves": [], "result": result });
        json!({ "rules": "r", "model": model, "search": "s", "record": record, "decisions": [{}, {}] })
            .to_string()
            + "\n"
    }

    impl Bed {
        /// A file of the store that was written long ago, as seen by the clock of the tests.
        fn old_file(&self, contents: &[u8], ending: &str) -> BlobHash {
            let stored = self.blobs.depot().put_bytes(contents, ending).unwrap();
            let path = self.blobs.depot().path_of(&stored.hash).unwrap().unwrap();
            let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let file = fs_err::File::open(&path).unwrap();
            file.file().set_modified(long_ago).unwrap();
            BlobHash(stored.hash.to_string())
        }
    }

    #[test]
    fn what_a_file_holds_is_read_and_what_is_no_game_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let read = |bytes: &[u8]| {
            fs_err::write(&path, bytes).unwrap();
            read_games(&path).map_err(|error| format!("{error:#}"))
        };
        let two = game("ab", 1) + &game("ab", 2) + &game("ab", 1);
        let found = read(&packed(&two)).unwrap();
        assert_eq!((found.games, found.positions, found.seat_wins), (3, 6, vec![2, 1]));
        let refused = |bytes: &[u8], why: &str| {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(&packed(""), "it is empty");
        refused(b"something else", "unpack");
        refused(&packed("{}\n"), "game 1");
        refused(&packed(two.trim_end()), "game 3: cut off");
        refused(&packed(&(game("ab", 1) + &game("cd", 1))), "game 2: of others");
        refused(&packed(&game("ab", 3)), "seat 3 won");
        refused(&packed(&game("ab", 0)), "seat 0 won");
    }

    #[tokio::test]
    async fn games_whose_fact_was_never_recorded_are_told_once_and_what_is_young_is_left_alone() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let weights = bed.catalogue.champion(hex()).await.unwrap().unwrap().model.weights;
        let orphan =
            bed.old_file(&packed(&(game(weights.as_str(), 1) + &game(weights.as_str(), 2))), "gz");
        bed.old_file(b"no games", "gz");
        bed.old_file(b"samples of an export that died", "npz");
        let young = packed(&game(weights.as_str(), 1));
        bed.blobs.depot().put_bytes(&young, "gz").unwrap();
        let (cx, _probe) = bed.cx::<OrphanDetection>();
        let mut first = daemon(&bed);
        let status = done(first.cycle(&cx).await);
        assert_eq!(
            (status.registered, status.games, first.health(&status)),
            (1, 2, Health::Healthy)
        );
        let batch = bed.catalogue.batch(&orphan).await.unwrap().unwrap();
        assert_eq!((batch.games, batch.positions, batch.seat_wins), (2, 4, vec![1, 1]));
        let facts = bed.facts().await;
        done(first.cycle(&cx).await);
        done(daemon(&bed).cycle(&cx).await);
        assert_eq!(bed.facts().await, facts, "nor does another life tell anything");
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }

    #[tokio::test]
    async fn games_that_wait_in_the_outbox_are_told_by_who_played_them() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let weights = bed.catalogue.champion(hex()).await.unwrap().unwrap().model.weights;
        let played = bed.old_file(&packed(&game(weights.as_str(), 1)), "gz");
        let outbox = courier::Outbox::open(&bed.data().join("outbox")).unwrap();
        let catalogue = bed.catalogue.with_outbox(outbox);
        let mut daemon = daemon(&bed);
        daemon.catalogue = crate::testbed::handed_to::<OrphanDetection>(&catalogue);
        let path = bed.blobs.path_of(&played).await.unwrap().unwrap();
        let file = File { hash: played.clone(), bytes: 1, path: path.clone() };
        let committed = GamesCommitted {
            work: WorkId("selfplay-hex8_2p-here.1.0".into()),
            ..read_games(&path).unwrap().committed(&file, ModelId::new(hex(), 0))
        };
        catalogue.keep(vec![Record::first(committed.clone())], 1).await.unwrap();
        let (cx, _probe) = bed.cx::<OrphanDetection>();
        assert_eq!(done(daemon.cycle(&cx).await).registered, 0);
        assert_eq!(
            catalogue.kept().await.unwrap(),
            0,
            "handed in, whether anybody plays here or not"
        );
        let head = bed.facts().await;
        bed.catalogue.shows(head, Duration::from_secs(9)).await.unwrap();
        assert_eq!(done(daemon.cycle(&cx).await).registered, 0);
        assert_eq!(bed.catalogue.batch(&played).await.unwrap().unwrap().work, committed.work);
    }

    #[tokio::test]
    async fn games_of_an_unknown_model_are_an_alarm_until_they_are_gone() {
        let bed = Bed::new().await;
        let orphan = bed.old_file(&packed(&game("ab", 1)), "gz");
        let (cx, _probe) = bed.cx::<OrphanDetection>();
        let mut daemon = daemon(&bed);
        let status = done(daemon.cycle(&cx).await);
        assert!(matches!(daemon.health(&status), Health::Degraded(_)), "{status:?}");
        assert!(alarm_of(&bed.catalogue, ORPHANS).await.unwrap().is_some());
        fs_err::remove_file(bed.blobs.path_of(&orphan).await.unwrap().unwrap()).unwrap();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(alarm_of(&bed.catalogue, ORPHANS).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_leader_raises_an_alarm_on_what_no_living_node_has_for_a_while() {
        let bed = Bed::new().await;
        bed.joined(&["there", "far"]).await;
        bed.live(&["there"]).await;
        let (safe, lost) = (bed.named_only("safe").await, bed.named_only("lost").await);
        bed.held("there", &[&safe]).await;
        bed.held("far", &[&lost]).await;
        let mut daemon = daemon(&bed);
        daemon.the_loop = bed.shared();
        daemon.config.patience = Duration::ZERO;
        let (cx, _probe) = bed.cx::<OrphanDetection>();
        assert_eq!(done(daemon.cycle(&cx).await).lost, Vec::<String>::new(), "it does not lead");
        let lease = Lease {
            name: "leader".into(),
            holder: "here".into(),
            epoch: 1,
            expires_ms: 0,
            note: String::new(),
        };
        daemon.leases.lead(Some(&lease));
        daemon.config.patience = Duration::from_hours(1);
        assert_eq!(done(daemon.cycle(&cx).await).lost.len(), 0, "a node may be back soon");
        daemon.config.patience = Duration::ZERO;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.lost, [format!("games {lost}")]);
        assert!(alarm_of(&bed.catalogue, LOST).await.unwrap().is_some());
        daemon.leases.lead(None);
        assert_eq!(done(daemon.cycle(&cx).await).lost, Vec::<String>::new());
        let stands = alarm_of(&bed.catalogue, LOST).await.unwrap();
        assert_eq!(stands, None, "it leads no more: another one says so");
        daemon.leases.lead(Some(&lease));
        done(daemon.cycle(&cx).await);
        assert!(alarm_of(&bed.catalogue, LOST).await.unwrap().is_some());
        bed.live(&["far"]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(alarm_of(&bed.catalogue, LOST).await.unwrap(), None);
    }
}

//! `MODEL_DISTRIBUTION`: hands the champion to the workers of this node.
//!
//! Reads   champions, and what each node plays with.
//! Writes  `model.distributed`, after the file was read back whole; on the node that leads, an alarm on a champion that
//!         a living node which plays was not handed for too long.
//! Never   hands out a file that is not what its name says, nor waits for a slow line: what comes slowly comes
//!         meanwhile, and holds up no other config.
//!
//! Whoever may lead runs this daemon, so there is always one that watches over all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use depot::Fault;
use ringrift_pipeline::{
    BlobHash, Catalogue, ChampionInstalled, Config as GameConfig, ModelDistributed, ModelId,
    ModelPromoted, NodeId, Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR, COORDINATOR_FULL, Emits, Leases, Loop, STANDALONE, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, beyond, settled},
    evaluation::{auto_promotion::AutoPromotion, evaluation::Evaluation},
    on,
    sync::whereabouts::Since,
};

/// Champions that are hashed, and brought here, at a time.
const AT_A_TIME: usize = 4;
/// So long a cycle waits for them.
const GRACE: Duration = Duration::from_secs(3);
/// Pause before a cycle that waits says again that it lives.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Name of the alarm on a champion that some node was not handed.
pub(crate) fn alarm_on(config: GameConfig) -> String {
    format!("distribution.{config}")
}

/// `[daemons.model_distribution]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a living node that plays may be without the champion before the one that leads raises an alarm. Source:
    /// sync contract, `DISTRIBUTION_INCOMPLETE`, 300 s.
    #[serde(with = "crate::seconds")]
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { patience: Duration::from_mins(5) }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// What the workers of this node play with, by config.
    pub models: BTreeMap<String, String>,
    /// Models handed out since the daemon started.
    pub handed_out: u64,
    /// Champions whose file is not sound.
    pub faults: Vec<String>,
    /// Champions that are still being brought here.
    pub coming: Vec<String>,
    /// Champions that some node was not handed for too long, and which one, on the node that leads.
    pub incomplete: BTreeMap<String, String>,
}

/// What came of hashing a champion, and of bringing it here if that was needed.
type Looked = anyhow::Result<Result<(), Fault>>;

/// The daemon.
pub struct ModelDistribution {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    leases: Leases,
    alarms: Alarms,
    grace: Duration,
    looking: JoinSet<(BlobHash, Looked)>,
    in_sight: BTreeSet<BlobHash>,
    looked: BTreeMap<BlobHash, Looked>,
    /// Champions that some node lacks.
    lacked: Since<ModelId>,
    handed_out: u64,
}

/// A champion that the workers of this node do not use yet.
#[derive(Debug)]
struct Due {
    config: GameConfig,
    model: ModelId,
    weights: BlobHash,
    /// Position of what they use.
    after: u64,
}

impl Emits for ModelDistribution {
    const EMITS: Topics = &[&[ModelDistributed::TOPIC], crate::alarms::EMITS];
}

impl Daemon for ModelDistribution {
    const SPEC: Spec = Spec {
        id: DaemonId("MODEL_DISTRIBUTION"),
        about: "hands the champion to the workers",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER, Evaluation::ID, AutoPromotion::ID],
        profiles: &[COORDINATOR, COORDINATOR_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[on::<ModelPromoted>(), on::<ChampionInstalled>()],
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
            grace: GRACE,
            looking: JoinSet::new(),
            in_sight: BTreeSet::new(),
            looked: BTreeMap::new(),
            lacked: Since::default(),
            handed_out: 0,
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match last.faults.first().or_else(|| last.incomplete.values().next()) {
            Some(fault) => Health::Degraded(fault.clone()),
            None => Health::Healthy,
        }
    }
}

impl ModelDistribution {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let (mut status, mut held_up) = (Status::default(), None);
        let mut due = Vec::new();
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            let Some(champion) = self.catalogue.champion(config).await? else { continue };
            let model = champion.model;
            let handed = self.catalogue.distribution(config, &self.the_loop.node).await?;
            if handed.as_ref().is_some_and(|handed| handed.model.id == model.id) {
                status.models.insert(config.to_string(), model.id.0);
                continue;
            }
            let after = handed.map_or(0, |handed| handed.position);
            due.push(Due { config, model: model.id, weights: model.weights, after });
        }
        self.look(&due, cx).await?;
        for due in due {
            cx.beat()?;
            let Some(looked) = self.looked.remove(&due.weights) else {
                status.coming.push(due.model.0);
                continue;
            };
            match beyond(looked, &mut held_up)? {
                Some(Ok(())) => {
                    let (config, model) = (due.config, due.model.clone());
                    self.hand_out(due, cx).await?;
                    status.models.insert(config.to_string(), model.0);
                }
                Some(Err(fault)) => {
                    warn!(model = %due.model, %fault, "champion is not handed out");
                    status.faults.push(format!("{} is not handed out: {fault}", due.model));
                }
                None => {}
            }
        }
        status.handed_out = self.handed_out;
        self.watch_others(&mut status, cx).await?;
        held_up.map_or_else(|| Ok(Outcome::Done(status)), Err)
    }

    /// Has the files of these hashed, and brought here if need be; waits a little for what comes of it.
    async fn look(&mut self, due: &[Due], cx: &Cx) -> anyhow::Result<()> {
        self.looked.retain(|hash, _| due.iter().any(|due| due.weights == *hash));
        let until = Instant::now() + self.grace;
        loop {
            cx.beat()?;
            while let Some(ended) = self.looking.try_join_next() {
                self.note(ended?);
            }
            for Due { weights, .. } in due {
                let known = self.looked.contains_key(weights) || self.in_sight.contains(weights);
                if known || self.looking.len() >= AT_A_TIME {
                    continue;
                }
                self.in_sight.insert(weights.clone());
                let (blobs, hash) = (self.blobs.clone(), weights.clone());
                self.looking.spawn(async move {
                    let looked = blobs.verify(&hash).await;
                    (hash, looked)
                });
            }
            let waits = due.iter().any(|due| !self.looked.contains_key(&due.weights));
            if !waits || Instant::now() >= until {
                return Ok(());
            }
            tokio::select! {
                Some(ended) = self.looking.join_next() => self.note(ended?),
                () = sleep_until(until.min(Instant::now() + LOOK_AGAIN)) => {}
            }
        }
    }

    fn note(&mut self, (hash, looked): (BlobHash, Looked)) {
        self.in_sight.remove(&hash);
        self.looked.insert(hash, looked);
    }

    async fn hand_out(&mut self, due: Due, cx: &Cx) -> anyhow::Result<()> {
        let Due { config, model, weights, after } = due;
        let node = self.the_loop.node.clone();
        let distributed = ModelDistributed { model: model.clone(), config, weights, node };
        self.catalogue.record(vec![Record::after(distributed, after)], cx.now()).await?;
        info!(%model, "model handed out");
        self.handed_out += 1;
        Ok(())
    }

    /// Tells of champions that some node was not handed; the one that leads does so for all.
    async fn watch_others(&mut self, status: &mut Status, cx: &Cx) -> anyhow::Result<()> {
        let leads = self.the_loop.shared && self.leases.leads();
        let lacking = if leads { self.lacking(cx).await? } else { BTreeMap::new() };
        self.lacked.note(lacking.values().map(|(champion, _)| champion.clone()));
        for config in self.the_loop.configs.clone() {
            let sentence = lacking.get(&config).and_then(|(champion, nodes)| {
                let long = self.lacked.how_long(champion)?;
                (long >= self.config.patience).then(|| incomplete(champion, nodes, long))
            });
            if let Some(sentence) = &sentence {
                status.incomplete.insert(config.to_string(), sentence.clone());
            }
            // Cleared as well when another one leads: he says it now.
            self.alarms.set(&self.catalogue, &alarm_on(config), sentence, cx.now()).await?;
        }
        Ok(())
    }

    /// Champions that living nodes which play were not handed, and which nodes.
    async fn lacking(
        &self,
        cx: &Cx,
    ) -> anyhow::Result<BTreeMap<GameConfig, (ModelId, Vec<NodeId>)>> {
        let players = self.players().await?;
        let mut handed = BTreeMap::new();
        for config in &self.the_loop.configs {
            handed.insert(*config, self.catalogue.playing_nodes(*config).await?);
        }
        let mut lacking = BTreeMap::new();
        for (config, handed_it) in &handed {
            cx.beat()?;
            let Some(champion) = self.catalogue.champion(*config).await? else { continue };
            let champion = champion.model.id;
            let mut nodes = Vec::new();
            for node in &players {
                // A node that was handed models of other configs alone does not play this one.
                let is_new = !handed.values().flatten().any(|other| other == node);
                if !is_new && !handed_it.contains(node) {
                    continue;
                }
                let has = self.catalogue.distribution(*config, node).await?;
                if has.is_none_or(|has| has.model.id != champion) {
                    nodes.push(node.clone());
                }
            }
            if !nodes.is_empty() {
                lacking.insert(*config, (champion, nodes));
            }
        }
        Ok(lacking)
    }

    /// The members that play and live, this one among them.
    async fn players(&self) -> anyhow::Result<Vec<NodeId>> {
        let mut rows = self.catalogue.nodes().await?;
        let (here, nodes) = (&self.the_loop.node, &self.the_loop.nodes);
        rows.retain(|row| {
            row.playing > 0
                && !row.removed
                && !row.draining
                && (row.node == *here || nodes.lives(&row.node))
        });
        Ok(rows.into_iter().map(|row| row.node).collect())
    }
}

fn incomplete(champion: &ModelId, nodes: &[NodeId], long: Duration) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| node.0.as_str()).collect();
    let minutes = long.as_secs() / 60;
    format!("{champion} was not handed out on {} for {minutes} min", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use courier::Lease;
    use depot::Hash;
    use ringrift_pipeline::{ModelCreated, ModelRef};
    use tokio::{sync::Notify, time::timeout};

    use super::*;
    use crate::{
        Elsewhere, OutOfReach,
        alarms::alarm_of,
        lease_of,
        testbed::{Bed, candidate, done, hex, square, stops_in_mid_cycle},
    };

    fn lease(name: &str) -> Lease {
        Lease {
            name: name.to_owned(),
            holder: "here".into(),
            epoch: 1,
            expires_ms: 0,
            note: String::new(),
        }
    }

    fn daemon(bed: &Bed) -> ModelDistribution {
        let leases = Leases::of_node(&lease(&lease_of(&bed.the_loop.node)));
        let catalogue = bed.catalogue_of::<ModelDistribution>();
        let ports = (catalogue, bed.blobs.clone(), bed.the_loop.clone(), leases);
        ModelDistribution::new(Config::default(), ports)
    }

    /// Another node, which has these weights and gives them when it is let.
    struct Slow(&'static str, Arc<Notify>, Blobs);

    impl Elsewhere for Slow {
        fn bring(
            &self,
            hash: Hash,
        ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
            Box::pin(async move {
                if hash != Hash::of(self.0.as_bytes()) {
                    return Err(OutOfReach { hash, why: "nobody has it".into() });
                }
                self.1.notified().await;
                self.2.depot().put_bytes(self.0.as_bytes(), "bin").unwrap();
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn a_champion_that_comes_slowly_holds_up_neither_the_cycle_nor_other_configs() {
        let bed = Bed::with(vec![hex(), square()]).await;
        let (let_it, slow) = (Arc::new(Notify::new()), "weights that come slowly");
        bed.blobs.connect(Slow(slow, let_it.clone(), bed.blobs.clone()));
        install(&bed, BlobHash(Hash::of(slow.as_bytes()).to_string())).await;
        let other = candidate(&bed, square(), 0).await;
        bed.record(vec![ChampionInstalled { model: other, config: square() }.into()]).await;
        let mut daemon = daemon(&bed);
        daemon.grace = Duration::from_millis(200);
        let (cx, probe) = bed.cx::<ModelDistribution>();
        let beats = probe.beats();
        let ended = timeout(Duration::from_secs(10), daemon.cycle(&cx)).await;
        let status = done(ended.expect("the cycle ends"));
        assert_eq!((status.handed_out, status.models.len()), (1, 1), "the other one is");
        assert_eq!(status.coming, ["hex8_2p-m0000"]);
        assert!(probe.beats() > beats + 2);
        let_it.notify_one();
        daemon.grace = Duration::from_secs(10);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.handed_out, status.coming.len()), (2, 0));
    }

    /// Time by the clock of this process, which nobody sets.
    async fn pass_own_time(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn the_one_that_leads_raises_an_alarm_on_a_champion_that_a_node_lacks_for_long() {
        let bed = Bed::new().await.in_a_cluster();
        let model = bed.champion(hex()).await;
        let there = bed.node("there").await;
        bed.node("dead").await;
        bed.live(&["there"]).await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<ModelDistribution>();
        let alarm = async || alarm_of(&bed.catalogue, &alarm_on(hex())).await.unwrap();
        done(daemon.cycle(&cx).await);
        pass_own_time(Duration::from_hours(1)).await;
        bed.live(&["there"]).await;
        assert!(done(daemon.cycle(&cx).await).incomplete.is_empty(), "it does not lead");

        daemon.leases.lead(Some(&lease("leader")));
        assert!(done(daemon.cycle(&cx).await).incomplete.is_empty(), "counted from now on");
        bed.pass_time(Duration::from_hours(1));
        assert!(done(daemon.cycle(&cx).await).incomplete.is_empty(), "by no wall clock");
        daemon.config.patience = Duration::ZERO;
        let status = done(daemon.cycle(&cx).await);
        let why = "hex8_2p-m0000 was not handed out on there for 0 min";
        assert_eq!(status.incomplete["hex8_2p"], why);
        assert_eq!(daemon.health(&status), Health::Degraded(why.into()));
        assert_eq!(alarm().await.unwrap().0, why);

        daemon.leases.lead(None);
        done(daemon.cycle(&cx).await);
        assert_eq!(alarm().await, None, "another one leads");
        daemon.leases.lead(Some(&lease("leader")));
        done(daemon.cycle(&cx).await);
        assert!(alarm().await.is_some());
        let ModelRef { id, weights } =
            bed.catalogue.champion(hex()).await.unwrap().unwrap().model.reference();
        assert_eq!(id, model);
        let handed = ModelDistributed { model, config: hex(), weights, node: there };
        bed.record(vec![handed.into()]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((alarm().await, daemon.health(&status)), (None, Health::Healthy));
    }

    #[tokio::test]
    async fn the_default_patience_is_that_of_the_contract() {
        let bed = Bed::new().await.in_a_cluster();
        bed.champion(hex()).await;
        // As long as this node itself lacks it, nobody else is needed.
        let newest = candidate(&bed, hex(), 1).await;
        bed.record(vec![ChampionInstalled { model: newest, config: hex() }.into()]).await;
        bed.node("here").await;
        let weights = Hash::of(b"weights of hex8_2p-m0001");
        let warrant = depot::Warrant::Retention("test".into());
        bed.blobs.depot().trash(&weights, &warrant, 1).unwrap();
        let mut daemon = daemon(&bed);
        daemon.leases.lead(Some(&lease("leader")));
        let (cx, _probe) = bed.cx::<ModelDistribution>();
        assert!(done(daemon.cycle(&cx).await).incomplete.is_empty());
        pass_own_time(Duration::from_secs(299)).await;
        assert!(done(daemon.cycle(&cx).await).incomplete.is_empty());
        pass_own_time(Duration::from_secs(1)).await;
        let status = done(daemon.cycle(&cx).await);
        let why = "hex8_2p-m0001 was not handed out on here for 5 min";
        assert_eq!(status.incomplete["hex8_2p"], why);
    }

    async fn install(bed: &Bed, weights: BlobHash) {
        let model = ModelId::new(hex(), 0);
        bed.record(vec![
            ModelCreated {
                model: model.clone(),
                config: hex(),
                generation: 0,
                parent: None,
                weights,
                bytes: 1,
            }
            .into(),
            ChampionInstalled { model, config: hex() }.into(),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<ModelDistribution>();
        assert_eq!(done(daemon.cycle(&cx).await).handed_out, 0, "there is no champion");
        install(&bed, bed.put("weights")).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.handed_out, 1);
        assert_eq!(status.models["hex8_2p"], "hex8_2p-m0000");
        assert_eq!(done(daemon.cycle(&cx).await).handed_out, 1);
    }

    #[tokio::test]
    async fn a_damaged_champion_is_degraded_and_not_handed_out() {
        let bed = Bed::new().await;
        let weights = bed.put("weights");
        install(&bed, weights.clone()).await;
        let path = bed.blobs.path_of(&weights).await.unwrap().unwrap();
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, "wEights").unwrap();
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<ModelDistribution>();
        let status = done(daemon.cycle(&cx).await);
        let Health::Degraded(sentence) = daemon.health(&status) else { panic!("healthy") };
        assert!(sentence.contains("is damaged"), "{sentence}");
        let handed = bed.catalogue.distribution(hex(), &bed.the_loop.node).await.unwrap();
        assert!(handed.is_none());
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        install(&bed, bed.put("weights")).await;
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }
}

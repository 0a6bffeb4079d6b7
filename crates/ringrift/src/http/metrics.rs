//! `/metrics`: Prometheus text, format 0.0.4.
//!
//! Written by hand: every figure here is read from a snapshot or from the catalogue, so a registry of
//! counters beside them would only be a second copy that can be wrong.
//! Names without the prefix `ringrift_` are those of the manager contract, section 16.

use std::fmt::Write as _;

use ringrift_daemons::{HttpPort as _, NodeState, NodeView, survey};
use ringrift_pipeline::{CatalogueError, Totals, WorkKind};
use serde_json::Value;
use warden::{DaemonView, Snapshot, State};

use super::{Sources, probes, routes::App};

/// An hour back, in which `..._last_hour` and `..._per_hour` count.
const HOUR_MS: i64 = 3_600_000;

/// All states, for a series per state whether or not a daemon is in it.
const STATES: [State; 8] = [
    State::Stopped,
    State::Starting,
    State::Running,
    State::Stopping,
    State::Failed,
    State::Restarting,
    State::ImportFailed,
    State::Degraded,
];

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Untyped,
}

/// A text under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// One metric with its series; nothing at all when there is no series.
    fn metric<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        series: impl IntoIterator<Item = (Vec<(&'a str, String)>, f64)>,
    ) {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Untyped => "untyped",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in series {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
                .collect();
            let labels = match labels.len() {
                0 => String::new(),
                _ => format!("{{{}}}", labels.join(",")),
            };
            self.line(format_args!("{name}{labels} {}\n", number(value)));
        }
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.metric(name, kind, help, [(Vec::new(), value)]);
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn float(count: u64) -> f64 {
    count as f64
}

fn size(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

/// The whole text. What the catalogue could not tell in time is left out: a full disk must not blind
/// the operator to the rest.
pub(super) fn render(app: &App, snapshot: &Snapshot, counted: Option<&str>) -> String {
    let mut text = Exposition::default();
    daemons(&mut text, snapshot);
    told_by_daemons(&mut text, snapshot);
    process(&mut text, app, snapshot);
    let up = f64::from(u8::from(counted.is_some()));
    text.one("ringrift_catalogue_up", Kind::Gauge, "1 if the catalogue answers in time.", up);
    text.0 += counted.unwrap_or_default();
    text.0
}

/// What the catalogue tells.
pub(super) async fn counted(sources: &dyn Sources) -> Result<String, CatalogueError> {
    let mut text = Exposition::default();
    pipeline(&mut text, sources).await?;
    cluster(&mut text, sources).await?;
    Ok(text.0)
}

fn daemons(text: &mut Exposition, snapshot: &Snapshot) {
    use Kind::{Counter, Gauge};
    let views = &snapshot.daemons;
    let name = |view: &DaemonView| vec![("daemon", view.id.0.to_owned())];
    let count = |state: State| size(views.iter().filter(|view| view.state == state).count());
    let word = |state: State| state.name().to_lowercase();
    text.metric(
        "daemon_count",
        Gauge,
        "Daemons by state.",
        STATES.map(|state| (vec![("state", word(state))], count(state))),
    );
    text.one(
        "daemon_health_score",
        Gauge,
        "Share of running daemons among those that should run, 0 to 1.",
        probes::score(snapshot),
    );
    text.one(
        "daemon_uptime_seconds",
        Gauge,
        "Age of the daemon manager.",
        snapshot.uptime.as_secs_f64(),
    );
    text.metric(
        "ringrift_daemon_state",
        Gauge,
        "1 for the state that a daemon is in.",
        views.iter().map(|view| {
            let labels = vec![("daemon", view.id.0.to_owned()), ("state", word(view.state))];
            (labels, 1.0)
        }),
    );
    text.metric(
        "ringrift_daemon_health",
        Gauge,
        "1 for the word of health that a daemon has.",
        views.iter().map(|view| {
            let health = view.health.word().to_owned();
            (vec![("daemon", view.id.0.to_owned()), ("health", health)], 1.0)
        }),
    );
    text.metric(
        "ringrift_daemon_crash_loop",
        Gauge,
        "1 if the daemon crashed three times or more within five minutes.",
        views.iter().map(|view| (name(view), f64::from(u8::from(view.crashes.looping)))),
    );
    text.one(
        "ringrift_cascade_breaker_open",
        Gauge,
        "1 while no daemon is restarted because too many were.",
        f64::from(u8::from(snapshot.breaker.breaker_open)),
    );
    text.metric(
        "ringrift_daemon_asked",
        Gauge,
        "1 if somebody wants the daemon to run.",
        views.iter().map(|view| (name(view), f64::from(u8::from(view.asked)))),
    );
    text.metric(
        "ringrift_daemon_restarts",
        Gauge,
        "Crashes in a row that were followed by a restart.",
        views.iter().map(|view| (name(view), f64::from(view.restarts))),
    );
    text.metric(
        "ringrift_daemon_cycles_total",
        Counter,
        "Cycles ended since the daemon's task began.",
        views.iter().map(|view| (name(view), float(view.cycles))),
    );
    text.metric(
        "ringrift_daemon_last_cycle_seconds",
        Gauge,
        "Length of the last cycle.",
        views.iter().filter_map(|view| Some((name(view), view.last_cycle?.as_secs_f64()))),
    );
    text.metric(
        "ringrift_daemon_last_beat_age_seconds",
        Gauge,
        "Time since the last sign of life.",
        views.iter().filter_map(|view| Some((name(view), view.last_beat_age?.as_secs_f64()))),
    );
}

/// Figures that a daemon tells in its status, under the names that operators know. A daemon that does
/// not run tells nothing, and the metric is absent.
fn told_by_daemons(text: &mut Exposition, snapshot: &Snapshot) {
    let status = |name: &str| {
        snapshot.daemons.iter().find(|view| view.id.0 == name).map(|view| &view.details)
    };
    let figure = |name: &str, key: &str| status(name)?.get(key)?.as_f64();
    for (metric, kind, help, daemon, key) in TOLD {
        if let Some(value) = figure(daemon, key) {
            text.one(metric, *kind, help, value);
        }
    }
    let by_type = status(ROUTER).and_then(|status| status.get("by_topic")?.as_object());
    text.metric(
        "event_router_events_routed_by_type_total",
        Kind::Counter,
        "Facts routed, by topic.",
        by_type.into_iter().flatten().filter_map(|(topic, count): (&String, &Value)| {
            Some((vec![("event", topic.clone())], count.as_f64()?))
        }),
    );
}

const ROUTER: &str = "EVENT_ROUTER";
const SYNC: &str = "AUTO_SYNC";

/// Metric, kind, help, daemon, key of its status.
const TOLD: &[(&str, Kind, &str, &str, &str)] = &[
    (
        "event_router_events_routed_total",
        Kind::Counter,
        "Facts routed to daemons.",
        ROUTER,
        "routed",
    ),
    (
        "event_router_duplicates_prevented_total",
        Kind::Counter,
        "Facts recorded again under their id, which the log took and routed once.",
        ROUTER,
        "duplicates_prevented",
    ),
    (
        "event_router_content_duplicates_prevented_total",
        Kind::Counter,
        "Those of the prevented duplicates whose content was the same too.",
        ROUTER,
        "content_duplicates_prevented",
    ),
    (
        "cluster_sync_count_total",
        Kind::Counter,
        "Artefacts verified, or copied to or from the mirror.",
        SYNC,
        "verified",
    ),
    (
        "cluster_sync_bytes_last_cycle",
        Kind::Gauge,
        "Bytes of the artefacts that the last cycle verified.",
        SYNC,
        "bytes_last_cycle",
    ),
    (
        "cluster_sync_throughput_bytes_per_sec",
        Kind::Gauge,
        "The same in bytes per second of that cycle.",
        SYNC,
        "bytes_per_second",
    ),
    // By its name it is no counter to Prometheus, by its nature it is one: so it has no type.
    (
        "cluster_sync_total_bytes",
        Kind::Untyped,
        "Bytes of all artefacts verified since the daemon started.",
        SYNC,
        "verified_bytes",
    ),
];

fn process(text: &mut Exposition, app: &App, snapshot: &Snapshot) {
    use Kind::{Counter, Gauge};
    let (sources, http, feed) = (&app.sources, &app.http, &app.feed);
    let live = sources.live();
    let running = live.iter().filter(|work| work.pid.is_some()).count();
    text.one(
        "ringrift_worker_slots",
        Gauge,
        "Workers that may run at a time.",
        size(sources.slots()),
    );
    text.one("ringrift_workers", Gauge, "Worker processes that run.", size(running));
    text.one(
        "ringrift_workers_waiting",
        Gauge,
        "Runs that wait for a slot.",
        size(live.len() - running),
    );
    text.one(
        "ringrift_obstacles",
        Gauge,
        "Causes that hold production back, such as a full disk.",
        size(sources.pressure().obstacles().len()),
    );
    text.one(
        "ringrift_loop_lag_seconds",
        Gauge,
        "How late the timer of the supervisor's thread was last.",
        feed.lag().as_secs_f64(),
    );
    text.one(
        "ringrift_supervisor_turn_age_seconds",
        Gauge,
        "Time since the supervisor's loop last turned, when this text was made.",
        probes::turn_age(snapshot, sources.now_ms()).as_secs_f64(),
    );
    text.one("ringrift_http_requests_total", Counter, "Requests answered.", float(http.requests()));
    text.one("ringrift_pages", Gauge, "Pages that follow the stream.", size(feed.pages()));
}

/// A metric that each config has a series of.
type PerConfig = (&'static str, Kind, &'static str, fn(&Totals) -> u64);

const PER_CONFIG: &[PerConfig] = &[
    ("ringrift_games_accepted_total", Kind::Counter, "Games that count.", |t| t.games_accepted),
    ("ringrift_games_unchecked", Kind::Gauge, "Games not replayed yet.", |t| t.games_unchecked),
    ("ringrift_games_rejected_total", Kind::Counter, "Games refused.", |t| t.games_rejected),
    ("ringrift_positions_total", Kind::Counter, "Searched decisions of games that count.", |t| {
        t.positions
    }),
    ("ringrift_samples_total", Kind::Counter, "Samples exported.", |t| t.sample_rows),
    ("ringrift_windows_total", Kind::Counter, "Training windows combined.", |t| t.windows),
    ("ringrift_trainings_total", Kind::Counter, "Trainings that ended well.", |t| t.trainings),
    ("ringrift_models_total", Kind::Counter, "Models made.", |t| t.models),
    ("ringrift_models_waiting", Kind::Gauge, "Models without a verdict.", |t| t.candidates),
    ("ringrift_models_rejected_total", Kind::Counter, "Models not taken.", |t| t.models_rejected),
    ("ringrift_matches_total", Kind::Counter, "Matches played.", |t| t.matches),
    ("ringrift_promotions_total", Kind::Counter, "Promotions.", |t| t.promotions),
];

async fn pipeline(text: &mut Exposition, sources: &dyn Sources) -> Result<(), CatalogueError> {
    use Kind::{Counter, Gauge};
    let catalogue = sources.catalogue();
    let since = sources.now_ms() - HOUR_MS;
    let (mut all, mut queues) = (Vec::new(), Vec::new());
    let mut recent = 0;
    for config in &sources.the_loop().configs {
        all.push((*config, catalogue.totals(*config, since).await?));
        recent += catalogue.game_totals(*config, since).await?.recent;
        for kind in WorkKind::ALL {
            queues.push((*config, kind, catalogue.work_counts(kind, Some(*config)).await?));
        }
    }
    let sum =
        |figure: fn(&Totals) -> u64| float(all.iter().map(|(_, totals)| figure(totals)).sum());
    text.one(
        "selfplay_games_allocated_total",
        Counter,
        "Games that queued self-play asked for.",
        sum(|totals| totals.games_allocated),
    );
    text.one(
        "selfplay_games_allocated_last_hour",
        Gauge,
        "Games asked for in the last hour.",
        sum(|totals| totals.games_allocated_recently),
    );
    text.one("selfplay_games_per_hour", Gauge, "Games played in the last hour.", float(recent));
    for (name, kind, help, figure) in PER_CONFIG {
        let series = all
            .iter()
            .map(|(config, totals)| (vec![("config", config.to_string())], float(figure(totals))));
        text.metric(name, *kind, help, series);
    }
    text.metric(
        "ringrift_work_queued",
        Gauge,
        "Work items that wait to be claimed.",
        queues.iter().map(|(config, kind, counts)| (of(*config, *kind), float(counts.queued))),
    );
    text.metric(
        "ringrift_work_claimed",
        Gauge,
        "Work items in work.",
        queues.iter().map(|(config, kind, counts)| (of(*config, *kind), float(counts.claimed))),
    );
    text.metric(
        "ringrift_work_dead",
        Gauge,
        "Work items whose every attempt failed.",
        queues.iter().map(|(config, kind, counts)| (of(*config, *kind), float(counts.dead))),
    );
    let letters = catalogue.log().letter_counts().await?;
    text.one(
        "ringrift_log_position",
        Gauge,
        "Position of the fold.",
        float(catalogue.position().await?),
    );
    text.one(
        "ringrift_dead_letters",
        Gauge,
        "Dead letters that wait.",
        float(letters.pending + letters.retrying),
    );
    Ok(())
}

/// A metric that each node has a series of.
type PerNode = (&'static str, &'static str, fn(&NodeView) -> u64);

const PER_NODE: &[PerNode] = &[
    ("ringrift_node_silent_seconds", "Time since the node was heard of; 0 while it is.", |node| {
        node.silent_seconds.unwrap_or(0)
    }),
    ("ringrift_node_draining", "1 if the node takes no new work.", |node| node.draining.into()),
    ("ringrift_node_work_items", "Work items that the node has in hand.", |node| node.items),
    ("ringrift_node_artefact_bytes", "Bytes of the artefacts that the node has.", |node| {
        node.artefact_bytes
    }),
    ("ringrift_node_artefacts_alone", "Artefacts that no other node has.", |node| {
        node.artefacts_alone
    }),
];

/// The nodes, as this one sees them; nothing on one machine.
async fn cluster(text: &mut Exposition, sources: &dyn Sources) -> Result<(), CatalogueError> {
    use Kind::Gauge;
    let cluster = survey(sources.catalogue(), sources.the_loop()).await?;
    if cluster.nodes.is_empty() {
        return Ok(());
    }
    let nodes = &cluster.nodes;
    let count = |state| size(nodes.iter().filter(|node| node.state == state).count());
    text.metric(
        "ringrift_nodes",
        Gauge,
        "Nodes of the cluster by state.",
        NodeState::ALL.map(|state| (vec![("state", state.word().to_owned())], count(state))),
    );
    text.one(
        "ringrift_leader_known",
        Gauge,
        "1 if a node leads, as far as is known here.",
        f64::from(u8::from(cluster.leader.is_some())),
    );
    text.one(
        "ringrift_leads",
        Gauge,
        "1 if this node leads.",
        f64::from(u8::from(nodes.iter().any(|node| node.here && node.leads))),
    );
    text.one(
        "ringrift_artefacts",
        Gauge,
        "Artefacts that the log names and nobody trashed.",
        float(cluster.artefacts),
    );
    text.one(
        "ringrift_artefacts_with_few_copies",
        Gauge,
        "Those of them of which fewer than two living nodes have a copy that stays.",
        float(cluster.few_copies),
    );
    for (name, help, figure) in PER_NODE {
        let series =
            nodes.iter().map(|node| (vec![("node", node.node.0.clone())], float(figure(node))));
        text.metric(name, Gauge, help, series);
    }
    Ok(())
}

fn of(config: ringrift_pipeline::Config, kind: WorkKind) -> Vec<(&'static str, String)> {
    vec![("config", config.to_string()), ("kind", kind.to_string())]
}

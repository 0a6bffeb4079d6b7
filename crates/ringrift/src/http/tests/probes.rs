//! Probes and metrics: what they say, how old it may be, and what a flood of them costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::{Command, Stdio},
    sync::atomic::Ordering,
};

use ringrift_daemons::Obstacle;
use tokio::time::Instant;
use warden::{DaemonId, DaemonView, Health, State};

use super::nodes::{plays, rests};
use super::{World, critical, daemon, get, lived_in, opened};

#[tokio::test]
async fn health_is_about_critical_daemons_and_ready_about_all() {
    let world = World::empty().await;
    let served = opened(&world);
    let check = async |daemons: Vec<DaemonView>, health: u16, ready: u16| {
        world.show(daemons);
        let (alive, fit) = (get(&served, "/health").await, get(&served, "/ready").await);
        assert_eq!((alive.status, fit.status), (health, ready), "{} {}", alive.body, fit.body);
        assert_eq!(alive.json()["alive"], health == 200);
        assert_eq!(fit.json()["ready"], ready == 200);
        (alive.json(), fit.json())
    };
    let fit = get(&served, "/ready").await;
    assert_eq!((fit.status, &fit.json()["reason"]), (503, &"DaemonManager not started".into()));
    assert_eq!(get(&served, "/health").await.status, 200);

    let (_, fit) = check(vec![], 200, 503).await;
    assert_eq!(fit["reason"], "No daemons running");
    check(vec![critical("EVENT_ROUTER"), daemon("AUTO_EXPORT")], 200, 200).await;

    let failed = |view: DaemonView| DaemonView {
        state: State::Failed,
        last_error: Some("disk on fire".into()),
        ..view
    };
    let (_, fit) = check(vec![critical("EVENT_ROUTER"), failed(daemon("X"))], 200, 503).await;
    assert_eq!(fit["reason"], "not running: X");
    assert_eq!(fit["failed"], serde_json::json!(["X"]));
    let (alive, _) = check(vec![failed(critical("EVENT_ROUTER"))], 503, 503).await;
    assert_eq!(alive["failed"][0]["name"], "EVENT_ROUTER");
    assert_eq!(alive["failed"][0]["reason"], "disk on fire");

    let starting = DaemonView { state: State::Starting, ..critical("EVENT_ROUTER") };
    check(vec![starting], 200, 503).await;
    let sick = DaemonView { health: Health::Unhealthy("bad".into()), ..critical("EVENT_ROUTER") };
    check(vec![sick], 503, 200).await;
    let unasked = DaemonView { asked: false, ..failed(critical("MEMORY_MONITOR")) };
    check(vec![unasked, daemon("X")], 200, 200).await;
}

/// Reads an exposition as Prometheus does: help and type before the series, once per name; names,
/// labels and values of the right form; no series twice.
pub(super) fn parsed(text: &str) -> BTreeMap<String, String> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let (mut series, mut typed, mut helped) = (BTreeMap::new(), String::new(), String::new());
    let mut metrics = BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && metrics.insert(name.to_owned()), "{line}");
            name.clone_into(&mut helped);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(name == helped && matches!(kind, "counter" | "gauge" | "untyped"), "{line}");
            name.clone_into(&mut typed);
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
            assert_eq!(name, typed, "{line}");
            let labels = labels.strip_suffix('}').unwrap();
            // No label here has a comma in its value.
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').unwrap();
                assert!(is_name(label), "{line}");
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap();
                assert!(!value.contains(['"', '\n']), "{line}");
            }
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let before = series.insert(key.to_owned(), value.to_owned());
            assert_eq!(before, None, "twice: {line}");
        }
    }
    series
}

#[tokio::test]
async fn every_line_of_the_metrics_is_well_formed_and_the_figures_are_right() {
    let world = lived_in().await;
    let full = Obstacle { reason: "full".into(), needs: "space".into() };
    world.pressure.set(DaemonId("DISK_SPACE_MANAGER"), Some(full));
    let served = opened(&world);
    let answer = get(&served, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let series = parsed(&answer.body);
    let value = |key: &str| -> &str {
        series.get(key).unwrap_or_else(|| panic!("{key} is missing in\n{}", answer.body))
    };
    assert_eq!(value("daemon_count{state=\"running\"}"), "2");
    assert_eq!(value("daemon_count{state=\"stopped\"}"), "1");
    assert_eq!(value("daemon_health_score"), "1");
    assert_eq!(value("ringrift_promotions_total{config=\"hex8_2p\"}"), "2");
    assert_eq!(value("ringrift_models_total{config=\"square8_2p\"}"), "4");
    assert_eq!(value("ringrift_obstacles"), "1");
    assert_eq!(value("ringrift_workers"), "1");
    let count = |key: &str| value(key).parse::<u64>().unwrap();
    let accepted = count("ringrift_games_accepted_total{config=\"hex8_2p\"}")
        + count("ringrift_games_accepted_total{config=\"square8_2p\"}");
    assert_eq!(count("selfplay_games_allocated_total"), accepted);
    assert_eq!(value("ringrift_catalogue_up"), "1");
    assert_eq!(value("event_router_events_routed_total"), "7");
    let by_type = "event_router_events_routed_by_type_total{event=\"model.created\"}";
    assert_eq!(value(by_type), "3");
    assert_eq!(value("cluster_sync_count_total"), "5");
    assert_eq!(value("cluster_sync_total_bytes"), "9000");
    assert_eq!(value("cluster_sync_bytes_last_cycle"), "400");
    assert_eq!(value("cluster_sync_throughput_bytes_per_sec"), "2500000");
    assert_eq!(value("ringrift_supervisor_turn_age_seconds"), "0");
    value("daemon_uptime_seconds");
    value("selfplay_games_allocated_last_hour");
    value("selfplay_games_per_hour");
    value("ringrift_daemon_last_beat_age_seconds{daemon=\"EVENT_ROUTER\"}");
    value("ringrift_loop_lag_seconds");
    value("ringrift_daemon_last_cycle_seconds{daemon=\"EVENT_ROUTER\"}");
    value("ringrift_work_queued{config=\"hex8_2p\",kind=\"train\"}");
}

#[tokio::test]
async fn the_nodes_of_a_cluster_are_counted_and_one_machine_has_none() {
    let alone = opened(&World::empty().await);
    let text = get(&alone, "/metrics").await.body;
    assert!(!text.contains("ringrift_node"), "{text}");
    let world = World::of_a_cluster(&[("a".into(), rests()), ("b".into(), plays(1))]).await;
    let series = parsed(&get(&opened(&world), "/metrics").await.body);
    for (key, value) in [
        ("ringrift_nodes{state=\"alive\"}", "2"),
        ("ringrift_nodes{state=\"silent\"}", "0"),
        ("ringrift_leader_known", "1"),
        ("ringrift_leads", "1"),
        ("ringrift_artefacts_with_few_copies", "0"),
        ("ringrift_node_silent_seconds{node=\"b\"}", "0"),
        ("ringrift_node_draining{node=\"b\"}", "0"),
    ] {
        assert_eq!(series.get(key).map(String::as_str), Some(value), "{key}");
    }
}

/// The complaints that we live with: the names are the operators'.
/// Source: manager contract, section 16.
const GIVEN_NAMES: &[&str] = &[
    "cluster_sync_throughput_bytes_per_sec metric names should not contain abbreviated units",
    "daemon_count non-histogram and non-summary metrics should not have \"_count\" suffix",
];

#[tokio::test]
async fn promtool_finds_nothing() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("promtool is absent, so nothing was checked; it is in the package prometheus");
        return;
    }
    let world = lived_in().await;
    let served = opened(&world);
    let text = get(&served, "/metrics").await.body;
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut check = check.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), GIVEN_NAMES);
}

#[tokio::test]
async fn a_supervisor_that_does_not_turn_is_not_alive_whatever_it_said_last() {
    let world = World::empty().await;
    let served = opened(&world);
    world.show(vec![critical("EVENT_ROUTER")]);
    let check = async |later_ms: i64, status: u16| {
        world.at(super::super::fixture::START_MS + later_ms);
        let (alive, fit) = (get(&served, "/health").await, get(&served, "/ready").await);
        assert_eq!((alive.status, fit.status), (status, status), "{}", alive.body);
        alive.json()
    };
    check(0, 200).await;
    check(9_000, 200).await;
    let alive = check(11_000, 503).await;
    assert_eq!(alive["failed"][0]["reason"], "the supervisor has not turned for 11 s");
    assert_eq!(check(70_000, 503).await["failed"][0]["name"], "supervisor");
    world.show(vec![critical("EVENT_ROUTER")]);
    check(70_000, 200).await;
}

#[tokio::test]
async fn a_kept_answer_lives_as_long_as_its_snapshot() {
    let world = World::empty().await;
    let served = opened(&world);
    world.show(vec![critical("EVENT_ROUTER")]);
    let first = get(&served, "/health").await;
    world.at(super::super::fixture::START_MS + 2_000);
    assert_eq!(get(&served, "/health").await.body, first.body, "the supervisor has not turned");
    world.show(vec![DaemonView { state: State::Failed, ..critical("EVENT_ROUTER") }]);
    assert_eq!(get(&served, "/health").await.status, 503);
    let metrics = parsed(&get(&served, "/metrics").await.body);
    assert_eq!(metrics["daemon_count{state=\"failed\"}"], "1");
    world.show(vec![critical("EVENT_ROUTER")]);
    let metrics = parsed(&get(&served, "/metrics").await.body);
    assert_eq!(metrics["daemon_count{state=\"failed\"}"], "0");
}

#[tokio::test]
async fn a_flood_of_scrapes_reaches_the_catalogue_once_a_second() {
    let world = lived_in().await;
    let served = opened(&world);
    let (began, before) = (Instant::now(), world.looks.load(Ordering::Relaxed));
    for _ in 0..300 {
        assert_eq!(get(&served, "/metrics").await.status, 200);
    }
    let looks = world.looks.load(Ordering::Relaxed) - before;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=seconds + 2).contains(&looks), "{looks} looks in {seconds} s");
}

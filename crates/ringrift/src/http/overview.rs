//! What the page shows of the manager, of each config's loop, and of the work in hand.

use ringrift_daemons::LiveWork;
use ringrift_pipeline::{
    BatchState, Catalogue, CatalogueError, Config, ModelId, NodeId, Stage, StageView, WorkKind,
    stage_of,
};
use serde::Serialize;
use serde_json::{Value, json};
use warden::State;

use super::Sources;
use crate::view::BoardView;

/// An hour back: the span of rates and of "recently".
const HOUR_MS: i64 = 3_600_000;

/// Batches looked at to tell whether some wait; more are not told apart from this many.
const MOST_WAITING: u32 = 1000;

/// The manager as a whole.
pub(super) fn manager(sources: &dyn Sources) -> Value {
    let the_loop = sources.the_loop();
    let snapshot = sources.snapshot();
    let obstacles: Vec<Value> = sources
        .pressure()
        .obstacles()
        .into_iter()
        .map(|(cause, obstacle)| {
            json!({ "cause": cause, "reason": obstacle.reason, "needs": obstacle.needs })
        })
        .collect();
    let asked = |state: Option<State>| {
        snapshot.as_ref().map_or(0, |snapshot| {
            let found = |view: &&warden::DaemonView| {
                view.asked && state.is_none_or(|state| view.state == state)
            };
            snapshot.daemons.iter().filter(found).count()
        })
    };
    json!({
        "node": the_loop.node,
        "seed": the_loop.seed,
        "configs": the_loop.configs,
        "data": the_loop.data,
        "started_ms": sources.started_ms(),
        "stopping": snapshot.as_ref().is_some_and(|snapshot| snapshot.stopping),
        "slots": sources.slots(),
        "running": asked(Some(State::Running)),
        "asked": asked(None),
        "obstacles": obstacles,
    })
}

/// Where a config's loop stands, derived from the catalogue.
pub(super) async fn stage_view(
    catalogue: &Catalogue,
    config: Config,
    node: &NodeId,
) -> Result<StageView, CatalogueError> {
    let champion = catalogue.champion(config).await?;
    let distributed = catalogue.distribution(config, node).await?;
    let candidates = catalogue.candidates(config).await?;
    let train = catalogue.work_counts(WorkKind::Train, Some(config)).await?;
    let window = catalogue.windows(config, 1).await?.into_iter().next();
    let newest = window.as_ref().map_or(0, |window| window.newest_samples);
    let samples = catalogue.samples(config, MOST_WAITING).await?;
    let unchecked = catalogue.batches(config, BatchState::Committed, MOST_WAITING).await?;
    let unexported = catalogue.unexported(config, MOST_WAITING).await?;
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Ok(StageView {
        has_champion: champion.is_some(),
        distributed: champion.is_some_and(|champion| {
            distributed.is_some_and(|played| played.model.id == champion.model.id)
        }),
        training: train.queued + train.claimed > 0,
        unevaluated: candidates.iter().any(|model| model.evaluation.is_none()),
        unjudged: candidates.iter().any(|model| model.evaluation.is_some()),
        unchecked_batches: count(unchecked.len()),
        unexported_batches: count(unexported.len()),
        uncombined_samples: count(samples.iter().filter(|file| file.position > newest).count()),
        window_ready: window.is_some_and(|window| !window.trained),
    })
}

/// The champion, for people.
#[derive(Serialize)]
struct ChampionView {
    id: ModelId,
    generation: u32,
    since_ms: i64,
}

/// The loop of one config.
pub(super) async fn of_config(
    sources: &dyn Sources,
    config: Config,
) -> Result<Value, CatalogueError> {
    let catalogue = sources.catalogue();
    let since = sources.now_ms() - HOUR_MS;
    let waiting = stage_view(catalogue, config, &sources.the_loop().node).await?;
    let stage: Stage = stage_of(&waiting);
    let champion = catalogue.champion(config).await?.map(|champion| ChampionView {
        id: champion.model.id,
        generation: champion.model.generation,
        since_ms: champion.since_ms,
    });
    let share = catalogue.allocation().await?.into_iter().find(|row| row.config == config);
    let weight = catalogue.curriculum().await?.into_iter().find(|(of, ..)| *of == config);
    let parameters = catalogue.parameters(config).await?;
    let window = catalogue.windows(config, 1).await?.into_iter().next();
    let training = catalogue.trainings(config, 1).await?.into_iter().next();
    let mut works = serde_json::Map::new();
    for kind in WorkKind::ALL {
        let counts = catalogue.work_counts(kind, Some(config)).await?;
        works.insert(kind.to_string(), json!(counts));
    }
    Ok(json!({
        "config": config,
        "stage": stage,
        "waiting": waiting,
        "champion": champion,
        "share": share.map(|row| row.share),
        "weight": weight.map(|(_, weight, _)| weight),
        "parameters": parameters.as_ref().map(|row| &row.parameters),
        "parameters_reason": parameters.as_ref().map(|row| &row.reason),
        "window": window.map(|window| json!({
            "rows": window.rows, "games": window.games, "trained": window.trained,
            "created_ms": window.created_ms,
        })),
        "training": training.map(|row| json!({
            "model": row.model, "report": row.report, "created_ms": row.created_ms,
        })),
        "works": works,
        "totals": catalogue.totals(config, since).await?,
        "minutes": catalogue.minutes(config, since).await?,
    }))
}

/// A piece of work, without its drawing.
fn work(live: &LiveWork) -> Value {
    json!({
        "work": live.work, "kind": live.kind, "config": live.config, "attempt": live.attempt,
        "pid": live.pid, "since_ms": live.since_ms, "done": live.done, "total": live.total,
        "note": live.note,
    })
}

/// What runs or waits for a slot, and one running self-play game.
pub(super) fn live(sources: &dyn Sources) -> Value {
    let live = sources.live();
    // The oldest one: the page stays with a game until its worker ends, instead of jumping.
    let game = live
        .iter()
        .filter(|work| work.kind == "selfplay" && work.pid.is_some())
        .filter_map(|work| Some((work, BoardView::read(work.view.as_ref()?)?)))
        .min_by_key(|(work, _)| work.since_ms)
        .map(|(work, board)| {
            let on_board = board.config.parse::<Config>().ok();
            let limits = on_board.map(|config| {
                let rings = config.board.rings_per_player();
                json!({
                    "rings": rings,
                    "ring_victory": config.ring_victory(rings),
                    "territory_victory": config.territory_victory(),
                })
            });
            json!({ "work": work.work, "done": work.done, "total": work.total, "board": board, "limits": limits })
        });
    let works: Vec<Value> = live.iter().map(work).collect();
    json!({ "slots": sources.slots(), "works": works, "game": game })
}

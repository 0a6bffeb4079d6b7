//! What the page shows of the manager, of each config's loop, and of the work in hand.

use ringrift_daemons::{LiveWork, stage_view};
use ringrift_pipeline::{CatalogueError, Config, ModelId, WorkKind, stage_of};
use serde::Serialize;
use serde_json::{Value, json};
use warden::State;

use super::Sources;
use crate::view::BoardView;

/// An hour back: the span of rates and of "recently".
const HOUR_MS: i64 = 3_600_000;

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
    let stage = stage_of(&waiting);
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

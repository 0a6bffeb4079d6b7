//! Which path is answered by what.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Bytes, HttpBody},
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{Method, Request, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use courier::Stream;
use ringrift_daemons::{CATEGORIES, find, survey, validate_registry};
use ringrift_pipeline::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use warden::Snapshot;

use super::{
    Http, Operator, Sources, api,
    feed::Feed,
    guard::{Refusal, admit_reader, guard, set_headers},
    made::{Counts, FRESH, OfSnapshot},
    metrics, openapi, operate, overview, page, probes, ratings,
};
use crate::commands::registry::rows;

/// What every handler can reach.
pub(super) struct App {
    pub(super) http: Arc<Http>,
    pub(super) sources: Arc<dyn Sources>,
    pub(super) operator: Arc<dyn Operator>,
    pub(super) token: String,
    pub(super) feed: Feed,
    pub(super) counts: Counts,
    /// Who reads the catalogue for an answer of its own: a flood of such requests waits in line,
    /// instead of taking every thread and the disk from the daemons.
    readers: Semaphore,
    health: OfSnapshot<Probe>,
    ready: OfSnapshot<Probe>,
    status: OfSnapshot<Probe>,
    metrics: OfSnapshot<Bytes>,
}

/// Answers that read the catalogue, at a time.
const READERS: usize = 4;

impl App {
    pub(super) fn new(
        http: Arc<Http>,
        sources: Arc<dyn Sources>,
        (operator, token): (Arc<dyn Operator>, String),
        (feed, counts): (Feed, Counts),
    ) -> Self {
        Self {
            http,
            sources,
            operator,
            token,
            feed,
            counts,
            readers: Semaphore::new(READERS),
            health: OfSnapshot::default(),
            ready: OfSnapshot::default(),
            status: OfSnapshot::default(),
            metrics: OfSnapshot::default(),
        }
    }

    async fn reader(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let closed = |_| Refusal::unavailable("the server is closing");
        self.readers.acquire().await.map_err(closed)
    }
}

type Shared = State<Arc<App>>;
type Answer = Result<Json<Value>, Refusal>;

/// Every path, with who answers it.
pub(super) fn paths() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/", get(page::index)),
        ("/page.css", get(page::style)),
        ("/page.js", get(page::script)),
        ("/draw.js", get(page::drawings)),
        ("/icon.svg", get(page::icon)),
        ("/health", get(health)),
        ("/ready", get(ready)),
        ("/status", get(status)),
        ("/metrics", get(scrape)),
        ("/api/status", get(status)),
        ("/api/loop", get(the_loop)),
        ("/api/models", get(models)),
        ("/api/games", get(games)),
        ("/api/matches", get(matches)),
        ("/api/ratings", get(rated)),
        ("/api/facts", get(facts)),
        ("/api/live", get(live)),
        ("/api/nodes", get(nodes)),
        ("/api/why/{config}", get(why)),
        ("/api/stream", get(stream)),
        ("/api/openapi.json", get(openapi)),
        ("/api/registry", get(registered)),
        ("/api/daemons", get(daemons)),
        ("/api/daemons/start", post(operate::start_selected)),
        ("/api/daemons/{name}", get(daemon)),
        ("/api/daemons/{name}/start", post(operate::start)),
        ("/api/daemons/{name}/stop", post(operate::stop)),
        ("/api/daemons/{name}/restart", post(operate::restart)),
        ("/api/daemons/{name}/retry", post(operate::retry)),
        ("/api/daemons/{name}/pause", post(operate::pause)),
        ("/api/daemons/{name}/resume", post(operate::resume)),
        ("/api/manager/stop", post(operate::stop_manager)),
    ]
}

/// All paths, behind the guard.
pub(super) fn router(app: Arc<App>) -> Router {
    let http = Arc::clone(&app.http);
    paths()
        .into_iter()
        .fold(Router::new(), |router, (path, answers)| router.route(path, answers))
        .fallback(unknown)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(http, guard))
        .with_state(app)
}

/// The answer to a liveness or readiness probe, straight away: nothing in it waits, so it needs
/// neither the router's boxes nor the guard's clock. They would be a tenth of what it costs.
pub(super) fn at_once<B: HttpBody>(app: &App, request: &Request<B>) -> Option<Response> {
    if *request.method() != Method::GET || !request.body().is_end_stream() {
        return None;
    }
    let answer = match request.uri().path() {
        "/health" => |app: &App| probe(app, &app.health, probes::health),
        "/ready" => |app: &App| probe(app, &app.ready, probes::ready),
        _ => return None,
    };
    app.http.count_request();
    let admitted = admit_reader(&app.http, request);
    let mut response = admitted.map_or_else(IntoResponse::into_response, |()| answer(app));
    set_headers(&mut response);
    Some(response)
}

async fn unknown(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(80).collect();
    let paths: Vec<&str> = paths().iter().map(|(path, _)| *path).collect();
    let sentence = format!("there is no '{path}' here; there are: {}", paths.join(", "));
    Refusal(StatusCode::NOT_FOUND, sentence)
}

/// The header `Allow`, which the router adds, says what is.
async fn not_so(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(80).collect();
    Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed on {path}"))
}

/// A body with the status that goes with it.
type Probe = (StatusCode, Bytes);

/// What a snapshot says: kept for as long as it is the newest, and made anew while the supervisor is
/// stuck, because the age of its last turn is then part of the answer.
fn probe(
    app: &App,
    kept: &OfSnapshot<Probe>,
    make: impl FnOnce(Option<&Snapshot>, i64) -> (bool, Value),
) -> Response {
    let now_ms = app.sources.now_ms();
    let make = |snapshot: Option<&Snapshot>| {
        let (good, body) = make(snapshot, now_ms);
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Bytes::from(body.to_string()))
    };
    let (status, body) = match app.sources.snapshot() {
        Some(snapshot) if !probes::is_stuck(&snapshot, now_ms) => {
            kept.get(&snapshot, Duration::MAX, || make(Some(&snapshot)))
        }
        stuck_or_none => make(stuck_or_none.as_deref()),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn health(State(app): Shared) -> Response {
    probe(&app, &app.health, probes::health)
}

async fn ready(State(app): Shared) -> Response {
    probe(&app, &app.ready, probes::ready)
}

async fn status(State(app): Shared) -> Response {
    probe(&app, &app.status, |snapshot, now_ms| (true, probes::status(snapshot, now_ms)))
}

async fn scrape(State(app): Shared) -> Response {
    let counted = app.counts.get().await;
    let snapshot = app.sources.snapshot().unwrap_or_default();
    let make = || Bytes::from(metrics::render(&app, &snapshot, counted.as_deref()));
    let text = app.metrics.get(&snapshot, FRESH, make);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Parameters of the lists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    config: Option<String>,
    limit: Option<u32>,
}

/// Rows of a list when nobody says how many, and at most.
const ROWS: u32 = 50;
const MOST_ROWS: u32 = 1000;

fn list(query: Result<Query<List>, QueryRejection>) -> Result<(Option<Config>, u32), Refusal> {
    let List { config, limit } = parameters(query)?;
    let limit = limit.unwrap_or(ROWS);
    if !(1..=MOST_ROWS).contains(&limit) {
        return Err(Refusal::bad(format!("limit is {limit}; allowed is 1 to {MOST_ROWS}")));
    }
    Ok((config.map(|name| parse(&name)).transpose()?, limit))
}

fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query.map(|Query(found)| found).map_err(|error| Refusal::bad(error.body_text()))
}

fn parse(name: &str) -> Result<Config, Refusal> {
    name.parse().map_err(|error| Refusal::bad(format!("{error}")))
}

async fn the_loop(State(app): Shared) -> Answer {
    let _place = app.reader().await?;
    let mut configs = Vec::new();
    for config in &app.sources.the_loop().configs {
        configs.push(overview::of_config(&*app.sources, *config).await?);
    }
    let manager = overview::manager(&*app.sources);
    Ok(Json(json!({ "manager": manager, "configs": configs })))
}

async fn models(State(app): Shared, query: Result<Query<List>, QueryRejection>) -> Answer {
    let _place = app.reader().await?;
    let (config, limit) = list(query)?;
    let models = app.sources.catalogue().models(config).await?;
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Json(models.iter().take(take).map(api::model).collect()))
}

async fn games(State(app): Shared, query: Result<Query<List>, QueryRejection>) -> Answer {
    let _place = app.reader().await?;
    let (config, limit) = list(query)?;
    let batches = app.sources.catalogue().recent_batches(config, limit).await?;
    Ok(Json(json!(batches)))
}

async fn matches(State(app): Shared, query: Result<Query<List>, QueryRejection>) -> Answer {
    let _place = app.reader().await?;
    let (config, limit) = list(query)?;
    let matches = app.sources.catalogue().matches(config, limit).await?;
    Ok(Json(json!(matches)))
}

/// Parameters of what is told by config.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfConfig {
    config: Option<String>,
}

async fn rated(State(app): Shared, query: Result<Query<OfConfig>, QueryRejection>) -> Answer {
    let _place = app.reader().await?;
    let configs = match parameters(query)?.config {
        Some(config) => vec![parse(&config)?],
        None => app.sources.the_loop().configs.clone(),
    };
    let mut found = serde_json::Map::new();
    for config in configs {
        let rated = ratings::of_config(app.sources.catalogue(), config).await?;
        found.insert(config.to_string(), json!(rated));
    }
    Ok(Json(Value::Object(found)))
}

/// Parameters of the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    /// Facts after this position; without it the newest.
    after: Option<u64>,
    limit: Option<u32>,
    stream: Option<Stream>,
}

async fn facts(State(app): Shared, query: Result<Query<Facts>, QueryRejection>) -> Answer {
    let _place = app.reader().await?;
    let Facts { after, limit, stream } = parameters(query)?;
    let limit = limit.unwrap_or(ROWS);
    if !(1..=MOST_ROWS).contains(&limit) {
        return Err(Refusal::bad(format!("limit is {limit}; allowed is 1 to {MOST_ROWS}")));
    }
    // Positions are SQLite's numbers.
    if after.is_some_and(|after| i64::try_from(after).is_err()) {
        return Err(Refusal::bad(format!("after is out of range; allowed is 0 to {}", i64::MAX)));
    }
    let stream = stream.unwrap_or(Stream::Pipeline);
    Ok(Json(api::facts(app.sources.catalogue().log(), stream, after, limit).await?))
}

async fn live(State(app): Shared) -> Json<Value> {
    Json(overview::live(&*app.sources))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::text()).into_response()
}

async fn registered() -> Response {
    // It is the same for the life of the process.
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        let categories: Vec<_> = CATEGORIES.iter().map(|(category, _)| category).collect();
        let all =
            json!({ "daemons": rows(), "categories": categories, "errors": validate_registry() });
        Bytes::from(all.to_string())
    });
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

async fn daemons(State(app): Shared) -> Json<Value> {
    Json(probes::daemons(app.sources.snapshot().as_deref()))
}

async fn daemon(State(app): Shared, name: Result<Path<String>, PathRejection>) -> Answer {
    let found = find(&segment(name)?)
        .map_err(|unknown| Refusal(StatusCode::NOT_FOUND, unknown.to_string()))?;
    Ok(Json(probes::daemon_of(found, app.sources.snapshot().as_deref())))
}

/// The variable part of a path.
pub(super) fn segment(path: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    path.map(|Path(text)| text).map_err(|error| Refusal::bad(error.body_text()))
}

async fn why(State(app): Shared, name: Result<Path<String>, PathRejection>) -> Answer {
    let _place = app.reader().await?;
    let config = parse(&segment(name)?)?;
    let the_loop = app.sources.the_loop();
    if !the_loop.configs.contains(&config) {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("{config} is not played here")));
    }
    Ok(Json(api::why(&*app.sources, config).await?))
}

async fn nodes(State(app): Shared) -> Answer {
    let _place = app.reader().await?;
    let the_loop = app.sources.the_loop();
    Ok(Json(json!(survey(app.sources.catalogue(), the_loop).await?)))
}

async fn stream(State(app): Shared) -> Result<Response, Refusal> {
    app.feed.stream().map(IntoResponse::into_response)
}

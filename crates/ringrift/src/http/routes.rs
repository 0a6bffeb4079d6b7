//! Which path is answered by what.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use courier::Stream;
use ringrift_pipeline::Config;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Http, Sources, api,
    feed::Feed,
    guard::{Refusal, guard},
    metrics, overview, page, probes, ratings,
};

/// What every handler can reach.
#[derive(Clone)]
pub(super) struct App {
    pub(super) http: Arc<Http>,
    pub(super) sources: Arc<dyn Sources>,
    pub(super) feed: Feed,
}

type Answer = Result<Json<Value>, Refusal>;

/// All paths, behind the guard.
pub(super) fn app(http: Arc<Http>, sources: Arc<dyn Sources>, feed: Feed) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/draw.js", get(page::drawings))
        .route("/icon.svg", get(page::icon))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(scrape))
        .route("/api/status", get(status))
        .route("/api/loop", get(the_loop))
        .route("/api/models", get(models))
        .route("/api/games", get(games))
        .route("/api/matches", get(matches))
        .route("/api/ratings", get(rated))
        .route("/api/facts", get(facts))
        .route("/api/live", get(live))
        .route("/api/why/{config}", get(why))
        .route("/api/stream", get(stream))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(&http), guard))
        .with_state(App { http, sources, feed })
}

const PATHS: &str = "/, /health, /ready, /status, /metrics, /api/status, /api/loop, /api/models, \
     /api/games, /api/matches, /api/ratings, /api/facts, /api/live, /api/why/CONFIG, /api/stream";

async fn unknown(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(80).collect();
    Refusal(StatusCode::NOT_FOUND, format!("there is no '{path}' here; there are: {PATHS}"))
}

async fn health(State(app): State<App>) -> Response {
    probe(probes::health(app.sources.snapshot().as_deref(), app.sources.now_ms()))
}

async fn ready(State(app): State<App>) -> Response {
    probe(probes::ready(app.sources.snapshot().as_deref(), app.sources.now_ms()))
}

fn probe((good, body): (bool, Value)) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn status(State(app): State<App>) -> Json<Value> {
    Json(probes::status(app.sources.snapshot().as_deref(), app.sources.now_ms()))
}

async fn scrape(State(app): State<App>) -> Response {
    let text = metrics::render(&*app.sources, &app.http, &app.feed).await;
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

async fn the_loop(State(app): State<App>) -> Answer {
    let mut configs = Vec::new();
    for config in &app.sources.the_loop().configs {
        configs.push(overview::of_config(&*app.sources, *config).await?);
    }
    let manager = overview::manager(&*app.sources);
    Ok(Json(json!({ "manager": manager, "configs": configs })))
}

async fn models(State(app): State<App>, query: Result<Query<List>, QueryRejection>) -> Answer {
    let (config, limit) = list(query)?;
    let models = app.sources.catalogue().models(config).await?;
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Json(models.iter().take(take).map(api::model).collect()))
}

async fn games(State(app): State<App>, query: Result<Query<List>, QueryRejection>) -> Answer {
    let (config, limit) = list(query)?;
    let batches = app.sources.catalogue().recent_batches(config, limit).await?;
    Ok(Json(json!(batches)))
}

async fn matches(State(app): State<App>, query: Result<Query<List>, QueryRejection>) -> Answer {
    let (config, limit) = list(query)?;
    let matches = app.sources.catalogue().matches(config, limit).await?;
    Ok(Json(json!(matches)))
}

async fn rated(State(app): State<App>, query: Result<Query<List>, QueryRejection>) -> Answer {
    let (config, _) = list(query)?;
    let configs = match config {
        Some(config) => vec![config],
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

async fn facts(State(app): State<App>, query: Result<Query<Facts>, QueryRejection>) -> Answer {
    let Facts { after, limit, stream } = parameters(query)?;
    let limit = limit.unwrap_or(ROWS);
    if !(1..=MOST_ROWS).contains(&limit) {
        return Err(Refusal::bad(format!("limit is {limit}; allowed is 1 to {MOST_ROWS}")));
    }
    let stream = stream.unwrap_or(Stream::Pipeline);
    Ok(Json(api::facts(app.sources.catalogue().log(), stream, after, limit).await?))
}

async fn live(State(app): State<App>) -> Json<Value> {
    Json(overview::live(&*app.sources))
}

async fn why(State(app): State<App>, Path(name): Path<String>) -> Answer {
    let config = parse(&name)?;
    let the_loop = app.sources.the_loop();
    if !the_loop.configs.contains(&config) {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("{config} is not played here")));
    }
    Ok(Json(api::why(&*app.sources, config).await?))
}

async fn stream(State(app): State<App>) -> Result<Response, Refusal> {
    app.feed.stream().map(IntoResponse::into_response)
}

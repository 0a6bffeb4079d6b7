//! `/api/openapi.json`: every route, with what goes in and what comes out.
//!
//! Kept by hand beside the handlers, and held to them by tests: each route and method of the router is
//! here and the other way round, and what a lived-in manager answers has the shape that is promised.
//! Derived from annotations it would need a type per body, where bodies are put together from what the
//! supervisor and the catalogue publish.

use std::sync::LazyLock;

use axum::body::Bytes;
use ringrift_pipeline::Config;
use serde_json::{Map, Value, json};

use super::schemas;

/// The text, made once.
pub(super) fn text() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));
    TEXT.clone()
}

pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = shown()
        .into_iter()
        .map(|(path, shows)| (path.to_owned(), json!({ "get": shows })))
        .collect();
    for (path, does) in operated() {
        paths.insert(path.to_owned(), json!({ "post": does }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "RingRift manager",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Probes, metrics and what an operator may change. On loopback. Reading is \
                open to everybody on this machine; what changes something needs the operator's token, \
                which is in run/token of the data directory.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "responses": refusals(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

/// A route that shows something.
struct Shows {
    summary: &'static str,
    /// Media type and schema of the answer.
    answer: (&'static str, Value),
    parameters: Vec<Value>,
    /// Beside those that every route has.
    refusals: &'static [&'static str],
    /// What a probe says with 503, beside the refusal of a closed server.
    unwell: Option<Value>,
}

impl Shows {
    fn json(summary: &'static str, schema: &str) -> Self {
        Self::some(summary, "application/json", named(schema))
    }

    fn text(summary: &'static str, kind: &'static str) -> Self {
        Self::some(summary, kind, json!({ "type": "string" }))
    }

    fn some(summary: &'static str, kind: &'static str, schema: Value) -> Self {
        Self {
            summary,
            answer: (kind, schema),
            parameters: Vec::new(),
            refusals: &[],
            unwell: None,
        }
    }

    fn probe(summary: &'static str, schema: &str) -> Self {
        Self { unwell: Some(named(schema)), ..Self::json(summary, schema) }
    }

    fn of<const N: usize>(self, parameters: [Value; N]) -> Self {
        Self { parameters: parameters.into(), refusals: &["Malformed"], ..self }
    }

    fn or(self, refusals: &'static [&'static str]) -> Self {
        Self { refusals, ..self }
    }

    fn operation(self) -> Value {
        let (kind, schema) = self.answer;
        let mut responses = answers(self.refusals);
        responses.insert("200".into(), content(self.summary, kind, &schema));
        if let Some(unwell) = self.unwell {
            let schema = json!({ "anyOf": [unwell, named("Error")] });
            let told = content("Not well, or not serving", "application/json", &schema);
            responses.insert("503".into(), told);
        }
        json!({ "summary": self.summary, "parameters": self.parameters, "responses": responses })
    }
}

fn named(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn content(description: &str, kind: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { (kind): { "schema": schema } } })
}

fn list_of(schema: &str) -> Value {
    json!({ "type": "array", "items": named(schema) })
}

/// Status, name and meaning of every refusal.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("400", "Malformed", "The request cannot be read, or says something that does not exist"),
    ("401", "NoToken", "The operator's token is missing or wrong"),
    ("403", "OtherOrigin", "A page of another origin asks"),
    ("404", "NotFound", "There is nothing by that name; the sentence names the nearest"),
    ("408", "TooSlow", "The body did not arrive in time"),
    ("409", "Conflict", "At odds with how things stand: not built, retired, nothing to retry"),
    ("413", "TooLarge", "The body is too large"),
    ("415", "NoJson", "The body is not declared as JSON"),
    ("421", "OtherHost", "The Host header names another host"),
    ("503", "Unavailable", "Not serving, or what is asked does not answer"),
    ("504", "NoAnswer", "No answer in time; what was begun goes on"),
];

/// Those that every route may give: a Host header that cannot be read, a body where none belongs.
const ALWAYS: &[&str] =
    &["Malformed", "TooSlow", "TooLarge", "OtherHost", "Unavailable", "NoAnswer"];

fn refusals() -> Value {
    let error = named("Error");
    REFUSALS
        .iter()
        .map(|(status, name, meaning)| {
            let mut refusal = content(meaning, "application/json", &error);
            if *status == "401" {
                let scheme = json!({ "schema": { "type": "string" }, "required": true });
                refusal["headers"] = json!({ "WWW-Authenticate": scheme });
            }
            ((*name).to_owned(), refusal)
        })
        .collect::<Map<String, Value>>()
        .into()
}

fn answers(names: &[&str]) -> Map<String, Value> {
    REFUSALS
        .iter()
        .filter(|(_, name, _)| ALWAYS.contains(name) || names.contains(name))
        .map(|(status, name, _)| {
            let refusal = json!({ "$ref": format!("#/components/responses/{name}") });
            ((*status).to_owned(), refusal)
        })
        .collect()
}

fn query(name: &str, meaning: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "query", "description": meaning, "schema": schema })
}

fn in_path(name: &str, meaning: &str, schema: &Value) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": meaning, "schema": schema,
    })
}

fn config() -> Value {
    json!({ "type": "string", "enum": Config::ALL.map(|config| config.to_string()) })
}

fn of_config() -> Value {
    query("config", "Only this configuration of the game", &config())
}

fn limit() -> Value {
    let schema = json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 50 });
    query("limit", "Rows at most", &schema)
}

fn daemon() -> Value {
    let schema =
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_]+$", "examples": ["AUTO_SYNC"] });
    in_path("name", "A type of daemon, in upper or lower case", &schema)
}

fn shown() -> Vec<(&'static str, Value)> {
    let page = |summary, kind| Shows::text(summary, kind);
    let routes = vec![
        ("/", page("The page", "text/html; charset=utf-8")),
        ("/page.css", page("Its style", "text/css; charset=utf-8")),
        ("/page.js", page("Its script", "text/javascript; charset=utf-8")),
        ("/draw.js", page("Its drawings", "text/javascript; charset=utf-8")),
        ("/icon.svg", page("Its icon", "image/svg+xml")),
        ("/health", Shows::probe("Is every critical daemon that was asked for alive?", "Health")),
        ("/ready", Shows::probe("Is everything that was asked for running?", "Ready")),
        ("/status", Shows::json("All types of daemons", "Status")),
        ("/api/status", Shows::json("The same as /status", "Status")),
        (
            "/metrics",
            Shows::text("Metrics for Prometheus", "text/plain; version=0.0.4; charset=utf-8"),
        ),
        ("/api/openapi.json", Shows::some("This document", JSON, json!({ "type": "object" }))),
        ("/api/loop", Shows::json("The manager, and the loop of each configuration", "Loop")),
        (
            "/api/models",
            Shows::some("Models, newest first", JSON, list_of("Model")).of([of_config(), limit()]),
        ),
        (
            "/api/games",
            Shows::some("Batches of games, newest first", JSON, list_of("Batch"))
                .of([of_config(), limit()]),
        ),
        (
            "/api/matches",
            Shows::some("Matches, newest first", JSON, list_of("Match")).of([of_config(), limit()]),
        ),
        (
            "/api/ratings",
            Shows::json("Ratings of all models, by configuration", "Ratings").of([of_config()]),
        ),
        ("/api/facts", Shows::json("The log", "Facts").of([after(), limit(), stream()])),
        ("/api/live", Shows::json("What runs or waits for a worker", "Live")),
        ("/api/nodes", Shows::json("The nodes of the cluster, and what each does", "Cluster")),
        (
            "/api/why/{config}",
            Shows::json("What keeps a configuration from going on", "Why")
                .of([in_path("config", "A configuration of the game", &config())])
                .or(&["Malformed", "NotFound"]),
        ),
        (
            "/api/stream",
            Shows::text("The page's events: all once, then what changed", "text/event-stream"),
        ),
        ("/api/registry", Shows::json("All types, and what is wrong with their list", "Registry")),
        ("/api/daemons", Shows::some("All daemons, in start order", JSON, list_of("Daemon"))),
        (
            "/api/daemons/{name}",
            Shows::json("One daemon", "Daemon").of([daemon()]).or(&["Malformed", "NotFound"]),
        ),
    ];
    routes.into_iter().map(|(path, shows)| (path, shows.operation())).collect()
}

const JSON: &str = "application/json";

fn after() -> Value {
    let schema = json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX });
    query("after", "Facts after this position; without it the newest", &schema)
}

fn stream() -> Value {
    let schema = json!({ "type": "string", "enum": ["pipeline", "operational"] });
    query("stream", "Which log", &schema)
}

fn operated() -> Vec<(&'static str, Value)> {
    let one =
        |summary: &str, done: &str, body: Option<&str>| operation(summary, body, done, &[daemon()]);
    vec![
        (
            "/api/daemons/start",
            operation("Start some, a profile, or all", Some("Selection"), "Started", &[]),
        ),
        ("/api/daemons/{name}/start", one("Start one and all it needs", "Started", None)),
        ("/api/daemons/{name}/stop", one("Stop one, and wait for its end", "Done", None)),
        ("/api/daemons/{name}/restart", one("End one, and start a fresh one", "Done", None)),
        (
            "/api/daemons/{name}/retry",
            one("Try one that was given up, at once", "Done", Some("Retry")),
        ),
        ("/api/daemons/{name}/pause", one("Let one begin no new cycle", "Done", None)),
        ("/api/daemons/{name}/resume", one("Take the operator's pause back", "Done", None)),
        ("/api/manager/stop", operation("End the manager", None, "Ending", &[])),
    ]
}

fn operation(summary: &str, body: Option<&str>, done: &str, parameters: &[Value]) -> Value {
    let refusals = ["NoToken", "OtherOrigin", "NotFound", "Conflict", "NoJson"];
    let mut responses = answers(&refusals);
    responses.insert("200".into(), content(summary, JSON, &named(done)));
    let mut operation = json!({
        "summary": summary,
        "security": [{ "token": [] }],
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = body {
        // Without a body nothing is forced; a start has to say what.
        operation["requestBody"] = json!({
            "required": body == "Selection", "content": { (JSON): { "schema": named(body) } },
        });
    }
    operation
}

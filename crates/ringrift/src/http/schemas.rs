//! The shapes that `/api/openapi.json` promises. What belongs to the game (a verdict, a report, a
//! board) is an object here: its fields are those of the facts, and grow with them.

use ringrift_daemons::{CATEGORIES, NodeState, PROFILES};
use serde_json::{Map, Value, json};

type Fields<'a> = &'a [(&'a str, Value)];

/// An object with just these fields, all of them always there.
fn object(fields: Fields<'_>) -> Value {
    with_optional(fields, &[])
}

fn with_optional(fields: Fields<'_>, optional: Fields<'_>) -> Value {
    let properties: Map<String, Value> =
        fields.iter().chain(optional).map(|(name, of)| ((*name).to_owned(), of.clone())).collect();
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn text() -> Value {
    json!({ "type": "string" })
}
fn truth() -> Value {
    json!({ "type": "boolean" })
}
fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}
fn integer() -> Value {
    json!({ "type": "integer" })
}
fn number() -> Value {
    json!({ "type": "number" })
}
fn seconds() -> Value {
    json!({ "type": "number", "minimum": 0 })
}
fn anything() -> Value {
    json!({})
}
fn free() -> Value {
    json!({ "type": "object" })
}
fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}
fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}
fn map(values: &Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}
fn named(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}
fn or_null(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

const STATES: &[&str] = &[
    "stopped",
    "starting",
    "running",
    "stopping",
    "failed",
    "restarting",
    "import_failed",
    "degraded",
];
const WORDS: &[&str] = &["healthy", "degraded", "unhealthy", "unknown"];
const PRIORITIES: &[&str] = &["critical", "high", "medium", "low"];
const BUILDS: &[&str] = &["built", "planned", "retired"];

pub(super) fn all() -> Value {
    json!({
        "Error": object(&[("error", text())]),
        "Health": health(),
        "Ready": ready(),
        "Status": status(),
        "DaemonStatus": object(&daemon_status()),
        "Daemon": daemon(),
        "Registry": registry(),
        "Manager": manager(),
        "Loop": object(&[("manager", named("Manager")), ("configs", list(&config_loop()))]),
        "Model": model(),
        "Batch": batch(),
        "Match": a_match(),
        "Ratings": map(&curve()),
        "Facts": object(&[("facts", list(&fact())), ("next", count()), ("head", count())]),
        "Live": object(&[("slots", count()), ("works", list(&work())), ("game", or_null(&free()))]),
        "Cluster": object(&[
            ("leader", or_null(&text())),
            ("artefacts", count()),
            ("few_copies", count()),
            ("nodes", list(&node())),
        ]),
        "Why": object(&[("config", text()), ("sentences", list(&sentence()))]),
        "Selection": selection(),
        "Retry": only("force", &truth()),
        "Started": started(),
        "Done": done(),
        "Ending": object(&[("stopped", json!({ "type": "null" })), ("pid", count())]),
    })
}

fn health() -> Value {
    let failed = object(&[
        ("name", text()),
        ("state", one_of(&[STATES, &["stuck"]].concat())),
        ("reason", or_null(&text())),
    ]);
    object(&[
        ("alive", truth()),
        ("timestamp", seconds()),
        ("uptime_seconds", seconds()),
        ("failed", list(&failed)),
    ])
}

fn ready() -> Value {
    with_optional(
        &[
            ("ready", truth()),
            ("running", list(&text())),
            ("failed", list(&text())),
            ("timestamp", seconds()),
        ],
        &[("running_count", count()), ("failed_count", count()), ("reason", text())],
    )
}

fn status() -> Value {
    object(&[
        ("status", one_of(&["healthy", "degraded", "unhealthy"])),
        ("score", json!({ "type": "number", "minimum": 0, "maximum": 1 })),
        ("running", count()),
        ("failed", count()),
        ("total", count()),
        ("daemons", map(&named("DaemonStatus"))),
        ("liveness", named("Health")),
        ("readiness", named("Ready")),
        ("circuit_breaker", anything()),
        ("uptime_seconds", seconds()),
        ("timestamp", seconds()),
    ])
}

fn daemon_status() -> Vec<(&'static str, Value)> {
    vec![
        ("state", one_of(STATES)),
        ("cause", or_null(&text())),
        ("health", one_of(WORDS)),
        ("message", or_null(&text())),
        ("asked", truth()),
        ("critical", truth()),
        ("priority", or_null(&one_of(PRIORITIES))),
        ("auto_restart", truth()),
        ("restarts", count()),
        ("restart_count", count()),
        ("last_error", or_null(&text())),
        ("uptime_seconds", seconds()),
        ("cycles", count()),
        ("last_cycle_seconds", or_null(&seconds())),
        ("in_cycle_seconds", or_null(&seconds())),
        ("last_beat_age_seconds", or_null(&seconds())),
        ("next_retry_in_seconds", or_null(&seconds())),
        ("started_ms", or_null(&integer())),
        ("crash_loop", truth()),
        ("restart_tier", or_null(&one_of(&["normal", "elevated", "degraded"]))),
        ("details", anything()),
    ]
}

fn daemon() -> Value {
    let mut fields = daemon_status();
    fields.extend([
        ("name", text()),
        ("category", category()),
        ("about", text()),
        ("needs", list(&text())),
        ("state_of_build", one_of(BUILDS)),
        ("successor", or_null(&text())),
    ]);
    object(&fields)
}

fn category() -> Value {
    let names: Vec<&str> = CATEGORIES.iter().map(|(category, _)| category.0).collect();
    one_of(&names)
}

fn registry() -> Value {
    let entry = object(&[
        ("name", text()),
        ("category", category()),
        ("state_of_build", one_of(BUILDS)),
        ("about", text()),
        ("priority", or_null(&one_of(&["critical", "high", "medium", "low"]))),
        ("critical", truth()),
        ("leader_only", truth()),
        ("needs", list(&text())),
        ("profiles", list(&text())),
        ("interval_seconds", or_null(&seconds())),
        ("max_restarts", or_null(&count())),
        ("retired", truth()),
        ("successor", or_null(&text())),
    ]);
    object(&[
        ("daemons", list(&entry)),
        ("categories", list(&category())),
        ("errors", list(&text())),
    ])
}

fn manager() -> Value {
    let obstacle = object(&[("cause", text()), ("reason", text()), ("needs", text())]);
    object(&[
        ("node", text()),
        ("seed", count()),
        ("configs", list(&text())),
        ("data", text()),
        ("started_ms", integer()),
        ("stopping", truth()),
        ("slots", count()),
        ("running", count()),
        ("asked", count()),
        ("obstacles", list(&obstacle)),
    ])
}

fn config_loop() -> Value {
    let champion = object(&[("id", text()), ("generation", count()), ("since_ms", integer())]);
    object(&[
        ("config", text()),
        ("stage", text()),
        ("waiting", free()),
        ("champion", or_null(&champion)),
        ("share", or_null(&number())),
        ("weight", or_null(&number())),
        ("parameters", or_null(&free())),
        ("parameters_reason", or_null(&text())),
        ("window", or_null(&free())),
        ("training", or_null(&free())),
        ("works", map(&map(&count()))),
        ("totals", map(&count())),
        ("minutes", list(&object(&[("at_ms", integer()), ("games", count()), ("rows", count())]))),
    ])
}

fn model() -> Value {
    object(&[
        ("id", text()),
        ("config", text()),
        ("generation", count()),
        ("parent", or_null(&text())),
        ("status", one_of(&["candidate", "champion", "former", "rejected"])),
        ("created", integer()),
        ("verdict", or_null(&text())),
        ("gauntlet", or_null(&free())),
        ("weights", text()),
        ("bytes", count()),
    ])
}

fn batch() -> Value {
    object(&[
        ("hash", text()),
        ("config", text()),
        ("state", one_of(&["committed", "accepted", "rejected"])),
        ("work", text()),
        ("model", text()),
        ("games", count()),
        ("positions", count()),
        ("bytes", count()),
        ("seat_wins", list(&count())),
        ("seconds", seconds()),
        ("reason", or_null(&text())),
        ("exported", truth()),
        ("position", count()),
        ("created_ms", integer()),
    ])
}

fn a_match() -> Value {
    object(&[
        ("id", text()),
        ("config", text()),
        ("result", free()),
        ("records", or_null(&text())),
        ("position", count()),
        ("created_ms", integer()),
    ])
}

fn curve() -> Value {
    let rating =
        [("elo", number()), ("elo_low", number()), ("elo_high", number()), ("games", count())];
    let point: Vec<_> = rating
        .iter()
        .cloned()
        .chain([
            ("id", text()),
            ("generation", count()),
            ("status", text()),
            ("created_ms", integer()),
            ("matches", list(&met())),
        ])
        .collect();
    let other: Vec<_> = rating.iter().cloned().chain([("name", text())]).collect();
    object(&[
        ("anchor", or_null(&text())),
        ("models", list(&object(&point))),
        ("others", list(&object(&other))),
    ])
}

fn met() -> Value {
    object(&[
        ("match", text()),
        ("against", text()),
        ("wins", count()),
        ("losses", count()),
        ("created_ms", integer()),
    ])
}

fn fact() -> Value {
    object(&[
        ("position", count()),
        ("stream", one_of(&["pipeline", "operational"])),
        ("time_ms", integer()),
        ("topic", text()),
        ("config", or_null(&text())),
        ("tone", one_of(&["plain", "good", "bad", "quiet"])),
        ("sentence", text()),
        ("source", text()),
        ("id", text()),
        ("subject", text()),
        ("cause", or_null(&text())),
        ("body", anything()),
    ])
}

fn work() -> Value {
    object(&[
        ("work", text()),
        ("kind", text()),
        ("config", text()),
        ("attempt", count()),
        ("pid", or_null(&count())),
        ("since_ms", integer()),
        ("done", count()),
        ("total", count()),
        ("note", text()),
    ])
}

fn node() -> Value {
    object(&[
        ("node", text()),
        ("here", truth()),
        ("leads", truth()),
        ("state", one_of(&NodeState::ALL.map(NodeState::word))),
        ("draining", truth()),
        ("removed", truth()),
        ("silent_seconds", or_null(&count())),
        ("overdue_seconds", or_null(&count())),
        ("life", or_null(&count())),
        ("runs", or_null(&text())),
        ("workers", or_null(&count())),
        ("playing", or_null(&count())),
        ("can", or_null(&can())),
        ("items", count()),
        ("artefacts", count()),
        ("artefact_bytes", count()),
        ("artefacts_alone", count()),
        ("version", or_null(&text())),
        ("addresses", list(&text())),
        ("report", or_null(&report())),
        ("does", text()),
    ])
}

/// What a node's machine can do.
fn can() -> Value {
    object(&[
        ("platform", text()),
        ("cores", count()),
        ("memory_bytes", count()),
        ("instructions", text()),
        ("evaluations_per_second", count()),
    ])
}

/// What a node says of itself.
fn report() -> Value {
    let why = object(&[("by", text()), ("reason", text()), ("needs", text())]);
    let work = object(&[("work", text()), ("kind", text()), ("config", text())]);
    object(&[
        ("works", list(&work)),
        ("more_works", count()),
        ("free_slots", count()),
        ("idle", or_null(&why)),
        ("obstacles", list(&why)),
        ("troubles", list(&why)),
        ("running", count()),
        ("asked", count()),
        ("disk_free", or_null(&count())),
        ("cores", count()),
        ("competes", truth()),
    ])
}

fn sentence() -> Value {
    object(&[
        ("gate", text()),
        ("open", truth()),
        ("reason", text()),
        ("needs", text()),
        ("since", or_null(&integer())),
    ])
}

/// An object of this one field.
fn only(name: &str, of: &Value) -> Value {
    json!({
        "type": "object", "properties": { (name): of }, "required": [name],
        "additionalProperties": false,
    })
}

fn selection() -> Value {
    let names = json!({ "type": "array", "items": text(), "minItems": 1 });
    let profiles: Vec<&str> = PROFILES.iter().map(|(profile, _)| profile.0).collect();
    json!({
        "oneOf": [
            only("daemons", &names),
            only("profile", &one_of(&profiles)),
            only("all", &json!({ "type": "boolean", "enum": [true] })),
        ],
        "examples": [{ "daemons": ["AUTO_SYNC"] }, { "profile": "training" }, { "all": true }],
    })
}

/// Who lacks what on this machine.
fn lacks() -> Value {
    list(&object(&[("name", text()), ("missing", text())]))
}

fn started() -> Value {
    object(&[
        ("started", list(&text())),
        ("running_already", list(&text())),
        ("added", list(&text())),
        ("skipped", list(&text())),
        ("disabled", list(&text())),
        ("missing", lacks()),
        ("warnings", list(&text())),
    ])
}

/// The verb says what was done, its value to whom.
fn done() -> Value {
    let verbs = ["stopped", "restarted", "retried", "paused", "resumed"];
    let mut properties: Map<_, _> = verbs.iter().map(|verb| ((*verb).to_owned(), text())).collect();
    // What of its needs is left as it was, if anything is.
    properties.extend([("failed".to_owned(), list(&text())), ("missing".to_owned(), lacks())]);
    json!({ "type": "object", "properties": properties, "minProperties": 1, "maxProperties": 3 })
}

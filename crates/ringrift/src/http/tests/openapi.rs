//! The document against the router and against what is answered.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Answer, Served, World, ask, get, lived_in,
    nodes::{plays, rests},
    opened,
    operate::post,
    probes::parsed,
    raw,
};
use crate::http::{fixture::TOKEN, openapi::document, routes};

/// Where a value does not have the shape that a schema promises. A word of the schema that is not
/// known here is a fault of the test, and so is a field that no schema tells of.
fn faults(document: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let mut fault = |what: String| found.push(format!("{place}: {what}, not {value}"));
    let holds = |schema: &Value| {
        let mut inner = Vec::new();
        faults(document, schema, value, place, &mut inner);
        inner.is_empty()
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    for (word, allowed) in schema.as_object().unwrap() {
        let good = match word.as_str() {
            "$ref" => {
                let pointer = allowed.as_str().unwrap().trim_start_matches('#');
                let target = document.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
                faults(document, target, value, place, found);
                return;
            }
            "type" => match allowed.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "null" => value.is_null(),
                other => panic!("unknown type {other}"),
            },
            "enum" => allowed.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|value| value >= allowed.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|value| value <= allowed.as_f64().unwrap()),
            "anyOf" => allowed.as_array().unwrap().iter().any(&holds),
            "oneOf" => allowed.as_array().unwrap().iter().filter(|one| holds(one)).count() == 1,
            "required" => allowed
                .as_array()
                .unwrap()
                .iter()
                .all(|key| value.get(key.as_str().unwrap()).is_some()),
            "minProperties" => !value.as_object().unwrap().is_empty(),
            "maxProperties" => value.as_object().unwrap().len() <= 1,
            // Below, or about the request alone.
            "properties" | "items" | "additionalProperties" | "examples" => true,
            other => panic!("{place}: the schema says '{other}', which this test cannot judge"),
        };
        if !good {
            fault(format!("{word} is {allowed}"));
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            faults(document, items, value, &format!("{place}[{index}]"), found);
        }
    }
    let more = schema.get("additionalProperties").filter(|more| more.is_object());
    for (key, value) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{key}");
        match properties.and_then(|properties| properties.get(key)).or(more) {
            Some(schema) => faults(document, schema, value, &place, found),
            None if properties.is_some() => found.push(format!("{place} is told nowhere")),
            None => {}
        }
    }
}

/// Does an answer have a status, a media type and a body that the document promises?
fn check(document: &Value, path: &str, method: &str, answer: &Answer) {
    let told = &document["paths"][path][method]["responses"][answer.status.to_string()];
    assert!(
        told.is_object(),
        "{method} {path}: {} is told nowhere: {}",
        answer.status,
        answer.body
    );
    let told = match told["$ref"].as_str() {
        Some(pointer) => document.pointer(pointer.trim_start_matches('#')).unwrap(),
        None => told,
    };
    let kind = answer.header("content-type").unwrap();
    let schema = &told["content"][kind]["schema"];
    assert!(schema.is_object(), "{method} {path}: {kind} is told nowhere");
    let body =
        if kind == "application/json" { answer.json() } else { Value::from(answer.body.clone()) };
    let mut found = Vec::new();
    faults(document, schema, &body, path, &mut found);
    assert!(found.is_empty(), "{method} {path}: {found:#?}");
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let world = lived_in().await;
    let served = opened(&world);
    let document = get(&served, "/api/openapi.json").await.json();
    assert_eq!(document, super::super::openapi::document());
    let told: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let there: BTreeSet<&str> = routes::paths().iter().map(|(path, _)| *path).collect();
    assert_eq!(told, there);
    for path in there {
        // Which methods there are, the router itself says to one that nobody serves.
        let real = path.replace("{name}", "AUTO_SYNC").replace("{config}", "hex8_2p");
        let refused = ask(served.http.address(), "TRACE", &real).await;
        assert_eq!(refused.status, 405, "{path}");
        let allowed: BTreeSet<String> = (refused.header("allow").unwrap().split(','))
            .filter(|method| *method != "HEAD")
            .map(str::to_lowercase)
            .collect();
        let told: BTreeSet<String> =
            document["paths"][path].as_object().unwrap().keys().cloned().collect();
        assert_eq!(told, allowed, "{path}");
    }
}

#[tokio::test]
async fn what_is_shown_has_the_shape_that_is_promised() {
    let world = lived_in().await;
    let served = opened(&world);
    let document = document();
    for (path, told) in document["paths"].as_object().unwrap() {
        // The stream has no end; its own tests read it.
        if told.get("get").is_none() || path == "/api/stream" {
            continue;
        }
        let real = path.replace("{name}", "AUTO_SYNC").replace("{config}", "hex8_2p");
        let answer = get(&served, &real).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        check(&document, path, "get", &answer);
    }
    let several = World::of_a_cluster(&[("a".into(), plays(1)), ("b".into(), rests())]).await;
    let nodes = get(&opened(&several), "/api/nodes").await;
    assert_eq!(nodes.json()["nodes"][1]["report"]["idle"]["by"], "QUEUE_POPULATOR");
    check(&document, "/api/nodes", "get", &nodes);
    for name in ["DISTILLATION", "EPHEMERAL_SYNC", "ELO_SYNC", "AUTO_SINK"] {
        let answer = get(&served, &format!("/api/daemons/{name}")).await;
        check(&document, "/api/daemons/{name}", "get", &answer);
    }
    for config in ["hex9", "hexagonal_4p", "%FF"] {
        let answer = get(&served, &format!("/api/why/{config}")).await;
        check(&document, "/api/why/{config}", "get", &answer);
    }
    for query in ["limit=0", "config=x", "page=1", "limit=1&limit=2"] {
        let answer = get(&served, &format!("/api/models?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        check(&document, "/api/models", "get", &answer);
    }
    let far = get(&served, &format!("/api/facts?after={}", u64::MAX)).await;
    assert_eq!(far.status, 400);
    check(&document, "/api/facts", "get", &far);
    check(&document, "/api/facts", "get", &get(&served, "/api/facts?stream=operational").await);
    // A scrape of the same world is one string to the document, and metrics to Prometheus.
    assert!(!parsed(&get(&served, "/metrics").await.body).is_empty());
}

#[tokio::test]
async fn refusals_have_the_shape_that_is_promised() {
    let world = lived_in().await;
    let served = opened(&world);
    let document = document();
    let (token, json) =
        (format!("Authorization: Bearer {TOKEN}"), "Content-Type: application/json");
    let start = "/api/daemons/start";
    let send = async |path: &str, headers: &[&str], body: &str, status: u16| {
        let told = path.replace("AUTO_SYNC", "{name}").replace("AUTO_SINK", "{name}");
        let answer = post(&served, path, headers, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        check(&document, &told, "post", &answer);
    };
    send(start, &[], "", 401).await;
    send(start, &[&token], "{}", 415).await;
    send(start, &[&token, json], "{}", 400).await;
    send(start, &[&token, json], &"x".repeat(20_000), 413).await;
    send(start, &[&token, "Origin: http://evil.example"], "", 403).await;
    send("/api/daemons/AUTO_SINK/stop", &[&token], "", 404).await;
    send("/api/daemons/AUTO_SYNC/retry", &[&token], "", 409).await;
    send("/api/daemons/AUTO_SYNC/restart", &[&token], "", 503).await;
    let elsewhere = b"GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    check(&document, "/health", "get", &raw(served.http.address(), elsewhere).await);
    let closed: Served = world.serve(0);
    check(&document, "/health", "get", &get(&closed, "/health").await);
    check(&document, "/", "get", &get(&closed, "/").await);
}

#[test]
fn the_judge_of_shapes_sees_what_is_wrong() {
    let document = document();
    let seen = |schema: &str, value: &Value| {
        let mut found = Vec::new();
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        faults(&document, &schema, value, "it", &mut found);
        found.len()
    };
    assert_eq!(seen("Error", &json!({ "error": "no" })), 0);
    assert_eq!(seen("Error", &json!({ "error": 7 })), 1);
    assert_eq!(seen("Error", &json!({})), 1);
    assert_eq!(seen("Error", &json!({ "error": "no", "code": 7 })), 1);
    assert_eq!(seen("Selection", &json!({ "all": true })), 0);
    assert_eq!(seen("Selection", &json!({ "all": false })), 1);
    assert_eq!(seen("Ending", &json!({ "stopped": null, "pid": -1 })), 1);
}

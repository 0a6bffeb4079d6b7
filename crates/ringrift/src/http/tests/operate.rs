//! The operator's routes: who may, what is asked for, what a refusal is.

use serde_json::{Value, json};

use super::{Answer, Served, World, get, opened, raw};
use crate::{
    control::{Request, Selection},
    http::fixture::TOKEN,
};

/// Posts with these header lines; a body's length goes with it.
pub(super) async fn post(served: &Served, path: &str, headers: &[&str], body: &str) -> Answer {
    let address = served.http.address();
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for line in headers {
        head += line;
        head += "\r\n";
    }
    raw(address, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
}

const JSON: &str = "Content-Type: application/json";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Every route that changes something.
const CHANGES: &[&str] = &[
    "/api/daemons/start",
    "/api/daemons/AUTO_SYNC/start",
    "/api/daemons/AUTO_SYNC/stop",
    "/api/daemons/AUTO_SYNC/restart",
    "/api/daemons/AUTO_SYNC/retry",
    "/api/daemons/AUTO_SYNC/pause",
    "/api/daemons/AUTO_SYNC/resume",
    "/api/manager/stop",
];

#[tokio::test]
async fn every_action_reaches_the_operator_as_it_was_asked() {
    let world = World::empty().await;
    let served = opened(&world);
    let check = async |path: &str, body: &str, status: u16, expected: Request| {
        let answer = post(&served, path, &[&bearer(TOKEN), JSON], body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["error"].is_string(), status != 200, "{path}: {}", answer.body);
        assert_eq!(std::mem::take(&mut *world.asked.lock().unwrap()), [expected], "{path}");
    };
    let daemon = || "auto_sync".to_owned();
    let named =
        |names: &[&str]| Selection::Daemons(names.iter().map(ToString::to_string).collect());
    let one = "/api/daemons/auto_sync";
    check(&format!("{one}/start"), "", 200, Request::Start(named(&["auto_sync"]))).await;
    check(&format!("{one}/stop"), "", 200, Request::Stop { daemon: Some(daemon()) }).await;
    check(&format!("{one}/pause"), "", 200, Request::Pause { daemon: daemon() }).await;
    check(&format!("{one}/resume"), "", 200, Request::Resume { daemon: daemon() }).await;
    // What the fixture refuses, and what fails in it.
    let retry = |force| Request::Retry { daemon: daemon(), force };
    check(&format!("{one}/retry"), "", 409, retry(false)).await;
    check(&format!("{one}/retry"), "{\"force\": false}", 409, retry(false)).await;
    check(&format!("{one}/retry"), "{\"force\": true}", 200, retry(true)).await;
    check(&format!("{one}/restart"), "", 503, Request::Restart { daemon: daemon() }).await;
    check("/api/manager/stop", "", 200, Request::Stop { daemon: None }).await;

    let start = "/api/daemons/start";
    check(start, "{\"all\": true}", 200, Request::Start(Selection::All)).await;
    let two = Request::Start(named(&["AUTO_SYNC", "EVALUATION"]));
    check(start, "{\"daemons\": [\"AUTO_SYNC\", \"EVALUATION\"]}", 200, two).await;
    let profile = |name: &str| Request::Start(Selection::Profile(name.to_owned()));
    check(start, "{\"profile\": \"training_node\"}", 200, profile("training_node")).await;
    // A name that does not exist is not found; one that exists and is refused is a conflict.
    check(start, "{\"profile\": \"nobody\"}", 404, profile("nobody")).await;
    check(start, "{\"daemons\": [\"AUTO_SINK\"]}", 404, Request::Start(named(&["AUTO_SINK"])))
        .await;
    let sink = Request::Stop { daemon: Some("AUTO_SINK".into()) };
    check("/api/daemons/AUTO_SINK/stop", "", 404, sink).await;
}

#[tokio::test]
async fn without_the_token_nothing_is_asked() {
    let world = World::empty().await;
    let served = opened(&world);
    let almost = bearer(&format!("{}0", &TOKEN[..TOKEN.len() - 1]));
    let longer = bearer(&format!("{TOKEN}0"));
    let elsewhere = [
        vec![],
        vec![almost.as_str()],
        vec![longer.as_str()],
        vec!["Authorization: Bearer"],
        vec!["Authorization: Bearer "],
        vec!["Authorization: Basic MDEyMzQ1Njc4OWFiY2RlZg=="],
        vec!["Cookie: token=0123456789abcdef0123456789abcdef"],
        vec!["X-Token: 0123456789abcdef0123456789abcdef"],
    ];
    for path in CHANGES {
        for headers in &elsewhere {
            let answer = post(&served, path, headers, "").await;
            assert_eq!(answer.status, 401, "{path} {headers:?}: {}", answer.body);
            let sentence = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(sentence.contains("run/token in the data directory"), "{sentence}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
        let query = post(&served, &format!("{path}?token={TOKEN}"), &[], "").await;
        assert_eq!(query.status, 401, "{path}");
        // The refusal comes before the name is looked up: nobody learns anything without the token.
        assert_eq!(post(&served, "/api/daemons/AUTO_SINK/stop", &[], "").await.status, 401);
    }
    assert_eq!(*world.asked.lock().unwrap(), []);
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_even_with_the_token() {
    let world = World::empty().await;
    let served = opened(&world);
    let token = bearer(TOKEN);
    for origin in ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:1"] {
        let origin = format!("Origin: {origin}");
        let answer = post(&served, "/api/daemons/AUTO_SYNC/stop", &[&token, &origin], "").await;
        assert_eq!(answer.status, 403, "{origin}: {}", answer.body);
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(*world.asked.lock().unwrap(), []);
    let own = format!("Origin: http://{}", served.http.address());
    let answer = post(&served, "/api/daemons/AUTO_SYNC/stop", &[&token, &own], "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // What a browser asks first for a page elsewhere gets no permission.
    let preflight = b"OPTIONS /api/manager/stop HTTP/1.1\r\nHost: localhost\r\n\
        Origin: http://localhost\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
    let answer = raw(served.http.address(), preflight).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_malformed_body_is_refused_with_what_is_allowed() {
    let world = World::empty().await;
    let served = opened(&world);
    let check = async |path: &str, kind: &str, body: &str, status: u16, part: &str| {
        let answer = post(&served, path, &[&bearer(TOKEN), kind], body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        let sentence = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(sentence.contains(part), "{path} {body}: {sentence}");
    };
    let start = "/api/daemons/start";
    for body in [
        "{}",
        "[]",
        "7",
        "\"all\"",
        "{\"all\": false}",
        "{\"all\": 1}",
        "{\"daemons\": []}",
        "{\"daemons\": [\"AUTO_SYNC\", null]}",
        "{\"daemons\": \"AUTO_SYNC\"}",
        "{\"profile\": null}",
        "{\"all\": true, \"profile\": \"training\"}",
        "{\"deamons\": [\"AUTO_SYNC\"]}",
    ] {
        check(start, JSON, body, 400, "the body is one of").await;
    }
    check(start, JSON, "{\"all\": ", 400, "the body is no JSON").await;
    check(start, JSON, "", 400, "the body is no JSON").await;
    check(start, "Content-Type: text/plain", "{\"all\": true}", 415, "application/json").await;
    check(start, "X-Filler: y", "{\"all\": true}", 415, "application/json").await;
    check("/api/daemons/AUTO_SYNC/retry", JSON, "{\"force\": 1}", 400, "{\"force\": true}").await;
    check("/api/daemons/AUTO_SYNC/stop", JSON, "{\"all\": true}", 400, "takes no body").await;
    check("/api/daemons/%FF/stop", JSON, "", 400, "UTF-8").await;
    let large = format!("{{\"daemons\": [\"{}\"]}}", "x".repeat(20_000));
    check(start, JSON, &large, 413, "16384 bytes").await;
    assert_eq!(*world.asked.lock().unwrap(), []);
}

#[tokio::test]
async fn one_daemon_is_told_with_its_health_and_what_it_is() {
    let world = super::lived_in().await;
    let served = opened(&world);
    let check = async |name: &str| -> Value {
        let answer = get(&served, &format!("/api/daemons/{name}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let sync = check("auto_sync").await;
    assert_eq!(sync["name"], "AUTO_SYNC");
    assert_eq!((&sync["state"], &sync["health"]), (&json!("running"), &json!("degraded")));
    assert_eq!(sync["message"], "2 sync errors");
    assert_eq!(sync["category"], "sync");
    assert_eq!(check("DISTILLATION").await["state_of_build"], "planned");
    let retired = check("EPHEMERAL_SYNC").await;
    assert_eq!(
        (&retired["state"], &retired["successor"]),
        (&json!("stopped"), &json!("AUTO_SYNC"))
    );
    let all = get(&served, "/api/daemons").await.json();
    assert_eq!(all.as_array().unwrap().len(), 89);
    assert_eq!(all[0]["name"], "EVENT_ROUTER");

    let unknown = get(&served, "/api/daemons/AUTO_SINK").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("did you mean AUTO_SYNC?"), "{}", unknown.body);

    let registry = get(&served, "/api/registry").await.json();
    assert_eq!(registry["daemons"].as_array().unwrap().len(), 89);
    assert_eq!(registry["categories"].as_array().unwrap().len(), 13);
    assert_eq!(registry["errors"], json!([]));
}

#[tokio::test]
async fn nothing_is_carried_out_while_the_server_is_closed() {
    let world = World::empty().await;
    let served = world.serve(0);
    for path in CHANGES {
        assert_eq!(post(&served, path, &[&bearer(TOKEN)], "").await.status, 503, "{path}");
    }
    assert_eq!(*world.asked.lock().unwrap(), []);
}

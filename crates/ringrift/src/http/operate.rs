//! What an operator may change over HTTP. Routes are mapped onto the requests of the control socket,
//! behind the operator's token; what they lead to is decided there.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequestParts, Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use constant_time_eq::constant_time_eq;
use futures_util::future::BoxFuture;
use ringrift_daemons::{find, profile};
use serde_json::Value;

use super::{
    guard::Refusal,
    routes::{App, segment},
};
use crate::control::{self, Answer, Control, Request, Selection};

/// Who carries out what an operator asks.
pub trait Operator: Send + Sync + 'static {
    /// Does it, or says why not.
    fn answer(&self, request: Request) -> BoxFuture<'_, Answer>;
}

impl Operator for Control {
    fn answer(&self, request: Request) -> BoxFuture<'_, Answer> {
        Box::pin(control::answer(request, self))
    }
}

const NO_TOKEN: &str = "this needs the operator's token, as the header 'Authorization: Bearer TOKEN'; \
     the file run/token in the data directory holds it, readable by its owner";
const WRONG_TOKEN: &str = "this is not the operator's token; \
     the file run/token in the data directory holds it, readable by its owner";
const SELECTIONS: &str = "the body is one of {\"daemons\": [\"AUTO_SYNC\"]}, {\"profile\": \"training\"}, {\"all\": true}";
const FORCE: &str = "the body, if there is one, is {\"force\": true} or {\"force\": false}";

/// The request carries the operator's token. It is looked for in this one header: a browser adds no
/// such header by itself, as it does a cookie, and nobody logs it, as they do an address.
pub(super) struct Authorised;

impl FromRequestParts<Arc<App>> for Authorised {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let refused = |sentence: &str| Refusal(StatusCode::UNAUTHORIZED, sentence.to_owned());
        let given = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| refused(NO_TOKEN))?;
        let (scheme, token) = given.as_bytes().split_at_checked(7).unwrap_or_default();
        let is_ours = constant_time_eq(token.trim_ascii(), app.token.as_bytes());
        if scheme.eq_ignore_ascii_case(b"bearer ") && is_ours {
            Ok(Self)
        } else {
            Err(refused(WRONG_TOKEN))
        }
    }
}

type Answered = Result<Json<Value>, Refusal>;
type Name = Result<Path<String>, PathRejection>;

pub(super) async fn start(
    _: Authorised,
    State(app): State<Arc<App>>,
    name: Name,
    body: Bytes,
) -> Answered {
    one(&app, name, &body, |name| Request::Start(Selection::Daemons(vec![name]))).await
}

pub(super) async fn stop(
    _: Authorised,
    State(app): State<Arc<App>>,
    name: Name,
    body: Bytes,
) -> Answered {
    one(&app, name, &body, |name| Request::Stop { daemon: Some(name) }).await
}

pub(super) async fn restart(
    _: Authorised,
    State(app): State<Arc<App>>,
    name: Name,
    body: Bytes,
) -> Answered {
    one(&app, name, &body, |daemon| Request::Restart { daemon }).await
}

pub(super) async fn pause(
    _: Authorised,
    State(app): State<Arc<App>>,
    name: Name,
    body: Bytes,
) -> Answered {
    one(&app, name, &body, |daemon| Request::Pause { daemon }).await
}

pub(super) async fn resume(
    _: Authorised,
    State(app): State<Arc<App>>,
    name: Name,
    body: Bytes,
) -> Answered {
    one(&app, name, &body, |daemon| Request::Resume { daemon }).await
}

pub(super) async fn retry(
    _: Authorised,
    State(app): State<Arc<App>>,
    name: Name,
    headers: HeaderMap,
    body: Bytes,
) -> Answered {
    let force = force(&headers, &body)?;
    one(&app, name, &[], |daemon| Request::Retry { daemon, force }).await
}

pub(super) async fn start_selected(
    _: Authorised,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answered {
    let selection = selection(&headers, &body)?;
    let exists = exists(&selection);
    carry_out(&app, Request::Start(selection), exists).await
}

pub(super) async fn stop_manager(
    _: Authorised,
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Answered {
    no_body(&body)?;
    carry_out(&app, Request::Stop { daemon: None }, true).await
}

/// Asks for something that concerns one daemon.
async fn one(
    app: &App,
    name: Name,
    body: &[u8],
    request: impl FnOnce(String) -> Request,
) -> Answered {
    let name = segment(name)?;
    no_body(body)?;
    let exists = find(&name).is_ok();
    carry_out(app, request(name), exists).await
}

/// What is refused names something that does not exist, or is at odds with how things stand, such as
/// a type that is not built or nothing to try again: the body was read before.
async fn carry_out(app: &App, request: Request, exists: bool) -> Answered {
    match app.operator.answer(request).await {
        Answer::Ok(done) => Ok(Json(done)),
        Answer::Refused(sentence) if exists => Err(Refusal(StatusCode::CONFLICT, sentence)),
        Answer::Refused(sentence) => Err(Refusal(StatusCode::NOT_FOUND, sentence)),
        Answer::Failed(sentence) => Err(Refusal::unavailable(sentence)),
    }
}

fn no_body(body: &[u8]) -> Result<(), Refusal> {
    if body.is_empty() { Ok(()) } else { Err(Refusal::bad("this takes no body")) }
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let sentence = "the body is JSON: its header 'Content-Type' is 'application/json'";
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence.into()));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("the body is no JSON: {error}")))
}

/// The one field of an object that has just one.
fn field(body: Value) -> Option<(String, Value)> {
    let Value::Object(fields) = body else { return None };
    let mut fields = fields.into_iter();
    let field = fields.next()?;
    fields.next().is_none().then_some(field)
}

fn selection(headers: &HeaderMap, body: &[u8]) -> Result<Selection, Refusal> {
    let bad = || Refusal::bad(SELECTIONS);
    let (key, value) = field(read(headers, body)?).ok_or_else(bad)?;
    match (key.as_str(), value) {
        ("all", Value::Bool(true)) => Ok(Selection::All),
        ("profile", Value::String(name)) => Ok(Selection::Profile(name)),
        ("daemons", Value::Array(names)) if !names.is_empty() => {
            let names = names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            Ok(Selection::Daemons(Option::<Vec<String>>::ok_or_else(names, bad)?))
        }
        _ => Err(bad()),
    }
}

fn exists(selection: &Selection) -> bool {
    match selection {
        Selection::All => true,
        Selection::Profile(name) => profile(name).is_some(),
        Selection::Daemons(names) => names.iter().all(|name| find(name).is_ok()),
    }
}

fn force(headers: &HeaderMap, body: &[u8]) -> Result<bool, Refusal> {
    if body.is_empty() {
        return Ok(false);
    }
    match field(read(headers, body)?) {
        Some((key, Value::Bool(force))) if key == "force" => Ok(force),
        _ => Err(Refusal::bad(FORCE)),
    }
}

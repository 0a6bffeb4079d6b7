//! What every request must pass before it reaches a handler.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, HttpBody as _},
    extract::State,
    http::{HeaderValue, Method, Request, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::Http;

/// Most bytes of a request's body. An operator's selection of all daemons has two thousand.
const MAX_BODY_BYTES: usize = 16 << 10;

/// Longest time to make an answer. The catalogue answers in milliseconds; ten seconds mean that the
/// disk is in trouble, and the asker is better told than kept.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The same for what an operator asks: a daemon has half a minute to end. It goes on all the same
/// when nobody waits for it any more.
const CARRIED_OUT_WITHIN: Duration = Duration::from_mins(1);

/// The page loads from here, and from nowhere else; nothing may embed it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A refusal: a status and a sentence.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl Refusal {
    pub(super) fn bad(sentence: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence.into())
    }

    pub(super) fn unavailable(sentence: impl Into<String>) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, sentence.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(json!({ "error": self.1 }))).into_response();
        if self.0 == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"ringrift\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<ringrift_pipeline::CatalogueError> for Refusal {
    fn from(error: ringrift_pipeline::CatalogueError) -> Self {
        Self::unavailable(format!("the catalogue does not answer: {error}"))
    }
}

impl From<courier::Error> for Refusal {
    fn from(error: courier::Error) -> Self {
        Self::unavailable(format!("the log does not answer: {error}"))
    }
}

/// Checks a request, has it answered within the limit, and sets the headers that every answer has.
pub(super) async fn guard(
    State(http): State<Arc<Http>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    http.count_request();
    let limit = if shows(&request) { ANSWER_WITHIN } else { CARRIED_OUT_WITHIN };
    let answered = tokio::time::timeout(limit, async {
        match admit(&http, request).await {
            Ok(request) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        }
    });
    let mut response = answered.await.unwrap_or_else(|_| {
        let sentence = format!("no answer within {} s", limit.as_secs());
        Refusal(StatusCode::GATEWAY_TIMEOUT, sentence).into_response()
    });
    set_headers(&mut response);
    response
}

/// The headers that every answer has.
pub(super) fn set_headers(response: &mut Response) {
    let headers = response.headers_mut();
    let mut set = |name: header::HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    set(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
}

/// May a request be shown anything: does it mean this host, and is the server open?
pub(super) fn admit_reader<B>(http: &Http, request: &Request<B>) -> Result<(), Refusal> {
    own_host(request)?;
    is_open(http)
}

fn is_open(http: &Http) -> Result<(), Refusal> {
    if *http.open.borrow() {
        return Ok(());
    }
    Err(Refusal::unavailable("not serving: HEALTH_SERVER is not running"))
}

fn shows(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

async fn admit(http: &Http, request: Request<Body>) -> Result<Request<Body>, Refusal> {
    let host = own_host(&request)?;
    if !shows(&request) {
        own_page(&request, host)?;
    }
    is_open(http)?;
    // Most have no body; there is nothing to wait for then.
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let read = axum::body::to_bytes(body, MAX_BODY_BYTES);
    let body = tokio::time::timeout(ANSWER_WITHIN, read).await.map_err(|_| {
        let sentence = format!("the body did not arrive within {} s", ANSWER_WITHIN.as_secs());
        Refusal(StatusCode::REQUEST_TIMEOUT, sentence)
    })?;
    let body = body.map_err(|_| {
        let sentence = format!("a body of more than {MAX_BODY_BYTES} bytes, or a broken one");
        Refusal(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    })?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// A page elsewhere may have a name of its own resolve to 127.0.0.1 and so read this one with the
/// browser's blessing; the name it uses then is in the header.
fn own_host<B>(request: &Request<B>) -> Result<&str, Refusal> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| request.uri().authority().map(Authority::as_str))
        .ok_or_else(|| Refusal::bad("the request has no readable Host header"))?;
    let name = host
        .parse::<Authority>()
        .map(|authority| authority.host().to_ascii_lowercase())
        .map_err(|_| Refusal::bad("the Host header is no host"))?;
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if name == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
        return Ok(host);
    }
    Err(Refusal(
        StatusCode::MISDIRECTED_REQUEST,
        format!("'{name}' is not served here: use 127.0.0.1 or localhost"),
    ))
}

/// A page elsewhere may send a request here without asking; it cannot know the token, and does not
/// get as far as guessing it.
fn own_page(request: &Request<Body>, host: &str) -> Result<(), Refusal> {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let page = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    if page.is_some_and(|page| page.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    let sentence = "a page of another origin may not operate this manager";
    Err(Refusal(StatusCode::FORBIDDEN, sentence.into()))
}

//! What every request must pass before it reaches a handler.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::Http;

/// Most bytes of a request's body. Nothing here reads one; this much is swallowed so that the
/// connection stays usable.
const MAX_BODY_BYTES: usize = 16 << 10;

/// Longest time to make an answer. The catalogue answers in milliseconds; ten seconds mean that the
/// disk is in trouble, and the asker is better told than kept.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

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
        (self.0, Json(json!({ "error": self.1 }))).into_response()
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
pub(super) async fn guard(State(http): State<Arc<Http>>, request: Request, next: Next) -> Response {
    http.count_request();
    let answered = tokio::time::timeout(ANSWER_WITHIN, async {
        match admit(&http, request).await {
            Ok(request) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        }
    });
    let mut response = answered.await.unwrap_or_else(|_| {
        let sentence = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
        Refusal(StatusCode::GATEWAY_TIMEOUT, sentence).into_response()
    });
    let refused = response.status() == StatusCode::METHOD_NOT_ALLOWED;
    let headers = response.headers_mut();
    let mut set = |name: header::HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    set(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if refused {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

async fn admit(http: &Http, request: Request) -> Result<Request, Refusal> {
    own_host(&request)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} is not allowed here: this server only shows, by GET", request.method()),
        ));
    }
    if !*http.open.borrow() {
        return Err(Refusal::unavailable("not serving: HEALTH_SERVER is not running"));
    }
    let (parts, body) = request.into_parts();
    if axum::body::to_bytes(body, MAX_BODY_BYTES).await.is_err() {
        return Err(Refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body of more than {MAX_BODY_BYTES} bytes; none is needed here"),
        ));
    }
    Ok(Request::from_parts(parts, Body::empty()))
}

/// A page elsewhere may have a name of its own resolve to 127.0.0.1 and so read this one with the
/// browser's blessing; the name it uses then is in the header.
fn own_host(request: &Request) -> Result<(), Refusal> {
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
        return Ok(());
    }
    Err(Refusal(
        StatusCode::MISDIRECTED_REQUEST,
        format!("'{name}' is not served here: use 127.0.0.1 or localhost"),
    ))
}

//! The least that axum needs to send the bodies of a running manager: what its `/health` and
//! `/metrics` are measured against.
//!
//! `bare_http 127.0.0.1:8790` fetches both once, serves the same bytes on a free port of one thread,
//! and prints its address.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
};

use anyhow::{Context as _, ensure};
use axum::{Router, body::Bytes, http::header, routing::get};

fn fetch(address: &str, path: &str) -> anyhow::Result<Bytes> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("reach {address}"))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    ensure!(head.contains(" 200 "), "{path} is answered with {head}");
    Ok(Bytes::from(body.to_owned()))
}

fn route(body: Bytes, kind: &'static str) -> axum::routing::MethodRouter {
    get(move || async move { ([(header::CONTENT_TYPE, kind)], body) })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("which address has the manager?")?;
    let router = Router::new()
        .route("/health", route(fetch(&address, "/health")?, "application/json"))
        .route("/metrics", route(fetch(&address, "/metrics")?, "text/plain; version=0.0.4"));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    axum::serve(listener, router).await?;
    Ok(())
}

//! The page and what it is made of, inside the binary: nothing is fetched from anywhere else.

use axum::http::{HeaderName, header};

type File = ([(HeaderName, &'static str); 1], &'static str);

const fn file(kind: &'static str, text: &'static str) -> File {
    ([(header::CONTENT_TYPE, kind)], text)
}

pub(super) async fn index() -> File {
    file("text/html; charset=utf-8", include_str!("assets/index.html"))
}

pub(super) async fn style() -> File {
    file("text/css; charset=utf-8", include_str!("assets/page.css"))
}

pub(super) async fn script() -> File {
    file("text/javascript; charset=utf-8", include_str!("assets/page.js"))
}

pub(super) async fn drawings() -> File {
    file("text/javascript; charset=utf-8", include_str!("assets/draw.js"))
}

pub(super) async fn icon() -> File {
    file("image/svg+xml", include_str!("assets/icon.svg"))
}

//! The style sheet, the script, the font and the icon: embedded, named with a digest (the font with its
//! version), kept by browsers for ever.
//! Nothing is ever loaded from another server.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets"]
struct Files;

/// A year, the longest that is honoured (seconds); a changed file has another address.
const KEEP: &str = "public, max-age=31536000, immutable";
/// As much of a digest as tells two versions apart (bytes).
const DIGEST_BYTES: usize = 6;

pub struct Addresses {
    pub css: String,
    pub js: String,
    pub icon: String,
}

pub static ADDRESSES: LazyLock<Addresses> = LazyLock::new(|| Addresses {
    css: asset_path("console.css"),
    js: asset_path("console.js"),
    icon: asset_path("icon.svg"),
});

fn asset_path(name: &str) -> String {
    let file = Files::get(name).expect("it is embedded from assets/");
    let digest: String = file
        .metadata
        .sha256_hash()
        .iter()
        .take(DIGEST_BYTES)
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("/assets/{name}?v={digest}")
}

pub async fn get_asset(Path(name): Path<String>) -> Response {
    let Some(file) = Files::get(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "image/svg+xml",
    };
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, KEEP)],
        file.data.into_owned(),
    )
        .into_response()
}

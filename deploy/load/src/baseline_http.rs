//! What hyper alone can do: one thread, the body read, a fixed answer. The door's ceiling.
//!
//! A process of its own, as the door is one; nothing of Trueup is in its way.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

const BODY: &[u8] = br#"{"ok":true,"event_id":"0195d4f2-7c1b-7f00-8a3e-2b9c64a1d0e5"}"#;

/// Serves until it is killed; says its address first.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        trueup_testkit::output::print_line(
            json!({ "message": "listening", "listener": "ceiling", "address": address }),
        );
        loop {
            let (stream, _) = listener
                .accept()
                .await
                .context("the ceiling cannot accept")?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve_connection(stream));
        }
    })
}

async fn serve_connection(stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let _ = request.into_body().collect().await;
        let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok::<_, Infallible>(response)
    });
    // A connection's end is its sender's business.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

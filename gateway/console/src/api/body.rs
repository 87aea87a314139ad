//! Reads a request's body, whole, within a size and a time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::problem::Problem;

/// A setting is a handful of short texts (bytes).
pub const SETTING_LIMIT: usize = 64 * 1024;

/// How long a body may take to arrive: ten thousand calls over a slow line.
const TIMEOUT: Duration = Duration::from_secs(30);

pub async fn read_body(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(TIMEOUT, collect_body(body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::too_slow(format!(
            "the body did not arrive within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

async fn collect_body(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::malformed("the body broke off"))?;
        if let Ok(data) = frame.into_data() {
            if read.len() + data.len() > limit {
                return Err(Problem::too_large(format!(
                    "the body is over {limit} bytes; send it in parts"
                )));
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read.freeze())
}

/// Takes apart what somebody sent, off the threads that answer others.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "what was sent could not be taken apart");
        Problem::internal()
    })
}

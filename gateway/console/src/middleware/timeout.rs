//! A request ends before the person who sent it gives up.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// A request to a person ends before the person gives up; recording many calls is the longest.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers 503 for what takes too long.
pub async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::unavailable("this took too long and was given up; ask again, or for less")
                .into_response()
        }
    }
}

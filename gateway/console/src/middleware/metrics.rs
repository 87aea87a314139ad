//! How many requests there are of each route, and how long they take.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use trueup_ops::metrics::{self, StatusClass};

/// Counts requests by the route's template, never by its path.
pub async fn measure_request(request: Request, next: Next) -> Response {
    let start = std::time::Instant::now();
    let matched = request
        .extensions()
        .get::<axum::extract::MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let route = metrics::console_route(matched.as_deref().unwrap_or_default());
    let response = next.run(request).await;
    let class = match response.status().as_u16() {
        200..=299 => StatusClass::Success,
        300..=399 => StatusClass::Redirection,
        400..=499 => StatusClass::ClientError,
        _ => StatusClass::ServerError,
    };
    metrics::console().requests.inc((route, class));
    metrics::console().request_seconds.since(class, start);
    response
}

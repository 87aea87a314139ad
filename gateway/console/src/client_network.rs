//! From which network a request comes, and whether by TLS: for limits and cookies, never for rights.
//!
//! A proxy on this machine is believed, as nobody else can come from here: what it added last to
//! `X-Forwarded-For` is its client. Any other proxy is a client like all.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::HeaderMap;
use trueup_ops::network::network_of;

/// The peer of the connection, as the server puts it beside each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

pub fn client_network(request: &Request) -> IpAddr {
    let peer = request
        .extensions()
        .get::<Peer>()
        .map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0);
    if !peer.is_loopback() {
        return network_of(peer);
    }
    let forwarded = request
        .headers()
        .get_all("x-forwarded-for")
        .iter()
        .next_back();
    let last = forwarded
        .and_then(|value| value.to_str().ok()?.rsplit(',').next())
        .and_then(|address| address.trim().parse().ok());
    network_of(last.unwrap_or(peer))
}

/// A proxy that ends TLS before us says so; a client that lies about it only loses its own cookie.
pub fn over_tls(headers: &HeaderMap) -> bool {
    headers
        .get("x-forwarded-proto")
        .and_then(|proto| proto.to_str().ok()?.split(',').next())
        .is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
}

//! What is taken from a request's head: the token, the sender's address, the secret.
//!
//! `X-Forwarded-For` is believed only from a trusted proxy, and only its right-most untrusted hop:
//! what stands left of it the sender may have written itself.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use trueup_ops::settings::Proxies;

/// Where webhooks live (seed).
const PREFIX: &str = "/api/v1/ppc/inbound-webhooks/";
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-webhook-secret");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What stands for the secret in the query that is kept.
const REDACTED: &str = "***";

/// What is copied along with a URL, as senders escape it: blanks, line ends, tabs, no-break spaces.
const COPIED_ALONG: [&str; 9] = ["/", "%20", "+", "%0A", "%0a", "%0D", "%0d", "%09", "%C2%A0"];

/// The token of a webhook's path. Doubled slashes do no harm, nor does what was copied along with the URL
/// and stands after the token (X1b).
pub fn token_of(path: &str) -> Option<Cow<'_, str>> {
    let token = match path.strip_prefix(PREFIX) {
        Some(token) if !token.starts_with('/') => Cow::Borrowed(token),
        _ if !path.contains("//") => return None,
        _ => Cow::Owned(
            without_doubled_slashes(path)
                .strip_prefix(PREFIX)?
                .to_owned(),
        ),
    };
    let length = trim_copied(&token).len();
    let token = match token {
        Cow::Borrowed(token) => Cow::Borrowed(token.get(..length).unwrap_or_default()),
        Cow::Owned(mut token) => {
            token.truncate(length);
            Cow::Owned(token)
        }
    };
    (!token.is_empty() && !token.contains('/')).then_some(token)
}

fn trim_copied(token: &str) -> &str {
    let mut rest = token;
    while let Some(shorter) = COPIED_ALONG.iter().find_map(|end| rest.strip_suffix(end)) {
        rest = shorter;
    }
    rest
}

fn without_doubled_slashes(path: &str) -> String {
    let mut single = String::with_capacity(path.len());
    for char in path.chars() {
        if char != '/' || !single.ends_with('/') {
            single.push(char);
        }
    }
    single
}

/// Who is asking.
pub fn source_address(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> IpAddr {
    let mut source = peer.to_canonical();
    if proxies.is_empty() || !proxies.trusts(source) {
        return source;
    }
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        // A header that is not text was not written by a proxy of ours.
        let Ok(text) = line.to_str() else {
            return source;
        };
        for hop in text.rsplit(',') {
            let Some(address) = hop_address(hop.trim()) else {
                return source;
            };
            source = address;
            if !proxies.trusts(source) {
                return source;
            }
        }
    }
    source
}

/// An address, with or without a port.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        .unwrap_or(text);
    bare.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

/// The secret as it was sent: in the header, else in the webhook's query parameter if it has one.
pub fn secret_of<'a>(
    headers: &'a HeaderMap,
    query: &'a str,
    parameter: Option<&str>,
) -> Option<Cow<'a, [u8]>> {
    if let Some(value) = headers.get(SECRET_HEADER)
        && !value.as_bytes().trim_ascii().is_empty()
    {
        return Some(Cow::Borrowed(value.as_bytes().trim_ascii()));
    }
    let parameter = parameter?;
    let named = |(name, value): &(&str, &str)| is_named(name, parameter) && !value.is_empty();
    let (_, value) = query_pairs(query, &['&'])
        .find(named)
        .or_else(|| query_pairs(query, &ODD_SEPARATORS).find(named))?;
    let spaced = value.replace('+', " ");
    Some(Cow::Owned(percent_decode_str(&spaced).collect()))
}

/// What the reader takes for an `&` where it stands before `name=` (X1b).
const ODD_SEPARATORS: [char; 3] = ['&', ';', '?'];

/// The query as it is kept: without the secret, wherever it stood in it.
pub fn redact_query(query: &str, parameter: Option<&str>) -> String {
    let Some(parameter) = parameter else {
        return query.to_owned();
    };
    let mut kept = String::with_capacity(query.len());
    for pair in query.split_inclusive('&') {
        if !push_redacted(pair, &['&'], parameter, &mut kept) {
            for part in pair.split_inclusive(ODD_SEPARATORS) {
                if !push_redacted(part, &ODD_SEPARATORS, parameter, &mut kept) {
                    kept.push_str(part);
                }
            }
        }
    }
    kept
}

/// Keeps a pair that holds the secret without its value, and its separator if it ends with one; false if it
/// holds none.
fn push_redacted(pair: &str, separators: &[char], parameter: &str, kept: &mut String) -> bool {
    let bare = pair.strip_suffix(separators).unwrap_or(pair);
    let Some((name, _)) = bare.split_once('=') else {
        return false;
    };
    let is_secret = is_named(name, parameter);
    if is_secret {
        kept.extend([name, "=", REDACTED, &pair[bare.len()..]]);
    }
    is_secret
}

fn query_pairs<'a>(
    query: &'a str,
    separators: &'a [char],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    query
        .split(separators)
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Names are compared as everywhere (X2): without regard to case, and after decoding.
fn is_named(raw: &str, name: &str) -> bool {
    raw.eq_ignore_ascii_case(name)
        || (raw.contains(['%', '+'])
            && percent_decode_str(&raw.replace('+', " "))
                .decode_utf8_lossy()
                .eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        map
    }

    #[test]
    fn only_the_right_most_untrusted_hop_is_believed() {
        let proxies = Proxies::parse("10.0.0.0/8,fd00::/8").expect("good");
        let from = |peer: &str, lines: &[&'static str]| {
            source_address(peer.parse().expect("an address"), &headers(lines), &proxies).to_string()
        };
        assert_eq!(
            from("203.0.113.9", &["198.51.100.1"]),
            "203.0.113.9",
            "a stranger's header"
        );
        assert_eq!(from("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            from("10.0.0.1", &["1.2.3.4, 198.51.100.1, 10.0.0.7"]),
            "198.51.100.1"
        );
        assert_eq!(
            from("10.0.0.1", &["1.2.3.4", "198.51.100.1", "10.0.0.7"]),
            "198.51.100.1"
        );
        assert_eq!(from("10.0.0.1", &["1.2.3.4, nonsense"]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2");
        assert_eq!(
            from("::ffff:10.0.0.1", &["198.51.100.1:4711"]),
            "198.51.100.1"
        );
        assert_eq!(from("fd00::1", &["[2001:db8::5]:443"]), "2001:db8::5");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_path_is_a_webhooks_or_nothing() {
        for path in [
            "/api/v1/ppc/inbound-webhooks/abc",
            "/api/v1/ppc/inbound-webhooks/abc/",
            "/api/v1/ppc/inbound-webhooks/abc//",
            "/api/v1/ppc/inbound-webhooks/abc%0A",
            "/api/v1/ppc/inbound-webhooks/abc%0d%0a",
            "/api/v1/ppc/inbound-webhooks/abc%20%09/+%C2%A0",
            "//api/v1//ppc/inbound-webhooks///abc/%20",
        ] {
            assert_eq!(token_of(path).as_deref(), Some("abc"), "{path}");
        }
        for path in [
            "/api/v1/ppc/inbound-webhooks/%20",
            "//",
            "/",
            "/api/v1/ppc/inbound-webhooks/",
            "/api/v1/ppc/inbound-webhooks/a/b",
            "/metrics",
            "",
        ] {
            assert_eq!(token_of(path), None, "{path}");
        }
    }

    #[test]
    fn the_secret_is_found_and_leaves_no_trace_in_the_query() {
        let none = HeaderMap::new();
        let found = |query| {
            secret_of(&none, query, Some("key")).map(|s| String::from_utf8_lossy(&s).into_owned())
        };
        assert_eq!(found("a=1&Key=s%2Bc+r&b=2").as_deref(), Some("s+c r"));
        assert_eq!(found("a=1&key=&k%65y=x").as_deref(), Some("x"));
        assert_eq!(found("a=1"), None);
        assert_eq!(secret_of(&none, "key=x", None), None);
        assert_eq!(
            redact_query("a=1&Key=s%2Bc&b=2&k%65y=t", Some("key")),
            "a=1&Key=***&b=2&k%65y=***"
        );
        assert_eq!(redact_query("a=%20&b", Some("key")), "a=%20&b");
        let mut both = HeaderMap::new();
        both.insert(SECRET_HEADER, HeaderValue::from_static(" h "));
        assert_eq!(
            secret_of(&both, "key=x", Some("key")).as_deref(),
            Some(&b"h"[..])
        );
    }

    #[test]
    fn x1b_the_secret_is_found_between_odd_separators_too() {
        let none = HeaderMap::new();
        let found = |query| {
            secret_of(&none, query, Some("key")).map(|s| String::from_utf8_lossy(&s).into_owned())
        };
        for odd in ["a=1&amp;key=s&b=2", "a=1;key=s;b=2", "a=1?key=s&b=2"] {
            assert_eq!(found(odd).as_deref(), Some("s"), "{odd}");
            assert_eq!(
                redact_query(odd, Some("key")),
                odd.replace("key=s", "key=***")
            );
        }
        assert_eq!(found("a=1&key=s;t").as_deref(), Some("s;t"));
        assert_eq!(redact_query("key=s;t&a=1", Some("key")), "key=***&a=1");
    }
}

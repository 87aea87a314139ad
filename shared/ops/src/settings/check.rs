//! What a value must look like, and how it is shown when it does not.
//!
//! Each function says what is wrong *and* what to write instead. A password never leaves here.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use secrecy::SecretString;

use crate::settings::postgres_url::PostgresUrl;
use crate::tls::CaFile;

/// Passwords in URLs (and `password=` in their queries) become `***`.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let authority = after
            .find(['/', '?', '#', ' ', '"', '\''])
            .unwrap_or(after.len());
        // A password may itself hold a '/': then the last '@' of the word tells where it ends.
        let word = after.find([' ', '"', '\'']).unwrap_or(after.len());
        let at_sign = after[..authority].rfind('@').or_else(|| {
            after[..authority]
                .find(':')
                .and_then(|_| after[..word].rfind('@'))
        });
        match at_sign {
            Some(end) => {
                let user = after[..end].split(':').next().unwrap_or_default();
                out.push_str(user);
                if user.len() < end {
                    out.push_str(":***");
                }
                rest = &after[end..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    redact_parameter(&out, "password=")
}

fn redact_parameter(text: &str, name: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = rest.split_at(at + name.len());
        out.push_str(before);
        out.push_str("***");
        rest = &after[after.find(['&', ' ', '"']).unwrap_or(after.len())..];
    }
    out.push_str(rest);
    out
}

fn check_url(text: &str, schemes: &[&str], example: &str) -> Result<SecretString, String> {
    let Some(rest) = schemes.iter().find_map(|s| text.strip_prefix(s)) else {
        return Err(format!(
            "a URL is needed that starts with {}; such as {example}",
            schemes.join(" or ")
        ));
    };
    if rest.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "the URL names no host, or holds a blank; such as {example}"
        ));
    }
    Ok(SecretString::from(text))
}

pub fn postgres_url(text: &str) -> Result<SecretString, String> {
    let example = "postgres://user:password@host:5432/database";
    let checked = check_url(text, &["postgres://", "postgresql://"], example)?;
    let split = PostgresUrl::split(text).map_err(|e| format!("{e}; such as {example}"))?;
    if let Some(path) = &split.root_certificate {
        CaFile::read(path).map_err(|e| format!("sslrootcert is {path}: {e}"))?;
    }
    #[cfg(feature = "postgres-url")]
    split
        .for_driver
        .parse::<tokio_postgres::Config>()
        .map_err(|e| format!("{}; such as {example}", error_chain(&e)))?;
    Ok(checked)
}

pub fn amqp_url(text: &str) -> Result<SecretString, String> {
    let example = "amqp://user:password@host:5672/%2f";
    let checked = check_url(text, &["amqp://", "amqps://"], example)?;
    #[cfg(feature = "amqp-url")]
    text.parse::<lapin::uri::AMQPUri>()
        .map_err(|e| format!("{e}; such as {example} (%2f is the default vhost)"))?;
    Ok(checked)
}

pub fn redis_url(text: &str) -> Result<SecretString, String> {
    check_url(
        text,
        &["redis://", "rediss://"],
        "redis://user:password@host:6379/0",
    )
}

/// Without the `/` at the end, so that a path can be put after it.
pub fn public_url(text: &str) -> Result<String, String> {
    use secrecy::ExposeSecret;
    let checked = check_url(text, &["http://", "https://"], "https://hooks.example.com")?;
    Ok(checked.expose_secret().trim_end_matches('/').to_owned())
}

#[cfg(feature = "postgres-url")]
fn error_chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", error_chain(source)),
        None => error.to_string(),
    }
}

pub fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an address and a port are needed, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080".into()
    })
}

/// Whole hours.
pub fn parse_hours(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "a whole number of hours is needed, or 0 for never".into())
}

pub fn parse_positive(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| "a whole number is needed, 1 or more".into())
}

pub fn positive_bytes(text: &str) -> Result<NonZeroU64, String> {
    let (digits, unit) = match text.trim().to_ascii_lowercase() {
        t if t.ends_with("gib") => (t[..t.len() - 3].to_owned(), 1 << 30),
        t if t.ends_with("mib") => (t[..t.len() - 3].to_owned(), 1 << 20),
        t if t.ends_with("kib") => (t[..t.len() - 3].to_owned(), 1 << 10),
        t => (t, 1),
    };
    digits
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .and_then(NonZeroU64::new)
        .ok_or_else(|| "a number of bytes is needed, 1 or more, such as 1073741824 or 1GiB".into())
}

pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    /// A day: what waits longer is no grace.
    const MOST: u64 = 86_400;
    match text.parse::<u64>() {
        Ok(n) if (1..=MOST).contains(&n) => Ok(Duration::from_secs(n)),
        _ => Err(format!("a whole number of seconds is needed, 1 to {MOST}")),
    }
}

pub fn parse_milliseconds(text: &str) -> Result<Duration, String> {
    /// A sender does not wait longer than this for everything together.
    const MOST: u64 = 2_000;
    match text.parse::<u64>() {
        Ok(n) if (1..=MOST).contains(&n) => Ok(Duration::from_millis(n)),
        _ => Err(format!(
            "a whole number of milliseconds is needed, 1 to {MOST}"
        )),
    }
}

pub fn log_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|e| {
            format!("{e}; give a level (error, warn, info, debug, trace) or target=level,…")
        })
}

/// Long enough that nobody guesses it (characters).
const ADMIN_KEY_AT_LEAST: usize = 16;

pub fn admin_key(text: &str) -> Result<SecretString, String> {
    if text.len() < ADMIN_KEY_AT_LEAST || text.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err(format!(
            "a key of at least {ADMIN_KEY_AT_LEAST} characters without blanks is needed; make one with `openssl rand -hex 24`"
        ));
    }
    Ok(SecretString::from(text))
}

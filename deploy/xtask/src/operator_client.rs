//! The operator API, as a user of it would call it: one account's key, JSON in, JSON out.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{self, Answer, Request};

pub struct Api {
    /// `http://host:port` of the console.
    pub base: String,
    pub key: String,
}

impl Api {
    pub fn get(&self, path: &str) -> Result<Value> {
        good("GET", path, &self.send("GET", path, b"")?)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        good(
            "POST",
            path,
            &self.send("POST", path, body.to_string().as_bytes())?,
        )
    }

    /// `None` for what is not there (yet).
    pub fn find(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.send("GET", path, b"")?;
        if answer.status == 404 {
            return Ok(None);
        }
        good("GET", path, &answer).map(Some)
    }

    /// Does this key still open this account?
    pub fn key_is_valid(&self) -> bool {
        self.send("GET", "/webhooks?limit=1", b"")
            .is_ok_and(|answer| answer.status == 200)
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let url = format!("{}/api/v1{path}", self.base);
        let bearer = format!("Bearer {}", self.key);
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        http::send(&Request {
            method,
            url: &url,
            headers: &headers,
            body,
        })
    }
}

fn good(method: &str, path: &str, answer: &Answer) -> Result<Value> {
    if (200..300).contains(&answer.status) {
        return answer.json();
    }
    bail!(
        "{method} {path} answers {}: {}",
        answer.status,
        answer.text()
    )
}

/// A text of an answer that must be there.
pub fn text(value: &Value, name: &str) -> Result<String> {
    let found = value.get(name).and_then(Value::as_str);
    Ok(found
        .with_context(|| format!("the answer names no `{name}`: {value}"))?
        .to_owned())
}

/// Whole cents as dollars.
pub fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!(
        "{sign}${}.{:02}",
        cents.unsigned_abs() / 100,
        cents.unsigned_abs() % 100
    )
}

/// Where a webhook's reports go.
pub fn door(gateway: &str, token: &str) -> String {
    format!("{gateway}/api/v1/ppc/inbound-webhooks/{token}")
}

pub fn part<'a>(value: &'a Value, name: &str) -> Result<&'a Value> {
    value
        .get(name)
        .with_context(|| format!("the state of `up` names no {name}; run `cargo xtask up` again"))
}

//! A running console on a database of its own, and its client.

use std::net::SocketAddr;

use serde_json::{Value, json};
use trueup_testkit::database::TestDatabase;
use trueup_testkit::http::{self, Answer};
use trueup_testkit::process::{Process, Start};

pub const ADMIN_KEY: &str = "an-admin-key-of-the-tests-0123456789";
pub const PUBLIC_URL: &str = "https://reports.example.test";

pub struct Console {
    // Before the database: it goes first.
    pub process: Process,
    pub address: SocketAddr,
    pub database: TestDatabase,
}

impl Console {
    pub async fn start() -> Console {
        Console::start_with(|start| start).await
    }

    pub async fn start_with(set: impl FnOnce(Start) -> Start) -> Console {
        let database = TestDatabase::fresh().await;
        let mut process = set(Console::settings(&database.url)).ready().await;
        let address = process.address("console").await;
        Console {
            process,
            address,
            database,
        }
    }

    pub fn settings(postgres_url: &str) -> Start {
        Start::new(env!("CARGO_BIN_EXE_trueup-console"))
            .env("TRUEUP_POSTGRES_URL", postgres_url)
            .env("TRUEUP_ADMIN_KEY", ADMIN_KEY)
            .env("TRUEUP_PUBLIC_URL", PUBLIC_URL)
    }

    pub fn admin(&self) -> Key {
        Key {
            address: self.address,
            key: ADMIN_KEY.to_owned(),
        }
    }

    /// A new account's first key.
    pub async fn account(&self) -> Key {
        let made = self
            .admin()
            .post("/api/v1/accounts", json!({ "name": "Acme Calls" }))
            .await
            .created();
        Key {
            address: self.address,
            key: made["api_key"].as_str().expect("a key").to_owned(),
        }
    }
}

/// Sends requests with one key.
#[derive(Clone)]
pub struct Key {
    pub address: SocketAddr,
    pub key: String,
}

/// An answer's status and JSON (null if there is none).
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub json: Value,
    pub answer: Answer,
}

impl Said {
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.json);
        self.json
    }

    pub fn created(self) -> Value {
        assert_eq!(self.status, 201, "{}", self.json);
        self.json
    }

    /// The problem, which must be of this status and about this field.
    pub fn problem(self, status: u16, field: Option<&str>) -> Value {
        assert_eq!(self.status, status, "{}", self.json);
        assert_eq!(
            self.answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["field"].as_str(), field, "{}", self.json);
        for member in ["type", "title", "detail"] {
            assert!(
                self.json[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{}",
                self.json
            );
        }
        self.json
    }
}

impl Key {
    pub async fn send(&self, method: &str, path: &str, body: &[u8]) -> Said {
        let bearer = format!("Bearer {}", self.key);
        let answer = http::send(
            self.address,
            method,
            path,
            &[("Authorization", &bearer)],
            body,
        )
        .await
        .expect("the console answers");
        let json = if answer.body.is_empty() {
            Value::Null
        } else {
            answer.json()
        };
        Said {
            status: answer.status,
            json,
            answer,
        }
    }

    pub async fn get(&self, path: &str) -> Said {
        self.send("GET", path, b"").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Said {
        self.send("POST", path, body.to_string().as_bytes()).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Said {
        self.send("PATCH", path, body.to_string().as_bytes()).await
    }

    pub async fn delete(&self, path: &str) -> Said {
        self.send("DELETE", path, b"").await
    }

    /// Makes something that has a name, and gives its id.
    pub async fn named(&self, what: &str, name: &str) -> String {
        id(&self
            .post(&format!("/api/v1/{what}"), json!({ "name": name }))
            .await
            .created())
    }

    /// An assignment with these terms, of a new publisher; both ids.
    pub async fn assignment(&self, payout: Value) -> (String, String) {
        let campaign = self.named("campaigns", "HVAC").await;
        let publisher = self.named("publishers", "Ann").await;
        let body = json!({ "campaign_id": campaign, "publisher_id": publisher, "payout": payout });
        (
            id(&self.post("/api/v1/assignments", body).await.created()),
            publisher,
        )
    }
}

pub fn id(json: &Value) -> String {
    json["id"].as_str().expect("an id").to_owned()
}

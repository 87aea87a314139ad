//! Operators at the console meanwhile: they record calls late, correct estimates, and replay, assign,
//! apply, ignore, open again or undo rows. A 200 to a recorded call is a promise like the door's.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use trueup_testkit::http;
use uuid::Uuid;

use crate::fixtures::{
    API_KEY, Account, CALLS, LATE_CALLS, late_caller, late_ref_id, ref_id, seconds,
};
use crate::topology::Cluster;

/// Operators are slower than machines.
const PAUSE: Duration = Duration::from_millis(25);
/// The console may wait for Postgres, but not for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(45);

#[derive(Default)]
pub struct Done {
    /// Calls whose recording was answered 200.
    pub recorded: HashSet<Uuid>,
    pub answers: BTreeMap<u16, u64>,
    /// Answers that the contract does not have.
    pub strange: Vec<String>,
}

pub struct SimulatedOperators {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Done>,
}

impl SimulatedOperators {
    pub fn start(scene: &Cluster, seed: u64) -> SimulatedOperators {
        let stop = Arc::new(AtomicBool::new(false));
        let operator = SimulatedOperator {
            random: StdRng::seed_from_u64(seed ^ 0x5EED),
            desk: scene.desk,
            account: scene.account.clone(),
            late: (0..LATE_CALLS).map(|_| Uuid::new_v4()).collect(),
            rows: Vec::new(),
            done: Done::default(),
        };
        SimulatedOperators {
            task: tokio::spawn(operator.run(Arc::clone(&stop))),
            stop,
        }
    }

    pub async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_default()
    }
}

struct SimulatedOperator {
    random: StdRng,
    desk: SocketAddr,
    account: Account,
    /// The ids under which late calls are recorded.
    late: Vec<Uuid>,
    /// Rows that were seen last.
    rows: Vec<String>,
    done: Done,
}

impl SimulatedOperator {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Done {
        while !stop.load(Ordering::Relaxed) {
            match self.random.random_range(0..10) {
                0..3 => self.record().await,
                3 => self.look().await,
                _ => self.act().await,
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.done
    }

    /// A few calls: late ones for the first time, or again with another estimate.
    async fn record(&mut self) {
        let mut copies = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let known = self.random.random_bool(0.3);
            let n = self
                .random
                .random_range(0..if known { CALLS } else { LATE_CALLS });
            let id = if known {
                self.account.calls[n]
            } else {
                self.late[n]
            };
            let caller = if known {
                crate::fixtures::caller(n)
            } else {
                late_caller(n)
            };
            let value = [1_000, 2_500, 4_000][self.random.random_range(0..3)];
            let ended = Timestamp::now() - SignedDuration::from_mins(2);
            copies.push(json!({
                "id": id,
                "ref_id": if known { ref_id(n) } else { late_ref_id(n) },
                "caller": caller,
                "duration_seconds": seconds(n),
                "started_at": (ended - SignedDuration::from_secs(seconds(n).into())).to_string(),
                "assignment_id": self.account.assignments[n % self.account.assignments.len()],
                "value_cents": value,
                "qualified": self.random.random_bool(0.7),
            }));
            ids.push(id);
        }
        let (status, answer) = self
            .ask("POST", "/api/v1/calls", &Value::Array(copies))
            .await;
        if status == 200 {
            let failed: HashSet<usize> = answer["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|error| usize::try_from(error["index"].as_u64()?).ok())
                .collect();
            let kept = ids
                .into_iter()
                .enumerate()
                .filter(|(at, _)| !failed.contains(at))
                .map(|(_, id)| id);
            self.done.recorded.extend(kept);
        }
    }

    async fn look(&mut self) {
        let path = format!(
            "/api/v1/webhooks/{}/events?limit=100",
            self.account.webhook.id
        );
        let (status, answer) = self.ask("GET", &path, &Value::Null).await;
        if status == 200 {
            let rows = answer["data"].as_array().into_iter().flatten();
            self.rows = rows
                .filter_map(|row| Some(row["id"].as_str()?.to_owned()))
                .collect();
        }
    }

    async fn act(&mut self) {
        if self.rows.is_empty() {
            return self.look().await;
        }
        let row = self.rows[self.random.random_range(0..self.rows.len())].clone();
        let call = self.account.calls[self.random.random_range(0..CALLS)];
        let (action, body) = match self.random.random_range(0..14) {
            0..4 => ("replay", json!({})),
            4..6 => ("assign", json!({ "call_id": call })),
            6 => ("apply", json!({})),
            7 => (
                "apply",
                json!({ "payout_cents": self.random.random_range(0..9_000) }),
            ),
            8..10 => ("ignore", json!({})),
            10 => ("unignore", json!({})),
            _ => ("undo", json!({})),
        };
        self.ask("POST", &format!("/api/v1/events/{row}/{action}"), &body)
            .await;
    }

    /// Status 0: no answer.
    async fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {API_KEY}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let asking = http::send(self.desk, method, path, &headers, text.as_bytes());
        let (status, answer) = match tokio::time::timeout(ANSWER_WITHIN, asking).await {
            Ok(Ok(answer)) => (
                answer.status,
                serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
            ),
            Ok(Err(_)) | Err(_) => (0, Value::Null),
        };
        *self.done.answers.entry(status).or_default() += 1;
        // 404: a row that is not there yet; 409, 422: what cannot be done to it.
        if !matches!(status, 0 | 200 | 404 | 409 | 422 | 503) {
            self.done
                .strange
                .push(format!("{method} {path}: {status} with {answer}"));
        }
        (status, answer)
    }
}

//! Senders that cost as much as they are let: of another account, in the shapes that are expensive to read, to
//! match and to hold. What they are answered 200 for must have its row like everything else, and no process
//! may need more memory than its container has.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use trueup_testkit::builders::{self, Call, Webhook, WebhookSpec};
use trueup_testkit::http::Client;
use trueup_testkit::services::process::memory_of;
use uuid::Uuid;

use crate::senders::Sent;
use crate::topology::Cluster;

/// Elements of a hostile batch: enough to meet every bound, few enough to be settled after the run.
const ELEMENTS: usize = 200;
/// A sender's own pause between two requests.
const PAUSE: Duration = Duration::from_millis(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(25);
/// Connections that begin a head and never end it.
const HALF_HEADS: usize = 200;
/// Connections that send a body byte by byte.
const SLOW_BODIES: usize = 60;
/// What the contract lets a door answer to these.
const ANSWERS: [u16; 7] = [200, 400, 408, 413, 429, 431, 503];
/// Resident bytes of a gateway or a console, and of a worker, at most: what their containers have.
const DOOR_BYTES: u64 = 256 * 1024 * 1024;
const WORKER_BYTES: u64 = 384 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Different payouts for one call (V13).
    HotCall,
    /// Guesses of one caller and one length (M4, M15).
    OneCaller,
    /// Reports about calls that never come (M7).
    NeverRecorded,
    /// Many fields in each element (X1).
    ManyFields,
    /// No JSON, and every byte escaped.
    NoJson,
    /// A query that every element shares (X3).
    LongQuery,
    /// Blanks, a byte a chunk.
    BlankChunks,
}

const SHAPES: [Shape; 7] = [
    Shape::HotCall,
    Shape::OneCaller,
    Shape::NeverRecorded,
    Shape::ManyFields,
    Shape::NoJson,
    Shape::LongQuery,
    Shape::BlankChunks,
];

pub struct HostileSenders {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Sent>>,
}

/// The account that they send to; before anything is started, so that every door knows it.
pub async fn open_account(scene: &Cluster) -> Webhook {
    let client = scene.client().await;
    let account_id = builders::account(&client).await;
    let webhook = builders::webhook(&client, account_id, &WebhookSpec::open()).await;
    let call = Call {
        ref_id: Some("hot"),
        caller: Some("+13055550199"),
        duration_seconds: 90,
        ..Call::default()
    };
    builders::call(&client, account_id, &call).await;
    webhook
}

impl HostileSenders {
    pub fn start(scene: &Cluster, webhook: &Webhook, seed: u64) -> HostileSenders {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (n, shape) in (0..).zip(SHAPES) {
            let sender = HostileSender {
                random: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(500 + n)),
                doors: scene.doors.clone(),
                path: webhook.path(),
                shape,
                sent: Sent::default(),
            };
            tasks.push(tokio::spawn(sender.run(Arc::clone(&stop))));
        }
        let slow = [
            (HALF_HEADS, "X-Filler: "),
            (SLOW_BODIES, "Content-Length: 60000\r\n\r\n"),
        ];
        for (count, rest) in slow {
            for n in 0..count {
                let head = format!(
                    "POST {} HTTP/1.1\r\nHost: door.test\r\n{rest}",
                    webhook.path()
                );
                let door = scene.doors[n % scene.doors.len()];
                tasks.push(tokio::spawn(dawdle(door, head, Arc::clone(&stop))));
            }
        }
        HostileSenders { stop, tasks }
    }

    /// What they saw is added to `sent`.
    pub async fn stop(self, sent: &mut Sent) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let Ok(theirs) = task.await else { continue };
            sent.accepted.extend(theirs.accepted);
            sent.strange.extend(theirs.strange);
        }
    }
}

struct HostileSender {
    random: StdRng,
    doors: Vec<SocketAddr>,
    path: String,
    shape: Shape,
    sent: Sent,
}

impl HostileSender {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Sent {
        while !stop.load(Ordering::Relaxed) {
            // A door that is away is none of its business; an answer of its is looked at.
            match tokio::time::timeout(ANSWER_WITHIN, self.send()).await {
                Ok(_) => {}
                Err(_) => self.sent.strange.push(format!(
                    "{:?}: no answer within {ANSWER_WITHIN:?}",
                    self.shape
                )),
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.sent
    }

    async fn send(&mut self) -> std::io::Result<()> {
        let door = self.doors[self.random.random_range(0..self.doors.len())];
        let mut client = Client::connect(door).await?;
        let request = self.request();
        client.write(&request).await?;
        let answer = client.answer(false).await?;
        if !ANSWERS.contains(&answer.status) {
            let strange = format!("{:?}: {} {}", self.shape, answer.status, answer.text());
            self.sent.strange.push(strange);
        }
        if answer.status == 200 {
            let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let many = json["event_ids"].as_array().into_iter().flatten();
            let ids = many.chain([&json["event_id"]]);
            let ids = ids.filter_map(|id| id.as_str()?.parse().ok());
            self.sent.accepted.extend(ids.collect::<Vec<Uuid>>());
        }
        Ok(())
    }

    fn request(&mut self) -> Vec<u8> {
        let query = match self.shape {
            Shape::LongQuery => format!("?filler={}", "q".repeat(7_000)),
            _ => String::new(),
        };
        let head = format!(
            "POST {}{query} HTTP/1.1\r\nHost: door.test\r\nContent-Type: application/json\r\n",
            self.path
        );
        if matches!(self.shape, Shape::BlankChunks) {
            let chunks = "1\r\n \r\n".repeat(20_000);
            return format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
                .into_bytes();
        }
        let body = match self.shape {
            Shape::NoJson => format!("[{}", "\"".repeat(300_000)),
            _ => self.batch(),
        };
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn batch(&mut self) -> String {
        let mut body = String::from("[");
        for n in 0..ELEMENTS {
            let cents = self.random.random_range(1..1_000_000);
            let payout = format!("\"payout\":\"{}.{:02}\"", cents / 100, cents % 100);
            // Writing to a String does not fail.
            let _ = match self.shape {
                Shape::OneCaller => write!(
                    body,
                    "{{\"caller_id\":\"+13055550199\",\"duration\":80,{payout}}},"
                ),
                Shape::NeverRecorded => write!(body, "{{\"ref_id\":\"no-{cents}-{n}\",{payout}}},"),
                Shape::ManyFields => {
                    let fields: String = (0..180).map(|f| format!("\"f{f}\":1,")).collect();
                    write!(body, "{{{fields}{payout}}},")
                }
                _ => write!(body, "{{\"ref_id\":\"hot\",{payout}}},"),
            };
        }
        body.pop();
        body.push(']');
        body
    }
}

/// Begins a request and goes on with a byte now and then, until it is cut or the run is over.
async fn dawdle(door: SocketAddr, head: String, stop: Arc<AtomicBool>) -> Sent {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect(door).await {
            let mut alive = stream.write_all(head.as_bytes()).await.is_ok();
            while alive && !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(PAUSE).await;
                alive = stream.write_all(b"x").await.is_ok();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Sent::default()
}

/// No process of the cluster has needed more memory than it may.
pub fn check_memory(scene: &mut Cluster) -> anyhow::Result<String> {
    let mut said = Vec::new();
    let gateways = scene.gateways.iter().flatten();
    let doors = gateways
        .chain(&scene.console)
        .map(|door| (door, DOOR_BYTES));
    let workers = scene.workers.iter().flatten();
    for (process, bound) in doors.chain(workers.map(|worker| (worker, WORKER_BYTES))) {
        // The most that it was resident with.
        let peak = memory_of(process.id(), "VmHWM:");
        ensure!(
            peak <= bound,
            "a process needed {} MiB, more than {}",
            peak >> 20,
            bound >> 20
        );
        said.push((peak >> 20).to_string());
    }
    Ok(format!("at most {} MiB", said.join(", ")))
}

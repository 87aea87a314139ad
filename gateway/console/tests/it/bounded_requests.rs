//! What one request can make the console spend, whoever sends it.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::console::Console;
use crate::pages::{PASSWORD, PageUser, add_user};

/// A body of the largest kind and what stands beside it, not a multiple of its bytes (KiB).
const HEADROOM: u64 = 96 * 1024;

/// Shorter than the console lets a head take: only a crowd that makes room lets a page come by then.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// The most memory that the process ever had (KiB).
pub fn peak_memory(console: &Console) -> u64 {
    let path = format!("/proc/{}/status", console.process.id());
    let status = std::fs::read_to_string(path).expect("a running process");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|size| size.trim().strip_suffix(" kB"))
        .and_then(|size| size.parse().ok())
        .expect("a peak")
}

#[tokio::test]
async fn two_million_tiny_calls_are_refused_before_they_are_taken_apart() {
    let console = Console::start().await;
    let key = console.account().await;
    let before = peak_memory(&console);
    for body in [
        "{\"a\":1}\n".repeat(2_000_000),
        format!("[{}0]", "{\"a\":1},".repeat(2_000_000)),
        format!("[{}0]", "[],".repeat(5_000_000)),
    ] {
        let said = key.send("POST", "/api/v1/calls", body.as_bytes()).await;
        said.problem(413, None);
    }
    let grown = peak_memory(&console) - before;
    assert!(grown < HEADROOM, "the console grew by {grown} KiB");
}

#[tokio::test]
async fn one_huge_call_spoils_none_of_its_neighbours() {
    let console = Console::start().await;
    let key = console.account().await;
    let good =
        json!({"ref_id": "R1", "duration_seconds": 60, "started_at": "2026-03-14T12:00:00Z"});
    let huge = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(100_000));
    let before = peak_memory(&console);
    let body = format!("{good}\n{huge}\n");
    let said = key
        .send("POST", "/api/v1/calls", body.as_bytes())
        .await
        .ok();
    assert_eq!(said["accepted"], 1, "{said}");
    assert_eq!(said["errors"][0]["index"], 1, "{said}");
    let message = said["errors"][0]["message"].as_str().expect("a message");
    assert!(message.contains("at most 16384 bytes"), "{message}");
    let grown = peak_memory(&console) - before;
    assert!(grown < HEADROOM, "the console grew by {grown} KiB");
}

#[tokio::test]
async fn a_thousand_calls_of_unknown_fields_are_answered_in_few_words() {
    let console = Console::start().await;
    let key = console.account().await;
    let fields: String = (0..1_500).map(|n| format!("\"{n:x}\":1,")).collect();
    let body = format!("{{{fields}\"a\":1}}\n").repeat(1_000);
    let before = peak_memory(&console);
    let said = key
        .send("POST", "/api/v1/calls", body.as_bytes())
        .await
        .ok();
    assert_eq!(said["accepted"], 0);
    let errors = said["errors"].as_array().expect("errors");
    assert!(errors.len() < 20_000, "{} errors", errors.len());
    assert!(
        errors.iter().any(|e| e["message"]
            .as_str()
            .is_some_and(|m| m.contains("fields from here on"))),
        "the rest is counted"
    );
    let grown = peak_memory(&console) - before;
    assert!(grown < HEADROOM, "the console grew by {grown} KiB");
}

#[tokio::test]
async fn a_form_of_nobody_is_small_and_has_few_fields() {
    let console = Console::start().await;
    let account = crate::console::id(&console.account().await.get("/api/v1/account").await.ok());
    add_user(&console, &account, "ann@example.test", "owner").await;
    let before = peak_memory(&console);
    let mut stranger = PageUser::nobody(console.address);
    stranger.get("/sign-in").await;
    let blank = [("a", ""); 400];
    assert_eq!(stranger.post("/sign-in", &blank).await.status, 413);
    let long = "a".repeat(2_000_000);
    let large = [("email", long.as_str())];
    for path in ["/sign-in", "/try"] {
        assert_eq!(stranger.post(path, &large).await.status, 413, "{path}");
    }
    let grown = peak_memory(&console) - before;
    assert!(grown < HEADROOM / 4, "the console grew by {grown} KiB");

    let mut ann = PageUser::nobody(console.address);
    ann.sign_in("ann@example.test", PASSWORD).await;
    let pasted = [("webhook", ""), ("text", long.as_str())];
    assert_ne!(
        ann.post("/try", &pasted).await.status,
        413,
        "a pasted batch"
    );
    assert_eq!(ann.post("/webhooks", &large).await.status, 413);
}

/// One address opens more connections than there are places and never ends a head on any of them.
#[tokio::test]
async fn a_crowd_that_never_ends_its_heads_keeps_nobody_out() {
    const CROWD: usize = 1_150;
    let console = Console::start().await;
    let mut crowd = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let mut stream = tokio::net::TcpStream::connect(console.address)
            .await
            .expect("a connection");
        // One that was shut out already cannot be written to.
        let _ = stream
            .write_all(b"GET /sign-in HTTP/1.1\r\nHost: x\r\nX-a: ")
            .await;
        crowd.push(stream);
    }
    let mut visitor = PageUser::nobody(console.address);
    for _ in 0..20 {
        let page = tokio::time::timeout(PATIENCE, visitor.get("/sign-in"))
            .await
            .expect("the page comes while the crowd stands");
        assert_eq!(page.status, 200);
    }
    drop(crowd);
}

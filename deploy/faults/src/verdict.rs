//! What must hold once everything has come to rest.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use trueup_shared::queue::topology;
use uuid::Uuid;

use crate::scene::Scene;
use crate::senders::Sent;

/// The queue is empty and nothing is due within this.
const REST_WITHIN: Duration = Duration::from_secs(120);

pub async fn at_rest(scene: &mut Scene, sent: &Sent) -> anyhow::Result<String> {
    let verdict = check(scene, sent).await;
    verdict.with_context(|| format!("what the processes said:\n{}\n", last_lines(&scene.logs())))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

async fn check(scene: &mut Scene, sent: &Sent) -> anyhow::Result<String> {
    ensure!(
        sent.strange.is_empty(),
        "answers that the contract does not have: {:?}",
        &sent.strange[..sent.strange.len().min(5)]
    );
    ensure!(!sent.accepted.is_empty(), "no report was accepted at all");
    let rows = rest(scene, &sent.accepted).await?;
    for id in &sent.accepted {
        match rows.get(id) {
            Some(1) => {}
            Some(n) => bail!("event {id} was answered 200 and has {n} rows"),
            None => bail!("event {id} was answered 200 and has no row"),
        }
    }
    let (code, says) = scene.command(&["reconcile", "--replay"]).await;
    ensure!(code == 0, "reconcile exits with {code}:\n{says}");
    let session = scene.lease.broker().await;
    let dead = topology::depth(session.connection(), topology::DEAD_QUEUE).await?.unwrap_or(0);
    ensure!(dead == 0, "{dead} healthy envelopes are among the dead letters");
    let failed: i64 =
        scene.client.query_one("SELECT count(*) FROM events WHERE reason = 'processing_failed'", &[]).await?.get(0);
    ensure!(failed == 0, "{failed} healthy events are set aside as failed");
    Ok(summary(sent, rows.len()))
}

fn summary(sent: &Sent, rows: usize) -> String {
    let mut millis = sent.millis.clone();
    millis.sort_unstable();
    let p99 = millis.get(millis.len() * 99 / 100).copied().unwrap_or_default();
    let answers: Vec<String> = sent.answers.iter().map(|(status, n)| format!("{n}×{status}")).collect();
    format!("{} accepted, {rows} rows · answers {} · p99 of the 200s {p99} ms", sent.accepted.len(), answers.join(" "))
}

/// Waits until every accepted id has its row and the queue is empty; returns the rows by id.
async fn rest(scene: &Scene, accepted: &[Uuid]) -> anyhow::Result<HashMap<Uuid, i64>> {
    let started = Instant::now();
    let session = scene.lease.broker().await;
    loop {
        let waiting = topology::depth(session.connection(), topology::QUEUE).await?.unwrap_or(0)
            + topology::depth(session.connection(), topology::PARKED_QUEUE).await?.unwrap_or(0);
        let rows: HashMap<Uuid, i64> = scene
            .client
            .query("SELECT id, count(*) FROM events WHERE status <> 'refused' GROUP BY id", &[])
            .await?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let missing = accepted.iter().filter(|id| !rows.contains_key(id)).count();
        if waiting == 0 && missing == 0 {
            return Ok(rows);
        }
        ensure!(
            started.elapsed() < REST_WITHIN,
            "not at rest after {REST_WITHIN:?}: {waiting} messages wait, {missing} of {} accepted events have no row",
            accepted.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

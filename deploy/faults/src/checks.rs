//! What must hold once everything has come to rest, and once everything has been sent again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio_postgres::Client;
use trueup_event::envelope;
use trueup_event::raw_event::{Envelope, RawEvent};
use trueup_queue::topology;
use trueup_store::stored_requests::load_requests;
use trueup_store::{Pool, PoolSettings};
use uuid::Uuid;

use crate::operators::Done;
use crate::senders::Sent;
use crate::topology::Cluster;

/// The queue is empty and nothing is due within this.
const REST_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub async fn at_rest(
    scene: &mut Cluster,
    sent: &Sent,
    done: &Done,
    seed: u64,
) -> anyhow::Result<String> {
    let verdict = check(scene, sent, done, seed).await;
    let said = last_lines(&scene.logs());
    verdict.with_context(|| format!("what the processes said:\n{said}\n"))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}

async fn check(scene: &mut Cluster, sent: &Sent, done: &Done, seed: u64) -> anyhow::Result<String> {
    let strange: Vec<&String> = sent.strange.iter().chain(&done.strange).take(5).collect();
    ensure!(
        strange.is_empty(),
        "answers that the contract does not have: {strange:#?}"
    );
    ensure!(!sent.accepted.is_empty(), "no report was accepted at all");
    let client = scene.client().await;
    rest(scene, &client, &sent.accepted).await?;
    let rows = one_row_each(&client, &sent.accepted).await?;
    recorded_calls_are_there(&client, done).await?;
    reconciled(scene).await?;

    // Applied twice and in another order: nothing moves (invariant 3).
    let before = figures(&client).await?;
    let posted: i64 = client
        .query_one("SELECT coalesce(max(seq), 0) FROM postings", &[])
        .await?
        .get(0);
    let again = send_all_again(scene, &client, seed).await?;
    scene.start_worker(0);
    rest(scene, &client, &[]).await?;
    let after = figures(&client).await?;
    ensure!(
        before == after,
        "settling everything again changed the books from {before} to {after}:\n{}",
        postings_since(&client, posted).await?
    );
    reconciled(scene).await?;

    let session = scene.ground.lease.broker().await;
    let dead = topology::queue_depth(session.connection(), topology::DEAD_QUEUE)
        .await?
        .unwrap_or(0);
    ensure!(
        dead == 0,
        "{dead} healthy envelopes are among the dead letters"
    );
    let failed: i64 = client
        .query_one(
            "SELECT count(*) FROM events WHERE reason = 'processing_failed'",
            &[],
        )
        .await?
        .get(0);
    ensure!(
        failed == 0,
        "{failed} healthy events are set aside as failed"
    );
    Ok(summary(sent, done, rows, again))
}

fn listed(answers: impl Iterator<Item = (u16, u64)>) -> String {
    answers
        .map(|(status, n)| format!("{n}×{status}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn summary(sent: &Sent, done: &Done, rows: usize, again: usize) -> String {
    format!(
        "{} accepted, {rows} rows, {again} settled again · door {} · operators {}, {} bulk replays · p99 of the 200s {} ms",
        sent.accepted.len(),
        listed(sent.answers.iter().map(|(s, n)| (*s, *n))),
        listed(done.answers.iter().map(|(s, n)| (*s, *n))),
        done.bulk_replays,
        sent.p99(),
    )
}

/// Waits until every accepted id has its row, nothing waits on the broker or in a worker's hands, and
/// no report waits for a call that is there. The workers have ended then.
async fn rest(scene: &mut Cluster, client: &Client, accepted: &[Uuid]) -> anyhow::Result<()> {
    let deadline = Instant::now() + REST_WITHIN;
    let session = scene.ground.lease.broker().await;
    let mut untried = None;
    loop {
        loop {
            let waiting = waiting(&session).await?;
            let missing = missing(client, accepted).await?;
            let pending = pending(client).await?;
            if waiting == 0 && missing == 0 && pending == 0 {
                if untried == Some(unmatched(client).await?) {
                    break;
                }
                untried = Some(all_are_due(client).await?);
                continue;
            }
            ensure!(
                Instant::now() < deadline,
                "not at rest after {REST_WITHIN:?}: {waiting} messages wait, {missing} of {} accepted events have no \
                 row, {pending} notes, bulk replays and reports whose calls are there wait",
                accepted.len()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // What a worker held goes back to the queue when it ends: only then is empty really empty.
        for n in 0..2 {
            scene.stop_worker(n).await?;
        }
        if waiting(&session).await? == 0 {
            return Ok(());
        }
        scene.start_worker(0);
    }
}

async fn waiting(session: &trueup_queue::connection::BrokerConnection) -> anyhow::Result<u32> {
    let mut sum = 0;
    for queue in [
        topology::QUEUE,
        topology::OVERFLOW_QUEUE,
        topology::PARKED_QUEUE,
    ] {
        sum += topology::queue_depth(session.connection(), queue)
            .await?
            .unwrap_or(0);
    }
    Ok(sum)
}

async fn missing(client: &Client, accepted: &[Uuid]) -> anyhow::Result<i64> {
    // Hashed, not looked up one by one: the partitions have no index on the id alone.
    let missing = "SELECT count(*) FROM unnest($1::uuid[]) AS a (id)
        LEFT JOIN (SELECT DISTINCT id FROM events) e USING (id) WHERE e.id IS NULL";
    Ok(client.query_one(missing, &[&accepted]).await?.get(0))
}

/// Notes of calls that no worker took up, reports that a note has made due, or whose call is there by
/// its ref_id (M7), and bulk replays that are not finished (M8).
async fn pending(client: &Client) -> anyhow::Result<i64> {
    let pending = "SELECT (SELECT count(*) FROM call_recorded_outbox)
        + (SELECT count(*) FROM bulk_replays WHERE finished_at IS NULL)
        + (SELECT count(*) FROM pending_reports p WHERE next_try_at <= now() OR EXISTS
            (SELECT 1 FROM calls c WHERE c.account_id = p.account_id AND c.ref_id = p.ref_id))";
    Ok(client.query_one(pending, &[]).await?.get(0))
}

/// Reports that wait for their calls.
async fn unmatched(client: &Client) -> anyhow::Result<i64> {
    Ok(client
        .query_one("SELECT count(*) FROM pending_reports", &[])
        .await?
        .get(0))
}

/// What a person assigned may tell where others of the same caller and duration belong; they find it at the
/// next time of their schedule, which is made now. Returns how many wait.
async fn all_are_due(client: &Client) -> anyhow::Result<i64> {
    client
        .execute("UPDATE pending_reports SET next_try_at = now()", &[])
        .await?;
    unmatched(client).await
}

/// Returns how many rows there are in all.
async fn one_row_each(client: &Client, accepted: &[Uuid]) -> anyhow::Result<usize> {
    let select = "SELECT id, count(*) FROM events WHERE status <> 'refused' GROUP BY id";
    let rows: HashMap<Uuid, i64> = client
        .query(select, &[])
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for id in accepted {
        match rows.get(id) {
            Some(1) => {}
            Some(n) => bail!("event {id} was answered 200 and has {n} rows"),
            None => bail!("event {id} was answered 200 and has no row"),
        }
    }
    let mut ids = accepted.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == accepted.len(), "two reports were given one id");
    Ok(rows.len())
}

async fn recorded_calls_are_there(client: &Client, done: &Done) -> anyhow::Result<()> {
    let ids: Vec<Uuid> = done.recorded.iter().copied().collect();
    let found = client
        .query_one("SELECT count(*) FROM calls WHERE id = ANY($1)", &[&ids])
        .await?;
    let found: i64 = found.get(0);
    ensure!(
        usize::try_from(found)? == ids.len(),
        "{} calls were recorded and {found} are there",
        ids.len()
    );
    Ok(())
}

/// The invariants over the stored books, and every call's reports folded anew.
async fn reconciled(scene: &Cluster) -> anyhow::Result<()> {
    let (code, says) = scene.command(&["reconcile", "--replay"]).await;
    ensure!(code == 0, "reconcile exits with {code}:\n{says}");
    Ok(())
}

/// All that is money, and how many rows there are, in one line.
async fn figures(client: &Client) -> anyhow::Result<String> {
    let figures = "SELECT format('%s events, %s postings, calls %s, balances %s',
        (SELECT count(*) FROM events), (SELECT count(*) FROM postings),
        (SELECT md5(string_agg(concat_ws(',', id, value_cents, value_from_webhook, qualified, publisher_payout_cents), ';' ORDER BY id)) FROM calls),
        (SELECT string_agg(pending_balance_cents::text, ',' ORDER BY id) FROM publishers))";
    Ok(client.query_one(figures, &[]).await?.get(0))
}

/// What was posted after this place in the ledger, and by which rows.
async fn postings_since(client: &Client, posted: i64) -> anyhow::Result<String> {
    let select = "SELECT concat_ws(' ', p.seq, p.created_at, p.kind, p.actor, p.revenue_delta_cents, p.credit_delta_cents, 'by',
            e.id, e.received_at, e.processed_at, e.status, e.reason, e.strategy, e.ref_id, e.caller, e.duration_seconds, e.payout_raw,
            'of call', c.id, c.ref_id, c.caller, c.duration_seconds, c.created_at)
        FROM postings p LEFT JOIN events e ON e.id = p.event_id LEFT JOIN calls c ON c.id = p.call_id
       WHERE p.seq > $1 ORDER BY p.seq LIMIT 20";
    let rows = client.query(select, &[&posted]).await?;
    Ok(rows
        .iter()
        .map(|row| row.get::<_, String>(0))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Every request that became a row, in an order of the seed's own, in envelopes of any size.
async fn send_all_again(scene: &Cluster, client: &Client, seed: u64) -> anyhow::Result<usize> {
    let select = "SELECT id, received_at, account_id, webhook_id, position, source_ip FROM events ORDER BY received_at, id";
    let rows = client.query(select, &[]).await?;
    let settings = PoolSettings::for_application("trueup-faults", 1);
    let pool = Pool::new(&scene.ground.database.url, &settings)?;
    let keys: Vec<_> = rows.iter().map(|row| (row.get(1), row.get(0))).collect();
    let mut kept = load_requests(&pool.get().await?, &keys).await?;
    let mut events = Vec::new();
    for row in rows {
        let id: Uuid = row.get(0);
        // What a person applied has none, nor has what stands for requests that were refused.
        let Some(kept) = kept.remove(&id) else {
            continue;
        };
        let kept = kept.whole().context("a request cannot be read")?;
        events.push(RawEvent {
            id,
            received_at: row.get(1),
            account_id: row.get(2),
            webhook_id: row.get(3),
            position: u16::try_from(row.get::<_, i32>(4))?,
            source_ip: row
                .get::<_, Option<std::net::IpAddr>>(5)
                .context("a report has a source")?,
            request: Some(kept.request),
            refusal: None,
        });
    }
    events.shuffle(&mut StdRng::seed_from_u64(seed));
    let session = scene.ground.lease.broker().await;
    let channel = session.confirm_channel().await?;
    for envelope in events.chunks(97) {
        topology::publish_event(
            &channel,
            None,
            &envelope::encode_envelope(&Envelope::from_events(envelope.to_vec())),
        )
        .await?;
    }
    session.close().await;
    Ok(events.len())
}

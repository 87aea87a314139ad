//! Too much of one thing, or too little of another: more load than the workers can settle, a broker
//! whose disk or memory is full. The door says 503 and keeps its word about what it took.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trueup_queue::topology;
use trueup_testkit::tcp_proxy::NetworkFault;

use crate::arguments::Arguments;
use crate::checks;
use crate::operators::SimulatedOperators;
use crate::senders::Senders;
use crate::services::Services;
use crate::topology::Cluster;

const WORKER_POSTGRES: usize = 4;
/// Envelopes that the queue of an overload holds.
const BOUND: u32 = 150;
/// The broker counts from time to time: it stops taking soon after the bound, not exactly at it.
const SLACK: u32 = 100;
const STATE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What was on its way when the alarm came may still be answered.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

pub async fn run(arguments: &Arguments, services: Services, seed: u64) -> Result<String> {
    let mut scene = Cluster::set(arguments, services, false).await?;
    if arguments.overload {
        scene.bound_the_queue(BOUND);
    }
    scene.start_all().await;
    let senders = Senders::start(&scene, seed);
    let operators = SimulatedOperators::start(&scene, seed)?;
    let span = Duration::from_secs(arguments.seconds);
    let (what, silent) = if arguments.overload {
        (overload(&mut scene, span).await?, Vec::new())
    } else {
        alarms(&mut scene, span).await?
    };
    scene.heal_and_restart().await?;
    let (sent, done) = (senders.stop().await, operators.stop().await);
    for (from, to) in silent {
        let within = sent
            .taken
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .count();
        ensure!(
            within == 0,
            "{within} reports were answered 200 while the broker took nothing"
        );
    }
    let refused = sent.answers.get(&503).copied().unwrap_or_default();
    ensure!(refused > 0, "nobody was answered 503");
    let summary = checks::at_rest(&mut scene, &sent, &done, seed).await?;
    Ok(format!("{what} · {summary}"))
}

/// Workers slower than the senders, until the queue is full and for `span` after that.
async fn overload(scene: &mut Cluster, span: Duration) -> Result<String> {
    scene
        .proxy(WORKER_POSTGRES)
        .set(NetworkFault::Slow(Duration::from_millis(150)));
    let session = scene.ground.lease.broker().await;
    let started = Instant::now();
    let (mut full, mut deepest) = (None, 0);
    loop {
        let depth = topology::queue_depth(session.connection(), topology::QUEUE)
            .await?
            .unwrap_or(0);
        deepest = deepest.max(depth);
        if full.is_none() && depth >= BOUND {
            full = Some(Instant::now());
        }
        if full.is_some_and(|since: Instant| since.elapsed() > span) {
            break;
        }
        ensure!(
            full.is_some() || started.elapsed() < STATE_WITHIN,
            "the queue holds {depth} and is not full"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    ensure!(
        deepest <= BOUND + SLACK,
        "the queue is bound to {BOUND} and held {deepest}"
    );
    Ok(format!(
        "the queue, bound to {BOUND} envelopes, held up to {deepest}"
    ))
}

/// The disk's alarm, then the memory's; returns the times in which nobody may be answered 200.
async fn alarms(scene: &mut Cluster, span: Duration) -> Result<(String, Vec<(Instant, Instant)>)> {
    let shared = scene
        .ground
        .services
        .clone()
        .context("needs a broker of its own")?;
    let mut silent = Vec::new();
    let limits: [(&[&str], &[&str]); 2] = [
        (
            &["set_disk_free_limit", "900000GB"],
            &["set_disk_free_limit", "200MB"],
        ),
        (
            &["set_vm_memory_high_watermark", "absolute", "1MB"],
            &["set_vm_memory_high_watermark", "0.3"],
        ),
    ];
    for (full, room) in limits {
        let private = shared.lock().await;
        private.broker.ctl(full)?;
        wait_for_state(scene, "degraded").await?;
        let from = Instant::now() + ON_ITS_WAY;
        tokio::time::sleep(ON_ITS_WAY + span).await;
        silent.push((from, Instant::now()));
        private.broker.ctl(room)?;
        drop(private);
        wait_for_state(scene, "ok").await?;
    }
    Ok(("the broker's disk full, then its memory".to_owned(), silent))
}

async fn wait_for_state(scene: &mut Cluster, state: &str) -> Result<()> {
    let deadline = Instant::now() + STATE_WITHIN;
    for gateway in scene.gateways.iter_mut().flatten() {
        loop {
            let readiness = gateway.readiness().await;
            ensure!(
                readiness["ready"] == true,
                "a gateway without its broker stays routable: {readiness}"
            );
            if readiness["dependencies"]["broker"]["state"] == state {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "/ready does not say {state}: {readiness}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

//! For those who outgrew one machine: a cluster of three brokers whose leader is killed, a Postgres
//! pair whose primary is killed, both under load. Says for how long the door and the settling paused.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trueup_queue::topology;

use crate::arguments::Arguments;
use crate::checks;
use crate::operators::SimulatedOperators;
use crate::senders::Senders;
use crate::services::{Private, Services};
use crate::topology::Cluster;

/// Longer than any election or promotion takes.
const BACK_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub async fn run(arguments: &Arguments, services: Services, seed: u64) -> Result<String> {
    let shared = services.clone().context("needs services of its own")?;
    let mut scene = Cluster::set(arguments, services, false).await?;
    scene.start_all().await;
    let senders = Senders::start(&scene, seed);
    let operators = SimulatedOperators::start(&scene, seed)?;
    let half = Duration::from_secs(arguments.seconds.div_ceil(2));
    tokio::time::sleep(half).await;
    let mut private = shared.lock().await;
    let what = if arguments.broker_cluster {
        kill_leader(&mut private)?
    } else {
        primary_dies(&mut private)
    };
    let killed = Instant::now();
    if arguments.postgres_replica {
        private.postgres[1].promote()?;
    }
    drop(private);
    let settling = settles_again(&scene, killed).await?;
    tokio::time::sleep(half).await;
    if arguments.broker_cluster {
        all_members_again(&mut *shared.lock().await).await?;
    }
    scene.heal_and_restart().await?;
    let (sent, done) = (senders.stop().await, operators.stop().await);
    let pause = sent.longest_pause(killed);
    let summary = checks::at_rest(&mut scene, &sent, &done, seed).await?;
    Ok(format!(
        "{what} · the door paused for {:.2} s, the settling for {:.2} s · {summary}",
        pause.as_secs_f64(),
        settling.as_secs_f64()
    ))
}

fn kill_leader(private: &mut Private) -> Result<String> {
    let (leader, online) = private.broker.leader(topology::QUEUE)?;
    ensure!(online == 3, "the queue has {online} members online, not 3");
    private.broker.kill_node(leader);
    Ok(format!(
        "node {} of 3, the queue's leader, killed",
        leader + 1
    ))
}

fn primary_dies(private: &mut Private) -> String {
    private.postgres[0].kill();
    "the primary killed, its replica promoted".to_owned()
}

/// From the kill until a row is written that was not there before; on the new primary, where there is one.
async fn settles_again(scene: &Cluster, killed: Instant) -> Result<Duration> {
    let rows = "SELECT count(*) FROM events WHERE processed_at > now() - interval '1 hour'";
    let client = scene.client().await;
    let before: i64 = client.query_one(rows, &[]).await?.get(0);
    loop {
        let now: i64 = client.query_one(rows, &[]).await?.get(0);
        if now > before {
            return Ok(killed.elapsed());
        }
        ensure!(
            killed.elapsed() < BACK_WITHIN,
            "nothing is settled {BACK_WITHIN:?} after the kill"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The dead node comes back and catches up.
async fn all_members_again(private: &mut Private) -> Result<()> {
    private.broker.start_dead_nodes()?;
    let deadline = Instant::now() + BACK_WITHIN;
    while private.broker.leader(topology::QUEUE)?.1 < 3 {
        ensure!(
            Instant::now() < deadline,
            "the node that was killed does not join the queue again"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

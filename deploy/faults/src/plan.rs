//! Which fault comes when: drawn from the seed, so that a run can be had again.

use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use trueup_shared::testkit::cutter::Weather;

use crate::scene::{LINKS, Scene};

/// Short enough that several fit a run, long enough that time-outs are met.
const FAULT_MILLIS: std::ops::Range<u64> = 50..2_500;
const CALM_MILLIS: std::ops::Range<u64> = 20..600;

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Link { link: usize, weather: Weather, millis: u64 },
    KillWorker { n: usize, millis: u64 },
    StopWorker { n: usize },
    KillGateway { n: usize, millis: u64 },
    StopGateway { n: usize },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Link { link, weather, millis } => write!(f, "{} {weather:?} for {millis} ms", LINKS[*link]),
            Fault::KillWorker { n, millis } => write!(f, "worker {n} killed, back after {millis} ms"),
            Fault::StopWorker { n } => write!(f, "worker {n} stopped (SIGTERM) and started again"),
            Fault::KillGateway { n, millis } => write!(f, "gateway {n} killed, back after {millis} ms"),
            Fault::StopGateway { n } => write!(f, "gateway {n} stopped (SIGTERM) and started again"),
        }
    }
}

pub struct Plan {
    random: StdRng,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        Plan { random: StdRng::seed_from_u64(seed) }
    }

    fn draw(&mut self) -> Fault {
        let n = self.random.random_range(0..2);
        let millis = self.random.random_range(FAULT_MILLIS);
        match self.random.random_range(0..10) {
            0..6 => {
                let weather = match self.random.random_range(0..3) {
                    0 => Weather::Cut,
                    1 => Weather::Hung,
                    _ => Weather::Slow(Duration::from_millis(self.random.random_range(5..200))),
                };
                Fault::Link { link: self.random.random_range(0..LINKS.len()), weather, millis }
            }
            6..8 => Fault::KillWorker { n, millis },
            8 => {
                if self.random.random_bool(0.5) {
                    Fault::StopWorker { n }
                } else {
                    Fault::StopGateway { n }
                }
            }
            _ => Fault::KillGateway { n, millis },
        }
    }

    /// One fault after the other for `span`; returns them.
    pub async fn play(mut self, scene: &mut Scene, span: Duration) -> anyhow::Result<Vec<Fault>> {
        let started = Instant::now();
        let mut played = Vec::new();
        while started.elapsed() < span {
            let fault = self.draw();
            played.push(fault);
            strike(scene, fault).await?;
            let calm = self.random.random_range(CALM_MILLIS);
            tokio::time::sleep(Duration::from_millis(calm)).await;
        }
        Ok(played)
    }
}

async fn strike(scene: &mut Scene, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Link { link, weather, millis } => {
            scene.cutter(link).set(weather);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            scene.cutter(link).restore();
        }
        Fault::KillWorker { n, millis } => {
            if let Some(mut worker) = scene.workers[n].take() {
                worker.kill();
            }
            tokio::time::sleep(Duration::from_millis(millis)).await;
            scene.start_worker(n);
        }
        Fault::KillGateway { n, millis } => {
            if let Some(mut gateway) = scene.gateways[n].take() {
                gateway.kill();
            }
            tokio::time::sleep(Duration::from_millis(millis)).await;
            scene.start_gateway(n);
        }
        Fault::StopWorker { n } => {
            if let Some(mut worker) = scene.workers[n].take() {
                worker.terminate();
                let code = worker.exit_code(Duration::from_secs(40)).await;
                anyhow::ensure!(matches!(code, 0 | 75), "a worker ended with {code}:\n{}", worker.log());
            }
            scene.start_worker(n);
        }
        Fault::StopGateway { n } => {
            if let Some(mut gateway) = scene.gateways[n].take() {
                gateway.terminate();
                let code = gateway.exit_code(Duration::from_secs(40)).await;
                anyhow::ensure!(matches!(code, 0 | 75), "a gateway ended with {code}:\n{}", gateway.log());
            }
            scene.start_gateway(n);
        }
    }
    Ok(())
}

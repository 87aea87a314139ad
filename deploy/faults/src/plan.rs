//! Which fault comes when: drawn from the seed, so that a run can be had again.

use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use trueup_testkit::tcp_proxy::NetworkFault;

use crate::topology::{Cluster, LINKS, faketime};

/// Short enough that several fit a run, long enough that the confirm's 1.5 s are met. The next fault
/// does not wait for the end of the last: two or three are there at once.
const FAULT_MILLIS: std::ops::Range<u64> = 50..2_200;
const CALM_MILLIS: std::ops::Range<u64> = 80..600;
/// By how much a gateway's clock may be off (s); M3 forgives five minutes.
const CLOCKS: std::ops::RangeInclusive<i32> = -12..=12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Link {
        link: usize,
        network_fault: NetworkFault,
        millis: u64,
    },
    KillWorker {
        n: usize,
        millis: u64,
    },
    StopWorker {
        n: usize,
    },
    KillGateway {
        n: usize,
        millis: u64,
    },
    StopGateway {
        n: usize,
    },
    KillConsole {
        millis: u64,
    },
    SetClock {
        n: usize,
        seconds: i32,
    },
    RestartRedis,
    RestartPostgres,
    RestartBroker,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Link {
                link,
                network_fault,
                millis,
            } => write!(f, "{} {network_fault:?} for {millis} ms", LINKS[*link]),
            Fault::KillWorker { n, millis } => {
                write!(f, "worker {n} killed, back after {millis} ms")
            }
            Fault::StopWorker { n } => write!(f, "worker {n} stopped (SIGTERM) and started again"),
            Fault::KillGateway { n, millis } => {
                write!(f, "gateway {n} killed, back after {millis} ms")
            }
            Fault::StopGateway { n } => {
                write!(f, "gateway {n} stopped (SIGTERM) and started again")
            }
            Fault::KillConsole { millis } => write!(f, "console killed, back after {millis} ms"),
            Fault::SetClock { n, seconds } => {
                write!(
                    f,
                    "gateway {n} killed and back with its clock off by {seconds} s"
                )
            }
            Fault::RestartRedis => write!(f, "Redis killed and started empty"),
            Fault::RestartPostgres => write!(f, "Postgres crashed and started again"),
            Fault::RestartBroker => write!(f, "RabbitMQ killed and started again"),
        }
    }
}

impl Fault {
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Link {
                network_fault: NetworkFault::Cut,
                ..
            } => "cut",
            Fault::Link {
                network_fault: NetworkFault::Hung,
                ..
            } => "hung",
            Fault::Link {
                network_fault: NetworkFault::Deaf,
                ..
            } => "deaf",
            Fault::Link {
                network_fault: NetworkFault::HalfClosed,
                ..
            } => "half-closed",
            Fault::Link { .. } => "slow",
            Fault::KillWorker { .. } => "worker kill",
            Fault::KillGateway { .. } => "gateway kill",
            Fault::KillConsole { .. } => "console kill",
            Fault::StopWorker { .. } | Fault::StopGateway { .. } => "sigterm",
            Fault::SetClock { .. } => "clock",
            Fault::RestartRedis => "redis restart",
            Fault::RestartPostgres => "postgres crash",
            Fault::RestartBroker => "broker kill",
        }
    }
}

/// What ends a fault, and when.
struct ScheduledRecovery {
    at: Instant,
    fault: Fault,
}

pub struct FaultSchedule {
    random: StdRng,
    played: Vec<Fault>,
    due: Vec<ScheduledRecovery>,
}

impl FaultSchedule {
    pub fn new(seed: u64) -> FaultSchedule {
        FaultSchedule {
            random: StdRng::seed_from_u64(seed),
            played: Vec::new(),
            due: Vec::new(),
        }
    }

    fn draw(&mut self) -> Fault {
        let n = self.random.random_range(0..2);
        let millis = self.random.random_range(FAULT_MILLIS);
        match self.random.random_range(0..30) {
            0..15 => {
                let slow = Duration::from_millis(self.random.random_range(5..200));
                let network_faults = [
                    NetworkFault::Cut,
                    NetworkFault::Hung,
                    NetworkFault::Slow(slow),
                    NetworkFault::Deaf,
                    NetworkFault::HalfClosed,
                ];
                let network_fault =
                    network_faults[self.random.random_range(0..network_faults.len())];
                Fault::Link {
                    link: self.random.random_range(0..LINKS.len()),
                    network_fault,
                    millis,
                }
            }
            15..19 => Fault::KillWorker { n, millis },
            19 => Fault::StopWorker { n },
            20 => Fault::StopGateway { n },
            21..24 => Fault::KillGateway { n, millis },
            24 => Fault::KillConsole { millis },
            25 | 26 => Fault::SetClock {
                n,
                seconds: self.random.random_range(CLOCKS),
            },
            27 => Fault::RestartRedis,
            28 => Fault::RestartPostgres,
            // The rarest: Erlang needs ten seconds to be there again.
            _ if self.random.random_bool(0.4) => Fault::RestartBroker,
            _ => Fault::RestartPostgres,
        }
    }

    /// A fault that these surroundings can have: another if services are not ours to kill.
    fn draw_possible(&mut self, scene: &Cluster) -> Fault {
        loop {
            let fault = self.draw();
            let possible = match fault {
                Fault::RestartRedis | Fault::RestartPostgres => scene.ground.services.is_some(),
                Fault::RestartBroker => scene.broker_is_safe_to_kill(),
                Fault::SetClock { .. } => faketime().is_some(),
                // What is down already cannot be killed.
                Fault::KillWorker { n, .. } | Fault::StopWorker { n } => scene.workers[n].is_some(),
                Fault::KillGateway { n, .. } | Fault::StopGateway { n } => {
                    scene.gateways[n].is_some()
                }
                Fault::KillConsole { .. } => scene.console.is_some(),
                Fault::Link { .. } => true,
            };
            if possible {
                return fault;
            }
        }
    }

    /// Faults for `span`; all of them are over then, or soon. What was played stays readable.
    pub async fn play(&mut self, scene: &mut Cluster, span: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < span {
            let fault = self.draw_possible(scene);
            self.played.push(fault);
            self.inject_fault(scene, fault).await?;
            let next =
                Instant::now() + Duration::from_millis(self.random.random_range(CALM_MILLIS));
            while let Some(at) = self
                .due
                .iter()
                .map(|due| due.at)
                .min()
                .filter(|at| *at <= next)
            {
                tokio::time::sleep_until(at.into()).await;
                self.end_due(scene);
            }
            tokio::time::sleep_until(next.into()).await;
        }
        Ok(())
    }

    /// Lists what was played, for a run that failed.
    pub fn print_plan(&self) {
        for fault in &self.played {
            trueup_testkit::output::print_line(format_args!("  {fault}"));
        }
    }

    pub fn played(&self) -> &[Fault] {
        &self.played
    }

    fn end_due(&mut self, scene: &mut Cluster) {
        let now = Instant::now();
        let (over, due) = std::mem::take(&mut self.due)
            .into_iter()
            .partition(|due| due.at <= now);
        self.due = due;
        let over: Vec<ScheduledRecovery> = over;
        for ScheduledRecovery { fault, .. } in over {
            match fault {
                Fault::Link { link, .. } => scene.proxy(link).restore(),
                Fault::KillWorker { n, .. } if scene.workers[n].is_none() => scene.start_worker(n),
                Fault::KillGateway { n, .. } if scene.gateways[n].is_none() => {
                    scene.start_gateway(n)
                }
                Fault::KillConsole { .. } if scene.console.is_none() => scene.start_console(),
                _ => {}
            }
        }
    }

    fn lasts(&mut self, fault: Fault, millis: u64) {
        self.due.push(ScheduledRecovery {
            at: Instant::now() + Duration::from_millis(millis),
            fault,
        });
    }

    async fn inject_fault(&mut self, scene: &mut Cluster, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Link {
                link,
                network_fault,
                millis,
            } => {
                scene.proxy(link).set(network_fault);
                self.lasts(fault, millis);
            }
            // A guard kills its process when it is dropped.
            Fault::KillWorker { n, millis } => {
                scene.workers[n] = None;
                self.lasts(fault, millis);
            }
            Fault::KillGateway { n, millis } => {
                scene.gateways[n] = None;
                self.lasts(fault, millis);
            }
            Fault::KillConsole { millis } => {
                scene.console = None;
                self.lasts(fault, millis);
            }
            Fault::StopWorker { n } => {
                scene.stop_worker(n).await?;
                scene.start_worker(n);
            }
            Fault::StopGateway { n } => {
                scene.stop_gateway(n).await?;
                scene.start_gateway(n);
            }
            Fault::SetClock { n, seconds } => {
                scene.gateways[n] = None;
                scene.set_clock(n, seconds);
                scene.start_gateway(n);
            }
            Fault::RestartRedis | Fault::RestartPostgres | Fault::RestartBroker => {
                restart(scene, fault).await?
            }
        }
        Ok(())
    }
}

impl Drop for FaultSchedule {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_plan();
        }
    }
}

async fn restart(scene: &Cluster, fault: Fault) -> anyhow::Result<()> {
    let Some(services) = &scene.ground.services else {
        return Ok(());
    };
    let mut private = services.lock().await;
    match fault {
        Fault::RestartRedis => private.redis.restart(),
        Fault::RestartPostgres => private.postgres[0].restart(),
        _ => {
            private.broker.kill_node(0);
            private.broker.start_node(0)
        }
    }
}

//! How a process ends: on SIGTERM, SIGINT or SIGHUP it drains within a grace, and its exit code says how.
//!
//! A second SIGTERM or SIGINT, or the end of the grace, cuts off what is left (75). A second SIGHUP does not: a
//! terminal that closes may send several.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::exit::ExitReason;
use crate::settings::BadConfig;

impl From<ExitReason> for ExitCode {
    fn from(exit: ExitReason) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Runs a process's main future on a runtime of `threads` threads (one: everything on this thread).
/// An error is logged and ends the process with its code; a panic with 70.
pub fn run<F>(threads: NonZeroU32, main: F) -> ExitCode
where
    F: Future<Output = Result<ExitReason, Failure>>,
{
    // Both TLS stacks below use the process's provider; installing it twice is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = if threads.get() == 1 {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.get() as usize)
            .enable_all()
            .build()
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!(error = %e, "no runtime");
            return ExitReason::Bug.into();
        }
    };
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(main)));
    // What is still running (a read of a dead disk, say) must not hold the process up.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match outcome {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => {
            tracing::error!(error = %failure.why, "giving up");
            failure.exit.into()
        }
        Err(_) => ExitReason::Bug.into(),
    }
}

/// Why a main future could not go on.
#[derive(Debug)]
pub struct Failure {
    pub exit: ExitReason,
    pub why: String,
}

impl Failure {
    pub fn new(exit: ExitReason, why: impl std::fmt::Display) -> Self {
        Failure {
            exit,
            why: why.to_string(),
        }
    }

    /// A setting that only the process itself could try out, and what to do about it.
    pub fn bad_setting(variable: &str, why_and_fix: impl std::fmt::Display) -> Self {
        Failure::new(ExitReason::BadConfig, BadConfig::new(variable, why_and_fix))
    }

    /// A listener's address that cannot be had. One that somebody else has may be had later: 64 would tell
    /// whoever restarts us that it never can be.
    pub fn unbound_address(variable: &str, address: SocketAddr, error: &std::io::Error) -> Self {
        let mut failure = Failure::bad_setting(
            variable,
            format!(
                "cannot listen on {address}: {error}; end what has it, or give another address"
            ),
        );
        if error.kind() == std::io::ErrorKind::AddrInUse {
            failure.exit = ExitReason::Unavailable;
        }
        failure
    }
}

/// Says when to stop, and how long that may take.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stop: CancellationToken,
    cut: CancellationToken,
    grace: Duration,
}

impl Shutdown {
    /// Listens for SIGTERM, SIGINT and SIGHUP from now on. Must be called inside the runtime. A hangup drains as
    /// well: settings are read at the start alone, and whoever restarts us then gets the new ones.
    pub fn install_signals(grace: Duration) -> std::io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let shutdown = Shutdown::manual(grace);
        let mine = shutdown.clone();
        spawn_vital("signals", async move {
            tokio::select! { _ = term.recv() => {} _ = int.recv() => {} _ = hangup.recv() => {} }
            tracing::info!(grace_seconds = mine.grace.as_secs(), "draining");
            mine.stop.cancel();
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                () = tokio::time::sleep(mine.grace) => {}
            }
            mine.cut.cancel();
        });
        Ok(shutdown)
    }

    /// One that only [`Shutdown::begin`] sets off.
    pub fn manual(grace: Duration) -> Self {
        Shutdown {
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            grace,
        }
    }

    pub fn begin(&self) {
        self.stop.cancel();
    }

    /// Cancelled when draining begins: take nothing new.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Cancelled when the grace is over: leave what is left.
    pub fn deadline(&self) -> &CancellationToken {
        &self.cut
    }

    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Runs the draining until it is done or cut.
    pub async fn drain(&self, draining: impl Future<Output = ()>) -> ExitReason {
        tokio::select! {
            () = draining => ExitReason::Drained,
            () = self.cut.cancelled() => {
                tracing::warn!("the grace is over; work was cut off");
                ExitReason::CutOff
            }
        }
    }
}

/// Spawns a task without which the process is no use: if it panics, the process ends with 70, and
/// whoever restarts it starts from a clean state instead of a half-dead one.
pub fn spawn_vital<F>(name: &'static str, task: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a vital task panicked; ending the process");
            std::process::exit(ExitReason::Bug.code().into());
        }
    })
}

//! How a process ends: the exit codes of the contract.

/// The exit codes of every Trueup process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// Everything in flight was finished.
    Drained,
    /// Only of commands that prove something (`reconcile`): it does not hold.
    Breach,
    /// Bad settings; said before any port was bound.
    BadConfig,
    /// A dependency never came up, or a port or a file that was told of is not to be had yet. Worth another start.
    Unavailable,
    /// A bug: a task of the process's own panicked.
    Bug,
    /// The grace ended (or a second signal came) with work in flight.
    CutOff,
}

impl ExitReason {
    pub const fn code(self) -> u8 {
        match self {
            ExitReason::Drained => 0,
            ExitReason::Breach => 1,
            ExitReason::BadConfig => 64,
            ExitReason::Unavailable => 69,
            ExitReason::Bug => 70,
            ExitReason::CutOff => 75,
        }
    }
}

//! The pauses of whoever tries something again.

use std::time::Duration;

use rand::RngExt;

/// The pauses between attempts: doubling, each with jitter, so that a hundred processes do not come back
/// as one.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    /// From 100 ms to 5 s: what is away may be so for long.
    pub fn new() -> Self {
        Backoff::between(Self::FIRST, Self::LONGEST)
    }

    pub fn between(first: Duration, longest: Duration) -> Self {
        Backoff {
            first,
            longest,
            next: first,
        }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now: between half of the step and the whole of it.
    pub fn next_pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        rand::rng().random_range(step / 2..=step)
    }

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_to_five_seconds_and_no_further() {
        let mut backoff = Backoff::new();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
        for _ in 0..20 {
            assert!(backoff.next_pause() <= Duration::from_secs(5));
        }
        assert!(backoff.next_pause() >= Duration::from_millis(2500));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
    }
}

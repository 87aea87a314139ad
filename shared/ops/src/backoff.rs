//! The pauses of whoever tries something again for ever.

use std::time::Duration;

use rand::RngExt;

/// The pauses between attempts: from 100 ms doubling to 5 s, each with jitter, so that a hundred
/// processes do not come back as one.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    pub fn new() -> Self {
        Backoff { next: Self::FIRST }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// How long to wait now: between half of the step and the whole of it.
    pub fn next_pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(Self::LONGEST);
        let millis = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(rand::rng().random_range(millis / 2..=millis))
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

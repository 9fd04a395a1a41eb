//! How long to wait before trying again.

use rand::Rng;
use std::time::Duration;

/// Exponential delays up to a cap, each with jitter of up to a half, so that clients do not move in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// # Panics
    /// When `initial` is zero or above `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        assert!(
            !initial.is_zero() && initial <= max,
            "a backoff starts above zero and at most at its cap"
        );
        Self { initial, max, next: initial }
    }

    /// The delay before the next attempt: between a half and the whole of the current step.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        rand::rng().random_range(step / 2..=step)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for step in [100, 200, 400, 400] {
            let delay = backoff.next_delay();
            assert!(
                delay >= Duration::from_millis(step / 2) && delay <= Duration::from_millis(step),
                "{delay:?} of {step}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}

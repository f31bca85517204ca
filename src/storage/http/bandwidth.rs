//! One limit of bytes per second for the whole process, uploads and downloads together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What may be moved at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Bandwidth {
    /// Bytes; 0: no limit.
    per_second: u64,
    /// When everything that was let through so far would have been moved at the given rate.
    busy_until: Mutex<Option<Instant>>,
}

impl Bandwidth {
    pub fn new(per_second: u64) -> Self {
        Self { per_second, busy_until: Mutex::new(None) }
    }

    /// Takes so many bytes of the limit, and says when they may move.
    pub fn take(&self, bytes: u64) -> Option<Instant> {
        if self.per_second == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let cost = Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
        let now = Instant::now();
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let rested = now.checked_sub(BURST).unwrap_or(now);
        let until = busy_until.map_or(rested, |until| until.max(rested)) + cost;
        *busy_until = Some(until);
        (until > now).then_some(until)
    }

    pub async fn pass(&self, bytes: u64) {
        if let Some(until) = self.take(bytes) {
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_users_together_get_the_rate() {
        let bandwidth = std::sync::Arc::new(Bandwidth::new(1_000_000));
        let begin = Instant::now();
        let users = (0..4).map(|_| {
            let bandwidth = std::sync::Arc::clone(&bandwidth);
            tokio::spawn(async move {
                for _ in 0..50 {
                    bandwidth.pass(50_000).await;
                }
            })
        });
        futures::future::join_all(users).await;
        let took = begin.elapsed().as_secs_f64();
        assert!((9.8..10.1).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_saved_up_and_zero_is_no_limit() {
        let bandwidth = Bandwidth::new(1000);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let begin = Instant::now();
        bandwidth.pass(2000).await;
        assert!(begin.elapsed() >= Duration::from_millis(1900));
        assert_eq!(Bandwidth::new(0).take(u64::MAX), None);
    }
}

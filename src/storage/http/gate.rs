//! How many requests are under way: fewer when the storage asks to slow down, and slowly more again.
//!
//! Additive increase, multiplicative decrease, as TCP does it: each `503 SlowDown` or `429` halves what may be under way, at
//! most once per half a second; each round of good answers allows one request more. `Retry-After` holds everything back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Answers to requests that were sent before the last halving say nothing new.
const PAUSE: Duration = Duration::from_millis(500);

/// A server that asks for more is not obeyed.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    /// `None`: nobody asked to slow down lately.
    limit: Option<f64>,
    /// The limit ends when it is as high as that.
    most: usize,
    halved: Option<Instant>,
    closed_until: Option<Instant>,
}

/// A request that is under way, until it is answered.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    pub fn new() -> Arc<Self> {
        let state = State { under_way: 0, limit: None, most: 0, halved: None, closed_until: None };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the permission to send a request. One that does not wait for others waits for the time that the
    /// storage named: leases must be renewed while files move.
    pub async fn pass(self: &Arc<Self>, waits: bool) -> Pass {
        loop {
            let changed = self.changed.notified();
            let closed_until = {
                let mut state = self.state();
                let closed = state.closed_until.filter(|until| *until > Instant::now());
                #[allow(clippy::cast_precision_loss, reason = "a small number")]
                let is_free =
                    !waits || state.limit.is_none_or(|limit| (state.under_way as f64) < limit.max(1.0).floor());
                if closed.is_none() && is_free {
                    state.under_way += 1;
                    return Pass(Arc::clone(self));
                }
                closed
            };
            match closed_until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => changed.await,
            }
        }
    }

    /// The storage asked to slow down. Returns how many requests may be under way now, if that is new.
    pub fn slow_down(&self, retry_after: Option<Duration>) -> Option<usize> {
        let mut state = self.state();
        let now = Instant::now();
        if let Some(wait) = retry_after {
            let until = now + wait.min(LONGEST_WAIT);
            state.closed_until = Some(state.closed_until.map_or(until, |known| known.max(until)));
        }
        if state.halved.is_some_and(|halved| now.duration_since(halved) < PAUSE) {
            return None;
        }
        state.halved = Some(now);
        state.most = state.most.max(state.under_way);
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        let limit = (state.limit.unwrap_or(state.under_way as f64) / 2.0).max(1.0);
        state.limit = Some(limit);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        Some(limit as usize)
    }

    /// An answer was good.
    pub fn well(&self) {
        let mut state = self.state();
        let Some(limit) = &mut state.limit else { return };
        *limit += 1.0 / *limit;
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        if *limit >= state.most as f64 {
            state.limit = None;
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(gate: &Gate) -> Option<f64> {
        gate.state().limit
    }

    #[tokio::test(start_paused = true)]
    async fn slowing_down_halves_and_good_answers_bring_it_back() {
        let gate = Gate::new();
        let mut passes = Vec::new();
        for _ in 0..16 {
            passes.push(gate.pass(true).await);
        }
        assert_eq!(gate.slow_down(None), Some(8));
        assert_eq!(gate.slow_down(None), None, "one answer of many");
        tokio::time::advance(PAUSE).await;
        assert_eq!(gate.slow_down(None), Some(4));
        passes.truncate(4);
        let waiting = tokio::time::timeout(Duration::from_secs(1), gate.pass(true)).await;
        assert!(waiting.is_err());
        // A small one does not wait.
        drop(gate.pass(false).await);
        passes.truncate(3);
        let fourth = gate.pass(true).await;
        for _ in 0..200 {
            gate.well();
        }
        assert_eq!(limit(&gate), None);
        drop(fourth);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_goes_on_when_another_one_ends() {
        let gate = Gate::new();
        let first = gate.pass(true).await;
        gate.slow_down(None);
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { drop(gate.pass(true).await) }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_obeyed_within_reason() {
        let gate = Gate::new();
        gate.slow_down(Some(Duration::from_secs(7)));
        let begin = Instant::now();
        drop(gate.pass(true).await);
        assert_eq!(begin.elapsed().as_secs(), 7);
        gate.slow_down(Some(Duration::from_hours(10)));
        let begin = Instant::now();
        drop(gate.pass(true).await);
        assert_eq!(begin.elapsed(), LONGEST_WAIT);
    }
}

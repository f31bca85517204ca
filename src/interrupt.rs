//! SIGINT, SIGTERM and SIGHUP, seen by every task.
//!
//! The first signal asks for an orderly end: work stops, what was begun is cleaned up. A later one ends the process at once.
//!
//! One wish may come as several signals: a terminal that hangs up sends SIGHUP twice, `timeout` sends its signal to the process
//! and to its group. So a repeat within `ONE_WISH` means nothing new, and SIGHUP never does.

use std::future::Future;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;

/// Signals that follow the first one so closely are the same wish to end.
const ONE_WISH: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    token: CancellationToken,
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// Starts to listen. Must be called inside of a runtime. `tell` gets a line about the first signal.
    pub fn listen(tell: impl Fn(&str) + Send + Sync + 'static) -> std::io::Result<Self> {
        let interrupt = Self::default();
        let (tell, first) = (Arc::new(tell), Arc::new(OnceLock::new()));
        let mut signals = vec![Signal::SIGINT, Signal::SIGTERM];
        if !is_ignored(Signal::SIGHUP) {
            signals.push(Signal::SIGHUP);
        }
        for number in signals.into_iter().map(|signal| signal as i32) {
            let mut arrivals = signal(SignalKind::from_raw(number))?;
            let (interrupt, tell, first) = (interrupt.clone(), Arc::clone(&tell), Arc::clone(&first));
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() {
                    let now = Instant::now();
                    if first.set(now).is_ok() {
                        interrupt.raise(number);
                        let name = name_of(number);
                        tell(&format!(
                            "{name}: ends in order; a signal that comes two seconds later ends it at once\n"
                        ));
                    } else if first.get().is_some_and(|first| ends_at_once(number, now.duration_since(*first))) {
                        std::process::exit(128 + number);
                    }
                }
            });
        }
        Ok(interrupt)
    }

    pub fn raise(&self, signal: i32) {
        self.signal.store(signal, Ordering::SeqCst);
        self.token.cancel();
    }

    /// One that is raised with this one, and can be raised alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), signal: Arc::clone(&self.signal) }
    }

    /// Raises it without a signal, for work that somebody else's failure makes useless.
    pub fn stop(&self) {
        self.token.cancel();
    }

    pub fn is_raised(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The failure that ends an interrupted command.
    pub fn failure(&self) -> Failure {
        let number = self.signal.load(Ordering::SeqCst);
        Failure::interrupted(number, format!("interrupted by {}", name_of(number)))
            .hint("the same command, run again, does the rest")
    }

    /// Fails once a signal came. For loops that do not wait for anything else.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_raised() { Err(self.failure()) } else { Ok(()) }
    }

    /// The same for work whose error may be an interrupt.
    pub async fn or_failure<T, E: From<Failure>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.failure().into()),
            result = work => result,
        }
    }

    /// Waits for the work or for a signal, whichever comes first. The work is dropped where the signal wins.
    pub async fn or<T, E: Into<anyhow::Error>>(&self, work: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.failure().into()),
            // What noticed the signal by itself fails in its own words.
            result = work => result.map_err(|error| if self.is_raised() { self.failure().into() } else { error.into() }),
        }
    }
}

fn name_of(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("a signal", Signal::as_str)
}

/// Whether a signal that came so long after the first one is a wish of its own.
fn ends_at_once(signal: i32, since_first: Duration) -> bool {
    signal != Signal::SIGHUP as i32 && since_first >= ONE_WISH
}

/// Whether the process was started with the signal ignored, as under nohup.
fn is_ignored(signal: Signal) -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (signal as u32 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_stopped_alone_and_raised_with_its_parent() {
        let parent = Interrupt::default();
        let (first, second) = (parent.child(), parent.child());
        first.stop();
        assert!(first.is_raised() && !second.is_raised() && !parent.is_raised());
        parent.raise(Signal::SIGTERM as i32);
        assert!(second.failure().message.contains("SIGTERM"));
    }

    #[test]
    fn only_a_later_signal_ends_at_once() {
        let (int, term, hup) = (Signal::SIGINT as i32, Signal::SIGTERM as i32, Signal::SIGHUP as i32);
        for signal in [int, term] {
            assert!(!ends_at_once(signal, Duration::ZERO));
            assert!(!ends_at_once(signal, ONE_WISH.mul_f64(0.9)));
            assert!(ends_at_once(signal, ONE_WISH));
        }
        assert!(!ends_at_once(hup, Duration::from_hours(1)));
    }
}

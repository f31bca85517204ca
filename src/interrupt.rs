//! SIGINT, SIGTERM and SIGHUP, seen by every task.
//!
//! The first signal asks for an orderly end: work stops, what was begun is cleaned up. A second one ends the process.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;

#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    token: CancellationToken,
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// Starts to listen. Must be called inside of a runtime.
    pub fn listen() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let mut signals = vec![Signal::SIGINT, Signal::SIGTERM];
        if !is_ignored(Signal::SIGHUP) {
            signals.push(Signal::SIGHUP);
        }
        for number in signals.into_iter().map(|signal| signal as i32) {
            let mut arrivals = signal(SignalKind::from_raw(number))?;
            let interrupt = interrupt.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() {
                    if interrupt.token.is_cancelled() {
                        std::process::exit(128 + number);
                    }
                    interrupt.raise(number);
                }
            });
        }
        Ok(interrupt)
    }

    pub fn raise(&self, signal: i32) {
        self.signal.store(signal, Ordering::SeqCst);
        self.token.cancel();
    }

    pub fn is_raised(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The failure that ends an interrupted command.
    pub fn failure(&self) -> Failure {
        let number = self.signal.load(Ordering::SeqCst);
        let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
        Failure::interrupted(number, format!("interrupted by {name}"))
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

/// Whether the process was started with the signal ignored, as under nohup.
fn is_ignored(signal: Signal) -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (signal as u32 - 1)) != 0
}

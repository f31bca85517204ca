//! Progress, as the working code sees it: it counts, and somebody shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Shows what happens. All of it goes to people, never to stdout.
pub trait Monitor: Send + Sync + std::fmt::Debug {
    /// One line about what begins.
    fn title(&self, text: &str);
    /// A step that ended.
    fn step(&self, label: &str, detail: &str, took: Duration);
    /// A step that moves files. It is shown until the returned guard is dropped.
    fn transfer(&self, label: &'static str, total: Amount) -> Transfer;
    /// A step that goes through things one after the other: shown like files of which nobody knows the size. One alone is not.
    fn count(&self, label: &'static str, total: usize) -> Transfer {
        let files = if total > 1 { total as u64 } else { 0 };
        self.transfer(label, Amount { files, bytes: 0 })
    }
    /// Something went wrong, and the work goes on.
    fn problem(&self, text: &str);
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub files: u64,
    pub bytes: u64,
}

impl Amount {
    pub fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl std::iter::Sum<u64> for Amount {
    fn sum<I: Iterator<Item = u64>>(sizes: I) -> Self {
        let mut amount = Self::default();
        sizes.for_each(|size| amount.add(size));
        amount
    }
}

/// What a transfer has moved so far.
#[derive(Debug, Default)]
pub struct Counters {
    files: AtomicU64,
    bytes: AtomicU64,
    /// These count the same bytes.
    whole: Option<Arc<Self>>,
}

impl Counters {
    /// Counts a part of a transfer that may be in vain.
    pub fn part_of(whole: &Arc<Self>) -> Self {
        Self { whole: Some(Arc::clone(whole)), ..Self::default() }
    }

    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.add_bytes(bytes);
        }
    }

    /// Bytes that were counted and did not arrive.
    pub fn take_back_bytes(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.take_back_bytes(bytes);
        }
    }

    pub fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub fn amount(&self) -> Amount {
        Amount { files: self.files.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// A transfer that is being shown.
pub struct Transfer {
    pub counters: Arc<Counters>,
    /// Run when the transfer ends.
    end: Option<Box<dyn FnOnce() + Send>>,
}

impl Transfer {
    pub fn new(counters: Arc<Counters>, end: impl FnOnce() + Send + 'static) -> Self {
        Self { counters, end: Some(Box::new(end)) }
    }
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transfer({:?})", self.counters.amount())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn title(&self, _: &str) {}
    fn step(&self, _: &str, _: &str, _: Duration) {}
    fn transfer(&self, _: &'static str, _: Amount) -> Transfer {
        Transfer::new(Arc::default(), || ())
    }
    fn problem(&self, _: &str) {}
}

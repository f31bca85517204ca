//! Progress for people: bars on a terminal, a line every ten seconds elsewhere. Always stderr.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output::harmless;
use crate::model::units::{clock, count, rate, size, took};
use crate::monitor::{Amount, Counters, Monitor, Transfer};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Between two pictures of a bar.
const FRAME: Duration = Duration::from_millis(100);

/// What shares stderr: bars, lines and log messages, none of which may tear another.
#[derive(Debug)]
pub struct Screen {
    bars: MultiProgress,
    terminal: bool,
}

impl Screen {
    pub fn new() -> Self {
        Self { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// Runs something that writes to stderr while no bar is drawn.
    pub fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.terminal { self.bars.suspend(write) } else { write() }
    }

    /// Writes whole lines.
    pub fn print(&self, lines: &str) {
        let lines = if self.terminal { harmless(lines) } else { lines.into() };
        self.suspended(|| {
            // Nobody is left to be told where stderr is closed.
            let _ = anstream::stderr().lock().write_all(lines.as_bytes());
        });
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// The monitor that suits stderr.
pub fn monitor(screen: &Arc<Screen>) -> Arc<dyn Monitor> {
    Arc::new(People { screen: Arc::clone(screen) })
}

#[derive(Debug)]
struct People {
    screen: Arc<Screen>,
}

impl Monitor for People {
    fn title(&self, text: &str) {
        self.screen.print(&format!("{text}\n"));
    }

    fn step(&self, label: &str, detail: &str, time: Duration) {
        self.screen.print(&format!("  {label:<10} {detail:<66} {}\n", took(time)));
    }

    fn transfer(&self, label: &'static str, total: Amount) -> Transfer {
        let counters = Arc::new(Counters::default());
        if total.files == 0 {
            return Transfer::new(counters, || ());
        }
        let follow =
            Follow { label, total, counters: Arc::clone(&counters), begin: Instant::now(), end: Arc::default() };
        let end = Arc::clone(&follow.end);
        let screen = Arc::clone(&self.screen);
        let following =
            std::thread::spawn(move || if screen.terminal { follow.bar(&screen) } else { follow.lines(&screen) });
        Transfer::new(counters, move || {
            end.raise();
            // The thread only draws; its panic would have been reported.
            let _ = following.join();
        })
    }

    fn problem(&self, text: &str) {
        self.screen.print(&format!("  problem: {text}\n"));
    }
}

/// Tells a drawing thread to stop, at once.
#[derive(Debug, Default)]
struct End {
    raised: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl End {
    fn raise(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.raised.store(true, Ordering::SeqCst);
        self.wake.notify_all();
    }

    /// Returns true when it is time to stop.
    fn wait(&self, time: Duration) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let still = |(): &mut ()| !self.raised.load(Ordering::SeqCst);
        drop(self.wake.wait_timeout_while(guard, time, still));
        self.raised.load(Ordering::SeqCst)
    }
}

/// One transfer that is shown.
struct Follow {
    label: &'static str,
    total: Amount,
    counters: Arc<Counters>,
    begin: Instant,
    end: Arc<End>,
}

impl Follow {
    fn bar(&self, screen: &Screen) {
        let style = ProgressStyle::with_template("  {prefix:<10} {bar:32} {msg}");
        let bar = ProgressBar::new(self.total.bytes.max(1)).with_prefix(self.label);
        let bar = screen
            .bars
            .add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")));
        loop {
            let done = self.counters.amount();
            bar.set_position(done.bytes.min(self.total.bytes));
            bar.set_message(self.state(done));
            if self.end.wait(FRAME) {
                break;
            }
        }
        bar.finish_and_clear();
        screen.bars.remove(&bar);
    }

    fn lines(&self, screen: &Screen) {
        while !self.end.wait(LINE_EVERY) {
            screen.print(&format!("  {} {}\n", self.label, self.state(self.counters.amount())));
        }
    }

    /// `26.0 GiB/38.1 GiB 68% 812/1,204 files 412 MiB/s 0:29 left`
    fn state(&self, done: Amount) -> String {
        let elapsed = self.begin.elapsed();
        let percent = (done.bytes.min(self.total.bytes) * 100).checked_div(self.total.bytes).unwrap_or(100);
        let left = self.total.bytes.saturating_sub(done.bytes);
        let seconds = u128::from(left) * elapsed.as_millis() / u128::from(done.bytes.max(1)) / 1000;
        let left = if done.bytes == 0 {
            String::new()
        } else {
            format!(" {} left", clock(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
        };
        format!(
            "{}/{} {percent}% {}/{} files {}{left}",
            size(done.bytes),
            size(self.total.bytes),
            count(done.files),
            count(self.total.files),
            rate(done.bytes, elapsed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_says_how_far_it_is() {
        let counters = Arc::new(Counters::default());
        counters.add_bytes(50 << 20);
        counters.add_file();
        let total = Amount { files: 1204, bytes: 100 << 20 };
        let begin = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let follow = Follow { label: "upload", total, counters: Arc::clone(&counters), begin, end: Arc::default() };
        let state = follow.state(counters.amount());
        assert!(state.starts_with("50.0 MiB/100.0 MiB 50% 1/1,204 files 5.0 MiB/s 0:"), "{state}");
    }

    #[test]
    fn an_end_is_seen_at_once() {
        let end = Arc::new(End::default());
        let raiser = Arc::clone(&end);
        let begin = Instant::now();
        std::thread::spawn(move || raiser.raise());
        assert!(end.wait(Duration::from_mins(1)));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}

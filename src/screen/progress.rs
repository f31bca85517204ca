//! Progress for people: bars on a terminal, a line every ten seconds elsewhere. Always stderr.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::logging::FILE;
use super::terminal::{Terminal, harmless};
use crate::model::look::{Look, Tone};
use crate::model::units::{clock, count, per_second, rate, size, took};
use crate::monitor::{Amount, Counters, Monitor, Transfer};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Between two pictures of a bar.
const FRAME: Duration = Duration::from_millis(100);

/// What shares stderr: bars, lines and log messages, none of which may tear another.
#[derive(Debug)]
pub struct Screen {
    bars: MultiProgress,
    terminal: Terminal,
    /// Only what went wrong is told.
    quiet: bool,
}

impl Screen {
    pub fn new(quiet: bool) -> Self {
        Self { bars: MultiProgress::new(), terminal: Terminal::stderr(), quiet }
    }

    /// As wide as the terminal is now.
    fn look(&self) -> Look {
        if self.terminal.is_one { Terminal::stderr().look } else { self.terminal.look }
    }

    /// Runs something that writes to stderr while no bar is drawn.
    pub fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.terminal.redraws { self.bars.suspend(write) } else { write() }
    }

    /// The level of a message with its colour.
    pub fn level(&self, level: &str) -> String {
        match level {
            "ERROR" => self.terminal.look.paint(Tone::Bad, level),
            "WARNING" => self.terminal.look.paint(Tone::Doubtful, level),
            _ => level.to_owned(),
        }
    }

    /// Writes whole lines.
    pub fn print(&self, lines: &str) {
        let lines = self.terminal.shown(lines);
        self.suspended(|| {
            // Nobody is left to be told where stderr is closed.
            let _ = std::io::stderr().lock().write_all(lines.as_bytes());
        });
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
        tracing::info!(target: FILE, "{}", harmless(text));
        if !self.screen.quiet {
            let look = self.screen.look();
            self.screen.print(&text.lines().map(|line| look.folded(line, 4)).collect::<String>());
        }
    }

    fn step(&self, label: &str, detail: &str, time: Duration) {
        tracing::info!(target: FILE, "{}", harmless(&format!("{label}: {detail} ({})", took(time))));
        if !self.screen.quiet {
            self.screen.print(&step_line(self.screen.look(), label, detail, time));
        }
    }

    fn transfer(&self, label: &'static str, total: Amount) -> Transfer {
        let counters = Arc::new(Counters::default());
        if total.files == 0 || self.screen.quiet {
            return Transfer::new(counters, || ());
        }
        let follow =
            Follow { label, total, counters: Arc::clone(&counters), begin: Instant::now(), end: Arc::default() };
        let end = Arc::clone(&follow.end);
        let screen = Arc::clone(&self.screen);
        let following =
            std::thread::spawn(
                move || {
                    if screen.terminal.redraws { follow.bar(&screen) } else { follow.lines(&screen) }
                },
            );
        Transfer::new(counters, move || {
            end.raise();
            // The thread only draws; its panic would have been reported.
            let _ = following.join();
        })
    }

    fn problem(&self, text: &str) {
        tracing::warn!(target: FILE, "{}", harmless(text));
        let look = self.screen.look();
        let line = format!("  {} {text}", look.paint(Tone::Doubtful, "problem:"));
        self.screen.print(&look.folded(&line, 4));
    }
}

/// A step that ended, with its time at the right.
fn step_line(look: Look, label: &str, detail: &str, time: Duration) -> String {
    // Label, blanks, and `12 min 34 s`.
    const OTHERS: usize = 2 + 10 + 1 + 1 + 11;
    let room = look.width.map_or(66, |width| width.saturating_sub(OTHERS).min(66));
    look.folded(&format!("  {label:<10} {detail:<room$} {}", took(time)), 13)
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
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = screen.bars.add(ProgressBar::new_spinner().with_style(style));
        loop {
            let width = screen.look().width.unwrap_or(80);
            bar.set_message(self.state().bar(self.label, width));
            bar.tick();
            if self.end.wait(FRAME) {
                break;
            }
        }
        bar.finish_and_clear();
        screen.bars.remove(&bar);
    }

    fn lines(&self, screen: &Screen) {
        while !self.end.wait(LINE_EVERY) {
            screen.print(&format!("  {} {}\n", self.label, self.state().line()));
        }
    }

    fn state(&self) -> State {
        State { done: self.counters.amount(), total: self.total, elapsed: self.begin.elapsed() }
    }
}

/// How far a transfer is. Where the total has no bytes, it is about things that are only counted.
#[derive(Debug, Clone, Copy)]
struct State {
    done: Amount,
    total: Amount,
    elapsed: Duration,
}

impl State {
    /// What is done, and all of it.
    fn share(&self) -> (u64, u64) {
        let of = |amount: Amount| if self.total.bytes == 0 { amount.files } else { amount.bytes };
        (of(self.done).min(of(self.total)), of(self.total))
    }

    /// `0:29 left`, once something is done.
    fn left(&self) -> Option<String> {
        let (done, total) = self.share();
        let seconds = u128::from(total - done) * self.elapsed.as_millis() / u128::from(done.max(1)) / 1000;
        (done > 0).then(|| format!("{} left", clock(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))))
    }

    /// What is said of it, with names.
    fn parts(&self) -> Vec<(&'static str, String)> {
        let (done, total) = self.share();
        let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100);
        let counted = |word: &str| format!("{}/{}{word}", count(self.done.files), count(self.total.files));
        let mut parts = Vec::new();
        if self.total.bytes == 0 {
            parts.push(("amount", counted("")));
            parts.push(("percent", format!("{percent}%")));
            parts.push(("rate", format!("{}/s", per_second(self.done.files, self.elapsed))));
        } else {
            parts.push(("amount", format!("{}/{}", size(self.done.bytes), size(self.total.bytes))));
            parts.push(("percent", format!("{percent}%")));
            parts.push(("files", counted(" files")));
            parts.push(("rate", rate(self.done.bytes, self.elapsed)));
        }
        parts.extend(self.left().map(|left| ("left", left)));
        parts
    }

    /// `26.0 GiB/38.1 GiB 68% 812/1,204 files 412 MiB/s 0:29 left`
    fn line(&self) -> String {
        self.parts().into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(" ")
    }

    /// The same behind a bar, in one line of a terminal: what has no room is left out.
    fn bar(&self, label: &str, width: usize) -> String {
        const LONGEST: usize = 32;
        const SHORTEST: usize = 10;
        let mut parts = self.parts();
        let wide = |parts: &[(&str, String)]| parts.iter().map(|(_, part)| part.chars().count() + 1).sum::<usize>();
        // In the last column some terminals begin a new line.
        let room = width.saturating_sub(2 + 10 + 1 + 1);
        for leaves in ["files", "percent", "amount"] {
            if wide(&parts) + SHORTEST > room {
                parts.retain(|(name, _)| *name != leaves);
            }
        }
        let long = room.saturating_sub(wide(&parts)).clamp(1, LONGEST);
        let (done, total) = self.share();
        let full = usize::try_from(u128::from(done) * long as u128 / u128::from(total.max(1))).unwrap_or(long);
        let (tip, rest) = if full < long { ("╸", long - full - 1) } else { ("", 0) };
        let bar = format!("{}{tip}{}", "━".repeat(full), "─".repeat(rest));
        let said = parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(" ");
        format!("  {label:<10} {bar} {said}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(done: (u64, u64), total: (u64, u64)) -> State {
        let amount = |(files, bytes)| Amount { files, bytes };
        State { done: amount(done), total: amount(total), elapsed: Duration::from_secs(10) }
    }

    #[test]
    fn the_state_says_how_far_it_is() {
        let half = state((1, 50 << 20), (1204, 100 << 20));
        assert_eq!(half.line(), "50.0 MiB/100.0 MiB 50% 1/1,204 files 5.0 MiB/s 0:10 left");
        assert_eq!(state((0, 0), (3, 9)).line(), "0 B/9 B 0% 0/3 files 0 B/s");
        assert_eq!(state((12, 0), (180, 0)).line(), "12/180 6% 1.2/s 2:20 left");
        assert_eq!(state((1200, 0), (1800, 0)).line(), "1,200/1,800 66% 120/s 0:05 left");
        assert_eq!(state((4, 10), (3, 9)).line(), "10 B/9 B 100% 4/3 files 1 B/s 0:00 left");
    }

    #[test]
    fn a_bar_fits_the_terminal() {
        let half = state((812, 26 << 30), (1204, 52 << 30));
        let wide = half.bar("upload", 160);
        let bar = format!("{}╸{}", "━".repeat(16), "─".repeat(15));
        assert_eq!(wide, format!("  upload     {bar} 26.0 GiB/52.0 GiB 50% 812/1,204 files 2.6 GiB/s 0:10 left"));
        for (width, said) in [(80, "26.0 GiB/52.0 GiB 50% 2.6 GiB/s 0:10 left"), (45, "2.6 GiB/s 0:10 left")] {
            let line = half.bar("upload", width);
            assert!(line.ends_with(&format!(" {said}")) && line.chars().count() < width, "{line}");
        }
        assert!(half.bar("upload", 1).contains("╸"));
    }

    #[test]
    fn a_step_fits_the_terminal() {
        let line = |width| step_line(Look::wide(width), "compare", "31,870 files, 1.4 TiB", Duration::from_secs(400));
        assert_eq!(line(None), format!("  compare    {:<66} 6 min 40 s\n", "31,870 files, 1.4 TiB"));
        assert!(line(Some(80)).trim_end().chars().count() <= 80);
        assert!(line(Some(80)).ends_with("  6 min 40 s\n"));
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

//! Log lines: on stderr, through the screen that also draws bars, and in the file of `[logging]`.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use fs_err as fs;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::progress::Screen;
use crate::config;
use crate::error::Failure;
use crate::model::units::Zone;

/// The target of events for the file alone: what people see on stderr in another form.
pub const FILE: &str = "medusa::file";

/// How much stderr gets.
#[derive(Debug, Clone, Copy)]
pub struct Verbosity {
    pub quiet: bool,
    /// How often `-v` was given.
    pub more: u8,
}

/// Starts logging. Call once.
///
/// # Errors
/// If the log file cannot be opened.
pub fn start(
    config: &config::Logging,
    verbosity: Verbosity,
    without_timestamp: bool,
    screen: &Arc<Screen>,
) -> Result<(), Failure> {
    let level = match verbosity {
        Verbosity { quiet: true, .. } => Level::WARN,
        Verbosity { more: 0, .. } => Level::INFO,
        Verbosity { more: 1, .. } => Level::DEBUG,
        _ => Level::TRACE,
    };
    let file = config
        .enabled
        .then(|| LogFile::open(config))
        .transpose()
        .map_err(|error| Failure::usage("could not open the log file of [logging]").cause(error))?;
    let lines = Lines { level, without_timestamp, screen: Arc::clone(screen), file: file.map(Mutex::new) };
    // Fails only where it was called before.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
    Ok(())
}

struct Lines {
    level: Level,
    without_timestamp: bool,
    screen: Arc<Screen>,
    file: Option<Mutex<LogFile>>,
}

/// Other crates say much, and may show what they were given. What matters comes back as an error anyway; their own errors are
/// shown to who asks for more.
fn is_wanted(metadata: &Metadata<'_>, level: Level) -> bool {
    if metadata.target().starts_with("medusa") {
        return *metadata.level() <= level;
    }
    level >= Level::DEBUG && *metadata.level() == Level::ERROR
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let file_level = self.file.as_ref().map(|file| file.lock().unwrap_or_else(PoisonError::into_inner).level);
        is_wanted(metadata, file_level.map_or(self.level, |level| level.max(self.level)))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let level = python_level(*event.metadata().level());
        let now = Utc::now();
        if event.metadata().target() != FILE && is_wanted(event.metadata(), self.level) {
            let time = if self.without_timestamp { String::new() } else { format!("[{}] ", python_time(&now)) };
            let level = self.screen.level(level);
            self.screen.print(&format!("{time}{level}: {}\n", message.0));
        }
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if is_wanted(event.metadata(), file.level) {
                file.write(&python_time(&now), level, &message.0);
            }
        }
    }
}

fn python_level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

fn python_time(now: &DateTime<Utc>) -> String {
    Zone::chosen().format(now, "%Y-%m-%d %H:%M:%S,%3f")
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// A log file that is rotated by size, as Python's `RotatingFileHandler` does: `medusa.log.1` is the newest old one.
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    level: Level,
    format: String,
    max_bytes: u64,
    backup_count: usize,
}

impl LogFile {
    fn open(config: &config::Logging) -> io::Result<Self> {
        let file = append_to(&config.file)?;
        let level = match config.level.as_str() {
            "critical" | "fatal" | "error" => Level::ERROR,
            "warning" | "warn" => Level::WARN,
            "info" => Level::INFO,
            "debug" => Level::DEBUG,
            _ => Level::TRACE,
        };
        Ok(Self {
            path: config.file.clone(),
            size: file.metadata()?.len(),
            file,
            level,
            format: config.format.clone(),
            max_bytes: config.max_bytes,
            backup_count: config.backup_count,
        })
    }

    /// A log that cannot be written is no reason to stop.
    fn write(&mut self, time: &str, level: &str, message: &str) {
        let line = self
            .format
            .replace("%(asctime)s", time)
            .replace("%(levelname)s", level)
            .replace("%(name)s", "medusa")
            .replace("%(message)s", message)
            + "\n";
        if self.max_bytes > 0 && self.size + line.len() as u64 >= self.max_bytes {
            let _ = self.rotate();
        }
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.size += line.len() as u64;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: usize| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..self.backup_count).rev().filter(|number| numbered(*number).exists()) {
            fs::rename(numbered(number), numbered(number + 1))?;
        }
        if self.backup_count > 0 {
            fs::rename(&self.path, numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = append_to(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    Ok(fs::OpenOptions::new().append(true).create(true).open(path)?.into_parts().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_rotated_by_size_and_old_ones_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("medusa.log");
        let config = config::Logging {
            enabled: true,
            file: path.clone(),
            level: "info".into(),
            format: "%(levelname)s: %(message)s".into(),
            max_bytes: 22,
            backup_count: 2,
        };
        let mut log = LogFile::open(&config).unwrap();
        for message in ["one", "two", "three", "four", "five", "six", "seven"] {
            log.write("now", "INFO", message);
        }
        let read = |suffix: &str| fs::read_to_string(format!("{}{suffix}", path.display())).ok();
        assert_eq!(read("").unwrap(), "INFO: seven\n");
        assert_eq!(read(".1").unwrap(), "INFO: five\nINFO: six\n");
        assert_eq!(read(".2").unwrap(), "INFO: four\n");
        assert_eq!(read(".3"), None);
    }
}

//! Sizes, counts and durations, as people read and write them.

use std::sync::OnceLock;
use std::time::Duration;

use chrono::{DateTime, Local, TimeZone, Utc};

/// A size in Medusa's own texts: steps of 1024 with the labels B, KB, MB, GB, TB.
pub fn medusa_size(bytes: u64) -> String {
    const LABELS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let step = (0..LABELS.len()).find(|step| bytes >> (step * 10) < 1024).unwrap_or(LABELS.len() - 1);
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let value = bytes as f64 / (1_u64 << (step * 10)) as f64;
    format!("{value:.2} {}", LABELS[step])
}

/// A size in Medusa's report of the last backup, which alone has the labels KiB, MiB and so on.
pub fn medusa_binary_size(bytes: u64) -> String {
    const LABELS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let mut value = bytes as f64;
    let mut step = 0;
    while value >= 1024.0 && step + 1 < LABELS.len() {
        value /= 1024.0;
        step += 1;
    }
    format!("{value:.2} {}", LABELS[step])
}

/// A size in our own texts: KiB, MiB, GiB, TiB, with one decimal where it says something.
pub fn size(bytes: u64) -> String {
    const LABELS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let step = (0..LABELS.len()).find(|step| bytes >> (step * 10) < 1024).unwrap_or(LABELS.len() - 1);
    if step == 0 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let value = bytes as f64 / (1_u64 << (step * 10)) as f64;
    if value >= 1000.0 { format!("{value:.0} {}", LABELS[step]) } else { format!("{value:.1} {}", LABELS[step]) }
}

/// A count with thousands separators: `31,870`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `n thing` or `n things`.
pub fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(n), if n == 1 { "" } else { "s" })
}

/// How long something took: `0.4 s`, `47 s`, `2 min 47 s`, `3 h 5 min`.
pub fn took(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Time left on a progress line: `0:29`, `1:02:03`.
pub fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// The time zone of what people read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Zone {
    /// Of this host, as Medusa.
    #[default]
    Local,
    Utc,
}

/// Like the zone of the host, it is the same for the whole process.
static CHOSEN: OnceLock<Zone> = OnceLock::new();

impl Zone {
    /// Chooses the zone of the process. The first choice counts.
    pub fn choose(self) {
        let _ = CHOSEN.set(self);
    }

    pub fn chosen() -> Self {
        CHOSEN.get().copied().unwrap_or_default()
    }

    /// A moment in a format of `chrono`.
    pub fn format<T: TimeZone>(self, time: &DateTime<T>, format: &str) -> String {
        match self {
            Self::Local => time.with_timezone(&Local).format(format).to_string(),
            Self::Utc => time.with_timezone(&Utc).format(format).to_string(),
        }
    }

    /// Unix seconds as Medusa prints them.
    pub fn time(self, seconds: i64) -> String {
        let time = DateTime::from_timestamp(seconds, 0);
        time.map_or_else(|| seconds.to_string(), |time| self.format(&time, "%Y-%m-%d %H:%M:%S"))
    }
}

/// Unix seconds as Medusa prints them, in the chosen zone.
pub fn time(seconds: i64) -> String {
    Zone::chosen().time(seconds)
}

/// `started 2026-04-12 01:00:04, finished 01:02:51 (2 min 47 s)`: for who reads it days later. `began`: Unix seconds.
pub fn span(zone: Zone, began: i64, duration: Duration) -> String {
    let ended = began.saturating_add(i64::try_from(duration.as_secs()).unwrap_or_default());
    format!("{} ({})", times(zone, began, ended), took(duration))
}

/// `started 2026-04-12 01:00:04, finished 01:02:51`; the day is not said twice. Unix seconds.
pub fn times(zone: Zone, began: i64, ended: i64) -> String {
    let (from, to) = (zone.time(began), zone.time(ended));
    let to = match (from.split_once(' '), to.split_once(' ')) {
        (Some((day, _)), Some((same, time))) if day == same => time,
        _ => &to,
    };
    format!("started {from}, finished {to}")
}

/// Bytes per second, as a size.
pub fn rate(bytes: u64, duration: Duration) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shown only"
    )]
    let per_second = (bytes as f64 / duration.as_secs_f64().max(0.001)) as u64;
    format!("{}/s", size(per_second))
}

/// Things per second: with a digit behind the point where there are few.
pub fn per_second(things: u64, duration: Duration) -> String {
    let tenths = u128::from(things) * 10_000 / duration.as_millis().max(1);
    match u64::try_from(tenths).unwrap_or(u64::MAX) {
        few @ ..100 => format!("{}.{}", few / 10, few % 10),
        many => count(many / 10),
    }
}

/// Reads a size from a configuration: Medusa's `50MB/s`, `20 MB`, `1024`, and the spellings that it refuses: `50mb`, `2GiB`,
/// `1.5GB`. Units are powers of 1024, as in Medusa.
pub fn parse_size(text: &str) -> Option<u64> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let compact = compact.strip_suffix("/s").unwrap_or(&compact);
    let split = compact.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(compact.len());
    let (number, unit) = compact.split_at(split);
    let unit = unit.to_ascii_uppercase();
    let steps = match unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit) {
        "" if unit != "IB" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return None,
    };
    let factor = 1_u64 << (steps * 10);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let (whole, fraction) = number.split_once('.')?;
    let decimals = fraction.len().try_into().ok().filter(|n| *n <= 9)?;
    let scale = 10_u64.pow(decimals);
    let scaled = whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    u64::try_from(u128::from(scaled) * u128::from(factor) / u128::from(scale)).ok()
}

/// Reads a truth value as Python's `ConfigParser` does: `1/yes/true/on`, `0/no/false/off`, any case.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Some(true),
        "0" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medusa_sizes_have_two_decimals_and_its_labels() {
        // Taken from medusa.storage.format_bytes_str of 0.31.0.
        for (bytes, text) in [
            (0, "0.00 B"),
            (1023, "1023.00 B"),
            (1024, "1.00 KB"),
            (1_288_490_188, "1.20 GB"),
            (1 << 50, "1024.00 TB"),
            (1 << 40, "1.00 TB"),
        ] {
            assert_eq!(medusa_size(bytes), text);
        }
    }

    #[test]
    fn medusas_report_has_binary_labels() {
        // Taken from medusa.report_latest.human_readable_size of 0.31.0.
        for (bytes, text) in [
            (0, "0.00 B"),
            (1023, "1023.00 B"),
            (1024, "1.00 KiB"),
            (1_048_575, "1024.00 KiB"),
            (1_288_490_188, "1.20 GiB"),
            (1 << 50, "1.00 PiB"),
            (u64::MAX, "16.00 EiB"),
        ] {
            assert_eq!(medusa_binary_size(bytes), text);
        }
    }

    #[test]
    fn sizes_counts_and_times_read_well() {
        assert_eq!(size(5), "5 B");
        assert_eq!(size(40_909_563_494), "38.1 GiB");
        assert_eq!(size(1_561_306_511_442), "1.4 TiB");
        assert_eq!(size(1023 * 1024), "1023 KiB");
        assert_eq!(count(31_870), "31,870");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(took(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(took(Duration::from_secs(167)), "2 min 47 s");
        assert_eq!(took(Duration::from_mins(185)), "3 h 5 min");
        assert_eq!(clock(Duration::from_secs(29)), "0:29");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(rate(1 << 30, Duration::from_secs(2)), "512.0 MiB/s");
    }

    #[test]
    fn times_are_those_of_the_zone() {
        assert_eq!(Zone::Utc.time(1_795_229_920), "2026-11-21 02:58:40");
        let local = Local.timestamp_opt(1_795_229_920, 0).unwrap().format("%Y-%m-%d %H:%M:%S").to_string();
        assert_eq!(Zone::Local.time(1_795_229_920), local);
        assert_eq!(Zone::Utc.time(i64::MAX), i64::MAX.to_string());
        let within = |seconds| span(Zone::Utc, 1_795_229_920, Duration::from_secs(seconds));
        assert_eq!(within(167), "started 2026-11-21 02:58:40, finished 03:01:27 (2 min 47 s)");
        assert_eq!(within(90_000), "started 2026-11-21 02:58:40, finished 2026-11-22 03:58:40 (25 h 0 min)");
    }

    #[test]
    fn sizes_are_read_in_medusas_spellings_and_in_those_it_refuses() {
        for (text, bytes) in [
            ("50MB/s", 50 << 20),
            ("20MB", 20 << 20),
            ("20 MB", 20 << 20),
            ("1024", 1024),
            ("1024B", 1024),
            ("2PB", 2 << 50),
            ("50mb", 50 << 20),
            ("2GiB", 2 << 30),
            ("2G", 2 << 30),
            ("1.5GB", 3 << 29),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "-1MB", "\"1MB/s\"", "1XB", "1iB", "1e9", "99999999PB", "1.2.3MB", "50MB/h", "1.GB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn truth_values_are_those_of_python() {
        for text in ["1", "yes", "True", "ON"] {
            assert_eq!(parse_bool(text), Some(true));
        }
        for text in ["0", "No", "false", "off"] {
            assert_eq!(parse_bool(text), Some(false));
        }
        for text in ["", "maybe", "2", "y"] {
            assert_eq!(parse_bool(text), None);
        }
    }
}

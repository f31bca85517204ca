//! What a storage check found, as text and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::roles::Role;
use super::{CLOCK_LIMIT, What};
use crate::explain;
use crate::model::look::{Look, Tone};
use crate::model::units;
use crate::storage::Storage;

/// One probe with its outcome.
#[derive(Debug)]
pub struct Probe {
    pub what: &'static What,
    pub outcome: Outcome,
    pub took: Duration,
}

#[derive(Debug)]
pub enum Outcome {
    /// With a remark, or without.
    Ok(String),
    Failed(String),
    LeftOut(String),
}

impl Probe {
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok(_))
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

/// The whole check.
#[derive(Debug)]
pub struct Report {
    pub location: String,
    /// What the probes were made for. `None`: for all.
    pub role: Option<Role>,
    pub probes: Vec<Probe>,
    /// Seconds by which the storage's clock is ahead of ours.
    pub clock_difference: Option<i64>,
    /// Of a small request.
    pub latency: Option<Duration>,
    /// Bytes per second.
    pub upload: Option<u64>,
    pub download: Option<u64>,
}

impl Report {
    pub(super) fn of(storage: &Storage, role: Option<Role>) -> Self {
        Self {
            location: storage.location().to_owned(),
            role,
            probes: Vec::new(),
            clock_difference: None,
            latency: None,
            upload: None,
            download: None,
        }
    }

    fn is_clock_wrong(&self) -> bool {
        self.clock_difference.is_some_and(|seconds| seconds.abs() > CLOCK_LIMIT)
    }

    /// What was left out either depends on what failed, or was not there to be read.
    pub fn is_good(&self) -> bool {
        self.failed() == 0 && !self.is_clock_wrong()
    }

    /// The roles that were asked for, each with the probes that it needs and that failed.
    pub fn roles(&self) -> Vec<(Role, Vec<&'static What>)> {
        let asked = Role::ALL.into_iter().filter(|role| self.role.is_none_or(|asked| asked == *role));
        let failed: Vec<_> = self.probes.iter().filter(|probe| probe.is_failed()).map(|probe| probe.what).collect();
        asked.map(|role| (role, failed.iter().copied().filter(|what| role.needs_probe(what)).collect())).collect()
    }

    pub fn failed(&self) -> usize {
        self.probes.iter().filter(|probe| probe.is_failed()).count()
    }

    /// What to do about the first thing that is missing.
    pub fn first_hint(&self) -> Option<String> {
        self.probes.iter().find_map(|probe| match &probe.outcome {
            // Not that this very check tells more.
            Outcome::Failed(why) => explain::hint(why).filter(|hint| !hint.contains("storage-check")),
            _ => None,
        })
    }

    pub fn text(&self, look: Look) -> String {
        let mut text = format!("storage check of {}\n\n", self.location);
        for probe in &self.probes {
            let (state, tone, remark) = match &probe.outcome {
                Outcome::Ok(remark) => ("ok", Tone::Good, remark.as_str()),
                Outcome::Failed(_) => ("MISSING", Tone::Bad, ""),
                Outcome::LeftOut(why) => ("not tried", Tone::Doubtful, why.as_str()),
            };
            let took = if probe.took.is_zero() { String::new() } else { format!("{:.0?}", rounded(probe.took)) };
            let state = look.paint(tone, &format!("{state:<11}"));
            text.push_str(&look.folded(format!("  {:<22}{state}{took:>8}  {remark}", probe.what.name).trim_end(), 45));
        }
        let before = text.len();
        for (name, value) in [
            ("latency", self.latency.map(|latency| format!("{:.0?} for a small request", rounded(latency)))),
            ("upload", self.upload.map(|rate| format!("{}/s, one file", units::size(rate)))),
            ("download", self.download.map(|rate| format!("{}/s, one file", units::size(rate)))),
            ("clock", self.clock_difference.map(clock)),
        ] {
            if let Some(value) = value {
                text.push_str(&format!("  {name:<22}{value}\n"));
            }
        }
        if text.len() > before {
            text.insert(before, '\n');
        }
        text.push_str("\nWhat these credentials are good for:\n");
        for (role, lacks) in self.roles() {
            text.push_str(&role_text(role, &lacks, look));
        }
        let missing: Vec<_> = self.probes.iter().filter_map(|probe| missing(probe, look)).collect();
        if !missing.is_empty() {
            text.push_str("\nWhat is missing:\n");
            text.extend(missing);
        }
        if self.is_clock_wrong() {
            let said = "The clocks of this node and of the storage differ. Stores refuse requests that are signed at another time.";
            text.push_str(&format!("\n{}", look.folded(said, 2)));
        }
        text
    }

    pub fn json(&self) -> Value {
        let probe = |probe: &Probe| {
            let (state, detail) = match &probe.outcome {
                Outcome::Ok(remark) => ("ok", remark),
                Outcome::Failed(why) => ("missing", why),
                Outcome::LeftOut(why) => ("not tried", why),
            };
            json!({
                "name": probe.what.name,
                "result": state,
                "detail": detail,
                "needs": probe.what.needs,
                "for": probe.what.for_what,
                "seconds": probe.took.as_secs_f64(),
            })
        };
        let role = |(role, lacks): (Role, Vec<&What>)| {
            json!({
                "role": role.name(),
                "commands": role.commands(),
                "works": lacks.is_empty(),
                "lacks": lacks.iter().map(|what| what.needs).collect::<Vec<_>>(),
            })
        };
        json!({
            "version": 1,
            "location": self.location,
            "good": self.is_good(),
            "probes": self.probes.iter().map(probe).collect::<Vec<_>>(),
            "roles": self.roles().into_iter().map(role).collect::<Vec<_>>(),
            "clock_difference_seconds": self.clock_difference,
            "latency_seconds": self.latency.map(|latency| latency.as_secs_f64()),
            "upload_bytes_per_second": self.upload,
            "download_bytes_per_second": self.download,
        })
    }
}

fn rounded(took: Duration) -> Duration {
    Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1))
}

fn clock(seconds: i64) -> String {
    match seconds {
        -1..=1 => "as here".to_owned(),
        ahead if ahead > 0 => format!("{ahead} s ahead of this node"),
        behind => format!("{} s behind this node", -behind),
    }
}

/// `  node                  LACKS      backup-node, leases: …`
fn role_text(role: Role, lacks: &[&What], look: Look) -> String {
    let (state, tone) = if lacks.is_empty() { ("works", Tone::Good) } else { ("LACKS", Tone::Bad) };
    let state = look.paint(tone, &format!("{state:<11}"));
    let mut remark = role.commands().join(", ");
    if !lacks.is_empty() {
        let lacks: Vec<_> = lacks.iter().map(|what| what.name).collect();
        remark = format!("{remark}: {}", lacks.join(", "));
    }
    look.folded(&format!("  {:<22}{state}{remark}", role.name()), 35)
}

fn missing(probe: &Probe, look: Look) -> Option<String> {
    let Outcome::Failed(why) = &probe.outcome else { return None };
    let What { name, needs, for_what } = probe.what;
    let lines = [format!("  {name}: {needs}"), format!("    needed for: {for_what}"), format!("    {why}")];
    Some(lines.iter().map(|line| look.folded(line, 6)).collect())
}

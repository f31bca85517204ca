//! What a backup says when it is done, and what it would do.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Totals;
use crate::error::{Failure, Told};
use crate::model::backups::{BackupMode, ServerVersion};
use crate::model::look::{Look, Tone};
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::{Zone, count, counted, rate, size, times, took};
use crate::monitor::Amount;

/// A finished backup.
#[derive(Debug)]
pub struct BackupOutcome {
    pub name: BackupName,
    pub fqdn: Fqdn,
    pub mode: BackupMode,
    /// Unix seconds by the storage server's clock.
    pub started: i64,
    pub finished: i64,
    pub all: Amount,
    pub uploaded: Amount,
    pub kept: Amount,
    pub digests_checked: u64,
    pub corrupt: Vec<String>,
    /// Of this run.
    pub took: Duration,
    /// Of that, waiting for the turn.
    pub waited: Duration,
    /// Why the snapshot is still there.
    pub uncleared: Option<anyhow::Error>,
}

impl BackupOutcome {
    /// The problem that is left, after everything else has been told.
    ///
    /// # Errors
    /// The snapshot could not be cleared.
    pub fn check_cleared(self) -> anyhow::Result<()> {
        let Some(error) = self.uncleared else { return Ok(()) };
        let hint = Told::of(&error).hint.unwrap_or_else(|| "the same command, run again, clears it".to_owned());
        let message =
            format!("backup {} of {} is complete, but its snapshot could not be cleared", self.name, self.fqdn);
        Err(Failure::problems(message).cause(error).hint(hint).into())
    }

    pub fn text(&self, look: Look, location: &str) -> String {
        let complete = look.paint(Tone::Good, "complete");
        let mut text = look.folded(&format!("{} {complete} on {} in {location}", self.name, self.fqdn), 4);
        let mut line = |line: &str| text.push_str(&look.folded(&format!("  {line}"), 4));
        line(&format!(
            "{}, {}   {} uploaded ({}), {} already stored",
            counted(self.all.files, "file"),
            size(self.all.bytes),
            count(self.uploaded.files),
            size(self.uploaded.bytes),
            count(self.kept.files)
        ));
        // By the storage's clock: the run begins before, with its checks, and ends after, clearing its snapshot.
        let times = times(Zone::chosen(), self.started, self.finished);
        line(&format!("{times}; this run took {}{}", took(self.took), self.speed()));
        let checked = count(self.digests_checked);
        line(&format!("every uploaded byte hashed, {checked} Data.db checked against their digest"));
        for file in &self.corrupt {
            let corrupt = look.paint(Tone::Bad, "corrupt:");
            line(&format!("{corrupt} {file} does not match its Digest.crc32 and was stored as it is"));
        }
        text
    }

    /// Of a run that uploaded something.
    fn speed(&self) -> String {
        if self.uploaded.bytes == 0 { String::new() } else { format!(", {}", rate(self.uploaded.bytes, self.took)) }
    }

    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "name": self.name.as_str(),
            "fqdn": self.fqdn.as_str(),
            "mode": self.mode,
            "started": self.started,
            "finished": self.finished,
            "files": self.all.files,
            "bytes": self.all.bytes,
            "uploaded_files": self.uploaded.files,
            "uploaded_bytes": self.uploaded.bytes,
            "kept_files": self.kept.files,
            "kept_bytes": self.kept.bytes,
            "digests_checked": self.digests_checked,
            "corrupt": self.corrupt,
            "seconds": self.took.as_secs_f64(),
            "waited_seconds": self.waited.as_secs_f64(),
        })
    }
}

/// What a backup would do.
#[derive(Debug)]
pub struct DryRun {
    pub resumed: bool,
    /// The snapshot that would be backed up, and whether it is there.
    pub snapshot: (String, bool),
    pub version: ServerVersion,
    pub tables: usize,
    pub totals: Totals,
}

impl DryRun {
    pub fn text(&self, look: Look, name: &BackupName, fqdn: &Fqdn, location: &str, mode: BackupMode) -> String {
        let verb = if self.resumed { "continue backup" } else { "backup" };
        let snapshot = match &self.snapshot {
            (tag, true) => format!("{tag}, which is there"),
            (tag, false) => format!("would be taken as {tag}; what is in memory only is not counted here"),
        };
        let files = format!("{} in {}", compared(&self.totals), counted(self.tables as u64, "table"));
        let mut text =
            look.headed(&format!("{verb} {name} of {fqdn} to {location} ({mode})"), "nothing has been written yet");
        for (label, said) in
            [("cassandra", self.version.release_version.as_str()), ("snapshot", &snapshot), ("files", &files)]
        {
            text.push_str(&look.labelled(label, 10, said));
        }
        text
    }

    pub fn json(&self, name: &BackupName, fqdn: &Fqdn, mode: BackupMode) -> Value {
        let amount = |amount: Amount| json!({ "files": amount.files, "bytes": amount.bytes });
        json!({
            "version": 1,
            "dry_run": true,
            "name": name.as_str(),
            "fqdn": fqdn.as_str(),
            "mode": mode,
            "resumed": self.resumed,
            "tables": self.tables,
            "all": amount(self.totals.all),
            "upload": amount(self.totals.upload),
            "compare": amount(self.totals.compare),
            "keep": amount(self.totals.keep),
        })
    }
}

/// `31,870 files, 1.4 TiB: 1,204 new (38.1 GiB), 30,666 kept`
pub fn compared(totals: &Totals) -> String {
    let mut text = format!(
        "{}, {}: {} new ({}), {} kept",
        counted(totals.all.files, "file"),
        size(totals.all.bytes),
        count(totals.upload.files),
        size(totals.upload.bytes),
        count(totals.keep.files),
    );
    if totals.compare.files > 0 {
        text.push_str(&format!(", {} to compare ({})", count(totals.compare.files), size(totals.compare.bytes)));
    }
    text
}

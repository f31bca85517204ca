//! What a backup says when it is done, and what it would do.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Totals;
use crate::model::backups::{BackupMode, ServerVersion};
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::{count, counted, local_time, rate, size, took};
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
}

impl BackupOutcome {
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} complete on {}\n  {}, {}   {} uploaded ({}), {} already stored\n  started {}, finished {} ({}{})\n  every uploaded byte hashed, {} checked against their digest\n",
            self.name,
            self.fqdn,
            counted(self.all.files, "file"),
            size(self.all.bytes),
            count(self.uploaded.files),
            size(self.uploaded.bytes),
            count(self.kept.files),
            local_time(self.started),
            local_time(self.finished),
            took(self.took),
            self.speed(),
            format_args!("{} Data.db", count(self.digests_checked)),
        );
        for file in &self.corrupt {
            text.push_str(&format!("  corrupt: {file} does not match its Digest.crc32 and was stored as it is\n"));
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
    pub fn text(&self, name: &BackupName, fqdn: &Fqdn, location: &str, mode: BackupMode) -> String {
        let verb = if self.resumed { "continue backup" } else { "backup" };
        let snapshot = match &self.snapshot {
            (tag, true) => format!("{tag}, which is there"),
            (tag, false) => format!("would be taken as {tag}; what is in memory only is not counted here"),
        };
        format!(
            "{verb} {name} of {fqdn} to {location} ({mode})          nothing has been written yet\n  cassandra  {}\n  snapshot   {}\n  files      {} in {}\n",
            self.version.release_version,
            snapshot,
            compared(&self.totals),
            counted(self.tables as u64, "table"),
        )
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

//! What a restore of a cluster will do: plain data that can be printed and carried out.

use serde_json::{Value, json};

use super::check::Check;
use super::mapping::{Assignment, Mapping, Method};
use super::targets::Backup;
use super::{ClusterRestoreOptions, interrupted};
use crate::model::look::Look;
use crate::model::names::BackupName;
use crate::model::table::{Column, Table};
use crate::model::units::{counted, size, time};

/// Notes of targets that are shown; the rest is in the JSON document.
const SHOWN_NOTES: usize = 20;

/// One target.
#[derive(Debug, Clone)]
pub struct PlannedTarget {
    pub given: Assignment,
    pub is_seed: bool,
    pub check: Check,
    /// The same run has restored it before: it is left as it is.
    pub is_done: bool,
}

/// The whole plan.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    pub backup: BackupName,
    pub method: Method,
    pub reason: String,
    pub targets: Vec<PlannedTarget>,
    /// Names this run on the targets.
    pub run: String,
    /// Targets that work at a time.
    pub parallel: usize,
    /// Nodes of the cluster that the backup has no part of.
    pub missing: Vec<String>,
    /// Whether tables are left out.
    pub is_partial: bool,
    pub notes: Vec<String>,
}

impl ClusterPlan {
    /// Seeds are those of the host list, else those that call themselves so. Where there are none, all targets are: others
    /// could not start alone, and together they find each other.
    pub fn new(
        options: &ClusterRestoreOptions,
        backup: &Backup,
        mapping: Mapping,
        seeds: &[String],
        checks: Vec<Check>,
        run: String,
        mut notes: Vec<String>,
    ) -> Self {
        let begun = checks.iter().any(Check::is_begun);
        let starts = mapping.method != Method::Load;
        let mut targets: Vec<_> = mapping
            .assignments
            .into_iter()
            .zip(checks)
            .map(|(given, check)| PlannedTarget {
                is_seed: starts && if seeds.is_empty() { check.is_seed } else { seeds.contains(&given.target) },
                is_done: begun && !options.again && check.is_restored() && check.run.as_ref() == Some(&run),
                given,
                check,
            })
            .collect();
        if starts && targets.iter().all(|target| !target.is_seed) {
            for target in &mut targets {
                target.is_seed = true;
            }
        }
        for target in targets.iter().filter(|target| target.is_done) {
            let when = target.check.finished.map(time).unwrap_or_default();
            notes.push(format!(
                "{} was restored at {when} by the run that is gone on with, and is left as it is (--again restores it again)",
                target.given.target
            ));
        }
        Self {
            backup: options.name.clone(),
            method: mapping.method,
            reason: mapping.reason,
            targets,
            run,
            parallel: options.parallel,
            missing: backup.missing.clone(),
            is_partial: !options.selection.is_all(),
            notes,
        }
    }

    /// The plan as a host list.
    pub fn host_list(&self) -> Vec<String> {
        let line = |target: &PlannedTarget| {
            let seed = if target.is_seed { "True" } else { "False" };
            [seed, &target.given.target, &target.given.sources.join(" ")].join(interrupted::SEPARATOR)
        };
        self.targets.iter().map(line).collect()
    }

    /// Targets that something is left to do for.
    pub fn pending(&self) -> Vec<&PlannedTarget> {
        self.targets.iter().filter(|target| !target.is_done).collect()
    }

    fn how(&self) -> &'static str {
        match self.method {
            Method::InPlace => "in place",
            Method::Remote => "as a remote restore",
            Method::Load => "by sstableloader",
        }
    }

    fn sources(&self) -> usize {
        self.targets.iter().map(|target| target.given.sources.len()).sum()
    }

    pub fn text(&self, look: Look) -> String {
        let (targets, sources) = (self.targets.len() as u64, self.sources() as u64);
        let head = format!(
            "restore {} into {} from {}, {}",
            self.backup,
            counted(targets, "target"),
            counted(sources, "source"),
            self.how()
        );
        let mut text = look.headed(&head, "nothing has been changed yet");
        let mut table = Table::new(&[
            Column::text("target", 0),
            Column::text("source", 2),
            Column::text("why", 3),
            Column::text("download", 0),
            Column::text("space", 1),
        ]);
        for target in &self.targets {
            table.row(target.row().to_vec(), None, "");
        }
        text.push_str(&table.text(look));
        let mut line = |label: &str, content: &str| text.push_str(&look.labelled(label, 8, content));
        line("because", &self.reason);
        let download: u64 = self.targets.iter().map(|target| target.check.download).sum();
        let all: u64 = self.targets.iter().map(|target| target.check.bytes).sum();
        line("files", &format!("{} in all, {} to download", size(all), size(download)));
        for statement in self.statements() {
            line("first", &format!("run {}", statement.split_whitespace().take(4).collect::<Vec<_>>().join(" ")));
        }
        for (label, content) in self.order() {
            line(label, &content);
        }
        let notes = self.all_notes();
        for note in notes.iter().take(SHOWN_NOTES) {
            line("note", note);
        }
        if notes.len() > SHOWN_NOTES {
            line("note", &format!("… and {} more", notes.len() - SHOWN_NOTES));
        }
        text
    }

    /// Run on the first target that needs them; the others have them from there.
    fn statements(&self) -> Vec<&str> {
        let mut statements = Vec::new();
        for statement in self.targets.iter().flat_map(|target| &target.check.statements) {
            if !statements.contains(&statement.as_str()) {
                statements.push(statement);
            }
        }
        statements
    }

    /// Of the plan, then of the targets; what several targets say is said once.
    fn all_notes(&self) -> Vec<String> {
        let mut of_targets: Vec<(&str, Vec<&str>)> = Vec::new();
        for target in &self.targets {
            for note in &target.check.notes {
                match of_targets.iter_mut().find(|(known, _)| known == note) {
                    Some((_, hosts)) => hosts.push(&target.given.target),
                    None => of_targets.push((note, vec![&target.given.target])),
                }
            }
        }
        let said = of_targets.into_iter().map(|(note, hosts)| match hosts.as_slice() {
            all if all.len() == self.targets.len() => format!("all targets: {note}"),
            [one] => format!("{one}: {note}"),
            more => format!("{} and {} more: {note}", more[0], more.len() - 1),
        });
        self.notes.iter().cloned().chain(said).collect()
    }

    fn order(&self) -> Vec<(&'static str, String)> {
        let pending = self.pending();
        if pending.is_empty() {
            return vec![("order", "nothing is left to do".to_owned())];
        }
        let all = counted(pending.len() as u64, "target");
        let at_once = format!("{} at once", self.parallel.min(pending.len()));
        if self.method == Method::Load {
            return vec![
                ("order", format!("the schema on {}, then files on {all}, {at_once}", pending[0].given.target)),
                ("down", "no node is stopped".to_owned()),
            ];
        }
        let seeds = pending.iter().filter(|target| target.is_seed).count();
        let rest = pending.len() - seeds;
        let begin = format!("nobody is stopped before all {all} have brought and compared their files, {at_once}");
        let start = match rest {
            0 => format!("all {all} are started together"),
            _ => format!("seeds are started first ({seeds}), then {rest} once a seed is up"),
        };
        let why = if self.is_partial {
            "a node that runs on would bring newer rows back"
        } else {
            "a node that runs on would bring dropped tables and newer rows back"
        };
        let down = format!("all {all} are down at the same time, from the last stop to the first start: {why}");
        vec![("order", format!("{begin}; {start}")), ("down", down)]
    }

    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "dry_run": true,
            "backup": self.backup.as_str(),
            "method": method_name(self.method),
            "reason": self.reason,
            "missing": self.missing,
            "targets": self.targets.iter().map(PlannedTarget::json).collect::<Vec<_>>(),
            "statements": self.statements(),
            "notes": self.notes,
        })
    }
}

/// As JSON has it.
pub fn method_name(method: Method) -> &'static str {
    match method {
        Method::InPlace => "in place",
        Method::Remote => "remote",
        Method::Load => "sstableloader",
    }
}

impl PlannedTarget {
    fn row(&self) -> [String; 5] {
        let PlannedTarget { given, check, .. } = self;
        let seed = if self.is_seed { "  (seed)" } else { "" };
        let why = match check.phase.as_deref() {
            _ if self.is_done => format!("{}; restored already", given.why),
            Some(phase) if check.is_begun() => format!("{}; was begun ({phase})", given.why),
            _ => given.why.clone(),
        };
        let least = check.space.iter().map(|(_, needed, free)| free.saturating_sub(*needed)).min();
        let space = least.map_or_else(|| "–".to_owned(), |left| format!("ok, {} left", size(left)));
        let download = if check.is_down() { "–".to_owned() } else { size(check.download) };
        [format!("{}{seed}", given.target), given.sources.join(","), why, download, space]
    }

    fn json(&self) -> Value {
        let PlannedTarget { given, check, .. } = self;
        let directory =
            |(path, needed, free): &(_, u64, u64)| json!({ "path": path, "needed_bytes": needed, "free_bytes": free });
        json!({
            "target": given.target,
            "sources": given.sources,
            "seed": self.is_seed,
            "why": given.why,
            "tables": check.tables,
            "bytes": check.bytes,
            "download_bytes": check.download,
            "directories": check.space.iter().map(directory).collect::<Vec<_>>(),
            "notes": check.notes,
            "phase": check.phase,
            "done": self.is_done,
        })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

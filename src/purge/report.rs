//! What a purge says: what it did, or would do, to every backup and every class of objects.

use std::time::Duration;

use serde_json::{Value, json};

use super::retention::Verdict;
use super::{Judged, NodeOutcome, Orphan, PoolPlan};
use crate::error::Failure;
use crate::explain;
use crate::model::look::{Look, Tone};
use crate::model::names::{BackupName, Fqdn};
use crate::model::table::{Column, Table};
use crate::model::units::{Zone, count, counted, size, span, time};
use crate::monitor::Amount;
use crate::monitoring::run::Purge;

/// What becomes of a backup that should have gone and did not.
const LEFT: &str = "left";

/// The outcome for all nodes.
#[derive(Debug)]
pub struct PurgeReport {
    pub dry_run: bool,
    /// Days.
    pub grace: u64,
    /// Unix seconds.
    pub began: i64,
    pub took: Duration,
    pub nodes: Vec<NodeOutcome>,
    /// Nodes of which nothing could be read or decided, with the reason.
    pub failed: Vec<(Fqdn, String)>,
    /// How many of these the storage failed.
    pub storage_failures: usize,
}

impl PurgeReport {
    pub fn text(&self, look: Look, location: &str) -> String {
        let mut text: String = self.nodes.iter().map(|node| self.node_text(node, look)).collect();
        let all = self.deleted();
        if !self.dry_run {
            let purged = format!("purged {} ({})", counted(all.files, "object"), size(all.bytes));
            text.push_str(&look.folded(&format!("{purged} in {location}"), 2));
            text.push_str(&look.folded(&span(Zone::chosen(), self.began, self.took), 2));
        }
        text
    }

    /// All that was deleted.
    fn deleted(&self) -> Amount {
        let mut all = Amount::default();
        for amount in self.nodes.iter().flat_map(|node| [node.deleted, node.swept]) {
            all.files += amount.files;
            all.bytes += amount.bytes;
        }
        all
    }

    /// What is measured of it.
    pub fn facts(&self) -> Purge {
        let kept = |node: &NodeOutcome| match &node.plan.pool {
            PoolPlan::Sweep(state) => Some(state.young.files),
            PoolPlan::Wait(_) | PoolPlan::Refuse(_) => None,
        };
        Purge {
            backups: self.nodes.iter().map(|node| node.deleted_backups() as u64).sum(),
            deleted: self.deleted(),
            kept_for_grace: self.nodes.iter().map(kept).sum(),
        }
    }

    /// What became of a backup or an orphan, or would.
    fn verb<'a>(&self, node: &NodeOutcome, name: &BackupName, goes: bool, [keep, delete]: [&'a str; 2]) -> &'a str {
        if !goes {
            keep
        } else if self.dry_run || node.gone.contains(name) {
            delete
        } else {
            LEFT
        }
    }

    fn node_text(&self, node: &NodeOutcome, look: Look) -> String {
        let plan = &node.plan;
        let deleted = if self.dry_run { plan.goes().count() } else { node.deleted_backups() };
        let (keep, delete) = if self.dry_run { ("keep", "delete") } else { ("kept", "deleted") };
        let total = counted(deleted as u64, "backup");
        let mut text = format!("{keep} {}, {delete} {total} of {}\n", plan.backups.len() - deleted, plan.fqdn);
        // What stays is the plan's business; the report of a purge would repeat it every day.
        let shown: Vec<_> = plan.backups.iter().rev().filter(|backup| self.dry_run || backup.goes()).collect();
        let mut table = Table::new(&[
            Column::text("", 0),
            Column::text("", 0),
            Column::text("", 3),
            Column::text("", 1),
            Column::text("", 2),
        ])
        .without_head();
        for backup in shown {
            let verb = self.verb(node, &backup.name, backup.goes(), [keep, delete]);
            let (name, mode, at) = (backup.name.to_string(), backup.mode.to_string(), time(backup.started));
            let tone = backup.goes().then_some((0, Tone::Doubtful));
            table.row(vec![verb.into(), name, reasons_text(backup), mode, at], tone, "");
        }
        for orphan in &plan.orphans {
            let verb = self.verb(node, &orphan.name, !orphan.young, [keep, delete]);
            let what = amount_text(orphan.amount);
            let left = format!("left of a deleted backup: {what}");
            let empty = String::new;
            table.row(vec![verb.into(), orphan.name.to_string(), left, empty(), empty()], None, "");
        }
        text.push_str(&table.text(look));
        text.push_str(&look.folded(&self.pool_text(node), 2));
        if let Some(why) = &node.stopped {
            text.push_str(&look.folded(&format!("{} {why}", look.paint(Tone::Bad, "stopped:")), 2));
        }
        text
    }

    fn pool_text(&self, node: &NodeOutcome) -> String {
        match &node.plan.pool {
            PoolPlan::Sweep(state) => {
                let unnamed = Amount {
                    files: state.garbage_amount.files + state.young.files,
                    bytes: state.garbage_amount.bytes + state.young.bytes,
                };
                if unnamed.files == 0 {
                    return "objects: all are named by a manifest".to_owned();
                }
                let (old, verb) =
                    if self.dry_run { (state.garbage_amount, "go") } else { (node.swept, "were deleted") };
                format!(
                    "objects: {} no longer named by any manifest: {} older than {} {verb}, {} stay for their grace period",
                    amount_text(unnamed),
                    count(old.files),
                    counted(self.grace, "day"),
                    count(state.young.files),
                )
            }
            PoolPlan::Wait(name) => {
                format!("objects: none deleted that backups share, because {name} is unfinished and may be running")
            }
            PoolPlan::Refuse(why) => {
                format!("objects: none deleted that backups share, for {}", counted(why.len() as u64, "reason"))
            }
        }
    }

    pub fn json(&self) -> Value {
        let backup = |node: &NodeOutcome, backup: &Judged| {
            json!({
                "name": backup.name.as_str(),
                "action": self.verb(node, &backup.name, backup.goes(), ["keep", "delete"]),
                "reasons": reasons(&backup.verdict),
                "mode": backup.mode,
                "started": backup.started,
                "finished": backup.finished,
                "objects": backup.goes().then_some(backup.amount.files),
                "bytes": backup.goes().then_some(backup.amount.bytes),
            })
        };
        let orphan = |node: &NodeOutcome, orphan: &Orphan| {
            json!({
                "name": orphan.name.as_str(),
                "action": self.verb(node, &orphan.name, !orphan.young, ["keep", "delete"]),
                "objects": orphan.amount.files,
                "bytes": orphan.amount.bytes,
            })
        };
        let node = |node: &NodeOutcome| {
            json!({
                "fqdn": node.plan.fqdn.as_str(),
                "backups": node.plan.backups.iter().map(|judged| backup(node, judged)).collect::<Vec<_>>(),
                "orphans": node.plan.orphans.iter().map(|left| orphan(node, left)).collect::<Vec<_>>(),
                "pool": pool_json(&node.plan.pool),
                "deleted": { "backups": amount_json(node.deleted), "pool": amount_json(node.swept) },
                "stopped": node.stopped,
            })
        };
        let failed = |(fqdn, why): &(Fqdn, String)| json!({ "fqdn": fqdn.as_str(), "error": why });
        json!({
            "version": 1,
            "dry_run": self.dry_run,
            "grace_period_in_days": self.grace,
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
            "failed": self.failed.iter().map(failed).collect::<Vec<_>>(),
            "deleted": amount_json(self.deleted()),
        })
    }

    /// What keeps the purge from being a success.
    pub fn failure(&self) -> Option<Failure> {
        let mut details = Vec::new();
        let mut nodes = self.failed.len() as u64;
        for (fqdn, why) in &self.failed {
            details.push(format!("{fqdn}: {why}"));
        }
        for node in &self.nodes {
            let fqdn = &node.plan.fqdn;
            let before = details.len();
            if let PoolPlan::Refuse(reasons) = &node.plan.pool {
                details.extend(reasons.iter().map(|why| format!("{fqdn}: {why}")));
            }
            details.extend(node.stopped.iter().map(|why| format!("{fqdn}: {why}")));
            nodes += u64::from(details.len() > before);
        }
        if nodes == 0 {
            return None;
        }
        let stopped = self.nodes.iter().filter(|node| node.storage_failed).count() + self.storage_failures;
        // Nodes on which there was nothing to do are no success.
        if !self.dry_run && stopped as u64 == nodes && self.deleted().files == 0 {
            let why = self.failed.first().map(|(_, why)| why);
            let why = why.or_else(|| self.nodes.iter().find_map(|node| node.stopped.as_ref()));
            let why = why.cloned().unwrap_or_default();
            let again = "the same command, run again, does the rest";
            let hint = explain::hint(&why).map_or_else(|| again.to_owned(), |hint| format!("{hint}; {again}"));
            return Some(Failure::failed(format!("no backup was deleted: {why}")).details(details).hint(hint));
        }
        let message = format!("what could be needed was not deleted, on {}", counted(nodes, "node"));
        Some(Failure::problems(message).details(details).hint(
            "copy back a manifest of which the index has a copy; medusa delete-backup removes a backup that is lost, \
             medusa build-index the index entries of one whose folder is gone; after anything else the same command, run again, \
             does the rest",
        ))
    }
}

fn reasons(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Keep(reasons) => reasons.iter().map(ToString::to_string).collect(),
        Verdict::Delete(reasons) => reasons.iter().map(ToString::to_string).collect(),
    }
}

fn reasons_text(backup: &Judged) -> String {
    reasons(&backup.verdict).join(", ")
}

fn amount_text(amount: Amount) -> String {
    format!("{} ({})", count(amount.files), size(amount.bytes))
}

fn amount_json(amount: Amount) -> Value {
    json!({ "objects": amount.files, "bytes": amount.bytes })
}

fn pool_json(pool: &PoolPlan) -> Value {
    match pool {
        PoolPlan::Sweep(state) => json!({
            "state": "known",
            "named": amount_json(state.named),
            "garbage": amount_json(state.garbage_amount),
            "within_grace_period": amount_json(state.young),
        }),
        PoolPlan::Wait(name) => json!({ "state": "waiting", "unfinished": name.as_str() }),
        PoolPlan::Refuse(reasons) => json!({ "state": "refused", "reasons": reasons }),
    }
}

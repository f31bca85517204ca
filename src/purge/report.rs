//! What a purge says: what it did, or would do, to every backup and every class of objects.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::retention::Verdict;
use super::{Judged, NodeOutcome, Orphan, PoolPlan};
use crate::error::Failure;
use crate::model::names::Fqdn;
use crate::model::units::{count, counted, local_time, size};
use crate::monitor::Amount;
use crate::monitoring::run::Purge;

/// The outcome for all nodes.
#[derive(Debug)]
pub struct PurgeReport {
    pub dry_run: bool,
    /// Days.
    pub grace: u64,
    pub nodes: Vec<NodeOutcome>,
    /// Nodes of which nothing could be read or decided, with the reason.
    pub failed: Vec<(Fqdn, String)>,
}

impl PurgeReport {
    pub fn text(&self) -> String {
        let mut text: String = self.nodes.iter().map(|node| self.node_text(node)).collect();
        let all = self.deleted();
        if !self.dry_run {
            let _ = writeln!(text, "purged {} ({})", counted(all.files, "object"), size(all.bytes));
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
            backups: self.nodes.iter().map(|node| node.deleted_backups).sum(),
            deleted: self.deleted(),
            kept_for_grace: self.nodes.iter().map(kept).sum(),
        }
    }

    fn node_text(&self, node: &NodeOutcome) -> String {
        let plan = &node.plan;
        let deleted = plan.goes().count();
        let (keep, delete) = if self.dry_run { ("keep", "delete") } else { ("kept", "deleted") };
        let total = counted(deleted as u64, "backup");
        let mut text = format!("{keep} {}, {delete} {total} of {}\n", plan.backups.len() - deleted, plan.fqdn);
        // What stays is the plan's business; the report of a purge would repeat it every day.
        let shown: Vec<_> = plan.backups.iter().rev().filter(|backup| self.dry_run || backup.goes()).collect();
        let width = |of: &dyn Fn(&Judged) -> usize| shown.iter().map(|backup| of(backup)).max().unwrap_or_default();
        let orphans = plan.orphans.iter().map(|orphan| orphan.name.as_str().chars().count()).max().unwrap_or_default();
        let names = width(&|backup| backup.name.as_str().chars().count()).max(orphans);
        let why = width(&|backup| reasons_text(backup).chars().count());
        for backup in &shown {
            let verb = if backup.goes() { delete } else { keep };
            let _ = writeln!(
                text,
                "  {verb:<8} {:<names$}   {:<why$}   {:<12}   {}",
                backup.name.as_str(),
                reasons_text(backup),
                backup.mode.to_string(),
                local_time(backup.started),
            );
        }
        for orphan in &plan.orphans {
            let verb = if orphan.young { keep } else { delete };
            let what = amount_text(orphan.amount);
            let _ = writeln!(text, "  {verb:<8} {:<names$}   left of a deleted backup: {what}", orphan.name.as_str());
        }
        text.push_str(&self.pool_text(node));
        if let Some(why) = &node.stopped {
            let _ = writeln!(text, "stopped: {why}");
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
                    return "objects: all are named by a manifest\n".to_owned();
                }
                let (old, verb) =
                    if self.dry_run { (state.garbage_amount, "go") } else { (node.swept, "were deleted") };
                format!(
                    "objects: {} no longer named by any manifest: {} older than {} {verb}, {} stay for their grace period\n",
                    amount_text(unnamed),
                    count(old.files),
                    counted(self.grace, "day"),
                    count(state.young.files),
                )
            }
            PoolPlan::Wait(name) => {
                format!("objects: none deleted that backups share, because {name} is unfinished and may be running\n")
            }
            PoolPlan::Refuse(why) => {
                format!("objects: none deleted that backups share, for {}\n", counted(why.len() as u64, "reason"))
            }
        }
    }

    pub fn json(&self) -> Value {
        let backup = |backup: &Judged| {
            json!({
                "name": backup.name.as_str(),
                "action": if backup.goes() { "delete" } else { "keep" },
                "reasons": reasons(&backup.verdict),
                "mode": backup.mode,
                "started": backup.started,
                "finished": backup.finished,
                "objects": backup.goes().then_some(backup.amount.files),
                "bytes": backup.goes().then_some(backup.amount.bytes),
            })
        };
        let orphan = |orphan: &Orphan| {
            json!({
                "name": orphan.name.as_str(),
                "action": if orphan.young { "keep" } else { "delete" },
                "objects": orphan.amount.files,
                "bytes": orphan.amount.bytes,
            })
        };
        let node = |node: &NodeOutcome| {
            json!({
                "fqdn": node.plan.fqdn.as_str(),
                "backups": node.plan.backups.iter().map(backup).collect::<Vec<_>>(),
                "orphans": node.plan.orphans.iter().map(orphan).collect::<Vec<_>>(),
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
        let message = format!("what could be needed was not deleted, on {}", counted(nodes, "node"));
        Some(Failure::problems(message).details(details).hint(
            "medusa delete-backup removes a backup that is damaged, medusa build-index the index entries of one that is gone; \
             after anything else the same command, run again, does the rest",
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

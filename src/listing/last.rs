//! What was backed up last: by this node, by all nodes, and by whoever began last.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::cluster_backups;
use super::contents::{self, Contents};
use super::render::on_a_line;
use crate::model::backups::{ClusterBackup, NodeBackup};
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::medusa_binary_size;
use crate::monitor::Amount;
use crate::storage::Storage;

/// A backup that was finished, and when: Unix seconds by the storage's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub name: BackupName,
    pub at: i64,
}

impl Finished {
    /// Seconds. Zero where the storage's clock is ahead of this host's. `now`: Unix seconds.
    pub fn age(&self, now: i64) -> i64 {
        now.saturating_sub(self.at).max(0)
    }
}

#[derive(Debug)]
pub struct LastBackups {
    /// Of this node.
    pub node: Option<Finished>,
    /// The complete one that was finished last.
    pub complete: Option<Finished>,
    /// The one that was started last, with what its nodes hold.
    pub latest: Option<(ClusterBackup, Contents)>,
}

impl LastBackups {
    pub async fn gather(storage: &Storage, fqdn: &Fqdn) -> anyhow::Result<Self> {
        let backups = cluster_backups(storage).await?;
        let of_node = |node: &NodeBackup| Some(Finished { name: node.name.clone(), at: node.finished? });
        let own = backups.iter().filter_map(|backup| backup.node(fqdn.as_str())).filter_map(of_node);
        let node = own.max_by_key(|finished| finished.at);
        let complete =
            backups.iter().filter_map(|backup| Some(Finished { name: backup.name.clone(), at: backup.finished()? }));
        let complete = complete.max_by_key(|finished| finished.at);
        let latest = match backups.into_iter().last() {
            Some(backup) => {
                if let Some(warning) = super::other_names(&backup) {
                    tracing::warn!("{warning}");
                }
                let contents = contents::of_one(storage, &backup).await?;
                Some((backup, contents))
            }
            None => None,
        };
        Ok(Self { node, complete, latest })
    }

    /// The lines that cassandra-medusa logs. `now`: Unix seconds.
    pub fn text(&self, now: i64) -> String {
        let mut text = match &self.node {
            Some(last) => format!("Latest node backup finished {} seconds ago\n", last.age(now)),
            None => "This node has not been backed up yet\n".to_owned(),
        };
        match &self.complete {
            Some(last) => {
                let ago = last.age(now);
                let _ = writeln!(text, "Latest complete backup:\n- Name: {}\n- Finished: {ago} seconds ago", last.name);
            }
            None => text.push_str("The cluster this node belongs to has no complete backup yet\n"),
        }
        match &self.latest {
            Some((backup, contents)) => text.push_str(&latest_text(backup, contents)),
            None => text.push_str("The cluster this node belongs to has not started a backup yet\n"),
        }
        text
    }

    pub fn json(&self, now: i64) -> Value {
        let finished = |last: &Option<Finished>| {
            last.as_ref().map(|last| {
                json!({ "name": last.name.as_str(), "finished": last.at, "seconds_since_backup": last.age(now) })
            })
        };
        let latest = self.latest.as_ref().map(|(backup, contents)| super::render::backup_json(backup, contents));
        json!({ "version": 1, "node": finished(&self.node), "complete": finished(&self.complete), "latest": latest })
    }
}

fn latest_text(backup: &ClusterBackup, contents: &Contents) -> String {
    let finished = if backup.is_complete() { "True" } else { "False" };
    let complete = backup.complete_nodes().len();
    let mut text = format!(
        "Latest backup:\n- Name: {}\n- Finished: {finished}\n- Details - Node counts\n\
         - Complete backup: {complete} nodes have completed the backup\n",
        backup.name
    );
    let incomplete: Vec<_> = backup.incomplete_nodes().into_iter().map(|node| node.fqdn.as_str()).collect();
    let missing: Vec<_> = backup.missing_nodes().into_iter().collect();
    for (nodes, label, state) in [
        (incomplete, "Incomplete", "have not completed the backup yet"),
        (missing, "Missing", "are not running backups"),
    ] {
        if !nodes.is_empty() {
            let _ = writeln!(text, "- {label} backup: {} nodes {state}\n  These nodes are:", nodes.len());
            text.extend(nodes.iter().map(|node| format!("     {}\n", on_a_line(node))));
        }
    }
    let Amount { files, bytes } = contents::complete(backup, contents);
    let _ = writeln!(text, "- Total size: {}\n- Total files: {files}", medusa_binary_size(bytes));
    text
}

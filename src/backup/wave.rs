//! What `backup-cluster` asks of a node before and after its backup: a snapshot that stays, and that it goes.
//!
//! The snapshot of a cluster is taken on all nodes at once, and is uploaded when it is the node's turn, which may be hours
//! later. The backup is begun with the snapshot, so that the schema that is stored is the one that belongs to it. A crash
//! leaves the snapshot and a begun backup: the same command finds both.

use serde_json::{Value, json};

use super::store;
use super::{NodeBackupRun, Taken, marker, required_tables};
use crate::cassandra::snapshot::Snapshot;
use crate::error::{Failure, one_line};
use crate::model::names::Fqdn;
use crate::model::units;
use crate::storage::lease::{Terms, Work};

/// What a run says of a snapshot that another one works on.
pub const IN_USE: &str = "is in use";

/// A snapshot that waits for its backup.
#[derive(Debug)]
pub struct SnapshotTaken {
    pub fqdn: Fqdn,
    pub tag: String,
    /// Unix seconds.
    pub taken: f64,
}

impl SnapshotTaken {
    #[expect(clippy::cast_possible_truncation, reason = "shown only")]
    pub fn text(&self) -> String {
        format!("snapshot {} of {}, taken {}\n", self.tag, self.fqdn, units::time(self.taken as i64))
    }

    pub fn json(&self) -> Value {
        json!({ "version": 1, "fqdn": self.fqdn.as_str(), "snapshot": self.tag, "taken": self.taken })
    }
}

/// Whether there was a snapshot to clear.
#[derive(Debug)]
pub struct SnapshotCleared {
    pub fqdn: Fqdn,
    pub tag: String,
    pub was_there: bool,
}

impl SnapshotCleared {
    pub fn text(&self) -> String {
        let what = if self.was_there { "was cleared" } else { "is not there" };
        format!("snapshot {} of {} {what}\n", self.tag, self.fqdn)
    }

    pub fn json(&self) -> Value {
        json!({ "version": 1, "fqdn": self.fqdn.as_str(), "snapshot": self.tag, "cleared": self.was_there })
    }
}

impl NodeBackupRun<'_> {
    /// Takes the snapshot, begins the backup that belongs to it, and leaves both. One that is there and is whole is taken as
    /// it is.
    ///
    /// # Errors
    /// A snapshot that this run took is cleared.
    pub async fn take_snapshot_only(&self) -> anyhow::Result<SnapshotTaken> {
        let (context, options) = (self.context, self.options);
        context.monitor.title(&format!("snapshot for backup {} of {}", options.name, context.fqdn));
        let earlier = context.interrupt.or(self.storing().begun()).await?;
        if let Some(backup) = earlier.as_ref().filter(|backup| backup.finished.is_some()) {
            return Err(store::exists_already(backup).into());
        }
        let cql = context.cql(&self.yaml).await?;
        let (facts, schema) = context.interrupt.or(self.gather(&cql)).await?;
        let snapshot = Snapshot::of(&self.snapshot_tag(), &self.data_directories());
        // The run that uploads it may hold the lease.
        if earlier.is_some() && snapshot.exists()? && snapshot.check(&required_tables(&cql).await?).is_ok() {
            return self.taken(&snapshot);
        }
        let lease = context.interrupt.or(self.storing().lease()).await?;
        let marker = marker::InProgress::set();
        let work = async {
            let begun = context.interrupt.or(self.storing().begin(&facts, &schema)).await?;
            self.wait_for_nodetool().await;
            let taken = self.take_snapshot(&cql, &schema, begun.resumed).await?;
            let settled = context.interrupt.or(self.settle_schema(&schema, &taken, begun.resumed)).await;
            if let (Err(_), Taken { reused: false, snapshot, .. }) = (&settled, &taken)
                && let Err(uncleared) = snapshot.clear(&self.nodetool).await
            {
                context.monitor.problem(&one_line(&uncleared));
            }
            settled.map(|()| taken.snapshot)
        };
        let taken = work.await;
        drop(marker);
        lease.release().await;
        self.taken(&taken?)
    }

    fn taken(&self, snapshot: &Snapshot) -> anyhow::Result<SnapshotTaken> {
        let taken = snapshot.taken()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(SnapshotTaken { fqdn: self.context.fqdn.clone(), tag: snapshot.tag().to_owned(), taken })
    }

    /// Clears the snapshot of this backup, if it is there. No other one is touched.
    ///
    /// # Errors
    /// It is being backed up.
    pub async fn clear_snapshot_only(&self) -> anyhow::Result<SnapshotCleared> {
        let context = self.context;
        match context.storage.find_lease(&context.fqdn).await {
            Ok(Some(found)) if !found.is_stale => {
                let name = self.options.name.as_str();
                let uses = |terms: &&Terms| terms.work == Work::Backup && terms.backup.as_deref() == Some(name);
                if let Some(terms) = found.terms.as_ref().filter(uses) {
                    let message = format!("the snapshot {} {IN_USE}", self.snapshot_tag());
                    return Err(Failure::failed(message).cause(Failure::failed(terms.describe(&context.fqdn))).into());
                }
            }
            Ok(_) => {}
            // The disk of a node must not fill up because the storage does not answer.
            Err(error) => tracing::warn!("{}", one_line(&error)),
        }
        self.wait_for_nodetool().await;
        let snapshot = Snapshot::of(&self.snapshot_tag(), &self.data_directories());
        let was_there = snapshot.exists()?;
        if was_there {
            snapshot.clear(&self.nodetool).await?;
        }
        Ok(SnapshotCleared { fqdn: context.fqdn.clone(), tag: snapshot.tag().to_owned(), was_there })
    }
}

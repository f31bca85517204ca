//! What a purge knows of the whole bucket before it looks at the first node.

use std::collections::{BTreeMap, BTreeSet};

use super::retention::Candidate;
use crate::listing;
use crate::model::backups::ClusterBackup;
use crate::model::names::{BackupName, Fqdn};
use crate::storage::Storage;
use crate::storage::backups::MetaState;
use crate::storage::layout::{IndexEntry, IndexKind, SummaryEntry};

/// What the index says about one backup of a node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Indexed {
    /// Unix seconds.
    pub started: Option<i64>,
    pub finished: bool,
}

/// What is known of the whole bucket, read once.
#[derive(Debug)]
pub struct Bucket {
    pub index: BTreeMap<Fqdn, BTreeMap<BackupName, Indexed>>,
    /// The backups of each node that have a summary.
    pub summaries: BTreeMap<Fqdn, BTreeSet<BackupName>>,
    /// When each cluster backup was started, and whether it is complete.
    clusters: BTreeMap<BackupName, (i64, bool)>,
    newest_complete: Option<BackupName>,
}

impl Bucket {
    pub async fn gather(storage: &Storage) -> anyhow::Result<Self> {
        let mut index: BTreeMap<Fqdn, BTreeMap<BackupName, Indexed>> = BTreeMap::new();
        for IndexEntry { name, fqdn, kind } in storage.index_entries().await? {
            let entry = index.entry(fqdn).or_default().entry(name).or_default();
            match kind {
                IndexKind::Started(at) => entry.started = Some(entry.started.map_or(at, |known| known.min(at))),
                IndexKind::Finished(_) => entry.finished = true,
                _ => {}
            }
        }
        let mut summaries: BTreeMap<Fqdn, BTreeSet<BackupName>> = BTreeMap::new();
        for (_, SummaryEntry { name, fqdn, .. }) in storage.summaries(None).await? {
            summaries.entry(fqdn).or_default().insert(name);
        }
        let clusters = listing::cluster_backups(storage).await?;
        let newest_complete = listing::newest_complete(storage, &clusters).await?.map(|backup| backup.name);
        let facts = |backup: ClusterBackup| (backup.name.clone(), (backup.started(), backup.is_complete()));
        Ok(Self { index, summaries, clusters: clusters.into_iter().map(facts).collect(), newest_complete })
    }

    /// Nodes with a backup in the index.
    pub fn indexed_nodes(&self) -> impl Iterator<Item = &Fqdn> {
        self.index.keys()
    }

    /// The backups of a node in the index, the one that was started last first.
    pub fn newest_first(&self, fqdn: &Fqdn) -> Vec<&BackupName> {
        let mut names: Vec<_> = self.index.get(fqdn).into_iter().flatten().collect();
        names.sort_by_key(|(name, entry)| std::cmp::Reverse((entry.started, *name)));
        names.into_iter().map(|(name, _)| name).collect()
    }

    fn of(&self, state: &MetaState) -> Indexed {
        self.index.get(&state.fqdn).and_then(|names| names.get(&state.name)).copied().unwrap_or_default()
    }

    /// A backup as the retention sees it. `None`: it is none.
    pub fn candidate(&self, state: &MetaState, may_run: &BTreeSet<BackupName>) -> Option<Candidate> {
        let written = state.schema.or(state.manifest)?.timestamp();
        let started = self.of(state).started.unwrap_or(written);
        let (cluster_started, complete) = self.clusters.get(&state.name).copied().unwrap_or((started, false));
        Some(Candidate {
            name: state.name.to_string(),
            started,
            finished: state.manifest.map(|written| written.timestamp()),
            cluster_started,
            complete,
            newest_complete: state.manifest.is_some() && self.newest_complete.as_ref() == Some(&state.name),
            lost_manifest: state.manifest.is_none() && self.of(state).finished,
            may_run: may_run.contains(&state.name),
        })
    }
}

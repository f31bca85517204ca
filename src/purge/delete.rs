//! Deleting one node's backup by name.
//!
//! The order makes it safe to be interrupted: first the index and the manifest go, so that nobody takes the backup for
//! finished; then its own files; `schema.cql` and what is left of the index go last, so that the same command still finds the
//! backup and finishes the deletion.
//!
//! Files in the differential pool stay: another backup may need them, also one that is running.

use futures::TryStreamExt as _;

use crate::listing;
use crate::model::backups::BackupMode;
use crate::model::names::{BackupName, Fqdn};
use crate::monitor::Amount;
use crate::storage::Storage;
use crate::storage::layout::{IndexKind, Meta, ObjectKey};

/// Everything that belongs to one node's backup, in the order of deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletePlan {
    pub name: BackupName,
    pub fqdn: Fqdn,
    /// `None`: what is left of it does not say.
    pub mode: Option<BackupMode>,
    /// What makes the backup look finished.
    first: Vec<ObjectKey>,
    /// Its own folder, apart from `schema.cql`.
    folder: Vec<ObjectKey>,
    /// What makes it exist.
    last: Vec<ObjectKey>,
    pub amount: Amount,
}

impl DeletePlan {
    pub async fn gather(storage: &Storage, name: &BackupName, fqdn: &Fqdn) -> anyhow::Result<Self> {
        let layout = storage.layout();
        let (manifest, schema) = (layout.meta(fqdn, name, Meta::Manifest), layout.meta(fqdn, name, Meta::Schema));
        let mode = storage.node_backup(fqdn, name).await?.map(|backup| backup.mode);
        let mut plan = Self {
            name: name.clone(),
            fqdn: fqdn.clone(),
            mode,
            first: Vec::new(),
            folder: Vec::new(),
            last: Vec::new(),
            amount: Amount::default(),
        };
        let mut index = storage.list(&layout.index_of(name));
        while let Some(object) = index.try_next().await? {
            let Some(entry) = layout.parse_index_entry(&object.location).filter(|entry| entry.fqdn == *fqdn) else {
                continue;
            };
            plan.amount.add(object.size);
            let finished = matches!(entry.kind, IndexKind::Finished(_) | IndexKind::Manifest);
            let list = if finished { &mut plan.first } else { &mut plan.last };
            list.push(ObjectKey::listed(object.location));
        }
        let summary = layout.summary(name, fqdn);
        if let Some(meta) = storage.head(&summary).await? {
            plan.amount.add(meta.size);
            plan.first.push(summary);
        }
        let mut own = storage.list(&layout.node_backup(fqdn, name));
        while let Some(object) = own.try_next().await? {
            plan.amount.add(object.size);
            let key = ObjectKey::listed(object.location);
            if key == manifest {
                plan.first.push(key);
            } else if key == schema {
                plan.last.insert(0, key);
            } else {
                plan.folder.push(key);
            }
        }
        Ok(plan)
    }

    pub fn is_empty(&self) -> bool {
        self.amount.files == 0
    }

    /// Deletes, and points the latest marker to another backup if it named this one.
    pub async fn execute(self, storage: &Storage) -> anyhow::Result<()> {
        for keys in [self.first, self.folder, self.last] {
            storage.delete(keys).await?;
        }
        if storage.latest_name(&self.fqdn).await?.as_ref() == Some(&self.name) {
            move_latest_marker(storage, &self.fqdn).await?;
        }
        Ok(())
    }
}

async fn move_latest_marker(storage: &Storage, fqdn: &Fqdn) -> anyhow::Result<()> {
    let layout = storage.layout();
    let backups = listing::cluster_backups(storage, None).await?;
    let nodes = backups.iter().filter_map(|backup| backup.node(fqdn.as_str())).filter(|node| node.finished.is_some());
    let tokenmap = match nodes.max_by_key(|node| node.finished) {
        Some(latest) => {
            storage.read(&layout.meta(fqdn, &latest.name, Meta::Tokenmap)).await?.map(|tokens| (latest, tokens))
        }
        None => None,
    };
    match tokenmap {
        Some((latest, tokenmap)) => {
            storage.replace(&layout.latest_tokenmap(fqdn), tokenmap).await?;
            storage.replace(&layout.latest_name(fqdn), latest.name.to_string().into()).await?;
        }
        None => drop(storage.delete(vec![layout.latest_name(fqdn), layout.latest_tokenmap(fqdn)]).await?),
    }
    Ok(())
}

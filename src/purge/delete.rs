//! Deleting one node's backup by name.
//!
//! The order makes it safe to be interrupted: first what the index says of its end goes, then the manifest, so that nobody takes
//! the backup for finished; then its own files; `schema.cql`, then what tells its mode and that it is one of ours, and what is
//! left of the index go last, so that the same command still finds the backup as what it is, and finishes the deletion.
//!
//! Whether all of it may be deleted is tried before the first object goes.
//!
//! Files in the differential pool stay: another backup may need them, also one that is running.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::ObjectMeta;

use crate::listing;
use crate::model::backups::BackupMode;
use crate::model::names::{BackupName, Fqdn};
use crate::monitor::Amount;
use crate::storage::Storage;
use crate::storage::layout::{InNode, IndexKind, Layout, Meta, ObjectKey, Spot};
use crate::storage::lease::Work;

/// Objects that are deleted before the lease is confirmed again.
pub(super) const BATCH: usize = 10_000;

/// What is said where a deletion was refused before it began.
pub(super) const NOTHING_DELETED: &str = "nothing was deleted, because not everything may be";

/// Everything that belongs to one node's backup, in the order of deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletePlan {
    pub name: BackupName,
    pub fqdn: Fqdn,
    /// `None`: what is left of it does not say.
    pub mode: Option<BackupMode>,
    /// What the index and the summary say of its end. It goes before the manifest: a backup that the index calls finished and
    /// that has no manifest is one that lost it, and a purge touches no pool then.
    first: Vec<ObjectKey>,
    manifest: Vec<ObjectKey>,
    /// Its own folder, apart from `schema.cql` and what goes last.
    folder: Vec<ObjectKey>,
    /// What makes it exist.
    schema: Vec<ObjectKey>,
    /// The marker of its mode, the schema that only we write, and what the index says of its beginning.
    last: Vec<ObjectKey>,
    pub amount: Amount,
    /// When the youngest of its objects was written.
    pub youngest: Option<DateTime<Utc>>,
}

impl DeletePlan {
    pub async fn gather(storage: &Storage, name: &BackupName, fqdn: &Fqdn) -> anyhow::Result<Self> {
        let layout = storage.layout();
        let (manifest, schema) = (layout.meta(fqdn, name, Meta::Manifest), layout.meta(fqdn, name, Meta::Schema));
        let markers = [Meta::Differential, Meta::Incremental, Meta::SchemaInternals]
            .map(|marker| layout.meta(fqdn, name, marker));
        let state = storage.meta_state(fqdn, name).await?;
        let mut plan = Self {
            name: name.clone(),
            fqdn: fqdn.clone(),
            mode: state.backup().map(|backup| backup.mode),
            first: Vec::new(),
            manifest: Vec::new(),
            folder: Vec::new(),
            schema: Vec::new(),
            last: Vec::new(),
            amount: Amount::default(),
            youngest: None,
        };
        let mut index = storage.list(&layout.index_of(name));
        while let Some(object) = index.try_next().await? {
            let Some(entry) = layout.parse_index_entry(&object.location).filter(|entry| entry.fqdn == *fqdn) else {
                continue;
            };
            plan.count(&object);
            let finished = matches!(entry.kind, IndexKind::Finished(_) | IndexKind::Manifest);
            let list = if finished { &mut plan.first } else { &mut plan.last };
            list.push(ObjectKey::listed(object.location));
        }
        let mut summaries = storage.list(&layout.summaries_of(name));
        while let Some(object) = summaries.try_next().await? {
            if layout.parse_summary(&object.location).is_some_and(|entry| entry.fqdn == *fqdn) {
                plan.count(&object);
                plan.first.push(ObjectKey::listed(object.location));
            }
        }
        let mut own = storage.list(&layout.node_backup(fqdn, name));
        while let Some(object) = own.try_next().await? {
            plan.count(&object);
            let key = ObjectKey::listed(object.location);
            if key == manifest {
                plan.manifest.push(key);
            } else if key == schema {
                plan.schema.push(key);
            } else if markers.contains(&key) {
                plan.last.push(key);
            } else {
                plan.folder.push(key);
            }
        }
        if plan.schema.is_empty() && state.schema.is_some() {
            plan.schema.push(schema);
            plan.amount.add(0);
        }
        if let Some(written) = state.manifest {
            plan.add_unlisted(layout, manifest, written.timestamp());
        }
        Ok(plan)
    }

    /// A listing may be behind. A manifest without its files would be a finished backup that is none, and an index entry
    /// without its manifest one that lost it.
    fn add_unlisted(&mut self, layout: &Layout, manifest: ObjectKey, finished: i64) {
        if self.manifest.is_empty() {
            self.manifest.push(manifest);
            self.amount.add(0);
        }
        for kind in [IndexKind::Finished(finished), IndexKind::Manifest] {
            let key = layout.index_entry(&self.name, &self.fqdn, kind);
            if !self.first.contains(&key) {
                self.first.push(key);
            }
        }
    }

    fn count(&mut self, object: &ObjectMeta) {
        self.amount.add(object.size);
        self.youngest = self.youngest.max(Some(object.last_modified));
    }

    /// Whether something lies in its folder that no backup leaves there. A folder without a backup may be anybody's: that of
    /// another cluster, too, whose prefix is called as this node.
    pub fn holds_foreign_objects(&self, layout: &Layout) -> bool {
        self.folder.iter().any(|key| layout.parse_in_node(&self.fqdn, key.path()) == InNode::Other)
    }

    fn keys(&self) -> Vec<ObjectKey> {
        [&self.first, &self.manifest, &self.folder, &self.schema, &self.last].into_iter().flatten().cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.amount.files == 0
    }

    /// Deletes, and points the latest marker to another backup if it named this one. `is_ours` fails if the lease was lost: then
    /// another run may be using what is left.
    pub async fn execute(self, storage: &Storage, is_ours: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        for keys in [self.first, self.manifest, self.folder, self.schema, self.last] {
            for keys in keys.chunks(BATCH) {
                is_ours().await?;
                storage.delete(keys.to_vec()).await?;
            }
        }
        if storage.latest_name(&self.fqdn).await?.as_ref() == Some(&self.name) {
            move_latest_marker(storage, &self.fqdn).await?;
        }
        Ok(())
    }
}

/// Fails unless what belongs to backups of the node alone may be deleted: their folders, and what the index says of them.
/// `has_data`: data files are in these folders.
pub(super) async fn expect_permission(
    storage: &Storage,
    fqdn: &Fqdn,
    has_data: bool,
    going: &[ObjectKey],
) -> anyhow::Result<()> {
    let spots = [Spot::Meta(fqdn), Spot::Index, Spot::Summaries].into_iter();
    let spots = spots.chain(has_data.then_some(Spot::Full(fqdn)));
    storage.expect_deletable(spots, going).await.context(NOTHING_DELETED)
}

/// Deletes a node's backup under the lease of the node, as it is by then. Returns what was deleted.
pub async fn delete(storage: &Storage, name: &BackupName, fqdn: &Fqdn) -> anyhow::Result<DeletePlan> {
    let lease = storage.lease(fqdn, Work::Delete, Some(name)).await?;
    let work = async {
        let plan = DeletePlan::gather(storage, name, fqdn).await?;
        let keys = plan.keys();
        let is_data = |key: &ObjectKey| matches!(storage.layout().parse_in_node(fqdn, key.path()), InNode::Full(_));
        expect_permission(storage, fqdn, keys.iter().any(is_data), &keys).await?;
        plan.clone().execute(storage, || lease.confirm()).await?;
        Ok(plan)
    };
    let deleted = work.await;
    lease.release().await;
    deleted
}

/// Points the latest marker to the backup of the node that was finished last, or removes it.
async fn move_latest_marker(storage: &Storage, fqdn: &Fqdn) -> anyhow::Result<()> {
    let layout = storage.layout();
    let backups = listing::cluster_backups(storage).await?;
    let nodes = backups.iter().filter_map(|backup| backup.node(fqdn.as_str())).filter(|node| node.finished.is_some());
    let mut newest_first: Vec<_> = nodes.collect();
    newest_first.sort_by_key(|node| std::cmp::Reverse(node.finished));
    let mut tokenmap = None;
    for node in newest_first {
        // The index may remember what is gone.
        if storage.meta_state(fqdn, &node.name).await?.manifest.is_none() {
            continue;
        }
        if let Some(found) = storage.read(&layout.meta(fqdn, &node.name, Meta::Tokenmap)).await? {
            tokenmap = Some((node, found));
            break;
        }
    }
    match tokenmap {
        Some((latest, tokenmap)) => {
            storage.replace(&layout.latest_tokenmap(fqdn), tokenmap).await?;
            storage.replace(&layout.latest_name(fqdn), latest.name.to_string().into()).await?;
        }
        None => drop(storage.delete(vec![layout.latest_name(fqdn), layout.latest_tokenmap(fqdn)]).await?),
    }
    Ok(())
}

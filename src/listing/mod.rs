//! Which backups there are, and how complete they are.
//!
//! Two listings answer most of it, whatever the number of backups: that of the index, and that of the summaries. Where the
//! index says less than `meta/` (a run was killed before it wrote its last entries), `meta/` is asked. Nothing is ever deleted
//! or written here.

pub mod contents;
pub mod filter;
pub mod hosts;
pub mod last;
pub mod render;
pub mod suggest;

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;

use self::hosts::{KnownHosts, Mark};
use crate::error::one_line;
use crate::model::backups::{BackupMode, ClusterBackup, NodeBackup};
use crate::model::names::{BackupName, Fqdn};
use crate::model::summary::Summary;
use crate::model::tokenmap::Tokenmap;
use crate::storage::layout::{IndexEntry, IndexKind, Meta, SummaryEntry};
use crate::storage::{Storage, StorageError};

/// What the index says about one node backup.
#[derive(Debug, Default)]
struct Indexed {
    started: Option<i64>,
    finished: Option<i64>,
    differential: bool,
    summaries: Vec<Summary>,
    tokenmap: Option<Mark>,
}

/// A node backup with what the listings say of it.
#[derive(Debug)]
struct ListedNode {
    node: NodeBackup,
    summary: Option<Summary>,
    tokenmap: Option<Mark>,
}

type Index = BTreeMap<(BackupName, Fqdn), Indexed>;

/// Whom to believe about a backup that the index calls finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Index,
    /// `meta/`: several requests for each node.
    Meta,
}

/// All cluster backups, by start time.
pub async fn cluster_backups(storage: &Storage) -> anyhow::Result<Vec<ClusterBackup>> {
    gather(storage, None, Ask::Index).await
}

/// The cluster backup of that name as the index sees it, if there is one.
pub async fn listed(storage: &Storage, name: &BackupName) -> anyhow::Result<Option<ClusterBackup>> {
    Ok(gather(storage, Some(name), Ask::Index).await?.pop())
}

/// The same, confirmed by what is stored: for those who do something with it.
pub async fn confirmed(storage: &Storage, name: &BackupName) -> anyhow::Result<Option<ClusterBackup>> {
    Ok(gather(storage, Some(name), Ask::Meta).await?.pop())
}

async fn gather(storage: &Storage, only: Option<&BackupName>, ask: Ask) -> anyhow::Result<Vec<ClusterBackup>> {
    let mut nodes = futures::stream::iter(read_index(storage, only).await?)
        .map(async |((name, fqdn), mut indexed)| {
            let summaries = std::mem::take(&mut indexed.summaries);
            let node = node_backup(storage, name, fqdn, &indexed, ask).await?;
            anyhow::Ok(node.map(|node| {
                let summary = summaries.into_iter().find(|summary| Some(summary.finished) == node.finished);
                ListedNode { node, summary, tokenmap: indexed.tokenmap }
            }))
        })
        .buffer_unordered(storage.requests_in_flight())
        .try_filter_map(async |node| Ok(node))
        .try_collect::<Vec<_>>()
        .await?;
    nodes.sort_by(|ListedNode { node: a, .. }, ListedNode { node: b, .. }| {
        (a.started, &a.name, &a.fqdn).cmp(&(b.started, &b.name, &b.fqdn))
    });
    drop_vanished(storage, &mut nodes).await?;
    let hosts = KnownHosts::gather(storage, &nodes).await?;
    let mut by_name: BTreeMap<BackupName, (Vec<NodeBackup>, BTreeMap<Fqdn, Summary>)> = BTreeMap::new();
    for ListedNode { node, summary, .. } in nodes {
        let (nodes, summaries) = by_name.entry(node.name.clone()).or_default();
        summaries.extend(summary.map(|summary| (node.fqdn.clone(), summary)));
        nodes.push(node);
    }
    let backup = |(name, (nodes, summaries)): (BackupName, (Vec<_>, _))| {
        let hosts = hosts.of(&name, &nodes);
        ClusterBackup { name, nodes, hosts, summaries }
    };
    let mut backups: Vec<_> = by_name.into_iter().map(backup).collect();
    backups.sort_by_key(|backup| (backup.started(), backup.name.clone()));
    Ok(backups)
}

/// The index, or what it says of one backup name.
async fn read_index(storage: &Storage, only: Option<&BackupName>) -> anyhow::Result<Index> {
    let entries = async {
        let mut index = Index::new();
        let mut entries = storage.index(only);
        while let Some((IndexEntry { name, fqdn, kind }, object)) = entries.try_next().await? {
            index.entry((name, fqdn)).or_default().add(kind, &object);
        }
        Ok(index)
    };
    let (mut index, summaries) = futures::try_join!(entries, storage.summaries(only))?;
    for (_, SummaryEntry { name, fqdn, summary }) in summaries {
        // What the index does not name is a backup that is gone.
        if let Some(indexed) = index.get_mut(&(name, fqdn)) {
            indexed.summaries.extend(summary);
        }
    }
    Ok(index)
}

impl Indexed {
    fn add(&mut self, kind: IndexKind, object: &ObjectMeta) {
        match kind {
            // A backup that was begun twice has two entries; the first one counts.
            IndexKind::Started(at) => self.started = Some(self.started.map_or(at, |known| known.min(at))),
            IndexKind::Finished(at) => self.finished = Some(self.finished.map_or(at, |known| known.max(at))),
            IndexKind::Differential => self.differential = true,
            IndexKind::Tokenmap => self.tokenmap = Mark::of(object),
            IndexKind::Schema | IndexKind::Manifest => {}
        }
    }
}

/// Every node that the index names with that backup, and what `meta/` says of its part. Nodes whose storage fails hide no
/// others.
pub async fn each_node(
    storage: &Storage,
    name: &BackupName,
) -> anyhow::Result<Vec<(Fqdn, anyhow::Result<Option<NodeBackup>>)>> {
    let nodes = futures::stream::iter(read_index(storage, Some(name)).await?)
        .map(async |((name, fqdn), indexed)| {
            let found = node_backup(storage, name, fqdn.clone(), &indexed, Ask::Meta).await;
            (fqdn, found)
        })
        .buffered(storage.requests_in_flight());
    Ok(nodes.collect().await)
}

/// The complete backup that finished last. What the index says of it is confirmed: somebody may restore it.
pub async fn latest_complete(storage: &Storage) -> anyhow::Result<Option<ClusterBackup>> {
    newest_complete(storage, &cluster_backups(storage).await?).await
}

/// The same of backups that were listed already.
pub async fn newest_complete(storage: &Storage, backups: &[ClusterBackup]) -> anyhow::Result<Option<ClusterBackup>> {
    let mut complete: Vec<_> = backups.iter().filter(|backup| backup.finished().is_some()).collect();
    complete.sort_by_key(|backup| backup.finished());
    while let Some(latest) = complete.pop() {
        let found = confirmed(storage, &latest.name).await?.filter(|backup| backup.finished().is_some());
        if found.is_some() {
            return Ok(found);
        }
        tracing::warn!("the index calls {} complete, and it is not: medusa verify says more", latest.name);
    }
    Ok(None)
}

async fn node_backup(
    storage: &Storage,
    name: BackupName,
    fqdn: Fqdn,
    indexed: &Indexed,
    ask: Ask,
) -> anyhow::Result<Option<NodeBackup>> {
    let mode = if indexed.differential { BackupMode::Differential } else { BackupMode::Full };
    if let (Some(started), finished @ Some(_), Ask::Index) = (indexed.started, indexed.finished, ask) {
        return Ok(Some(NodeBackup { name, fqdn, mode, started, finished }));
    }
    let Some(meta) = storage.node_backup(&fqdn, &name).await? else { return Ok(None) };
    let finished = meta.finished.map(|at| indexed.finished.unwrap_or(at));
    Ok(Some(NodeBackup { started: indexed.started.unwrap_or(meta.started), finished, ..meta }))
}

/// The index may remember backups that were deleted without it. As in Medusa, the oldest ones are looked at until one is
/// there: whoever deletes backups begins with the oldest.
async fn drop_vanished(storage: &Storage, nodes: &mut Vec<ListedNode>) -> anyhow::Result<()> {
    let mut vanished = 0;
    for ListedNode { node, .. } in nodes.iter() {
        if storage.head(&storage.layout().meta(&node.fqdn, &node.name, Meta::Schema)).await?.is_some() {
            break;
        }
        vanished += 1;
    }
    nodes.drain(..vanished);
    Ok(())
}

/// What to do about nodes that are missing for ever because the token maps call them something else.
pub fn other_names(backup: &ClusterBackup) -> Option<String> {
    let (unknown, missing) = (backup.unknown_nodes(), backup.missing_nodes());
    if unknown.is_empty() || missing.is_empty() {
        return None;
    }
    let unknown: Vec<_> = unknown.into_iter().map(Fqdn::as_str).collect();
    let missing: Vec<_> = missing.into_iter().collect();
    Some(format!(
        "backup {}: no token map names {}, and {} of the token maps has no backup: one host under two names? \
         Set fqdn in [storage] of that node to its name in the token map, or change resolve_ip_addresses in [cassandra]",
        backup.name,
        unknown.join(", "),
        missing.join(", ")
    ))
}

/// The token map of the node that started first.
pub async fn tokenmap(storage: &Storage, backup: &ClusterBackup) -> anyhow::Result<Tokenmap> {
    let Some(first) = backup.nodes.first() else { return Ok(Tokenmap::default()) };
    // One damaged token map must not hide all backups.
    match storage.tokenmap(&first.fqdn, &first.name).await {
        Ok(Some(tokenmap)) => return Ok(tokenmap),
        Ok(None) => {}
        Err(error) if StorageError::is_cause_of(&error) => return Err(error),
        Err(error) => tracing::warn!("{}", one_line(&error)),
    }
    let copy = storage.layout().index_entry(&first.name, &first.fqdn, IndexKind::Tokenmap);
    if let Some(bytes) = storage.read(&copy).await? {
        match Tokenmap::parse(&bytes) {
            Ok(tokenmap) => return Ok(tokenmap),
            Err(error) => tracing::warn!("{} cannot be used: {error}", storage.name_of(copy.path())),
        }
    }
    tracing::warn!(
        "backup {} of {} has no token map, so nobody knows which nodes belong to it",
        first.name,
        first.fqdn
    );
    Ok(Tokenmap::default())
}

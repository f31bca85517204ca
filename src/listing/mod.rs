//! Which backups there are, and how complete they are.
//!
//! One listing of the index answers most of it. Where the index says less than `meta/` (a run was killed before it wrote its
//! last entries), and where one backup is asked for by name, `meta/` is asked. Nothing is ever deleted or written here.

pub mod filter;
pub mod last;
pub mod render;

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::error::one_line;
use crate::model::backups::{BackupMode, ClusterBackup, NodeBackup, ServerVersion};
use crate::model::names::{BackupName, Fqdn};
use crate::model::tokenmap::Tokenmap;
use crate::storage::layout::{IndexEntry, IndexKind};
use crate::storage::{Storage, StorageError};

/// Requests in flight for details of single backups.
const IN_FLIGHT: usize = 16;

/// What the index says about one node backup.
#[derive(Debug, Default)]
struct Indexed {
    started: Option<i64>,
    finished: Option<i64>,
    differential: bool,
}

/// All cluster backups, by start time. With `only`, just the one of that name.
pub async fn cluster_backups(storage: &Storage, only: Option<&BackupName>) -> anyhow::Result<Vec<ClusterBackup>> {
    let entries = match only {
        Some(name) => index_of(storage, name).await?,
        None => storage.index_entries().await?,
    };
    let mut nodes = futures::stream::iter(group(entries))
        .map(|((name, fqdn), indexed)| node_backup(storage, name, fqdn, indexed, only.is_some()))
        .buffer_unordered(IN_FLIGHT)
        .try_filter_map(async |node| Ok(node))
        .try_collect::<Vec<_>>()
        .await?;
    nodes.sort_by(|a, b| (a.started, &a.name, &a.fqdn).cmp(&(b.started, &b.name, &b.fqdn)));
    drop_vanished(storage, &mut nodes).await?;
    let mut by_name: BTreeMap<BackupName, Vec<NodeBackup>> = BTreeMap::new();
    for node in nodes {
        by_name.entry(node.name.clone()).or_default().push(node);
    }
    let mut backups = futures::stream::iter(by_name)
        .map(async |(name, nodes)| {
            let tokenmap = tokenmap(storage, &nodes).await?;
            anyhow::Ok(ClusterBackup { name, nodes, tokenmap })
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<_>>()
        .await?;
    backups.sort_by_key(|backup| (backup.started(), backup.name.clone()));
    Ok(backups)
}

/// The cluster backup of that name, if there is one.
pub async fn cluster_backup(storage: &Storage, name: &BackupName) -> anyhow::Result<Option<ClusterBackup>> {
    Ok(cluster_backups(storage, Some(name)).await?.pop())
}

/// Every node that the index names with that backup, and what `meta/` says of its part. Nodes whose storage fails hide no
/// others.
pub async fn each_node(
    storage: &Storage,
    name: &BackupName,
) -> anyhow::Result<Vec<(Fqdn, anyhow::Result<Option<NodeBackup>>)>> {
    let nodes = futures::stream::iter(group(index_of(storage, name).await?))
        .map(async |((name, fqdn), indexed)| {
            let found = node_backup(storage, name, fqdn.clone(), indexed, true).await;
            (fqdn, found)
        })
        .buffered(IN_FLIGHT);
    Ok(nodes.collect().await)
}

/// The complete backup that finished last. What the index says of it is confirmed: somebody may restore it.
pub async fn latest_complete(storage: &Storage) -> anyhow::Result<Option<ClusterBackup>> {
    newest_complete(storage, &cluster_backups(storage, None).await?).await
}

/// The same of backups that were listed already.
async fn newest_complete(storage: &Storage, backups: &[ClusterBackup]) -> anyhow::Result<Option<ClusterBackup>> {
    let mut complete: Vec<_> = backups.iter().filter(|backup| backup.finished().is_some()).collect();
    complete.sort_by_key(|backup| backup.finished());
    while let Some(latest) = complete.pop() {
        let confirmed = cluster_backup(storage, &latest.name).await?.filter(|backup| backup.finished().is_some());
        if confirmed.is_some() {
            return Ok(confirmed);
        }
        tracing::warn!("the index calls {} complete, and it is not: medusa verify says more", latest.name);
    }
    Ok(None)
}

async fn index_of(storage: &Storage, name: &BackupName) -> anyhow::Result<Vec<IndexEntry>> {
    let mut entries = Vec::new();
    let mut listing = storage.list(&storage.layout().index_of(name));
    while let Some(object) = listing.try_next().await? {
        entries.extend(storage.layout().parse_index_entry(&object.location));
    }
    Ok(entries)
}

fn group(entries: Vec<IndexEntry>) -> BTreeMap<(BackupName, Fqdn), Indexed> {
    let mut nodes: BTreeMap<_, Indexed> = BTreeMap::new();
    for IndexEntry { name, fqdn, kind } in entries {
        let node = nodes.entry((name, fqdn)).or_default();
        match kind {
            // A backup that was begun twice has two entries; the first one counts.
            IndexKind::Started(at) => node.started = Some(node.started.map_or(at, |known| known.min(at))),
            IndexKind::Finished(at) => node.finished = Some(node.finished.map_or(at, |known| known.max(at))),
            IndexKind::Differential => node.differential = true,
            IndexKind::Tokenmap | IndexKind::Schema | IndexKind::Manifest => {}
        }
    }
    nodes
}

async fn node_backup(
    storage: &Storage,
    name: BackupName,
    fqdn: Fqdn,
    indexed: Indexed,
    ask_meta: bool,
) -> anyhow::Result<Option<NodeBackup>> {
    let mode = if indexed.differential { BackupMode::Differential } else { BackupMode::Full };
    if let (Some(started), finished @ Some(_), false) = (indexed.started, indexed.finished, ask_meta) {
        return Ok(Some(NodeBackup { name, fqdn, mode, started, finished }));
    }
    let Some(meta) = storage.node_backup(&fqdn, &name).await? else { return Ok(None) };
    let finished = meta.finished.map(|at| indexed.finished.unwrap_or(at));
    Ok(Some(NodeBackup { started: indexed.started.unwrap_or(meta.started), finished, ..meta }))
}

/// The index may remember backups that were deleted without it. As in Medusa, the oldest ones are looked at until one is
/// there: whoever deletes backups begins with the oldest.
async fn drop_vanished(storage: &Storage, nodes: &mut Vec<NodeBackup>) -> anyhow::Result<()> {
    let mut vanished = 0;
    for node in nodes.iter() {
        if storage.node_backup(&node.fqdn, &node.name).await?.is_some() {
            break;
        }
        vanished += 1;
    }
    nodes.drain(..vanished);
    Ok(())
}

/// The token map of the node that started first.
pub async fn tokenmap(storage: &Storage, nodes: &[NodeBackup]) -> anyhow::Result<Tokenmap> {
    let first = nodes.first().context("a cluster backup has at least one node")?;
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

/// What a node backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeContents {
    pub version: ServerVersion,
    pub num_objects: u64,
    /// Bytes.
    pub size: u64,
}

/// The contents of a node backup: from its summary, or the slow way from its manifest. An unfinished one holds nothing.
pub async fn contents(storage: &Storage, node: &NodeBackup) -> anyhow::Result<NodeContents> {
    let Some(finished) = node.finished else {
        return Ok(NodeContents {
            version: storage.server_version(&node.fqdn, &node.name).await?,
            ..NodeContents::default()
        });
    };
    if let Some(summary) = storage.summary(&node.fqdn, &node.name, finished).await? {
        let version = ServerVersion { server_type: summary.server_type, release_version: summary.release_version };
        return Ok(NodeContents { version, num_objects: summary.num_objects, size: summary.size });
    }
    let version = storage.server_version(&node.fqdn, &node.name).await?;
    let manifest = storage.manifest(&node.fqdn, &node.name).await?;
    let manifest = manifest.with_context(|| format!("backup {} of {} has lost its manifest", node.name, node.fqdn))?;
    Ok(NodeContents { version, num_objects: manifest.object_count(), size: manifest.total_bytes() })
}

/// The contents of all nodes of a backup, by folder name.
pub async fn all_contents(storage: &Storage, backup: &ClusterBackup) -> anyhow::Result<BTreeMap<String, NodeContents>> {
    futures::stream::iter(&backup.nodes)
        .map(async |node| anyhow::Ok((node.fqdn.to_string(), contents(storage, node).await?)))
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

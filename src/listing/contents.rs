//! How much node backups hold: from their summaries, or the slow way from their manifests.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::error::{Failure, one_line};
use crate::model::backups::{ClusterBackup, NodeBackup, ServerVersion};
use crate::model::units::counted;
use crate::monitor::Amount;
use crate::storage::Storage;
use crate::storage::backups::Memory;

/// Kibibytes. For manifests that are read at a time.
const MEMORY: u32 = 24 << 10;

/// What a node backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeContents {
    pub version: ServerVersion,
    pub num_objects: u64,
    /// Bytes.
    pub size: u64,
}

/// Of the nodes of one backup, by the name of their folder.
pub type Contents = BTreeMap<String, NodeContents>;

/// The contents of each of the backups. Unfinished node backups hold nothing, and those whose manifest is lost or damaged are
/// not there.
pub async fn contents(storage: &Storage, backups: &[ClusterBackup]) -> anyhow::Result<Vec<Contents>> {
    let memory = Memory::new(MEMORY);
    let nodes = backups
        .iter()
        .enumerate()
        .flat_map(|(number, backup)| backup.nodes.iter().map(move |node| (number, backup, node)));
    let mut found = futures::stream::iter(nodes)
        .map(async |(number, backup, node)| {
            let held = match backup.summaries.get(&node.fqdn) {
                Some(summary) => NodeContents {
                    version: summary.version.clone(),
                    num_objects: summary.num_objects,
                    size: summary.size,
                },
                None => match without_summary(storage, node, &memory).await? {
                    Some(held) => held,
                    None => return Ok(None),
                },
            };
            anyhow::Ok(Some((number, node.fqdn.to_string(), held)))
        })
        .buffer_unordered(storage.requests_in_flight());
    let mut contents = vec![Contents::new(); backups.len()];
    while let Some(held) = found.try_next().await? {
        if let Some((number, fqdn, held)) = held {
            contents[number].insert(fqdn, held);
        }
    }
    drop(found);
    Ok(contents)
}

/// What keeps a listing from being whole: the finished node backups of which nobody knows what they hold.
pub fn failure<'a>(listed: impl IntoIterator<Item = (&'a ClusterBackup, &'a Contents)>) -> Option<Failure> {
    let mut lost = Vec::new();
    for (backup, contents) in listed {
        let finished = backup.nodes.iter().filter(|node| node.finished.is_some());
        lost.extend(finished.filter(|node| !contents.contains_key(node.fqdn.as_str())));
    }
    if lost.is_empty() {
        return None;
    }
    let message = format!("what {} holds is not known", counted(lost.len() as u64, "node backup"));
    let details =
        lost.iter().map(|node| format!("the manifest of backup {} of {} is lost or damaged", node.name, node.fqdn));
    Some(Failure::problems(message).details(details).hint("medusa verify --repository tells what is left of it"))
}

/// The same of one backup.
pub async fn of_one(storage: &Storage, backup: &ClusterBackup) -> anyhow::Result<Contents> {
    Ok(contents(storage, std::slice::from_ref(backup)).await?.pop().unwrap_or_default())
}

/// What the finished nodes of a backup hold together, as far as they belong to it.
pub fn complete(backup: &ClusterBackup, contents: &Contents) -> Amount {
    let nodes = backup.complete_nodes();
    let held = nodes.iter().filter_map(|node| contents.get(node.fqdn.as_str()));
    held.fold(Amount::default(), |all, node| Amount {
        files: all.files + node.num_objects,
        bytes: all.bytes + node.size,
    })
}

/// `None`: it was finished, and its manifest is gone or says nothing.
async fn without_summary(
    storage: &Storage,
    node: &NodeBackup,
    memory: &Memory,
) -> anyhow::Result<Option<NodeContents>> {
    let version = storage.server_version(&node.fqdn, &node.name).await?;
    if node.finished.is_none() {
        return Ok(Some(NodeContents { version, ..NodeContents::default() }));
    }
    match storage.manifest_totals(&node.fqdn, &node.name, memory).await? {
        Some(Ok(totals)) => Ok(Some(NodeContents { version, num_objects: totals.objects, size: totals.bytes })),
        // One damaged manifest must not hide all backups.
        Some(Err(damaged)) => {
            tracing::warn!("{}", one_line(&damaged.into()));
            Ok(None)
        }
        None => Ok(None),
    }
}

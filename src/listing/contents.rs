//! How much node backups hold: from their summaries, or the slow way from their manifests.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::model::backups::{ClusterBackup, NodeBackup, ServerVersion};
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

/// The contents of each of the backups. Unfinished node backups hold nothing.
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
                None => without_summary(storage, node, &memory).await?,
            };
            anyhow::Ok((number, node.fqdn.to_string(), held))
        })
        .buffer_unordered(storage.requests_in_flight());
    let mut contents = vec![Contents::new(); backups.len()];
    while let Some((number, fqdn, held)) = found.try_next().await? {
        contents[number].insert(fqdn, held);
    }
    drop(found);
    Ok(contents)
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

async fn without_summary(storage: &Storage, node: &NodeBackup, memory: &Memory) -> anyhow::Result<NodeContents> {
    let version = storage.server_version(&node.fqdn, &node.name).await?;
    if node.finished.is_none() {
        return Ok(NodeContents { version, ..NodeContents::default() });
    }
    let totals = storage.manifest_totals(&node.fqdn, &node.name, memory).await?;
    let totals = totals.with_context(|| format!("backup {} of {} has lost its manifest", node.name, node.fqdn))?;
    Ok(NodeContents { version, num_objects: totals.objects, size: totals.bytes })
}

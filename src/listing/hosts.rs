//! Which nodes should have a part in a backup: those that any of its token maps names. A node that does not see all others has
//! a token map that is too short.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt as _, TryStreamExt as _};

use crate::error::one_line;
use crate::model::backups::NodeBackup;
use crate::model::names::{BackupName, Fqdn};
use crate::model::summary::{HostsDigest, Summary};
use crate::model::tokenmap::{Hosts, parse_hosts};
use crate::storage::layout::{IndexKind, Meta};
use crate::storage::{Result, Storage};

/// The nodes that the token map of each node backup names. Summaries tell which token maps name the same ones, so that only one
/// of these is read.
#[derive(Debug)]
pub struct KnownHosts {
    by_node: BTreeMap<(BackupName, Fqdn), HostsDigest>,
    by_digest: HashMap<HostsDigest, Hosts>,
}

impl KnownHosts {
    pub async fn gather(storage: &Storage, nodes: &[(NodeBackup, Option<Summary>)]) -> Result<Self> {
        let mut same: BTreeMap<&HostsDigest, Vec<&NodeBackup>> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (node, summary) in nodes {
            match summary {
                Some(summary) => same.entry(&summary.hosts).or_default().push(node),
                None => unknown.push(node),
            }
        }
        let groups = same.into_iter().map(|(digest, group)| (Some(digest), group));
        let groups = groups.chain(unknown.into_iter().map(|node| (None, vec![node])));
        let mut reads = futures::stream::iter(groups)
            .map(async |(digest, group)| {
                for node in &group {
                    if let Some(hosts) = read(storage, node).await? {
                        return Ok((digest, group, Some(hosts)));
                    }
                }
                Ok((digest, group, None))
            })
            .buffer_unordered(storage.requests_in_flight());
        let mut known = Self { by_node: BTreeMap::new(), by_digest: HashMap::new() };
        while let Some((digest, group, hosts)) = reads.try_next().await? {
            let Some(hosts) = hosts else { continue };
            let digest = digest.cloned().unwrap_or_else(|| HostsDigest::of(&hosts));
            known.by_digest.entry(digest.clone()).or_insert(hosts);
            for node in group {
                known.by_node.insert((node.name.clone(), node.fqdn.clone()), digest.clone());
            }
        }
        drop(reads);
        Ok(known)
    }

    /// The nodes that belong to a backup.
    pub fn of(&self, name: &BackupName, nodes: &[NodeBackup]) -> Hosts {
        let mut seen = Vec::new();
        for node in nodes {
            let digest = self.by_node.get(&(node.name.clone(), node.fqdn.clone()));
            seen.extend(digest.filter(|digest| !seen.contains(digest)));
        }
        union(name, seen.into_iter().map(|digest| &self.by_digest[digest]))
    }
}

/// The nodes that belong to a backup with these token maps: in the order of the first one, then those that others add.
pub fn union<'a>(name: &BackupName, tokenmaps: impl IntoIterator<Item = &'a Hosts>) -> Hosts {
    let hosts: Hosts = tokenmaps.into_iter().flatten().cloned().collect();
    if hosts.is_empty() {
        tracing::warn!("backup {name} has no token map, so nobody knows which nodes belong to it");
    }
    hosts
}

/// The nodes that a backup's token map names, by the backup itself or by its copy in the index. One damaged token map must not
/// hide all backups. `None`: there is none that can be used.
pub async fn read(storage: &Storage, node: &NodeBackup) -> Result<Option<Hosts>> {
    let layout = storage.layout();
    for key in [
        layout.meta(&node.fqdn, &node.name, Meta::Tokenmap),
        layout.index_entry(&node.name, &node.fqdn, IndexKind::Tokenmap),
    ] {
        let Some(bytes) = storage.read(&key).await? else { continue };
        match parse_hosts(&bytes) {
            Ok(hosts) => return Ok(Some(hosts)),
            Err(error) => {
                tracing::warn!("{} cannot be used: {}", storage.name_of(key.path()), one_line(&error.into()));
            }
        }
    }
    Ok(None)
}

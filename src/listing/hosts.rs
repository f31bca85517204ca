//! Which nodes should have a part in a backup: those that any of its token maps names. A node that does not see all others has
//! a token map that is too short.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt as _, TryStreamExt as _};

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
                let mut damaged = Vec::new();
                for node in &group {
                    let found = read(storage, node).await?;
                    damaged.extend(found.damage.map(|damage| (&node.name, damage)));
                    if found.hosts.is_some() {
                        return Ok((digest, group, found.hosts, damaged));
                    }
                }
                Ok((digest, group, None, damaged))
            })
            .buffer_unordered(storage.requests_in_flight());
        let mut known = Self { by_node: BTreeMap::new(), by_digest: HashMap::new() };
        let mut damages: BTreeMap<&BackupName, Vec<String>> = BTreeMap::new();
        while let Some((digest, group, hosts, damaged)) = reads.try_next().await? {
            for (name, damage) in damaged {
                damages.entry(name).or_default().push(damage);
            }
            let Some(hosts) = hosts else { continue };
            let digest = digest.cloned().unwrap_or_else(|| HostsDigest::of(&hosts));
            known.by_digest.entry(digest.clone()).or_insert(hosts);
            for node in group {
                known.by_node.insert((node.name.clone(), node.fqdn.clone()), digest.clone());
            }
        }
        drop(reads);
        for (name, damages) in damages {
            match damages.as_slice() {
                [only] => tracing::warn!("{only}"),
                [first, others @ ..] => {
                    let count = others.len();
                    tracing::warn!("{first}; neither can the token maps of {count} other nodes of backup {name}");
                }
                [] => {}
            }
        }
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

/// What a token map says.
#[derive(Debug, Default)]
pub struct FoundHosts {
    /// `None`: there is no token map that can be used.
    pub hosts: Option<Hosts>,
    /// Why the last one that was looked at cannot be used.
    pub damage: Option<String>,
}

/// The nodes that a backup's token map names, by the backup itself or by its copy in the index. One damaged token map must not
/// hide all backups.
pub async fn read(storage: &Storage, node: &NodeBackup) -> Result<FoundHosts> {
    let layout = storage.layout();
    let mut found = FoundHosts::default();
    for key in [
        layout.meta(&node.fqdn, &node.name, Meta::Tokenmap),
        layout.index_entry(&node.name, &node.fqdn, IndexKind::Tokenmap),
    ] {
        let Some(bytes) = storage.read(&key).await? else { continue };
        match parse_hosts(&bytes) {
            Ok(hosts) => {
                found.hosts = Some(hosts);
                break;
            }
            Err(error) => found.damage = Some(format!("{} cannot be used: {error}", storage.name_of(key.path()))),
        }
    }
    Ok(found)
}

//! Which nodes should have a part in a backup: those that any of its token maps names. A node that does not see all others has
//! a token map that is too short.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;

use super::ListedNode;
use crate::model::backups::NodeBackup;
use crate::model::digest::RecordedMd5;
use crate::model::names::{BackupName, Fqdn};
use crate::model::summary::HostsDigest;
use crate::model::tokenmap::{Hosts, parse_hosts};
use crate::storage::layout::{IndexKind, Meta};
use crate::storage::{Result, Storage};

/// Size and MD5 of a token map, where the listing of the index tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    size: u64,
    md5: [u8; 16],
}

impl Mark {
    /// `None`: the storage lists no MD5.
    pub(super) fn of(listed: &ObjectMeta) -> Option<Self> {
        match RecordedMd5::parse(listed.e_tag.as_deref()) {
            RecordedMd5::Whole(md5) => Some(Self { size: listed.size, md5 }),
            RecordedMd5::Parts(..) | RecordedMd5::Unknown => None,
        }
    }
}

/// The nodes that the token map of each node backup names. Summaries tell which token maps name the same ones, and else listings
/// may tell which are the same, so that only one of these is read.
#[derive(Debug)]
pub struct KnownHosts {
    by_node: BTreeMap<(BackupName, Fqdn), HostsDigest>,
    by_digest: HashMap<HostsDigest, Hosts>,
}

impl KnownHosts {
    pub(super) async fn gather(storage: &Storage, nodes: &[ListedNode]) -> Result<Self> {
        let mut reads = futures::stream::iter(groups(nodes))
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

/// Node backups whose token maps name the same nodes, with the digest of these where it is known.
fn groups(nodes: &[ListedNode]) -> Vec<(Option<&HostsDigest>, Vec<&NodeBackup>)> {
    let mut by_digest: BTreeMap<&HostsDigest, Vec<&NodeBackup>> = BTreeMap::new();
    let mut by_mark: BTreeMap<Mark, Vec<&NodeBackup>> = BTreeMap::new();
    let mut alone = Vec::new();
    for ListedNode { node, summary, tokenmap } in nodes {
        match (summary, tokenmap) {
            (Some(summary), _) => by_digest.entry(&summary.hosts).or_default().push(node),
            (None, Some(mark)) => by_mark.entry(*mark).or_default().push(node),
            (None, None) => alone.push(node),
        }
    }
    let known = by_digest.into_iter().map(|(digest, group)| (Some(digest), group));
    let listed = by_mark.into_values().map(|group| (None, group));
    known.chain(listed).chain(alone.into_iter().map(|node| (None, vec![node]))).collect()
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

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;
    use crate::model::backups::BackupMode;
    use crate::model::names::{BackupName, Fqdn};

    const MD5: [&str; 2] = ["900150983cd24fb0d6963f7d28e17f72", "00000000000000000000000000000000"];

    fn listed(size: u64, e_tag: &str) -> ObjectMeta {
        let last_modified = chrono::DateTime::UNIX_EPOCH;
        ObjectMeta { location: Path::default(), last_modified, size, e_tag: Some(e_tag.to_owned()), version: None }
    }

    #[test]
    fn token_maps_that_a_listing_calls_equal_are_read_once() {
        let node = |fqdn: &str, object: &ObjectMeta| ListedNode {
            node: NodeBackup {
                name: BackupName::new("b1").unwrap(),
                fqdn: Fqdn::new(fqdn).unwrap(),
                mode: BackupMode::Differential,
                started: 1,
                finished: Some(2),
            },
            summary: None,
            tokenmap: Mark::of(object),
        };
        let quoted = format!("\"{}\"", MD5[0]);
        let nodes = [
            node("n1", &listed(9, MD5[0])),
            node("n2", &listed(9, MD5[1])),
            node("n3", &listed(9, &quoted)),
            node("n4", &listed(8, MD5[0])),
            // No MD5: each of its own, though they are called the same.
            node("n5", &listed(9, "0x8DB1234")),
            node("n6", &listed(9, "0x8DB1234")),
        ];
        let mut found: Vec<Vec<_>> = groups(&nodes)
            .into_iter()
            .map(|(_, group)| group.iter().map(|node| node.fqdn.to_string()).collect())
            .collect();
        found.sort();
        assert_eq!(found, [vec!["n1", "n3"], vec!["n2"], vec!["n4"], vec!["n5"], vec!["n6"]]);
    }
}

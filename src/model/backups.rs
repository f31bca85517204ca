//! One node's backup, and the backups of all nodes under one name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::{BackupName, Fqdn};
use super::summary::Summary;
use super::tokenmap::Hosts;

/// How data files are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BackupMode {
    /// Every file below the backup's own folder.
    Full,
    /// In one pool per node; only files that it does not hold yet are uploaded.
    Differential,
}

impl fmt::Display for BackupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Differential => "differential",
        })
    }
}

/// `server_version.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerVersion {
    /// `cassandra` or `dse`.
    pub server_type: String,
    pub release_version: String,
}

impl Default for ServerVersion {
    /// What stands for the file in backups of old versions of Medusa.
    fn default() -> Self {
        Self { server_type: "cassandra".into(), release_version: "unknown".into() }
    }
}

/// A backup of one node that has at least been started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeBackup {
    pub name: BackupName,
    pub fqdn: Fqdn,
    pub mode: BackupMode,
    /// Unix seconds by the storage server's clock.
    pub started: i64,
    /// Unix seconds; `None` while it has no manifest.
    pub finished: Option<i64>,
}

/// The backups of all nodes under one name, and the nodes that should be there.
#[derive(Debug, Clone)]
pub struct ClusterBackup {
    pub name: BackupName,
    /// Never empty; by start time.
    pub nodes: Vec<NodeBackup>,
    /// The nodes that should be there: those that any of the token maps names, which are that of the node that started first
    /// and what others add to it.
    pub hosts: Hosts,
    /// Of nodes that have one.
    pub summaries: BTreeMap<Fqdn, Summary>,
}

impl ClusterBackup {
    /// Node backups of hosts in the token maps, in their order. The others do not count.
    pub fn expected_nodes(&self) -> Vec<&NodeBackup> {
        self.hosts.iter().filter_map(|host| self.node(host)).collect()
    }

    pub fn node(&self, fqdn: &str) -> Option<&NodeBackup> {
        self.nodes.iter().find(|node| node.fqdn.as_str() == fqdn)
    }

    pub fn complete_nodes(&self) -> Vec<&NodeBackup> {
        self.expected_nodes().into_iter().filter(|node| node.finished.is_some()).collect()
    }

    pub fn incomplete_nodes(&self) -> Vec<&NodeBackup> {
        self.expected_nodes().into_iter().filter(|node| node.finished.is_none()).collect()
    }

    /// Hosts of the token maps without a backup.
    pub fn missing_nodes(&self) -> BTreeSet<&str> {
        self.hosts.iter().map(String::as_str).filter(|host| self.node(host).is_none()).collect()
    }

    /// Nodes that no token map names, not even their own: the node has another name there.
    pub fn unknown_nodes(&self) -> Vec<&Fqdn> {
        let fqdns = self.nodes.iter().map(|node| &node.fqdn);
        fqdns.filter(|fqdn| !self.hosts.contains(fqdn.as_str())).collect()
    }

    pub fn is_complete(&self) -> bool {
        let expected = self.expected_nodes();
        self.missing_nodes().is_empty() && !expected.is_empty() && expected.iter().all(|node| node.finished.is_some())
    }

    /// Start of the earliest expected node, or of the earliest at all where none is expected.
    pub fn started(&self) -> i64 {
        let expected = self.expected_nodes();
        let nodes = if expected.is_empty() { self.nodes.iter().collect() } else { expected };
        nodes.iter().map(|node| node.started).min().unwrap_or_default()
    }

    /// When the last expected node finished; `None` unless all did.
    pub fn finished(&self) -> Option<i64> {
        if !self.is_complete() {
            return None;
        }
        self.expected_nodes().iter().filter_map(|node| node.finished).max()
    }

    pub fn mode(&self) -> BackupMode {
        self.nodes.first().map_or(BackupMode::Differential, |node| node.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(nodes: &[(&str, i64, Option<i64>)], hosts: &[&str]) -> ClusterBackup {
        let name = BackupName::new("b1").unwrap();
        let node = |(fqdn, started, finished): &(&str, i64, Option<i64>)| NodeBackup {
            name: name.clone(),
            fqdn: Fqdn::new(fqdn).unwrap(),
            mode: BackupMode::Full,
            started: *started,
            finished: *finished,
        };
        ClusterBackup {
            name: name.clone(),
            nodes: nodes.iter().map(node).collect(),
            hosts: hosts.iter().copied().map(str::to_owned).collect(),
            summaries: BTreeMap::new(),
        }
    }

    #[test]
    fn complete_only_if_every_host_of_the_token_map_finished() {
        let complete = backup(&[("n1", 10, Some(20)), ("n2", 11, Some(25))], &["n1", "n2"]);
        assert!(complete.is_complete());
        assert_eq!((complete.started(), complete.finished()), (10, Some(25)));

        let missing = backup(&[("n1", 10, Some(20))], &["n1", "n2"]);
        assert!(!missing.is_complete());
        assert_eq!(missing.missing_nodes(), BTreeSet::from(["n2"]));
        assert_eq!(missing.finished(), None);

        let running = backup(&[("n1", 10, Some(20)), ("n2", 11, None)], &["n1", "n2"]);
        assert!(!running.is_complete());
        assert_eq!(running.incomplete_nodes()[0].fqdn.as_str(), "n2");
    }

    #[test]
    fn nodes_outside_of_the_token_map_do_not_count() {
        let foreign = backup(&[("other", 1, None), ("n1", 10, Some(20))], &["n1"]);
        assert!(foreign.is_complete());
        assert_eq!(foreign.unknown_nodes(), [&Fqdn::new("other").unwrap()]);
        assert_eq!((foreign.started(), foreign.finished()), (10, Some(20)));
        let nothing = backup(&[("other", 5, Some(6))], &[]);
        assert!(!nothing.is_complete());
        assert_eq!((nothing.started(), nothing.finished()), (5, None));
    }
}

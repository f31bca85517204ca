//! Whether backups are complete and everything that their manifests name is there and is what it was.
//!
//! Levels, each proving more than the one before: what a listing says (existence, size, a digest where the storage lists
//! one), then the content, of a sample or of everything. An object that several backups name is looked at once.
//! [`repository`] compares what can be computed again (index, summaries, markers) with the backups.

mod node;
pub mod report;
pub mod repository;
pub mod sample;

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;

use self::sample::Sample;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::listing;
use crate::model::backups::{BackupMode, ClusterBackup, NodeBackup};
use crate::model::names::{BackupName, Fqdn};
use crate::model::nearest::did_you_mean;
use crate::monitor::Amount;
use crate::storage::Storage;
use crate::storage::layout::Meta;

/// How much of an object is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What a listing says.
    Listed,
    /// Every byte.
    Data,
    /// Every byte of some objects.
    Sample(Sample),
}

impl Depth {
    fn reads(self, path: &str) -> bool {
        match self {
            Self::Listed => false,
            Self::Data => true,
            Self::Sample(sample) => sample.holds(path),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// `None`: all backups.
    pub name: Option<BackupName>,
    /// Empty: all nodes.
    pub nodes: Vec<Fqdn>,
    pub depth: Depth,
}

/// What is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Missing,
    WrongSize {
        expected: u64,
        found: u64,
    },
    WrongHash,
    /// It is there and cannot be read or used.
    Unusable(String),
    /// In the folder of a full backup, but not in its manifest.
    Unreferenced,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub path: Box<str>,
    pub fault: Fault,
}

/// Why nothing can be said about a node's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// The manifest is lost or damaged.
    Manifest(String),
    /// The storage failed. That says nothing about the backup.
    Storage(String),
}

/// One node's part of a backup.
#[derive(Debug)]
pub struct NodeReport {
    pub fqdn: Fqdn,
    /// What the manifest names.
    pub objects: Amount,
    /// By path.
    pub findings: Vec<Finding>,
    /// Objects whose content should have been compared, but of which nothing was recorded that it can be compared with.
    pub only_size_known: Vec<Box<str>>,
    /// Files that Medusa overwrites in place when Cassandra rewrites them, and did.
    pub rewritten: u64,
    pub unknown: Option<Unknown>,
}

/// One backup.
#[derive(Debug)]
pub struct BackupReport {
    pub name: BackupName,
    /// Every expected node finished.
    pub complete: bool,
    /// Begun but not finished, with the start in Unix seconds.
    pub incomplete: Vec<(Fqdn, i64)>,
    pub missing: Vec<String>,
    /// Of the nodes that finished.
    pub nodes: Vec<NodeReport>,
    /// The same nodes, the one that was started first first.
    pub start_order: Vec<Fqdn>,
    /// The storage failed before the nodes were known.
    pub failed: Option<String>,
}

#[derive(Debug)]
pub struct VerifyReport {
    pub backups: Vec<BackupReport>,
    pub depth: Depth,
    /// What was read and compared; an object that several backups name counts once.
    pub read: Amount,
}

/// Verifies one backup or all of them. `None`: there is none of that name.
pub async fn verify(context: &Context, options: &VerifyOptions) -> anyhow::Result<Option<VerifyReport>> {
    let names = match &options.name {
        Some(name) => BTreeSet::from([name.clone()]),
        None => all_names(&context.storage).await?,
    };
    let transfer = context.monitor.count("backups", names.len());
    let mut backups = Vec::new();
    let mut by_node: BTreeMap<Fqdn, Vec<(usize, NodeBackup)>> = BTreeMap::new();
    for name in names {
        let gathered = gather(context, &name, options).await;
        context.interrupt.check()?;
        transfer.counters.add_file();
        match gathered {
            Ok(None) => {}
            Ok(Some((report, nodes))) => {
                for node in nodes {
                    by_node.entry(node.fqdn.clone()).or_default().push((backups.len(), node));
                }
                backups.push(report);
            }
            Err(error) if options.name.is_some() => return Err(error),
            Err(error) => backups.push(BackupReport { failed: Some(one_line(&error)), ..BackupReport::new(name) }),
        }
    }
    if backups.is_empty() {
        return Ok(None);
    }
    drop(transfer);
    let transfer = context.monitor.count("nodes", by_node.len());
    let mut read = Amount::default();
    for (fqdn, of_node) in by_node {
        let (indexes, of_node): (Vec<_>, Vec<_>) = of_node.into_iter().unzip();
        let checked = node::check(context, &fqdn, &of_node, options.depth).await?;
        read.files += checked.read.files;
        read.bytes += checked.read.bytes;
        for (index, report) in indexes.into_iter().zip(checked.reports) {
            backups[index].nodes.push(report);
        }
        transfer.counters.add_file();
    }
    for backup in &mut backups {
        backup.nodes.sort_by(|a, b| a.fqdn.cmp(&b.fqdn));
    }
    Ok(Some(VerifyReport { backups, depth: options.depth, read }))
}

/// The names that the index knows, and those that only the nodes' folders know.
async fn all_names(storage: &Storage) -> anyhow::Result<BTreeSet<BackupName>> {
    let mut names: BTreeSet<_> = storage.index_entries().await?.into_iter().map(|entry| entry.name).collect();
    names.extend(storage.node_folders().await?.into_iter().flat_map(|(_, names)| names));
    Ok(names)
}

/// Finds the nodes of one backup. `None`: there is no such backup.
async fn gather(
    context: &Context,
    name: &BackupName,
    options: &VerifyOptions,
) -> anyhow::Result<Option<(BackupReport, Vec<NodeBackup>)>> {
    let Some(Found { backup, mut failed }) = context.interrupt.or(find(&context.storage, name)).await? else {
        return Ok(None);
    };
    let wanted = |fqdn: &str| options.nodes.is_empty() || options.nodes.iter().any(|node| node.as_str() == fqdn);
    let mut report = BackupReport::new(name.clone());
    let incomplete = backup.incomplete_nodes().into_iter().filter(|node| wanted(node.fqdn.as_str()));
    report.incomplete = incomplete.map(|node| (node.fqdn.clone(), node.started)).collect();
    failed.retain(|(fqdn, _)| wanted(fqdn.as_str()));
    let has_failed = |host: &str| failed.iter().any(|(fqdn, _)| fqdn.as_str() == host);
    let missing = backup.missing_nodes().into_iter().filter(|host| wanted(host) && !has_failed(host));
    report.missing = missing.map(str::to_owned).collect();
    let somebody_is_expected = !backup.hosts.is_empty() || !options.nodes.is_empty() || !failed.is_empty();
    report.complete = somebody_is_expected && report.incomplete.is_empty() && report.missing.is_empty();
    // One outside the token map may have begun and never finished.
    let finished = |node: &NodeBackup| node.finished.is_some() && wanted(node.fqdn.as_str());
    let meant = || {
        let known = || backup.nodes.iter().map(|node| node.fqdn.as_str());
        options.nodes.iter().find_map(|asked| did_you_mean(asked.as_str(), known()))
    };
    let meant = meant();
    let known: BTreeSet<_> = backup
        .nodes
        .iter()
        .map(|node| node.fqdn.to_string())
        .chain(backup.hosts.iter().map(ToString::to_string))
        .collect();
    let nodes: Vec<_> = backup.nodes.into_iter().filter(finished).collect();
    if !options.nodes.is_empty() && nodes.is_empty() && failed.is_empty() && report.complete {
        if options.name.is_none() {
            return Ok(None);
        }
        let asked: Vec<_> = options.nodes.iter().map(Fqdn::as_str).collect();
        let location = context.storage.location();
        return Err(Failure::failed(format!("there is no backup {name} of {} in {location}", asked.join(", ")))
            .hint(meant.unwrap_or_else(|| format!("medusa status --backup-name {name} names its nodes")))
            .into());
    }
    // Others of those that were asked for are not in it at all.
    let is_known = |asked: &str| known.contains(asked) || has_failed(asked);
    let strangers = options.nodes.iter().filter(|asked| !is_known(asked.as_str()));
    if options.name.is_some() {
        report.missing.extend(strangers.map(ToString::to_string));
        report.complete &= report.missing.is_empty();
    }
    let mut started: Vec<_> = nodes.iter().map(|node| (node.started, &node.fqdn)).collect();
    started.sort();
    report.start_order = started.into_iter().map(|(_, fqdn)| fqdn.clone()).collect();
    report.nodes.extend(
        failed
            .into_iter()
            .map(|(fqdn, why)| NodeReport { unknown: Some(Unknown::Storage(why)), ..NodeReport::new(&fqdn) }),
    );
    Ok(Some((report, nodes)))
}

/// A backup, and the nodes of which nothing can be said because the storage failed.
struct Found {
    backup: ClusterBackup,
    failed: Vec<(Fqdn, String)>,
}

/// The backup as the index sees it, and what that does not see: nodes that the index has forgotten, and those that have lost
/// their `schema.cql`.
async fn find(storage: &Storage, name: &BackupName) -> anyhow::Result<Option<Found>> {
    let mut known = listing::each_node(storage, name).await?;
    if known.iter().all(|(_, found)| matches!(found, Ok(None))) {
        for (fqdn, names) in storage.node_folders().await? {
            if names.contains(name) && known.iter().all(|(other, _)| *other != fqdn) {
                let found = storage.node_backup(&fqdn, name).await.map_err(Into::into);
                known.push((fqdn, found));
            }
        }
    }
    let (mut nodes, mut failed) = (Vec::new(), Vec::new());
    for (fqdn, found) in known {
        let found = match found {
            Ok(None) => without_schema(storage, &fqdn, name).await,
            found => found,
        };
        match found {
            Ok(node) => nodes.extend(node),
            Err(error) => failed.push((fqdn, one_line(&error))),
        }
    }
    nodes.sort_by(|a, b| (a.started, &a.fqdn).cmp(&(b.started, &b.fqdn)));
    if nodes.is_empty() && failed.is_empty() {
        return Ok(None);
    }
    let mut reads = futures::stream::iter(&nodes)
        .map(|node| listing::hosts::read(storage, node))
        .buffered(storage.requests_in_flight());
    let (mut tokenmaps, mut error) = (Vec::new(), None);
    while let Some(read) = reads.next().await {
        match read {
            // Damage is told with the node.
            Ok(found) => tokenmaps.push(found.hosts),
            Err(failed) => error = Some(failed),
        }
    }
    drop(reads);
    // One node whose storage fails is told with the node.
    if let (true, Some(error)) = (tokenmaps.is_empty(), error) {
        return Err(error.into());
    }
    let hosts = listing::hosts::union(name, tokenmaps.iter().flatten());
    Ok(Some(Found { backup: ClusterBackup { name: name.clone(), nodes, hosts, summaries: BTreeMap::new() }, failed }))
}

/// A backup that has a manifest but lost what begins it.
async fn without_schema(storage: &Storage, fqdn: &Fqdn, name: &BackupName) -> anyhow::Result<Option<NodeBackup>> {
    let manifest = storage.head(&storage.layout().meta(fqdn, name, Meta::Manifest)).await?;
    Ok(manifest.map(|manifest| {
        let finished = manifest.last_modified.timestamp();
        let (fqdn, mode) = (fqdn.clone(), BackupMode::Differential);
        NodeBackup { name: name.clone(), fqdn, mode, started: finished, finished: Some(finished) }
    }))
}

impl BackupReport {
    fn new(name: BackupName) -> Self {
        let (incomplete, missing, nodes) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, complete: false, incomplete, missing, nodes, start_order: Vec::new(), failed: None }
    }

    pub fn is_good(&self) -> bool {
        self.complete && self.failed.is_none() && self.nodes.iter().all(NodeReport::is_good)
    }
}

impl NodeReport {
    fn new(fqdn: &Fqdn) -> Self {
        Self {
            fqdn: fqdn.clone(),
            objects: Amount::default(),
            findings: Vec::new(),
            only_size_known: Vec::new(),
            rewritten: 0,
            unknown: None,
        }
    }

    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.unknown.is_none()
    }

    /// Whether the storage kept the node from being checked.
    pub fn is_unchecked(&self) -> bool {
        matches!(self.unknown, Some(Unknown::Storage(_)))
    }

    /// How many objects have such a fault.
    pub fn count(&self, kind: &str) -> u64 {
        self.findings.iter().filter(|finding| finding.fault.kind() == kind).count() as u64
    }
}

impl Fault {
    /// What reports call them, the worst first.
    pub const KINDS: [&'static str; 5] = ["missing", "wrong size", "wrong hash", "unusable", "unreferenced"];

    pub fn kind(&self) -> &'static str {
        let kind = match self {
            Self::Missing => 0,
            Self::WrongSize { .. } => 1,
            Self::WrongHash => 2,
            Self::Unusable(_) => 3,
            Self::Unreferenced => 4,
        };
        Self::KINDS[kind]
    }
}

impl VerifyReport {
    pub fn is_good(&self) -> bool {
        self.backups.iter().all(BackupReport::is_good)
    }

    /// Objects, nodes and backups with which something is wrong, or of which nothing can be said.
    pub fn problems(&self) -> u64 {
        let of_backup = |backup: &BackupReport| {
            let of_node = |node: &NodeReport| node.findings.len() + usize::from(node.unknown.is_some());
            let nodes: usize = backup.nodes.iter().map(of_node).sum();
            let problems =
                nodes + backup.incomplete.len() + backup.missing.len() + usize::from(backup.failed.is_some());
            problems.max(usize::from(!backup.is_good())) as u64
        };
        self.backups.iter().map(of_backup).sum()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeReport> {
        self.backups.iter().flat_map(|backup| &backup.nodes)
    }

    /// Whether every problem is that the storage failed, so that no backup was found to be damaged.
    pub fn is_only_unchecked(&self) -> bool {
        let unfinished = |backup: &BackupReport| !backup.complete && backup.failed.is_none();
        let damaged = self.nodes().any(|node| !node.is_good() && !node.is_unchecked());
        !self.is_good() && !damaged && !self.backups.iter().any(unfinished)
    }
}

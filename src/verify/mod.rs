//! Whether a backup is complete and everything that its manifests name is there.
//!
//! By default existence and size are checked, by listing. `enable_md5_checks` reads every object and compares it with what
//! the manifest recorded: our SHA-256, or Medusa's MD5.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use crate::context::Context;
use crate::listing;
use crate::model::backups::{BackupMode, ClusterBackup, NodeBackup};
use crate::model::manifest::{Manifest, Object};
use crate::model::names::{BackupName, Fqdn};
use crate::monitor::Amount;
use crate::storage::Storage;
use crate::storage::blocking::on_threads;
use crate::storage::layout::Pool;
use crate::storage::transfer::{TransferError, Watch};

/// What is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Missing,
    WrongSize {
        expected: u64,
        found: u64,
    },
    WrongContent,
    /// In the folder of a full backup, but not in its manifest.
    Unnamed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    pub fault: Fault,
}

/// One node's part of the answer.
#[derive(Debug)]
pub struct NodeReport {
    pub fqdn: String,
    pub objects: Amount,
    pub findings: Vec<Finding>,
    /// The manifest cannot be read, so nothing is known of the objects.
    pub unreadable: Option<String>,
}

#[derive(Debug)]
pub struct VerifyReport {
    pub backup: ClusterBackup,
    /// Empty if the backup is incomplete: then the objects are not looked at.
    pub nodes: Vec<NodeReport>,
    pub contents_checked: bool,
}

/// Verifies the cluster backup of that name. `None`: there is none.
pub async fn verify(context: &Context, name: &BackupName, contents: bool) -> anyhow::Result<Option<VerifyReport>> {
    let Some(backup) = listing::cluster_backup(&context.storage, name).await? else { return Ok(None) };
    let mut nodes = Vec::new();
    if backup.is_complete() {
        // One outside the token map may have begun and never finished.
        for node in backup.nodes.iter().filter(|node| node.finished.is_some()) {
            nodes.push(verify_node(context, node, contents).await?);
        }
    }
    Ok(Some(VerifyReport { backup, nodes, contents_checked: contents }))
}

async fn verify_node(context: &Context, node: &NodeBackup, contents: bool) -> anyhow::Result<NodeReport> {
    let storage = &context.storage;
    let fqdn = node.fqdn.to_string();
    let manifest = match storage.manifest(&node.fqdn, &node.name).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            let unreadable = Some("it is gone".to_owned());
            return Ok(NodeReport { fqdn, objects: Amount::default(), findings: Vec::new(), unreadable });
        }
        // A storage that fails says nothing about the backup.
        Err(error) if error.chain().any(<dyn std::error::Error + 'static>::is::<crate::storage::StorageError>) => {
            return Err(error);
        }
        Err(error) => {
            let unreadable = Some(crate::error::one_line(&error));
            return Ok(NodeReport { fqdn, objects: Amount::default(), findings: Vec::new(), unreadable });
        }
    };
    let mut findings = compare(context, node, &manifest).await?;
    if contents {
        let faulty: std::collections::HashSet<_> = findings.iter().map(|finding| finding.path.clone()).collect();
        let objects = manifest.objects().filter(|object| !faulty.contains(&*object.path));
        findings.extend(read_all(context, node, objects.collect()).await?);
    }
    findings.sort_by(|a, b| a.path.cmp(&b.path));
    let objects = Amount { files: manifest.object_count(), bytes: manifest.total_bytes() };
    Ok(NodeReport { fqdn, objects, findings, unreadable: None })
}

/// Compares the manifest with listings of the pools that it names.
async fn compare(context: &Context, node: &NodeBackup, manifest: &Manifest) -> anyhow::Result<Vec<Finding>> {
    let (storage, layout) = (&context.storage, context.storage.layout());
    let own = layout.pool(&node.fqdn, Pool::Full(&node.name));
    let shared = layout.pool(&node.fqdn, Pool::Differential);
    let mut expected: HashMap<&str, (&Object, bool)> = HashMap::new();
    for object in manifest.objects() {
        expected.insert(&object.path, (object, false));
    }
    let mut findings = Vec::new();
    for (pool, is_own) in [(&own, true), (&shared, false)] {
        let named =
            expected.keys().any(|path| path.strip_prefix(pool.as_ref()).is_some_and(|rest| rest.starts_with('/')));
        let searched = named || (is_own && node.mode == BackupMode::Full);
        if !searched {
            continue;
        }
        let mut listing = storage.list(pool);
        while let Some(found) = context.interrupt.or(listing.try_next()).await? {
            let path = found.location.as_ref();
            match expected.get_mut(path) {
                Some((object, seen)) => {
                    *seen = true;
                    if object.size != found.size {
                        let fault = Fault::WrongSize { expected: object.size, found: found.size };
                        findings.push(Finding { path: path.to_owned(), fault });
                    }
                }
                None if is_own => findings.push(Finding { path: path.to_owned(), fault: Fault::Unnamed }),
                None => {}
            }
        }
    }
    // Medusa overwrites these two in place when Cassandra rewrites them, and Cassandra can do without the exact bytes.
    findings.retain(|finding| {
        let rewritten = expected.get(finding.path.as_str()).is_some_and(|(object, _)| object.is_rewritten_by_medusa());
        let tolerated = rewritten && matches!(finding.fault, Fault::WrongSize { .. });
        if tolerated {
            tracing::warn!(
                "{} was rewritten by cassandra-medusa after this backup; Cassandra can read it",
                finding.path
            );
        }
        !tolerated
    });
    let missing = expected.values().filter(|(_, seen)| !seen).map(|(object, _)| object.path.to_string());
    findings.extend(missing.map(|path| Finding { path, fault: Fault::Missing }));
    Ok(findings)
}

/// Reads objects and compares them with what was recorded.
async fn read_all(context: &Context, node: &NodeBackup, objects: Vec<&Object>) -> anyhow::Result<Vec<Finding>> {
    let transfer = context.monitor.transfer("verify", objects.iter().map(|object| object.size).sum());
    let reader = Reader {
        storage: context.storage.clone(),
        fqdn: node.fqdn.clone(),
        watch: context.watch(&transfer.counters),
        part_size: context.config.storage.multipart_chunksize,
    };
    let objects = objects.into_iter().cloned().collect();
    let mut work = on_threads(context.storage.files_in_flight(), objects, move |object: Object| {
        let reader = reader.clone();
        async move { reader.check(&object).await }
    });
    let all = async {
        let mut findings = Vec::new();
        while let Some(checked) = work.recv().await {
            findings.extend(checked?);
        }
        anyhow::Ok(findings)
    };
    context.interrupt.or(all).await.context("could not read the backup")
}

/// Reads objects of one node.
#[derive(Debug, Clone)]
struct Reader {
    storage: Storage,
    fqdn: Fqdn,
    watch: Watch,
    part_size: u64,
}

impl Reader {
    async fn check(&self, object: &Object) -> anyhow::Result<Option<Finding>> {
        let recorded = object.recorded_md5();
        if !object.has_known_content() {
            return Ok(None);
        }
        let key = self.storage.layout().recorded(&self.fqdn, &object.path)?;
        let part_size = object.sha256.is_none().then_some(self.part_size);
        let found = match self.storage.digest_object(&key, part_size, &self.watch).await {
            Ok(found) => found,
            Err(TransferError::Storage(error)) if matches!(error.source, object_store::Error::NotFound { .. }) => {
                return Ok(Some(Finding { path: object.path.to_string(), fault: Fault::Missing }));
            }
            Err(error) => return Err(error.into()),
        };
        self.watch.counters.add_file();
        let same = match object.sha256 {
            Some(sha256) => found.sha256 == sha256,
            None => found.md5.as_ref().and_then(|md5| md5.matches(&recorded)).unwrap_or(true),
        };
        let finding = Finding { path: object.path.to_string(), fault: Fault::WrongContent };
        Ok((!same || found.size != object.size).then_some(finding))
    }
}

impl VerifyReport {
    pub fn is_good(&self) -> bool {
        self.backup.is_complete() && self.nodes.iter().all(NodeReport::is_good)
    }

    /// As Medusa prints it.
    pub fn text(&self) -> String {
        let mut text = format!("Validating {} ...\n", self.backup.name);
        if !self.backup.is_complete() {
            text.push_str("- Completion: Not complete!\n");
            for node in self.backup.incomplete_nodes() {
                let _ = writeln!(text, "  - [{}] Backup started at {}, but not finished yet", node.fqdn, node.started);
            }
            for host in self.backup.missing_nodes() {
                let _ = writeln!(text, "  - [{host}] Backup missing");
            }
            return text;
        }
        text.push_str("- Completion: OK!\n");
        if self.is_good() {
            text.push_str("- Manifest validated: OK!!\n");
            return text;
        }
        text.push_str("- Manifest validation: Failed!\n");
        for node in &self.nodes {
            if let Some(why) = &node.unreadable {
                let _ = writeln!(text, "  - [{}] Manifest cannot be read: {why}", node.fqdn);
            }
            for Finding { path, fault } in &node.findings {
                let said = match fault {
                    Fault::Missing => "Doesn't exists",
                    Fault::WrongSize { .. } | Fault::WrongContent => "Blob different",
                    Fault::Unnamed => "exists in storage, but not in manifest",
                };
                let _ = writeln!(text, "  - [{path}] {said}");
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            let (problem, expected, found) = match finding.fault {
                Fault::Missing => ("missing", None, None),
                Fault::WrongSize { expected, found } => ("wrong size", Some(expected), Some(found)),
                Fault::WrongContent => ("wrong content", None, None),
                Fault::Unnamed => ("not in the manifest", None, None),
            };
            json!({ "path": finding.path, "problem": problem, "expected": expected, "found": found })
        };
        let node = |node: &NodeReport| {
            json!({
                "fqdn": node.fqdn,
                "ok": node.is_good(),
                "objects": node.objects.files,
                "bytes": node.objects.bytes,
                "unreadable_manifest": node.unreadable,
                "problems": node.findings.iter().map(finding).collect::<Vec<_>>(),
            })
        };
        let names = |nodes: Vec<&NodeBackup>| nodes.iter().map(|node| node.fqdn.to_string()).collect::<Vec<_>>();
        json!({
            "version": 1,
            "name": self.backup.name.as_str(),
            "ok": self.is_good(),
            "complete": self.backup.is_complete(),
            "contents_checked": self.contents_checked,
            "incomplete_nodes": names(self.backup.incomplete_nodes()),
            "missing_nodes": self.backup.missing_nodes(),
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
        })
    }
}

impl NodeReport {
    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.unreadable.is_none()
    }
}

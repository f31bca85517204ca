//! Rebuilding what is only a cache from `meta/`: index entries, latest markers and summaries.
//!
//! An entry is written where it is missing or says something else than `meta/`, and removed where it belongs to no backup.
//! Entries of backups that cannot be read are left as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::model::backups::BackupMode;
use crate::model::look::Look;
use crate::model::manifest::Manifest;
use crate::model::names::{BackupName, Fqdn};
use crate::model::summary::{HostsDigest, Summary};
use crate::model::tokenmap::parse_hosts;
use crate::model::units::counted;
use crate::purge;
use crate::storage::backups::MetaState;
use crate::storage::layout::{IndexKind, Meta, ObjectKey, Place, SummaryEntry};
use crate::storage::lease::Work;
use crate::storage::{self, Storage};

/// Backups of a node that are looked at side by side, each with its manifest in memory.
const IN_FLIGHT: usize = 4;

/// What the index holds of one node's backup.
#[derive(Debug, Clone, Default)]
struct Entries {
    entries: Vec<(ObjectKey, IndexKind)>,
    summaries: Vec<(ObjectKey, Option<Summary>)>,
}

/// The whole index, by node and backup.
type Index = BTreeMap<Fqdn, BTreeMap<BackupName, Entries>>;

/// What was done for one node, or would be.
#[derive(Debug, Default)]
pub struct NodeChanges {
    pub backups: u64,
    pub written: Vec<ObjectKey>,
    pub removed: Vec<ObjectKey>,
    pub unchanged: u64,
    /// Backups that were left as they are, with the reason.
    pub problems: Vec<String>,
}

impl NodeChanges {
    fn add(&mut self, other: Self) {
        self.backups += other.backups;
        self.written.extend(other.written);
        self.removed.extend(other.removed);
        self.unchanged += other.unchanged;
        self.problems.extend(other.problems);
    }
}

/// What was done for all nodes.
#[derive(Debug)]
pub struct IndexReport {
    pub dry_run: bool,
    pub nodes: BTreeMap<Fqdn, NodeChanges>,
}

/// Rebuilds the caches of all nodes of the bucket. With `dry_run`, only says what is wrong with them.
pub async fn rebuild(context: &Context, dry_run: bool) -> anyhow::Result<IndexReport> {
    let storage = &context.storage;
    let index = context.interrupt.or(read_index(storage)).await?;
    let mut nodes: BTreeSet<Fqdn> = context.interrupt.or(storage.nodes()).await?.into_iter().collect();
    nodes.extend(index.keys().cloned());
    let mut report = IndexReport { dry_run, nodes: BTreeMap::new() };
    let transfer = context.monitor.count("nodes", nodes.len());
    for fqdn in nodes {
        let rebuilt = purge::hold(context, &fqdn, Work::BuildIndex, dry_run, async |_| {
            let entries = index.get(&fqdn).cloned().unwrap_or_default();
            // In here, so that the lease is given back after a signal, too.
            context.interrupt.or(Rebuild { storage, fqdn: &fqdn, dry_run }.node(entries)).await
        });
        let changes = match rebuilt.await {
            Ok(changes) => changes,
            Err(error) if context.interrupt.is_raised() => return Err(error),
            // One node does not keep the others from being rebuilt.
            Err(error) => NodeChanges { problems: vec![one_line(&error)], ..NodeChanges::default() },
        };
        report.nodes.insert(fqdn, changes);
        transfer.counters.add_file();
    }
    Ok(report)
}

async fn read_index(storage: &Storage) -> storage::Result<Index> {
    let mut index = Index::new();
    let mut listing = storage.list(&storage.layout().index());
    while let Some(object) = listing.try_next().await? {
        if let Some(entry) = storage.layout().parse_index_entry(&object.location) {
            let entries = index.entry(entry.fqdn).or_default().entry(entry.name).or_default();
            entries.entries.push((ObjectKey::listed(object.location), entry.kind));
        }
    }
    for (key, SummaryEntry { name, fqdn, summary }) in storage.summaries(None).await? {
        index.entry(fqdn).or_default().entry(name).or_default().summaries.push((key, summary));
    }
    Ok(index)
}

/// Rebuilds the caches of one node.
#[derive(Debug, Clone, Copy)]
struct Rebuild<'a> {
    storage: &'a Storage,
    fqdn: &'a Fqdn,
    dry_run: bool,
}

impl Rebuild<'_> {
    async fn node(self, mut index: BTreeMap<BackupName, Entries>) -> anyhow::Result<NodeChanges> {
        let mut changes = NodeChanges::default();
        let states = self.storage.backup_folders(self.fqdn).await?;
        let (there, rests): (Vec<_>, Vec<_>) = states.into_iter().partition(|state| !state.is_rest());
        let work = there.iter().map(|state| (state, index.remove(&state.name).unwrap_or_default())).collect::<Vec<_>>();
        // What is still in the index has no folder, or one without a backup.
        for (name, entries) in index {
            // A backup that began after the folders were listed is there by now.
            let is_gone = rests.iter().any(|rest| rest.name == name)
                || self.storage.meta_state(self.fqdn, &name).await?.is_rest();
            if is_gone {
                changes.add(self.remove_backup(entries).await?);
            }
        }
        let mut done = futures::stream::iter(work)
            .map(async |(state, entries)| match self.backup(state, &entries).await {
                Ok(changes) => Ok(changes),
                Err(error) if is_storage_error(&error) => Err(error),
                Err(error) => Ok(NodeChanges {
                    problems: vec![format!("{}: {}", state.name, one_line(&error))],
                    ..NodeChanges::default()
                }),
            })
            .buffer_unordered(IN_FLIGHT);
        while let Some(done) = done.try_next().await? {
            changes.add(done);
        }
        changes.add(self.latest_marker(&there).await?);
        changes.written.sort();
        changes.removed.sort();
        Ok(changes)
    }

    async fn remove_backup(self, entries: Entries) -> storage::Result<NodeChanges> {
        let summaries = entries.summaries.into_iter().map(|(key, _)| key);
        self.remove(entries.entries.into_iter().map(|(key, _)| key).chain(summaries).collect()).await
    }

    async fn remove(self, removed: Vec<ObjectKey>) -> storage::Result<NodeChanges> {
        if !self.dry_run {
            self.storage.delete(removed.clone()).await?;
        }
        Ok(NodeChanges { removed, ..NodeChanges::default() })
    }

    /// Brings one object to a content.
    async fn bring(self, key: ObjectKey, content: Bytes) -> storage::Result<NodeChanges> {
        if self.storage.read(&key).await?.as_ref() == Some(&content) {
            return Ok(NodeChanges { unchanged: 1, ..NodeChanges::default() });
        }
        if !self.dry_run {
            self.storage.replace(&key, content).await?;
        }
        Ok(NodeChanges { written: vec![key], ..NodeChanges::default() })
    }

    async fn backup(self, state: &MetaState, index: &Entries) -> anyhow::Result<NodeChanges> {
        let Entries { entries, summaries } = index;
        let (storage, fqdn, name) = (self.storage, self.fqdn, &state.name);
        let Some(backup) = state.backup() else { anyhow::bail!("it has a manifest, but schema.cql is missing") };
        if state.manifest.is_none() {
            self.expect_unfinished(name, entries).await?;
        }
        let read = async |meta| storage.read(&storage.layout().meta(fqdn, name, meta)).await;
        let Some(tokenmap) = read(Meta::Tokenmap).await? else {
            // A backup that has just begun. Medusa knows a backup by the token map in the index, so it must not be incomplete.
            anyhow::ensure!(backup.finished.is_none(), "its token map is missing");
            return Ok(NodeChanges { backups: 1, ..NodeChanges::default() });
        };
        let Some(schema) = read(Meta::Schema).await? else { anyhow::bail!("schema.cql was there and is gone") };
        let manifest = match state.manifest {
            Some(_) => {
                let Some(bytes) = read(Meta::Manifest).await? else {
                    anyhow::bail!("its manifest was there and is gone")
                };
                let parsed = Manifest::parse(&bytes)
                    .map_err(|error| anyhow::Error::from(error).context("its manifest cannot be used"))?;
                Some((bytes, parsed))
            }
            None => None,
        };
        let mode = match &manifest {
            Some((_, parsed)) if self.names_the_pool(parsed) => BackupMode::Differential,
            _ => backup.mode,
        };
        // The schema is written again when it changes while a backup runs; the index keeps when the backup was begun.
        let started = entries.iter().filter_map(|(_, kind)| match kind {
            IndexKind::Started(at) => Some(*at),
            _ => None,
        });
        let started = started.chain([backup.started]).min().unwrap_or(backup.started);

        let mut wanted: Vec<(IndexKind, Bytes)> = vec![
            (IndexKind::Tokenmap, tokenmap.clone()),
            (IndexKind::Schema, schema),
            (IndexKind::Started(started), started.to_string().into()),
        ];
        if mode == BackupMode::Differential {
            wanted.push((IndexKind::Differential, "differential".into()));
        }
        let mut changes = NodeChanges { backups: 1, ..NodeChanges::default() };
        if let (Some((bytes, parsed)), Some(finished)) = (manifest, backup.finished) {
            let summary = self.summary(name, mode, (started, finished), &parsed, &tokenmap, summaries).await?;
            let obsolete = summaries.iter().map(|(key, _)| key).filter(|key| Some(*key) != summary.as_ref());
            changes.add(self.remove(obsolete.cloned().collect()).await?);
            if let Some(key) = summary {
                changes.add(self.bring_summary(key, summaries).await?);
            }
            wanted.push((IndexKind::Manifest, bytes));
            wanted.push((IndexKind::Finished(finished), finished.to_string().into()));
        }
        let obsolete = entries.iter().filter(|(_, kind)| wanted.iter().all(|(wanted, _)| wanted != kind));
        changes.add(self.remove(obsolete.map(|(key, _)| key.clone()).collect()).await?);
        for (kind, content) in wanted {
            changes.add(self.bring(storage.layout().index_entry(name, fqdn, kind), content).await?);
        }
        Ok(changes)
    }

    /// Fails if the index knows of an end of a backup that has no manifest. What the index holds then may be all that is left of
    /// the manifest, and it keeps purges from deleting the files of the backup.
    async fn expect_unfinished(self, name: &BackupName, entries: &[(ObjectKey, IndexKind)]) -> anyhow::Result<()> {
        let (mut copy, mut is_finished) = (None, false);
        for (key, kind) in
            entries.iter().filter(|(_, kind)| matches!(kind, IndexKind::Manifest | IndexKind::Finished(_)))
        {
            // The index was read before the lease was ours; the backup may have been deleted and begun again since.
            if self.storage.head(key).await?.is_some() {
                is_finished = true;
                copy = copy.or((*kind == IndexKind::Manifest).then_some(key));
            }
        }
        let manifest = self.storage.layout().meta(self.fqdn, name, Meta::Manifest);
        let delete =
            format!("medusa --fqdn {} delete-backup --backup-name {name} removes what is left of it", self.fqdn);
        match copy {
            Some(copy) => anyhow::bail!("its manifest is missing: copy {copy} to {manifest}, or {delete}"),
            None if is_finished => anyhow::bail!("its manifest is missing, and the index has no copy of it: {delete}"),
            None => Ok(()),
        }
    }

    /// Whether a manifest is that of a differential backup, whatever its marker says: `build-index` of cassandra-medusa loses
    /// the marker.
    fn names_the_pool(self, manifest: &Manifest) -> bool {
        let layout = self.storage.layout();
        let place = |path: &str| layout.place(self.fqdn, &layout.recorded(self.fqdn, path).ok()?);
        manifest.objects().any(|object| place(&object.path) == Some(Place::Pool))
    }

    /// The key of the right summary. What was uploaded is known to an earlier one only. `None`: there can be none.
    async fn summary(
        self,
        name: &BackupName,
        mode: BackupMode,
        (started, finished): (i64, i64),
        manifest: &Manifest,
        tokenmap: &[u8],
        known: &[(ObjectKey, Option<Summary>)],
    ) -> anyhow::Result<Option<ObjectKey>> {
        let hosts = parse_hosts(tokenmap)
            .map_err(|error| anyhow::Error::from(error).context("its token map cannot be used"))?;
        let known = known.iter().filter_map(|(_, known)| known.as_ref()).find(|known| known.finished == finished);
        let (uploaded_objects, uploaded_size) =
            known.map_or((0, 0), |known| (known.uploaded_objects, known.uploaded_size));
        let summary = Summary {
            mode,
            started,
            finished,
            num_objects: manifest.object_count(),
            size: manifest.total_bytes(),
            uploaded_objects,
            uploaded_size,
            hosts: HostsDigest::of(&hosts),
            version: self.storage.server_version(self.fqdn, name).await?,
        };
        Ok(self.storage.layout().summary(name, self.fqdn, &summary))
    }

    async fn bring_summary(
        self,
        key: ObjectKey,
        known: &[(ObjectKey, Option<Summary>)],
    ) -> storage::Result<NodeChanges> {
        if known.iter().any(|(known, _)| *known == key) {
            return Ok(NodeChanges { unchanged: 1, ..NodeChanges::default() });
        }
        self.bring(key, env!("CARGO_PKG_VERSION").into()).await
    }

    /// The latest marker names the backup that was finished last.
    async fn latest_marker(self, states: &[MetaState]) -> storage::Result<NodeChanges> {
        let layout = self.storage.layout();
        let (name_key, tokenmap_key) = (layout.latest_name(self.fqdn), layout.latest_tokenmap(self.fqdn));
        // Listings may be behind: what the marker names is asked for by its key.
        let named = match self.storage.latest_name(self.fqdn).await? {
            Some(name) => Some(self.storage.meta_state(self.fqdn, &name).await?),
            None => None,
        };
        let states = states.iter().chain(&named);
        let finished = states.filter(|state| state.schema.is_some() && state.manifest.is_some());
        let latest = finished.max_by_key(|state| state.manifest);
        let tokenmap = match latest {
            Some(latest) => self.storage.read(&layout.meta(self.fqdn, &latest.name, Meta::Tokenmap)).await?,
            None => None,
        };
        let mut changes = NodeChanges::default();
        if let (Some(latest), Some(tokenmap)) = (latest, tokenmap) {
            changes.add(self.bring(tokenmap_key, tokenmap).await?);
            changes.add(self.bring(name_key, latest.name.to_string().into()).await?);
            return Ok(changes);
        }
        for key in [name_key, tokenmap_key] {
            if self.storage.head(&key).await?.is_some() {
                changes.add(self.remove(vec![key]).await?);
            }
        }
        Ok(changes)
    }
}

fn is_storage_error(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error + 'static>::is::<storage::StorageError>)
}

impl IndexReport {
    pub fn text(&self, look: Look) -> String {
        let (written, removed) = if self.dry_run { ("to write", "to remove") } else { ("written", "removed") };
        let mut text = String::new();
        for (fqdn, node) in &self.nodes {
            let line = format!(
                "{fqdn}: {}, {} {written}, {} {removed}, {} unchanged",
                counted(node.backups, "backup"),
                counted(node.written.len() as u64, "object"),
                node.removed.len(),
                node.unchanged,
            );
            text.push_str(&look.folded(&line, 2));
            for (verb, keys) in [(written, &node.written), (removed, &node.removed)] {
                for key in keys {
                    let _ = writeln!(text, "  {verb:<10} {key}");
                }
            }
        }
        if self.nodes.is_empty() {
            text.push_str("there is no backup in this bucket\n");
        }
        text
    }

    pub fn json(&self) -> Value {
        let keys = |keys: &[ObjectKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        let node = |(fqdn, node): (&Fqdn, &NodeChanges)| {
            json!({
                "fqdn": fqdn.as_str(),
                "backups": node.backups,
                "written": keys(&node.written),
                "removed": keys(&node.removed),
                "unchanged": node.unchanged,
                "problems": node.problems,
            })
        };
        json!({ "version": 1, "dry_run": self.dry_run, "nodes": self.nodes.iter().map(node).collect::<Vec<_>>() })
    }

    /// What could not be rebuilt.
    pub fn failure(&self) -> Option<Failure> {
        let of_node = |(fqdn, node): (&Fqdn, &NodeChanges)| {
            node.problems.iter().map(|problem| format!("{fqdn}: {problem}")).collect::<Vec<_>>()
        };
        let problems: Vec<_> = self.nodes.iter().flat_map(of_node).collect();
        if problems.is_empty() {
            return None;
        }
        let message =
            format!("the index could not be rebuilt completely: {}", counted(problems.len() as u64, "problem"));
        Some(
            Failure::problems(message)
                .details(problems)
                .hint("what is named here was left as it was; the rest is done"),
        )
    }
}

#[cfg(test)]
mod tests;

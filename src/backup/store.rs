//! The storage's side of one node's backup: everything but Cassandra and the snapshot.
//!
//! Everything that writes happens under the lease of the node. Whoever holds it and reads a manifest knows that the objects in it stay:
//! our deletions need the lease, too. So only of objects that no manifest named it is asked again whether they are there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use chrono::TimeDelta;
use futures::TryStreamExt as _;

use super::BackupOptions;
use super::commit::{Published, Writing};
use super::execute::{Executed, Execution};
use super::plan::{BackupPlan, Rules, StoredFiles};
use super::report::{self, BackupOutcome};
use crate::cassandra::facts::{ClusterFacts, Schema};
use crate::cassandra::snapshot::SnapshotTable;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::model::backups::{BackupMode, NodeBackup};
use crate::model::manifest::Manifest;
use crate::model::names::BackupName;
use crate::model::units;
use crate::monitor::Amount;
use crate::storage::layout::{IndexKind, Meta, ObjectKey, Pool};
use crate::storage::lease::{Lease, Terms, Work};
use crate::storage::uploads::Abandoned;

/// Manifests that are read to learn what is stored already.
const MANIFESTS_READ: usize = 5;

/// No file takes longer.
const LONGEST_UPLOAD: TimeDelta = TimeDelta::days(1);

/// What was seen so recently is not looked at again, unless something was written since.
const RECENT: Duration = Duration::from_mins(1);

/// Vanished objects that are named.
const MOST_NAMED: usize = 100;

/// See the module. A backup calls `lease`, `begin`, `store`, `commit` and `publish`, in this order.
#[derive(Debug, Clone, Copy)]
pub struct Storing<'a> {
    pub context: &'a Context,
    pub options: &'a BackupOptions,
}

/// A backup that exists and is not finished.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// Unix seconds.
    pub started: i64,
    /// Another run began it.
    pub resumed: bool,
}

/// What is stored, before it is committed.
#[derive(Debug)]
pub struct Done {
    executed: Executed,
}

impl Done {
    fn all(&self) -> Amount {
        self.executed.manifest.objects().map(|object| object.size).sum()
    }
}

impl Storing<'_> {
    /// The backup of this name, if there is one. Refuses a name that Medusa would confuse with another one.
    pub async fn begun(&self) -> anyhow::Result<Option<NodeBackup>> {
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        // First: it says of a bucket that it is there, and what is absent need not be asked for twice then.
        let folders = storage.folders(&storage.layout().node(fqdn)).await?;
        let earlier = self.earlier().await?;
        if earlier.as_ref().is_some_and(|backup| backup.finished.is_some()) {
            return Ok(earlier);
        }
        for folder in folders {
            let Some(other) = storage.layout().backup_folder(fqdn, &folder) else { continue };
            if other != *name && name.as_str().starts_with(other.as_str()) {
                tracing::warn!("cassandra-medusa would delete {name} together with {other}, whose name begins it");
            }
            if other != *name && other.as_str().starts_with(name.as_str()) {
                return Err(Failure::usage(format!("backup name {name:?} is the beginning of the name of backup {other}", name = name.as_str()))
                    .hint("cassandra-medusa would delete both when it deletes the shorter one; take a name that ends differently")
                    .into());
            }
        }
        Ok(earlier)
    }

    /// The backup of this name, if there is one. Refuses one that was begun in the other mode.
    async fn earlier(&self) -> anyhow::Result<Option<NodeBackup>> {
        let (name, fqdn) = (&self.options.name, &self.context.fqdn);
        let earlier = self.context.storage.node_backup(fqdn, name).await?;
        if let Some(NodeBackup { mode, finished: None, .. }) = &earlier
            && *mode != self.options.mode
        {
            return Err(Failure::failed(format!("backup {name} of {fqdn} was begun in {mode} mode"))
                .hint(format!("continue it with --mode {mode}, or delete it first with medusa delete-backup"))
                .into());
        }
        Ok(earlier)
    }

    pub async fn lease(&self) -> anyhow::Result<Lease> {
        let context = self.context;
        context.storage.lease_for_backup(&context.fqdn, &self.options.name, &*context.monitor).await
    }

    /// Makes the backup exist, or goes on with the one that was begun.
    pub async fn begin(&self, facts: &ClusterFacts, schema: &Schema) -> anyhow::Result<Begun> {
        // Another run may have come to its end, or deleted it, before the lease was ours.
        let earlier = self.earlier().await?;
        if let Some(backup) = earlier.as_ref().filter(|backup| backup.finished.is_some()) {
            return Err(exists_already(backup).into());
        }
        self.writing().expect_undamaged(earlier.as_ref()).await?;
        let started = self.writing().begin(facts, schema).await?;
        Ok(Begun { started, resumed: earlier.is_some() })
    }

    /// Plans, uploads, and makes sure that everything is there. What is left to do is to commit. Ends by itself where it is
    /// interrupted, so that what was begun to be uploaded is taken back.
    pub async fn store(&self, lease: &Lease, tables: Vec<SnapshotTable>) -> anyhow::Result<Done> {
        let (context, options) = (self.context, self.options);
        let begin = Instant::now();
        let planned = async {
            self.remove_unfinished_uploads(lease).await;
            self.plan(tables).await
        };
        let plan = context.interrupt.or(planned).await?;
        let totals = plan.totals();
        context.monitor.step("compare", &report::compared(&totals), begin.elapsed());
        let moved = Amount {
            files: totals.upload.files + totals.compare.files,
            bytes: totals.upload.bytes + totals.compare.bytes,
        };
        let upload_begin = Instant::now();
        let transfer = context.monitor.transfer("upload", moved);
        let execution = Execution {
            storage: context.storage.clone(),
            fqdn: context.fqdn.clone(),
            name: options.name.clone(),
            mode: options.mode,
            part_size: context.config.storage.multipart_chunksize,
            allow_corrupt: options.allow_corrupt,
            watch: context.watch(&transfer.counters),
            monitor: Arc::clone(&context.monitor),
        };
        let executed = execution.run(plan).await?;
        drop(transfer);
        if !executed.problems.is_empty() {
            let count = units::counted(executed.problems.len() as u64, "file");
            let corrupt = executed.problems.iter().any(|problem| problem.contains("Digest.crc32"));
            let hint = if corrupt {
                "the SSTables are damaged on this node: nodetool scrub or a repair mends them; --allow-corrupt stores them as they are"
            } else {
                "the same command continues the backup once the files can be read"
            };
            return Err(Failure::failed(format!("{count} could not be stored; the backup is not finished"))
                .details(executed.problems)
                .hint(hint)
                .into());
        }
        let uploaded = units::size(executed.uploaded.bytes);
        context.monitor.step("upload", &uploaded, upload_begin.elapsed());
        let confirmed = async {
            if options.mode == BackupMode::Full {
                // What comes now deletes. Another run may have finished this very backup since.
                lease.confirm().await?;
            }
            // Nothing was moved: the listing that says so is this very look.
            let is_seen = options.mode == BackupMode::Differential && moved.files == 0 && begin.elapsed() < RECENT;
            self.confirm(&executed.manifest, is_seen).await
        };
        context.interrupt.or(confirmed).await?;
        Ok(Done { executed })
    }

    /// What killed runs left of uploads in parts. It costs, and does no other harm.
    async fn remove_unfinished_uploads(&self, lease: &Lease) {
        let (storage, fqdn) = (&self.context.storage, &self.context.fqdn);
        let abandoned = Abandoned { of_killed: lease.taken_over(), ..Abandoned::older_than(LONGEST_UPLOAD) };
        match storage.abort_unfinished_uploads(&storage.layout().node(fqdn), &abandoned).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!("{} of earlier runs removed", units::counted(count as u64, "unfinished upload"));
            }
            Err(error) => tracing::warn!("{}", one_line(&error)),
        }
    }

    /// The last look before the commit: everything that the manifest will name is there. Somebody else may have deleted
    /// objects since they were found, or the whole backup.
    ///
    /// A full backup owns its folder: what an interrupted run left there and the manifest does not name is garbage.
    async fn confirm(&self, manifest: &Manifest, is_seen: bool) -> anyhow::Result<()> {
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        let seen = if is_seen { Seen::default() } else { self.compare(manifest).await? };
        if !seen.changed.is_empty() {
            let count = units::counted(seen.changed.len() as u64, "object");
            return Err(Failure::failed(format!("{count} changed in the storage while the backup was running"))
                .details(seen.changed.into_iter().take(MOST_NAMED))
                .hint("cassandra-medusa overwrites objects; the same command stores what is missing")
                .into());
        }
        if !seen.missing.is_empty() {
            let count = units::counted(seen.missing.len() as u64, "object");
            return Err(Failure::failed(format!("{count} vanished from the storage while the backup was running"))
                .details(seen.missing.into_iter().take(MOST_NAMED))
                .hint("a purge or a deletion ran beside it; the same command stores what is missing")
                .into());
        }
        let schema = storage.layout().meta(fqdn, name, Meta::Schema);
        if storage.head(&schema).await?.is_none() {
            return Err(Failure::failed(format!("backup {name} of {fqdn} was deleted while it was running"))
                .hint("the same command begins it anew")
                .into());
        }
        if self.options.mode == BackupMode::Full {
            storage.delete(seen.unnamed).await?;
        }
        Ok(())
    }

    /// Compares a manifest with the pool.
    async fn compare(&self, manifest: &Manifest) -> anyhow::Result<Seen> {
        let (storage, fqdn) = (&self.context.storage, &self.context.fqdn);
        let mut expected: HashMap<&str, u64> = manifest.objects().map(|object| (&*object.path, object.size)).collect();
        let mut seen = Seen::default();
        let mut listing = storage.list(&storage.layout().pool(fqdn, self.pool()));
        while let Some(object) = listing.try_next().await? {
            match expected.get(object.location.as_ref()) {
                None => seen.unnamed.push(ObjectKey::listed(object.location)),
                Some(size) if *size == object.size => drop(expected.remove(object.location.as_ref())),
                Some(_) => {}
            }
        }
        // Listings may be behind.
        for (path, size) in expected {
            match storage.head(&storage.layout().recorded(fqdn, path)?).await? {
                None => seen.missing.push(path.to_owned()),
                Some(found) if found.size == size => {}
                Some(found) => seen.changed.push(format!("{path} has {} bytes and should have {size}", found.size)),
            }
        }
        Ok(seen)
    }

    /// Makes it a finished backup, unless the lease was lost: then somebody else may have deleted what the manifest names.
    /// Not interruptible: from here on it is quicker to end well than to stop.
    ///
    /// # Errors
    /// The backup is not finished.
    pub async fn commit(&self, lease: &Lease, done: &Done) -> anyhow::Result<Bytes> {
        let bytes = self.writing().commit(lease, &done.executed.manifest).await?;
        if let Err(error) = lease.confirm().await
            && lease.is_lost()
        {
            let (name, fqdn) = (&self.options.name, &self.context.fqdn);
            // One takes the same manifest for its own, or says that there is one; another one has told everybody of it.
            if self.is_followed().await || self.is_published().await? {
                return Err(Failure::failed(format!("backup {name} of {fqdn} is finished by another run"))
                    .cause(error)
                    .hint("verify it when that run has ended")
                    .into());
            }
            self.writing().withdraw().await.with_context(|| {
                format!("{error}; the manifest of {name} should not stay, and could not be removed: verify it")
            })?;
            return Err(Failure::failed(format!("backup {name} of {fqdn} could not be finished"))
                .cause(error)
                .hint("the same command continues it")
                .into());
        }
        Ok(bytes)
    }

    /// Whether another run works on this very backup.
    async fn is_followed(&self) -> bool {
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        let found = storage.look_at_lease(fqdn).await.ok().flatten();
        let is_same = |terms: Terms| terms.work == Work::Backup && terms.backup.as_deref() == Some(name.as_str());
        found.filter(|found| !found.is_stale).and_then(|found| found.terms).is_some_and(is_same)
    }

    /// Writes what lets others find the backup quickly.
    pub async fn publish(
        &self,
        started: i64,
        facts: &ClusterFacts,
        done: Done,
        manifest: Bytes,
        begin: Instant,
    ) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        let backup = async {
            let key = context.storage.layout().meta(&context.fqdn, &options.name, Meta::Manifest);
            let written = context.storage.head(&key).await?;
            let written = written.context("the manifest that was just written is not there")?.last_modified;
            let backup = NodeBackup {
                name: options.name.clone(),
                fqdn: context.fqdn.clone(),
                mode: options.mode,
                started,
                finished: Some(written.timestamp()),
            };
            let published = Published {
                tokenmap: facts.tokenmap.to_bytes()?.into(),
                version: facts.version.clone(),
                all: done.all(),
                uploaded: done.executed.uploaded,
                is_last: true,
            };
            self.writing().publish(&backup, manifest, &published).await?;
            anyhow::Ok(backup)
        };
        let backup = backup.await.map_err(|error| {
            Failure::problems(format!(
                "backup {} of {} is complete, but its index could not be written",
                options.name, context.fqdn
            ))
            .cause(error)
            .hint("the same command mends the index")
        })?;
        Ok(BackupOutcome {
            name: options.name.clone(),
            fqdn: context.fqdn.clone(),
            mode: options.mode,
            started: backup.started,
            finished: backup.finished.unwrap_or_default(),
            all: done.all(),
            uploaded: done.executed.uploaded,
            kept: done.executed.kept,
            digests_checked: done.executed.digests_checked,
            corrupt: done.executed.corrupt,
            took: begin.elapsed(),
            waited: Duration::ZERO,
            uncleared: None,
        })
    }

    /// Compares a backup of a run that was killed after the commit with the pool: that run may have lost its lease.
    ///
    /// # Errors
    /// The backup has lost objects.
    pub async fn check_committed(&self) -> anyhow::Result<()> {
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        let manifest = storage.manifest(fqdn, name).await?;
        let manifest =
            manifest.with_context(|| format!("the manifest of backup {name} of {fqdn} was there and is gone"))?;
        let Seen { missing, changed, .. } = self.compare(&manifest).await?;
        let lost: Vec<_> = missing.into_iter().map(|path| format!("{path} is gone")).chain(changed).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let count = units::counted(lost.len() as u64, "object");
        Err(Failure::problems(format!("backup {name} of {fqdn} was finished and has lost {count}"))
            .details(lost.into_iter().take(MOST_NAMED))
            .hint("delete it with medusa delete-backup, and take it again")
            .into())
    }

    /// Publishes a backup of a run that was killed after the commit.
    pub async fn publish_committed(&self, backup: &NodeBackup, begin: Instant) -> anyhow::Result<BackupOutcome> {
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        let manifest = self.writing().publish_stored(backup).await?;
        // Its run may be alive after all, and have taken the commit back.
        let key = storage.layout().meta(fqdn, name, Meta::Manifest);
        storage.head(&key).await?.with_context(|| {
            format!("the run that finished backup {name} of {fqdn} has taken its manifest back; try again")
        })?;
        let all = Amount { files: manifest.object_count(), bytes: manifest.total_bytes() };
        Ok(BackupOutcome {
            name: backup.name.clone(),
            fqdn: backup.fqdn.clone(),
            mode: backup.mode,
            started: backup.started,
            finished: backup.finished.unwrap_or_default(),
            all,
            uploaded: Amount::default(),
            kept: all,
            digests_checked: 0,
            corrupt: Vec::new(),
            took: begin.elapsed(),
            waited: Duration::ZERO,
            uncleared: None,
        })
    }

    pub async fn is_published(&self) -> anyhow::Result<bool> {
        self.writing().is_published().await
    }

    pub(super) async fn plan(&self, tables: Vec<SnapshotTable>) -> anyhow::Result<BackupPlan> {
        let context = self.context;
        let stored = Arc::new(self.stored_files().await?);
        let always_compare = self.options.compare_contents;
        let (layout, fqdn) = (context.storage.layout(), &context.fqdn);
        Ok(BackupPlan::make(tables, &stored, Rules { layout, fqdn, pool: self.pool(), always_compare }))
    }

    /// What the pool holds, with what the newest manifests say about it.
    async fn stored_files(&self) -> anyhow::Result<StoredFiles> {
        let storage = &self.context.storage;
        let mut stored = StoredFiles::default();
        if self.options.mode == BackupMode::Differential {
            self.add_manifests(&mut stored).await?;
        }
        let pool = storage.layout().pool(&self.context.fqdn, self.pool());
        let mut listing = storage.list(&pool);
        while let Some(object) = listing.try_next().await? {
            stored.add_object(&pool, object, storage.lists_digests());
        }
        Ok(stored)
    }

    async fn add_manifests(&self, stored: &mut StoredFiles) -> anyhow::Result<()> {
        let (storage, fqdn) = (&self.context.storage, &self.context.fqdn);
        // Usually the latest marker is enough: one of our manifests says all there is to say.
        if let Some(name) = storage.latest_name(fqdn).await?
            && self.add_manifest(stored, &name).await? == Some(true)
        {
            return Ok(());
        }
        let finished = storage.index_entries().await?.into_iter().filter_map(|entry| match entry.kind {
            IndexKind::Finished(at) if entry.fqdn == *fqdn => Some((at, entry.name)),
            _ => None,
        });
        let mut finished: Vec<_> = finished.collect();
        finished.sort_unstable_by(|a, b| b.cmp(a));
        for (_, name) in finished.into_iter().take(MANIFESTS_READ) {
            if self.add_manifest(stored, &name).await? == Some(true) {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether the manifest says all there is to say: it is about this pool and records our digests throughout.
    /// `None` where it cannot be used.
    async fn add_manifest(&self, stored: &mut StoredFiles, name: &BackupName) -> anyhow::Result<Option<bool>> {
        let (storage, fqdn) = (&self.context.storage, &self.context.fqdn);
        match storage.dated_manifest(fqdn, name).await {
            Ok(Some((manifest, written))) => {
                let pool = storage.layout().pool(fqdn, self.pool());
                let in_pool = |path: &str| path.strip_prefix(pool.as_ref()).is_some_and(|rest| rest.starts_with('/'));
                let ours = manifest.objects().all(|object| object.sha256.is_some())
                    && manifest.objects().any(|object| in_pool(&object.path));
                stored.add_manifest(manifest, written);
                Ok(Some(ours))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                // Only the knowledge that would spare an upload is lost.
                tracing::warn!("{}; its files are compared by content", one_line(&error));
                Ok(None)
            }
        }
    }

    pub(super) fn writing(&self) -> Writing<'_> {
        let (storage, fqdn) = (&self.context.storage, &self.context.fqdn);
        Writing { storage, fqdn, name: &self.options.name, mode: self.options.mode }
    }

    fn pool(&self) -> Pool<'_> {
        match self.options.mode {
            BackupMode::Differential => Pool::Differential,
            BackupMode::Full => Pool::Full(&self.options.name),
        }
    }
}

/// A pool beside a manifest.
#[derive(Debug, Default)]
struct Seen {
    unnamed: Vec<ObjectKey>,
    missing: Vec<String>,
    /// Of another size.
    changed: Vec<String>,
}

/// What a run says that finds its work done.
pub const EXISTS: &str = "already exists; it was finished";

pub(super) fn exists_already(backup: &NodeBackup) -> Failure {
    let at = units::time(backup.finished.unwrap_or_default());
    Failure::failed(format!("backup {} of {} {EXISTS} {at}", backup.name, backup.fqdn))
        .hint("take another --backup-name, or delete it first with medusa delete-backup")
}

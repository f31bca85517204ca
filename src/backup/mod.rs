//! The backup of one node: snapshot, compare, upload, commit.
//!
//! The snapshot is cleared on every way out. Until the manifest is written the backup is unfinished and the same command
//! continues it; nothing that an earlier backup needs is ever changed.

pub mod commit;
pub mod execute;
pub mod marker;
pub mod plan;
pub mod report;
pub mod stagger;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;

use self::commit::{Published, Writing};
use self::execute::{Executed, Execution};
use self::plan::{BackupPlan, Rules, StoredFiles, Totals};
use self::report::{BackupOutcome, DryRun};
use crate::cassandra::cql::Cql;
use crate::cassandra::facts::{self, ClusterFacts, LiveTable, Schema};
use crate::cassandra::nodetool::Nodetool;
use crate::cassandra::snapshot::{self, Snapshot, SnapshotTable};
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::model::backups::{BackupMode, NodeBackup};
use crate::model::names::{BackupName, TableFolder};
use crate::model::units;
use crate::monitor::Amount;
use crate::storage::layout::{IndexKind, Meta, ObjectKey, Pool};
use crate::storage::lease::{Lease, Work};

/// Manifests that are read to learn what is stored already.
const MANIFESTS_READ: usize = 5;

/// Vanished objects that are named.
const MOST_NAMED: usize = 100;

/// A snapshot that no begun backup belongs to is taken again if it is older: then nobody has just taken it for this backup.
const FRESH: Duration = Duration::from_hours(1);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    pub name: BackupName,
    pub mode: BackupMode,
    /// How long to wait for the node before this one in the ring.
    pub stagger: Option<Duration>,
    /// Compare the contents of all files, not only of those whose size or time differs.
    pub compare_contents: bool,
    pub keep_snapshot: bool,
    pub use_existing_snapshot: bool,
    pub allow_corrupt: bool,
}

/// Pauses before a snapshot whose tag somebody else took is taken again.
const RETAKES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// One backup of this node.
#[derive(Debug)]
pub struct NodeBackupRun<'a> {
    context: &'a Context,
    options: &'a BackupOptions,
    yaml: CassandraYaml,
    nodetool: Nodetool,
}

impl<'a> NodeBackupRun<'a> {
    pub fn new(context: &'a Context, options: &'a BackupOptions) -> anyhow::Result<Self> {
        let yaml = context.cassandra_yaml()?;
        for folder in &yaml.data_directories {
            if !folder.is_dir() {
                return Err(Failure::failed(format!("the data directory {} does not exist", folder.display()))
                    .hint(format!("it stands in {} as one of data_file_directories", yaml.path.display()))
                    .into());
            }
        }
        Ok(Self { context, options, yaml, nodetool: Nodetool::new(&context.config.cassandra)? })
    }

    fn writing(&self) -> Writing<'_> {
        let (storage, fqdn) = (&self.context.storage, &self.context.fqdn);
        Writing { storage, fqdn, name: &self.options.name, mode: self.options.mode }
    }

    fn pool(&self) -> Pool<'_> {
        match self.options.mode {
            BackupMode::Differential => Pool::Differential,
            BackupMode::Full => Pool::Full(&self.options.name),
        }
    }

    fn data_directories(&self) -> Vec<PathBuf> {
        self.yaml.table_directories()
    }

    /// Says what a backup would do. Takes no snapshot: what is in memory only does not count.
    pub async fn dry_run(&self) -> anyhow::Result<DryRun> {
        let begun = self.begun().await?;
        if let Some(backup) = begun.as_ref().filter(|backup| backup.finished.is_some()) {
            return Err(exists_already(backup).into());
        }
        let cql = self.context.cql(&self.yaml).await?;
        let facts = ClusterFacts::gather(&cql, &self.context.resolver).await?;
        let folders = self.data_directories();
        let tables = if self.options.use_existing_snapshot {
            self.existing_snapshot()?.tables()?
        } else {
            let mut tables = tokio::task::spawn_blocking(move || snapshot::live_tables(&folders)).await??;
            // Dropped tables leave folders behind.
            let live = required_tables(&cql).await?;
            let is_live = |table: &TableFolder, live: &LiveTable| {
                live.keyspace == table.keyspace && live.name == table.table() && Some(&*live.id) == table.id()
            };
            tables.retain(|found| live.iter().any(|live| is_live(&found.table, live)));
            tables
        };
        let plan = self.plan(tables).await?;
        Ok(DryRun {
            resumed: begun.is_some(),
            snapshot: (self.snapshot_tag(), self.options.use_existing_snapshot),
            version: facts.version,
            tables: plan.tables.len(),
            totals: plan.totals(),
        })
    }

    /// # Errors
    /// The backup is not finished; the same command continues it. Only a failure to write the index comes after the commit,
    /// and says so.
    pub async fn run(&self) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        let begin = Instant::now();
        context.monitor.title(&format!(
            "backup {} of {} to {} ({})",
            options.name,
            context.fqdn,
            context.storage.location(),
            options.mode
        ));
        let earlier = context.interrupt.or(self.begun()).await?;
        if let Some(backup) = &earlier {
            if backup.finished.is_some() {
                return self.tidy_up(backup, begin).await;
            }
            let at = units::local_time(backup.started);
            context.monitor.title(&format!("  continues the backup that was started {at}"));
        }
        let existing = if options.use_existing_snapshot { Some(self.existing_snapshot()?) } else { None };
        let _marker = marker::InProgress::set();
        let cql = context.cql(&self.yaml).await?;
        let (facts, schema) = context.interrupt.or(self.gather(&cql)).await?;
        let lease = context.storage.lease(&context.fqdn, Work::Backup, Some(&options.name));
        let lease = context.interrupt.or(lease).await?;
        let outcome = self.run_under(&lease, &cql, &facts, &schema, existing, begin).await;
        lease.release().await;
        outcome
    }

    /// Everything that writes.
    async fn run_under(
        &self,
        lease: &Lease,
        cql: &Cql,
        facts: &ClusterFacts,
        schema: &Schema,
        existing: Option<Snapshot>,
        begin: Instant,
    ) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        // Another run may have come to its end since.
        let earlier = context.interrupt.or(self.begun()).await?;
        if let Some(backup) = earlier.as_ref().filter(|backup| backup.finished.is_some()) {
            return Err(exists_already(backup).into());
        }
        let started = context.interrupt.or(self.writing().begin(facts, schema)).await?;
        if let Some(patience) = options.stagger {
            let turn = stagger::wait_for_turn(context, facts, &options.name, patience);
            context.interrupt.or(turn).await?;
        }
        let snapshot = match existing {
            Some(snapshot) => Taken { snapshot, reused: true, tables: Vec::new() },
            None => self.take_snapshot(cql, earlier.is_some()).await?,
        };
        let work = async {
            self.settle_schema(cql, schema, &snapshot, earlier.is_some()).await?;
            let done = self.store(&snapshot).await?;
            lease.confirm().await?;
            anyhow::Ok(done)
        };
        let committed = match context.interrupt.or(work).await {
            // From here on it is quicker to end well than to stop.
            Ok(done) => self.writing().commit(&done.executed.manifest).await.map(|manifest| (done, manifest)),
            Err(error) => Err(error),
        };
        let cleared = self.clear(&snapshot.snapshot, committed.is_ok()).await;
        let (done, manifest) = match committed {
            Ok(committed) => committed,
            Err(error) => {
                if let Err(uncleared) = cleared {
                    context.monitor.problem(&one_line(&uncleared));
                }
                return Err(error);
            }
        };
        let outcome = self.publish(started, facts, done, manifest, begin).await?;
        cleared?;
        Ok(outcome)
    }

    /// The backup of this name, if there is one. Refuses a name that Medusa would confuse with another one.
    async fn begun(&self) -> anyhow::Result<Option<NodeBackup>> {
        let (context, options) = (self.context, self.options);
        let (storage, fqdn, name) = (&context.storage, &context.fqdn, &options.name);
        let begun = storage.node_backup(fqdn, name).await?;
        match &begun {
            Some(backup) if backup.finished.is_some() => return Ok(begun),
            Some(backup) if backup.mode != options.mode => {
                return Err(Failure::failed(format!("backup {name} of {fqdn} was begun in {} mode", backup.mode))
                    .hint(format!(
                        "continue it with --mode {}, or delete it first with medusa delete-backup",
                        backup.mode
                    ))
                    .into());
            }
            _ => {}
        }
        for folder in storage.folders(&storage.layout().node(fqdn)).await? {
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
        Ok(begun)
    }

    /// Does what a run that was killed after the commit did not come to.
    ///
    /// # Errors
    /// There is nothing to do: the name is taken.
    async fn tidy_up(&self, backup: &NodeBackup, begin: Instant) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        if self.writing().is_published().await? {
            return Err(exists_already(backup).into());
        }
        let at = units::local_time(backup.finished.unwrap_or_default());
        context.monitor.title(&format!("  it was finished {at} by a run that was interrupted; this one tidies up"));
        let snapshot = Snapshot::of(&self.snapshot_tag(), &self.data_directories());
        if !options.keep_snapshot && snapshot.exists()? {
            snapshot.clear(&self.nodetool).await?;
        }
        let manifest = self.writing().publish_stored(backup).await?;
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
        })
    }

    /// Of the snapshot that is backed up.
    fn snapshot_tag(&self) -> String {
        let name = &self.options.name;
        if self.options.use_existing_snapshot { name.to_string() } else { name.snapshot_tag() }
    }

    fn existing_snapshot(&self) -> anyhow::Result<Snapshot> {
        let tag = self.snapshot_tag();
        let snapshot = Snapshot::of(&tag, &self.data_directories());
        if !snapshot.exists()? {
            return Err(Failure::failed(format!("there is no snapshot {tag} on this node"))
                .hint(format!("--use-existing-snapshot needs one: nodetool snapshot -t {tag}"))
                .into());
        }
        snapshot.check(&[])?;
        Ok(snapshot)
    }

    async fn gather(&self, cql: &Cql) -> anyhow::Result<(ClusterFacts, Schema)> {
        let facts = ClusterFacts::gather(cql, &self.context.resolver).await?;
        if !facts.tokenmap.hosts.contains_key(self.context.fqdn.as_str()) {
            tracing::warn!(
                "this node's folder is {}, but its token map calls it {}: status will report it as missing. \
                 Set fqdn in [storage] to that name, or change resolve_ip_addresses in [cassandra]",
                self.context.fqdn,
                facts.own_name
            );
        }
        Ok((facts, facts::schema(cql).await?))
    }

    /// Takes the snapshot, or finds the one that an interrupted run or a coordinator left. Not interruptible: a snapshot that
    /// is being taken could not be cleared.
    async fn take_snapshot(&self, cql: &Cql, resumed: bool) -> anyhow::Result<Taken> {
        let begin = Instant::now();
        let snapshot = Snapshot::of(&self.snapshot_tag(), &self.data_directories());
        let before = required_tables(cql).await?;
        if snapshot.exists()? {
            let age = snapshot.age()?;
            match snapshot.check(&before) {
                Ok(()) if !resumed && age > FRESH => {
                    tracing::warn!("the snapshot {} is {} old; it is taken again", snapshot.tag(), units::took(age));
                    snapshot.clear(&self.nodetool).await?;
                }
                Ok(()) => {
                    self.context.monitor.step("snapshot", &format!("{} was there", snapshot.tag()), begin.elapsed());
                    return Ok(Taken { snapshot, reused: true, tables: before });
                }
                Err(error) => {
                    tracing::info!("{}; it is taken again", one_line(&error));
                    snapshot.clear(&self.nodetool).await?;
                }
            }
        }
        let mut pauses = RETAKES.iter();
        let taken = loop {
            let taken = self.take(cql, &snapshot, &before).await;
            if taken.is_ok() {
                break taken;
            }
            // The nodetool of a run that was killed goes on: it may have taken the tag since.
            let taken_by_other = snapshot.exists()? && !self.context.interrupt.is_raised();
            if let Err(uncleared) = snapshot.clear(&self.nodetool).await {
                self.context.monitor.problem(&one_line(&uncleared));
            }
            match pauses.next() {
                Some(pause) if taken_by_other => tokio::time::sleep(*pause).await,
                _ => break taken,
            }
        };
        let tables = taken?;
        let detail = format!("{}, {}", snapshot.tag(), units::counted(tables.len() as u64, "table"));
        self.context.monitor.step("snapshot", &detail, begin.elapsed());
        Ok(Taken { snapshot, reused: false, tables })
    }

    /// Returns the tables that are in it for certain: one that was dropped or created meanwhile may or may not be.
    async fn take(&self, cql: &Cql, snapshot: &Snapshot, before: &[LiveTable]) -> anyhow::Result<Vec<LiveTable>> {
        self.context.interrupt.check()?;
        self.nodetool.snapshot(snapshot.tag()).await?;
        let after = required_tables(cql).await?;
        let tables: Vec<_> = before.iter().filter(|table| after.contains(table)).cloned().collect();
        snapshot.check(&tables)?;
        Ok(tables)
    }

    /// Stores the schema that belongs to the snapshot, if it is not the one that was stored first.
    async fn settle_schema(&self, cql: &Cql, first: &Schema, snapshot: &Taken, resumed: bool) -> anyhow::Result<()> {
        if resumed && snapshot.reused {
            return Ok(());
        }
        if facts::schema_version(cql).await? != first.version {
            return self.writing().replace_schema(&facts::schema(cql).await?).await;
        }
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        if resumed && storage.meta_text(fqdn, name, Meta::Schema).await?.as_ref() != Some(&first.plain) {
            return self.writing().replace_schema(first).await;
        }
        Ok(())
    }

    /// Plans and uploads.
    async fn store(&self, taken: &Taken) -> anyhow::Result<Done> {
        let (context, options) = (self.context, self.options);
        let begin = Instant::now();
        let (snapshot, required) = (taken.snapshot.clone(), taken.tables.clone());
        let walk = move || {
            let tables = snapshot.tables()?;
            // Somebody may clear it at any time. What goes from now on is missed when it is read.
            snapshot.check(&required)?;
            anyhow::Ok(tables)
        };
        let tables = tokio::task::spawn_blocking(walk).await??;
        let plan = self.plan(tables).await?;
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
        self.confirm(&executed).await?;
        Ok(Done { executed, totals })
    }

    /// The last look before the commit: everything that the manifest will name is there. Somebody else may have deleted
    /// objects since they were found, or the whole backup.
    ///
    /// A full backup owns its folder: what an interrupted run left there and the manifest does not name is garbage.
    async fn confirm(&self, executed: &Executed) -> anyhow::Result<()> {
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        let mut expected: HashMap<&str, u64> =
            executed.manifest.objects().map(|object| (&*object.path, object.size)).collect();
        let mut leftovers = Vec::new();
        let mut listing = storage.list(&storage.layout().pool(fqdn, self.pool()));
        while let Some(object) = listing.try_next().await? {
            match expected.remove(object.location.as_ref()) {
                None => leftovers.push(object.location),
                Some(size) if size == object.size => {}
                Some(size) => {
                    let found = storage.name_of(&object.location);
                    bail!(
                        "{found} has {} bytes and should have {size}; it was changed while the backup was running",
                        object.size
                    );
                }
            }
        }
        if !expected.is_empty() {
            let count = units::counted(expected.len() as u64, "object");
            return Err(Failure::failed(format!("{count} vanished from the storage while the backup was running"))
                .details(expected.into_keys().map(str::to_owned).take(MOST_NAMED))
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
            storage.delete(leftovers.into_iter().map(ObjectKey::listed).collect()).await?;
        }
        Ok(())
    }

    async fn plan(&self, tables: Vec<SnapshotTable>) -> anyhow::Result<BackupPlan> {
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
            stored.add_object(&pool, object);
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
        let key = storage.layout().meta(fqdn, name, Meta::Manifest);
        let Some(meta) = storage.head(&key).await? else { return Ok(None) };
        match storage.manifest(fqdn, name).await {
            Ok(Some(manifest)) => {
                let pool = storage.layout().pool(fqdn, self.pool());
                let in_pool = |path: &str| path.strip_prefix(pool.as_ref()).is_some_and(|rest| rest.starts_with('/'));
                let ours = manifest.objects().all(|object| object.sha256.is_some())
                    && manifest.objects().any(|object| in_pool(&object.path));
                stored.add_manifest(manifest, meta.last_modified);
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

    /// A snapshot that we took goes in any case. One that was handed to us goes when it is stored: it cannot be taken again.
    async fn clear(&self, snapshot: &Snapshot, stored: bool) -> anyhow::Result<()> {
        if self.options.keep_snapshot || (self.options.use_existing_snapshot && !stored) {
            return Ok(());
        }
        snapshot.clear(&self.nodetool).await
    }

    async fn publish(
        &self,
        started: i64,
        facts: &ClusterFacts,
        done: Done,
        manifest: bytes::Bytes,
        begin: Instant,
    ) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        let backup = async {
            let backup = context.storage.node_backup(&context.fqdn, &options.name).await?;
            let backup = NodeBackup { started, ..backup.context("the manifest that was just written is not there")? };
            let published = Published {
                tokenmap: facts.tokenmap.to_bytes()?.into(),
                version: facts.version.clone(),
                all: done.totals.all,
                uploaded: done.executed.uploaded,
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
            all: done.totals.all,
            uploaded: done.executed.uploaded,
            kept: done.executed.kept,
            digests_checked: done.executed.digests_checked,
            corrupt: done.executed.corrupt,
            took: begin.elapsed(),
        })
    }
}

fn exists_already(backup: &NodeBackup) -> Failure {
    let at = units::local_time(backup.finished.unwrap_or_default());
    Failure::failed(format!("backup {} of {} already exists; it was finished {at}", backup.name, backup.fqdn))
        .hint("take another --backup-name, or delete it first with medusa delete-backup")
}

/// A snapshot, and whether it was there before this run.
#[derive(Debug)]
struct Taken {
    snapshot: Snapshot,
    reused: bool,
    /// Those that must be in it.
    tables: Vec<LiveTable>,
}

#[derive(Debug)]
struct Done {
    executed: Executed,
    totals: Totals,
}

/// Tables that a snapshot of the whole node must hold.
async fn required_tables(cql: &Cql) -> Result<Vec<LiveTable>, Failure> {
    let excluded = |table: &LiveTable| facts::EXCLUDED_KEYSPACES.contains(&table.keyspace.as_str());
    Ok(facts::live_tables(cql).await?.into_iter().filter(|table| !excluded(table)).collect())
}

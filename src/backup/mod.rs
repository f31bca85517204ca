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
pub mod store;
pub mod wave;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use self::report::{BackupOutcome, DryRun};
use self::store::{Begun, Storing};
use crate::cassandra::cql::Cql;
use crate::cassandra::facts::{self, ClusterFacts, LiveTable, Schema};
use crate::cassandra::nodetool::{self, Nodetool};
use crate::cassandra::snapshot::{self, Snapshot, SnapshotTable};
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::model::backups::{BackupMode, NodeBackup};
use crate::model::names::{BackupName, TableFolder};
use crate::model::units;
use crate::storage::layout::{IndexKind, Meta};
use crate::storage::lease::Lease;

/// A snapshot that no begun backup belongs to is taken again if it is older: then nobody has just taken it for this backup. But a
/// coordinator takes those of all nodes first: see [`NodeBackupRun::is_of_cluster`].
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
    /// A coordinator has had the snapshot taken: it is used whatever its age, and no other one is taken.
    pub snapshot_taken: bool,
    pub allow_corrupt: bool,
}

/// Pauses before a snapshot whose tag somebody else took is taken again.
const RETAKES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Why there is no snapshot.
enum Untaken {
    Failed(Failure),
    /// There is one, and it cannot be backed up.
    Unfit(anyhow::Error),
}

impl From<Untaken> for anyhow::Error {
    fn from(untaken: Untaken) -> Self {
        match untaken {
            Untaken::Failed(failure) => failure.into(),
            Untaken::Unfit(error) => error,
        }
    }
}

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

    /// What the repository does for this backup.
    fn storing(&self) -> Storing<'_> {
        Storing { context: self.context, options: self.options }
    }

    fn data_directories(&self) -> Vec<PathBuf> {
        self.yaml.table_directories()
    }

    /// Says what a backup would do. Takes no snapshot: what is in memory only does not count.
    pub async fn dry_run(&self) -> anyhow::Result<DryRun> {
        let begun = self.storing().begun().await?;
        if let Some(backup) = begun.as_ref().filter(|backup| backup.finished.is_some()) {
            return Err(store::exists_already(backup).into());
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
        let plan = self.storing().plan(tables).await?;
        Ok(DryRun {
            resumed: begun.is_some(),
            snapshot: (self.snapshot_tag(), self.options.use_existing_snapshot),
            version: facts.version,
            tables: plan.tables.len(),
            totals: plan.totals(),
        })
    }

    /// # Errors
    /// The backup is not finished; the same command continues it. What fails after the commit says so.
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
        let earlier = context.interrupt.or(self.storing().begun()).await?;
        if let Some(backup) = &earlier {
            if backup.finished.is_some() {
                return self.tidy_up(backup, begin).await;
            }
            let at = units::time(backup.started);
            context.monitor.title(&format!("  continues the backup that was started {at}"));
        }
        let existing = if options.use_existing_snapshot || options.snapshot_taken {
            Some(self.existing_snapshot()?)
        } else {
            None
        };
        let cql = context.cql(&self.yaml).await?;
        let (facts, schema) = context.interrupt.or(self.gather(&cql)).await?;
        let lease = context.interrupt.or(self.storing().lease()).await?;
        // The marker of another run is not ours to remove.
        let marker = marker::InProgress::set();
        let outcome = self.run_under(&lease, &cql, (&facts, &schema), existing, begin).await;
        drop(marker);
        lease.release().await;
        outcome
    }

    /// Everything that writes.
    async fn run_under(
        &self,
        lease: &Lease,
        cql: &Cql,
        (facts, schema): (&ClusterFacts, &Schema),
        existing: Option<Snapshot>,
        begin: Instant,
    ) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        let mut waited = Duration::ZERO;
        if let Some(patience) = options.stagger {
            let waiting = Instant::now();
            let turn = stagger::wait_for_turn(context, facts, &options.name, patience);
            context.interrupt.or(turn).await?;
            waited = waiting.elapsed();
        }
        let Begun { started, resumed } = context.interrupt.or(self.storing().begin(facts, schema)).await?;
        context
            .interrupt
            .or(async {
                self.wait_for_nodetool().await;
                anyhow::Ok(())
            })
            .await?;
        let snapshot = match existing {
            Some(snapshot) => self.given_snapshot(cql, schema, snapshot, resumed).await?,
            None => self.take_snapshot(cql, schema, resumed).await?,
        };
        let prepared = async {
            // Waiting for the turn and the snapshot may have taken hours.
            lease.confirm().await?;
            self.settle_schema(schema, &snapshot, resumed).await?;
            self.tables(&snapshot).await
        };
        let stored = async { self.storing().store(lease, context.interrupt.or(prepared).await?).await };
        let committed = match stored.await {
            Ok(done) => self.storing().commit(lease, &done).await.map(|manifest| (done, manifest)),
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
        let outcome = self.storing().publish(started, facts, done, manifest, begin).await?;
        Ok(BackupOutcome { waited, uncleared: cleared.err(), ..outcome })
    }

    /// Does what a run that was killed after the commit did not come to.
    ///
    /// # Errors
    /// There is nothing to do: the name is taken.
    async fn tidy_up(&self, backup: &NodeBackup, begin: Instant) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        if self.storing().is_published().await? {
            self.clear_leftover().await?;
            return Err(store::exists_already(backup).into());
        }
        let at = units::time(backup.finished.unwrap_or_default());
        context.monitor.title(&format!("  it was finished {at} by a run that was interrupted; this one tidies up"));
        let lease = context.interrupt.or(self.storing().lease()).await?;
        let work = async {
            self.storing().check_committed().await?;
            self.wait_for_nodetool().await;
            let snapshot = Snapshot::of(&self.snapshot_tag(), &self.data_directories());
            if !options.keep_snapshot && snapshot.exists()? {
                snapshot.clear(&self.nodetool).await?;
            }
            self.storing().publish_committed(backup, begin).await
        };
        let outcome = work.await;
        lease.release().await;
        outcome
    }

    /// Of a backup that is complete and could not clear its snapshot. One that was handed over is not ours.
    async fn clear_leftover(&self) -> anyhow::Result<()> {
        let snapshot = Snapshot::of(&self.snapshot_tag(), &self.data_directories());
        let spared = self.options.keep_snapshot || self.options.use_existing_snapshot;
        if !spared && snapshot.exists()? {
            self.wait_for_nodetool().await;
            snapshot.clear(&self.nodetool).await?;
            self.context.monitor.title(&format!("  the snapshot {} was left and is cleared now", snapshot.tag()));
        }
        Ok(())
    }

    /// Another run may work on the same snapshot, and the nodetool of one that was killed goes on.
    async fn wait_for_nodetool(&self) {
        if let Some(folder) = self.yaml.data_directories.first() {
            self.nodetool.wait_for_others(folder, &self.snapshot_tag()).await;
        }
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
            let hint = if self.options.use_existing_snapshot {
                format!("--use-existing-snapshot needs one: nodetool flush && nodetool snapshot -t {tag}")
            } else {
                "somebody has cleared it; backup-cluster, run again, takes a new one".to_owned()
            };
            return Err(Failure::failed(format!("there is no snapshot {tag} on this node")).hint(hint).into());
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
    async fn take_snapshot(&self, cql: &Cql, first: &Schema, resumed: bool) -> anyhow::Result<Taken> {
        let begin = Instant::now();
        let snapshot = Snapshot::of(&self.snapshot_tag(), &self.data_directories());
        let before = required_tables(cql).await?;
        if snapshot.exists()? {
            let age = snapshot.age()?;
            let is_common = !resumed && self.is_of_cluster(&snapshot).await?;
            // Tables may have been created since.
            let tables = if is_common { Vec::new() } else { before.clone() };
            let stored = self.stored_schema(resumed).await?;
            let fit = async {
                snapshot.check(&tables)?;
                self.schema_of(cql, first, stored.as_deref(), &snapshot).await
            };
            match fit.await {
                Ok(_) if !resumed && !is_common && age > FRESH => {
                    tracing::warn!("the snapshot {} is {} old; it is taken again", snapshot.tag(), units::took(age));
                    snapshot.clear(&self.nodetool).await?;
                }
                Ok(schema) => {
                    self.context.monitor.step("snapshot", &format!("{} was there", snapshot.tag()), begin.elapsed());
                    return Ok(Taken { snapshot, reused: true, tables, schema });
                }
                Err(error) => {
                    tracing::info!("{}; it is taken again", one_line(&error));
                    snapshot.clear(&self.nodetool).await?;
                }
            }
        }
        let mut pauses = RETAKES.iter();
        let mut was_unfit = false;
        let (tables, schema) = loop {
            let untaken = match self.take(cql, first, &snapshot).await {
                Ok(taken) => break taken,
                Err(untaken) => untaken,
            };
            let is_there = snapshot.exists()?;
            if let Err(uncleared) = snapshot.clear(&self.nodetool).await {
                self.context.monitor.problem(&one_line(&uncleared));
            }
            let again = !self.context.interrupt.is_raised()
                && match &untaken {
                    // Another one would not be quicker.
                    Untaken::Failed(failure) if nodetool::took_too_long(failure) => false,
                    // The node itself goes on with the snapshot of a nodetool that was killed.
                    Untaken::Failed(_) => is_there,
                    Untaken::Unfit(_) => !std::mem::replace(&mut was_unfit, true),
                };
            match pauses.next() {
                Some(pause) if again => tokio::time::sleep(*pause).await,
                _ => return Err(untaken.into()),
            }
        };
        let detail = format!("{}, {}", snapshot.tag(), units::counted(tables.len() as u64, "table"));
        self.context.monitor.step("snapshot", &detail, begin.elapsed());
        Ok(Taken { snapshot, reused: false, tables, schema })
    }

    /// Returns the tables that are in it for certain: one that was dropped or created meanwhile may or may not be. And the schema
    /// that belongs to it.
    async fn take(
        &self,
        cql: &Cql,
        first: &Schema,
        snapshot: &Snapshot,
    ) -> Result<(Vec<LiveTable>, Option<Schema>), Untaken> {
        let prepared = async {
            self.context.interrupt.or_failure(self.nodetool.flush()).await?;
            let first = Self::schema_since(cql, first).await?;
            Ok((required_tables(cql).await?, first))
        };
        let (before, first) = prepared.await.map_err(Untaken::Failed)?;
        self.nodetool.snapshot(snapshot.tag()).await.map_err(Untaken::Failed)?;
        let checked = async {
            let after = required_tables(cql).await?;
            let tables: Vec<_> = before.into_iter().filter(|table| after.contains(table)).collect();
            snapshot.check(&tables)?;
            Ok((tables, self.schema_of(cql, &first, None, snapshot).await?))
        };
        checked.await.map_err(Untaken::Unfit)
    }

    /// The snapshot that was handed over cannot be taken again: what the schema lacks is told.
    async fn given_snapshot(
        &self,
        cql: &Cql,
        first: &Schema,
        snapshot: Snapshot,
        resumed: bool,
    ) -> anyhow::Result<Taken> {
        let stored = self.stored_schema(resumed).await?;
        let schema = match self.schema_of(cql, first, stored.as_deref(), &snapshot).await {
            Ok(schema) => schema,
            Err(error) => {
                tracing::warn!("{}; they can be restored only where they exist", one_line(&error));
                stored.is_none().then(|| first.clone())
            }
        };
        Ok(Taken { snapshot, reused: true, tables: Vec::new(), schema })
    }

    /// The schema, read again if it has changed.
    async fn schema_since(cql: &Cql, first: &Schema) -> Result<Schema, Failure> {
        if facts::schema_version(cql).await? == first.version { Ok(first.clone()) } else { facts::schema(cql).await }
    }

    /// With internals, of the run that this one continues.
    async fn stored_schema(&self, resumed: bool) -> anyhow::Result<Option<String>> {
        if !resumed {
            return Ok(None);
        }
        self.context.storage.meta_text(&self.context.fqdn, &self.options.name, Meta::SchemaInternals).await
    }

    /// The schema that describes every table of the snapshot: a table may have been dropped right after it was taken. `None`: the
    /// one that is stored.
    ///
    /// # Errors
    /// There is none, as tables were both created and dropped at that time.
    async fn schema_of(
        &self,
        cql: &Cql,
        first: &Schema,
        stored: Option<&str>,
        snapshot: &Snapshot,
    ) -> anyhow::Result<Option<Schema>> {
        let held = snapshot.held()?;
        let describes = |internals: &str| Schema::lacking(internals, &held).is_empty();
        if stored.is_some_and(describes) {
            return Ok(None);
        }
        let now = Self::schema_since(cql, first).await?;
        if describes(&now.internals) {
            return Ok(Some(now));
        }
        if describes(&first.internals) {
            return Ok(Some(first.clone()));
        }
        let lacking: Vec<_> = Schema::lacking(&now.internals, &held).into_iter().map(ToString::to_string).collect();
        let count = units::counted(lacking.len() as u64, "table");
        Err(Failure::failed(format!("the schema of the node lacks {count} of the snapshot {}", snapshot.tag()))
            .details(lacking)
            .hint("the same command, run again, takes another snapshot")
            .into())
    }

    /// Whether a coordinator took it with those of other nodes: one of them began this backup at its time, or since. It is kept
    /// until it is this node's turn, which may be hours later.
    async fn is_of_cluster(&self, snapshot: &Snapshot) -> anyhow::Result<bool> {
        let taken = snapshot.taken()?.checked_sub(FRESH).unwrap_or(SystemTime::UNIX_EPOCH);
        let taken = chrono::DateTime::<chrono::Utc>::from(taken).timestamp();
        let entries = self.context.storage.index_entries().await?;
        Ok(entries.iter().any(|entry| {
            entry.name == self.options.name
                && entry.fqdn != self.context.fqdn
                && matches!(entry.kind, IndexKind::Started(at) if at >= taken)
        }))
    }

    /// Stores the schema that belongs to the snapshot, if it is not the one that was stored first.
    async fn settle_schema(&self, first: &Schema, taken: &Taken, resumed: bool) -> anyhow::Result<()> {
        let Some(schema) = &taken.schema else { return Ok(()) };
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        if schema.version != first.version
            || (resumed && storage.meta_text(fqdn, name, Meta::Schema).await?.as_ref() != Some(&schema.plain))
        {
            return self.storing().writing().replace_schema(schema).await;
        }
        Ok(())
    }

    /// The files of the snapshot.
    async fn tables(&self, taken: &Taken) -> anyhow::Result<Vec<SnapshotTable>> {
        let (snapshot, required) = (taken.snapshot.clone(), taken.tables.clone());
        let walk = move || {
            let tables = snapshot.tables()?;
            // Somebody may clear it at any time. What goes from now on is missed when it is read.
            snapshot.check(&required)?;
            anyhow::Ok(tables)
        };
        tokio::task::spawn_blocking(walk).await?
    }

    /// A snapshot that we took goes in any case. One that was handed to us goes when it is stored: it cannot be taken again.
    async fn clear(&self, snapshot: &Snapshot, stored: bool) -> anyhow::Result<()> {
        if self.options.keep_snapshot || (self.options.use_existing_snapshot && !stored) {
            return Ok(());
        }
        snapshot.clear(&self.nodetool).await
    }
}

/// A snapshot, and whether it was there before this run.
#[derive(Debug)]
struct Taken {
    snapshot: Snapshot,
    reused: bool,
    /// Those that must be in it.
    tables: Vec<LiveTable>,
    /// That describes all of its tables. `None`: the one that is stored does.
    schema: Option<Schema>,
}

/// Tables that a snapshot of the whole node must hold.
async fn required_tables(cql: &Cql) -> Result<Vec<LiveTable>, Failure> {
    let excluded = |table: &LiveTable| facts::EXCLUDED_KEYSPACES.contains(&table.keyspace.as_str());
    Ok(facts::live_tables(cql).await?.into_iter().filter(|table| !excluded(table)).collect())
}

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

use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::report::{BackupOutcome, DryRun};
use self::store::{Begun, Storing};
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
use crate::storage::layout::Meta;
use crate::storage::lease::Lease;

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
            let at = units::local_time(backup.started);
            context.monitor.title(&format!("  continues the backup that was started {at}"));
        }
        let existing = if options.use_existing_snapshot { Some(self.existing_snapshot()?) } else { None };
        let _marker = marker::InProgress::set();
        let cql = context.cql(&self.yaml).await?;
        let (facts, schema) = context.interrupt.or(self.gather(&cql)).await?;
        let lease = context.interrupt.or(self.storing().lease()).await?;
        let outcome = self.run_under(&lease, &cql, (&facts, &schema), existing, begin).await;
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
        let Begun { started, resumed } = context.interrupt.or(self.storing().begin(facts, schema)).await?;
        let mut waited = Duration::ZERO;
        if let Some(patience) = options.stagger {
            let waiting = Instant::now();
            let turn = stagger::wait_for_turn(context, facts, &options.name, patience);
            context.interrupt.or(turn).await?;
            waited = waiting.elapsed();
        }
        context
            .interrupt
            .or(async {
                self.wait_for_nodetool().await;
                anyhow::Ok(())
            })
            .await?;
        let snapshot = match existing {
            Some(snapshot) => Taken { snapshot, reused: true, tables: Vec::new() },
            None => self.take_snapshot(cql, resumed).await?,
        };
        let work = async {
            // Waiting for the turn and the snapshot may have taken hours.
            lease.confirm().await?;
            self.settle_schema(cql, schema, &snapshot, resumed).await?;
            self.storing().store(lease, self.tables(&snapshot).await?).await
        };
        let committed = match context.interrupt.or(work).await {
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
        cleared?;
        Ok(BackupOutcome { waited, ..outcome })
    }

    /// Does what a run that was killed after the commit did not come to.
    ///
    /// # Errors
    /// There is nothing to do: the name is taken.
    async fn tidy_up(&self, backup: &NodeBackup, begin: Instant) -> anyhow::Result<BackupOutcome> {
        let (context, options) = (self.context, self.options);
        if self.storing().is_published().await? {
            return Err(store::exists_already(backup).into());
        }
        let at = units::local_time(backup.finished.unwrap_or_default());
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

    /// The nodetool of a run that was killed goes on.
    async fn wait_for_nodetool(&self) {
        if let Some(folder) = self.yaml.data_directories.first() {
            self.nodetool.wait_for_others(folder).await;
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
            // The node itself goes on with the snapshot of a nodetool that was killed.
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
            return self.storing().writing().replace_schema(&facts::schema(cql).await?).await;
        }
        let (storage, fqdn, name) = (&self.context.storage, &self.context.fqdn, &self.options.name);
        if resumed && storage.meta_text(fqdn, name, Meta::Schema).await?.as_ref() != Some(&first.plain) {
            return self.storing().writing().replace_schema(first).await;
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
}

/// Tables that a snapshot of the whole node must hold.
async fn required_tables(cql: &Cql) -> Result<Vec<LiveTable>, Failure> {
    let excluded = |table: &LiveTable| facts::EXCLUDED_KEYSPACES.contains(&table.keyspace.as_str());
    Ok(facts::live_tables(cql).await?.into_iter().filter(|table| !excluded(table)).collect())
}

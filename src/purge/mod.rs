//! Deleting backups: by name, and by age and number with everything that no backup needs any more.
//!
//! A purge handles one node after the other. It reads the manifests of all backups that stay, then lists the pool: what no
//! manifest names and what is older than the grace period may go. Whether the storage lets them go is tried first, so that no
//! manifest is removed for files that stay. The backups go first, one by one; then the node is looked at again, and only if no backup was begun or finished since the manifests were read, the objects of the pool go.
//!
//! What is not known is not deleted: if the manifest of one backup of the node that the index calls finished is missing, or one cannot be used, or if the storage
//! answers anything but "found" or "not there", the pool stays as it is.

pub mod bucket;
pub mod decommissioned;
pub mod delete;
#[cfg(test)]
pub(crate) mod made;
pub mod pool;
pub mod report;
pub mod retention;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;

use self::bucket::Bucket;
use self::delete::{BATCH, DeletePlan};
use self::pool::{Named, PoolState};
use self::retention::{Candidate, DAY, Keep, Policy, Verdict, decide};
use crate::context::Context;
use crate::error::one_line;
use crate::model::backups::BackupMode;
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::counted;
use crate::monitor::{Amount, Counters};
use crate::storage::backups::MetaState;
use crate::storage::layout::{IndexEntry, IndexKind, Meta, ObjectKey, Spot};
use crate::storage::lease::{Lease, Work};
use crate::storage::{self, Storage, StorageError};

/// An unfinished backup that was begun less than so many seconds ago may be running, whatever the grace period is: one of
/// cassandra-medusa takes no lease. What it takes over from the pool may be old, and no manifest names it yet.
const MAY_RUN: i64 = DAY;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PurgeOptions {
    pub policy: Policy,
    pub dry_run: bool,
}

/// What a command that deletes holds of a node while it works.
#[derive(Debug)]
pub struct Hold<'a> {
    /// The storage's own time.
    pub now: DateTime<Utc>,
    lease: Option<&'a Lease>,
}

impl Hold<'_> {
    /// Fails unless nobody else has taken over.
    pub async fn confirm(&self) -> anyhow::Result<()> {
        match self.lease {
            Some(lease) => lease.confirm().await,
            None => Ok(()),
        }
    }
}

/// Works on a node under its lease, which keeps backups and other deletions away. What is read of the node for a decision is
/// read inside. With `dry_run` nothing is written: no lease, and the time is that of this host.
///
/// # Errors
/// The node must be left alone, or what the work fails with.
pub async fn hold<T>(
    context: &Context,
    fqdn: &Fqdn,
    work: Work,
    dry_run: bool,
    job: impl AsyncFnOnce(&Hold<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if dry_run {
        return job(&Hold { now: context.now.with_timezone(&Utc), lease: None }).await;
    }
    let lease = context.interrupt.or(context.storage.lease(fqdn, work, None)).await?;
    let outcome = match lease.time().await {
        Ok(now) => job(&Hold { now, lease: Some(&lease) }).await,
        Err(error) => Err(error),
    };
    lease.release().await;
    outcome
}

/// One backup of a node, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub name: BackupName,
    pub mode: BackupMode,
    /// Unix seconds.
    pub started: i64,
    pub finished: Option<i64>,
    pub verdict: Verdict,
    /// What goes with it: its own folder, index entries and summary. Nothing for one that stays.
    pub amount: Amount,
}

impl Judged {
    pub fn goes(&self) -> bool {
        matches!(self.verdict, Verdict::Delete(_))
    }

    /// It stays so that there is one to restore.
    fn is_last_resort(&self) -> bool {
        let Verdict::Keep(reasons) = &self.verdict else { return false };
        reasons.iter().any(|reason| matches!(reason, Keep::Newest | Keep::NewestComplete))
    }
}

/// What is left of a backup that was deleted, or never began to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub name: BackupName,
    pub amount: Amount,
    /// Younger than the grace period: it stays.
    pub young: bool,
}

/// What becomes of the pool.
#[derive(Debug, PartialEq, Eq)]
pub enum PoolPlan {
    Sweep(PoolState),
    /// A backup is unfinished and may be running. Nothing is wrong.
    Wait(BackupName),
    /// What the manifests name is not known, for these reasons.
    Refuse(Vec<String>),
}

/// Everything that a purge does to one node.
#[derive(Debug)]
pub struct NodePlan {
    pub fqdn: Fqdn,
    /// By start time.
    pub backups: Vec<Judged>,
    pub orphans: Vec<Orphan>,
    pub pool: PoolPlan,
    /// The folders of backups as they were when the manifests were read.
    seen: Vec<MetaState>,
}

/// What was done to a node.
#[derive(Debug)]
pub struct NodeOutcome {
    pub plan: NodePlan,
    /// Backups and orphans that went.
    pub gone: BTreeSet<BackupName>,
    /// Of backups and orphans.
    pub deleted: Amount,
    /// Of the pool.
    pub swept: Amount,
    /// Why it came to an early end.
    pub stopped: Option<String>,
    /// It was the storage that stopped it.
    pub storage_failed: bool,
}

impl NodeOutcome {
    /// Backups that went, without orphans.
    pub fn deleted_backups(&self) -> usize {
        self.plan.goes().filter(|backup| self.gone.contains(&backup.name)).count()
    }
}

impl NodePlan {
    pub async fn gather(
        context: &Context,
        bucket: &Bucket,
        fqdn: &Fqdn,
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let storage = &context.storage;
        let seen = storage.backup_folders(fqdn).await?;
        let without_lease = without_lease(storage, &seen, now.timestamp()).await?;
        let mut backups = judge(bucket, &seen, &without_lease, policy, now.timestamp());
        let (mut named, mut refusals) = (Named::default(), Vec::new());
        let (mut read, mut unusable) = (BTreeSet::new(), BTreeSet::new());
        if let Some(hidden) = hidden_backup(storage, bucket, fqdn, &seen).await? {
            refusals.push(format!("backup {hidden} exists, and the listing does not show it: the storage is behind"));
        }
        let mut unread = names_of_manifests(bucket, fqdn, &seen);
        // Those of backups that go are read only if somebody needs them.
        let will_be_read = |name: &&BackupName| backups.iter().all(|backup| backup.name != **name || !backup.goes());
        let reading = context.monitor.count("manifests", unread.iter().filter(will_be_read).count());
        loop {
            let goes: BTreeSet<_> = backups.iter().filter(|backup| backup.goes()).map(|backup| &backup.name).collect();
            let (later, stay): (BTreeSet<_>, BTreeSet<_>) = unread.into_iter().partition(|name| goes.contains(name));
            if stay.is_empty() {
                break;
            }
            refusals.extend(read_manifests(storage, fqdn, &stay, &mut named, &mut unusable, &reading.counters).await?);
            read.extend(stay);
            keep_one_to_restore(&mut backups, &read, &unusable);
            // One that stays because of what was read brings its own manifest along.
            for backup in backups.iter_mut().filter(|backup| backup.goes()) {
                if let Some(other) = named.in_folder_of(&backup.name) {
                    backup.verdict = Verdict::Keep(vec![Keep::NamedBy(other.to_string())]);
                }
            }
            unread = later;
        }
        // One bar at a time.
        drop(reading);
        for backup in backups.iter_mut().filter(|backup| backup.goes()) {
            backup.amount = DeletePlan::gather(storage, &backup.name, fqdn).await?.amount;
        }
        let grace = policy.retention.backup_grace_period_in_days;
        let pool = if !refusals.is_empty() {
            PoolPlan::Refuse(refusals)
        } else if let Some(running) = may_run(&seen, &backups, &without_lease) {
            PoolPlan::Wait(running)
        } else {
            PoolPlan::Sweep(PoolState::list(storage, fqdn, &named, grace, now).await?)
        };
        let orphans = orphans(storage, bucket, fqdn, &seen, &named, grace, now.timestamp()).await?;
        Ok(Self { fqdn: fqdn.clone(), backups, orphans, pool, seen })
    }

    pub fn goes(&self) -> impl Iterator<Item = &Judged> {
        self.backups.iter().filter(|backup| backup.goes())
    }

    /// Backups and orphans that go.
    fn names_to_delete(&self) -> Vec<BackupName> {
        let orphans = self.orphans.iter().filter(|orphan| !orphan.young).map(|orphan| &orphan.name);
        self.goes().map(|backup| &backup.name).chain(orphans).cloned().collect()
    }

    /// Deletes what the plan says.
    ///
    /// # Errors
    /// Only signals. What goes wrong is told in the outcome, with what had been done before.
    pub async fn execute(mut self, context: &Context, hold: &Hold<'_>) -> anyhow::Result<NodeOutcome> {
        let (mut gone, mut deleted, mut swept) = (BTreeSet::new(), Amount::default(), Amount::default());
        let garbage = match &mut self.pool {
            PoolPlan::Sweep(state) => std::mem::take(&mut state.garbage),
            PoolPlan::Wait(_) | PoolPlan::Refuse(_) => Vec::new(),
        };
        let work = async {
            let names = self.names_to_delete();
            self.expect_permission(&context.storage, &names, &garbage).await?;
            let shown = context.monitor.count("backups", names.len());
            for name in names {
                context.interrupt.check()?;
                hold.confirm().await?;
                if let Some(change) = self.changed_itself(&context.storage, &name).await? {
                    return Ok(Some(change));
                }
                let plan = DeletePlan::gather(&context.storage, &name, &self.fqdn).await?;
                let amount = plan.amount;
                plan.execute(&context.storage, || hold.confirm()).await?;
                gone.insert(name);
                deleted.files += amount.files;
                deleted.bytes += amount.bytes;
                shown.counters.add_file();
            }
            // One bar at a time.
            drop(shown);
            self.sweep(context, hold, garbage, &mut swept).await
        };
        let (stopped, storage_failed) = match work.await {
            Ok(stopped) => (stopped, false),
            Err(_) if context.interrupt.is_raised() => return Err(context.interrupt.failure().into()),
            Err(error) => (Some(one_line(&error)), StorageError::is_cause_of(&error)),
        };
        Ok(NodeOutcome { plan: self, gone, deleted, swept, stopped, storage_failed })
    }

    /// Fails unless everything may be deleted, before the first manifest goes: the pool, too, for which the manifests of
    /// differentials go.
    async fn expect_permission(
        &self,
        storage: &Storage,
        names: &[BackupName],
        garbage: &[(ObjectKey, u64)],
    ) -> anyhow::Result<()> {
        let (fqdn, layout) = (&self.fqdn, storage.layout());
        let goes = |mode| self.goes().any(|backup| backup.mode == mode);
        if !names.is_empty() {
            let entry = |name| layout.index_entry(name, fqdn, IndexKind::Manifest);
            let keys: Vec<_> =
                names.iter().flat_map(|name| [layout.meta(fqdn, name, Meta::Manifest), entry(name)]).collect();
            let has_data = goes(BackupMode::Full) || names.len() > self.goes().count();
            delete::expect_permission(storage, fqdn, has_data, &keys).await?;
        }
        if !garbage.is_empty() || goes(BackupMode::Differential) {
            let keys = garbage.iter().map(|(key, _)| key);
            storage.expect_deletable([Spot::Pool(fqdn)], keys).await.context(delete::NOTHING_DELETED)?;
        }
        Ok(())
    }

    /// Deletes garbage of the pool. Returns why it was stopped.
    async fn sweep(
        &self,
        context: &Context,
        hold: &Hold<'_>,
        garbage: Vec<(ObjectKey, u64)>,
        swept: &mut Amount,
    ) -> anyhow::Result<Option<String>> {
        let transfer = context.monitor.transfer("delete", garbage.iter().map(|(_, size)| *size).sum());
        let mut garbage = garbage.into_iter().peekable();
        while garbage.peek().is_some() {
            context.interrupt.check()?;
            hold.confirm().await?;
            if let Some(change) = self.changed(&context.storage).await? {
                return Ok(Some(change));
            }
            let (keys, sizes): (Vec<_>, Vec<_>) = garbage.by_ref().take(BATCH).unzip();
            context.storage.delete(keys).await?;
            for size in sizes {
                swept.add(size);
                transfer.counters.add_file();
                transfer.counters.add_bytes(size);
            }
        }
        Ok(None)
    }

    /// What happened to a backup or orphan since it was decided that it goes.
    async fn changed_itself(&self, storage: &Storage, name: &BackupName) -> storage::Result<Option<String>> {
        let state = storage.meta_state(&self.fqdn, name).await?;
        let known = self.seen.contains(&state) || state.is_rest();
        Ok((!known).then(|| format!("backup {name} was changed meanwhile; it was not deleted")))
    }

    /// What happened to the node since its manifests were read and could mean that garbage is needed again.
    async fn changed(&self, storage: &Storage) -> storage::Result<Option<String>> {
        let gone: BTreeSet<_> = self.goes().map(|backup| &backup.name).collect();
        for state in storage.backup_folders(&self.fqdn).await? {
            let known = self.seen.contains(&state) && !gone.contains(&state.name);
            if !known && !state.is_rest() {
                let what = if state.manifest.is_some() { "finished" } else { "begun" };
                return Ok(Some(format!("backup {} was {what} meanwhile; its pool was left alone", state.name)));
            }
        }
        Ok(None)
    }
}

/// The verdicts about all backups of a node, by start time.
fn judge(
    bucket: &Bucket,
    seen: &[MetaState],
    without_lease: &BTreeSet<BackupName>,
    policy: &Policy,
    now: i64,
) -> Vec<Judged> {
    let (states, candidates): (Vec<_>, Vec<_>) =
        seen.iter().filter_map(|state| Some((state, bucket.candidate(state, without_lease)?))).unzip();
    let verdicts = decide(&candidates, policy, now);
    let judged = |((state, candidate), verdict): ((&MetaState, Candidate), Verdict)| Judged {
        name: state.name.clone(),
        mode: state.mode,
        started: candidate.started,
        finished: candidate.finished,
        verdict,
        amount: Amount::default(),
    };
    let mut judged: Vec<_> = states.into_iter().zip(candidates).zip(verdicts).map(judged).collect();
    judged.sort_by(|a, b| (a.started, &a.name).cmp(&(b.started, &b.name)));
    judged
}

/// A newest backup that cannot be restored does not stand for one that can: then the next one stays, too, and is read.
fn keep_one_to_restore(backups: &mut [Judged], read: &BTreeSet<BackupName>, unusable: &BTreeSet<BackupName>) {
    let is_kept_in_vain = |backup: &Judged| backup.is_last_resort() && unusable.contains(&backup.name);
    // One that lost its manifest stays, too, and was not read.
    let is_usable = |backup: &Judged| {
        let was_read = backup.finished.is_some() && read.contains(&backup.name);
        !backup.goes() && was_read && !unusable.contains(&backup.name)
    };
    if !backups.iter().any(is_kept_in_vain) || backups.iter().any(is_usable) {
        return;
    }
    let next = backups.iter_mut().filter(|backup| backup.goes() && backup.finished.is_some());
    if let Some(next) = next.max_by_key(|backup| backup.finished) {
        next.verdict = Verdict::Keep(vec![Keep::NewestUnusable]);
    }
}

/// The backups of a node that have a manifest, or should have one.
fn names_of_manifests(bucket: &Bucket, fqdn: &Fqdn, seen: &[MetaState]) -> BTreeSet<BackupName> {
    let indexed = bucket.index.get(fqdn).into_iter().flatten();
    let finished = indexed.filter(|(_, entry)| entry.finished).map(|(name, _)| name);
    let there = seen.iter().filter(|state| state.manifest.is_some()).map(|state| &state.name);
    finished.chain(there).cloned().collect()
}

/// Reads manifests one after the other. Returns why the pool cannot be judged. `unusable`: those of which nothing can be restored.
async fn read_manifests(
    storage: &Storage,
    fqdn: &Fqdn,
    backups: &BTreeSet<BackupName>,
    named: &mut Named,
    unusable: &mut BTreeSet<BackupName>,
    counters: &Counters,
) -> anyhow::Result<Vec<String>> {
    let mut refusals = Vec::new();
    for name in backups {
        match storage.manifest(fqdn, name).await {
            Ok(Some(manifest)) => {
                if manifest.sections.is_empty() {
                    unusable.insert(name.clone());
                }
                if let Err(error) = named.add(storage.layout(), fqdn, name, &manifest) {
                    unusable.insert(name.clone());
                    refusals.push(format!("the manifest of {name} names something else: {error}"));
                }
            }
            // The index was read before the lease was ours; the backup may have been deleted since.
            Ok(None) => {
                let entries = entries_of_the_end(storage, fqdn, name).await?;
                if entries.iter().any(|(_, kind)| matches!(kind, IndexKind::Finished(_))) {
                    let copy = entries.into_iter().find(|(_, kind)| *kind == IndexKind::Manifest);
                    let copy = copy.map(|(key, _)| {
                        let manifest = storage.layout().meta(fqdn, name, Meta::Manifest);
                        format!("; {key} is a copy of it, which belongs at {manifest}")
                    });
                    let copy = copy.unwrap_or_default();
                    refusals.push(format!("backup {name} was finished, but its manifest is missing{copy}"));
                }
            }
            Err(error) => {
                unusable.insert(name.clone());
                refusals.push(format!("the manifest of {name} is not readable: {}", one_line(&error)));
            }
        }
        counters.add_file();
    }
    Ok(refusals)
}

/// What the index says of the end of a backup: when it was, and the copy of its manifest.
async fn entries_of_the_end(
    storage: &Storage,
    fqdn: &Fqdn,
    name: &BackupName,
) -> storage::Result<Vec<(ObjectKey, IndexKind)>> {
    let mut found = Vec::new();
    let mut entries = storage.list(&storage.layout().index_of(name));
    while let Some(object) = entries.try_next().await? {
        let entry = storage.layout().parse_index_entry(&object.location).filter(|entry| entry.fqdn == *fqdn);
        if let Some(IndexEntry { kind: kind @ (IndexKind::Finished(_) | IndexKind::Manifest), .. }) = entry {
            found.push((ObjectKey::listed(object.location), kind));
        }
    }
    Ok(found)
}

/// A finished backup that the index or the latest marker names and the listing of the node's folders does not show.
async fn hidden_backup(
    storage: &Storage,
    bucket: &Bucket,
    fqdn: &Fqdn,
    seen: &[MetaState],
) -> anyhow::Result<Option<BackupName>> {
    let indexed = bucket.index.get(fqdn).into_iter().flatten().map(|(name, _)| name.clone());
    let names: BTreeSet<_> = storage.latest_name(fqdn).await?.into_iter().chain(indexed).collect();
    for name in names.into_iter().filter(|name| seen.iter().all(|state| state.name != *name)) {
        if storage.meta_state(fqdn, &name).await?.manifest.is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether a time is so near that an unfinished backup of then may be running.
fn is_near(time: DateTime<Utc>, now: i64) -> bool {
    now.saturating_sub(time.timestamp()) < MAY_RUN
}

/// The unfinished backups that may be running without a lease. Ours, which have one, write a schema with internals.
async fn without_lease(storage: &Storage, seen: &[MetaState], now: i64) -> storage::Result<BTreeSet<BackupName>> {
    let mut names = BTreeSet::new();
    let near = |state: &&MetaState| state.schema.is_some_and(|begun| is_near(begun, now));
    for state in seen.iter().filter(|state| state.manifest.is_none()).filter(near) {
        let internals = storage.layout().meta(&state.fqdn, &state.name, Meta::SchemaInternals);
        if storage.head(&internals).await?.is_none() {
            names.insert(state.name.clone());
        }
    }
    Ok(names)
}

/// An unfinished backup that stays and may be running. One of ours cannot: its lease is ours, and it does not finish without.
fn may_run(seen: &[MetaState], backups: &[Judged], without_lease: &BTreeSet<BackupName>) -> Option<BackupName> {
    let stays = |name: &BackupName| backups.iter().any(|backup| backup.name == *name && !backup.goes());
    let running = |state: &&MetaState| without_lease.contains(&state.name) && stays(&state.name);
    seen.iter().find(running).map(|state| state.name.clone())
}

/// What is left of backups: folders, index entries and summaries without `schema.cql` and manifest. cassandra-medusa deletes no
/// summaries. Backups begin with `schema.cql`, so nothing that is being written looks so.
async fn orphans(
    storage: &Storage,
    bucket: &Bucket,
    fqdn: &Fqdn,
    seen: &[MetaState],
    named: &Named,
    grace_days: u64,
    now: i64,
) -> anyhow::Result<Vec<Orphan>> {
    let rests = seen.iter().filter(|state| state.is_rest()).map(|state| &state.name);
    let folders: BTreeSet<_> = seen.iter().map(|state| &state.name).collect();
    let indexed = bucket.index.get(fqdn).into_iter().flatten();
    let entries = indexed.filter(|(name, entry)| !entry.finished && !folders.contains(name)).map(|(name, _)| name);
    let finished = |name: &BackupName| {
        bucket.index.get(fqdn).and_then(|names| names.get(name)).is_some_and(|entry| entry.finished)
    };
    let is_indexed = |name: &BackupName| bucket.index.get(fqdn).is_some_and(|names| names.contains_key(name));
    let summaries = bucket.summaries.get(fqdn).into_iter().flatten();
    let summaries = summaries.filter(|name| !is_indexed(name) && !folders.contains(name));
    let mut orphans = Vec::new();
    for name in
        rests.chain(entries).chain(summaries).filter(|name| !finished(name) && named.in_folder_of(name).is_none())
    {
        let plan = DeletePlan::gather(storage, name, fqdn).await?;
        if plan.holds_foreign_objects(storage.layout()) {
            continue;
        }
        if let Some(youngest) = plan.youngest {
            let young = retention::is_within(youngest.timestamp(), grace_days, now);
            orphans.push(Orphan { name: name.clone(), amount: plan.amount, young });
        }
    }
    Ok(orphans)
}

/// Plans for one node and carries the plan out.
///
/// # Errors
/// Nothing was deleted, or a signal came.
pub async fn purge_node(
    context: &Context,
    bucket: &Bucket,
    fqdn: &Fqdn,
    options: &PurgeOptions,
) -> anyhow::Result<NodeOutcome> {
    let begin = Instant::now();
    hold(context, fqdn, Work::Purge, options.dry_run, async |hold| {
        let plan = NodePlan::gather(context, bucket, fqdn, &options.policy, hold.now);
        let plan = context.interrupt.or(plan).await?;
        let (stay, all) = (plan.backups.len() - plan.goes().count(), counted(plan.backups.len() as u64, "backup"));
        context.monitor.step("read", &format!("{fqdn}: {stay} of {all} stay"), begin.elapsed());
        if options.dry_run {
            return Ok(NodeOutcome {
                plan,
                gone: BTreeSet::new(),
                deleted: Amount::default(),
                swept: Amount::default(),
                stopped: None,
                storage_failed: false,
            });
        }
        let outcome = plan.execute(context, hold).await?;
        if let Err(error) = context.storage.remove_old_probes(hold.now).await {
            tracing::warn!("{}", one_line(&error.into()));
        }
        Ok(outcome)
    })
    .await
}

#[cfg(test)]
mod tests;

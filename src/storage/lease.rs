//! One writer per node and bucket at a time.
//!
//! A lease is an object that is created conditionally, renewed while its holder works, and deleted when it is done. It is
//! stale when it was not renewed for [`Terms::ttl`], by the clock of the storage, or when its holder ran on this machine and
//! is gone. A stale one is taken over by a conditional update: of two that try, one succeeds.
//!
//! A holder that was suspended may have lost its lease without noticing. So whoever is about to do what cannot be undone asks
//! [`Lease::confirm`] first.
//!
//! A crash leaves the lease. The next command on the same machine sees that its holder is gone; any other one waits until it
//! is stale, or is told to break it.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt as _;
use object_store::{Error, PutMode, PutOptions, UpdateVersion};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::layout::ObjectKey;
pub use super::terms::{Holder, Terms, Work};
use super::{Storage, StorageError};
use crate::error::Failure;
use crate::model::names::{BackupName, Fqdn};
use crate::model::units;
use crate::monitor::Monitor;

/// How long a backup waits for a purge, a deletion or a rebuilt index of its node.
const PATIENCE: Duration = Duration::from_mins(5);

/// Between two attempts of one that waits.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Who is done must not wait for a storage that is silent.
const GIVING_BACK: Duration = Duration::from_secs(20);

/// A storage without any space left does not take a lease, and without one nothing can be deleted.
fn with_way_out(error: anyhow::Error) -> anyhow::Error {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    };
    if !error.chain().any(is_full) {
        return error;
    }
    Failure::failed("the storage is full: there is no space even for a lease")
        .cause(error)
        .hint(
            "remove a folder of index/summaries, which medusa build-index writes again; then medusa purge makes space",
        )
        .into()
}

/// A lease as the storage has it.
#[derive(Debug, Clone)]
pub struct Found {
    pub fqdn: Fqdn,
    /// `None`: it cannot be read, so nobody knows who holds it.
    pub terms: Option<Terms>,
    /// By the storage's clock.
    pub renewed: DateTime<Utc>,
    pub is_stale: bool,
    version: UpdateVersion,
}

impl Found {
    pub fn until(&self) -> DateTime<Utc> {
        self.renewed + self.terms.as_ref().map_or(Terms::TTL, |terms| Duration::from_secs(terms.ttl))
    }

    /// When its holder may have written something. `None`: nobody knows.
    fn at_work(&self) -> Option<Range<DateTime<Utc>>> {
        // That was said by its own clock.
        let since = DateTime::from_timestamp(self.terms.as_ref()?.since, 0)? - TimeDelta::minutes(1);
        Some(since..self.until())
    }

    /// Whether it was written by who has these terms.
    fn is_of(&self, terms: &Terms) -> bool {
        self.terms.as_ref().is_some_and(|found| found.id == terms.id)
    }

    fn failure(&self) -> Failure {
        let fqdn = &self.fqdn;
        let until = units::time(self.until().timestamp());
        let message = match &self.terms {
            Some(terms) => {
                let since = units::time(terms.since);
                format!("{}, since {since}; its lease lasts until {until} unless it is renewed", terms.describe(fqdn))
            }
            None => format!("somebody holds a lease of {fqdn} that cannot be read; it lasts until {until}"),
        };
        Failure::failed(message)
            .hint(format!("wait for it; if that process is gone, medusa leases --break {fqdn} removes its lease"))
    }
}

/// A lease that this process holds.
#[derive(Debug)]
pub struct Lease {
    state: Arc<State>,
    renewal: JoinHandle<()>,
    /// When the holder was at work whose lease was taken over, if one was.
    taken_over: Option<Range<DateTime<Utc>>>,
}

#[derive(Debug)]
struct State {
    storage: Storage,
    fqdn: Fqdn,
    key: ObjectKey,
    terms: Terms,
    version: Mutex<UpdateVersion>,
    is_lost: AtomicBool,
}

/// What came of asking for a lease.
#[derive(Debug)]
enum Asked {
    Ours(Lease),
    Held(Box<Found>),
}

impl Storage {
    /// Takes the lease of a node, or fails with who has it.
    pub async fn lease(&self, fqdn: &Fqdn, work: Work, backup: Option<&BackupName>) -> anyhow::Result<Lease> {
        match self.ask_for_lease(fqdn, work, backup).await? {
            Asked::Ours(lease) => Ok(lease),
            Asked::Held(found) => Err(found.failure().into()),
        }
    }

    /// Takes the lease of a node for a backup. Waits for works that are over soon: a backup that is skipped is missed, and one
    /// that begins a little later is not.
    pub async fn lease_for_backup(
        &self,
        fqdn: &Fqdn,
        backup: &BackupName,
        monitor: &dyn Monitor,
    ) -> anyhow::Result<Lease> {
        self.lease_within(fqdn, backup, monitor, PATIENCE).await
    }

    async fn lease_within(
        &self,
        fqdn: &Fqdn,
        backup: &BackupName,
        monitor: &dyn Monitor,
        patience: Duration,
    ) -> anyhow::Result<Lease> {
        let begin = Instant::now();
        let mut waits_for = None;
        loop {
            let found = match self.ask_for_lease(fqdn, Work::Backup, Some(backup)).await? {
                Asked::Ours(lease) => {
                    if let Some(who) = waits_for {
                        monitor.step("waited", &format!("until it was done: {who}"), begin.elapsed());
                    }
                    return Ok(lease);
                }
                Asked::Held(found) => found,
            };
            let Some(terms) = found.terms.as_ref().filter(|terms| terms.work != Work::Backup) else {
                return Err(found.failure().into());
            };
            if begin.elapsed() >= patience {
                return Err(found.failure().into());
            }
            if waits_for.is_none() {
                let who = terms.describe(fqdn);
                monitor
                    .title(&format!("{who}; the backup waits for that, {} minutes at most", patience.as_secs() / 60));
                waits_for = Some(who);
            }
            tokio::time::sleep(BETWEEN_LOOKS.min(patience)).await;
        }
    }

    async fn ask_for_lease(&self, fqdn: &Fqdn, work: Work, backup: Option<&BackupName>) -> anyhow::Result<Asked> {
        let terms = Terms {
            version: Terms::VERSION,
            id: uuid::Uuid::new_v4().simple().to_string(),
            work,
            backup: backup.map(ToString::to_string),
            holder: Holder::this_process(),
            since: Utc::now().timestamp(),
            ttl: Terms::TTL.as_secs(),
        };
        if !self.is_conditional() {
            tracing::warn!(
                "conditional_create is off in [storage]: medusa looks before it writes, and two commands for {fqdn} that begin in \
                 the same moment are not told apart"
            );
        }
        let key = self.layout().lease(fqdn);
        let content = Bytes::from(serde_json::to_vec(&terms)?);
        // A lease may go between two looks.
        for _ in 0..3 {
            let created = self.put_lease(&key, content.clone(), PutMode::Create).await;
            let created = created.map_err(|error| with_way_out(error.into()))?;
            if let Some(version) = created {
                if self.is_doubtful() {
                    self.expect_refusal(&key, &content).await?;
                }
                return Ok(Asked::Ours(Lease::held(self.clone(), fqdn.clone(), key, terms, version)));
            }
            let Some(found) = self.find_lease(fqdn).await.map_err(with_way_out)? else { continue };
            if found.is_of(&terms) {
                // The answer to the request was lost.
                return Ok(Asked::Ours(Lease::held(self.clone(), fqdn.clone(), key, terms, found.version)));
            }
            if !found.is_stale {
                return Ok(Asked::Held(Box::new(found)));
            }
            let who = found.terms.as_ref().map_or_else(|| "somebody".to_owned(), |terms| terms.describe(fqdn));
            tracing::warn!("the lease of {fqdn} is stale and is taken over; it said: {who}");
            let at_work = found.at_work();
            let mode = PutMode::Update(found.version);
            if let Some(version) = self.put_lease(&key, content.clone(), mode).await? {
                let mut lease = Lease::held(self.clone(), fqdn.clone(), key, terms, version);
                lease.taken_over = at_work;
                return Ok(Asked::Ours(lease));
            }
        }
        Err(Failure::failed(format!("the lease of {fqdn} goes from hand to hand; try again")).into())
    }

    /// Makes sure that the store refuses to create what is there.
    async fn expect_refusal(&self, key: &ObjectKey, content: &Bytes) -> anyhow::Result<()> {
        let wrong = UpdateVersion { e_tag: Some("\"00000000000000000000000000000000\"".into()), version: None };
        if self.put_lease(key, content.clone(), PutMode::Create).await?.is_none()
            && self.put_lease(key, content.clone(), PutMode::Update(wrong)).await?.is_none()
        {
            return Ok(());
        }
        self.delete(vec![key.clone()]).await?;
        Err(Failure::failed(format!("{} overwrites objects although the request forbids it", self.location()))
            .hint("two processes could destroy each other's work there; medusa storage-check tells more. With conditional_create = off in [storage] medusa looks before it writes, which protects as long as one node is backed up by one process at a time")
            .into())
    }

    /// Tries what renews and takes over leases: an update of the known version succeeds, and one of another version does not.
    pub async fn try_update(&self, key: &ObjectKey) -> anyhow::Result<()> {
        let written = self.put_lease(key, Bytes::from_static(b"1"), PutMode::Create).await?;
        let first = written.ok_or_else(|| anyhow::anyhow!("it is there already"))?;
        let renewed = self.put_lease(key, Bytes::from_static(b"2"), PutMode::Update(first.clone())).await?;
        anyhow::ensure!(renewed.is_some(), "an update of the version that is there was refused");
        let late = self.put_lease(key, Bytes::from_static(b"3"), PutMode::Update(first)).await?;
        anyhow::ensure!(late.is_none(), "an object was overwritten although it had been changed");
        Ok(())
    }

    /// The lease of a node. `None`: proven absent. Asks the storage for its time.
    pub async fn find_lease(&self, fqdn: &Fqdn) -> anyhow::Result<Option<Found>> {
        let Some(mut found) = self.look_at_lease(fqdn).await? else { return Ok(None) };
        found.is_stale = found.is_stale || self.time().await? > found.until();
        Ok(Some(found))
    }

    /// The same without writing anything: only one whose holder is known to be gone is called stale.
    pub async fn look_at_lease(&self, fqdn: &Fqdn) -> anyhow::Result<Option<Found>> {
        let key = self.layout().lease(fqdn);
        let Some((meta, content)) = self.read_with_meta(&key).await? else { return Ok(None) };
        let terms = serde_json::from_slice::<Terms>(&content).ok().filter(|terms| terms.version == Terms::VERSION);
        let mut found = Found {
            fqdn: fqdn.clone(),
            terms,
            renewed: meta.last_modified,
            is_stale: false,
            version: UpdateVersion { e_tag: meta.e_tag, version: meta.version },
        };
        found.is_stale = found.terms.as_ref().is_some_and(|terms| terms.holder.is_gone());
        Ok(Some(found))
    }

    /// All leases of the bucket, by node.
    pub async fn leases(&self) -> anyhow::Result<Vec<Found>> {
        let objects: Vec<_> = self.list(&self.layout().leases()).try_collect().await?;
        let mut fqdns: Vec<_> = objects.iter().filter_map(|object| self.layout().lease_of(&object.location)).collect();
        fqdns.sort();
        let mut found = Vec::new();
        for fqdn in fqdns {
            found.extend(self.find_lease(&fqdn).await?);
        }
        Ok(found)
    }

    /// Removes a lease, whoever holds it. Returns whether there was one.
    pub async fn break_lease(&self, fqdn: &Fqdn) -> anyhow::Result<bool> {
        let key = self.layout().lease(fqdn);
        let was_there = self.head(&key).await?.is_some();
        self.delete(vec![key]).await?;
        Ok(was_there)
    }

    /// `None`: the condition was not met.
    async fn put_lease(
        &self,
        key: &ObjectKey,
        content: Bytes,
        mode: PutMode,
    ) -> Result<Option<UpdateVersion>, StorageError> {
        match self.put(key, content, PutOptions::from(mode)).await {
            Ok(put) => Ok(Some(UpdateVersion { e_tag: put.e_tag, version: put.version })),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error("write the lease", key.path())(error)),
        }
    }
}

impl Lease {
    fn held(storage: Storage, fqdn: Fqdn, key: ObjectKey, terms: Terms, version: UpdateVersion) -> Self {
        let version = Mutex::new(version);
        let state = Arc::new(State { storage, fqdn, key, terms, version, is_lost: AtomicBool::new(false) });
        let renewed = Arc::clone(&state);
        let renewal = tokio::spawn(async move {
            while !renewed.is_lost.load(Ordering::SeqCst) {
                tokio::time::sleep(Terms::RENEWAL).await;
                if let Err(error) = renewed.renew().await {
                    tracing::warn!("{}", crate::error::one_line(&error));
                }
            }
        });
        Self { state, renewal, taken_over: None }
    }

    /// Fails unless the lease is still ours. Renews it, so that it stays ours for what comes next.
    pub async fn confirm(&self) -> anyhow::Result<()> {
        self.state.renew().await
    }

    /// When the holder was at work whose lease was taken over. `None`: nobody's was.
    pub fn taken_over(&self) -> Option<Range<DateTime<Utc>>> {
        self.taken_over.clone()
    }

    /// When it was written last, by the clock of the storage.
    pub async fn time(&self) -> anyhow::Result<DateTime<Utc>> {
        let found = self.state.storage.head(&self.state.key).await?;
        found.map(|object| object.last_modified).ok_or_else(|| self.state.lost().into())
    }

    /// Whether it is certain that somebody else has it, or had it since.
    pub fn is_lost(&self) -> bool {
        self.state.is_lost.load(Ordering::SeqCst)
    }

    /// Gives the lease back. What cannot be given back soon becomes stale.
    pub async fn release(mut self) {
        let fqdn = self.state.fqdn.clone();
        if tokio::time::timeout(GIVING_BACK, self.give_back()).await.is_err() {
            let ttl = Terms::TTL.as_secs();
            tracing::warn!("the storage does not answer: the lease of {fqdn} stays, and is stale in {ttl} seconds");
        }
    }

    async fn give_back(&mut self) {
        let state = Arc::clone(&self.state);
        // A renewal that is under way ends first: whether it had its effect would not be known.
        let version = state.version.lock().await;
        self.renewal.abort();
        drop((&mut self.renewal).await);
        drop(version);
        // A full disk does not take a renewal. It is a lease of ours even so.
        let is_ours = match state.renew().await {
            Ok(()) => true,
            Err(_) if self.is_lost() => false,
            Err(_) => state
                .storage
                .look_at_lease(&state.fqdn)
                .await
                .is_ok_and(|found| found.is_some_and(|found| found.is_of(&state.terms))),
        };
        if is_ours && let Err(error) = state.storage.delete(vec![state.key.clone()]).await {
            tracing::warn!("{}", crate::error::one_line(&error.into()));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl State {
    fn lost(&self) -> Failure {
        Failure::failed(format!("the lease of {} was lost to another process", self.fqdn))
            .hint("this process stood still for too long, or its lease was broken; medusa leases shows who has it now")
    }

    async fn renew(&self) -> anyhow::Result<()> {
        let mut version = self.version.lock().await;
        if self.is_lost.load(Ordering::SeqCst) {
            return Err(self.lost().into());
        }
        let content = Bytes::from(serde_json::to_vec(&self.terms)?);
        let mode = PutMode::Update(version.clone());
        let mut renewed = self.storage.put_lease(&self.key, content.clone(), mode).await?;
        if renewed.is_none()
            && let Some(found) = self.storage.look_at_lease(&self.fqdn).await?
            && found.is_of(&self.terms)
        {
            // The answer to an earlier renewal was lost.
            renewed = self.storage.put_lease(&self.key, content, PutMode::Update(found.version)).await?;
        }
        let Some(renewed) = renewed else {
            self.is_lost.store(true, Ordering::SeqCst);
            return Err(self.lost().into());
        };
        *version = renewed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;
    use crate::config::{Config, Overrides};
    use crate::monitor::Silent;
    use crate::storage::provider;

    struct Bucket {
        folder: tempfile::TempDir,
        storage: Storage,
        fqdn: Fqdn,
    }

    fn bucket() -> Bucket {
        let folder = tempfile::tempdir().unwrap();
        let text =
            format!("[storage]\nstorage_provider = local\nbucket_name = b\nbase_path = {}\n", folder.path().display());
        let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
        Bucket { folder, storage: provider::open(&config.storage).unwrap(), fqdn: Fqdn::new("n1").unwrap() }
    }

    impl Bucket {
        async fn take(&self) -> anyhow::Result<Lease> {
            self.storage.lease(&self.fqdn, Work::Backup, Some(&BackupName::new("b1").unwrap())).await
        }

        /// A lease as another process would have written it.
        async fn foreign(&self, change: impl FnOnce(&mut Holder)) {
            let mut holder = Holder::this_process();
            change(&mut holder);
            let (id, since) = ("x".to_owned(), 0);
            let terms = Terms { version: 1, id, work: Work::Purge, backup: None, holder, since, ttl: 120 };
            let key = self.storage.layout().lease(&self.fqdn);
            self.storage.replace(&key, serde_json::to_vec(&terms).unwrap().into()).await.unwrap();
        }

        fn set_age(&self, age: Duration) {
            let file = self.folder.path().join("b/index/leases/n1.json");
            let file = fs_err::OpenOptions::new().append(true).open(file).unwrap();
            file.file().set_modified(SystemTime::now() - age).unwrap();
        }

        fn files(&self) -> usize {
            let below = walkdir::WalkDir::new(self.folder.path().join("b")).into_iter().flatten();
            below.filter(|entry| entry.file_type().is_file()).count()
        }
    }

    #[tokio::test]
    async fn a_lease_keeps_others_out_until_it_is_released() {
        let bucket = bucket();
        let lease = bucket.take().await.unwrap();
        let refused = bucket.take().await.unwrap_err();
        let failure = refused.downcast_ref::<Failure>().unwrap();
        let own = format!("process {} on ", std::process::id());
        assert!(
            failure.message.starts_with(&own) && failure.message.contains("backs up n1 (b1), since"),
            "{failure:?}"
        );
        assert!(failure.hint.as_ref().unwrap().contains("medusa leases --break n1"));
        let other = Fqdn::new("n10").unwrap();
        bucket.storage.lease(&other, Work::Backup, None).await.unwrap().release().await;
        lease.confirm().await.unwrap();
        lease.release().await;
        assert_eq!(bucket.files(), 0);
        bucket.take().await.unwrap().release().await;
    }

    #[tokio::test]
    async fn the_lease_of_a_process_of_this_machine_that_is_gone_is_taken_over_at_once() {
        let bucket = bucket();
        bucket.foreign(|holder| holder.started = "1".into()).await;
        bucket.take().await.unwrap().release().await;
        // Nothing is known of processes elsewhere.
        for change in [
            (|holder: &mut Holder| holder.boot = "other".into()) as fn(&mut Holder),
            |holder| holder.pid_namespace = "other".into(),
            |holder| holder.host = "other".into(),
        ] {
            bucket.foreign(change).await;
            assert!(bucket.take().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_lease_that_is_not_renewed_becomes_stale_by_the_clock_of_the_storage() {
        let bucket = bucket();
        bucket.foreign(|holder| holder.boot = "other".into()).await;
        bucket.set_age(Duration::from_secs(100));
        assert!(bucket.take().await.is_err());
        bucket.set_age(Duration::from_secs(130));
        assert!(bucket.storage.leases().await.unwrap()[0].is_stale);
        bucket.take().await.unwrap().release().await;
        assert_eq!(bucket.files(), 0);
    }

    #[tokio::test]
    async fn a_backup_waits_for_a_purge_and_not_for_a_backup() {
        let bucket = bucket();
        let name = BackupName::new("b1").unwrap();
        let take = |patience| bucket.storage.lease_within(&bucket.fqdn, &name, &Silent, patience);
        bucket.foreign(|holder| holder.boot = "other".into()).await;
        assert!(take(Duration::ZERO).await.is_err());
        let released = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bucket.storage.break_lease(&bucket.fqdn).await.unwrap();
        };
        let (lease, ()) = tokio::join!(take(PATIENCE), released);
        // The next one would wait for ever.
        let refused = take(Duration::MAX).await.unwrap_err();
        assert!(refused.to_string().contains("backs up n1 (b1)"), "{refused}");
        lease.unwrap().release().await;
    }

    #[tokio::test]
    async fn a_lease_that_cannot_be_read_counts_until_it_is_stale() {
        let bucket = bucket();
        let key = bucket.storage.layout().lease(&bucket.fqdn);
        bucket.storage.replace(&key, Bytes::from_static(b"{")).await.unwrap();
        assert!(bucket.take().await.unwrap_err().to_string().contains("cannot be read"));
        bucket.set_age(Duration::from_secs(130));
        bucket.take().await.unwrap().release().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_that_take_over_one_succeeds() {
        for _ in 0..20 {
            let bucket = Arc::new(bucket());
            bucket.foreign(|holder| holder.started = "1".into()).await;
            let tasks = (0..8).map(|_| {
                let bucket = Arc::clone(&bucket);
                tokio::spawn(async move { bucket.take().await.ok() })
            });
            let taken = futures::future::join_all(tasks).await.into_iter().filter_map(Result::unwrap);
            let taken: Vec<_> = taken.collect();
            assert_eq!(taken.len(), 1);
            taken[0].confirm().await.unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_lost_the_lease_notices_and_leaves_the_next_one_alone() {
        let bucket = bucket();
        let lost = bucket.take().await.unwrap();
        assert!(bucket.storage.break_lease(&bucket.fqdn).await.unwrap());
        assert!(!bucket.storage.break_lease(&bucket.fqdn).await.unwrap());
        let next = bucket.take().await.unwrap();
        assert!(lost.confirm().await.unwrap_err().to_string().contains("was lost"));
        lost.release().await;
        next.confirm().await.unwrap();
    }
}

//! Tries on the operator's own bucket everything that medusa does with one: below a folder of its own, which is removed again,
//! and what may be written and deleted also where commands do so (`spots.rs`).
//!
//! A probe that fails does not end the check. What depends on it is left out, and the report says which commands lack what. A
//! crash leaves small objects; the next check and the next purge remove them.

pub mod report;
pub mod roles;
mod spots;

use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;

use self::report::{Outcome, Probe, Report};
use self::roles::Role;
use crate::context::Context;
use crate::error::one_line;
use crate::model::units;
use crate::storage::layout::{ObjectKey, Pool, Spot};
use crate::storage::transfer::SourceFile;
use crate::storage::uploads::Abandoned;
use crate::storage::{Created, Storage};

/// Bytes of the file that is uploaded and downloaded. Two parts.
const FILE: usize = 12 << 20;
const PART: u64 = 6 << 20;

/// More difference than that, and AWS refuses signatures.
pub const CLOCK_LIMIT: i64 = 300;

/// What is older was left by a check that was killed.
const LEFT: TimeDelta = TimeDelta::hours(1);

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Requests of a few bytes.
    Small,
    /// A file of some size too, and how fast it moves.
    All,
}

/// Runs the probes, or those for one role.
///
/// # Errors
/// Only what keeps it from running at all: interrupts, and this node's own disk.
pub async fn run(context: &Context, extent: Extent, role: Option<Role>) -> anyhow::Result<Report> {
    let folder = uuid::Uuid::new_v4().simple().to_string();
    let mut check = Check { context, storage: &context.storage, extent, role, folder, probes: Vec::new() };
    let report = Box::pin(context.interrupt.or(check.all())).await;
    let cleaned = check.clean(report.is_err()).await;
    if let Err(error) = cleaned {
        tracing::warn!("what the check wrote could not be removed: {}", one_line(&error));
    }
    let mut report = report?;
    report.probes = check.probes;
    Ok(report)
}

struct Check<'a> {
    context: &'a Context,
    storage: &'a Storage,
    extent: Extent,
    role: Option<Role>,
    /// Of this check.
    folder: String,
    probes: Vec<Probe>,
}

impl Check<'_> {
    fn key(&self, name: &str) -> ObjectKey {
        self.storage.layout().check(&self.folder, name)
    }

    async fn probe<T>(
        &mut self,
        what: &'static What,
        work: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> Option<T> {
        let begin = Instant::now();
        let (outcome, value) = match work.await {
            Ok((value, detail)) => (Outcome::Ok(detail), Some(value)),
            Err(error) => (Outcome::Failed(one_line(&error)), None),
        };
        self.probes.push(Probe { what, outcome, took: begin.elapsed() });
        value
    }

    fn leave_out(&mut self, what: &'static What, why: &str) {
        self.probes.push(Probe { what, outcome: Outcome::LeftOut(why.to_owned()), took: Duration::ZERO });
    }

    /// Whether the role needs it that is asked for.
    fn wants(&self, what: &What) -> bool {
        self.role.is_none_or(|role| role.needs_probe(what))
    }

    async fn all(&mut self) -> anyhow::Result<Report> {
        let storage = self.storage.clone();
        let mut report = Report::of(&storage, self.role);
        let root = storage.layout().checks();
        let stored = self
            .probe(&LIST, async {
                let earlier: Vec<_> = storage.list(&root).try_collect().await?;
                storage.folders(&storage.layout().root()).await?;
                Ok((some_stored(&storage).await?, format!("{} found of earlier checks", earlier.len())))
            })
            .await
            .unwrap_or_default();
        if self.role == Some(Role::Reader) {
            self.read_stored(&stored).await;
            return Ok(report);
        }
        let key = self.key("small");
        let written = self
            .probe(&WRITE, async {
                storage.replace(&key, Bytes::from_static(b"medusa")).await?;
                Ok(((), String::new()))
            })
            .await;
        if written.is_none() {
            self.read_stored(&stored).await;
            let files: &[_] = if self.extent == Extent::All { &[&PARTS, &DOWNLOAD] } else { &[] };
            let unfinished: &[_] = if storage.has_unfinished_uploads() { &[&UNFINISHED] } else { &[] };
            for what in [&[&CREATE, &LEASE], files, &[&SHOWN], unfinished, &[&DELETE], &spots::PROBES].concat() {
                self.leave_out(what, "nothing can be written");
            }
            return Ok(report);
        }
        let seen = self
            .probe(&READ, async {
                let content = storage.read(&key).await?;
                anyhow::ensure!(content.as_deref() == Some(b"medusa"), "it is not what was written");
                let found = storage.head(&key).await?;
                let found = found.ok_or_else(|| anyhow::anyhow!("it is not there"))?;
                let detail = read_all(&storage, &stored).await?;
                Ok((found, detail))
            })
            .await;
        report.clock_difference = seen.as_ref().map(|found| (found.last_modified - Utc::now()).num_seconds());
        self.probe(&CREATE, refused_create(&storage, &key)).await;
        let lease = self.key("lease");
        self.probe(&LEASE, async {
            storage.try_update(&lease).await?;
            Ok(((), String::new()))
        })
        .await;
        self.probe(&RANGE, async {
            let part = storage.read_range(&key, 2..5).await?;
            anyhow::ensure!(&*part == b"dus", "it is not the part that was asked for");
            Ok(((), String::new()))
        })
        .await;
        if self.extent == Extent::All && self.role != Some(Role::Janitor) {
            self.files(&mut report).await?;
        }
        self.probe(&SHOWN, async {
            let found: Vec<_> = storage.list(&root).try_collect().await?;
            anyhow::ensure!(found.iter().any(|object| object.location == *key.path()), "the listing is behind");
            Ok(((), String::new()))
        })
        .await;
        if storage.has_unfinished_uploads() && self.role != Some(Role::Janitor) {
            let unfinished = self.key("unfinished");
            self.probe(&UNFINISHED, async {
                if let Some(aborted) = storage.try_upload(&unfinished).await? {
                    aborted?;
                }
                // Another check may be uploading at this moment.
                storage.abort_unfinished_uploads(&root, &Abandoned::older_than(LEFT)).await?;
                Ok(((), String::new()))
            })
            .await;
        }
        let absent_lease = storage.layout().probe(Spot::Leases, &self.folder);
        self.probe(&DELETE, async {
            storage.delete(vec![key.clone()]).await?;
            anyhow::ensure!(storage.head(&key).await?.is_none(), "it is still there");
            // What each command writes and deletes to learn the time, and where its lease is.
            storage.time().await?;
            storage.delete(vec![absent_lease]).await?;
            Ok(((), String::new()))
        })
        .await;
        self.spots().await;
        report.latency = self.latency();
        Ok(report)
    }

    /// Reads what is there, for who may not write.
    async fn read_stored(&mut self, stored: &[ObjectMeta]) {
        let storage = self.storage.clone();
        let absent = self.key("absent");
        self.probe(&READ, async {
            // Whoever may not read is not told that an object is not there.
            storage.read(&absent).await?;
            Ok(((), read_all(&storage, stored).await?))
        })
        .await;
        match stored.iter().find(|object| object.size > 0) {
            Some(object) => drop(
                self.probe(&RANGE, async {
                    let part = storage.read_range(&ObjectKey::listed(object.location.clone()), 0..1).await?;
                    anyhow::ensure!(part.len() == 1, "it is not the part that was asked for");
                    Ok(((), String::new()))
                })
                .await,
            ),
            None => self.leave_out(&RANGE, "there is no backup to be read"),
        }
    }

    /// Uploads and downloads a file in parts, and has the second upload refused.
    async fn files(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let storage = self.storage.clone();
        let scratch = tempfile::tempdir()?;
        let source = |name: &str, fill: u8| {
            let path = scratch.path().join(name);
            // Not all the same: a store may compress.
            let at = |at: usize| fill ^ at.wrapping_mul(2_654_435_761).to_le_bytes()[2];
            let content: Vec<u8> = (0..FILE).map(at).collect();
            fs_err::write(&path, content)?;
            let mtime = crate::files::mtime(&fs_err::metadata(&path)?);
            anyhow::Ok(SourceFile { path, size: FILE as u64, mtime })
        };
        let (first, second) = (source("first", 0)?, source("second", 1)?);
        let key = self.key("file");
        let watch = self.context.watch(&std::sync::Arc::default());
        let begin = Instant::now();
        let uploaded = self
            .probe(&PARTS, async {
                let upload = storage.upload_in_parts(&first, &key, PART, &watch).await?;
                anyhow::ensure!(upload.created == Created::New, "it was there already");
                let took = begin.elapsed();
                let again = storage.upload_in_parts(&second, &key, PART, &watch).await?;
                anyhow::ensure!(again.created == Created::Taken, "{OVERWRITTEN}");
                Ok(((upload.digest, took), String::new()))
            })
            .await;
        let Some((digest, took)) = uploaded else {
            self.leave_out(&DOWNLOAD, "nothing was uploaded");
            return Ok(());
        };
        report.upload = Some(rate(took));
        let begin = Instant::now();
        let downloaded = self
            .probe(&DOWNLOAD, async {
                let found = storage.digest_object(&key, None, &watch).await?;
                anyhow::ensure!(found.sha256 == digest.sha256, "its SHA-256 is not that of the file");
                Ok(((), String::new()))
            })
            .await;
        report.download = downloaded.map(|()| rate(begin.elapsed()));
        Ok(())
    }

    /// Of the small requests that went well.
    fn latency(&self) -> Option<Duration> {
        let small = [&WRITE, &RANGE, &LIST].map(|what| what.name);
        let took = self.probes.iter().filter(|probe| probe.is_ok() && small.contains(&probe.what.name));
        took.map(|probe| probe.took).min()
    }

    /// Removes what this and earlier checks wrote.
    async fn clean(&self, was_interrupted: bool) -> anyhow::Result<()> {
        if self.role == Some(Role::Reader) {
            return Ok(());
        }
        let layout = self.storage.layout();
        let mine = layout.check_folder(&self.folder);
        if was_interrupted && self.storage.has_unfinished_uploads() && self.role != Some(Role::Janitor) {
            // Nobody else uses this folder, whatever the clocks say.
            let all = Abandoned::older_than(-LEFT);
            if let Err(error) = self.storage.abort_unfinished_uploads(&mine, &all).await {
                tracing::warn!("parts that were uploaded stay, and cost: {}", one_line(&error));
            }
        }
        let spots = spots::all(&self.context.fqdn).map(|spot| layout.probes(spot));
        let listings =
            spots.iter().chain([&layout.checks()]).map(|folder| self.storage.list(folder)).collect::<Vec<_>>();
        let objects: Vec<_> = futures::stream::iter(listings).flatten_unordered(None).try_collect().await?;
        let is_left = |object: &ObjectMeta| {
            let is_mine = object.location.prefix_matches(&mine) || object.location.filename() == Some(&self.folder);
            is_mine || Utc::now() - object.last_modified > LEFT
        };
        let keys = objects.into_iter().filter(is_left).map(|object| ObjectKey::listed(object.location));
        self.storage.delete(keys.collect()).await?;
        for folder in spots.iter().chain([&mine, &layout.clocks()]) {
            self.storage.remove_empty_folder(folder);
        }
        Ok(())
    }
}

/// Some objects of backups: an entry of the index, and what the node that it names has stored.
async fn some_stored(storage: &Storage) -> anyhow::Result<Vec<ObjectMeta>> {
    let layout = storage.layout();
    let mut index = storage.list(&layout.index());
    while let Some(object) = index.try_next().await? {
        let Some(entry) = layout.parse_index_entry(&object.location) else { continue };
        let meta = storage.list(&layout.meta_folder(&entry.fqdn, &entry.name)).try_next().await?;
        let pool = storage.list(&layout.pool(&entry.fqdn, Pool::Differential)).try_next().await?;
        return Ok([Some(object), meta, pool].into_iter().flatten().collect());
    }
    Ok(Vec::new())
}

/// Reads a little of each. Says how many there were.
async fn read_all(storage: &Storage, objects: &[ObjectMeta]) -> anyhow::Result<String> {
    for object in objects {
        let key = ObjectKey::listed(object.location.clone());
        let found = storage.head(&key).await?;
        if found.is_some_and(|found| found.size > 0) {
            storage.read_range(&key, 0..1).await?;
        }
    }
    Ok(match objects.len() as u64 {
        0 => "there is no backup to be read".to_owned(),
        count => format!("{} of backups", units::counted(count, "object")),
    })
}

const OVERWRITTEN: &str = "an object that was there was overwritten, although the request forbade it";

async fn refused_create(storage: &Storage, key: &ObjectKey) -> anyhow::Result<((), String)> {
    let created = storage.create(key, Bytes::from_static(b"other")).await?;
    anyhow::ensure!(created == Created::Taken, "{OVERWRITTEN}");
    let detail = if storage.is_conditional() { "" } else { "by a look before each write (conditional_create = off)" };
    Ok(((), detail.to_owned()))
}

/// Bytes per second.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
fn rate(took: Duration) -> u64 {
    (FILE as f64 / took.as_secs_f64().max(0.001)) as u64
}

/// What a probe is about.
#[derive(Debug)]
pub struct What {
    pub name: &'static str,
    /// As the provider calls the permission.
    pub needs: &'static str,
    /// What does not work without it.
    pub for_what: &'static str,
}

const READERS: &str = "every command";
const WRITERS: &str = "backup-node, delete-backup, purge, build-index";

static LIST: What = What { name: "list", needs: "list the bucket", for_what: READERS };
#[cfg(test)]
pub const WRITE_PROBE: &What = &WRITE;
static WRITE: What = What { name: "write", needs: "write objects below index/", for_what: WRITERS };
static READ: What = What { name: "read", needs: "read objects", for_what: READERS };
static CREATE: What =
    What { name: "conditional create", needs: "If-None-Match on writes", for_what: "no object is ever overwritten" };
static LEASE: What = What {
    name: "conditional update",
    needs: "If-Match on writes",
    for_what: "leases, which keep backup and purge apart",
};
static RANGE: What =
    What { name: "range", needs: "reads of a part of an object", for_what: "going on with an interrupted download" };
static PARTS: What = What {
    name: "upload in parts",
    needs: "uploads in parts, created conditionally",
    for_what: "backup-node with large SSTables",
};
static DOWNLOAD: What =
    What { name: "download", needs: "read objects", for_what: "restore-node, download, verify --read-data" };
static SHOWN: What = What {
    name: "listing after write",
    needs: "listings that are up to date",
    for_what: "fewer doubts: listings that are behind cost requests, never data",
};
static UNFINISHED: What = What {
    name: "unfinished uploads",
    needs: "list and abort uploads in parts",
    for_what: "removing what killed backups left",
};
static DELETE: What = What {
    name: "delete",
    needs: "delete objects below index/leases/, index/clock/ and index/storage-check/",
    for_what: "leases, so every command that writes",
};

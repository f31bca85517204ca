//! Carries a backup plan out: reads what must be read, uploads what must be uploaded, and returns the manifest.
//!
//! Nothing that is stored is ever overwritten. A crash leaves complete objects that no manifest names; the same backup run
//! again finds them by their content, and a purge removes them otherwise.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{Action, BackupPlan, FilePlan, Stored, TablePlan};
use crate::cassandra::snapshot::SnapshotFile;
use crate::error::one_line;
use crate::files;
use crate::model::backups::BackupMode;
use crate::model::digest::{ContentDigest, RecordedMd5, part_sizes};
use crate::model::manifest::{Manifest, Object, Section};
use crate::model::names::{BackupName, Fqdn, TableFolder};
use crate::model::sstable::{self, SstableFile};
use crate::monitor::{Amount, Monitor};
use crate::storage::blocking::{Results, inline, on_threads};
use crate::storage::layout::{ObjectKey, Pool};
use crate::storage::transfer::{SourceFile, TransferError, Upload, Watch, digest_file};
use crate::storage::{Created, Storage};

/// After so many unreadable files the rest is not tried.
const MOST_PROBLEMS: usize = 100;

/// A storage that is silent keeps nobody from telling why a backup failed.
const TAKING_BACK: Duration = Duration::from_secs(20);

/// How often a file that Cassandra has just changed is looked at again.
const MOST_LOOKS: usize = 5;

/// What every file's work needs.
#[derive(Debug)]
pub struct Execution {
    pub storage: Storage,
    pub fqdn: Fqdn,
    pub name: BackupName,
    pub mode: BackupMode,
    /// Part size in which Medusa uploads, bytes.
    pub part_size: u64,
    /// Store SSTables that do not match their digest, marked.
    pub allow_corrupt: bool,
    pub watch: Watch,
    pub monitor: Arc<dyn Monitor>,
}

/// What was done, and what went wrong with single files.
#[derive(Debug, Default)]
pub struct Executed {
    pub manifest: Manifest,
    pub uploaded: Amount,
    pub kept: Amount,
    /// Data.db files that were compared with their digest.
    pub digests_checked: u64,
    /// SSTables that do not match their digest and were stored on request.
    pub corrupt: Vec<String>,
    /// Files that could not be stored. The backup must not be committed.
    pub problems: Vec<String>,
}

/// One file's outcome.
#[derive(Debug)]
struct Done {
    object: Object,
    uploaded: bool,
    digest_checked: bool,
}

/// A file with its place in the plan.
struct Work {
    table: usize,
    position: usize,
    folder: Arc<TableFolder>,
    file: FilePlan,
}

impl Execution {
    /// # Errors
    /// Storage that fails, or an interrupt. What is wrong with single source files is collected.
    pub async fn run(self, plan: BackupPlan) -> anyhow::Result<Executed> {
        let mut sections: Vec<_> = plan.tables.iter().map(|table| Vec::with_capacity(table.files.len())).collect();
        let tables: Vec<_> = plan.tables.iter().map(|table| Arc::new(table.table.clone())).collect();
        let work =
            plan.tables.into_iter().zip(&tables).enumerate().flat_map(|(table, (TablePlan { files, .. }, folder))| {
                let place = move |(position, file)| Work { table, position, folder: Arc::clone(folder), file };
                files.into_iter().enumerate().map(place)
            });
        let (threads, work) = (self.storage.files_in_flight(), work.collect());
        let monitor = Arc::clone(&self.monitor);
        let interrupt = self.watch.interrupt.clone();
        let stop = interrupt.child();
        let watch = Watch { interrupt: stop.clone(), ..self.watch.clone() };
        let execution = Arc::new(Self { watch, ..self });
        let mut results = on_threads(threads, work, move |work: Work| {
            let execution = Arc::clone(&execution);
            async move {
                let done = match execution.watch.interrupt.check() {
                    Ok(()) => execution.store(&work.folder, &work.file).await,
                    Err(stopped) => Err(stopped.into()),
                };
                (work, done)
            }
        });
        let mut executed = Executed::default();
        let collected = interrupt.or(executed.collect(&mut results, &mut sections, &*monitor)).await;
        if !matches!(collected, Ok(End::OfAll)) {
            // The parts that the other workers have uploaded would stay and cost.
            stop.stop();
            if tokio::time::timeout(TAKING_BACK, results.end()).await.is_err() {
                tracing::debug!("the storage does not answer: parts of unfinished uploads may stay");
            }
        }
        if collected? == End::Early {
            return Ok(executed);
        }
        executed.manifest.sections = tables
            .iter()
            .zip(sections)
            .map(|(table, mut objects)| {
                objects.sort_unstable_by_key(|(position, _)| *position);
                let objects = objects.into_iter().map(|(_, object)| object).collect();
                Section { keyspace: table.keyspace.clone(), columnfamily: table.folder.clone(), objects }
            })
            .collect();
        Ok(executed)
    }

    fn pool(&self) -> Pool<'_> {
        match self.mode {
            BackupMode::Differential => Pool::Differential,
            BackupMode::Full => Pool::Full(&self.name),
        }
    }

    /// An error that concerns one source file becomes a problem; any other one ends the backup.
    fn of_file(file: &FilePlan, error: TransferError) -> anyhow::Result<String> {
        let path = file.source.path.display();
        match error {
            TransferError::Changed { .. } | TransferError::Corrupt { .. } => Ok(error.to_string()),
            TransferError::Source(source) => Ok(format!("{path} could not be read: {source}")),
            error => Err(anyhow::Error::from(error).context(format!("could not store {path}"))),
        }
    }

    /// Cassandra writes TOC.txt anew while it builds an index, also that of a snapshot, which is the same file: then it is
    /// stored as it is now.
    async fn store(&self, table: &TableFolder, file: &FilePlan) -> Result<Done, TransferError> {
        let mut stored = self.store_unchanged(table, file).await;
        let is_toc = SstableFile::parse(&file.source.file.name).is_some_and(|name| name.component == sstable::TOC);
        for _ in 0..MOST_LOOKS {
            if !is_toc || !matches!(stored, Err(TransferError::Changed { .. })) {
                break;
            }
            let metadata = inline(|| fs_err::metadata(&file.source.path)).map_err(TransferError::Source)?;
            let mut now = file.clone();
            (now.source.size, now.source.mtime) = (metadata.len(), files::mtime(&metadata));
            stored = self.store_unchanged(table, &now).await;
        }
        stored
    }

    async fn store_unchanged(&self, table: &TableFolder, file: &FilePlan) -> Result<Done, TransferError> {
        let source = &file.source;
        match &file.action {
            Action::Keep(stored) => Ok(kept(stored, source, stored.sha256, Checked::Without)),
            Action::Upload if !file.taken => self.upload(table, file).await,
            // The content decides the key, so it is read first.
            Action::Upload => self.upload_under_content_key(table, file, None).await,
            Action::Compare(stored) => {
                let is_known = |s: &Stored| s.recorded_md5() != RecordedMd5::Unknown || !self.storage.reads_are_cheap();
                let by_md5 = || stored.iter().filter(|s| s.sha256.is_none() && is_known(s));
                let recorded = by_md5().map(Stored::recorded_md5);
                let sizes = by_md5().next().map(|_| part_sizes(source.size, self.part_size, recorded));
                let digest = digest_file(&source_file(source), sizes, &self.quiet())?;
                let checked = self.checked(source, &digest)?;
                for stored in stored {
                    if self.has_content(stored, &digest).await? {
                        self.watch.counters.add_file();
                        self.watch.counters.add_bytes(source.size);
                        return Ok(kept(stored, source, Some(digest.sha256), checked));
                    }
                }
                if file.taken {
                    self.upload_under_content_key(table, file, Some(digest)).await
                } else {
                    self.upload(table, file).await
                }
            }
        }
    }

    /// Whether a stored object holds this content, by what is recorded of it, or where reading is cheap by its content.
    async fn has_content(&self, stored: &Stored, digest: &ContentDigest) -> Result<bool, TransferError> {
        if stored.size != digest.size {
            return Ok(false);
        }
        // A listing may show what a purge has deleted.
        if !stored.named && self.storage.head(&stored.key).await?.is_none_or(|found| found.size != digest.size) {
            return Ok(false);
        }
        if let Some(sha256) = stored.sha256 {
            return Ok(sha256 == digest.sha256);
        }
        let by_md5 = digest.matches(&stored.recorded_md5(), self.part_size);
        // What was recorded of an object that is encrypted with a key is no MD5.
        match by_md5.filter(|same| *same || !self.storage.has_opaque_e_tags()) {
            Some(same) => Ok(same),
            None if self.storage.reads_are_cheap() => {
                let found = self.storage.digest_object(&stored.key, None, &self.quiet()).await?;
                Ok(found.sha256 == digest.sha256)
            }
            None => {
                if let (Some(found), Some(own)) = (self.storage.server_md5(&stored.key).await?, digest.md5.as_ref()) {
                    return Ok(found == own.whole);
                }
                // To read it costs no more than to store it again.
                let found = self.storage.digest_object(&stored.key, None, &self.quiet()).await?;
                Ok(found.sha256 == digest.sha256)
            }
        }
    }

    async fn upload(&self, table: &TableFolder, file: &FilePlan) -> Result<Done, TransferError> {
        let (upload, checked) = self.create(file, &file.key).await?;
        match upload.created {
            Created::New => Ok(uploaded(&file.key, &file.source, upload, checked)),
            // Somebody was faster: another run of this backup, or Medusa.
            Created::Taken => self.upload_under_content_key(table, file, Some(upload.digest)).await,
        }
    }

    async fn upload_under_content_key(
        &self,
        table: &TableFolder,
        file: &FilePlan,
        digest: Option<ContentDigest>,
    ) -> Result<Done, TransferError> {
        let source = &file.source;
        let digest = match digest {
            Some(digest) => digest,
            None => digest_file(&source_file(source), None, &self.quiet())?,
        };
        for folder in [digest.sha256.content_folder(), digest.sha256.second_content_folder()] {
            let key = self.storage.layout().data(&self.fqdn, self.pool(), table, &source.file, Some(&folder));
            let (upload, checked) = self.create(file, &key).await?;
            if upload.created == Created::New {
                return Ok(uploaded(&key, source, upload, checked));
            }
            let digest = upload.digest;
            // A run that was killed left it. A power cut may have left something else in its place.
            if self.holds(&key, &digest).await? {
                let sha256 = Some(digest.sha256);
                let (md5, mtime, named, corrupt) = (None, None, true, false);
                let stored = Stored { key, size: source.size, sha256, md5, mtime, named, corrupt };
                return Ok(kept(&stored, source, sha256, checked));
            }
        }
        let table = self.storage.layout().table(&self.fqdn, self.pool(), table);
        Err(TransferError::WrongContent { object: source.file.to_string(), folder: self.storage.name_of(&table) })
    }

    /// Whether the object under a content key is what its key says.
    async fn holds(&self, key: &ObjectKey, digest: &ContentDigest) -> Result<bool, TransferError> {
        let size = self.storage.head(key).await?.map(|meta| meta.size);
        if size != Some(digest.size) {
            return Ok(false);
        }
        if let (Some(found), Some(own)) = (self.storage.server_md5(key).await?, digest.md5.as_ref()) {
            return Ok(found == own.whole);
        }
        Ok(self.storage.digest_object(key, None, &self.quiet()).await?.sha256 == digest.sha256)
    }

    /// Uploads under the key. An SSTable is compared with its own digest on the way.
    async fn create(&self, file: &FilePlan, key: &ObjectKey) -> Result<(Upload, Checked), TransferError> {
        let source = source_file(&file.source);
        let expected = expected_crc32(&file.source);
        let upload = self.storage.upload(&source, key, expected, &self.watch).await;
        match upload {
            Err(TransferError::Corrupt { .. }) if self.allow_corrupt => {
                let upload = self.storage.upload(&source, key, None, &self.watch).await?;
                Ok((upload, Checked::Corrupt))
            }
            other => {
                let upload = other?;
                let checked = if expected.is_some() { Checked::Good } else { Checked::Without };
                Ok((upload, checked))
            }
        }
    }

    /// Compares a content that was read with the SSTable's own digest.
    fn checked(&self, source: &SnapshotFile, digest: &ContentDigest) -> Result<Checked, TransferError> {
        match expected_crc32(source) {
            None => Ok(Checked::Without),
            Some(expected) if expected == digest.crc32 => Ok(Checked::Good),
            Some(_) if self.allow_corrupt => Ok(Checked::Corrupt),
            Some(expected) => Err(TransferError::Corrupt { path: source.path.clone(), expected, found: digest.crc32 }),
        }
    }

    /// For reading that is no transfer.
    fn quiet(&self) -> Watch {
        Watch { counters: Arc::default(), interrupt: self.watch.interrupt.clone() }
    }
}

/// What the digest of an SSTable said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Good,
    Corrupt,
    /// It is no Data.db, or it has no digest.
    Without,
}

/// How the work on a plan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    OfAll,
    /// There were too many problems.
    Early,
}

impl Executed {
    /// Takes what the workers return.
    async fn collect(
        &mut self,
        results: &mut Results<(Work, Result<Done, TransferError>)>,
        sections: &mut [Vec<(usize, Object)>],
        monitor: &dyn Monitor,
    ) -> anyhow::Result<End> {
        while let Some((Work { table, position, file, .. }, done)) = results.recv().await {
            match done {
                Ok(done) => {
                    self.count(&done, &file);
                    sections[table].push((position, done.object));
                }
                Err(error) => {
                    let problem = Execution::of_file(&file, error)?;
                    monitor.problem(&problem);
                    self.problems.push(problem);
                    if self.problems.len() >= MOST_PROBLEMS {
                        self.problems.push("the rest was not tried".into());
                        return Ok(End::Early);
                    }
                }
            }
        }
        Ok(End::OfAll)
    }

    fn count(&mut self, done: &Done, file: &FilePlan) {
        if done.uploaded {
            self.uploaded.add(done.object.size);
        } else {
            self.kept.add(done.object.size);
        }
        self.digests_checked += u64::from(done.digest_checked);
        if done.object.corrupt {
            self.corrupt.push(file.source.path.display().to_string());
        }
    }
}

fn source_file(file: &SnapshotFile) -> SourceFile {
    SourceFile { path: file.path.clone(), size: file.size, mtime: file.mtime }
}

fn kept(
    stored: &Stored,
    source: &SnapshotFile,
    sha256: Option<crate::model::digest::Sha256>,
    checked: Checked,
) -> Done {
    let object = Object {
        path: stored.key.as_str().into(),
        md5: stored.md5.clone(),
        size: stored.size,
        sha256,
        mtime: Some(source.mtime),
        corrupt: checked == Checked::Corrupt,
    };
    Done { object, uploaded: false, digest_checked: checked != Checked::Without }
}

fn uploaded(key: &ObjectKey, source: &SnapshotFile, upload: Upload, checked: Checked) -> Done {
    let object = Object {
        path: key.as_str().into(),
        md5: upload.md5.map(Into::into),
        size: upload.digest.size,
        sha256: Some(upload.digest.sha256),
        mtime: Some(source.mtime),
        corrupt: checked == Checked::Corrupt,
    };
    Done { object, uploaded: true, digest_checked: checked != Checked::Without }
}

/// The CRC-32 that Cassandra recorded for a Data.db, from the file beside it.
fn expected_crc32(file: &SnapshotFile) -> Option<u32> {
    let name = SstableFile::parse(&file.file.name).filter(|name| name.component == sstable::DATA)?;
    let digest: &Path = &file.path.with_file_name(name.sibling(sstable::DIGEST));
    match inline(|| fs_err::read_to_string(digest)) {
        Ok(text) => {
            let expected = text.trim().parse().ok();
            if expected.is_none() {
                tracing::warn!("{} holds no CRC-32", digest.display());
            }
            expected
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!("{}", one_line(&error.into()));
            None
        }
    }
}

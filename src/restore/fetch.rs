//! Bringing stored files to places on this node: linked where the node still has it, downloaded otherwise, and compared
//! with what the manifest recorded either way. One way to do so, for restores, loads and downloads.
//!
//! A file appears under its name only when its content was found to be right. A crash leaves a file called `….medusa-part`,
//! which the next attempt replaces. Its name must not end in `.db`: Cassandra looks for those in every folder of its data
//! directories, hidden ones included, and does not start if it cannot read one.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::context::Context;
use crate::error::Failure;
use crate::files;
use crate::model::digest::{ContentDigest, RecordedMd5, part_sizes};
use crate::model::manifest::Object;
use crate::model::names::BackupName;
use crate::model::units::counted;
use crate::monitor::Amount;
use crate::storage::Storage;
use crate::storage::blocking::{inline, on_threads};
use crate::storage::layout::ObjectKey;
use crate::storage::transfer::{NewFile, SourceFile, TransferError, Watch, digest_file};

/// The end of the name of a file that is not whole yet.
const PART: &str = ".medusa-part";

/// Damaged objects that are named before the rest is not looked at.
const MOST_DAMAGED: usize = 100;

/// A stored file and where it shall be.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub object: Object,
    pub key: ObjectKey,
    pub target: PathBuf,
    /// Files of this node that may have the content.
    pub candidates: Vec<PathBuf>,
    /// User and group that shall own the file.
    pub owner: Option<(u32, u32)>,
}

/// What a file may be that lies where one is to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtTarget {
    /// Anybody's. Nothing is replaced.
    Foreign,
    /// Of an attempt that was interrupted. It is compared, and replaced where it differs.
    Ours,
    /// As `Ours`, and it was compared when it came there.
    Compared,
}

/// Files that were brought.
#[derive(Debug, Default)]
pub struct Brought {
    pub downloaded: Amount,
    /// This node had them: linked, or of an attempt that was interrupted.
    pub local: Amount,
    /// Of them, those whose content could not be compared with what was recorded.
    pub unchecked: usize,
    damaged: Vec<String>,
}

impl Brought {
    /// # Errors
    /// Objects do not have the recorded content. They were not brought.
    pub fn check(&self, backup: &BackupName, hint: &str) -> Result<(), Failure> {
        if self.damaged.is_empty() {
            return Ok(());
        }
        let count = counted(self.damaged.len() as u64, "object");
        Err(Failure::failed(format!("backup {backup} is damaged: {count} not as its manifest says"))
            .details(self.damaged.clone())
            .hint(hint))
    }
}

/// How the file came there.
enum Fetched {
    Present,
    Linked,
    Downloaded,
}

/// What a content is, by what the manifest recorded of it.
enum Compared {
    Same,
    /// Nothing was recorded that it could be compared with.
    Unknown,
    /// With what is wrong.
    Other(String),
}

/// What a file of this node is to an object.
enum Local {
    Same {
        inode: u64,
    },
    /// What was recorded tells no more.
    SameSize,
    Other,
}

/// Why a file could not be brought.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{object} does not match its manifest: {problem}")]
    Damaged { object: String, problem: String },
    #[error("{} exists and is another file", .0.display())]
    InTheWay(PathBuf),
    #[error("could not write {}", path.display())]
    Target { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

/// Brings all of these, of so much in all, as many at once as the storage is asked for. What is damaged is told and counted;
/// everything else that goes wrong ends it.
pub async fn bring_all(
    context: &Context,
    at_target: AtTarget,
    total: Amount,
    files: Vec<Wanted>,
) -> Result<Brought, FetchError> {
    let transfer = context.monitor.transfer("download", total);
    let fetch = Fetch {
        storage: context.storage.clone(),
        watch: context.watch(&transfer.counters),
        part_size: context.config.storage.multipart_chunksize,
        at_target,
    };
    let mut work = on_threads(context.storage.files_in_flight(), files, move |wanted: Wanted| {
        let fetch = fetch.clone();
        async move { (wanted.object.size, fetch.bring(&wanted).await) }
    });
    let mut brought = Brought::default();
    while let Some((bytes, fetched)) = work.recv().await {
        brought.unchecked += usize::from(fetched.as_ref().is_ok_and(|(_, is_compared)| !is_compared));
        match fetched {
            Ok((Fetched::Downloaded, _)) => brought.downloaded.add(bytes),
            Ok((Fetched::Linked | Fetched::Present, _)) => brought.local.add(bytes),
            Err(error @ FetchError::Damaged { .. }) => {
                context.monitor.problem(&error.to_string());
                brought.damaged.push(error.to_string());
                if brought.damaged.len() >= MOST_DAMAGED {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(brought)
}

/// What is needed for every file.
#[derive(Debug, Clone)]
struct Fetch {
    storage: Storage,
    watch: Watch,
    /// Part size in which Medusa uploads, bytes.
    part_size: u64,
    at_target: AtTarget,
}

impl Fetch {
    /// With whether its content was compared.
    async fn bring(&self, wanted: &Wanted) -> Result<(Fetched, bool), FetchError> {
        let at_target = |source| FetchError::Target { path: wanted.target.clone(), source };
        if self.is_there(wanted)? {
            self.count(wanted.object.size);
            return Ok((Fetched::Present, wanted.object.has_known_content()));
        }
        for candidate in &wanted.candidates {
            if let Local::Same { inode } = self.look_at(candidate, &wanted.object)?
                && link(candidate, inode, &wanted.target).map_err(at_target)?
            {
                // Its time stays: it is also that of the live file, and of snapshots that may be being backed up.
                self.count(wanted.object.size);
                return Ok((Fetched::Linked, true));
            }
        }
        let part = part_of(&wanted.target);
        let file = NewFile { path: part.clone(), mode: 0o644, owner: wanted.owner, mtime: wanted.object.mtime };
        let sizes = self.part_sizes(&wanted.object);
        let digest = match self.storage.download(&wanted.key, file, sizes, &self.watch).await {
            Ok(digest) => digest,
            Err(error) => {
                // It would be fetched anew anyway, and the disk may be full.
                let _ = remove_if_there(&part);
                return Err(error.into());
            }
        };
        let is_compared = match self.compare(&wanted.object, &digest) {
            Compared::Same => true,
            Compared::Unknown => false,
            Compared::Other(problem) => {
                remove_if_there(&part).map_err(at_target)?;
                return Err(FetchError::Damaged { object: self.storage.name_of(wanted.key.path()), problem });
            }
        };
        inline(|| fs::rename(&part, &wanted.target)).map_err(at_target)?;
        Ok((Fetched::Downloaded, is_compared))
    }

    fn count(&self, size: u64) {
        self.watch.counters.add_file();
        self.watch.counters.add_bytes(size);
    }

    /// Whether the target is there already with the right content.
    fn is_there(&self, wanted: &Wanted) -> Result<bool, FetchError> {
        match fs::symlink_metadata(&wanted.target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(FetchError::Target { path: wanted.target.clone(), source }),
            Ok(_) => {}
        }
        let has_its_size = fs::symlink_metadata(&wanted.target)
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == wanted.object.size);
        if self.at_target == AtTarget::Compared && has_its_size {
            return Ok(true);
        }
        match self.look_at(&wanted.target, &wanted.object)? {
            Local::Same { .. } => return Ok(true),
            Local::Other if self.at_target == AtTarget::Foreign => {
                return Err(FetchError::InTheWay(wanted.target.clone()));
            }
            // Of a content that nobody recorded, only the size can tell whose file it is.
            Local::SameSize | Local::Other => {}
        }
        remove_if_there(&wanted.target).map_err(|source| FetchError::Target { path: wanted.target.clone(), source })?;
        Ok(false)
    }

    /// Compares a local file with what was recorded of the object.
    fn look_at(&self, path: &Path, object: &Object) -> Result<Local, FetchError> {
        let metadata =
            fs::symlink_metadata(path).ok().filter(|metadata| metadata.is_file() && metadata.len() == object.size);
        let Some(metadata) = metadata else { return Ok(Local::Other) };
        if !object.has_known_content() {
            return Ok(Local::SameSize);
        }
        let source = SourceFile { path: path.to_owned(), size: object.size, mtime: files::mtime(&metadata) };
        let watch = Watch { counters: std::sync::Arc::default(), interrupt: self.watch.interrupt.clone() };
        match digest_file(&source, self.part_sizes(object), &watch) {
            Ok(digest) => Ok(match self.compare(object, &digest) {
                Compared::Same => Local::Same { inode: metadata.ino() },
                Compared::Unknown => Local::SameSize,
                Compared::Other(_) => Local::Other,
            }),
            // It changes or vanishes while Cassandra runs: then it is no help.
            Err(TransferError::Source(_) | TransferError::Changed { .. }) => Ok(Local::Other),
            Err(error) => Err(error.into()),
        }
    }

    /// In which MD5 is computed; `None` where it is not needed.
    fn part_sizes(&self, object: &Object) -> Option<Vec<u64>> {
        let recorded = object.recorded_md5();
        let is_needed = object.sha256.is_none() && recorded != RecordedMd5::Unknown;
        is_needed.then(|| part_sizes(object.size, self.part_size, [recorded]))
    }

    fn compare(&self, object: &Object, digest: &ContentDigest) -> Compared {
        if object.is_rewritten_by_medusa() {
            return Compared::Unknown;
        }
        if digest.size != object.size {
            return Compared::Other(format!("it should have {} bytes, and has {}", object.size, digest.size));
        }
        if let Some(sha256) = object.sha256 {
            let problem = || format!("its SHA-256 should be {sha256}, and is {}", digest.sha256);
            return if sha256 == digest.sha256 { Compared::Same } else { Compared::Other(problem()) };
        }
        match digest.matches(&object.recorded_md5(), self.part_size) {
            Some(true) => Compared::Same,
            Some(false) => Compared::Other(format!("its MD5 is not {}", object.md5.as_deref().unwrap_or_default())),
            None => Compared::Unknown,
        }
    }
}

/// Links the file that was read, not one that took its name since. Returns whether that worked.
fn link(from: &Path, inode: u64, to: &Path) -> io::Result<bool> {
    if fs::hard_link(from, to).is_err() {
        return Ok(false);
    }
    if fs::symlink_metadata(to)?.ino() == inode {
        return Ok(true);
    }
    remove_if_there(to).map(|()| false)
}

fn part_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{name}{PART}"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

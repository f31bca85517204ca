//! A folder as an object store: `base_path/bucket_name`, one file per object.
//!
//! `object_store`'s own local store neither creates large objects exclusively nor leaves durability to the caller, so this is
//! ours. An object appears at once and complete, or not at all: it is written to a file without a name and then linked into
//! place, and a link fails where the name is taken. A crash leaves nothing. File systems that know no nameless files (NFS)
//! get a temporary name instead, and a crash leaves such a file, which is removed a day later; never a short object. After a
//! power cut an object that was not synced may hold anything: no manifest names it, and whoever finds it compares its content.
//!
//! Data files are not fsynced one by one. [`LocalStore::sync`] makes everything durable that was written before, and
//! [`Durable`] asks for it per object: that is how a manifest becomes the commit.
//!
//! Temporary names live beside the bucket's folder, in `.<bucket>.medusa-tmp`, because cassandra-medusa lists and stats
//! everything inside.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use fs_err as fs;
use futures::stream::{BoxStream, StreamExt as _};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, linkat};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UpdateVersion,
    UploadPart,
};
use tokio::task::spawn_blocking;

use super::blocking::inline;
use crate::files::{LOST_AND_FOUND, Mount};
use walkdir::WalkDir;

/// Put into the extensions of [`PutOptions`]: the object and its folder are on the disk when the call returns.
#[derive(Debug, Clone, Copy)]
pub struct Durable;

/// Objects per batch of a listing.
const LIST_BATCH: usize = 1000;

/// Temporary files of runs that ended are removed after this time.
const ABANDONED: Duration = Duration::from_hours(24);

/// How often a folder is created that vanishes again.
const FOLDER_ATTEMPTS: u32 = 5;

/// In the folder of temporary files; held while an object is replaced on a condition.
const UPDATE_LOCK: &str = "update.lock";

/// An update takes moments. Whoever has the lock for longer stands still.
const LOCK_PATIENCE: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Made at the first write, so that reading changes nothing.
    temporary: OnceLock<PathBuf>,
    /// Begins the names of our temporary files; nobody else's begin so.
    run: uuid::Uuid,
    next: AtomicU64,
    /// The file system knows no nameless files.
    names_needed: AtomicBool,
    /// Open since before the first write: a failure to bring data to the disk is told to whoever had the file system open
    /// when it happened.
    open_root: OnceLock<fs::File>,
}

impl LocalStore {
    /// The folder need not exist: it is created by the first write.
    pub fn new(root: PathBuf) -> Self {
        Self {
            inner: Arc::new(Inner {
                root,
                temporary: OnceLock::new(),
                run: uuid::Uuid::new_v4(),
                next: AtomicU64::new(0),
                names_needed: AtomicBool::new(false),
                open_root: OnceLock::new(),
            }),
        }
    }

    pub fn root(&self) -> &FsPath {
        &self.inner.root
    }

    /// Fails if files of the folder of an object may not be deleted. One that is not there keeps nobody from it.
    pub(super) fn expect_writable(&self, location: &Path) -> Result<()> {
        let file = self.inner.file(location);
        let Some(folder) = file.parent() else { return Ok(()) };
        match inline(|| access(folder, AccessFlags::W_OK | AccessFlags::X_OK)) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(failed(location, name_the_file(&error.into(), folder))),
        }
    }

    /// Makes everything durable that was written before.
    pub async fn sync(&self) -> io::Result<()> {
        let inner = Arc::clone(&self.inner);
        let synced = spawn_blocking(move || nix::unistd::syncfs(inner.open_root()?.file()).map_err(io::Error::from));
        synced.await.map_err(io::Error::other)?
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local:{}", self.inner.root.display())
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    let kind = error.kind();
    let (path, source) = (path.to_string(), error.into());
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { path, source },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source },
        _ => Error::Generic { store: "local", source },
    }
}

/// An update found another object than it was made for.
#[derive(Debug, thiserror::Error)]
#[error("the object was changed")]
struct OtherVersion;

fn put_failed(path: &Path, error: io::Error) -> Error {
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<OtherVersion>) {
        return Error::Precondition { path: path.to_string(), source: error.into() };
    }
    failed(path, error)
}

fn generic(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "local", source: error.into() }
}

fn meta(location: Path, metadata: &Metadata) -> ObjectMeta {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    ObjectMeta {
        location,
        last_modified: DateTime::<Utc>::from(modified),
        size: metadata.len(),
        e_tag: Some(e_tag(metadata)),
        version: None,
    }
}

fn e_tag(metadata: &Metadata) -> String {
    format!("{:x}-{:x}-{:x}-{:x}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())
}

impl Inner {
    fn file(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }

    fn open_root(&self) -> io::Result<&fs::File> {
        if let Some(root) = self.open_root.get() {
            return Ok(root);
        }
        fs::create_dir_all(&self.root)?;
        let root = fs::File::open(&self.root)?;
        Ok(self.open_root.get_or_init(|| root))
    }

    /// Keeps other updates out, and makes sure that the object is the expected one.
    fn lock_for_update(&self, location: &Path, expected: &UpdateVersion) -> io::Result<Flock<File>> {
        let path = self.temporary()?.join(UPDATE_LOCK);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?.into_parts().0;
        let begin = Instant::now();
        let lock = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((again, Errno::EWOULDBLOCK)) if begin.elapsed() < LOCK_PATIENCE => file = again,
                Err((_, error)) => return Err(name_the_file(&error.into(), &path)),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let found = fs::metadata(self.file(location))?;
        if expected.e_tag.as_ref() != Some(&e_tag(&found)) {
            return Err(io::Error::other(OtherVersion));
        }
        Ok(lock)
    }

    /// A folder for temporary files on the file system of the bucket.
    fn temporary(&self) -> io::Result<&FsPath> {
        if let Some(folder) = self.temporary.get() {
            return Ok(folder);
        }
        fs::create_dir_all(&self.root)?;
        let folder = self.beside_the_root().unwrap_or_else(|_| self.root.join(".medusa-tmp"));
        fs::create_dir_all(&folder)?;
        remove_abandoned(&folder);
        Ok(self.temporary.get_or_init(|| folder))
    }

    /// Fails where the folder above is another mount, out of which nothing can be renamed, or may not be written.
    fn beside_the_root(&self) -> io::Result<PathBuf> {
        let refused = || io::Error::other("the bucket's folder stands alone");
        let (parent, name) = (self.root.parent().ok_or_else(refused)?, self.root.file_name().ok_or_else(refused)?);
        if Mount::of(parent)? != Mount::of(&self.root)? {
            return Err(refused());
        }
        let folder = parent.join(format!(".{}.medusa-tmp", name.to_string_lossy()));
        fs::create_dir_all(&folder)?;
        access(&folder, AccessFlags::W_OK)?;
        Ok(folder)
    }

    /// A file that has no name yet, or where that cannot be, a temporary one.
    fn create_nameless(&self) -> io::Result<Temporary> {
        self.open_root()?;
        if self.names_needed.load(Ordering::Relaxed) {
            return self.create_named();
        }
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        match open(&self.root, flags, Mode::from_bits_truncate(0o666)) {
            Ok(file) => Ok(Temporary { path: None, file: file.into() }),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {
                self.names_needed.store(true, Ordering::Relaxed);
                self.create_named()
            }
            Err(error) => Err(name_the_file(&error.into(), &self.root)),
        }
    }

    fn create_named(&self) -> io::Result<Temporary> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.run.simple());
        let path = self.temporary()?.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Temporary { path: Some(path), file: file.into_parts().0 })
    }

    /// Gives the temporary file its name.
    fn publish(&self, temporary: &Temporary, location: &Path, mode: &PutMode, durable: bool) -> io::Result<PutResult> {
        let target = self.file(location);
        let parent = target.parent().unwrap_or(&self.root);
        if durable {
            temporary.file.sync_all()?;
        }
        let place = || match (&temporary.path, mode) {
            (Some(path), PutMode::Create) => link_or_rename(path, &target),
            (Some(path), _) => fs::rename(path, &target),
            (None, _) => link_nameless(&temporary.file, &target),
        };
        let mut placed = place();
        // A storage check may remove the folder while it is empty.
        for _ in 0..FOLDER_ATTEMPTS {
            if !matches!(&placed, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            placed = fs::create_dir_all(parent).and_then(|()| place());
        }
        placed?;
        if durable {
            fs::File::open(parent)?.file().sync_all()?;
        }
        let e_tag = temporary.file.metadata().map(|metadata| e_tag(&metadata)).ok();
        Ok(PutResult { e_tag, version: None, extensions: object_store::Extensions::default() })
    }
}

/// A file that vanishes unless it was given its name.
#[derive(Debug)]
struct Temporary {
    path: Option<PathBuf>,
    file: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Already gone where it was renamed.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Gives a file a name that must be free. Some file systems know no hard links.
fn link_or_rename(from: &FsPath, to: &FsPath) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if matches!(error.raw_os_error(), Some(code) if [Errno::EPERM, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EMLINK].contains(&Errno::from_raw(code))) =>
        {
            let renamed = renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE);
            renamed.map_err(|error| name_the_file(&error.into(), to))
        }
        other => other,
    }
}

/// As open(2) says it is done without privileges.
fn link_nameless(file: &File, target: &FsPath) -> io::Result<()> {
    let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    let linked = linkat(AT_FDCWD, by_descriptor.as_str(), AT_FDCWD, target, AtFlags::AT_SYMLINK_FOLLOW);
    linked.map_err(|error| name_the_file(&error.into(), target))
}

fn remove_abandoned(folder: &FsPath) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // Whoever holds it keeps out those who have the same file.
        if entry.file_name() == UPDATE_LOCK {
            continue;
        }
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|at| at.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > ABANDONED)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!("an abandoned temporary file stays: {error}");
        }
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (inner, location) = (Arc::clone(&self.inner), location.clone());
        inline(|| {
            let put = || {
                let create = opts.mode == PutMode::Create;
                let mut temporary = if create { inner.create_nameless() } else { inner.create_named() }?;
                for piece in &payload {
                    temporary.file.write_all(piece)?;
                }
                // Held until the new content has its name.
                let _lock = match &opts.mode {
                    PutMode::Update(expected) => Some(inner.lock_for_update(&location, expected)?),
                    _ => None,
                };
                inner.publish(&temporary, &location, &opts.mode, opts.extensions.get::<Durable>().is_some())
            };
            put().map_err(|error| put_failed(&location, error))
        })
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let (inner, location) = (Arc::clone(&self.inner), location.clone());
        let upload = move || {
            let temporary = inner.create_nameless().map_err(|error| failed(&location, error))?;
            Ok::<_, Error>(LocalUpload { inner, location, temporary: Some(Arc::new(temporary)), offset: 0 })
        };
        Ok(Box::new(inline(upload)?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (inner, location) = (Arc::clone(&self.inner), location.clone());
        inline(|| {
            let path = inner.file(&location);
            let open = || {
                let file = fs::File::open(&path)?;
                let metadata = file.metadata()?;
                if metadata.is_dir() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is a folder", path.display())));
                }
                Ok((file.into_parts().0, metadata))
            };
            let (file, metadata) = open().map_err(|error| failed(&location, error))?;
            let meta = meta(location, &metadata);
            options.check_preconditions(&meta)?;
            let range = match &options.range {
                Some(range) => range.as_range(meta.size).map_err(generic)?,
                None => 0..meta.size,
            };
            let payload = GetResultPayload::File(file, path);
            let (attributes, extensions) = (Attributes::default(), object_store::Extensions::default());
            Ok(GetResult { payload, meta, range, attributes, extensions })
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (inner, location, ranges) = (Arc::clone(&self.inner), location.clone(), ranges.to_vec());
        inline(|| {
            let read = || {
                let file = fs::File::open(inner.file(&location))?;
                let read_range = |range: &Range<u64>| {
                    let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
                    file.file().read_exact_at(&mut bytes, range.start)?;
                    Ok(Bytes::from(bytes))
                };
                ranges.iter().map(read_range).collect::<io::Result<_>>()
            };
            read().map_err(|error| failed(&location, error))
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let inner = Arc::clone(&self.inner);
        let delete = move |location: Result<Path>| {
            let inner = Arc::clone(&inner);
            async move {
                let location = location?;
                inline(|| match fs::remove_file(inner.file(&location)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&location, error)),
                    _ => Ok(location),
                })
            }
        };
        locations.map(delete).buffered(8).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = Arc::clone(&self.inner);
        let prefix = prefix.cloned().unwrap_or_default();
        let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<Result<ObjectMeta>>>(4);
        spawn_blocking(move || {
            let mut batch = Vec::with_capacity(LIST_BATCH);
            for object in inner.objects_below(&prefix) {
                batch.push(object);
                if batch.len() == LIST_BATCH && sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                    return;
                }
            }
            // The receiver may be gone: nobody waits for the rest.
            let _ = sender.blocking_send(batch);
        });
        let batches = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|batch| (batch, receiver))
        });
        batches.flat_map(futures::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let inner = Arc::clone(&self.inner);
        let prefix = prefix.cloned().unwrap_or_default();
        inline(|| {
            let extensions = object_store::Extensions::default();
            let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions };
            let entries = match fs::read_dir(inner.file(&prefix)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(result),
                entries => entries.map_err(|error| failed(&prefix, error))?,
            };
            for entry in entries {
                let entry = entry.map_err(|error| failed(&prefix, error))?;
                let Some(location) = inner.location(&entry.path()) else { continue };
                let metadata = entry.metadata().map_err(|error| failed(&location, error))?;
                if !metadata.is_dir() {
                    result.objects.push(meta(location, &metadata));
                } else if inner.objects_below(&location).next().is_some() {
                    // Empty folders are what deletes leave behind; an object store has none.
                    result.common_prefixes.push(location);
                }
            }
            result.common_prefixes.sort_unstable();
            Ok(result)
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (inner, from, to) = (Arc::clone(&self.inner), from.clone(), to.clone());
        inline(|| {
            let copy = || {
                let mut temporary = inner.create_named()?;
                io::copy(&mut fs::File::open(inner.file(&from))?, &mut temporary.file)?;
                let mode = if options.mode == CopyMode::Create { PutMode::Create } else { PutMode::Overwrite };
                inner.publish(&temporary, &to, &mode, false)
            };
            copy().map(|_| ()).map_err(|error| failed(&to, error))
        })
    }
}

impl Inner {
    /// The key of a file below the root. `None` for names that no object key can have.
    fn location(&self, file: &FsPath) -> Option<Path> {
        let text = file.strip_prefix(&self.root).ok()?.to_str()?;
        if text == LOST_AND_FOUND {
            return None;
        }
        Path::parse(text).ok().filter(|path| path.as_ref() == text)
    }

    fn objects_below(&self, prefix: &Path) -> impl Iterator<Item = Result<ObjectMeta>> {
        let start = self.file(prefix);
        let not_ours = [".medusa-tmp", LOST_AND_FOUND].map(|name| self.root.join(name));
        let walk =
            WalkDir::new(start).into_iter().filter_entry(move |entry| not_ours.iter().all(|one| entry.path() != one));
        walk.filter_map(|entry| match entry.map_err(io::Error::from).and_then(file_metadata) {
            // A file that is gone again was not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(failed(prefix, error))),
            Ok(None) => None,
            Ok(Some((path, metadata))) => self.location(&path).map(|location| Ok(meta(location, &metadata))),
        })
    }
}

/// A regular file with its facts; `None` for a folder.
fn file_metadata(entry: walkdir::DirEntry) -> io::Result<Option<(PathBuf, Metadata)>> {
    if entry.file_type().is_dir() {
        return Ok(None);
    }
    // Follows a link, as opening the object does.
    let metadata = if entry.path_is_symlink() { fs::metadata(entry.path())? } else { entry.metadata()? };
    Ok((!metadata.is_dir()).then(|| (entry.into_path(), metadata)))
}

/// Parts are written side by side at their offsets; completing creates the object and fails if it is there.
#[derive(Debug)]
struct LocalUpload {
    inner: Arc<Inner>,
    location: Path,
    /// `None` once completed or aborted.
    temporary: Option<Arc<Temporary>>,
    offset: u64,
}

impl LocalUpload {
    fn ended() -> Error {
        generic("the upload has ended")
    }
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let start = self.offset;
        self.offset += data.content_length() as u64;
        let (inner, temporary, location) = (Arc::clone(&self.inner), self.temporary.clone(), self.location.clone());
        Box::pin(async move {
            let temporary = temporary.ok_or_else(Self::ended)?;
            inline(|| {
                let mut offset = start;
                for piece in &data {
                    let written = temporary.file.write_all_at(piece, offset);
                    written.map_err(|error| failed(&location, name_the_file(&error, &inner.file(&location))))?;
                    offset += piece.len() as u64;
                }
                Ok(())
            })
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let temporary = self.temporary.take().ok_or_else(Self::ended)?;
        let (inner, location) = (Arc::clone(&self.inner), self.location.clone());
        inline(|| {
            let published = inner.publish(&temporary, &location, &PutMode::Create, false);
            published.map_err(|error| failed(&location, error))
        })
    }

    async fn abort(&mut self) -> Result<()> {
        self.temporary = None;
        Ok(())
    }
}

fn name_the_file(error: &io::Error, path: &FsPath) -> io::Error {
    io::Error::new(error.kind(), format!("could not write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;

    use super::*;

    fn store() -> (tempfile::TempDir, LocalStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().join("bucket"));
        (folder, store)
    }

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn create() -> PutOptions {
        PutOptions::from(PutMode::Create)
    }

    async fn keys(store: &LocalStore, prefix: &str) -> Vec<String> {
        let mut keys: Vec<_> =
            store.list(Some(&path(prefix))).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
        keys.sort();
        keys
    }

    fn temporary_files(folder: &FsPath) -> usize {
        std::fs::read_dir(folder.join(".bucket.medusa-tmp")).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn an_object_is_created_once_and_never_overwritten() {
        let (folder, store) = store();
        let key = path("n/data/ks/t/a%b c+ü~.db");
        store.put_opts(&key, "one".into(), create()).await.unwrap();
        let again = store.put_opts(&key, "two".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        let mut upload = store.put_multipart(&key).await.unwrap();
        upload.put_part("three".into()).await.unwrap();
        let completed = upload.complete().await;
        assert!(matches!(completed, Err(Error::AlreadyExists { .. })), "{completed:?}");
        assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "one");
        assert_eq!(keys(&store, "n").await, [key.to_string()]);
        assert!(folder.path().join("bucket/n/data/ks/t/a%b c+ü~.db").is_file());
        assert_eq!(temporary_files(folder.path()), 0);
    }

    #[tokio::test]
    async fn where_files_must_have_names_the_same_holds() {
        let (folder, store) = store();
        store.inner.names_needed.store(true, Ordering::Relaxed);
        store.put_opts(&path("a/b"), "one".into(), create()).await.unwrap();
        assert!(matches!(store.put_opts(&path("a/b"), "two".into(), create()).await, Err(Error::AlreadyExists { .. })));
        let mut upload = store.put_multipart(&path("a/c")).await.unwrap();
        upload.put_part("x".into()).await.unwrap();
        assert_eq!(temporary_files(folder.path()), 1);
        upload.complete().await.unwrap();
        assert_eq!((keys(&store, "a").await.len(), temporary_files(folder.path())), (2, 0));
    }

    #[tokio::test]
    async fn parts_are_put_together_in_the_order_of_their_calls() {
        let (folder, store) = store();
        let mut upload = store.put_multipart(&path("big")).await.unwrap();
        let (first, second) = (upload.put_part("abc".into()), upload.put_part("de".into()));
        second.await.unwrap();
        first.await.unwrap();
        assert!(matches!(store.head(&path("big")).await, Err(Error::NotFound { .. })));
        upload.complete().await.unwrap();
        assert_eq!(store.get(&path("big")).await.unwrap().bytes().await.unwrap(), "abcde");
        assert_eq!(store.get_range(&path("big"), 1..4).await.unwrap(), "bcd");

        let mut aborted = store.put_multipart(&path("other")).await.unwrap();
        aborted.put_part("x".into()).await.unwrap();
        aborted.abort().await.unwrap();
        assert!(aborted.complete().await.is_err());
        assert_eq!((keys(&store, "other").await, temporary_files(folder.path())), (vec![], 0));
    }

    #[tokio::test]
    async fn listing_matches_whole_path_elements() {
        let (_folder, store) = store();
        for key in ["n1/b1/meta/x", "n1/b10/meta/x", "n10/b1/meta/x", "index/i"] {
            store.put_opts(&path(key), "x".into(), create()).await.unwrap();
        }
        assert_eq!(keys(&store, "n1").await, ["n1/b1/meta/x", "n1/b10/meta/x"]);
        assert_eq!(keys(&store, "n1/b1").await, ["n1/b1/meta/x"]);
        assert_eq!(keys(&store, "absent").await, Vec::<String>::new());
        store.delete(&path("n1/b1/meta/x")).await.unwrap();
        store.delete(&path("n1/b1/meta/x")).await.unwrap();
        let below = store.list_with_delimiter(Some(&path("n1"))).await.unwrap();
        assert_eq!(below.common_prefixes, [path("n1/b10")]);
    }

    #[tokio::test]
    async fn absent_is_told_from_unreadable() {
        let (folder, store) = store();
        store.put(&path("a/b"), "x".into()).await.unwrap();
        assert!(matches!(store.head(&path("a/c")).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.head(&path("a")).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.head(&path("a/b/c")).await, Err(Error::NotFound { .. })));
        std::os::unix::fs::symlink("loop", folder.path().join("bucket/loop")).unwrap();
        let unreadable = store.head(&path("loop")).await;
        assert!(!matches!(unreadable, Err(Error::NotFound { .. }) | Ok(_)), "{unreadable:?}");
    }

    #[tokio::test]
    async fn overwriting_replaces_the_whole_object() {
        let (_folder, store) = store();
        store.put(&path("m"), "long content".into()).await.unwrap();
        let mut durable = PutOptions::default();
        durable.extensions.insert(Durable);
        store.put_opts(&path("m"), "short".into(), durable).await.unwrap();
        assert_eq!(store.get(&path("m")).await.unwrap().bytes().await.unwrap(), "short");
        store.sync().await.unwrap();
    }

    #[tokio::test]
    async fn what_the_file_system_has_at_its_top_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["lost+found/x", "n1/lost+found/x"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let store = LocalStore::new(folder.path().to_path_buf());
        let listed: Vec<_> = store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        assert_eq!(listed, ["n1/lost+found/x"]);
        let folders = store.list_with_delimiter(None).await.unwrap().common_prefixes;
        assert_eq!(folders.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n1"]);
    }
}

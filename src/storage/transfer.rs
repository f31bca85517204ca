//! Moving file contents: one pass, hashed on the way, a few pieces in memory.
//!
//! A file is cut into pieces of [`PIECE`] bytes. One thread reads and hashes, another one writes, and a short queue lies
//! between them; files of one piece take a shorter way. Nothing is held whole in memory.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use futures::StreamExt as _;
use object_store::{Error, GetOptions, GetRange, GetResultPayload, ObjectStoreExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use super::blocking::inline;
use super::http::OpaqueETag;
use super::layout::ObjectKey;
use super::{Created, Storage, StorageError};
use crate::explain;
use crate::files::{self, set_mtime};
use crate::interrupt::Interrupt;
use crate::model::digest::{ContentDigest, DigestStream};
use crate::monitor::Counters;

/// Bytes read, hashed and written at a time.
pub const PIECE: usize = 1 << 20;

/// Pieces between the reading and the writing thread.
const QUEUE: usize = 4;

/// Parts of one file that are being written at a time.
const PARTS_IN_FLIGHT: usize = 2;

/// A local file to read, as it was when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    pub path: PathBuf,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
}

/// Why a file was not moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file on this node.
    #[error("could not read the file")]
    Source(#[source] io::Error),
    #[error("{path} changed while it was read")]
    Changed { path: PathBuf },
    #[error("{path} does not match its Digest.crc32: it should be {expected}, and it is {found}")]
    Corrupt { path: PathBuf, expected: u32, found: u32 },
    #[error("both content keys of {object} in {folder} hold something else; delete them if no backup names them")]
    WrongContent { object: String, folder: String },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("could not write the file")]
    Target(#[source] io::Error),
    #[error(transparent)]
    Interrupted(#[from] crate::error::Failure),
}

/// What happens beside the moving of bytes.
#[derive(Debug, Clone)]
pub struct Watch {
    pub counters: Arc<Counters>,
    pub interrupt: Interrupt,
}

/// An uploaded file, or one whose key was taken.
#[derive(Debug)]
pub struct Upload {
    pub digest: ContentDigest,
    pub created: Created,
    /// As cassandra-medusa would record it. `None`: nothing that is worth its cost.
    pub md5: Option<String>,
}

impl Storage {
    pub fn files_in_flight(&self) -> usize {
        self.settings.files_in_flight
    }

    /// Reads a file once and creates the object, unless the key is taken. With `crc32`, a content of another checksum is not
    /// stored.
    pub async fn upload(
        &self,
        source: &SourceFile,
        key: &ObjectKey,
        crc32: Option<u32>,
        watch: &Watch,
    ) -> Result<Upload, TransferError> {
        let upload = match &self.remote {
            Some(remote) => self.upload_remote(remote, source, key, crc32, watch).await,
            None if source.size <= PIECE as u64 => self.upload_small(source, key, crc32, watch).await,
            None => self.upload_large(source, key, crc32, watch).await,
        }?;
        watch.counters.add_file();
        Ok(upload)
    }

    async fn upload_small(
        &self,
        source: &SourceFile,
        key: &ObjectKey,
        crc32: Option<u32>,
        watch: &Watch,
    ) -> Result<Upload, TransferError> {
        watch.interrupt.check()?;
        let (content, digest) = inline(|| {
            let mut digest = DigestStream::new();
            let file = fs::File::open(&source.path).map_err(TransferError::Source)?;
            let content = read_whole(&file, source.size).map_err(TransferError::Source)?;
            digest.update(&content);
            let digest = digest.finish();
            check(source, &file, &digest, crc32)?;
            Ok::<_, TransferError>((content, digest))
        })?;
        let options = object_store::PutOptions::from(object_store::PutMode::Create);
        let put = self.store.put_opts(key.path(), content.into(), options).await;
        watch.counters.add_bytes(digest.size);
        self.stored(key, digest, put)
    }

    async fn upload_large(
        &self,
        source: &SourceFile,
        key: &ObjectKey,
        crc32: Option<u32>,
        watch: &Watch,
    ) -> Result<Upload, TransferError> {
        let begun = self.store.put_multipart(key.path()).await;
        let mut upload = begun.map_err(self.error("begin to upload", key.path()))?;
        let (pieces, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let (reader, interrupt) = (source.clone(), watch.interrupt.clone());
        let reading = spawn_blocking(move || {
            let mut digest = DigestStream::new();
            let file = fs::File::open(&reader.path).map_err(TransferError::Source)?;
            read_pieces(file.file(), reader.size, |piece| {
                digest.update(&piece);
                Ok(!interrupt.is_raised() && pieces.blocking_send(piece).is_ok())
            })
            .map_err(TransferError::Source)?;
            interrupt.check()?;
            let digest = digest.finish();
            check(&reader, &file, &digest, crc32)?;
            Ok::<_, TransferError>(digest)
        });
        let mut parts = JoinSet::new();
        let mut failed = None;
        while let Some(piece) = queue.recv().await {
            while parts.len() >= PARTS_IN_FLIGHT && failed.is_none() {
                failed = parts.join_next().await.and_then(part_error);
            }
            if failed.is_some() {
                break;
            }
            let size = piece.len() as u64;
            let (part, counters) = (upload.put_part(piece.into()), Arc::clone(&watch.counters));
            parts.spawn(async move { part.await.inspect(|()| counters.add_bytes(size)) });
        }
        drop(queue);
        while let Some(part) = parts.join_next().await {
            failed = failed.or(part_error(part));
        }
        let digest = match failed {
            Some(error) => Err(self.error("upload a part of", key.path())(error).into()),
            None => joined(reading.await),
        };
        match digest {
            Ok(digest) => self.stored(key, digest, upload.complete().await),
            Err(error) => {
                if let Err(abort) = upload.abort().await {
                    tracing::debug!("the upload of {key} could not be aborted: {abort}");
                }
                Err(error)
            }
        }
    }

    fn stored(
        &self,
        key: &ObjectKey,
        digest: ContentDigest,
        put: object_store::Result<object_store::PutResult>,
    ) -> Result<Upload, TransferError> {
        match put {
            Ok(_) => Ok(Upload { digest, created: Created::New, md5: None }),
            Err(Error::AlreadyExists { .. }) => Ok(Upload { digest, created: Created::Taken, md5: None }),
            Err(error) => Err(self.error("upload", key.path())(error).into()),
        }
    }

    /// Writes the object into a new file and digests what passes. With `part_sizes`, MD5 as well, also in parts.
    pub async fn download(
        &self,
        key: &ObjectKey,
        target: NewFile,
        part_sizes: Option<Vec<u64>>,
        watch: &Watch,
    ) -> Result<ContentDigest, TransferError> {
        let digest = self.stream(key, Some(target), part_sizes, watch).await?;
        watch.counters.add_file();
        Ok(digest)
    }

    /// Digests the object's content. With `part_sizes`, MD5 as well, also in parts.
    pub async fn digest_object(
        &self,
        key: &ObjectKey,
        part_sizes: Option<Vec<u64>>,
        watch: &Watch,
    ) -> Result<ContentDigest, TransferError> {
        self.stream(key, None, part_sizes, watch).await
    }

    async fn stream(
        &self,
        key: &ObjectKey,
        sink: Option<NewFile>,
        part_sizes: Option<Vec<u64>>,
        watch: &Watch,
    ) -> Result<ContentDigest, TransferError> {
        watch.interrupt.check()?;
        let got = self.store.get(key.path()).await.map_err(self.error("read", key.path()))?;
        let object = self.name_of(key.path());
        let failed = move |source: Error| StorageError { action: "read", object: object.clone(), source };
        let io_failed = {
            let failed = failed.clone();
            move |error: io::Error| failed(Error::Generic { store: "local", source: error.into() })
        };
        let digest = part_sizes.map_or_else(DigestStream::new, DigestStream::with_md5);
        let size = got.meta.size;
        let watch = watch.clone();
        match got.payload {
            GetResultPayload::File(file, _) if size <= PIECE as u64 || sink.is_none() => inline(|| {
                let mut pieces = Pieces::begin(sink, Some(digest), watch)?;
                read_pieces(&file, size, |piece| pieces.take(&piece)).map_err(io_failed)?;
                digested(pieces.finish()?)
            }),
            GetResultPayload::File(file, _) => {
                let (sender, queue) = sync_channel::<Bytes>(QUEUE);
                let interrupt = watch.interrupt.clone();
                let writing = spawn_blocking(move || take_all(Pieces::begin(sink, None, watch)?, queue.into_iter()));
                let reading = inline(|| {
                    let mut digest = digest;
                    read_pieces(&file, size, |piece| {
                        digest.update(&piece);
                        Ok(!interrupt.is_raised() && sender.send(piece).is_ok())
                    })
                    .map_err(io_failed)?;
                    Ok(digest.finish())
                });
                drop(sender);
                joined(writing.await)?;
                reading
            }
            GetResultPayload::Stream(mut stream) => {
                let is_opaque = got.extensions.get::<OpaqueETag>().is_some();
                let (e_tag, mut received, mut received_before) = (got.meta.e_tag, 0, 0);
                let (sender, mut queue) = mpsc::channel::<Bytes>(QUEUE);
                let writing = spawn_blocking(move || {
                    let queue = std::iter::from_fn(|| queue.blocking_recv());
                    take_all(Pieces::begin(sink, Some(digest), watch)?, queue)
                });
                let mut failure = None;
                while let Some(piece) = stream.next().await {
                    let piece = match piece {
                        Ok(piece) => piece,
                        // The store's own attempts are over, but they did get on. A large file may take hours.
                        Err(error) if received > received_before && e_tag.is_some() => {
                            let why = error.to_string();
                            tracing::debug!("{key} is read on from byte {received}: {}", explain::shortened(&why));
                            received_before = received;
                            let range = Some(GetRange::Offset(received));
                            let options = GetOptions { range, if_match: e_tag.clone(), ..GetOptions::default() };
                            match self.store.get_opts(key.path(), options).await {
                                Ok(rest) => stream = rest.into_stream(),
                                Err(error) => {
                                    failure = Some(failed(error));
                                    break;
                                }
                            }
                            continue;
                        }
                        Err(error) => {
                            failure = Some(failed(error));
                            break;
                        }
                    };
                    received += piece.len() as u64;
                    if sender.send(piece).await.is_err() {
                        break;
                    }
                }
                drop(sender);
                let digest = joined(writing.await)?;
                if failure.is_none() && received != size {
                    let short = format!("{received} bytes came of {size}");
                    failure = Some(failed(Error::Generic { store: "HTTP", source: short.into() }));
                }
                match failure {
                    Some(failure) => Err(failure.into()),
                    // What was recorded of it as MD5 is none.
                    None if is_opaque => digested(digest).map(|digest| ContentDigest { md5: None, ..digest }),
                    None => digested(digest),
                }
            }
        }
    }
}

/// Reads a local file through and digests it. With `part_sizes`, MD5 as well, also in parts.
pub fn digest_file(
    source: &SourceFile,
    part_sizes: Option<Vec<u64>>,
    watch: &Watch,
) -> Result<ContentDigest, TransferError> {
    inline(|| {
        let digest = part_sizes.map_or_else(DigestStream::new, DigestStream::with_md5);
        let file = fs::File::open(&source.path).map_err(TransferError::Source)?;
        let mut pieces = Pieces::begin(None, Some(digest), watch.clone())?;
        read_pieces(file.file(), source.size, |piece| pieces.take(&piece)).map_err(TransferError::Source)?;
        let digest = digested(pieces.finish()?)?;
        check(source, &file, &digest, None)?;
        Ok(digest)
    })
}

fn joined<T>(result: Result<Result<T, TransferError>, tokio::task::JoinError>) -> Result<T, TransferError> {
    result.unwrap_or_else(|error| Err(TransferError::Target(io::Error::other(error))))
}

pub(super) fn part_error(part: Result<object_store::Result<()>, tokio::task::JoinError>) -> Option<Error> {
    match part {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(source) => Some(Error::JoinError { source }),
    }
}

/// Of a file that was read to its end. Snapshots do not change, so a file that did is no part of one.
pub(super) fn check(
    source: &SourceFile,
    file: &fs::File,
    digest: &ContentDigest,
    crc32: Option<u32>,
) -> Result<(), TransferError> {
    let now = file.metadata().map_err(TransferError::Source)?;
    if (digest.size, now.len(), files::mtime(&now)) != (source.size, source.size, source.mtime) {
        return Err(TransferError::Changed { path: source.path.clone() });
    }
    match crc32 {
        Some(expected) if expected != digest.crc32 => {
            Err(TransferError::Corrupt { path: source.path.clone(), expected, found: digest.crc32 })
        }
        _ => Ok(()),
    }
}

pub(super) fn read_whole(file: &fs::File, size: u64) -> io::Result<Bytes> {
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(PIECE) + 1);
    // One byte more than expected tells that the file grew.
    file.take(size + 1).read_to_end(&mut content)?;
    Ok(content.into())
}

/// Hands over the file piece by piece until its end, or until `take` wants no more. `size` is what it should have: a smaller
/// file needs no whole piece of memory.
pub(super) fn read_pieces(file: &File, size: u64, mut take: impl FnMut(Bytes) -> io::Result<bool>) -> io::Result<()> {
    let mut offset = 0;
    // One byte more than expected tells that the file grew.
    let length = usize::try_from(size.saturating_add(1)).unwrap_or(PIECE).min(PIECE);
    loop {
        let mut piece = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut piece[filled..], offset)? {
                0 => break,
                n => {
                    filled += n;
                    offset += n as u64;
                }
            }
        }
        let last = filled < length;
        piece.truncate(filled);
        if (filled > 0 && !take(piece.into())?) || last {
            return Ok(());
        }
    }
}

/// A file that is to be created. What is called so already is from an attempt that was interrupted, and is replaced.
#[derive(Debug)]
pub struct NewFile {
    pub path: PathBuf,
    pub mode: u32,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Nanoseconds since 1970.
    pub mtime: Option<i64>,
}

impl NewFile {
    fn create(&self) -> io::Result<fs::File> {
        let create = || fs::OpenOptions::new().write(true).create_new(true).mode(self.mode).open(&self.path);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&self.path)?;
                create()?
            }
            other => other?,
        };
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::fchown(file.file(), Some(user), Some(group))?;
        }
        Ok(file)
    }
}

/// What becomes of the pieces of a content: they are digested, written, or both.
struct Pieces {
    target: Option<(NewFile, fs::File)>,
    digest: Option<DigestStream>,
    watch: Watch,
}

impl Pieces {
    fn begin(sink: Option<NewFile>, digest: Option<DigestStream>, watch: Watch) -> Result<Self, TransferError> {
        let create = |sink: NewFile| sink.create().map(|file| (sink, file));
        let target = sink.map(create).transpose().map_err(TransferError::Target)?;
        Ok(Self { target, digest, watch })
    }

    /// Returns false where no more pieces are wanted.
    fn take(&mut self, piece: &[u8]) -> io::Result<bool> {
        if let Some(digest) = &mut self.digest {
            digest.update(piece);
        }
        if let Some((_, target)) = &mut self.target {
            target.write_all(piece)?;
        }
        self.watch.counters.add_bytes(piece.len() as u64);
        Ok(!self.watch.interrupt.is_raised())
    }

    /// The digest, if the pieces were digested here.
    fn finish(self) -> Result<Option<ContentDigest>, TransferError> {
        self.watch.interrupt.check()?;
        if let Some((NewFile { mtime: Some(mtime), .. }, file)) = &self.target {
            set_mtime(file.file(), *mtime).map_err(TransferError::Target)?;
        }
        Ok(self.digest.map(DigestStream::finish))
    }
}

/// The writing thread.
fn take_all(mut pieces: Pieces, queue: impl Iterator<Item = Bytes>) -> Result<Option<ContentDigest>, TransferError> {
    for piece in queue {
        if !pieces.take(&piece).map_err(TransferError::Target)? {
            break;
        }
    }
    pieces.finish()
}

fn digested(digest: Option<ContentDigest>) -> Result<ContentDigest, TransferError> {
    digest.ok_or_else(|| TransferError::Target(io::Error::other("the digest was lost")))
}

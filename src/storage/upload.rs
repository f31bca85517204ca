//! Uploading to an object store: files that are not held in memory, each byte digested before it is sent.
//!
//! A file is read twice, the second time usually from memory: the request carries the digests of its body, so that the server
//! refuses what was damaged or changed on the way, and what does not match its own checksum is not sent at all. S3 gets the
//! parts that cassandra-medusa would send, because its `ETag` depends on them. A crash leaves parts that belong to no object;
//! the next backup of the node removes them.

use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fs_err as fs;
use md5::Digest as _;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{Error, MultipartUpload, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::blocking::inline;
use super::http::Protocol;
use super::http::body::{CONTENT, Content, FilePart};
use super::http::headers::CONFLICT;
use super::layout::ObjectKey;
use super::remote::{Found, Remote, Way};
use super::transfer::{PIECE, SourceFile, TransferError, Upload, Watch, check, part_error, read_pieces, read_whole};
use super::{Created, Storage};
use crate::explain;
use crate::model::digest::{ContentDigest, Crc64, DigestStream};
use crate::monitor::Counters;

/// A body that did not go through is sent so often again.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Large files are digested as many at a time as there are processors: more would not be done sooner, and the first one could not
/// be sent before nearly all of them are done.
static DIGESTED: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

impl Storage {
    /// Writes a small object, with what belongs to every object.
    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        content: Bytes,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let Some(remote) = &self.remote else {
            return self.store.put_opts(key.path(), content.into(), options).await;
        };
        options.attributes = remote.attributes();
        let sent = Content { md5: md5::Md5::digest(&content).into(), ..Content::default() };
        // Whoever calls knows what to think of a condition that is no longer met because an answer was lost.
        self.put_again(key, content, options, sent, false).await.inspect(|_| remote.bucket_is_there())
    }

    /// Puts until there is an answer. With `looks`, an object that is there after an answer was lost is not put again.
    async fn put_again(
        &self,
        key: &ObjectKey,
        content: Bytes,
        options: PutOptions,
        sent: Content,
        looks: bool,
    ) -> object_store::Result<PutResult> {
        let mut attempts = 0;
        loop {
            let put = self.store.put_opts(key.path(), content.clone().into(), options.clone());
            match CONTENT.scope(sent.clone(), put).await {
                Err(error) if is_transient(&error) && attempts < ATTEMPTS => {
                    if looks && self.look_up(key).await?.is_some() {
                        return Err(Error::AlreadyExists { path: key.to_string(), source: error.into() });
                    }
                    attempts += 1;
                    tokio::time::sleep(PAUSE * attempts).await;
                }
                put => return put,
            }
        }
    }

    pub(super) async fn upload_remote(
        &self,
        remote: &Arc<Remote>,
        source: &SourceFile,
        key: &ObjectKey,
        crc32: Option<u32>,
        watch: &Watch,
    ) -> Result<Upload, TransferError> {
        watch.interrupt.check()?;
        match remote.way(source.size) {
            Way::Whole => watch.interrupt.or_failure(self.upload_whole(remote, source, key, crc32, watch)).await,
            // Ends by itself, and takes its parts back.
            Way::Parts(size) => {
                let mut attempts = 0;
                loop {
                    let counters = Arc::new(Counters::part_of(&watch.counters));
                    let attempt = Watch { counters: Arc::clone(&counters), interrupt: watch.interrupt.clone() };
                    let upload = self.upload_parts(remote, source, key, crc32, &attempt, size).await;
                    if upload.is_err() {
                        counters.take_back_bytes(counters.amount().bytes);
                    }
                    match upload {
                        Err(TransferError::Storage(error)) if is_conflict(&error.source) && attempts < ATTEMPTS => {
                            attempts += 1;
                            tokio::time::sleep(PAUSE * attempts).await;
                        }
                        upload => return upload,
                    }
                }
            }
        }
    }

    async fn upload_whole(
        &self,
        remote: &Remote,
        source: &SourceFile,
        key: &ObjectKey,
        crc32: Option<u32>,
        watch: &Watch,
    ) -> Result<Upload, TransferError> {
        let file = inline(|| fs::File::open(&source.path)).map_err(TransferError::Source)?;
        let is_small = source.size <= PIECE as u64;
        let turn = if is_small { None } else { DIGESTED.acquire().await.ok() };
        let (content, digest, crc64) = inline(|| {
            let mut digest = DigestStream::with_md5(Vec::new());
            let mut crc64 = remote.checksums.then(Crc64::new);
            let mut content = Bytes::new();
            if is_small {
                content = read_whole(&file, source.size).map_err(TransferError::Source)?;
                digest.update(&content);
            } else {
                read_pieces(file.file(), source.size, |piece| {
                    digest.update(&piece);
                    if let Some(crc64) = &mut crc64 {
                        crc64.update(&piece);
                    }
                    Ok(!watch.interrupt.is_raised())
                })
                .map_err(TransferError::Source)?;
                watch.interrupt.check()?;
            }
            let digest = digest.finish();
            check(source, &file, &digest, crc32)?;
            Ok::<_, TransferError>((content, digest, crc64.map(|crc64| crc64.finish())))
        })?;
        drop(turn);
        let md5 = whole_md5(&digest);
        let counters = Arc::clone(&watch.counters);
        let part = FilePart { file: Arc::new(file), offset: 0, length: source.size, counters };
        // `object_store` computes that of a body in memory.
        let crc64 = crc64.filter(|_| !is_small);
        let sent = Content { of_file: true, file: (!is_small).then_some(part), md5, crc64, whole_md5: None };
        let mut options = PutOptions::from(PutMode::Create);
        options.attributes = remote.attributes();
        // Servers refuse to overwrite before they have read the body, and then nobody hears them.
        let put = self.put_again(key, content, options, sent, true).await;
        // Of a file in memory, and of what need not be sent, nothing was counted on the way.
        let uncounted = if is_small || put.is_err() { digest.size } else { 0 };
        let upload = self.uploaded(remote, key, digest, md5, &hex::encode(md5), put).await?;
        watch.counters.add_bytes(uncounted);
        Ok(upload)
    }

    async fn upload_parts(
        &self,
        remote: &Remote,
        source: &SourceFile,
        key: &ObjectKey,
        crc32: Option<u32>,
        watch: &Watch,
        part_size: u64,
    ) -> Result<Upload, TransferError> {
        let file = Arc::new(inline(|| fs::File::open(&source.path)).map_err(TransferError::Source)?);
        let options = PutMultipartOptions { attributes: remote.attributes(), ..PutMultipartOptions::default() };
        let options = options.with_retry_policy(Arc::new(PartsAgain));
        let begun = self.store.put_multipart_opts(key.path(), options).await;
        let mut upload = begun.map_err(self.error("begin to upload", key.path()))?;
        // Dropped halfway, by an interrupt or a failure, the parts would stay and cost.
        let sent = async {
            let mut digest = match remote.protocol {
                // The MD5 of the whole is what Azure records of a blob.
                Protocol::Azure => DigestStream::with_md5(Vec::new()),
                Protocol::S3 | Protocol::Gcs => DigestStream::new(),
            };
            let mut of_parts = md5::Md5::new();
            let (mut offset, mut count) = (0, 0_u64);
            let mut parts = JoinSet::new();
            while offset < source.size || count == 0 {
                let length = part_size.min(source.size - offset);
                let counters = Arc::clone(&watch.counters);
                let part = FilePart { file: Arc::clone(&file), offset, length, counters };
                let mut crc64 = remote.checksums.then(Crc64::new);
                let turn = DIGESTED.acquire().await;
                let md5 = inline(|| read_part(&part, &mut digest, crc64.as_mut(), watch))?;
                drop(turn);
                of_parts.update(md5);
                let crc64 = crc64.map(|crc64| crc64.finish());
                while parts.len() >= remote.parts_in_flight {
                    if let Some(error) = parts.join_next().await.and_then(part_error) {
                        return Err(self.error("upload a part of", key.path())(error).into());
                    }
                }
                let content = Content { of_file: true, file: Some(part), md5, crc64, whole_md5: None };
                parts.spawn(CONTENT.scope(content, upload.put_part(PutPayload::default())));
                offset += length;
                count += 1;
            }
            let digest = digest.finish();
            // Before the last part is waited for: what is wrong with the file is known by now.
            check(source, &file, &digest, crc32)?;
            while let Some(part) = parts.join_next().await {
                if let Some(error) = part_error(part) {
                    return Err(self.error("upload a part of", key.path())(error).into());
                }
            }
            let of_parts: [u8; 16] = of_parts.finalize().into();
            Ok::<_, TransferError>((digest, format!("{}-{count}", hex::encode(of_parts))))
        };
        let sent = watch.interrupt.or_failure(sent).await;
        let (digest, expected) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                abort(&mut upload, key).await;
                return Err(error);
            }
        };
        let whole = digest.md5.as_ref().map(|md5| md5.whole);
        let content = Content { whole_md5: whole, ..Content::default() };
        // Not every store that speaks the protocol of S3 looks at the condition here.
        let found = if self.is_doubtful() { self.look_up(key).await } else { Ok(None) };
        let put = match found {
            Ok(Some(_)) => Err(Error::AlreadyExists { path: key.to_string(), source: "it is there already".into() }),
            Ok(None) => {
                let put = CONTENT.scope(content, upload.complete()).await;
                put.and_then(|put| remote.check_parts(&expected, &put).map(|()| put))
            }
            // The parts are taken back first.
            Err(error) => Err(error),
        };
        if put.is_err() {
            abort(&mut upload, key).await;
        }
        self.uploaded(remote, key, digest, whole.unwrap_or_default(), &expected, put).await
    }

    /// `expected`: the `ETag` of S3 for this content, where it is one of the content at all.
    async fn uploaded(
        &self,
        remote: &Remote,
        key: &ObjectKey,
        digest: ContentDigest,
        md5: [u8; 16],
        expected: &str,
        put: object_store::Result<PutResult>,
    ) -> Result<Upload, TransferError> {
        match put {
            Ok(put) => {
                let md5 = remote.recorded_md5(md5, put.e_tag.as_deref());
                Ok(Upload { md5, digest, created: Created::New })
            }
            Err(error) => {
                let is_taken = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. });
                let may_be_done =
                    is_taken || matches!(error, Error::NotFound { .. }) || is_transient(&error) || is_conflict(&error);
                // Perhaps the answer to an earlier attempt was lost: then the parts are gone, and the object is there.
                let found = if may_be_done { self.look(key).await? } else { None };
                if found.is_none() {
                    return Err(self.error("upload", key.path())(error).into());
                }
                let is_same = found.as_ref().is_some_and(|found| {
                    found.size == digest.size
                        && (found.md5 == Some(md5)
                            || found.e_tag.as_deref().map(|tag| tag.trim_matches('"')) == Some(expected))
                });
                match found.filter(|_| is_same) {
                    Some(Found { e_tag, .. }) => {
                        let md5 = remote.recorded_md5(md5, e_tag.as_deref());
                        Ok(Upload { md5, digest, created: Created::New })
                    }
                    None => Ok(Upload { digest, created: Created::Taken, md5: None }),
                }
            }
        }
    }

    /// The way of a large file, whatever the size of this one.
    pub async fn upload_in_parts(
        &self,
        source: &SourceFile,
        key: &ObjectKey,
        part_size: u64,
        watch: &Watch,
    ) -> Result<Upload, TransferError> {
        match &self.remote {
            Some(remote) if remote.protocol != Protocol::Gcs => {
                self.upload_parts(remote, source, key, None, watch, part_size).await
            }
            _ => self.upload(source, key, None, watch).await,
        }
    }

    /// Begins an upload in parts and aborts it, which tries whether an object may be written and leaves none. Returns whether
    /// it could be aborted, and `None` where nothing was tried: only stores that speak the protocol of S3 say so at the beginning.
    pub async fn try_upload(&self, key: &ObjectKey) -> super::Result<Option<super::Result<()>>> {
        if self.remote.as_ref().is_none_or(|remote| remote.protocol != Protocol::S3) {
            return Ok(None);
        }
        let begun = self.store.put_multipart_opts(key.path(), PutMultipartOptions::default()).await;
        let mut upload = begun.map_err(self.error("begin to upload", key.path()))?;
        Ok(Some(upload.abort().await.map_err(self.error("abort the upload of", key.path()))))
    }
}

/// Where that fails the parts stay, and cost, until the next backup of the node removes them.
async fn abort(upload: &mut Box<dyn MultipartUpload>, key: &ObjectKey) {
    match upload.abort().await {
        // Completed by an attempt whose answer was lost.
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => tracing::warn!(
            "the upload of {key} could not be aborted, and its parts stay: {}",
            explain::shortened(&error.to_string())
        ),
    }
}

/// Whether another attempt may go better, and nothing is known of the effect of this one. `object_store` tries again within a
/// time that counts from its first attempt, and a large body may take longer than that.
fn is_transient(error: &Error) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.any(|cause| match cause.downcast_ref::<HttpError>() {
        Some(error) => !matches!(error.kind(), HttpErrorKind::Unknown | HttpErrorKind::Decode),
        None => cause.to_string().contains("non-2xx status code: 5"),
    })
}

/// Somebody else wrote to the key at the moment in which the parts were to become an object. AWS wants them anew.
fn is_conflict(error: &Error) -> bool {
    error.to_string().contains(CONFLICT)
}

/// The same for the parts of an object, each signed anew.
#[derive(Debug)]
struct PartsAgain;

#[async_trait]
impl RetryPolicy for PartsAgain {
    async fn retry(&self, context: RetryContext) -> bool {
        let is_transient = match context.failure {
            RetryFailure::Status(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 429),
            RetryFailure::Transport(kind) => !matches!(kind, HttpErrorKind::Unknown | HttpErrorKind::Decode),
            _ => false,
        };
        let attempt = u32::try_from(context.attempt).unwrap_or(u32::MAX);
        if !is_transient || attempt > ATTEMPTS {
            return false;
        }
        tokio::time::sleep(PAUSE * attempt).await;
        true
    }
}

fn whole_md5(digest: &ContentDigest) -> [u8; 16] {
    digest.md5.as_ref().map(|md5| md5.whole).unwrap_or_default()
}

/// Digests a part, alone and as what follows in the whole.
fn read_part(
    part: &FilePart,
    digest: &mut DigestStream,
    mut crc64: Option<&mut Crc64>,
    watch: &Watch,
) -> Result<[u8; 16], TransferError> {
    let mut md5 = md5::Md5::new();
    let mut piece = vec![0; PIECE];
    let (mut offset, end) = (part.offset, part.offset + part.length);
    while offset < end {
        watch.interrupt.check()?;
        let length = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
        let piece = &mut piece[..length];
        part.file.file().read_exact_at(piece, offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => TransferError::Changed { path: part.file.path().to_owned() },
            _ => TransferError::Source(error),
        })?;
        md5.update(&*piece);
        if let Some(crc64) = &mut crc64 {
            crc64.update(piece);
        }
        digest.update(piece);
        offset += length as u64;
    }
    Ok(md5.finalize().into())
}

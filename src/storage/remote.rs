//! Uploading to an object store: files that are not held in memory, each byte digested before it is sent.
//!
//! A file is read twice, the second time usually from memory: the request carries the MD5 of its body, so that the server
//! refuses what was damaged or changed on the way, and what does not match its own checksum is not sent at all. S3 gets the
//! parts that cassandra-medusa would send, because its `ETag` depends on them. A crash leaves parts that belong to no object;
//! the next backup of the node removes them.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fs_err as fs;
use md5::Digest as _;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{
    Attribute, AttributeValue, Attributes, Error, GetOptions, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};
use tokio::task::JoinSet;

use super::blocking::inline;
use super::http::body::{CONTENT, Content, FilePart};
use super::http::headers::CONFLICT;
use super::http::{OpaqueETag, Protocol, ServerMd5};
use super::layout::ObjectKey;
use super::transfer::{PIECE, SourceFile, TransferError, Upload, Watch, check, part_error, read_pieces, read_whole};
use super::uploads::{Abandoned, Uploads};
use super::{Created, Storage, absent_is_none};
use crate::explain;
use crate::model::digest::{ContentDigest, DigestStream, part_size};
use crate::monitor::Counters;

/// Azure takes more in one request, but then begins anew after a failure.
const LARGEST_BLOB: u64 = 256 << 20;

/// Blocks of a blob.
const MOST_BLOCKS: u64 = 50_000;
const LARGEST_BLOCK: u64 = 4000 << 20;

/// What S3 takes in one request.
const LARGEST_PUT: u64 = 5 << 30;

/// A body that did not go through is sent so often again.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// What an object store needs beyond `object_store`.
#[derive(Debug)]
pub struct Remote {
    pub protocol: Protocol,
    pub uploads: Option<Uploads>,
    /// Of everything that is written.
    pub storage_class: Option<String>,
    /// Files of so many bytes go up in parts.
    pub threshold: u64,
    /// As configured.
    pub part_size: u64,
    /// Of one file.
    pub parts_in_flight: usize,
    pub conditional: bool,
    /// Objects are encrypted with a key: what cassandra-medusa recorded as their MD5 is none.
    pub has_opaque_e_tags: bool,
    /// It is known that the store keeps to conditions.
    pub is_trusted: bool,
    pub seen: Seen,
}

/// What answers of a store told about it.
#[derive(Debug, Default)]
pub struct Seen {
    /// The bucket is there.
    bucket: AtomicBool,
    /// The `ETag` of an object made of parts is the MD5 of their MD5s.
    e_tags_of_parts: AtomicBool,
}

/// How a file goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    /// In parts of so many bytes.
    Parts(u64),
}

impl Remote {
    fn way(&self, size: u64) -> Way {
        match self.protocol {
            Protocol::Gcs => Way::Whole,
            Protocol::S3 if size < self.threshold.min(LARGEST_PUT) => Way::Whole,
            Protocol::S3 => Way::Parts(part_size(size, self.part_size)),
            Protocol::Azure if size <= LARGEST_BLOB => Way::Whole,
            Protocol::Azure => {
                let smallest = size.div_ceil(MOST_BLOCKS);
                Way::Parts(self.part_size.max(smallest).clamp(1 << 20, LARGEST_BLOCK))
            }
        }
    }

    /// What cassandra-medusa would record of an upload.
    fn recorded_md5(&self, whole: [u8; 16], e_tag: Option<&str>) -> Option<String> {
        match self.protocol {
            Protocol::S3 => e_tag.map(|e_tag| e_tag.trim_matches('"').to_owned()),
            Protocol::Gcs | Protocol::Azure => Some(STANDARD.encode(whole)),
        }
    }

    /// Compares the `ETag` of an object made of parts with what was sent. Stores that are not AWS may have another rule for it:
    /// they are held to this one once they kept to it.
    fn check_parts(&self, expected: &str, put: &PutResult) -> object_store::Result<()> {
        let is_opaque = self.has_opaque_e_tags || put.extensions.get::<OpaqueETag>().is_some();
        let found = put.e_tag.as_deref().map(|tag| tag.trim_matches('"').to_ascii_lowercase()).unwrap_or_default();
        if self.protocol != Protocol::S3 || is_opaque || !is_alike(&found, expected) {
            return Ok(());
        }
        if found == expected {
            self.seen.e_tags_of_parts.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if !self.is_trusted && !self.seen.e_tags_of_parts.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message = format!("the storage made something else of the parts: ETag {found} instead of {expected}");
        Err(Error::Generic { store: "S3", source: message.into() })
    }

    pub(super) fn has_bucket(&self) -> bool {
        self.seen.bucket.load(Ordering::Relaxed)
    }

    pub(super) fn bucket_is_there(&self) {
        self.seen.bucket.store(true, Ordering::Relaxed);
    }

    pub(super) fn attributes(&self) -> Attributes {
        let class = self.storage_class.clone();
        class.map(|class| (Attribute::StorageClass, AttributeValue::from(class))).into_iter().collect()
    }
}

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
        let sent = Content { file: None, md5: md5::Md5::digest(&content).into(), whole_md5: None };
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
        let (content, digest) = inline(|| {
            let mut digest = DigestStream::with_md5(Vec::new());
            let mut content = Bytes::new();
            if is_small {
                content = read_whole(&file, source.size).map_err(TransferError::Source)?;
                digest.update(&content);
            } else {
                read_pieces(file.file(), source.size, |piece| {
                    digest.update(&piece);
                    Ok(!watch.interrupt.is_raised())
                })
                .map_err(TransferError::Source)?;
                watch.interrupt.check()?;
            }
            let digest = digest.finish();
            check(source, &file, &digest, crc32)?;
            Ok::<_, TransferError>((content, digest))
        })?;
        let md5 = whole_md5(&digest);
        let counters = Arc::clone(&watch.counters);
        let part = FilePart { file: Arc::new(file), offset: 0, length: source.size, counters };
        let sent = Content { file: (!is_small).then_some(part), md5, whole_md5: None };
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
                let md5 = inline(|| read_part(&part, &mut digest, watch))?;
                of_parts.update(md5);
                while parts.len() >= remote.parts_in_flight {
                    if let Some(error) = parts.join_next().await.and_then(part_error) {
                        return Err(self.error("upload a part of", key.path())(error).into());
                    }
                }
                let content = Content { file: Some(part), md5, whole_md5: None };
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
                if let Err(abort) = upload.abort().await {
                    tracing::debug!(
                        "the upload of {key} could not be aborted: {}",
                        explain::shortened(&abort.to_string())
                    );
                }
                return Err(error);
            }
        };
        let whole = digest.md5.as_ref().map(|md5| md5.whole);
        let content = Content { file: None, md5: [0; 16], whole_md5: whole };
        // Not every store that speaks the protocol of S3 looks at the condition here.
        let put = if self.is_doubtful() && self.look(key).await?.is_some() {
            Err(Error::AlreadyExists { path: key.to_string(), source: "it is there already".into() })
        } else {
            let put = CONTENT.scope(content, upload.complete()).await;
            put.and_then(|put| remote.check_parts(&expected, &put).map(|()| put))
        };
        if put.is_err()
            && let Err(abort) = upload.abort().await
        {
            tracing::debug!("the upload of {key} could not be aborted: {}", explain::shortened(&abort.to_string()));
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

    /// What the store says about an object's content. `None`: proven absent.
    pub(super) async fn look(&self, key: &ObjectKey) -> super::Result<Option<Found>> {
        self.look_up(key).await.map_err(self.error("look at", key.path()))
    }

    async fn look_up(&self, key: &ObjectKey) -> object_store::Result<Option<Found>> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let found = absent_is_none(self.store.get_opts(key.path(), options).await)?;
        Ok(found.map(|found| {
            let md5 = found.extensions.get::<ServerMd5>().map(|md5| md5.0);
            Found { size: found.meta.size, e_tag: found.meta.e_tag, md5 }
        }))
    }

    /// The MD5 of an object's content, where the store knows it.
    pub async fn server_md5(&self, key: &ObjectKey) -> super::Result<Option<[u8; 16]>> {
        if self.remote.is_none() {
            return Ok(None);
        }
        Ok(self.look(key).await?.and_then(|found| found.md5))
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
    /// anything was tried: only stores that speak the protocol of S3 say so at the beginning.
    pub async fn try_upload(&self, key: &ObjectKey) -> super::Result<bool> {
        if self.remote.as_ref().is_none_or(|remote| remote.protocol != Protocol::S3) {
            return Ok(false);
        }
        let begun = self.store.put_multipart_opts(key.path(), PutMultipartOptions::default()).await;
        let mut upload = begun.map_err(self.error("begin to upload", key.path()))?;
        if let Err(error) = upload.abort().await {
            tracing::debug!("the upload of {key} could not be aborted: {}", explain::shortened(&error.to_string()));
        }
        Ok(true)
    }

    /// Whether the store itself refuses to overwrite.
    pub fn is_conditional(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.conditional)
    }

    pub fn has_unfinished_uploads(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.uploads.is_some())
    }

    /// Stores that speak the protocol of S3 do not all keep to its conditions, and some do not say so.
    pub(super) fn is_doubtful(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.conditional && !remote.is_trusted)
    }

    /// Whether recorded MD5s say nothing about contents.
    pub fn has_opaque_e_tags(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.has_opaque_e_tags)
    }

    /// Whether the `ETag` in a listing says something about the content.
    pub fn lists_digests(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.protocol == Protocol::S3 && !remote.has_opaque_e_tags)
    }

    /// Removes the parts that killed runs left below a node's folder. Only under the lease of the node.
    pub async fn abort_unfinished_uploads(
        &self,
        folder: &object_store::path::Path,
        abandoned: &Abandoned,
    ) -> anyhow::Result<usize> {
        let Some(uploads) = self.remote.as_ref().and_then(|remote| remote.uploads.as_ref()) else { return Ok(0) };
        uploads.abort_below(folder, abandoned).await
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

/// Whether both look like the MD5 of the MD5s of the same number of parts.
fn is_alike(e_tag: &str, expected: &str) -> bool {
    let parts = |tag: &str| {
        let (md5, count) = tag.split_once('-')?;
        (md5.len() == 32 && md5.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| count.to_owned())
    };
    parts(e_tag).is_some_and(|count| Some(count) == parts(expected))
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

/// What a look at an object told.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) size: u64,
    e_tag: Option<String>,
    md5: Option<[u8; 16]>,
}

fn whole_md5(digest: &ContentDigest) -> [u8; 16] {
    digest.md5.as_ref().map(|md5| md5.whole).unwrap_or_default()
}

/// Digests a part, alone and as what follows in the whole.
fn read_part(part: &FilePart, digest: &mut DigestStream, watch: &Watch) -> Result<[u8; 16], TransferError> {
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
        digest.update(piece);
        offset += length as u64;
    }
    Ok(md5.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(protocol: Protocol) -> Remote {
        Remote {
            protocol,
            uploads: None,
            storage_class: None,
            threshold: 20 << 20,
            part_size: 50 << 20,
            parts_in_flight: 4,
            conditional: true,
            has_opaque_e_tags: false,
            is_trusted: true,
            seen: Seen::default(),
        }
    }

    #[test]
    fn files_go_up_as_medusa_sends_them() {
        const MIB: u64 = 1 << 20;
        let s3 = remote(Protocol::S3);
        assert_eq!(s3.way(20 * MIB - 1), Way::Whole);
        assert_eq!(s3.way(20 * MIB), Way::Parts(50 * MIB));
        assert_eq!(s3.way(1 << 40), Way::Parts(200 * MIB));
        assert_eq!(remote(Protocol::Gcs).way(1 << 40), Way::Whole);
        let azure = remote(Protocol::Azure);
        assert_eq!(azure.way(256 * MIB), Way::Whole);
        assert_eq!(azure.way(257 * MIB), Way::Parts(50 * MIB));
        assert_eq!(azure.way(50_000 * 60 * MIB), Way::Parts(60 * MIB));
    }
    #[test]
    fn the_e_tag_of_parts_is_compared_where_it_is_known_to_be_one() {
        let of = |e_tag: &str| PutResult {
            e_tag: Some(format!("\"{e_tag}\"")),
            version: None,
            extensions: ::http::Extensions::new(),
        };
        let (sent, other) = (format!("{}-2", "a".repeat(32)), format!("{}-2", "b".repeat(32)));
        let aws = remote(Protocol::S3);
        aws.check_parts(&sent, &of(&sent.to_uppercase())).unwrap();
        let error = aws.check_parts(&sent, &of(&other)).unwrap_err().to_string();
        assert!(error.contains(&format!("ETag {other} instead of {sent}")), "{error}");
        // Not of that kind: of another number of parts, or no digest at all.
        for e_tag in [format!("{}-3", "b".repeat(32)), "b".repeat(32), "x".repeat(32) + "-2", String::new()] {
            aws.check_parts(&sent, &of(&e_tag)).unwrap();
        }
        let mut encrypted = of(&other);
        encrypted.extensions.insert(OpaqueETag);
        aws.check_parts(&sent, &encrypted).unwrap();
        Remote { has_opaque_e_tags: true, ..remote(Protocol::S3) }.check_parts(&sent, &of(&other)).unwrap();

        let unknown = Remote { is_trusted: false, ..remote(Protocol::S3) };
        unknown.check_parts(&sent, &of(&other)).unwrap();
        unknown.check_parts(&sent, &of(&sent)).unwrap();
        unknown.check_parts(&sent, &of(&other)).unwrap_err();
    }
}

//! What an object store needs beyond `object_store`: how it wants files, what its answers say about them, what it can do.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object_store::{Attribute, AttributeValue, Attributes, Error, GetOptions, PutResult};

use super::http::{OpaqueETag, Protocol, ServerMd5};
use super::layout::ObjectKey;
use super::uploads::{Abandoned, Uploads};
use super::{Storage, absent_is_none};
use crate::model::digest::part_size;

/// Azure takes more in one request, but then begins anew after a failure.
const LARGEST_BLOB: u64 = 256 << 20;

/// Blocks of a blob.
const MOST_BLOCKS: u64 = 50_000;
const LARGEST_BLOCK: u64 = 4000 << 20;

/// What S3 takes in one request.
const LARGEST_PUT: u64 = 5 << 30;

/// See the module.
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
    /// S3: what is sent carries a CRC-64 beside its MD5.
    pub checksums: bool,
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
pub(super) enum Way {
    Whole,
    /// In parts of so many bytes.
    Parts(u64),
}

impl Remote {
    pub(super) fn way(&self, size: u64) -> Way {
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
    pub(super) fn recorded_md5(&self, whole: [u8; 16], e_tag: Option<&str>) -> Option<String> {
        match self.protocol {
            Protocol::S3 => e_tag.map(|e_tag| e_tag.trim_matches('"').to_owned()),
            Protocol::Gcs | Protocol::Azure => Some(STANDARD.encode(whole)),
        }
    }

    /// Compares the `ETag` of an object made of parts with what was sent. Stores that are not AWS may have another rule for it:
    /// they are held to this one once they kept to it.
    pub(super) fn check_parts(&self, expected: &str, put: &PutResult) -> object_store::Result<()> {
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
    /// What the store says about an object's content. `None`: proven absent.
    pub(super) async fn look(&self, key: &ObjectKey) -> super::Result<Option<Found>> {
        self.look_up(key).await.map_err(self.error("look at", key.path()))
    }

    pub(super) async fn look_up(&self, key: &ObjectKey) -> object_store::Result<Option<Found>> {
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

/// Whether both look like the MD5 of the MD5s of the same number of parts.
fn is_alike(e_tag: &str, expected: &str) -> bool {
    let parts = |tag: &str| {
        let (md5, count) = tag.split_once('-')?;
        (md5.len() == 32 && md5.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| count.to_owned())
    };
    parts(e_tag).is_some_and(|count| Some(count) == parts(expected))
}

/// What a look at an object told.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) size: u64,
    pub(super) e_tag: Option<String>,
    pub(super) md5: Option<[u8; 16]>,
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
            checksums: false,
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

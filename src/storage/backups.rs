//! Reading what a repository says about backups. `meta/` is the truth; the index and the summaries are caches of it.

use anyhow::Context as _;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::layout::{InIndex, IndexEntry, Meta, ObjectKey, SummaryEntry};
use super::{Result, Storage, StorageError};
use crate::error::Failure;
use crate::model::backups::{BackupMode, NodeBackup, ServerVersion};
use crate::model::manifest::Manifest;
use crate::model::names::{BackupName, Fqdn};
use crate::model::tokenmap::Tokenmap;
use crate::model::totals::Totals;

/// Bytes that several readers share.
#[derive(Debug)]
pub struct Memory {
    /// Kibibytes: a semaphore counts with 32 bits.
    free: Semaphore,
    all: u32,
}

impl Memory {
    pub fn new(kibibytes: u32) -> Self {
        Self { free: Semaphore::new(kibibytes as usize), all: kibibytes }
    }

    /// Waits for so many bytes. `None`: there are never as many.
    async fn take(&self, bytes: u64) -> anyhow::Result<Option<SemaphorePermit<'_>>> {
        match u32::try_from(bytes.div_ceil(1 << 10)) {
            Ok(kibibytes) if kibibytes <= self.all => Ok(Some(self.free.acquire_many(kibibytes).await?)),
            _ => Ok(None),
        }
    }
}

/// What `meta/` of one backup's folder holds, also where that is less than a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaState {
    pub fqdn: Fqdn,
    pub name: BackupName,
    pub mode: BackupMode,
    /// When `schema.cql` was written.
    pub schema: Option<DateTime<Utc>>,
    /// When `manifest.json` was written.
    pub manifest: Option<DateTime<Utc>>,
}

impl MetaState {
    /// The backup that it makes. `None`: what begins a backup is not there.
    pub fn backup(&self) -> Option<NodeBackup> {
        Some(NodeBackup {
            name: self.name.clone(),
            fqdn: self.fqdn.clone(),
            mode: self.mode,
            started: self.schema?.timestamp(),
            finished: self.manifest.map(|written| written.timestamp()),
        })
    }

    /// Neither begun nor finished: what is left of a deleted backup.
    pub fn is_rest(&self) -> bool {
        self.schema.is_none() && self.manifest.is_none()
    }
}

impl Storage {
    /// The state of a node backup by its `meta/`. `None`: there is no such backup.
    pub async fn node_backup(&self, fqdn: &Fqdn, name: &BackupName) -> Result<Option<NodeBackup>> {
        // Nothing else makes a backup, and most that are asked for in vain were never begun.
        if !self.are_listings_current() && self.head(&self.layout().meta(fqdn, name, Meta::Schema)).await?.is_none() {
            return Ok(None);
        }
        Ok(self.meta_state(fqdn, name).await?.backup())
    }

    fn are_listings_current(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_trusted)
    }

    /// What `meta/` of a backup holds. Asks a folder for each object by its key, because the listings of some file systems are
    /// behind; those of AWS, Google and Azure are not, and cost one request.
    pub async fn meta_state(&self, fqdn: &Fqdn, name: &BackupName) -> Result<MetaState> {
        let [schema, manifest, differential, incremental] = if self.are_listings_current() {
            self.listed_meta(fqdn, name).await?
        } else {
            let written = async |meta| {
                let found = self.head(&self.layout().meta(fqdn, name, meta)).await?;
                Ok::<_, StorageError>(found.map(|object| object.last_modified))
            };
            let found = futures::try_join!(
                written(Meta::Schema),
                written(Meta::Manifest),
                written(Meta::Differential),
                written(Meta::Incremental)
            )?;
            found.into()
        };
        let differential = differential.or(incremental).is_some();
        Ok(MetaState {
            fqdn: fqdn.clone(),
            name: name.clone(),
            mode: if differential { BackupMode::Differential } else { BackupMode::Full },
            schema,
            manifest,
        })
    }

    /// When schema, manifest and the two markers of a differential were written.
    async fn listed_meta(&self, fqdn: &Fqdn, name: &BackupName) -> Result<[Option<DateTime<Utc>>; 4]> {
        let objects: Vec<_> = self.list(&self.layout().meta_folder(fqdn, name)).try_collect().await?;
        Ok([Meta::Schema, Meta::Manifest, Meta::Differential, Meta::Incremental].map(|meta| {
            let key = self.layout().meta(fqdn, name, meta);
            objects.iter().find(|object| object.location == *key.path()).map(|object| object.last_modified)
        }))
    }

    /// All folders of backups in a node's folder, by name.
    pub async fn backup_folders(&self, fqdn: &Fqdn) -> Result<Vec<MetaState>> {
        let folders = self.folders(&self.layout().node(fqdn)).await?;
        let names = folders.iter().filter_map(|folder| self.layout().backup_folder(fqdn, folder));
        let states = futures::stream::iter(names.map(async |name| self.meta_state(fqdn, &name).await));
        let mut states: Vec<_> = states.buffer_unordered(self.requests_in_flight()).try_collect().await?;
        states.sort_by(|a: &MetaState, b| a.name.cmp(&b.name));
        Ok(states)
    }

    /// The nodes that have a backup, by looking at all folders.
    pub async fn nodes(&self) -> Result<Vec<Fqdn>> {
        let folders = self.folders(&self.layout().root()).await?;
        let candidates: Vec<_> = folders.iter().filter_map(|folder| self.layout().node_folder(folder)).collect();
        let found = futures::stream::iter(candidates)
            .map(async |fqdn| Ok::<_, StorageError>(self.has_backup(&fqdn).await?.then_some(fqdn)))
            .buffer_unordered(self.requests_in_flight());
        let mut nodes: Vec<_> = found.try_filter_map(async |fqdn| Ok(fqdn)).try_collect().await?;
        nodes.sort();
        Ok(nodes)
    }

    /// Whether a folder is that of a node: it has a backup.
    async fn has_backup(&self, fqdn: &Fqdn) -> Result<bool> {
        for folder in self.folders(&self.layout().node(fqdn)).await? {
            let Some(name) = self.layout().backup_folder(fqdn, &folder) else { continue };
            if self.head(&self.layout().meta(fqdn, &name, Meta::Schema)).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The manifest of a finished node backup. `None`: proven absent.
    pub async fn manifest(&self, fqdn: &Fqdn, name: &BackupName) -> anyhow::Result<Option<Manifest>> {
        Ok(self.dated_manifest(fqdn, name).await?.map(|(manifest, _)| manifest))
    }

    /// The same, with the time at which it was written.
    pub async fn dated_manifest(
        &self,
        fqdn: &Fqdn,
        name: &BackupName,
    ) -> anyhow::Result<Option<(Manifest, DateTime<Utc>)>> {
        let key = self.layout().meta(fqdn, name, Meta::Manifest);
        let Some((meta, bytes)) = self.read_with_meta(&key).await? else { return Ok(None) };
        let (storage, fqdn, name) = (self.clone(), fqdn.clone(), name.clone());
        // Parsing takes a while for a node with many files.
        let parsed = tokio::task::spawn_blocking(move || storage.parse_manifest(&fqdn, &name, &bytes)).await?;
        Ok(Some((parsed?, meta.last_modified)))
    }

    /// Reads a manifest of a node. One that names an object outside of the node's folder is refused as a whole: nothing that is
    /// done with the backup may touch anything else.
    pub fn parse_manifest(
        &self,
        fqdn: &Fqdn,
        name: &BackupName,
        bytes: &[u8],
    ) -> std::result::Result<Manifest, Failure> {
        let unusable = |error: anyhow::Error| self.unusable(&self.layout().meta(fqdn, name, Meta::Manifest), error);
        let mut manifest = Manifest::parse(bytes).map_err(|error| unusable(error.into()))?;
        if self.has_opaque_e_tags() {
            manifest.forget_md5();
        }
        for object in manifest.objects() {
            self.layout().recorded(fqdn, &object.path).map_err(|error| unusable(error.into()))?;
        }
        Ok(manifest)
    }

    /// All nodes that have a folder, with the names of theirs that may be backups.
    pub async fn node_folders(&self) -> Result<Vec<(Fqdn, Vec<BackupName>)>> {
        let layout = self.layout();
        let mut nodes = Vec::new();
        for folder in self.folders(&layout.root()).await? {
            let Some(fqdn) = layout.node_folder(&folder) else { continue };
            let below = self.folders(&folder).await?;
            let names = below.iter().filter_map(|folder| layout.backup_folder(&fqdn, folder)).collect();
            nodes.push((fqdn, names));
        }
        Ok(nodes)
    }

    /// The token map as the node backup recorded it. `None`: proven absent.
    pub async fn tokenmap(&self, fqdn: &Fqdn, name: &BackupName) -> anyhow::Result<Option<Tokenmap>> {
        let key = self.layout().meta(fqdn, name, Meta::Tokenmap);
        let Some(bytes) = self.read(&key).await? else { return Ok(None) };
        Tokenmap::parse(&bytes).map(Some).map_err(|error| self.unusable(&key, error).into())
    }

    /// The server's version, or Medusa's stand-in where it was not recorded.
    pub async fn server_version(&self, fqdn: &Fqdn, name: &BackupName) -> Result<ServerVersion> {
        let bytes = self.read(&self.layout().meta(fqdn, name, Meta::ServerVersion)).await?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// A text of `meta/`. `None`: proven absent.
    pub async fn meta_text(&self, fqdn: &Fqdn, name: &BackupName, meta: Meta) -> anyhow::Result<Option<String>> {
        let key = self.layout().meta(fqdn, name, meta);
        let Some(bytes) = self.read(&key).await? else { return Ok(None) };
        String::from_utf8(bytes.into()).map(Some).map_err(|error| self.unusable(&key, error).into())
    }

    /// How much the manifest of a finished node backup names. Manifests take their bytes of `memory` while they are read, and
    /// those that are larger than all of it take none. `None`: proven absent. A failure: it is damaged.
    pub async fn manifest_totals(
        &self,
        fqdn: &Fqdn,
        name: &BackupName,
        memory: &Memory,
    ) -> anyhow::Result<Option<std::result::Result<Totals, Failure>>> {
        let key = self.layout().meta(fqdn, name, Meta::Manifest);
        let Some(found) = self.get(&key).await? else { return Ok(None) };
        let totals = if let Some(_held) = memory.take(found.meta.size).await? {
            let bytes = found.bytes().await.map_err(self.error("read", key.path()))?;
            tokio::task::spawn_blocking(move || Totals::parse(&bytes)).await?
        } else {
            let reader = SyncIoBridge::new(StreamReader::new(found.into_stream().map_err(std::io::Error::other)));
            let reader = std::io::BufReader::with_capacity(256 << 10, reader);
            tokio::task::spawn_blocking(move || Totals::read(reader)).await?
        };
        match totals {
            Ok(totals) => Ok(Some(Ok(totals))),
            Err(error) if error.is_io() => {
                Err(error).with_context(|| format!("could not read {}", self.name_of(key.path())))
            }
            Err(error) => Ok(Some(Err(self.unusable(&key, error)))),
        }
    }

    /// All summaries, or those of one backup name, with their keys.
    pub async fn summaries(&self, only: Option<&BackupName>) -> Result<Vec<(ObjectKey, SummaryEntry)>> {
        let layout = self.layout();
        let mut listing = self.list(&only.map_or_else(|| layout.summaries(), |name| layout.summaries_of(name)));
        let mut summaries = Vec::new();
        while let Some(object) = listing.try_next().await? {
            let entry = layout.parse_summary(&object.location);
            summaries.extend(entry.map(|entry| (ObjectKey::listed(object.location), entry)));
        }
        Ok(summaries)
    }

    /// The backup that the latest marker names. A cache: it may be behind, or name what is gone.
    pub async fn latest_name(&self, fqdn: &Fqdn) -> Result<Option<BackupName>> {
        let bytes: Option<Bytes> = self.read(&self.layout().latest_name(fqdn)).await?;
        let name = bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        Ok(name.and_then(|name| BackupName::existing(name.trim()).ok()))
    }

    /// All entries of the backup index. What nobody knows is passed over.
    pub async fn index_entries(&self) -> Result<Vec<IndexEntry>> {
        self.index(None).map_ok(|(entry, _)| entry).try_collect().await
    }

    /// The entries of the backup index, or of one backup in it, as they are listed.
    pub fn index(&self, only: Option<&BackupName>) -> BoxStream<'_, Result<(IndexEntry, ObjectMeta)>> {
        let layout = self.layout();
        let listing = self.list(&only.map_or_else(|| layout.index(), |name| layout.index_of(name)));
        let entries = listing.try_filter_map(async |object| {
            let entry = layout.parse_index_entry(&object.location);
            if entry.is_none() && layout.parse_in_index(&object.location) != InIndex::Clock {
                tracing::warn!("{} is no index entry and is passed over", self.name_of(&object.location));
            }
            Ok(entry.map(|entry| (entry, object)))
        });
        entries.boxed()
    }

    fn unusable(&self, key: &ObjectKey, error: impl Into<anyhow::Error>) -> Failure {
        Failure::failed(format!("{} cannot be used", self.name_of(key.path())))
            .cause(error)
            .hint("the stored object is damaged; other backups do not depend on it")
    }
}

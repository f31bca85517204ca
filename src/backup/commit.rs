//! How a backup begins to exist and how it is finished: the order of writes is what makes it safe.
//!
//! Begin: the marker of a differential, `meta/schema.cql` (from here the backup exists, unfinished), the rest of `meta/`, the
//! index. Then the data files.
//! Finish: everything is made durable, then `meta/manifest.json` is created (from here it is finished), then the latest
//! marker, the summary and the index, whose `finished` entry is the last.
//!
//! A crash before `schema.cql` leaves a marker that nobody reads. A crash after it leaves an unfinished backup, which the
//! same command continues. A crash after the manifest leaves a finished one without a `finished` entry; readers look at
//! `meta/`, and the same command writes what is missing. A run that loses its lease while it commits takes the manifest
//! back, unless another run goes on with this backup or has told of it.

use anyhow::Context as _;
use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::cassandra::facts::{ClusterFacts, Schema};
use crate::error::Failure;
use crate::model::backups::{BackupMode, NodeBackup, ServerVersion};
use crate::model::manifest::Manifest;
use crate::model::names::{BackupName, Fqdn};
use crate::model::pyjson;
use crate::model::summary::{HostsDigest, Summary};
use crate::model::tokenmap::parse_hosts;
use crate::monitor::Amount;
use crate::storage::layout::{IndexKind, Meta};
use crate::storage::lease::Lease;
use crate::storage::{Created, Storage};

/// One node's backup in the making.
#[derive(Debug, Clone)]
pub struct Writing<'a> {
    pub storage: &'a Storage,
    pub fqdn: &'a Fqdn,
    pub name: &'a BackupName,
    pub mode: BackupMode,
}

impl Writing<'_> {
    /// Makes the backup exist, or goes on with one that was begun. Returns when it was started, Unix seconds.
    pub async fn begin(&self, facts: &ClusterFacts, schema: &Schema) -> anyhow::Result<i64> {
        let tokenmap = Bytes::from(facts.tokenmap.to_bytes()?);
        let version = Bytes::from(pyjson::stored(&facts.version)?);
        // Before the backup exists: one without the marker is a full one.
        match self.mode {
            BackupMode::Differential => drop(self.create_meta(Meta::Differential, "differential").await?),
            BackupMode::Full => {
                let marker = |meta| self.storage.layout().meta(self.fqdn, self.name, meta);
                self.storage.delete([Meta::Differential, Meta::Incremental].map(marker).into()).await?;
            }
        }
        let begun = self.create_meta(Meta::Schema, schema.plain.clone()).await?;
        self.create_meta(Meta::SchemaInternals, schema.internals.clone()).await?;
        // A run that this one continues may have seen another ring or release.
        self.replace_meta(Meta::Tokenmap, tokenmap.clone()).await?;
        self.replace_meta(Meta::ServerVersion, version).await?;
        let started = self.started(begun).await?;
        self.index(IndexKind::Tokenmap, tokenmap).await?;
        // The index says what `meta/` holds.
        let earlier = match begun {
            Created::New => None,
            Created::Taken => self.storage.meta_text(self.fqdn, self.name, Meta::Schema).await?,
        };
        self.index(IndexKind::Schema, earlier.unwrap_or_else(|| schema.plain.clone())).await?;
        self.index(IndexKind::Started(started), started.to_string()).await?;
        if self.mode == BackupMode::Differential {
            self.index(IndexKind::Differential, "differential").await?;
        }
        Ok(started)
    }

    /// What the index says, if a run that this one continues wrote it; else the time of `schema.cql`.
    async fn started(&self, begun: Created) -> anyhow::Result<i64> {
        if begun == Created::Taken {
            for kind in self.entries().await? {
                if let IndexKind::Started(seconds) = kind {
                    return Ok(seconds);
                }
            }
        }
        let schema = self.storage.head(&self.storage.layout().meta(self.fqdn, self.name, Meta::Schema)).await?;
        Ok(schema.context("the backup that was just begun is not there")?.last_modified.timestamp())
    }

    /// The schema changed while the snapshot was taken, or since the backup was begun: the one that belongs to the data
    /// takes its place. The start time stays in the index.
    pub async fn replace_schema(&self, schema: &Schema) -> anyhow::Result<()> {
        self.replace_meta(Meta::Schema, schema.plain.clone()).await?;
        self.replace_meta(Meta::SchemaInternals, schema.internals.clone()).await?;
        self.index(IndexKind::Schema, schema.plain.clone()).await
    }

    /// Commits. `Err` before the manifest is written means that the backup is not finished.
    pub async fn commit(&self, lease: &Lease, manifest: &Manifest) -> anyhow::Result<Bytes> {
        let bytes = Bytes::from(manifest.to_bytes()?);
        let key = self.storage.layout().meta(self.fqdn, self.name, Meta::Manifest);
        self.storage.sync().await?;
        // That may have taken minutes.
        lease.confirm().await?;
        match self.storage.create_durably(&key, bytes.clone()).await? {
            Created::New => Ok(bytes),
            // The answer to the first attempt was lost.
            Created::Taken if self.storage.read(&key).await?.as_ref() == Some(&bytes) => Ok(bytes),
            Created::Taken => {
                let message = format!("another run has finished backup {} of {} in the meantime", self.name, self.fqdn);
                Err(Failure::failed(message).into())
            }
        }
    }

    /// Takes the commit back: the backup is unfinished again. Only right after it, and only by who made it. What the index may
    /// say of its end goes first.
    pub async fn withdraw(&self) -> anyhow::Result<()> {
        let layout = self.storage.layout();
        let of_the_end = self.entries().await?.into_iter().filter(IndexKind::is_of_the_end);
        let keys = of_the_end.map(|kind| layout.index_entry(self.name, self.fqdn, kind)).collect();
        self.storage.delete(keys).await?;
        self.storage.delete(vec![layout.meta(self.fqdn, self.name, Meta::Manifest)]).await?;
        Ok(())
    }

    /// Writes what can be computed from `meta/`: index, latest marker, summary.
    pub async fn publish(&self, backup: &NodeBackup, manifest: Bytes, facts: &Published) -> anyhow::Result<()> {
        let layout = self.storage.layout();
        let finished = backup.finished.context("the backup has no manifest")?;
        if facts.is_last || self.is_newest(finished).await? {
            self.storage.replace(&layout.latest_tokenmap(self.fqdn), facts.tokenmap.clone()).await?;
            self.storage.replace(&layout.latest_name(self.fqdn), self.name.to_string().into()).await?;
        }
        let summary = Summary {
            mode: backup.mode,
            started: backup.started,
            finished,
            num_objects: facts.all.files,
            size: facts.all.bytes,
            uploaded_objects: facts.uploaded.files,
            uploaded_size: facts.uploaded.bytes,
            hosts: HostsDigest::of(&parse_hosts(&facts.tokenmap)?),
            version: facts.version.clone(),
        };
        if let Some(key) = layout.summary(self.name, self.fqdn, &summary) {
            self.storage.replace(&key, env!("CARGO_PKG_VERSION").into()).await?;
        }
        self.index(IndexKind::Manifest, manifest).await?;
        self.index(IndexKind::Finished(finished), finished.to_string()).await
    }

    /// Whether no other backup of the node that the latest marker names was finished later.
    async fn is_newest(&self, finished: i64) -> anyhow::Result<bool> {
        let Some(latest) = self.storage.latest_name(self.fqdn).await? else { return Ok(true) };
        let latest = self.storage.node_backup(self.fqdn, &latest).await?;
        Ok(latest.and_then(|latest| latest.finished).is_none_or(|other| other <= finished))
    }

    /// Whether [`Self::publish`] came to its end. A bucket that was copied may have other times.
    pub async fn is_published(&self) -> anyhow::Result<bool> {
        Ok(self.entries().await?.iter().any(|kind| matches!(kind, IndexKind::Finished(_))))
    }

    /// Fails where there is more than a backup that was begun and less than one that was finished: what is left of a damaged one
    /// must not be taken for the beginning of this one, and nothing of it may be deleted.
    pub async fn expect_undamaged(&self, earlier: Option<&NodeBackup>) -> anyhow::Result<()> {
        let manifest = self.storage.layout().meta(self.fqdn, self.name, Meta::Manifest);
        if earlier.is_some_and(|backup| backup.finished.is_some()) {
            return Ok(());
        }
        let damage = if earlier.is_none() && self.storage.head(&manifest).await?.is_some() {
            "has lost its schema.cql, and has a manifest".to_owned()
        } else if self.entries().await?.iter().any(IndexKind::is_of_the_end) {
            format!("was finished, and {manifest} is missing")
        } else {
            return Ok(());
        };
        let (name, fqdn) = (self.name, self.fqdn);
        Err(Failure::failed(format!("backup {name} of {fqdn} {damage}"))
            .hint(format!(
                "take another --backup-name; medusa build-index says what can be mended, and medusa --fqdn {fqdn} delete-backup \
                 --backup-name {name} removes it"
            ))
            .into())
    }

    /// The index entries of this backup.
    async fn entries(&self) -> anyhow::Result<Vec<IndexKind>> {
        let layout = self.storage.layout();
        let mut listing = self.storage.list(&layout.index_of(self.name));
        let mut entries = Vec::new();
        while let Some(object) = listing.try_next().await? {
            let entry = layout.parse_index_entry(&object.location);
            entries.extend(entry.filter(|entry| entry.fqdn == *self.fqdn).map(|entry| entry.kind));
        }
        Ok(entries)
    }

    /// Publishes a backup from what it stored. Returns its manifest.
    pub async fn publish_stored(&self, backup: &NodeBackup) -> anyhow::Result<Manifest> {
        let read = async |meta| {
            let key = self.storage.layout().meta(self.fqdn, self.name, meta);
            let content = self.storage.read(&key).await?;
            content.with_context(|| format!("{} is missing", self.storage.name_of(key.path())))
        };
        let (bytes, tokenmap) = (read(Meta::Manifest).await?, read(Meta::Tokenmap).await?);
        let manifest = self.storage.parse_manifest(self.fqdn, self.name, &bytes)?;
        let facts = Published {
            tokenmap,
            version: self.storage.server_version(self.fqdn, self.name).await?,
            all: Amount { files: manifest.object_count(), bytes: manifest.total_bytes() },
            uploaded: Amount::default(),
            is_last: false,
        };
        self.publish(backup, bytes, &facts).await?;
        Ok(manifest)
    }

    /// Taken: written by the run that this one continues.
    async fn create_meta(&self, meta: Meta, content: impl Into<Bytes>) -> anyhow::Result<Created> {
        let key = self.storage.layout().meta(self.fqdn, self.name, meta);
        Ok(self.storage.create(&key, content.into()).await?)
    }

    /// Only of a backup that is not finished.
    async fn replace_meta(&self, meta: Meta, content: impl Into<Bytes>) -> anyhow::Result<()> {
        Ok(self.storage.replace(&self.storage.layout().meta(self.fqdn, self.name, meta), content.into()).await?)
    }

    async fn index(&self, kind: IndexKind, content: impl Into<Bytes>) -> anyhow::Result<()> {
        let key = self.storage.layout().index_entry(self.name, self.fqdn, kind);
        Ok(self.storage.replace(&key, content.into()).await?)
    }
}

/// What index, marker and summary say beyond the manifest.
#[derive(Debug, Clone)]
pub struct Published {
    pub tokenmap: Bytes,
    pub version: ServerVersion,
    pub all: Amount,
    pub uploaded: Amount,
    /// It was committed just now, under the lease.
    pub is_last: bool,
}

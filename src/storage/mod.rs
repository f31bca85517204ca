//! Typed reads and writes of a repository.
//!
//! Every read tells "found" from "proven absent"; any other answer is an error, so that nothing is decided on a guess.

pub mod aws_credentials;
pub mod azure;
pub mod backups;
pub mod blocking;
pub mod gcs;
pub mod http;
pub mod layout;
pub mod lease;
pub mod local;
pub mod provider;
pub mod remote;
pub mod s3;
mod terms;
pub mod transfer;
pub mod unconditional;
pub mod upload;
pub mod uploads;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use self::layout::{Layout, ObjectKey, Spot};
use self::local::{Durable, LocalStore};
use self::remote::Remote;

/// A storage request that failed, with the object that it was about.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {object}")]
pub struct StorageError {
    pub action: &'static str,
    /// The object with its bucket.
    pub object: String,
    pub source: Error,
}

impl StorageError {
    /// Whether an error came from the storage, and not from what was stored there.
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        error.chain().any(<dyn std::error::Error + 'static>::is::<Self>)
    }
}

pub type Result<T> = std::result::Result<T, StorageError>;

/// How much is done at a time.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub files_in_flight: usize,
    pub requests_in_flight: usize,
}

/// The name of an object that is only ever deleted.
const NEVER_WRITTEN: &str = "none";

/// Nobody needs so long to look at the time, or to check a storage.
const OLD_PROBE: TimeDelta = TimeDelta::hours(1);

/// What a conditional create found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there now.
    New,
    /// The key was taken; nothing was changed.
    Taken,
}

/// A bucket with its layout.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    location: String,
    local: Option<LocalStore>,
    remote: Option<Arc<Remote>>,
    settings: Settings,
}

impl Storage {
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How the bucket is called in messages: `s3://backups`, `/var/lib/medusa/backups`.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Requests that wait for an answer at a time.
    pub fn requests_in_flight(&self) -> usize {
        self.settings.requests_in_flight
    }

    /// Whether reading an object costs no more than reading a file.
    pub fn reads_are_cheap(&self) -> bool {
        self.local.is_some()
    }

    /// How an object is called in messages.
    pub fn name_of(&self, path: &Path) -> String {
        format!("{}/{path}", self.location)
    }

    fn error(&self, action: &'static str, path: &Path) -> impl FnOnce(Error) -> StorageError {
        let object = self.name_of(path);
        move |source| StorageError { action, object, source }
    }

    /// An object with its content still to be read. `None`: proven absent.
    async fn get(&self, key: &ObjectKey) -> Result<Option<GetResult>> {
        absent_is_none(self.store.get(key.path()).await).map_err(self.error("read", key.path()))
    }

    /// The whole object. `None`: proven absent.
    pub async fn read(&self, key: &ObjectKey) -> Result<Option<Bytes>> {
        Ok(self.read_with_meta(key).await?.map(|(_, content)| content))
    }

    /// The same, with the object's facts.
    pub async fn read_with_meta(&self, key: &ObjectKey) -> Result<Option<(ObjectMeta, Bytes)>> {
        let read = async {
            let got = self.store.get(key.path()).await?;
            Ok((got.meta.clone(), got.bytes().await?))
        };
        absent_is_none(read.await).map_err(self.error("read", key.path()))
    }

    /// A part of an object.
    pub async fn read_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(key.path(), range).await.map_err(self.error("read", key.path()))
    }

    /// The object's facts. `None`: proven absent.
    pub async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>> {
        let found = absent_is_none(self.store.head(key.path()).await).map_err(self.error("look at", key.path()))?;
        if found.is_none() {
            Box::pin(self.expect_bucket(key)).await?;
        }
        Ok(found)
    }

    /// AWS and Google answer to HEAD without a word, so an object without a bucket looks like an absent one. The first time
    /// that nothing is found, GET is asked, too.
    async fn expect_bucket(&self, key: &ObjectKey) -> Result<()> {
        let Some(remote) = self.remote.as_ref().filter(|remote| !remote.has_bucket()) else { return Ok(()) };
        match self.store.get_range(key.path(), 0..1).await {
            // Of an empty object there is no first byte.
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) if error.to_string().contains("416 Range Not Satisfiable") => {}
            Err(error) => return Err(self.error("look at", key.path())(error)),
        }
        remote.bucket_is_there();
        Ok(())
    }

    /// Creates an object unless its key is taken.
    pub async fn create(&self, key: &ObjectKey, content: Bytes) -> Result<Created> {
        self.create_with(key, content, PutOptions::from(PutMode::Create)).await
    }

    /// The same; the object is on the disk when the call returns.
    pub async fn create_durably(&self, key: &ObjectKey, content: Bytes) -> Result<Created> {
        let mut options = PutOptions::from(PutMode::Create);
        options.extensions.insert(Durable);
        self.create_with(key, content, options).await
    }

    async fn create_with(&self, key: &ObjectKey, content: Bytes, options: PutOptions) -> Result<Created> {
        match self.put(key, content, options).await {
            Ok(_) => Ok(Created::New),
            // AWS says so, too, where somebody else creates the object at this moment and may fail.
            Err(error @ Error::AlreadyExists { .. }) if self.remote.is_some() && self.head(key).await?.is_none() => {
                Err(self.error("create", key.path())(error))
            }
            Err(Error::AlreadyExists { .. }) => Ok(Created::Taken),
            Err(error) => Err(self.error("create", key.path())(error)),
        }
    }

    /// Writes an object that is a cache or a marker, whatever was there.
    pub async fn replace(&self, key: &ObjectKey, content: Bytes) -> Result<()> {
        self.put(key, content, PutOptions::default()).await.map(drop).map_err(self.error("write", key.path()))
    }

    /// All objects below a prefix of whole path elements, in no particular order.
    pub fn list(&self, prefix: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let object = self.name_of(prefix);
        let failed = move |source| StorageError { action: "list", object: object.clone(), source };
        self.store.list(Some(prefix)).map_err(failed).boxed()
    }

    /// The folders directly below a prefix.
    pub async fn folders(&self, prefix: &Path) -> Result<Vec<Path>> {
        let listed = self.store.list_with_delimiter(Some(prefix)).await.map_err(self.error("list", prefix))?;
        if let Some(remote) = &self.remote {
            remote.bucket_is_there();
        }
        Ok(listed.common_prefixes)
    }

    /// Deletes objects; those that are already gone are no error. Returns how many keys were handled.
    pub async fn delete(&self, keys: Vec<ObjectKey>) -> Result<u64> {
        let mut deleted = 0;
        let Some(first) = keys.first().cloned() else { return Ok(0) };
        let paths = keys.into_iter().map(|key| Ok(key.path().clone()));
        let mut results = self.store.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(Error::NotFound { .. }) => deleted += 1,
                Err(error) => return Err(self.error("delete objects, among them", first.path())(error)),
            }
        }
        Ok(deleted)
    }

    /// Fails unless what lies at these spots may be deleted, before the first object goes. Object stores are asked to delete
    /// what is not there, which says the same (and leaves a delete marker in a bucket with versions); of a folder `going` says
    /// where files go.
    pub async fn expect_deletable<'a>(
        &self,
        spots: impl IntoIterator<Item = Spot<'a>>,
        going: impl IntoIterator<Item = &'a ObjectKey>,
    ) -> Result<()> {
        let Some(local) = &self.local else {
            let keys = spots.into_iter().map(|spot| self.layout.probe(spot, NEVER_WRITTEN)).collect();
            return self.delete(keys).await.map(drop);
        };
        let mut last = None;
        for key in going {
            let folder = key.path().as_ref().rsplit_once('/').map(|(folder, _)| folder);
            if folder != last {
                local.expect_writable(key.path()).map_err(self.error("delete objects, among them", key.path()))?;
                last = folder;
            }
        }
        Ok(())
    }

    /// Removes a folder and those above it that are empty. Object stores have no folders.
    pub fn remove_empty_folder(&self, folder: &Path) {
        let Some(local) = &self.local else { return };
        let path = local.root().join(folder.as_ref());
        let inside = path.ancestors().take_while(|path| *path != local.root());
        // One that is not empty ends it.
        let _ = inside.map(fs_err::remove_dir).collect::<std::io::Result<Vec<()>>>();
    }

    /// The time by the storage's own clock, which also dates the objects. Writes a small object and takes it away again.
    pub async fn time(&self) -> Result<DateTime<Utc>> {
        let key = self.layout.clock(&uuid::Uuid::new_v4());
        self.replace(&key, Bytes::from_static(b"clock")).await?;
        let written = self.store.head(key.path()).await.map_err(self.error("look at", key.path()));
        self.delete(vec![key]).await?;
        Ok(written?.last_modified)
    }

    /// Removes what commands that were killed left in the index of [`Self::time`] and of a storage check.
    pub async fn remove_old_probes(&self, now: DateTime<Utc>) -> Result<()> {
        let layout = &self.layout;
        let folders = [layout.clocks(), layout.checks(), layout.probes(Spot::Index), layout.probes(Spot::Summaries)];
        let listings = futures::stream::iter(folders.map(|folder| self.list(&folder)));
        let objects: Vec<_> = listings.flatten_unordered(None).try_collect().await?;
        let is_old = |object: &ObjectMeta| now.signed_duration_since(object.last_modified) > OLD_PROBE;
        let old = objects.into_iter().filter(is_old).map(|object| ObjectKey::listed(object.location));
        self.delete(old.collect()).await.map(drop)
    }

    /// Makes everything durable that was written before. Object stores have nothing to do.
    pub async fn sync(&self) -> Result<()> {
        let Some(local) = &self.local else { return Ok(()) };
        local.sync().await.map_err(|error| StorageError {
            action: "flush to disk",
            object: self.location.clone(),
            source: Error::Generic { store: "local", source: error.into() },
        })
    }
}

fn absent_is_none<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

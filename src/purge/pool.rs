//! The pool of a node: which of its objects no manifest names.
//!
//! Of the manifests only hashes of the paths are kept, one number for each object of the node. Two paths with the same hash
//! only mean that an object stays that could go.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::path::Path;

use super::retention::is_within;
use crate::model::manifest::Manifest;
use crate::model::names::{BackupName, Fqdn};
use crate::monitor::Amount;
use crate::storage::layout::{BadKey, Layout, ObjectKey, Place, Pool};
use crate::storage::{self, Storage};

/// What the manifests of a node name.
#[derive(Debug, Default)]
pub struct Named {
    hasher: RandomState,
    pool: HashSet<u64>,
    /// Backups in whose folders another backup has files, with one that has them. Nobody writes such manifests; but what a
    /// manifest names must not be deleted.
    folders: HashMap<BackupName, BackupName>,
}

impl Named {
    /// # Errors
    /// A path that lies in no folder of the node. What it names cannot be told.
    pub fn add(&mut self, layout: &Layout, fqdn: &Fqdn, name: &BackupName, manifest: &Manifest) -> Result<(), BadKey> {
        for object in manifest.objects() {
            let key = layout.recorded(fqdn, &object.path)?;
            match layout.place(fqdn, &key) {
                Some(Place::Pool) => drop(self.pool.insert(self.hasher.hash_one(key.as_str()))),
                Some(Place::Backup(folder)) if folder == *name => {}
                Some(Place::Backup(folder)) => drop(self.folders.insert(folder, name.clone())),
                None => return Err(BadKey::Malformed(object.path.to_string())),
            }
        }
        Ok(())
    }

    /// Whether an object of the pool is named.
    pub fn has(&self, path: &Path) -> bool {
        self.pool.contains(&self.hasher.hash_one(path.as_ref()))
    }

    /// The backup that has files in the folder of this one.
    pub fn in_folder_of(&self, name: &BackupName) -> Option<&BackupName> {
        self.folders.get(name)
    }
}

/// The objects of a pool, told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// A manifest names them.
    pub named: Amount,
    /// No manifest names them, and they are younger than the grace period: a backup may have just written them.
    pub young: Amount,
    /// No manifest names them. With their sizes.
    pub garbage: Vec<(ObjectKey, u64)>,
    pub garbage_amount: Amount,
}

impl PoolState {
    /// Lists the pool. Must begin after the last manifest was read.
    pub async fn list(
        storage: &Storage,
        fqdn: &Fqdn,
        named: &Named,
        grace_days: u64,
        now: DateTime<Utc>,
    ) -> storage::Result<Self> {
        let mut state = Self::default();
        let mut objects = storage.list(&storage.layout().pool(fqdn, Pool::Differential));
        while let Some(object) = objects.try_next().await? {
            if named.has(&object.location) {
                state.named.add(object.size);
            } else if is_within(object.last_modified.timestamp(), grace_days, now.timestamp()) {
                state.young.add(object.size);
            } else {
                state.garbage_amount.add(object.size);
                state.garbage.push((ObjectKey::listed(object.location), object.size));
            }
        }
        Ok(state)
    }
}

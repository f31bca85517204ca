//! What may be written and deleted where commands do so: policies tell folders apart.
//!
//! An object is written only where one that is not there may be deleted, so that nothing stays. Elsewhere an upload in parts is
//! begun and aborted.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::report::{Outcome, Probe};
use super::{Check, What};
use crate::error::one_line;
use crate::model::names::Fqdn;
use crate::storage::layout::Spot;

pub(super) static WRITE_BACKUPS: What =
    What { name: "write backups", needs: "write objects below NODE/ and index/backup_index/", for_what: "backup-node" };
pub(super) static DELETE_META: What = What {
    name: "delete metadata",
    needs: "delete objects below NODE/BACKUP/meta/",
    for_what: "backup-node (what it takes back itself), delete-backup, purge",
};
pub(super) static DELETE_DATA: What = What {
    name: "delete data",
    needs: "delete objects below NODE/data/ and NODE/BACKUP/data/",
    for_what: "purge, delete-backup, backup-node --mode full (what an interrupted run left)",
};
pub(super) static DELETE_INDEX: What = What {
    name: "delete in the index",
    needs: "delete objects below index/backup_index/ and index/summaries/",
    for_what: "purge, delete-backup, build-index",
};

pub(super) static PROBES: [&What; 4] = [&WRITE_BACKUPS, &DELETE_META, &DELETE_DATA, &DELETE_INDEX];

/// Where something is written. What may be deleted in the folder of leases is tried without.
pub(super) fn all(fqdn: &Fqdn) -> [Spot<'_>; 5] {
    [Spot::Meta(fqdn), Spot::Pool(fqdn), Spot::Full(fqdn), Spot::Index, Spot::Summaries]
}

/// How it went at one spot. `Err` tells why not.
struct Tried {
    /// `None`: it was not tried.
    written: Option<Result<(), String>>,
    deleted: Result<(), String>,
}

impl Check<'_> {
    pub(super) async fn spots(&mut self) {
        let begin = Instant::now();
        let fqdn = self.context.fqdn.clone();
        let [meta, pool, full, index, summaries] = all(&fqdn).map(|spot| self.try_spot(spot));
        let (meta, pool, full, index, summaries) = futures::join!(meta, pool, full, index, summaries);
        let mut took = begin.elapsed();
        let written = written([&meta, &pool, &full, &index, &summaries]);
        for (what, outcome) in [
            (&WRITE_BACKUPS, written),
            (&DELETE_META, deleted([meta])),
            (&DELETE_DATA, deleted([pool, full])),
            (&DELETE_INDEX, deleted([index, summaries])),
        ] {
            if self.wants(what) {
                // They were made at the same time.
                self.probes.push(Probe { what, outcome, took: std::mem::replace(&mut took, Duration::ZERO) });
            }
        }
    }

    async fn try_spot(&self, spot: Spot<'_>) -> Tried {
        let storage = self.storage;
        let key = storage.layout().probe(spot, &self.folder);
        let told = |error: anyhow::Error| one_line(&error);
        if let Err(error) = storage.delete(vec![key.clone()]).await {
            let written = match storage.try_upload(&key).await {
                Ok(tried) => tried.map(|_| Ok(())),
                Err(error) => Some(Err(told(error.into()))),
            };
            return Tried { written, deleted: Err(told(error.into())) };
        }
        if let Err(error) = storage.replace(&key, Bytes::from_static(b"medusa")).await {
            let error = told(error.into());
            // Of a folder it is one permission, and a file that is not there says nothing.
            let deleted = if storage.reads_are_cheap() { Err(error.clone()) } else { Ok(()) };
            return Tried { written: Some(Err(error)), deleted };
        }
        let deleted = async {
            storage.delete(vec![key.clone()]).await?;
            anyhow::ensure!(storage.head(&key).await?.is_none(), "{} is still there", storage.name_of(key.path()));
            Ok(())
        };
        Tried { written: Some(Ok(())), deleted: deleted.await.map_err(told) }
    }
}

fn written(spots: [&Tried; 5]) -> Outcome {
    let tried: Vec<_> = spots.iter().filter_map(|spot| spot.written.as_ref()).collect();
    match tried.iter().find_map(|written| written.as_ref().err()) {
        Some(why) => Outcome::Failed(why.clone()),
        None if tried.len() < spots.len() => Outcome::LeftOut("what is written could not be taken away".to_owned()),
        None => Outcome::Ok(String::new()),
    }
}

fn deleted<const N: usize>(spots: [Tried; N]) -> Outcome {
    let failed = spots.into_iter().find_map(|spot| spot.deleted.err());
    failed.map_or_else(|| Outcome::Ok(String::new()), Outcome::Failed)
}

//! From `[storage]` to a [`Storage`].

use std::sync::Arc;

use object_store::ObjectStore;

use super::layout::Layout;
use super::local::LocalStore;
use super::{Settings, Storage};
use crate::config;
use crate::error::Failure;

/// Files in flight. Each holds a thread or two and some pieces in memory.
const MOST_FILES: usize = 64;

/// Opens the configured storage. Nothing is read or written yet.
///
/// # Errors
/// An unknown provider, or a missing key that the provider needs.
pub fn open(config: &config::Storage) -> Result<Storage, Failure> {
    if config.provider != "local" {
        return Err(Failure::usage(format!("storage_provider {:?} is not supported by this version", config.provider))
            .hint("this version stores to local folders only: storage_provider = local"));
    }
    let Some(base_path) = &config.base_path else {
        return Err(Failure::usage("base_path is missing in [storage]; storage_provider = local needs it"));
    };
    let local = LocalStore::new(base_path.join(&config.bucket_name));
    let location = local.root().display().to_string();
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let settings = Settings {
        files_in_flight: config.concurrent_transfers.max(2 * processors).min(MOST_FILES),
        requests_in_flight: config.concurrent_requests,
    };
    let store: Arc<dyn ObjectStore> = Arc::new(local.clone());
    Ok(Storage { store, layout: Layout::new(config.prefix.clone()), location, local: Some(local), settings })
}

/// A bucket in any store, for tests that simulate one.
#[must_use]
pub fn over(store: Arc<dyn ObjectStore>, location: &str) -> Storage {
    let settings = Settings { files_in_flight: 2, requests_in_flight: 16 };
    Storage { store, layout: Layout::new(None), location: location.to_owned(), local: None, settings }
}

/// The same bucket behind another store, for tests that make storage fail.
#[must_use]
pub fn wrapped(storage: Storage, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Storage {
    Storage { store: wrap(Arc::clone(&storage.store)), ..storage }
}

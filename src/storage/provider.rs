//! From `[storage]` to a [`Storage`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::http::{Connector, Options, Protocol};
use super::layout::Layout;
use super::local::LocalStore;
use super::remote::{Remote, Seen};
use super::unconditional::Unconditional;
use super::{Settings, Storage, azure, gcs, s3};
use crate::config;
use crate::config::object_store::{self as keys, Addressing, Checksums, Encryption};
use crate::error::Failure;

/// Files in flight. Each holds a thread or two and some pieces in memory.
const MOST_FILES: usize = 64;

/// Files in flight between here and an object store, where nothing is configured: small ones spend their time waiting.
const FILES_OVER_THE_NETWORK: usize = 16;

/// Providers as they are written in medusa.ini.
const PROVIDERS: &str =
    "local, s3, s3_<region> (for example s3_eu_west), s3_compatible, s3_rgw, ibm_storage, google_storage, azure_blobs";

/// Opens the configured storage. Nothing is read or written yet.
///
/// # Errors
/// An unknown provider, or a missing or bad key that the provider needs.
pub fn open(config: &config::Storage) -> Result<Storage, Failure> {
    match config.provider.as_str() {
        "local" => open_local(config),
        "google_storage" => open_remote(config, Protocol::Gcs),
        "azure_blobs" => open_remote(config, Protocol::Azure),
        provider if s3::is_s3(provider) => open_remote(config, Protocol::S3),
        provider => Err(unknown(provider)),
    }
}

fn open_local(config: &config::Storage) -> Result<Storage, Failure> {
    let Some(base_path) = &config.base_path else {
        return Err(Failure::usage("base_path is missing in [storage]; storage_provider = local needs it"));
    };
    let local = LocalStore::new(base_path.join(&config.bucket_name));
    let location = local.root().display().to_string();
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let settings = Settings {
        files_in_flight: config.concurrent_transfers.unwrap_or(1).max(2 * processors).min(MOST_FILES),
        requests_in_flight: config.concurrent_requests,
    };
    let store: Arc<dyn ObjectStore> = Arc::new(local.clone());
    let layout = Layout::new(config.prefix.clone());
    Ok(Storage { store, layout, location, local: Some(local), remote: None, settings })
}

fn open_remote(config: &config::Storage, protocol: Protocol) -> Result<Storage, Failure> {
    let keys = &config.object_store;
    let bucket = config.bucket_name.as_str();
    check_applies(keys, protocol)?;
    let ca = authority(keys, protocol);
    let options = Options {
        protocol,
        bucket: bucket.to_owned(),
        verify: keys.ssl_verify,
        ca: ca.iter().map(|(origin, file)| read(file, origin)).collect::<Result<_, _>>()?,
        patience: keys.read_timeout,
        bandwidth: keys.transfer_max_bandwidth,
        conditional: keys.conditional_create,
    };
    let is_others = s3::is_others(&config.provider);
    let environment = std::env::var("AWS_REQUEST_CHECKSUM_CALCULATION").ok();
    let checksums = protocol == Protocol::S3 && sends_checksums(keys.checksums, environment.as_deref(), !is_others);
    let connector = Connector::new(&options).map_err(|error| match &ca {
        Some((origin, file)) => {
            Failure::usage(format!("{origin} {} holds no certificates that can be used", file.display())).cause(error)
        }
        None => Failure::failed("the HTTP client could not be made").cause(error),
    })?;
    let (store, uploads, location): (Arc<dyn ObjectStore>, _, _) = match protocol {
        Protocol::S3 => {
            let (store, uploads) = s3::open(&config.provider, bucket, keys, &connector, checksums)?;
            (Arc::new(store), Some(uploads), format!("s3://{bucket}"))
        }
        Protocol::Gcs => (Arc::new(gcs::open(bucket, keys, &connector)?), None, format!("gs://{bucket}")),
        Protocol::Azure => (Arc::new(azure::open(bucket, keys, &connector)?), None, format!("azure://{bucket}")),
    };
    let store = if keys.conditional_create { store } else { Arc::new(Unconditional(store)) };
    let remote = Remote {
        protocol,
        uploads,
        storage_class: keys.storage_class.as_deref().map(|class| storage_class(protocol, class)),
        threshold: config.multi_part_upload_threshold,
        part_size: config.multipart_chunksize,
        parts_in_flight: keys.multipart_max_concurrency,
        conditional: keys.conditional_create,
        checksums,
        has_opaque_e_tags: !matches!(keys.encryption, Encryption::Bucket),
        // Those are known to keep to conditions.
        is_trusted: !is_others,
        seen: Seen::default(),
    };
    let settings = Settings {
        files_in_flight: config.concurrent_transfers.unwrap_or(FILES_OVER_THE_NETWORK).min(MOST_FILES),
        requests_in_flight: config.concurrent_requests,
    };
    let layout = Layout::new(config.prefix.clone());
    Ok(Storage { store, layout, location, local: None, remote: Some(Arc::new(remote)), settings })
}

/// Certificates of authorities beside the system's, and what names their file: `ca_file`, or the variable that other programs
/// for AWS obey. What is the system's may be said by `SSL_CERT_FILE`, which rustls obeys.
fn authority(keys: &keys::ObjectStore, protocol: Protocol) -> Option<(&'static str, PathBuf)> {
    let bundle = || std::env::var_os("AWS_CA_BUNDLE").filter(|file| protocol == Protocol::S3 && !file.is_empty());
    match &keys.ca_file {
        Some(file) => Some(("ca_file in [storage]", file.clone())),
        None => bundle().map(|file| ("AWS_CA_BUNDLE in the environment", file.into())),
    }
}

/// Whether S3 gets checksums that not all that speak its protocol know.
fn sends_checksums(configured: Checksums, environment: Option<&str>, is_aws: bool) -> bool {
    match configured {
        Checksums::WhenSupported => true,
        Checksums::WhenRequired => false,
        Checksums::Auto => match environment {
            Some(value) if value.eq_ignore_ascii_case("when_required") => false,
            Some(value) if value.eq_ignore_ascii_case("when_supported") => true,
            _ => is_aws,
        },
    }
}

/// A key without effect for the provider is refused where somebody would rely on it.
fn check_applies(keys: &keys::ObjectStore, protocol: Protocol) -> Result<(), Failure> {
    let only_s3 = |key: &str| Err(Failure::usage(format!("{key} in [storage] has an effect with S3 only")));
    if protocol == Protocol::S3 {
        return Ok(());
    }
    match keys.encryption {
        Encryption::Bucket => {}
        Encryption::Kms(_) => return only_s3("kms_id"),
        Encryption::Customer(_) => return only_s3("sse_c_key"),
    }
    if keys.addressing != Addressing::Auto {
        tracing::warn!("s3_addressing_style in [storage] has an effect with S3 only");
    }
    Ok(())
}

/// As the provider spells it.
fn storage_class(protocol: Protocol, class: &str) -> String {
    match protocol {
        Protocol::S3 | Protocol::Gcs => class.to_uppercase(),
        Protocol::Azure => {
            let mut letters = class.chars();
            let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
            first + &letters.as_str().to_lowercase()
        }
    }
}

/// Whether there is a provider of that name.
pub fn is_known(provider: &str) -> bool {
    matches!(provider, "local" | "google_storage" | "azure_blobs") || s3::is_known(provider)
}

pub fn unknown(provider: &str) -> Failure {
    Failure::usage(format!("storage_provider {provider:?} in [storage] is not known"))
        .hint(format!("it must be one of {PROVIDERS}"))
}

pub(super) fn unusable(error: object_store::Error) -> Failure {
    Failure::usage("the storage cannot be used as it is configured").cause(error)
}

pub(super) fn bad_key_file(file: &Path, why: &str) -> Failure {
    Failure::usage(format!("key_file {} cannot be used: {why}", file.display()))
}

fn read(file: &Path, origin: &str) -> Result<Vec<u8>, Failure> {
    fs_err::read(file).map_err(|error| Failure::usage(format!("{origin} cannot be read")).cause(error))
}

pub(super) fn read_key_file(file: &Path) -> Result<String, Failure> {
    String::from_utf8(read(file, "key_file in [storage]")?).map_err(|_| bad_key_file(file, "it is not text"))
}

/// `https://host:port`, or http where `secure` is off.
pub(super) fn url(host: &str, keys: &keys::ObjectStore) -> String {
    let scheme = if keys.secure { "https" } else { "http" };
    match keys.port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
}

/// How often and for how long a request is tried again. Waits grow from a tenth of a second, at random.
pub(super) fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
            // Waits are drawn at random: with 2 all of them come to less than three seconds.
            base: 3.0,
        },
        max_retries: 10,
        retry_timeout: Duration::from_mins(3),
    }
}

/// A bucket in any store, for tests that simulate one.
#[must_use]
pub fn over(store: Arc<dyn ObjectStore>, location: &str) -> Storage {
    let settings = Settings { files_in_flight: 2, requests_in_flight: 16 };
    let layout = Layout::new(None);
    Storage { store, layout, location: location.to_owned(), local: None, remote: None, settings }
}

/// The same bucket behind another store, for tests that make storage fail.
#[must_use]
pub fn wrapped(storage: Storage, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Storage {
    Storage { store: wrap(Arc::clone(&storage.store)), ..storage }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_go_where_they_are_known_unless_somebody_says_otherwise() {
        let decided = |configured, is_aws| sends_checksums(configured, None, is_aws);
        assert!(decided(Checksums::Auto, true) && !decided(Checksums::Auto, false));
        assert!(decided(Checksums::WhenSupported, false) && !decided(Checksums::WhenRequired, true));
        let by_environment = |value| sends_checksums(Checksums::Auto, Some(value), true);
        assert!(!by_environment("WHEN_REQUIRED") && by_environment("when_supported") && by_environment("sometimes"));
        assert!(sends_checksums(Checksums::WhenSupported, Some("when_required"), false));
    }
}

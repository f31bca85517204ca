//! What every storage must do, on each of them: a folder, memory, and real servers of S3, Google Cloud Storage and Azure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use medusa::config::{Config, Overrides};
use medusa::interrupt::Interrupt;
use medusa::model::digest::Sha256;
use medusa::model::names::{BackupName, Fqdn};
use medusa::monitor::Amount;
use medusa::storage::layout::ObjectKey;
use medusa::storage::lease::Work;
use medusa::storage::transfer::{NewFile, SourceFile, Watch};
use medusa::storage::unconditional::Unconditional;
use medusa::storage::{Created, Storage, provider};
use object_store::memory::InMemory;
use serde_json::json;

use crate::lab::stores::ObjectServer;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::lab::{scratch, unique};

/// A storage as a configuration opens it.
pub fn open(settings: &[(&'static str, String)], more: &[(&str, &str)]) -> Storage {
    let given = settings.iter().map(|(key, value)| (*key, value.as_str())).chain(more.iter().copied());
    // The last one counts.
    let keys: BTreeMap<_, _> = given.collect();
    let lines: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let text = format!("[storage]\nfqdn = n1\n{lines}");
    medusa::cassandra::tls::install_provider();
    let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
    provider::open(&config.storage).unwrap()
}

fn on(server: &impl ObjectServer, name: &str) -> Storage {
    in_bucket(server, &server.new_bucket(name), &[])
}

fn in_bucket(server: &impl ObjectServer, bucket: &str, more: &[(&str, &str)]) -> Storage {
    open(&server.settings(bucket), &[&[("transfer_max_bandwidth", "0")], more].concat())
}

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        /// Checks per storage.
        const CHECKS: &[&str] = &[$(stringify!($test)),*];

        async fn all(storage: Storage, provider: &str) {
            $(
                println!("{provider}: {}", stringify!($test));
                checks::$test(&storage).await;
            )*
            println!("{provider}: {} checks passed", CHECKS.len());
        }
    };
}

conformance!(
    what_is_created_is_there_and_stays,
    what_is_absent_is_told_from_what_failed,
    caches_are_replaced,
    prefixes_are_whole_elements,
    keys_with_every_character,
    files_under_keys_with_every_character,
    files_in_parts_under_odd_keys,
    many_objects_are_listed_and_deleted,
    files_of_every_size_come_back,
    a_taken_key_is_not_overwritten_by_a_file,
    ranges,
    a_lease_is_held_by_one,
    the_clock_is_that_of_the_storage,
    a_key_is_kept_or_refused,
);

#[tokio::test(flavor = "multi_thread")]
async fn local() {
    let folder = scratch("conformance");
    let base = folder.path().display().to_string();
    let settings = [("storage_provider", "local".to_owned()), ("bucket_name", "b".to_owned()), ("base_path", base)];
    all(open(&settings, &[]), "local").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    let memory = Unconditional(Arc::new(InMemory::new()));
    all(provider::over(Arc::new(memory), "memory"), "memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio() {
    all(on(Minio::shared(), "conformance"), "s3_compatible (MinIO)").await;
}

const UNCONDITIONAL: [(&str, &str); 1] = [("conditional_create", "False")];

#[tokio::test(flavor = "multi_thread")]
async fn minio_without_conditional_create() {
    let bucket = Minio::shared().new_bucket("conformance");
    let storage = in_bucket(Minio::shared(), &bucket, &UNCONDITIONAL);
    all(storage, "s3_compatible, conditional_create = False").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_by_https() {
    let storage = on(Minio::secure(), "conformance");
    all(storage, "s3_compatible by https, with an authority of its own").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_with_a_key_of_ones_own() {
    let bucket = Minio::secure().new_bucket("conformance");
    let more = [("sse_c_key", "bGFiLWxhYi1sYWItbGFiLWxhYi1sYWItbGFiLWxhYi0=")];
    all(in_bucket(Minio::secure(), &bucket, &more), "s3_compatible, SSE-C").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_with_a_key_of_the_service() {
    let bucket = Minio::secure().new_bucket("conformance");
    all(in_bucket(Minio::secure(), &bucket, &[("kms_id", "lab-key")]), "s3_compatible, SSE-KMS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_with_versions() {
    let bucket = format!("conformance-{}", unique());
    Minio::shared().create_versioned_bucket(&bucket);
    all(in_bucket(Minio::shared(), &bucket, &[]), "s3_compatible, a bucket with versions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_that_locks_its_objects() {
    let bucket = format!("conformance-{}", unique());
    Minio::shared().create_locked_bucket(&bucket);
    Minio::shared().default_retention(&bucket, "COMPLIANCE", 1);
    all(in_bucket(Minio::shared(), &bucket, &[]), "s3_compatible, a bucket that locks its objects").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_for_somebody_who_may_do_nothing_else() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("conformance");
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": format!("arn:aws:s3:::{bucket}"),
        },
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": format!("arn:aws:s3:::{bucket}/*"),
        },
    ]});
    let key_file = minio.key_file(&minio.restricted(&policy)).display().to_string();
    let other = in_bucket(minio, &minio.new_bucket("conformance"), &[("key_file", key_file.as_str())]);
    other.head(&key("x")).await.unwrap_err();
    all(in_bucket(minio, &bucket, &[("key_file", key_file.as_str())]), "s3_compatible, few permissions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google() {
    all(on(FakeGcs::shared(), "conformance"), "google_storage (fake-gcs-server)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google_without_conditional_create() {
    let bucket = FakeGcs::shared().new_bucket("conformance");
    let storage = in_bucket(FakeGcs::shared(), &bucket, &UNCONDITIONAL);
    all(storage, "google_storage, conditional_create = False").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure() {
    all(on(Azurite::shared(), "conformance"), "azure_blobs (Azurite)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_without_conditional_create() {
    let bucket = Azurite::shared().new_bucket("conformance");
    let storage = in_bucket(Azurite::shared(), &bucket, &UNCONDITIONAL);
    all(storage, "azure_blobs, conditional_create = False").await;
}

pub fn key(path: &str) -> ObjectKey {
    ObjectKey::listed(object_store::path::Path::parse(path).unwrap())
}

pub fn watch() -> Watch {
    Watch { counters: Arc::default(), interrupt: Interrupt::default() }
}

/// A file whose content its size tells.
pub fn file(folder: &Path, name: &str, size: usize) -> SourceFile {
    let path = folder.join(name);
    let content: Vec<u8> = (0..size).map(|at| (at * 31 + size).to_le_bytes()[usize::from(at % 3 == 0)]).collect();
    std::fs::write(&path, content).unwrap();
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    SourceFile { path, size: size as u64, mtime: i64::try_from(since.as_nanos()).unwrap() }
}

mod checks {
    use super::*;

    async fn names(storage: &Storage, prefix: &str) -> Vec<String> {
        let prefix = object_store::path::Path::parse(prefix).unwrap();
        let objects: Vec<_> = storage.list(&prefix).try_collect().await.unwrap();
        let mut names: Vec<_> = objects.into_iter().map(|object| object.location.to_string()).collect();
        names.sort();
        names
    }

    pub async fn what_is_created_is_there_and_stays(storage: &Storage) {
        let key = key("a/created");
        assert_eq!(storage.create(&key, Bytes::from_static(b"one")).await.unwrap(), Created::New);
        assert_eq!(storage.create(&key, Bytes::from_static(b"two")).await.unwrap(), Created::Taken);
        assert_eq!(storage.create_durably(&key, Bytes::from_static(b"two")).await.unwrap(), Created::Taken);
        assert_eq!(storage.read(&key).await.unwrap().unwrap(), "one");
        assert_eq!(storage.head(&key).await.unwrap().unwrap().size, 3);
    }

    pub async fn what_is_absent_is_told_from_what_failed(storage: &Storage) {
        let key = key("a/absent");
        assert!(storage.read(&key).await.unwrap().is_none());
        assert!(storage.head(&key).await.unwrap().is_none());
        assert_eq!(storage.delete(vec![key.clone()]).await.unwrap(), 1);
        assert_eq!(names(storage, "nowhere").await, Vec::<String>::new());
    }

    pub async fn caches_are_replaced(storage: &Storage) {
        let key = key("a/cache");
        for content in ["one", "", "three"] {
            storage.replace(&key, content.into()).await.unwrap();
            assert_eq!(storage.read(&key).await.unwrap().unwrap(), content);
        }
    }

    pub async fn prefixes_are_whole_elements(storage: &Storage) {
        for path in ["p/n1/x", "p/n10/x", "p/n1/y/z", "p/n1x"] {
            storage.create(&key(path), Bytes::from_static(b"x")).await.unwrap();
        }
        assert_eq!(names(storage, "p/n1").await, ["p/n1/x", "p/n1/y/z"]);
        let folders = storage.folders(&object_store::path::Path::from("p")).await.unwrap();
        let mut folders: Vec<_> = folders.iter().map(ToString::to_string).collect();
        folders.sort();
        assert_eq!(folders, ["p/n1", "p/n10"]);
    }

    /// What a path may hold: ASCII has no control characters there. Two of them look the same and are not.
    const ODD: [&str; 16] = [
        "odd/SAI+aa+t_sai+Terms.db",
        "odd/with blank",
        "odd/blank at the end ",
        "odd/ blank at the beginning",
        "odd/per%cent",
        "odd/per%25cent",
        "odd/ünï-☃",
        "odd/=&?#[]{}'\"<>~^`|*;:,@!$()",
        "odd/.hidden",
        "odd/composed \u{e9}",
        "odd/composed e\u{301}",
        "odd/of four bytes \u{1f600}",
        "odd/controls \u{80}\u{85}\u{9f}",
        "odd/separators \u{2028}\u{2029}\u{a0}",
        "odd/\u{feff}mark\u{200e}",
        "odd/fraction \u{2215} and stop \u{ff0e}\u{ff0e}",
    ];

    fn sorted(paths: &[&str]) -> Vec<String> {
        let mut sorted: Vec<_> = paths.iter().map(ToString::to_string).collect();
        sorted.sort();
        sorted
    }

    pub async fn keys_with_every_character(storage: &Storage) {
        for path in ODD {
            let created = storage.create(&key(path), path.to_owned().into()).await.unwrap();
            assert_eq!(created, Created::New, "{path}");
        }
        assert_eq!(names(storage, "odd").await, sorted(&ODD));
        for path in ODD {
            assert_eq!(storage.create(&key(path), "other".into()).await.unwrap(), Created::Taken, "{path}");
            assert_eq!(storage.read(&key(path)).await.unwrap().unwrap(), path);
            assert_eq!(storage.head(&key(path)).await.unwrap().unwrap().size, path.len() as u64);
        }
        storage.delete(ODD.iter().map(|path| key(path)).collect()).await.unwrap();
        assert_eq!(names(storage, "odd").await, Vec::<String>::new());
    }

    pub async fn files_under_keys_with_every_character(storage: &Storage) {
        let folder = scratch("odd");
        let (source, other) = (file(folder.path(), "source", 1000), file(folder.path(), "other", 1001));
        let content = std::fs::read(&source.path).unwrap();
        for path in ODD {
            let upload = storage.upload(&source, &key(path), None, &watch()).await.unwrap();
            assert_eq!(upload.created, Created::New, "{path}");
        }
        assert_eq!(names(storage, "odd").await, sorted(&ODD));
        for (number, path) in ODD.into_iter().enumerate() {
            let again = storage.upload(&other, &key(path), None, &watch()).await.unwrap();
            assert_eq!(again.created, Created::Taken, "{path}");
            assert_eq!(storage.read_range(&key(path), 500..510).await.unwrap(), content[500..510]);
            let target = folder.path().join("target");
            let new = NewFile { path: target.clone(), mode: 0o600, owner: None, mtime: None };
            storage.download(&key(path), new, None, &watch()).await.unwrap();
            assert!(std::fs::read(target).unwrap() == content, "{path}");
            // One at a time, so that none goes with another.
            storage.delete(vec![key(path)]).await.unwrap();
            assert_eq!(names(storage, "odd").await, sorted(&ODD[number + 1..]), "{path}");
        }
    }

    /// Of as many bytes as stores take.
    fn longest(bytes: usize) -> String {
        let mut path = "odd".to_owned();
        while path.len() < bytes {
            // Folders of a disk take no more.
            let length = (bytes - path.len() - 1).min(200);
            path.push('/');
            path.push_str(&"k".repeat(length));
        }
        path
    }

    pub async fn files_in_parts_under_odd_keys(storage: &Storage) {
        const PART: u64 = 5 << 20;
        let folder = scratch("odd");
        let source = file(folder.path(), "source", 6 << 20);
        let other = file(folder.path(), "other", (6 << 20) + 1);
        let content = std::fs::read(&source.path).unwrap();
        let everything = "odd/+ %25=&?#'\"<>~|;:,@!$() e\u{301} \u{1f600} \u{85} ".to_owned();
        let keys = [everything, longest(1024)];
        for path in &keys {
            let upload = storage.upload_in_parts(&source, &key(path), PART, &watch()).await.unwrap();
            assert_eq!((upload.created, upload.digest.sha256), (Created::New, Sha256::of(&content)), "{path}");
            let again = storage.upload_in_parts(&other, &key(path), PART, &watch()).await.unwrap();
            assert_eq!(again.created, Created::Taken, "{path}");
        }
        assert_eq!(names(storage, "odd").await, sorted(&keys.each_ref().map(String::as_str)));
        for path in &keys {
            // From the end of one part to the beginning of the next.
            let range = storage.read_range(&key(path), PART - 3..PART + 3).await.unwrap();
            let middle = usize::try_from(PART).unwrap();
            assert_eq!(range, content[middle - 3..middle + 3]);
            let found = storage.digest_object(&key(path), None, &watch()).await.unwrap();
            assert_eq!(found.sha256, Sha256::of(&content), "{path}");
        }
        storage.delete(keys.iter().map(|path| key(path)).collect()).await.unwrap();
        assert_eq!(names(storage, "odd").await, Vec::<String>::new());
    }

    /// A store that takes no such key says so; it does not write to another one.
    pub async fn a_key_is_kept_or_refused(storage: &Storage) {
        let (long, long_name) = (longest(1025), format!("odd/{}", "k".repeat(256)));
        for path in ["odd/back\\slash", "odd/..\\two dots", long.as_str(), long_name.as_str()] {
            let created = storage.create(&key(path), Bytes::from_static(b"x")).await;
            let kept = names(storage, "odd").await;
            match created {
                Ok(created) => {
                    assert_eq!((created, kept), (Created::New, vec![path.to_owned()]));
                    assert_eq!(storage.read(&key(path)).await.unwrap().unwrap(), "x");
                    storage.delete(vec![key(path)]).await.unwrap();
                }
                Err(error) => {
                    println!("{}: {}", storage.location(), medusa::error::one_line(&error.into()));
                    assert_eq!(kept, Vec::<String>::new());
                }
            }
        }
    }

    pub async fn many_objects_are_listed_and_deleted(storage: &Storage) {
        const COUNT: usize = 1100;
        let keys: Vec<_> = (0..COUNT).map(|n| key(&format!("many/{n:04}"))).collect();
        let created = futures::stream::iter(keys.iter().map(|key| storage.create(key, Bytes::from_static(b"x"))));
        futures::StreamExt::buffer_unordered(created, 16).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(names(storage, "many").await.len(), COUNT);
        assert_eq!(storage.delete(keys.clone()).await.unwrap(), COUNT as u64);
        assert_eq!(names(storage, "many").await.len(), 0);
        assert_eq!(storage.delete(keys[..10].to_vec()).await.unwrap(), 10);
    }

    pub async fn files_of_every_size_come_back(storage: &Storage) {
        const MIB: usize = 1 << 20;
        let folder = scratch("files");
        for size in [0, 1, MIB, MIB + 1, 5 * MIB, 20 * MIB - 1, 20 * MIB, 50 * MIB + 7] {
            let source = file(folder.path(), "source", size);
            let key = key(&format!("files/{size}"));
            let moved = watch();
            let upload = storage.upload(&source, &key, None, &moved).await.unwrap();
            assert_eq!((upload.created, upload.digest.size), (Created::New, size as u64));
            assert_eq!(moved.counters.amount(), Amount { files: 1, bytes: size as u64 });
            let content = std::fs::read(&source.path).unwrap();
            assert_eq!(upload.digest.sha256, Sha256::of(&content));
            let path = folder.path().join("target");
            let target = NewFile { path: path.clone(), mode: 0o600, owner: None, mtime: Some(source.mtime) };
            let digest = storage.download(&key, target, None, &watch()).await.unwrap();
            assert_eq!(digest.sha256, upload.digest.sha256);
            assert!(std::fs::read(path).unwrap() == content, "{size}");
            assert_eq!(storage.head(&key).await.unwrap().unwrap().size, size as u64);
        }
    }

    pub async fn a_taken_key_is_not_overwritten_by_a_file(storage: &Storage) {
        let folder = scratch("taken");
        for size in [10, 3 << 20, 21 << 20] {
            let key = key(&format!("taken/{size}"));
            storage.create(&key, Bytes::from_static(b"first")).await.unwrap();
            let moved = watch();
            let upload = storage.upload(&file(folder.path(), "f", size), &key, None, &moved).await.unwrap();
            assert_eq!(upload.created, Created::Taken, "{size}");
            assert_eq!(moved.counters.amount().bytes, size as u64, "the total is reached");
            assert_eq!(storage.read(&key).await.unwrap().unwrap(), "first");
        }
    }

    pub async fn ranges(storage: &Storage) {
        let key = key("a/range");
        storage.create(&key, Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(storage.read_range(&key, 3..6).await.unwrap(), "345");
    }

    pub async fn a_lease_is_held_by_one(storage: &Storage) {
        let fqdn = Fqdn::new("n1").unwrap();
        let name = BackupName::new("b1").unwrap();
        let lease = storage.lease(&fqdn, Work::Backup, Some(&name)).await.unwrap();
        assert!(storage.lease(&fqdn, Work::Purge, None).await.is_err());
        for _ in 0..3 {
            lease.confirm().await.unwrap();
        }
        assert_eq!(storage.leases().await.unwrap().len(), 1);
        lease.release().await;
        assert_eq!(storage.leases().await.unwrap().len(), 0);
        let lease = storage.lease(&fqdn, Work::Purge, None).await.unwrap();
        assert!(storage.break_lease(&fqdn).await.unwrap());
        assert!(lease.confirm().await.is_err());
        assert!(lease.is_lost());
        lease.release().await;
        let key = key("a/updated");
        storage.try_update(&key).await.unwrap();
        storage.delete(vec![key]).await.unwrap();
    }

    pub async fn the_clock_is_that_of_the_storage(storage: &Storage) {
        let difference = storage.time().await.unwrap() - chrono::Utc::now();
        assert!(difference.num_seconds().abs() <= 60, "{difference}");
        assert_eq!(names(storage, "index/clock").await, Vec::<String>::new());
    }
}

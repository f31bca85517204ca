//! Every key of `[storage]` that concerns object stores: changing it changes what the server sees.

use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use medusa::storage::Storage;
use medusa::storage::transfer::{SourceFile, TransferError};

use crate::lab::stores::ObjectServer as _;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::{Minio, Options};
use crate::lab::stores::recorder::{Action, Fault, Recorder, Request};
use crate::lab::stores::wire::{Head, copy_body};
use crate::lab::{scratch, tree};
use crate::made;
use crate::stores_conformance::{file, key, open, watch};
use crate::support::assert_fails;

const MIB: usize = 1 << 20;

/// Base64 of 32 bytes.
const SSE_C: &str = "bGFiLWxhYi1sYWItbGFiLWxhYi1sYWItbGFiLWxhYi0=";

/// A bucket whose requests are recorded.
struct Recorded {
    recorder: Recorder,
    bucket: String,
}

impl Recorded {
    fn new() -> Self {
        let minio = Minio::shared();
        Self { recorder: Recorder::start(&minio.endpoint, []), bucket: minio.new_bucket("keys") }
    }

    fn open(&self, more: &[(&str, &str)]) -> Storage {
        let unlimited = [("transfer_max_bandwidth", "0")];
        let settings = Minio::shared().settings_at(&self.bucket, self.recorder.port);
        open(&settings, &[&unlimited, more].concat())
    }

    fn puts(&self) -> Vec<Request> {
        self.recorder.matching(|request| request.method == "PUT")
    }
}

async fn upload(storage: &Storage, name: &str, size: usize) -> Result<(), TransferError> {
    let folder = scratch("keys");
    storage.upload(&file(folder.path(), "f", size), &key(name), None, &watch()).await.map(drop)
}

/// The most requests that were under way at once.
fn overlap(requests: &[Request]) -> usize {
    let under_way = |at: &Request| {
        requests.iter().filter(|other| other.began <= at.began && other.ended.is_none_or(|end| end > at.began)).count()
    };
    requests.iter().map(under_way).max().unwrap_or(0)
}

/// The same of requests that a recorder held for so long before it passed them on. Who has the last byte of an answer may ask
/// for more before the recorder knows that it was the last one.
pub fn held_at_once(requests: &[Request], held: Duration) -> usize {
    let is_held = |other: &Request, at: &Request| other.began <= at.began && at.began - other.began < held;
    requests.iter().map(|at| requests.iter().filter(|other| is_held(other, at)).count()).max().unwrap_or(0)
}

/// A store that takes whatever it is sent, and keeps nothing.
fn takes_everything() -> String {
    const TAKEN: &[u8] = b"HTTP/1.1 201 Created\r\nETag: \"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let Ok(Some(head)) = Head::read(&mut stream) else { return };
                if copy_body(head.framing_of_request(), &mut stream, &mut std::io::sink()).is_ok() {
                    let _ = stream.get_mut().write_all(TAKEN);
                }
            });
        }
    });
    address
}

/// Azure behind a recorder, which speaks http only, and Azurite https only.
fn azure(recorder: &Recorder, folder: &Path, more: &[(&str, &str)]) -> Storage {
    let key_file = folder.join("account.json");
    std::fs::write(&key_file, r#"{"storage_account": "devstoreaccount1", "key": "a2V5"}"#).unwrap();
    let settings = [
        ("storage_provider", "azure_blobs".to_owned()),
        ("bucket_name", "b".to_owned()),
        ("host", "localhost".to_owned()),
        ("port", recorder.port.to_string()),
        ("secure", "False".to_owned()),
        ("key_file", key_file.display().to_string()),
        ("transfer_max_bandwidth", "0".to_owned()),
    ];
    open(&settings, more)
}

/// A file of zeros.
fn sparse(folder: &Path, size: u64) -> SourceFile {
    let path = folder.join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(size).unwrap();
    SourceFile { path, size, mtime: medusa::files::mtime(&file.metadata().unwrap()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_class_of_data_and_metadata() {
    let recorded = Recorded::new();
    let storage = recorded.open(&[("storage_class", "reduced_redundancy")]);
    upload(&storage, "small", 10).await.unwrap();
    upload(&storage, "large", 21 * MIB).await.unwrap();
    storage.replace(&key("meta"), "x".into()).await.unwrap();
    let class = |request: &Request| request.header("x-amz-storage-class").map(str::to_owned);
    let begun = recorded.recorder.matching(|request| request.method == "POST" && request.query == "uploads=");
    for request in recorded.puts().iter().filter(|put| put.query.is_empty()).chain(&begun) {
        assert_eq!(class(request).as_deref(), Some("REDUCED_REDUNDANCY"), "{request}");
    }
    assert_eq!(Minio::shared().head(&recorded.bucket, "large")["StorageClass"], "REDUCED_REDUNDANCY");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_class_as_google_and_azure_spell_it() {
    let unlimited = ("transfer_max_bandwidth", "0");
    let upload_all = async |storage: &Storage| {
        upload(storage, "small", 10).await.unwrap();
        upload(storage, "large", 21 * MIB).await.unwrap();
        let folder = scratch("keys");
        let source = file(folder.path(), "f", 11 * MIB);
        storage.upload_in_parts(&source, &key("parts"), 5 << 20, &watch()).await.unwrap();
        storage.replace(&key("meta"), "x".into()).await.unwrap();
    };
    let (gcs, azurite) = (FakeGcs::shared(), Azurite::shared());
    for (google, azure) in [(Some("nearline"), Some("COOL")), (None, None)] {
        let bucket = gcs.new_bucket("class");
        let class = google.map(|class| ("storage_class", class));
        upload_all(&open(&gcs.settings(&bucket), &[&[unlimited][..], class.as_slice()].concat())).await;
        for name in ["small", "large", "parts", "meta"] {
            let found = gcs.head(&bucket, name);
            assert_eq!(found["storageClass"] == "NEARLINE", google.is_some(), "{found}");
        }
        let bucket = azurite.new_bucket("class");
        let class = azure.map(|class| ("storage_class", class));
        upload_all(&open(&azurite.settings(&bucket), &[&[unlimited][..], class.as_slice()].concat())).await;
        for name in ["small", "large", "parts", "meta"] {
            let found = azurite.head(&bucket, name);
            assert_eq!(found["blob_tier"] == "Cool", azure.is_some(), "{found}");
        }
    }
    // Azurite takes every spelling, and has its own.
    let recorder = Recorder::start(&takes_everything(), []);
    let folder = scratch("class");
    upload_all(&azure(&recorder, folder.path(), &[("storage_class", "cOOL")])).await;
    let makes_a_blob = |request: &Request| request.method == "PUT" && !request.query.starts_with("comp=block&");
    let blobs = recorder.matching(makes_a_blob);
    assert_eq!(blobs.len(), 4);
    assert!(blobs.iter().all(|blob| blob.header("x-ms-access-tier") == Some("Cool")), "{blobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_with_keys_of_the_service_and_of_ones_own() {
    let recorded = Recorded::new();
    // This server has no keys, and wants https for those of a client: what it is asked for counts here.
    drop(upload(&recorded.open(&[("kms_id", "lab-key")]), "kms", 10).await);
    let put = recorded.puts().remove(0);
    assert_eq!(put.header("x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(put.header("x-amz-server-side-encryption-aws-kms-key-id"), Some("lab-key"));

    let folder = scratch("sse-c");
    let key_file = folder.path().join("key").display().to_string();
    std::fs::write(&key_file, format!("{SSE_C}\n")).unwrap();
    for (name, more) in [("given", ("sse_c_key", SSE_C)), ("in-a-file", ("sse_c_key_file", key_file.as_str()))] {
        drop(upload(&recorded.open(&[more]), name, 10).await);
        let put = recorded.puts().pop().unwrap();
        assert!(put.path.ends_with(name));
        assert_eq!(put.header("x-amz-server-side-encryption-customer-key"), Some(SSE_C));
    }

    // On a server with https and a key both keep what they promise.
    let minio = Minio::start(Options { tls: true, kms: Some("lab-key") });
    let bucket = minio.new_bucket("encrypted");
    for (name, more) in [("kms", ("kms_id", "lab-key")), ("sse-c", ("sse_c_key", SSE_C))] {
        let storage = open(&minio.settings(&bucket), &[more, ("transfer_max_bandwidth", "0")]);
        let folder = scratch("encrypted");
        for size in [10, 21 * MIB] {
            let source = file(folder.path(), "f", size);
            let key = key(&format!("{name}/{size}"));
            let upload = storage.upload(&source, &key, None, &watch()).await.unwrap();
            let found = storage.digest_object(&key, None, &watch()).await.unwrap();
            assert_eq!(found.sha256, upload.digest.sha256, "{name} {size}");
        }
    }
    assert_eq!(minio.head(&bucket, "kms/10")["ServerSideEncryption"], "aws:kms");
    let without_key = open(&minio.settings(&bucket), &[]);
    assert!(without_key.read(&key("sse-c/10")).await.is_err());
}

#[test]
fn keys_of_encryption_are_refused_where_they_have_no_effect() {
    for settings in [FakeGcs::shared().settings("encrypted"), Azurite::shared().settings("encrypted")] {
        for (key, value) in [("kms_id", "lab-key"), ("sse_c_key", SSE_C)] {
            let mut medusa = made::medusa();
            medusa.use_store(&settings);
            medusa.set("storage", key, value);
            let run = medusa.run(&["list-backups"]);
            assert_fails(&run, 2, &[&format!("{key} in [storage] has an effect with S3 only")]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_in_the_path_or_in_the_name_of_the_host() {
    let recorded = Recorded::new();
    // A name that leads to this machine with an account before it does so with a bucket, too.
    let name = [("bucket_name", "devstoreaccount1"), ("host", "blob.core.localhost")];
    let styles = [("path", "/devstoreaccount1/x", [name[0], ("host", "localhost")]), ("virtual", "/x", name)];
    for (style, path, name) in styles {
        let storage = recorded.open(&[&name[..], &[("s3_addressing_style", style)]].concat());
        let answer = storage.replace(&key("x"), "x".into()).await;
        let request = recorded.recorder.requests().pop().unwrap();
        assert_eq!(request.path, path, "{answer:?}");
        let is_virtual = request.header("host").unwrap().starts_with("devstoreaccount1.");
        assert_eq!(is_virtual, style == "virtual");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_numbers_of_parts() {
    let recorded = Recorded::new();
    let parts = |name: &'static str| {
        let of = move |put: &Request| put.path.ends_with(name) && put.query.contains("partNumber");
        let mut parts = recorded.recorder.matching(of);
        parts.sort_by_key(|part| part.query.clone());
        parts.iter().map(|part| usize::try_from(part.body).unwrap()).collect::<Vec<_>>()
    };
    let small = recorded.open(&[("multipart_chunksize", "6MB")]);
    upload(&small, "in-six", 20 * MIB).await.unwrap();
    assert_eq!(parts("in-six"), [6 * MIB, 6 * MIB, 6 * MIB, 2 * MIB]);
    upload(&small, "below", 20 * MIB - 1).await.unwrap();
    assert_eq!(parts("below"), [0; 0]);
    upload(&recorded.open(&[]), "in-fifty", 51 * MIB).await.unwrap();
    assert_eq!(parts("in-fifty"), [50 * MIB, MIB]);
    upload(&recorded.open(&[("multi_part_upload_threshold", "30MB")]), "one", 25 * MIB).await.unwrap();
    assert_eq!(parts("one"), [0; 0]);
    // S3 takes no smaller ones.
    upload(&recorded.open(&[("multipart_chunksize", "1MB")]), "smallest", 20 * MIB).await.unwrap();
    assert_eq!(parts("smallest"), [5 * MIB; 4]);
    let e_tag =
        |key: &str| Minio::shared().head(&recorded.bucket, key)["ETag"].as_str().unwrap().trim_matches('"').len();
    assert_eq!((e_tag("in-six"), e_tag("below")), (34, 32));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_at_a_time() {
    for (value, most) in [("1", 1), ("3", 3)] {
        let recorded = Recorded::new();
        let is_part = |request: &Request| request.query.contains("partNumber");
        recorded.recorder.add(Fault::every(Action::Delay(Duration::from_secs(1)), is_part));
        let storage = recorded.open(&[("multipart_max_concurrency", value), ("multipart_chunksize", "5MB")]);
        upload(&storage, "parts", 30 * MIB).await.unwrap();
        recorded.recorder.assert_fired();
        assert_eq!(overlap(&recorded.recorder.matching(is_part)), most);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_numbers_of_parts_at_azure() {
    // The smallest ones that go up in parts there.
    const SIZE: u64 = 257 << 20;
    let is_block = |request: &Request| request.query.starts_with("comp=block&");
    for (size, parts, at_a_time, most, seconds) in
        [("128MB", [128, 128, 1], "1", 1, 2), ("100MB", [100, 100, 57], "2", 2, 4)]
    {
        let held = Duration::from_secs(seconds);
        let recorder = Recorder::start(&takes_everything(), [Fault::every(Action::Delay(held), is_block)]);
        let folder = scratch("azure");
        let more = [("multipart_chunksize", size), ("multipart_max_concurrency", at_a_time)];
        let storage = azure(&recorder, folder.path(), &more);
        storage.upload(&sparse(folder.path(), SIZE), &key("large"), None, &watch()).await.unwrap();
        let blocks = recorder.matching(is_block);
        let mut sizes: Vec<_> = blocks.iter().map(|block| block.body >> 20).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(sizes, parts);
        assert_eq!(held_at_once(&blocks, held), most, "{blocks:?}");
    }
}

#[test]
fn small_requests_at_a_time() {
    const NODES: [&str; 6] = ["n1", "n2", "n3", "n4", "n5", "n6"];
    let minio = Minio::shared();
    let bucket = minio.new_bucket("requests");
    let folder = scratch("requests");
    for node in NODES {
        made::backup(folder.path(), node, "b1", &NODES, &[made::object(node, "nb-1-big-Data.db", node)]);
    }
    for (key, content) in tree(folder.path()) {
        minio.put(&bucket, &key, &content);
    }
    // There are no summaries: each manifest is read.
    let is_manifest = |request: &Request| request.method == "GET" && request.path.ends_with("/meta/manifest.json");
    let held = Duration::from_secs(1);
    for (value, most) in [("2", 2), ("4", 4)] {
        let recorder = Recorder::start(&minio.endpoint, [Fault::every(Action::Delay(held), is_manifest)]);
        let mut medusa = made::medusa();
        medusa.use_store(&minio.settings_at(&bucket, recorder.port));
        medusa.set("storage", "concurrent_requests", value);
        medusa.ok(&["list-backups", "--show-all", "--output", "json"]);
        let manifests = recorder.matching(is_manifest);
        assert_eq!((manifests.len(), held_at_once(&manifests, held)), (NODES.len(), most), "{manifests:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_per_second() {
    let recorded = Recorded::new();
    let took = async |more: &[(&str, &str)], name: &str| {
        let begin = Instant::now();
        let storage = recorded.open(more);
        upload(&storage, name, 8 * MIB).await.unwrap();
        storage.digest_object(&key(name), None, &watch()).await.unwrap();
        begin.elapsed()
    };
    // 16 MiB up and down. A limit says how long it takes at least.
    let limited = took(&[("transfer_max_bandwidth", "8MB/s")], "limited").await;
    assert!(limited.as_secs_f64() > 1.8, "{limited:?}");
    took(&[("transfer_max_bandwidth", "0")], "unlimited").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_which_nothing_moves_is_given_up() {
    let recorded = Recorded::new();
    let storage = recorded.open(&[("read_timeout", "1")]);
    storage.replace(&key("x"), "content".into()).await.unwrap();
    let begin = Instant::now();
    let fault = recorded.recorder.add(Fault::nth(1, Action::Stall, |request| request.method == "GET"));
    assert_eq!(storage.read(&key("x")).await.unwrap().unwrap(), "content");
    recorded.recorder.add(Fault::nth(1, Action::StallInBody(3), |request| request.method == "GET"));
    assert_eq!(storage.read(&key("x")).await.unwrap().unwrap(), "content");
    recorded.recorder.assert_fired();
    assert_eq!(fault.fired(), 1);
    // By default each of the two would take a minute.
    assert!(begin.elapsed() < Duration::from_mins(1), "{:?}", begin.elapsed());
    // On a busy machine others are given up, too.
    assert!(recorded.recorder.matching(|request| request.method == "GET").len() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn region_profile_and_credentials() {
    let recorded = Recorded::new();
    let folder = scratch("profiles");
    let path = folder.path().join("credentials");
    let text = "[default]\naws_access_key_id = one\naws_secret_access_key = x\n\n[other]\naws_access_key_id = two\naws_secret_access_key = x\naws_session_token = token\n";
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let asked = async |more: &[(&str, &str)]| {
        let more = [more, &[("key_file", path.as_str())]].concat();
        drop(recorded.open(&more).read(&key("x")).await);
        recorded.recorder.requests().pop().unwrap()
    };
    let request = asked(&[("region", "eu-west-9")]).await;
    let signed = request.header("authorization").unwrap();
    assert!(signed.contains("Credential=one/") && signed.contains("/eu-west-9/s3/"), "{signed}");
    assert_eq!(request.header("x-amz-security-token"), None);
    let request = asked(&[("api_profile", "other")]).await;
    assert!(request.header("authorization").unwrap().contains("Credential=two/"));
    assert_eq!(request.header("x-amz-security-token"), Some("token"));
    let storage = recorded.open(&[("key_file", path.as_str()), ("api_profile", "third")]);
    let error = anyhow::Error::from(storage.read(&key("x")).await.unwrap_err());
    let text = medusa::error::one_line(&error);
    assert!(text.contains("gives no credentials for profile third"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_sent_unless_they_are_switched_off() {
    let recorded = Recorded::new();
    let forbids = |request: &Request| request.header("if-none-match") == Some("*");
    let storage = recorded.open(&[]);
    upload(&storage, "small", 10).await.unwrap();
    upload(&storage, "large", 20 * MIB).await.unwrap();
    assert_eq!(recorded.recorder.matching(forbids).len(), 2);
    let off = recorded.open(&[("conditional_create", "False")]);
    upload(&off, "small-off", 10).await.unwrap();
    upload(&off, "large-off", 20 * MIB).await.unwrap();
    assert_eq!(recorded.recorder.matching(forbids).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_beside_the_md5() {
    let recorded = Recorded::new();
    let crc64 = |request: &Request| request.header("x-amz-checksum-crc64nvme").map(str::to_owned);
    let begins = |request: &Request| request.header("x-amz-checksum-algorithm") == Some("CRC64NVME");
    let upload_all = async |storage: &Storage| {
        upload(storage, "small", 10).await.unwrap();
        upload(storage, "streamed", 5 * MIB).await.unwrap();
        upload(storage, "parts", 21 * MIB).await.unwrap();
        storage.replace(&key("meta"), "123456789".into()).await.unwrap();
    };
    // Not every store that is not AWS knows them.
    upload_all(&recorded.open(&[])).await;
    upload_all(&Recorded::new().open(&[("request_checksum_calculation", "when_required")])).await;
    assert_eq!(recorded.recorder.matching(move |request| crc64(request).is_some() || begins(request)).len(), 0);

    let recorded = Recorded::new();
    let small_parts = ("multipart_chunksize", "8MB");
    let storage = recorded.open(&[("request_checksum_calculation", "when_supported"), small_parts]);
    upload_all(&storage).await;
    assert_eq!(recorded.recorder.matching(begins).len(), 1);
    let puts = recorded.puts();
    assert_eq!(puts.len(), 6);
    for put in &puts {
        assert!(crc64(put).is_some() && put.header("content-md5").is_some(), "{put}");
        assert!(put.header("authorization").unwrap().contains("x-amz-checksum-crc64nvme"), "{put}");
    }
    // The check value of CRC-64/NVME.
    let meta = puts.iter().find(|put| put.path.ends_with("/meta")).unwrap();
    assert_eq!(crc64(meta).as_deref(), Some("rosUhgp5mIg="));
    // The store made the same of what it got, and keeps it.
    for name in ["small", "streamed", "parts"] {
        assert_eq!(Minio::shared().head(&recorded.bucket, name)["ChecksumCRC64NVME"].as_str().map(str::len), Some(12));
    }
    let streamed = puts.iter().find(|put| put.path.ends_with("/streamed")).unwrap();
    assert_eq!(
        crc64(streamed).as_deref(),
        Minio::shared().head(&recorded.bucket, "streamed")["ChecksumCRC64NVME"].as_str()
    );
    for (name, size) in [("small", 10), ("streamed", 5 * MIB), ("parts", 21 * MIB)] {
        assert_eq!(storage.digest_object(&key(name), None, &watch()).await.unwrap().size, size as u64);
    }
}

#[test]
fn checksums_as_the_environment_of_other_programs_says() {
    let recorded = Recorded::new();
    let settings = Minio::shared().settings_at(&recorded.bucket, recorded.recorder.port);
    let mut medusa = crate::made::medusa();
    medusa.use_store(&settings);
    let sent = |medusa: &crate::lab::medusa::Medusa| {
        let before = recorded.puts().len();
        medusa.ok(&["storage-check"]);
        let puts = recorded.puts().split_off(before);
        assert!(!puts.is_empty());
        puts.iter().any(|put| put.header("x-amz-checksum-crc64nvme").is_some())
    };
    assert!(!sent(&medusa));
    medusa.env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported");
    assert!(sent(&medusa));
    medusa.set("storage", "request_checksum_calculation", "when_required");
    assert!(!sent(&medusa));
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_certificates_are_checked_unless_that_is_switched_off() {
    let minio = Minio::start(Options { tls: true, kms: None });
    let bucket = minio.new_bucket("tls");
    let settings = |change: &[(&str, &str)]| {
        let keep = |(key, _): &(&'static str, String)| change.iter().all(|(other, _)| other != key);
        let settings: Vec<_> = minio.settings(&bucket).into_iter().filter(keep).collect();
        let change: Vec<_> = change.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
        open(&settings, &change)
    };
    let told = async |storage: &Storage| {
        let error = anyhow::Error::from(storage.read(&key("x")).await.unwrap_err());
        let told = medusa::error::Told::of(&error);
        (told.texts.join("\n"), told.hint.unwrap_or_default())
    };
    settings(&[]).replace(&key("x"), "x".into()).await.unwrap();
    let (text, hint) = told(&settings(&[("ca_file", "")])).await;
    assert!(text.contains("invalid peer certificate"), "{text}");
    assert!(hint.contains("ca_file") && hint.contains("ssl_verify"), "{hint}");
    let unchecked = settings(&[("ca_file", ""), ("ssl_verify", "False")]);
    assert_eq!(unchecked.read(&key("x")).await.unwrap().unwrap(), "x");
    // As other programs are told.
    let mut medusa = crate::made::medusa();
    medusa.use_store(&minio.settings(&bucket));
    medusa.unset("storage", "ca_file");
    let refused = medusa.run(&["list-backups"]).expect_code(1);
    assert!(refused.stderr.contains("invalid peer certificate"), "{refused}");
    medusa.env("AWS_CA_BUNDLE", &minio.ca.as_ref().unwrap().display().to_string());
    medusa.ok(&["list-backups"]);
    medusa.env("AWS_CA_BUNDLE", "/no/such.pem");
    crate::support::assert_fails(&medusa.run(&["list-backups"]), 2, &["AWS_CA_BUNDLE", "/no/such.pem"]);
    let (_, hint) = told(&settings(&[("secure", "False")])).await;
    assert!(hint.contains("secure = True"), "{hint}");
    let plain = Minio::shared();
    let (_, hint) = {
        let port = plain.port.to_string();
        told(&settings(&[("port", port.as_str())])).await
    };
    assert!(hint.contains("does not speak https"), "{hint}");
}

//! Contents arrive as they were sent and are never mixed, and no failure is taken for an absence: on S3, Google and Azure,
//! each behind a recorder.

use std::sync::Once;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{FutureExt as _, TryStreamExt as _};
use md5::{Digest as _, Md5};
use medusa::error::{Told, one_line};
use medusa::model::digest::Sha256;
use medusa::model::names::Fqdn;
use medusa::storage::lease::Work;
use medusa::storage::transfer::NewFile;
use medusa::storage::{Created, Storage};
use object_store::path::Path;
use serde_json::json;

use crate::lab::medusa::Medusa;
use crate::lab::scratch;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::lab::stores::{ObjectServer, Settings};
use crate::made::{self, object};
use crate::stores_conformance::{file, key, open, watch};
use crate::support::listed;

const MIB: usize = 1 << 20;
const NODE: &str = "127.0.0.1";

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Provider {
    S3,
    Google,
    Azure,
}

const ALL: [Provider; 3] = [Provider::S3, Provider::Google, Provider::Azure];

/// A bucket behind a recorder.
struct Recorded {
    recorder: Recorder,
    bucket: String,
    settings: Settings,
    storage: Storage,
}

impl Provider {
    fn server(self) -> &'static (dyn ObjectServer + Sync) {
        match self {
            Self::S3 => Minio::shared(),
            Self::Google => FakeGcs::shared(),
            Self::Azure => Azurite::shared(),
        }
    }

    fn recorded(self, faults: impl IntoIterator<Item = Fault>) -> Recorded {
        let recorder = match self {
            Self::S3 => Recorder::start(&Minio::shared().endpoint, faults),
            Self::Google => Recorder::start(&FakeGcs::shared().endpoint, faults),
            Self::Azure => Recorder::before_https(&Azurite::shared().endpoint, &Azurite::shared().ca, faults),
        };
        let bucket = self.server().new_bucket("integrity");
        let mut settings = self.server().settings_at(&bucket, recorder.port);
        settings.retain(|(key, _)| *key != "secure");
        settings.extend([("secure", "False".to_owned()), ("transfer_max_bandwidth", "0".to_owned())]);
        let storage = open(&settings, &[]);
        Recorded { recorder, bucket, settings, storage }
    }

    /// What a store says of a new object with this MD5, in each of its ways.
    fn stored(self, md5: [u8; 16]) -> Vec<Answer> {
        let encoded = BASE64_STANDARD.encode(md5);
        match self {
            Self::S3 => vec![Answer::new(200, "").header("ETag", &format!("\"{}\"", hex::encode(md5)))],
            Self::Google => {
                let stored = || Answer::new(200, "").header("ETag", "\"x\"").header("x-goog-generation", "1");
                let crc32 = "crc32c=AAAAAA==";
                vec![
                    stored().header("x-goog-hash", &format!("{crc32},md5={encoded}")),
                    stored().header("x-goog-hash", crc32).header("x-goog-hash", &format!("md5={encoded}")),
                ]
            }
            Self::Azure => vec![Answer::new(201, "").header("ETag", "\"0x1\"").header("Content-MD5", &encoded)],
        }
    }

    /// A refusal or a failure, in its words.
    fn failure(self, status: u16) -> Answer {
        let code = match (self, status) {
            (Self::Azure, 403) => "AuthorizationPermissionMismatch",
            (Self::Azure, 503) => "ServerBusy",
            (_, 403) => "AccessDenied",
            (_, 503) => "SlowDown",
            _ => "InternalError",
        };
        let answer = Answer::xml(status, code);
        if self == Self::Azure { answer.header("x-ms-error-code", code) } else { answer }
    }

    /// How it says that a body is not what its MD5 says.
    fn says_damaged(self) -> &'static str {
        match self {
            Self::S3 | Self::Google => "BadDigest",
            Self::Azure => "contentMD5 doesn't match",
        }
    }
}

fn is_put(request: &Request) -> bool {
    request.method == "PUT"
}

/// Of S3, and a block of Azure.
fn is_part(request: &Request) -> bool {
    is_put(request) && (request.query.contains("partNumber=") || request.query.contains("comp=block&"))
}

fn is_head(request: &Request) -> bool {
    request.method == "HEAD"
}

fn is_list(request: &Request) -> bool {
    request.method == "GET" && (request.query.contains("list-type=2") || request.query.contains("comp=list"))
}

/// The text of an error, and its hint.
fn told(error: impl Into<anyhow::Error>) -> (String, String) {
    let told = Told::of(&error.into());
    (told.texts.join("\n"), told.hint.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_is_compared_with_what_was_sent_by_every_provider() {
    let folder = scratch("integrity");
    for provider in ALL {
        for size in [10, 5 * MIB] {
            let source = file(folder.path(), "f", size);
            let sent: [u8; 16] = Md5::digest(std::fs::read(&source.path).unwrap()).into();
            let [right, wrong] = [sent, [0; 16]].map(|md5| provider.stored(md5));
            for answer in right {
                let recorded = provider.recorded([Fault::every(Action::AnswerAfter(answer), is_put)]);
                let upload = recorded.storage.upload(&source, &key("f"), None, &watch()).await.unwrap();
                assert_eq!(upload.created, Created::New);
                recorded.recorder.assert_fired();
            }
            for answer in wrong {
                let recorded = provider.recorded([Fault::every(Action::AnswerAfter(answer), is_put)]);
                let error = recorded.storage.upload(&source, &key("f"), None, &watch()).await.unwrap_err();
                let (text, _) = told(error);
                let (zeros, sent) = ("0".repeat(32), hex::encode(sent));
                let expected = format!("received something else: MD5 {zeros} instead of {sent}");
                assert!(text.contains(&expected), "{provider:?} {size}: {text}");
                assert_eq!(recorded.recorder.matching(is_put).len(), 1, "it is no failure that passes");
                recorded.recorder.assert_fired();
            }
        }
        for answer in provider.stored([0; 16]) {
            let recorded = provider.recorded([Fault::every(Action::AnswerAfter(answer), is_put)]);
            let (small, content) = (key("small"), || "content".into());
            for put in [
                recorded.storage.replace(&small, content()).await,
                recorded.storage.create(&key("new"), content()).await.map(drop),
                recorded.storage.create_durably(&key("newer"), content()).await.map(drop),
            ] {
                let (text, _) = told(put.unwrap_err());
                assert!(text.contains("received something else: MD5 "), "{provider:?}: {text}");
            }
            recorded.recorder.assert_fired();
        }
    }
}

/// The answer to each part of a file tells of something else.
async fn parts_that_are_something_else(provider: Provider) {
    let answer = provider.stored([0; 16]).remove(0);
    let recorded = provider.recorded([Fault::nth(2, Action::AnswerAfter(answer), is_part)]);
    let folder = scratch("integrity");
    let source = file(folder.path(), "f", 13 * MIB);
    let upload = recorded.storage.upload_in_parts(&source, &key("f"), 5 << 20, &watch()).await;
    recorded.recorder.assert_fired();
    let (text, _) = told(upload.unwrap_err());
    assert!(text.contains("received something else: MD5 "), "{text}");
    assert!(provider.server().objects(&recorded.bucket).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_of_a_part_is_compared_with_what_was_sent() {
    parts_that_are_something_else(Provider::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_of_a_block_is_compared_with_what_was_sent() {
    parts_that_are_something_else(Provider::Azure).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_upload_carries_the_md5_of_its_body() {
    let folder = scratch("integrity");
    for provider in ALL {
        let recorded = provider.recorded([]);
        let storage = &recorded.storage;
        for size in [0, 10, MIB + 1, 5 * MIB] {
            let source = file(folder.path(), "f", size);
            storage.upload(&source, &key(&format!("file-{size}")), None, &watch()).await.unwrap();
        }
        let source = file(folder.path(), "f", 21 * MIB);
        storage.upload_in_parts(&source, &key("parts"), 8 << 20, &watch()).await.unwrap();
        storage.replace(&key("replaced"), "one".into()).await.unwrap();
        storage.create(&key("created"), "two".into()).await.unwrap();
        storage.create_durably(&key("durable"), "three".into()).await.unwrap();
        storage.time().await.unwrap();
        let lease = storage.lease(&Fqdn::new("n1").unwrap(), Work::Backup, None).await.unwrap();
        lease.confirm().await.unwrap();
        lease.release().await;

        let (lists, bodies): (Vec<_>, Vec<_>) =
            recorded.recorder.matching(is_put).into_iter().partition(|put| put.query.contains("comp=blocklist"));
        for put in &bodies {
            assert!(put.md5.is_some() && put.header("content-md5") == put.md5.as_deref(), "{provider:?}: {put}");
        }
        let parts = bodies.iter().filter(|put| is_part(put)).map(|part| part.body).sum::<u64>();
        assert_eq!(parts, if provider == Provider::Google { 0 } else { 21 * MIB as u64 });
        let of_leases = bodies.iter().filter(|put| put.path.contains("leases")).count();
        assert!(of_leases >= 2 && bodies.iter().any(|put| put.path.contains("clock")), "{bodies:?}");
        // That of the whole is recorded by those that would not know it else.
        let whole = BASE64_STANDARD.encode(Md5::digest(std::fs::read(&source.path).unwrap()));
        let head = provider.server().head(&recorded.bucket, "parts");
        match provider {
            Provider::S3 => assert!(head["ETag"].as_str().unwrap().ends_with("-3\""), "{head}"),
            Provider::Google => assert_eq!(head["md5Hash"], whole),
            Provider::Azure => {
                assert_eq!(lists.len(), 1);
                assert_eq!(lists[0].header("x-ms-blob-content-md5"), Some(whole.as_str()));
                assert_eq!(head["content_md5"], whole);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_on_its_way_is_refused_and_not_stored() {
    let folder = scratch("integrity");
    let source = |size: usize| file(folder.path(), "f", size);
    for provider in ALL {
        let refused = |error: anyhow::Error| {
            let (text, _) = told(error);
            assert!(text.contains(provider.says_damaged()), "{provider:?}: {text}");
        };
        let recorded = provider.recorded([Fault::every(Action::Damage(5), is_put)]);
        let storage = &recorded.storage;
        for size in [10, 5 * MIB] {
            refused(storage.upload(&source(size), &key("file"), None, &watch()).await.unwrap_err().into());
        }
        refused(storage.replace(&key("replaced"), "content".into()).await.unwrap_err().into());
        recorded.recorder.assert_fired();
        if provider != Provider::Google {
            recorded.recorder.behave();
            recorded.recorder.add(Fault::nth(2, Action::Damage(1_000_000), is_part));
            let upload = storage.upload_in_parts(&source(13 * MIB), &key("parts"), 5 << 20, &watch()).await;
            refused(upload.unwrap_err().into());
            recorded.recorder.assert_fired();
        }
        assert!(provider.server().objects(&recorded.bucket).is_empty(), "{provider:?}");
        // The same once more.
        recorded.recorder.behave();
        let upload = storage.upload(&source(5 * MIB), &key("file"), None, &watch()).await.unwrap();
        let found = storage.digest_object(&key("file"), None, &watch()).await.unwrap();
        assert_eq!((upload.created, found.sha256), (Created::New, upload.digest.sha256));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_overwritten_during_its_download_is_never_a_mixture() {
    const SIZE: usize = 5 * MIB;
    let folder = scratch("integrity");
    let [old, new] = [1_u8, 2].map(|byte| vec![byte; SIZE]);
    for provider in ALL {
        for cut in [Action::ResetInBody(2_000_000), Action::Truncate(2_000_000)] {
            let recorded = provider.recorded([]);
            let (server, bucket, replaced) = (provider.server(), recorded.bucket.clone(), new.clone());
            server.put(&bucket, "f", &old);
            let overwritten = Once::new();
            // It is another one when the rest of it is asked for.
            let goes_on = move |request: &Request| {
                let goes_on = request.method == "GET" && request.header("range").is_some();
                if goes_on {
                    overwritten.call_once(|| server.put(&bucket, "f", &replaced));
                }
                goes_on
            };
            recorded.recorder.add(Fault::every(Action::Delay(Duration::ZERO), goes_on));
            recorded.recorder.add(Fault::nth(1, cut, |request| request.method == "GET"));
            let path = folder.path().join("target");
            let target = NewFile { path: path.clone(), mode: 0o600, owner: None, mtime: None };
            let download = recorded.storage.download(&key("f"), target, None, &watch()).await;
            recorded.recorder.assert_fired();
            match download {
                Ok(digest) => {
                    let content = std::fs::read(&path).unwrap();
                    assert!(content == old || content == new, "{provider:?}");
                    assert_eq!(digest.sha256, Sha256::of(&content));
                }
                Err(error) => println!("{provider:?}: {}", one_line(&error.into())),
            }
            // From here on it is the new one.
            let found = recorded.storage.digest_object(&key("f"), None, &watch()).await.unwrap();
            assert_eq!(found.sha256, Sha256::of(&new));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_failure_that_lasts_is_never_an_absence() {
    let cases = ALL.into_iter().flat_map(|provider| [403, 500, 503].map(|status| fails_for_long(provider, status)));
    // Each takes its time.
    futures::future::join_all(cases).await;
}

async fn fails_for_long(provider: Provider, status: u16) {
    let recorded = provider.recorded([]);
    let storage = &recorded.storage;
    provider.server().put(&recorded.bucket, "full/x", b"x");
    recorded.recorder.add(Fault::every(Action::Answer(provider.failure(status)), is_head));
    recorded.recorder.add(Fault::every(Action::Answer(provider.failure(status)), is_list));
    let (stored, absent) = (key("full/x"), key("empty/x"));
    let (full, empty) = (Path::from("full"), Path::from("empty"));
    let listed = |prefix: &Path| storage.list(prefix).try_collect::<Vec<_>>();
    let head = async |key| storage.head(key).await.map(|found| format!("{found:?}"));
    let list = async |prefix| listed(prefix).await.map(|found| format!("{found:?}"));
    let mut asked = vec![head(&absent).boxed(), list(&empty).boxed()];
    // Those that fail are tried again for a while.
    if status == 403 {
        let reads = |request: &Request| request.method == "GET" && !is_list(request);
        recorded.recorder.add(Fault::every(Action::Answer(provider.failure(status)), reads));
        asked.extend([
            head(&stored).boxed(),
            list(&full).boxed(),
            async { storage.folders(&empty).await.map(|found| format!("{found:?}")) }.boxed(),
            async { storage.read(&absent).await.map(|found| format!("{found:?}")) }.boxed(),
        ]);
    }
    let expected = asked.len();
    for outcome in futures::future::join_all(asked).await {
        let error = outcome.map_err(anyhow::Error::from).expect_err(&format!("{provider:?} {status}"));
        let (text, hint) = told(error);
        assert!(text.contains(&status.to_string()), "{provider:?} {status}: {text}");
        let expected = match status {
            403 => "the credentials lack a permission",
            503 => "the storage is overloaded",
            _ => "",
        };
        assert!(hint.contains(expected), "{provider:?} {status}: {hint}\n{text}");
    }
    let asked = recorded.recorder.requests().len();
    if status == 403 {
        assert_eq!(asked, expected, "a refusal is not tried again");
    } else {
        assert!(asked > 4 * expected, "a failure is tried again, and {asked} requests came");
    }
    recorded.recorder.assert_fired();
    recorded.recorder.behave();
    assert_eq!(storage.head(&stored).await.unwrap().unwrap().size, 1);
    assert!(storage.head(&absent).await.unwrap().is_none());
    assert_eq!((listed(&full).await.unwrap().len(), listed(&empty).await.unwrap().len()), (1, 0));
}

/// Two backups of this node in a bucket behind a recorder. A purge deletes the first one.
fn two_backups(provider: Provider) -> (Recorded, Medusa) {
    let recorded = provider.recorded([]);
    let folder = scratch("integrity");
    for (name, file) in [("b1", "nb-1-big-Data.db"), ("b2", "nb-2-big-Data.db")] {
        made::backup(folder.path(), NODE, name, &[NODE], &[object(NODE, file, name)]);
    }
    for (key, content) in crate::lab::tree(folder.path()) {
        provider.server().put(&recorded.bucket, &key, &content);
    }
    let mut medusa = made::medusa();
    medusa.use_store(&recorded.settings);
    medusa.set("storage", "backup_grace_period_in_days", "0");
    (recorded, medusa)
}

#[test]
fn p3_a_purge_that_may_not_look_deletes_nothing() {
    const PURGE: [&str; 3] = ["purge", "--keep-last", "1"];
    for provider in ALL {
        let (recorded, medusa) = two_backups(provider);
        let objects = || provider.server().objects(&recorded.bucket);
        let before = objects();
        for refused in [is_head, is_list] {
            recorded.recorder.behave();
            recorded.recorder.add(Fault::every(Action::Answer(provider.failure(403)), refused));
            let run = medusa.run(&PURGE);
            crate::support::assert_fails(&run, 1, &["the credentials lack a permission"]);
            assert_eq!(objects(), before, "{provider:?}: {run}");
            recorded.recorder.assert_fired();
        }
        recorded.recorder.behave();
        medusa.ok(&PURGE);
        assert_eq!(listed(&medusa).into_keys().collect::<Vec<_>>(), ["b2"], "{provider:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_told_and_not_followed() {
    let folder = scratch("integrity");
    for provider in ALL {
        let place = "http://elsewhere.invalid/f";
        let elsewhere = Answer::new(307, "").header("Location", place);
        let nowhere = Answer::new(307, "");
        let of_region = Answer::new(301, "").header("x-amz-bucket-region", "eu-west-1");
        for (answer, text, way) in [
            (elsewhere, format!("Received redirect to {place}"), "in another region or at another address"),
            (nowhere, "Received redirect without LOCATION".to_owned(), "in another region or at another address"),
            (of_region, "PermanentRedirect".to_owned(), "set region = eu-west-1"),
        ] {
            let recorded = provider.recorded([Fault::every(Action::Answer(answer), |_| true)]);
            let storage = &recorded.storage;
            let list = storage.list(&Path::from("p")).try_collect::<Vec<_>>();
            let upload = |size: usize| file(folder.path(), &size.to_string(), size);
            let errors: [anyhow::Error; 6] = [
                storage.upload(&upload(10), &key("f"), None, &watch()).await.unwrap_err().into(),
                storage.upload(&upload(5 * MIB), &key("f"), None, &watch()).await.unwrap_err().into(),
                storage.replace(&key("f"), "x".into()).await.unwrap_err().into(),
                storage.read(&key("f")).await.unwrap_err().into(),
                storage.head(&key("f")).await.unwrap_err().into(),
                list.await.unwrap_err().into(),
            ];
            for error in errors {
                let (told, hint) = told(error);
                assert!(told.contains(&text) && hint.contains(way), "{provider:?}: {hint}\n{told}");
            }
            assert_eq!(recorded.recorder.requests().len(), 6);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overlooks_the_condition_on_parts_overwrites_nothing() {
    let completes = |request: &Request| request.method == "POST" && request.query.contains("uploadId");
    let recorded = Provider::S3.recorded([Fault::every(Action::Without("If-None-Match"), completes)]);
    let (storage, minio) = (&recorded.storage, Minio::shared());
    let folder = scratch("integrity");
    let [first, second] = [21, 22].map(|size| file(folder.path(), &size.to_string(), size * MIB));
    let upload = storage.upload(&first, &key("f"), None, &watch()).await.unwrap();
    assert_eq!(upload.created, Created::New);
    recorded.recorder.assert_fired();
    let again = storage.upload(&second, &key("f"), None, &watch()).await.unwrap();
    assert_eq!(again.created, Created::Taken);
    let found = storage.digest_object(&key("f"), None, &watch()).await.unwrap();
    assert_eq!(found.sha256, upload.digest.sha256);
    // It comes while the parts are under way.
    let (bucket, beside) = (recorded.bucket.clone(), Once::new());
    recorded.recorder.add(Fault::every(Action::Delay(Duration::ZERO), move |request| {
        let is_late = is_part(request) && request.path.ends_with("/late");
        if is_late {
            beside.call_once(|| minio.put(&bucket, "late", b"first"));
        }
        is_late
    }));
    let late = storage.upload(&second, &key("late"), None, &watch()).await.unwrap();
    recorded.recorder.assert_fired();
    assert_eq!(late.created, Created::Taken);
    assert_eq!(minio.get(&recorded.bucket, "late"), b"first");
    assert_eq!(minio.incomplete_uploads(&recorded.bucket), [""; 0]);
    // And it would overwrite.
    recorded.recorder.behave();
    recorded.recorder.add(Fault::every(Action::Answer(Answer::new(404, "")), is_head));
    recorded.recorder.add(Fault::every(Action::Without("If-None-Match"), completes));
    drop(storage.upload(&second, &key("late"), None, &watch()).await);
    recorded.recorder.assert_fired();
    assert_eq!(minio.objects(&recorded.bucket)["late"], second.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_taken_back_where_the_last_look_fails() {
    let recorded = Provider::S3.recorded([Fault::every(Action::Answer(Provider::S3.failure(403)), is_head)]);
    let folder = scratch("integrity");
    let source = file(folder.path(), "f", 21 * MIB);
    let upload = recorded.storage.upload(&source, &key("f"), None, &watch()).await;
    recorded.recorder.assert_fired();
    let (text, _) = told(upload.unwrap_err());
    assert!(text.contains("could not ") && text.contains("403"), "{text}");
    assert_eq!(Minio::shared().incomplete_uploads(&recorded.bucket), [""; 0]);
}

/// Somebody else put objects there whose keys no program here can name.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_with_a_key_that_cannot_be_used_is_an_error() {
    for provider in ALL {
        for odd in ["n1/tab\there", "n1/del\u{7f}"] {
            let recorded = provider.recorded([]);
            let storage = &recorded.storage;
            for key in [odd, "n1/fine", "n2/fine"] {
                provider.server().put(&recorded.bucket, key, b"x");
            }
            let listed = |prefix: &str| storage.list(&Path::from(prefix)).try_collect::<Vec<_>>();
            let (text, _) = told(listed("n1").await.expect_err(&format!("{provider:?} {odd:?}")));
            assert!(text.contains("could not list ") && text.contains("/n1"), "{provider:?}: {text}");
            assert_eq!(listed("n2").await.unwrap().len(), 1);
            assert_eq!(storage.read(&key("n1/fine")).await.unwrap().unwrap(), "x");
        }
    }
}

#[test]
fn p1_a_bucket_under_a_key_of_ones_own_is_listed_verified_and_purged() {
    const PLAIN: &str = "lab-lab-lab-lab-lab-lab-lab-lab-";
    let minio = Minio::secure();
    let bucket = minio.new_bucket("sse-c");
    let folder = scratch("sse-c");
    for (name, file) in [("b1", "nb-1-big-Data.db"), ("b2", "nb-2-big-Data.db")] {
        let objects = [object(NODE, file, name), object(NODE, "nb-9-big-Data.db", "shared")];
        made::backup(folder.path(), NODE, name, &[NODE], &objects);
    }
    let with_key = json!({ "SSECustomerAlgorithm": "AES256", "SSECustomerKey": PLAIN });
    for (key, content) in crate::lab::tree(folder.path()) {
        minio.put_with(&bucket, &key, &content, &with_key);
    }
    let before = minio.objects(&bucket);
    let mut medusa = made::medusa();
    medusa.use_store(&minio.settings(&bucket));
    medusa.set("storage", "backup_grace_period_in_days", "0");
    // Without the key nothing is known, which is no damage.
    medusa.run(&["verify", "--all"]).expect_code(1);
    medusa.run(&["purge", "--keep-last", "1"]).expect_code(1);
    assert_eq!(minio.objects(&bucket), before);

    medusa.set("storage", "sse_c_key", &BASE64_STANDARD.encode(PLAIN));
    assert_eq!(listed(&medusa).into_keys().collect::<Vec<_>>(), ["b1", "b2"]);
    medusa.ok(&["verify", "--all", "--read-data"]);
    medusa.ok(&["verify", "--backup-name", "b1", "--enable-md5-checks"]);
    medusa.ok(&["build-index"]);
    medusa.ok(&["purge", "--keep-last", "1"]);
    assert_eq!(listed(&medusa).into_keys().collect::<Vec<_>>(), ["b2"]);
    medusa.ok(&["verify", "--all", "--read-data"]);
    medusa.ok(&["storage-check"]);
    let left = minio.objects(&bucket);
    let pool: Vec<_> = left.keys().filter(|key| key.ends_with("-Data.db")).collect();
    assert!(pool.len() == 2 && pool.iter().all(|key| !key.ends_with("nb-1-big-Data.db")), "{pool:?}");
    // What was written here is under the key, too.
    assert!(left.keys().any(|key| key.starts_with("index/summaries/")), "{left:?}");
    for key in left.keys() {
        let read = minio.helper().attempt("get", &json!({ "bucket": bucket, "key": key }));
        assert!(read.is_err(), "{key} is read without the key");
    }
}

//! Object stores that ask for fewer requests get fewer.

use std::time::Duration;

use futures::StreamExt as _;
use medusa::storage::Storage;

use crate::lab::scratch;
use crate::lab::stores::ObjectServer;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::stores_conformance::{file, key, open, watch};

const AT_ONCE: usize = 16;
const FILES: usize = 64;

fn is_put(request: &Request) -> bool {
    request.method == "PUT"
}

/// Uploads so many small files, as a backup does.
async fn upload(storage: &Storage) {
    let folder = scratch("overload");
    let sources: Vec<_> = (0..FILES).map(|number| file(folder.path(), &number.to_string(), 1000)).collect();
    let uploads = sources.iter().enumerate().map(|(number, source)| async move {
        storage.upload(source, &key(&format!("f/{number}")), None, &watch()).await.unwrap();
    });
    futures::stream::iter(uploads).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_store_gets_half_as_many_at_a_time() {
    halves(Minio::shared(), &Minio::shared().endpoint).await;
}

/// Its addresses have the bucket in quotes.
#[tokio::test(flavor = "multi_thread")]
async fn google_gets_half_as_many_at_a_time_too() {
    halves(FakeGcs::shared(), &FakeGcs::shared().endpoint).await;
}

async fn halves(server: &impl ObjectServer, endpoint: &str) {
    let bucket = server.new_bucket("overload");
    // All that are allowed are under way when one of them is refused.
    let busy = Fault::nth(AT_ONCE, Action::Answer(Answer::xml(503, "SlowDown")), is_put);
    let slow = Fault::every(Action::Delay(Duration::from_millis(500)), is_put);
    let recorder = Recorder::start(endpoint, [busy, slow]);
    let storage = open(&server.settings_at(&bucket, recorder.port), &[("transfer_max_bandwidth", "0")]);
    upload(&storage).await;
    recorder.assert_fired();
    assert_eq!(server.objects(&bucket).len(), FILES);

    let puts = recorder.matching(is_put);
    let refused = puts.iter().find(|put| put.status == Some(503)).unwrap().ended.unwrap();
    let under_way = |at: &Request| {
        puts.iter().filter(|other| other.began <= at.began && other.ended.is_none_or(|end| end > at.began)).count()
    };
    let most = puts.iter().filter(|put| put.began <= refused).map(under_way).max().unwrap();
    assert_eq!(most, AT_ONCE);
    let mut later: Vec<_> = puts.iter().filter(|put| put.began > refused).collect();
    later.sort_by_key(|put| put.began);
    // One more is allowed for each round of good answers; those that were under way then were a round and more.
    for put in later.iter().take(AT_ONCE / 2) {
        assert!(under_way(put) < AT_ONCE * 3 / 4, "{} were under way: {put}", under_way(put));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_before_the_time_that_the_store_named() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("overload");
    let later = Answer::xml(429, "TooManyRequests").header("Retry-After", "2");
    let recorder = Recorder::start(&minio.endpoint, [Fault::nth(1, Action::Answer(later), is_put)]);
    let storage = open(&minio.settings_at(&bucket, recorder.port), &[]);
    storage.replace(&key("x"), "x".into()).await.unwrap();
    recorder.assert_fired();
    let puts = recorder.matching(is_put);
    assert_eq!(puts.len(), 2);
    let waited = puts[1].began.duration_since(puts[0].ended.unwrap());
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
}

/// Who downloads large files holds up nobody: what the store is asked for counts, and not how long an answer takes to arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_no_request_under_way() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("overload");
    let is_of = |name: &'static str| move |request: &Request| request.method == "GET" && request.path.ends_with(name);
    let long = Fault::every(Action::StallInBody(100), is_of("long"));
    let busy = Fault::nth(1, Action::Answer(Answer::xml(503, "SlowDown")), is_of("short"));
    let recorder = Recorder::start(&minio.endpoint, [long, busy]);
    let storage = open(&minio.settings_at(&bucket, recorder.port), &[("read_timeout", "600")]);
    for name in ["long", "short"] {
        storage.replace(&key(name), vec![b'x'; 1000].into()).await.unwrap();
    }
    let stalled = tokio::spawn({
        let storage = storage.clone();
        async move { storage.read(&key("long")).await }
    });
    crate::support::wait_for("the long one", || !recorder.matching(is_of("long")).is_empty());
    let short = tokio::time::timeout(Duration::from_secs(100), storage.read(&key("short"))).await;
    assert_eq!(short.unwrap().unwrap().unwrap().len(), 1000);
    recorder.assert_fired();
    assert!(!stalled.is_finished());
    stalled.abort();
}

//! Object stores that fail, answer late, answer half, or answer something else.

use chrono::{TimeDelta, Utc};
use medusa::error::Told;
use medusa::model::digest::Sha256;
use medusa::monitor::Amount;
use medusa::storage::uploads::Abandoned;
use medusa::storage::{Created, Storage};
use serde_json::json;

use crate::lab::scratch;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::lab::stores::{ObjectServer as _, Settings};
use crate::stores_conformance::{file, key, open, watch};

const MIB: usize = 1 << 20;

struct Broken {
    recorder: Recorder,
    bucket: String,
    storage: Storage,
}

fn broken(more: &[(&str, &str)], faults: impl IntoIterator<Item = Fault>) -> Broken {
    let minio = Minio::shared();
    let recorder = Recorder::start(&minio.endpoint, faults);
    let bucket = minio.new_bucket("faults");
    let more = [&[("transfer_max_bandwidth", "0"), ("read_timeout", "60")], more].concat();
    let storage = open(&minio.settings_at(&bucket, recorder.port), &more);
    Broken { recorder, bucket, storage }
}

fn is_put(request: &Request) -> bool {
    request.method == "PUT"
}

fn completes(request: &Request) -> bool {
    request.method == "POST" && request.query.contains("uploadId")
}

/// Uploads a file and reads it back, whatever happens on the way.
async fn round_trip(broken: &Broken, size: usize) {
    let folder = scratch("faults");
    let source = file(folder.path(), "f", size);
    let watch = watch();
    let upload = broken.storage.upload(&source, &key("f"), None, &watch).await.unwrap();
    assert_eq!(upload.created, Created::New);
    assert_eq!(watch.counters.amount(), Amount { files: 1, bytes: size as u64 }, "what was sent in vain counts once");
    let found = broken.storage.digest_object(&key("f"), None, &self::watch()).await.unwrap();
    assert_eq!(found.sha256, Sha256::of(&std::fs::read(&source.path).unwrap()));
    broken.recorder.assert_fired();
    let objects = Minio::shared().objects(&broken.bucket);
    assert_eq!(objects.into_iter().collect::<Vec<_>>(), [("f".to_owned(), size as u64)]);
    assert_eq!(Minio::shared().incomplete_uploads(&broken.bucket), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_store_is_asked_again() {
    let busy = || Answer::xml(503, "SlowDown");
    round_trip(&broken(&[], [Fault::first(3, Action::Answer(busy()), is_put)]), 10).await;
    round_trip(&broken(&[], [Fault::first(2, Action::Answer(busy()), completes)]), 21 * MIB).await;
    let later = Answer::xml(429, "TooManyRequests").header("Retry-After", "1");
    round_trip(&broken(&[], [Fault::nth(1, Action::Answer(later), is_put)]), 10).await;
    round_trip(&broken(&[], [Fault::first(2, Action::Answer(Answer::xml(500, "InternalError")), is_put)]), 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_an_upload_whose_answer_was_lost_is_recognized() {
    // The object is there, and the second attempt is refused.
    round_trip(&broken(&[], [Fault::nth(1, Action::ResetAfter, is_put)]), 10).await;
    let lost = || Action::AnswerAfter(Answer::xml(500, "InternalError"));
    round_trip(&broken(&[], [Fault::nth(1, lost(), is_put)]), 3 * MIB).await;
    round_trip(&broken(&[], [Fault::nth(1, lost(), completes)]), 21 * MIB).await;
    round_trip(&broken(&[], [Fault::nth(1, Action::ResetAfter, completes)]), 21 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_survive_broken_connections() {
    let part = |request: &Request| request.query.contains("partNumber=2");
    let parts = [("multipart_chunksize", "8MB")];
    round_trip(&broken(&parts, [Fault::nth(1, Action::Reset, part)]), 21 * MIB).await;
    round_trip(&broken(&[], [Fault::nth(1, Action::Reset, is_put)]), 5 * MIB).await;
    let patience = [("read_timeout", "1")];
    round_trip(&broken(&patience, [Fault::nth(1, Action::Stall, is_put)]), 5 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_go_on_where_they_broke_off() {
    let is_get = |request: &Request| request.method == "GET";
    for action in [Action::ResetInBody(2_000_000), Action::Truncate(2_000_000)] {
        let broken = broken(&[], [Fault::nth(1, action, is_get)]);
        round_trip(&broken, 5 * MIB).await;
        let gets = broken.recorder.matching(is_get);
        assert!(gets.iter().skip(1).all(|get| get.header("range").is_some()), "{gets:?}");
    }
    let patience = [("read_timeout", "1")];
    round_trip(&broken(&patience, [Fault::nth(1, Action::StallInBody(2_000_000), is_get)]), 5 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_trickles_is_given_up_and_read_on() {
    let is_get = |request: &Request| request.method == "GET";
    // Something comes at every moment, and never enough. What lies between here and there takes some of it at once.
    let trickles = Fault::nth(1, Action::Slow(500), is_get);
    let broken = broken(&[("read_timeout", "2")], [trickles]);
    round_trip(&broken, 100_000).await;
    let gets = broken.recorder.matching(is_get);
    assert!(gets.len() > 1 && gets.iter().skip(1).all(|get| get.header("range").is_some()), "{gets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_beside_another_one_is_tried_again() {
    let conflict = || Action::Answer(Answer::xml(409, "ConditionalRequestConflict"));
    round_trip(&broken(&[], [Fault::first(3, conflict(), is_put)]), 10).await;
    // AWS wants the parts anew, and forgets the old ones itself; MinIO does not.
    let broken = broken(&[], [Fault::nth(1, conflict(), completes)]);
    round_trip(&broken, 21 * MIB).await;
    assert_eq!(broken.recorder.matching(|request| request.query == "uploads=").len(), 2);
    // The other one was first.
    broken.recorder.add(Fault::first(2, conflict(), is_put));
    assert_eq!(broken.storage.create(&key("f"), "ours".into()).await.unwrap(), Created::Taken);
    broken.recorder.assert_fired();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_of_the_parts_is_compared_with_what_was_sent() {
    let other = "<CompleteMultipartUploadResult><ETag>\"00000000000000000000000000000000-1\"</ETag></CompleteMultipartUploadResult>";
    let broken = broken(&[], [Fault::nth(2, Action::AnswerAfter(Answer::new(200, other)), completes)]);
    let folder = scratch("faults");
    let source = file(folder.path(), "f", 21 * MIB);
    // A store shows first that its tags are digests.
    broken.storage.upload(&source, &key("first"), None, &watch()).await.unwrap();
    let error = broken.storage.upload(&source, &key("second"), None, &watch()).await.unwrap_err();
    let text = medusa::error::one_line(&error.into());
    assert!(text.contains("made something else of the parts"), "{text}");
    broken.recorder.assert_fired();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_written_anew_holds_from_then_on() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("rotated");
    let all = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"},
    ]});
    let of_others = crate::lab::stores::minio::Credentials { access_key: "gone".into(), ..minio.credentials() };
    let key_file = minio.key_file(&of_others);
    let at = key_file.display().to_string();
    let settings: Vec<_> = minio.settings(&bucket).into_iter().filter(|(key, _)| *key != "key_file").collect();
    let storage = open(&settings, &[("key_file", at.as_str())]);
    storage.replace(&key("x"), "x".into()).await.unwrap_err();
    std::fs::rename(minio.key_file(&minio.restricted(&all)), &key_file).unwrap();
    storage.replace(&key("x"), "x".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_ok_and_holds_an_error_is_an_error() {
    let error = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>sorry</Message></Error>";
    round_trip(&broken(&[], [Fault::nth(1, Action::Answer(Answer::new(200, error)), completes)]), 21 * MIB).await;
    let denied = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    let broken = broken(&[], [Fault::every(Action::Answer(Answer::new(200, denied)), completes)]);
    let folder = scratch("faults");
    let source = file(folder.path(), "f", 21 * MIB);
    assert!(broken.storage.upload(&source, &key("f"), None, &watch()).await.is_err());
    broken.recorder.assert_fired();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_is_compared_with_what_was_sent() {
    let other = Answer::new(200, "").header("ETag", "\"00000000000000000000000000000000\"");
    let broken = broken(&[], [Fault::every(Action::AnswerAfter(other), is_put)]);
    let folder = scratch("faults");
    let source = file(folder.path(), "f", 10);
    let error = broken.storage.upload(&source, &key("f"), None, &watch()).await.unwrap_err();
    let text = medusa::error::one_line(&error.into());
    assert!(text.contains("the storage received something else"), "{text}");
    broken.recorder.assert_fired();
}

/// Where objects are encrypted with a key, no `ETag` tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_that_arrived_is_compared_with_the_one_that_was_sent() {
    let other = || Answer::new(200, "").header("ETag", "\"x\"").header("x-amz-server-side-encryption", "aws:kms");
    let checksums = [("request_checksum_calculation", "when_supported")];
    let folder = scratch("faults");
    for size in [10, 5 * MIB, 21 * MIB] {
        let answer = other().header("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=");
        let broken = broken(&checksums, [Fault::every(Action::AnswerAfter(answer), is_put)]);
        let source = file(folder.path(), "f", size);
        let error = broken.storage.upload(&source, &key("f"), None, &watch()).await.unwrap_err();
        let text = medusa::error::one_line(&error.into());
        assert!(text.contains("the storage received something else: CRC-64 AAAAAAAAAAA= instead of"), "{text}");
        broken.recorder.assert_fired();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_the_object_the_cause_and_the_way_forward() {
    let minio = Minio::shared();
    let told = async |storage: &Storage| {
        let error = anyhow::Error::from(storage.read(&key("index/x")).await.unwrap_err());
        let told = Told::of(&error);
        (told.texts.join("\n"), told.hint.unwrap_or_default())
    };
    for (status, code, hint) in [
        (400, "ExpiredToken", "renew the credentials"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (403, "InvalidAccessKeyId", "does not accept the credentials"),
        (403, "AccessDenied", "storage-check"),
        (301, "PermanentRedirect", "region"),
    ] {
        let broken = broken(&[], [Fault::every(Action::Answer(Answer::xml(status, code)), |_| true)]);
        let (text, found) = told(&broken.storage).await;
        assert!(text.starts_with(&format!("could not read s3://{}/index/x", broken.bucket)), "{text}");
        assert!(found.contains(hint), "{code}: {found}\n{text}");
        assert!(!text.contains("<?xml"), "{text}");
    }
    let wrong_region = "<?xml version=\"1.0\"?><Error><Code>AuthorizationHeaderMalformed</Code><Message>The region 'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>";
    let broken = broken(&[], [Fault::every(Action::Answer(Answer::new(400, wrong_region)), |_| true)]);
    assert!(told(&broken.storage).await.1.contains("set region = eu-west-1"));

    let wrong = minio.key_file(&crate::lab::stores::minio::Credentials {
        access_key: "nobody".into(),
        secret_key: "wrong".into(),
        session_token: None,
    });
    let wrong = wrong.display().to_string();
    let settings = minio.settings("faults").into_iter().filter(|(key, _)| *key != "key_file").collect::<Vec<_>>();
    let (_, hint) = told(&open(&settings, &[("key_file", wrong.as_str())])).await;
    assert!(hint.contains("does not accept the credentials"), "{hint}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let settings = minio.settings("faults").into_iter().filter(|(key, _)| *key != "port").collect::<Vec<_>>();
    let (text, hint) = told(&open(&settings, &[("port", nobody.as_str())])).await;
    assert!(hint.contains("nobody answers there"), "{text}\n{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_completed_are_removed() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("unfinished");
    for path in ["n1/data/ks/t-1/nb-1-big-Data.db", "n1/b1/data/ks/t-1/nb+2-big-Data.db", "n10/data/ks/t-1/x"] {
        minio.begin_upload(&bucket, path);
    }
    let storage = open(&minio.settings(&bucket), &[]);
    let folder = object_store::path::Path::from("n1");
    // Another program may be sending them.
    let day = Abandoned::older_than(TimeDelta::days(1));
    assert_eq!(storage.abort_unfinished_uploads(&folder, &day).await.unwrap(), 0);
    let hour = TimeDelta::hours(1);
    let of_killed = Abandoned { of_killed: Some(Utc::now() - hour..Utc::now() + hour), ..day };
    assert_eq!(storage.abort_unfinished_uploads(&folder, &of_killed).await.unwrap(), 2);
    assert_eq!(minio.incomplete_uploads(&bucket), ["n10/data/ks/t-1/x"]);
    let folder = object_store::path::Path::from("n10");
    assert_eq!(storage.abort_unfinished_uploads(&folder, &Abandoned::older_than(-hour)).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overwrites_in_spite_of_the_condition_is_found_out() {
    let overwritten = Answer::new(200, "").header("ETag", "\"x\"");
    let again = |request: &Request| is_put(request) && request.header("if-none-match").is_some();
    let broken = broken(&[], [Fault::nth(2, Action::AnswerAfter(overwritten), again)]);
    let fqdn = medusa::model::names::Fqdn::new("n1").unwrap();
    let error = broken.storage.lease(&fqdn, medusa::storage::lease::Work::Backup, None).await.unwrap_err();
    broken.recorder.assert_fired();
    let told = Told::of(&error);
    assert!(told.texts[0].contains("overwrites objects although"), "{told:?}");
    assert!(told.hint.unwrap().contains("conditional_create = off"));
    assert!(Minio::shared().objects(&broken.bucket).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_no_absent_object() {
    async fn asked(settings: &Settings) {
        let storage = open(settings, &[]);
        let fqdn = medusa::model::names::Fqdn::new("n1").unwrap();
        let name = medusa::model::names::BackupName::new("b1").unwrap();
        for error in [
            anyhow::Error::from(storage.create(&key("x"), "x".into()).await.unwrap_err()),
            storage.read(&key("x")).await.unwrap_err().into(),
            storage.head(&key("x")).await.unwrap_err().into(),
            storage.node_backup(&fqdn, &name).await.unwrap_err().into(),
            storage.lease(&fqdn, medusa::storage::lease::Work::Backup, None).await.unwrap_err(),
        ] {
            let told = Told::of(&error);
            assert!(told.hint.as_ref().unwrap().contains("there is no such bucket"), "{told:?}");
        }
    }
    const NONE: &str = "there-is-no-such-bucket";
    let minio = Minio::shared();
    asked(&minio.settings(NONE)).await;
    // As AWS answers: without a word to HEAD.
    let wordless = Fault::every(Action::Answer(Answer::new(404, "")), |request| request.method == "HEAD");
    let recorder = Recorder::start(&minio.endpoint, [wordless]);
    asked(&minio.settings_at(NONE, recorder.port)).await;
    recorder.assert_fired();
    asked(&Azurite::shared().settings(NONE)).await;
    asked(&FakeGcs::shared().settings(NONE)).await;
}

#[test]
fn p3_without_the_permission_to_delete_nothing_is_deleted() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("reader");
    let mut medusa = crate::made::medusa();
    crate::fixtures::install(&crate::lab::project().join("tests/data/buckets/medusa-0.31.0"), &mut medusa);
    for (key, content) in crate::lab::tree(&medusa.bucket()) {
        minio.put(&bucket, &key, &content);
    }
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "arn:aws:s3:::*"},
    ]});
    let key_file = minio.key_file(&minio.restricted(&policy)).display().to_string();
    medusa.use_store(&minio.settings(&bucket));
    medusa.set("storage", "key_file", &key_file);
    let before = minio.objects(&bucket);
    let run = medusa.run(&["purge", "--all-nodes"]);
    // Medusa's own rules say what would go; the first thing that goes is refused.
    let purge = if run.code == 0 {
        medusa.run(&["delete-backup", "--all-nodes", "--backup-name", &first(&medusa)])
    } else {
        run
    };
    crate::support::assert_fails(&purge, 1, &["permission"]);
    let after = minio.objects(&bucket);
    assert!(before.iter().all(|(key, size)| after.get(key) == Some(size)), "{purge}");
}

fn first(medusa: &crate::lab::medusa::Medusa) -> String {
    crate::support::listed(medusa).into_keys().next().unwrap()
}

#[test]
fn requests_go_through_the_proxy_of_the_environment() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let (asked, first_lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in proxy.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let _ = asked.send(line);
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    let mut medusa = crate::made::medusa();
    medusa.use_store(&Minio::shared().settings("bucket"));
    medusa.set("storage", "host", "store.invalid");
    medusa.env("HTTP_PROXY", &address);
    let list = ["list-backups", "--show-all"];
    medusa.run(&list).expect_code(1);
    let line = first_lines.try_recv().expect("the proxy was asked");
    assert!(line.starts_with("GET http://store.invalid:"), "{line}");
    while first_lines.try_recv().is_ok() {}
    medusa.env("NO_PROXY", "store.invalid");
    let run = medusa.run(&list).expect_code(1);
    assert!(first_lines.try_recv().is_err(), "the proxy was asked: {run}");
    assert!(run.stderr.contains("is not known here"), "{run}");
}

/// `LARGE_GIB` is the size of the file: 1, or what `make large` asks for.
#[tokio::test(flavor = "multi_thread")]
async fn p6_a_file_of_any_size_goes_up_in_parts_that_the_store_takes() {
    use md5::{Digest as _, Md5};
    let size = std::env::var("LARGE_GIB").ok().and_then(|gib| gib.parse().ok()).unwrap_or(1_u64) << 30;
    let mut part = 5 << 20;
    while size.div_ceil(part) > 10_000 {
        part *= 2;
    }
    let (parts, rest) = (size.div_ceil(part), size % part);
    let answer = |length: u64| {
        let zeros = vec![0; usize::try_from(length).unwrap()];
        Answer::new(200, "").header("ETag", &format!("\"{}\"", hex::encode(Md5::digest(zeros))))
    };
    let is_last = move |request: &Request| request.query.contains(&format!("partNumber={parts}&"));
    let last = Fault::nth(1, Action::Answer(answer(if rest == 0 { part } else { rest })), is_last);
    let others = Fault::every(Action::Answer(answer(part)), |request| request.query.contains("partNumber="));
    let done = "<CompleteMultipartUploadResult><ETag>\"0-1\"</ETag></CompleteMultipartUploadResult>";
    let done = Fault::nth(1, Action::Answer(Answer::new(200, done)), completes);
    let broken = broken(&[("multipart_chunksize", "5MB")], [last, others, done]);
    let folder = scratch("large");
    let source = file(folder.path(), "f", 1);
    let sparse = std::fs::File::create(&source.path).unwrap();
    sparse.set_len(size).unwrap();
    let modified = sparse.metadata().unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mtime = i64::try_from(modified.as_nanos()).unwrap();
    let source = medusa::storage::transfer::SourceFile { size, mtime, ..source };
    let upload = broken.storage.upload(&source, &key("f"), None, &watch()).await.unwrap();
    assert_eq!((upload.created, upload.digest.size), (Created::New, size));
    broken.recorder.assert_fired();
    let sent = broken.recorder.matching(|request| request.query.contains("partNumber="));
    println!("{size} bytes in {} parts of {part}", sent.len());
    assert_eq!(sent.len() as u64, parts);
    assert!(sent.len() <= 10_000);
    assert_eq!(sent.iter().map(|request| request.body).sum::<u64>(), size);
}

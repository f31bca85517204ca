//! `storage-check`: what a bucket can do, and what is missing, in words.

use serde_json::{Value, json};

use crate::lab::medusa::{Medusa, Run};
use crate::lab::stores::ObjectServer;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::support::assert_fails;

fn results(run: &Run) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    run.json()["probes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|probe| (text(&probe["name"]), text(&probe["result"])))
        .collect()
}

fn missing(run: &Run) -> Vec<String> {
    results(run).into_iter().filter(|(_, result)| result == "missing").map(|(name, _)| name).collect()
}

fn on(settings: &[(&'static str, String)]) -> Medusa {
    let mut medusa = crate::made::medusa();
    medusa.use_store(settings);
    medusa
}

fn is_good(server: &impl ObjectServer) {
    let bucket = server.new_bucket("check");
    let mut medusa = on(&server.settings(&bucket));
    for (name, value) in server.environment() {
        medusa.env(name, &value);
    }
    let run = medusa.ok(&["storage-check", "--output", "json"]);
    assert!(results(&run).iter().all(|(_, result)| result == "ok"), "{run}");
    let document = run.json();
    assert_eq!(document["good"], true);
    assert!(document["upload_bytes_per_second"].as_u64().unwrap() > 0, "{run}");
    assert!(document["clock_difference_seconds"].as_i64().unwrap().abs() <= 2, "{run}");
    assert!(server.objects(&bucket).is_empty(), "nothing stays");
    println!("{}", medusa.ok(&["storage-check"]));
}

#[test]
fn minio() {
    is_good(Minio::shared());
}

#[test]
fn google_cloud_storage() {
    is_good(FakeGcs::shared());
}

#[test]
fn azure() {
    is_good(Azurite::shared());
}

#[test]
fn a_folder() {
    let run = crate::made::medusa().ok(&["storage-check", "--output", "json"]);
    assert!(missing(&run).is_empty(), "{run}");
}

#[test]
fn a_bucket_without_permissions() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("check");
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "arn:aws:s3:::*"},
    ]});
    let mut medusa = on(&minio.settings(&bucket));
    let reader = minio.key_file(&minio.restricted(&policy)).display().to_string();
    medusa.set("storage", "key_file", &reader);
    let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
    assert_eq!(missing(&run), ["write"]);
    let run = medusa.run(&["storage-check"]);
    println!("{run}");
    assert_fails(&run, 3, &["did not work", "hint: docs/storage has the permissions"]);
    assert!(run.stdout.contains("write objects\n    needed for: backup-node"), "{run}");

    let writer = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"], "Resource": "arn:aws:s3:::*"},
    ]});
    let writer = minio.key_file(&minio.restricted(&writer)).display().to_string();
    medusa.set("storage", "key_file", &writer);
    let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
    let missing = missing(&run);
    assert!(missing.contains(&"delete".to_owned()) && !missing.contains(&"write".to_owned()), "{run}");
    assert!(run.stderr.contains("what the check wrote could not be removed"), "{run}");
}

#[test]
fn a_store_without_conditional_requests() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("check");
    let forbids = |request: &Request| {
        request.method != "GET" && (request.header("if-none-match").is_some() || request.header("if-match").is_some())
    };
    let unknown = Fault::every(Action::Answer(Answer::xml(501, "NotImplemented")), forbids);
    let recorder = Recorder::start(&minio.endpoint, [unknown]);
    let mut medusa = on(&minio.settings_at(&bucket, recorder.port));
    let run = medusa.run(&["storage-check"]);
    println!("{run}");
    assert_fails(&run, 3, &["things that medusa needs did not work"]);
    let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
    assert_eq!(missing(&run), ["conditional create", "conditional update", "upload in parts"]);
    // Nothing is written by a command that relies on it.
    let run = medusa.run(&["purge"]);
    assert!(run.code != 0 || minio.objects(&bucket).is_empty(), "{run}");

    medusa.set("storage", "conditional_create", "False");
    let run = medusa.ok(&["storage-check", "--output", "json"]);
    assert!(missing(&run).is_empty(), "{run}");
    recorder.assert_fired();
}

#[test]
fn a_bucket_that_is_not_there() {
    let medusa = on(&Minio::shared().settings("there-is-none"));
    assert_fails(&medusa.run(&["storage-check"]), 3, &["there is no such bucket"]);
}

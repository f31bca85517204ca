//! Backups of a node in an object store: killed, large, and without a word about secrets.

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::medusa::Medusa;
use crate::lab::stores::ObjectServer as _;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::minio::{Minio, Options};
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::memory::peak;
use crate::support::{assert_fails, medusa, own_data, shared_node, signal, snapshot_folder, wait_for};

const BACKUP: [&str; 5] = ["backup-node", "--backup-name", "b1", "--use-existing-snapshot", "--keep-snapshot"];

/// A snapshot of files that look like components of SSTables.
fn with_files(medusa: &mut Medusa, files: u64, size: u64) {
    let data = own_data(medusa, shared_node());
    let snapshot = snapshot_folder(&data, "b1");
    for number in 1..=files {
        let file = std::fs::File::create(snapshot.join(format!("nb-{number}-big-Index.db"))).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&number.to_le_bytes(), size / 2).unwrap();
    }
    medusa.set("storage", "transfer_max_bandwidth", "10GB/s");
}

#[test]
fn p2_a_backup_that_was_killed_goes_on_and_leaves_no_parts() {
    const FILES: usize = 12;
    let minio = Minio::shared();
    let bucket = minio.new_bucket("killed");
    let completes = |request: &Request| request.method == "POST" && request.query.contains("uploadId");
    // After three files no part is answered any more: it is killed in the middle of one.
    let answered = AtomicUsize::new(0);
    let hangs = Fault::every(Action::Stall, move |request| {
        let before = answered.fetch_add(usize::from(completes(request)), Ordering::SeqCst);
        before >= 3 && request.query.contains("partNumber")
    });
    let recorder = Recorder::start(&minio.endpoint, []);
    let hangs = recorder.add(hangs);
    let mut medusa = medusa(shared_node());
    with_files(&mut medusa, FILES as u64, 11 << 20);
    medusa.use_store(&minio.settings_at(&bucket, recorder.port));
    for (key, value) in
        [("multi_part_upload_threshold", "5MB"), ("multipart_chunksize", "5MB"), ("concurrent_transfers", "2")]
    {
        medusa.set("storage", key, value);
    }
    let fqdn = shared_node().address.clone();
    let stored = || minio.objects(&bucket).into_keys().filter(|key| key.contains("-Index.db")).count();
    let mut child = medusa.spawn(&BACKUP);
    wait_for("some files", || stored() >= 3 && hangs.fired() > 0);
    signal(&child, "KILL");
    child.wait().unwrap();
    assert!(!minio.incomplete_uploads(&bucket).is_empty(), "it was killed between two files");
    let before = stored();
    assert!((3..FILES).contains(&before), "{before}");

    recorder.behave();
    let asked = recorder.requests().len();
    medusa.ok(&BACKUP);
    assert_eq!(minio.incomplete_uploads(&bucket), [""; 0]);
    let again = recorder.requests().split_off(asked);
    let moved = again.iter().filter(|request| completes(request)).count();
    assert!(moved <= FILES - before, "{moved} files were moved, and {before} were there");
    let keys = minio.objects(&bucket);
    assert_eq!(keys.keys().filter(|key| key.starts_with(&format!("{fqdn}/data/"))).count(), FILES);
    medusa.ok(&["verify", "--backup-name", "b1", "--read-data"]);
    medusa.peer_ok(&["verify", "--backup-name", "b1", "--enable-md5-checks"]);
}

#[test]
fn a_backup_that_fails_takes_back_what_it_was_uploading() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("failed");
    let of_first = |request: &Request| request.path.ends_with("nb-1-big-Index.db");
    let is_part = |request: &Request| request.query.contains("partNumber");
    // One file is refused in the middle, while the others go up slowly.
    let refused = Fault::every(Action::Answer(Answer::xml(403, "AccessDenied")), move |request| {
        of_first(request) && request.query.contains("partNumber=3")
    });
    let slow = Fault::every(Action::Delay(std::time::Duration::from_secs(2)), is_part);
    let recorder = Recorder::start(&minio.endpoint, [refused, slow]);
    let mut medusa = medusa(shared_node());
    with_files(&mut medusa, 3, 31 << 20);
    medusa.use_store(&minio.settings_at(&bucket, recorder.port));
    for (key, value) in
        [("multipart_chunksize", "5MB"), ("multipart_max_concurrency", "1"), ("concurrent_transfers", "3")]
    {
        medusa.set("storage", key, value);
    }
    let run = medusa.run(&BACKUP);
    assert_fails(&run, 1, &["could not store ", "nb-1-big-Index.db", "AccessDenied"]);
    recorder.assert_fired();
    assert_eq!(minio.incomplete_uploads(&bucket), [""; 0], "{run}");
    let aborted = recorder.matching(|request| request.method == "DELETE" && request.query.contains("uploadId"));
    assert!(aborted.iter().any(|request| !of_first(request)), "{aborted:?}");
}

/// As a run leaves a bucket that was killed right before it commits.
fn uncommit(objects: &std::collections::BTreeMap<String, u64>, delete: impl Fn(&str)) {
    for key in objects.keys() {
        if key.ends_with("meta/manifest.json")
            || ["manifest_", "finished_", "latest_backup", "summaries"].iter().any(|part| key.contains(part))
        {
            delete(key);
        }
    }
}

#[test]
fn p2_an_unfinished_backup_in_azure_moves_only_what_is_missing() {
    let azurite = Azurite::shared();
    let bucket = azurite.new_bucket("goes-on");
    let mut medusa = medusa(shared_node());
    with_files(&mut medusa, 5, 2 << 20);
    medusa.use_store(&azurite.settings(&bucket));
    medusa.ok(&BACKUP);
    let fqdn = shared_node().address.clone();
    uncommit(&azurite.objects(&bucket), |key| azurite.delete(&bucket, key));
    let before = azurite.objects(&bucket);
    let run = medusa.ok(&BACKUP);
    assert!(run.stdout.contains("5 already stored"), "{run}");
    let data = |objects: std::collections::BTreeMap<String, u64>| {
        objects.into_keys().filter(|key| key.starts_with(&format!("{fqdn}/data/"))).collect::<Vec<_>>()
    };
    assert_eq!(data(azurite.objects(&bucket)), data(before));
}

/// The `ETag` of an object that is encrypted with a key is no digest of it.
#[test]
fn p2_an_unfinished_backup_of_encrypted_objects_moves_only_what_is_missing() {
    let minio = Minio::start(Options { tls: true, kms: Some("lab-key") });
    let bucket = minio.new_bucket("encrypted");
    let mut medusa = medusa(shared_node());
    with_files(&mut medusa, 5, 2 << 20);
    medusa.use_store(&minio.settings(&bucket));
    medusa.set("storage", "kms_id", "lab-key");
    medusa.ok(&BACKUP);
    uncommit(&minio.objects(&bucket), |key| minio.delete(&bucket, key));
    let data = || minio.objects(&bucket).into_keys().filter(|key| key.contains("/data/")).collect::<Vec<_>>();
    let before = data();
    let run = medusa.ok(&BACKUP);
    assert!(run.stdout.contains("5 already stored"), "{run}");
    assert_eq!(data(), before);
}

#[test]
fn p6_large_files_are_not_held_in_memory() {
    const BOUND: u64 = 128;
    let minio = Minio::shared();
    let bucket = minio.new_bucket("memory");
    let mut medusa = medusa(shared_node());
    // 16 at a time; each of its parts would take 25 MiB.
    with_files(&mut medusa, 16, 25 << 20);
    medusa.use_store(&minio.settings(&bucket));
    medusa.set("storage", "concurrent_transfers", "16");
    let target = medusa.folder.path().join("download");
    std::fs::create_dir(&target).unwrap();
    let target = target.display().to_string();
    let download = ["download", "--backup-name", "b1", "--download-destination", &target];
    for arguments in [&BACKUP[..], &["verify", "--backup-name", "b1", "--read-data"], &download] {
        let (mebibytes, _) = peak(&medusa, arguments);
        println!("{mebibytes} MiB: {}", arguments.join(" "));
        assert!(mebibytes < BOUND, "{arguments:?} took {mebibytes} MiB");
    }
}

#[test]
fn p7_no_secret_of_a_store_is_shown() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("secrets");
    let all = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"},
    ]});
    let given = minio.restricted(&all);
    let token = given.session_token.clone().unwrap();
    let mut medusa = medusa(shared_node());
    with_files(&mut medusa, 3, 6 << 20);
    medusa.use_store(&minio.settings(&bucket));
    medusa.set("storage", "key_file", &minio.key_file(&given).display().to_string());
    let log = medusa.folder.path().join("medusa.log").display().to_string();
    for (key, value) in [("enabled", "True"), ("file", &log), ("level", "NOTSET")] {
        medusa.set("logging", key, value);
    }
    let sse_c = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I=";
    let shows = |text: &str| [&given.secret_key, &token, sse_c].into_iter().any(|secret| text.contains(secret));
    let check = |medusa: &Medusa, arguments: &[&str], code: i32| {
        let run = medusa.run(&[&["-vvv"], arguments].concat()).expect_code(code);
        assert!(!shows(&run.stdout) && !shows(&run.stderr), "{run}");
    };
    check(&medusa, &BACKUP, 0);
    let of_backup = ["--backup-name", "b1"];
    for (arguments, code) in [
        (&["config"][..], 0),
        (&["config", "--output", "json"], 0),
        (&["storage-check"], 0),
        (&["storage-check", "--output", "json"], 0),
        (&["list-backups", "--show-all", "--output", "json"], 0),
        (&["verify", "--all", "--read-data"], 0),
        (&["verify", "--repository"], 0),
        (&["purge", "--all-nodes"], 0),
        (&["build-index"], 0),
        (&["leases"], 0),
    ] {
        check(&medusa, arguments, code);
    }
    check(&medusa, &[&["status"][..], &of_backup].concat(), 0);
    // Wrong ones are as secret as right ones.
    let wrong = crate::lab::stores::minio::Credentials { access_key: "nobody".into(), ..given.clone() };
    medusa.set("storage", "key_file", &minio.key_file(&wrong).display().to_string());
    check(&medusa, &["list-backups"], 1);
    check(&medusa, &["storage-check"], 3);
    // A key that the server does not take over http.
    medusa.set("storage", "key_file", &minio.key_file(&given).display().to_string());
    medusa.set("storage", "sse_c_key", sse_c);
    check(&medusa, &["config"], 0);
    check(&medusa, &["storage-check"], 3);
    let azurite = Azurite::shared();
    let mut azure = crate::made::medusa();
    azure.use_store(&azurite.settings(&azurite.new_bucket("secrets")));
    let key = std::fs::read_to_string(azurite.key_file()).unwrap();
    let key: serde_json::Value = serde_json::from_str(&key).unwrap();
    let run = azure.ok(&["-vvv", "storage-check"]);
    assert!(!run.stderr.contains(key["key"].as_str().unwrap()), "{run}");
    let broken = azure.folder.path().join("broken.json");
    std::fs::write(&broken, format!("{{\"storage_account\": \"a\", \"key\": \"{}\" x", key["key"].as_str().unwrap()))
        .unwrap();
    azure.set("storage", "key_file", &broken.display().to_string());
    let run = azure.run(&["-vvv", "list-backups"]).expect_code(2);
    assert!(!run.stderr.contains(key["key"].as_str().unwrap()), "{run}");
    assert!(!shows(&std::fs::read_to_string(&log).unwrap()));
}

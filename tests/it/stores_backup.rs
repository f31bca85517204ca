//! Backups of a node in an object store: killed, large, many files at a time, and below a prefix.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::lab::medusa::Medusa;
use crate::lab::stores::ObjectServer as _;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::minio::{Minio, Options};
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::memory::peak;
use crate::stores_keys::held_at_once;
use crate::support::{assert_fails, medusa, own_data, shared_node, signal, snapshot_folder, wait_for};

pub const BACKUP: [&str; 5] = ["backup-node", "--backup-name", "b1", "--use-existing-snapshot", "--keep-snapshot"];

/// A snapshot of files that look like components of SSTables.
pub fn with_files(medusa: &mut Medusa, files: u64, size: u64) -> PathBuf {
    let data = own_data(medusa, shared_node());
    let snapshot = snapshot_folder(&data, "b1");
    for number in 1..=files {
        let file = std::fs::File::create(snapshot.join(format!("nb-{number}-big-Index.db"))).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&number.to_le_bytes(), size / 2).unwrap();
    }
    medusa.set("storage", "transfer_max_bandwidth", "10GB/s");
    snapshot
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
    let slow = Fault::every(Action::Delay(Duration::from_secs(2)), is_part);
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

#[test]
fn p1_what_vanishes_while_a_backup_is_running_is_missed_before_it_is_finished() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("vanished");
    let recorder = Recorder::start(&minio.endpoint, []);
    let mut medusa = medusa(shared_node());
    let mut snapshot = with_files(&mut medusa, 3, 1000);
    medusa.use_store(&minio.settings_at(&bucket, recorder.port));
    let fqdn = shared_node().address.clone();
    let pool = format!("prefix={fqdn}%2Fdata%2F");
    let looks = || recorder.matching(|request| request.method == "GET" && request.query.contains(&pool)).len();
    let mut renamed = |name: &str| {
        let next = snapshot.with_file_name(name);
        std::fs::rename(&snapshot, &next).unwrap();
        snapshot.clone_from(&next);
        next
    };
    let backup = |name| ["backup-node", "--backup-name", name, "--use-existing-snapshot", "--keep-snapshot"];
    medusa.ok(&backup("b1"));
    assert_eq!(looks(), 2, "before and after the upload");
    let first = recorder.requests().len();
    renamed("b2");
    medusa.ok(&backup("b2"));
    assert_eq!(looks(), 3, "nothing was uploaded, so what was seen need not be looked at again");
    println!("requests: {first} for a first backup of 3 files, {} unchanged", recorder.requests().len() - first);

    let added = renamed("b3").join("nb-4-big-Index.db");
    std::fs::write(added, "new").unwrap();
    let is_added = |request: &Request| request.method == "PUT" && request.path.ends_with("nb-4-big-Index.db");
    let slow = recorder.add(Fault::every(Action::Delay(Duration::from_secs(3)), is_added));
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| medusa.run(&backup("b3")));
        wait_for("the upload", || slow.fired() > 0);
        let stored = minio.objects(&bucket).into_keys().find(|key| key.ends_with("nb-2-big-Index.db"));
        minio.delete(&bucket, &stored.unwrap());
        run.join().unwrap()
    });
    let told = ["1 object vanished", "nb-2-big-Index.db", "the same command stores what is missing"];
    assert_fails(&run, 1, &told);
    assert!(!minio.objects(&bucket).contains_key(&format!("{fqdn}/b3/meta/manifest.json")));
    recorder.behave();
    medusa.ok(&backup("b3"));
    for name in ["b1", "b2", "b3"] {
        medusa.ok(&["verify", "--backup-name", name, "--read-data"]);
    }
}

#[test]
fn files_at_a_time() {
    const FILES: u64 = 6;
    let minio = Minio::shared();
    let is_data = |request: &Request| request.method == "PUT" && request.path.contains("/data/");
    let held = Duration::from_secs(1);
    for (value, most) in [("1", 1), ("3", 3)] {
        let bucket = minio.new_bucket("files");
        let recorder = Recorder::start(&minio.endpoint, [Fault::every(Action::Delay(held), is_data)]);
        let mut medusa = medusa(shared_node());
        with_files(&mut medusa, FILES, 1000);
        medusa.use_store(&minio.settings_at(&bucket, recorder.port));
        medusa.set("storage", "concurrent_transfers", value);
        medusa.ok(&BACKUP);
        let puts = recorder.matching(is_data);
        assert_eq!((puts.len() as u64, held_at_once(&puts, held)), (FILES, most), "{puts:?}");
    }
}

#[test]
fn a_prefix_is_above_everything_and_uploads_elsewhere_are_left_alone() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("prefix");
    let recorder = Recorder::start(&minio.endpoint, []);
    let hangs = recorder.add(Fault::every(Action::Stall, |request| request.query.contains("partNumber")));
    let mut medusa = medusa(shared_node());
    with_files(&mut medusa, 2, 6 << 20);
    medusa.use_store(&minio.settings_at(&bucket, recorder.port));
    for (key, value) in [("prefix", "team-a"), ("multi_part_upload_threshold", "5MB"), ("multipart_chunksize", "5MB")] {
        medusa.set("storage", key, value);
    }
    let mut child = medusa.spawn(&BACKUP);
    wait_for("a part", || hangs.fired() > 0);
    // While it has its lease, a node of the same name has begun these in other places.
    let fqdn = &shared_node().address;
    let others = [format!("{fqdn}/data/made/t/x"), format!("team-b/{fqdn}/data/made/t/x")];
    for key in &others {
        minio.begin_upload(&bucket, key);
    }
    signal(&child, "KILL");
    child.wait().unwrap();
    assert!(minio.incomplete_uploads(&bucket).len() > others.len(), "it was killed between two files");

    recorder.behave();
    medusa.ok(&BACKUP);
    let mut left = minio.incomplete_uploads(&bucket);
    left.sort();
    assert_eq!(left, others);
    let keys: Vec<_> = minio.objects(&bucket).into_keys().collect();
    assert!(keys.iter().all(|key| key.starts_with("team-a/")), "{keys:?}");
    let in_pool = |key: &&String| key.starts_with(&format!("team-a/{fqdn}/data/"));
    assert_eq!(keys.iter().filter(in_pool).count(), 2, "{keys:?}");
    let list = ["list-backups", "--show-all"];
    assert!(medusa.ok(&list).stdout.contains("b1") && medusa.peer_ok(&list).stdout.contains("b1"));
    let elsewhere = medusa.ok(&[&["--prefix", "team-b"], &list[..]].concat());
    assert!(!elsewhere.stdout.contains("b1"), "{elsewhere}");
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

//! Buckets that keep versions or lock their objects: a backup is written, deleted and purged there as anywhere else, and what is
//! locked stays.

use serde_json::json;

use crate::lab::medusa::Medusa;
use crate::lab::stores::ObjectServer as _;
use crate::lab::stores::minio::Minio;
use crate::lab::unique;
use crate::support::{medusa, own_data, shared_node, snapshot_folder};

/// Two backups, the second with one file less and another content, as far as a bucket lets them go through their lives.
fn live(bucket: &str) -> Medusa {
    let mut medusa = medusa(shared_node());
    let data = own_data(&mut medusa, shared_node());
    medusa.use_store(&Minio::shared().settings(bucket));
    medusa.set("storage", "multi_part_upload_threshold", "5MB");
    medusa.set("storage", "multipart_chunksize", "5MB");
    medusa.set("storage", "backup_grace_period_in_days", "0");
    for (name, files) in [("b1", &[1, 2, 3][..]), ("b2", &[2, 3])] {
        let snapshot = snapshot_folder(&data, name);
        for number in files {
            // The third goes up in parts, and each backup has another first byte in the second.
            let mut content = vec![u8::try_from(*number).unwrap(); if *number == 3 { 6 << 20 } else { 1000 }];
            content[0] = if *number == 2 { name.as_bytes()[1] } else { 0 };
            std::fs::write(snapshot.join(format!("nb-{number}-big-Index.db")), content).unwrap();
        }
        medusa.ok(&["backup-node", "--backup-name", name, "--use-existing-snapshot", "--keep-snapshot"]);
    }
    medusa.ok(&["storage-check"]);
    medusa.ok(&["delete-backup", "--backup-name", "b1"]);
    medusa.ok(&["purge"]);
    medusa.ok(&["verify", "--all", "--read-data"]);
    medusa.ok(&["verify", "--repository"]);
    let listed = medusa.ok(&["list-backups", "--show-all"]).stdout;
    assert!(listed.contains("b2") && !listed.contains("b1 "), "{listed}");
    medusa
}

fn first_files(minio: &Minio, bucket: &str) -> Vec<serde_json::Value> {
    let of_first = |version: &serde_json::Value| version["key"].as_str().unwrap().ends_with("nb-1-big-Index.db");
    minio.versions(bucket).into_iter().filter(of_first).collect()
}

#[test]
fn p3_what_a_purge_removes_from_a_bucket_with_versions_can_be_brought_back() {
    let minio = Minio::shared();
    let bucket = format!("versions-{}", unique());
    minio.create_versioned_bucket(&bucket);
    live(&bucket);
    let versions = first_files(minio, &bucket);
    assert_eq!(versions.len(), 2, "the content, and the mark that it was deleted: {versions:?}");
    assert!(versions.iter().any(|version| version["deleted"] == true && version["latest"] == true), "{versions:?}");
    // Data is written once: what was overwritten are leases, latest markers and clocks. What a purge tries is only deleted.
    for version in minio.versions(&bucket) {
        let key = version["key"].as_str().unwrap();
        let written = minio.versions(&bucket).iter().filter(|v| v["key"] == key && v["deleted"] == false).count();
        assert!(!key.contains("/data/") || written <= 1, "{key} was written {written} times");
    }
}

#[test]
fn p3_a_bucket_that_locks_its_objects_takes_backups_and_keeps_them() {
    let minio = Minio::shared();
    let bucket = format!("locks-{}", unique());
    minio.create_locked_bucket(&bucket);
    minio.default_retention(&bucket, "COMPLIANCE", 1);
    live(&bucket);
    let versions = first_files(minio, &bucket);
    let content = versions.iter().find(|version| version["deleted"] == false).expect("the content is locked");
    let (key, version) = (&content["key"], &content["version"]);
    let gone = minio.attempt_as(
        &minio.credentials(),
        "delete_version",
        &json!({ "bucket": bucket, "key": key, "version": version }),
    );
    assert!(gone.is_err(), "a locked version was deleted: {gone:?}");
}

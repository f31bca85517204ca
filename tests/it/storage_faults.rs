//! Storage that is full or cannot be written, and signals, beside commands that delete: nothing is lost, and the same command
//! run again does the rest.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;

use crate::lab::medusa::{Medusa, finish};
use crate::lab::tree;
use crate::made::{self, TABLE, object};
use crate::support::{SmallDisk, assert_fails, listed, signal, wait_for};

/// The commands that change a bucket and need no node, with the exit code of a failure: 3 where other nodes go on.
const CHANGING: [(&[&str], i32); 3] =
    [(&["purge"], 1), (&["delete-backup", "--backup-name", "b1"], 1), (&["build-index"], 3)];

const NODE: &str = "127.0.0.1";

/// A bucket with three backups that share an object, of which a purge keeps one.
fn three_backups() -> Medusa {
    let mut medusa = made::medusa();
    medusa.set("storage", "max_backup_count", "1");
    medusa.set("storage", "backup_grace_period_in_days", "0");
    medusa
}

fn fill(medusa: &Medusa) {
    let bucket = medusa.bucket();
    for (number, name) in (1..).zip(["b1", "b2", "b3"]) {
        let own = object(NODE, &format!("nb-{number}-big-Data.db"), name);
        made::backup(&bucket, NODE, name, &[NODE], &[object(NODE, "nb-9-big-Data.db", "shared"), own]);
        // The index says when they were begun.
        let folder = bucket.join(format!("index/backup_index/{name}"));
        let started = |at: u32| folder.join(format!("started_{NODE}_{at}.timestamp"));
        fs::rename(started(1_700_000_000), started(1_700_000_000 + number)).unwrap();
    }
    medusa.ok(&["build-index"]);
}

/// What a purge leaves.
fn is_purged(medusa: &Medusa) {
    assert_eq!(listed(medusa).into_keys().collect::<Vec<_>>(), ["b3"]);
    medusa.ok(&["verify", "--backup-name", "b3", "--read-data"]);
    let pool = format!("{NODE}/data/ks/{TABLE}/");
    let stored: Vec<_> = tree(&medusa.bucket()).into_keys().filter(|key| key.starts_with(&pool)).collect();
    assert_eq!(stored, [format!("{pool}nb-3-big-Data.db"), format!("{pool}nb-9-big-Data.db")]);
}

#[test]
fn p3_a_full_disk_loses_nothing_and_a_purge_makes_space() {
    let medusa = three_backups();
    fs::create_dir_all(medusa.base_path()).unwrap();
    let disk = SmallDisk::mount(&medusa.base_path());
    fill(&medusa);
    let before = tree(&medusa.bucket());
    let ballast = medusa.base_path().join("ballast");
    while fs::write(&ballast, vec![0; 8 << 20]).is_ok() {}
    // The last blocks, too.
    for number in 0.. {
        if fs::write(medusa.base_path().join(format!("ballast-{number}")), [0; 4096]).is_err() {
            break;
        }
    }
    for (arguments, code) in CHANGING {
        assert_fails(&medusa.run(arguments), code, &["No space left on device"]);
        assert_eq!(tree(&medusa.bucket()), before, "{arguments:?}");
    }
    let run = medusa.run(&["delete-backup", "--backup-name", "b1"]);
    assert_fails(&run, 1, &["remove a folder of index/summaries"]);
    for arguments in [&["list-backups"][..], &["verify", "--all", "--read-data"], &["status", "--backup-name", "b1"]] {
        medusa.ok(arguments);
    }

    fs::remove_dir_all(medusa.bucket().join("index/summaries")).unwrap();
    medusa.ok(&["purge"]);
    is_purged(&medusa);
    drop(disk);
}

#[test]
fn p3_storage_that_can_only_be_read_loses_nothing() {
    let medusa = three_backups();
    fs::create_dir_all(medusa.base_path()).unwrap();
    let disk = SmallDisk::mount(&medusa.base_path());
    fill(&medusa);
    let before = tree(&medusa.bucket());
    disk.remount("ro");
    for (arguments, code) in CHANGING {
        assert_fails(&medusa.run(arguments), code, &["Read-only file system"]);
    }
    for arguments in [
        &["list-backups"][..],
        &["verify", "--all", "--read-data"],
        &["verify", "--repository"],
        &["status", "--backup-name", "b1"],
        &["purge", "--dry-run"],
        &["delete-backup", "--backup-name", "b1", "--dry-run"],
        &["build-index", "--dry-run"],
    ] {
        medusa.ok(arguments);
    }
    assert_eq!(tree(&medusa.bucket()), before);
    disk.remount("rw");
    medusa.ok(&["purge"]);
    is_purged(&medusa);
}

fn pool_files(medusa: &Medusa) -> usize {
    fs::read_dir(medusa.bucket().join(format!("{NODE}/data/ks/{TABLE}"))).unwrap().count()
}

fn ended(child: Child, arguments: &[&str]) -> crate::lab::medusa::Run {
    finish(child.wait_with_output().unwrap(), "medusa", arguments)
}

/// A purge with much to delete, of which some is gone.
fn purging(medusa: &Medusa) -> Child {
    const GARBAGE: usize = 60_000;
    for number in 0..GARBAGE {
        fs::write(medusa.bucket().join(format!("{NODE}/data/ks/{TABLE}/nb-{number}-big-Index.db")), "").unwrap();
    }
    let child = medusa.spawn(&["purge"]);
    wait_for("the purge", || pool_files(medusa) < GARBAGE);
    child
}

#[test]
fn p3_a_purge_that_is_interrupted_is_finished_by_the_next_one() {
    let medusa = three_backups();
    fill(&medusa);
    let lease = medusa.bucket().join(format!("index/leases/{NODE}.json"));
    // It may be quicker than the signal.
    let interrupted = (0..5).any(|_| {
        let child = purging(&medusa);
        signal(&child, "TERM");
        let run = ended(child, &["purge"]);
        let interrupted = run.code != 0;
        if interrupted {
            assert_fails(&run, 143, &["interrupted by SIGTERM"]);
        }
        interrupted
    });
    assert!(interrupted, "it was always quicker than the signal");
    assert!(!lease.exists());
    medusa.ok(&["verify", "--backup-name", "b3", "--read-data"]);

    // Killed, it leaves its lease, which the next one takes over.
    let killed = (0..5).any(|_| {
        let mut child = purging(&medusa);
        child.kill().unwrap();
        child.wait().unwrap().signal() == Some(9) && lease.exists()
    });
    assert!(killed, "it was always quicker than the kill");
    medusa.ok(&["verify", "--backup-name", "b3", "--read-data"]);
    medusa.ok(&["purge"]);
    is_purged(&medusa);
}

//! What lists and states cost: summaries in place of manifests, and a number of requests that does not grow with the bucket.
//! And which nodes a backup should have.

use std::collections::BTreeMap;
use std::sync::Arc;

use medusa::config::{Config, Overrides};
use medusa::listing;
use medusa::listing::contents::contents;
use medusa::listing::last::LastBackups;
use medusa::model::names::{BackupName, Fqdn};
use medusa::storage::{Storage, provider};
use object_store::ObjectStore;

use crate::lab::medusa::Medusa;
use crate::lab::tree;
use crate::made::{self, object, put};
use crate::stopper::{Fault, Stopper};
use crate::support::assert_fails;

const QUESTIONS: [&[&str]; 5] = [
    &["list-backups", "--show-all"],
    &["list-backups", "--show-all", "--output", "json"],
    &["status", "--backup-name", "b2"],
    &["status", "--latest", "--output", "json"],
    &["report-last-backup"],
];

/// Backups of two nodes as cassandra-medusa leaves them: without summaries.
fn two_nodes(backups: usize) -> Medusa {
    let medusa = made::medusa();
    for fqdn in ["n1", "n2"] {
        for number in 1..=backups {
            let file = format!("nb-{number}-big-Data.db");
            let name = format!("b{number}");
            made::backup(&medusa.bucket(), fqdn, &name, &["n1", "n2"], &[object(fqdn, &file, "content")]);
        }
    }
    medusa
}

fn summaries(medusa: &Medusa) -> Vec<String> {
    let keys = tree(&medusa.bucket()).into_keys();
    keys.filter(|key| key.starts_with("index/summaries/")).collect()
}

/// Without the number of seconds that have passed.
fn answers(medusa: &Medusa) -> Vec<String> {
    let plain = |text: &str| text.split(' ').filter(|word| word.parse::<u64>().is_err()).collect::<Vec<_>>().join(" ");
    QUESTIONS.iter().map(|question| plain(&medusa.ok(question).stdout)).collect()
}

#[test]
fn no_manifest_is_read_where_there_is_a_summary() {
    let medusa = two_nodes(3);
    medusa.ok(&["build-index"]);
    std::fs::remove_dir_all(medusa.bucket().join("index/summaries")).unwrap();
    let slow = answers(&medusa);
    assert!(slow[1].contains("\"num_objects\":"), "{slow:?}");
    medusa.ok(&["build-index"]);
    assert_eq!(summaries(&medusa).len(), 6);
    assert_eq!(answers(&medusa), slow);
    for name in ["b1", "b2", "b3"] {
        std::fs::write(medusa.bucket().join(format!("n1/{name}/meta/manifest.json")), "{").unwrap();
    }
    assert_eq!(answers(&medusa), slow);
    // One that cannot be read is no summary.
    let key = summaries(&medusa).into_iter().find(|key| key.contains("/b2/n1_")).unwrap();
    let path = medusa.bucket().join(&key);
    std::fs::rename(&path, path.with_extension("other")).unwrap();
    let run = medusa.run(QUESTIONS[2]);
    let damaged = "the manifest of backup b2 of n1 is lost or damaged";
    assert_fails(&run, 3, &["n1/b2/meta/manifest.json cannot be used", damaged]);
    assert!(run.stdout.contains("b2"), "{run}");
}

#[test]
fn summaries_that_are_wrong_are_noted_and_written_again() {
    let medusa = two_nodes(1);
    medusa.ok(&["build-index"]);
    let right = summaries(&medusa);
    let path = medusa.bucket().join(&right[0]);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    for (field, value, note) in [
        (4, "99", "says 99 objects and 7 bytes, the manifest 1 and 7"),
        (5, "99", "says 1 objects and 99 bytes, the manifest 1 and 7"),
        (1, "full", "says full, the manifest differential"),
        (8, "0123456789abcdef", "was written for other nodes than the token map names"),
        (3, "5", "speaks of an earlier backup of that name"),
    ] {
        let mut fields: Vec<_> = name.split('_').collect();
        fields[field] = value;
        let wrong = path.with_file_name(fields.join("_"));
        std::fs::rename(&path, &wrong).unwrap();
        let run = medusa.ok(&["verify", "--repository"]);
        assert!(run.stdout.contains(note), "{note:?} is not in {run}");
        medusa.ok(&["build-index"]);
        assert_eq!(summaries(&medusa), right, "{note}");
    }
}

/// Runs a question over a storage that counts, and returns how many requests it took.
async fn requests<T>(medusa: &Medusa, question: impl AsyncFnOnce(Storage) -> anyhow::Result<T>) -> usize {
    let text = std::fs::read_to_string(medusa.ini()).unwrap();
    let path = std::path::Path::new("medusa.ini");
    let config = Config::from_text(&text, path, &Overrides::default(), &BTreeMap::new()).unwrap();
    let mut counter = None;
    let storage = provider::wrapped(provider::open(&config.storage).unwrap(), |inner| {
        let stopper = Stopper::new(inner, usize::MAX, Fault::FailBefore);
        counter = Some(stopper.clone());
        Arc::new(stopper) as Arc<dyn ObjectStore>
    });
    question(storage).await.unwrap();
    counter.unwrap().operations()
}

#[tokio::test]
async fn the_number_of_requests_does_not_grow_with_nodes_and_backups() {
    let name = BackupName::new("b1").unwrap();
    let fqdn = Fqdn::new("n1").unwrap();
    let mut counted = Vec::new();
    for (backups, indexed) in [(2, true), (30, true), (30, false)] {
        let medusa = two_nodes(backups);
        if indexed {
            medusa.ok(&["build-index"]);
        }
        let list = async |storage: Storage| {
            let backups = listing::cluster_backups(&storage).await?;
            contents(&storage, &backups).await
        };
        let status = async |storage: Storage| {
            let backup = listing::listed(&storage, &name).await?.unwrap();
            listing::contents::of_one(&storage, &backup).await
        };
        let report = async |storage: Storage| LastBackups::gather(&storage, &fqdn).await;
        counted.push([requests(&medusa, list).await, requests(&medusa, status).await, requests(&medusa, report).await]);
    }
    println!("requests of list, status and report: {counted:?}");
    assert_eq!(counted[0], counted[1]);
    assert!(counted[1].iter().all(|requests| *requests <= 4), "{counted:?}");
    assert!(counted[2][0] > 60, "the questions were not counted: {counted:?}");
}

/// A node that does not see all others has a token map that is too short.
#[test]
fn a_node_that_any_token_map_names_belongs_to_the_backup() {
    for indexed in [false, true] {
        let medusa = made::medusa();
        let bucket = medusa.bucket();
        made::backup(&bucket, "n1", "b1", &["n1", "n2"], &[]);
        made::backup(&bucket, "n2", "b1", &["n1", "n2", "n3"], &[]);
        // The one that was started first decides in cassandra-medusa.
        let started = bucket.join("index/backup_index/b1/started_n1_1700000000.timestamp");
        std::fs::rename(started, bucket.join("index/backup_index/b1/started_n1_1600000000.timestamp")).unwrap();
        if indexed {
            medusa.ok(&["build-index"]);
        }
        let status = medusa.ok(&["status", "--backup-name", "b1"]).stdout;
        assert!(status.contains("- 2 nodes completed, 0 nodes incomplete, 1 nodes missing\n"), "{status}");
        assert!(status.contains("- Missing nodes:\n    n3\n"), "{status}");
        let list = medusa.ok(&["list-backups", "--show-all"]).stdout;
        assert!(list.contains("Incomplete [2 of 3 nodes finished]"), "{list}");
        assert_fails(&medusa.run(&["verify", "--backup-name", "b1"]), 3, &[]);
        let newest = medusa.ok(&["get-last-complete-cluster-backup"]).stdout;
        assert_eq!(newest, "Could not find any full backup for the cluster\n");
        // As cassandra-medusa prints it: that of the first node.
        assert_eq!(medusa.ok(&["fetch-tokenmap", "--backup-name", "b1"]).stdout, "n1\n[1]\nn2\n[1]\n");
        // Damaged, it hides nobody: its copy in the index stands in for it.
        put(&bucket, "n2/b1/meta/tokenmap.json", "[");
        let status = medusa.ok(&["status", "--backup-name", "b1"]);
        assert!(status.stdout.contains("- Missing nodes:\n    n3\n"), "{status}");
        assert_eq!(status.stderr.matches("n2/b1/meta/tokenmap.json cannot be used").count(), 1, "{status}");
        put(&bucket, "n1/b1/meta/tokenmap.json", "[");
        let status = medusa.ok(&["status", "--backup-name", "b1"]);
        assert!(status.stderr.contains("neither can the token maps of 1 other nodes of backup b1"), "{status}");
    }
}

#[test]
fn a_host_under_two_names_is_told() {
    let medusa = made::medusa();
    made::backup(&medusa.bucket(), "n1", "b1", &["n1", "10.0.0.2"], &[]);
    made::backup(&medusa.bucket(), "n2.example.net", "b1", &["n1", "10.0.0.2"], &[]);
    for question in [&["status", "--backup-name", "b1"][..], &["list-backups", "--show-all"], &["report-last-backup"]] {
        let run = medusa.ok(question);
        let told = "no token map names n2.example.net, and 10.0.0.2 of the token maps has no backup: one host under two names?";
        assert_eq!(run.stderr.matches(told).count(), 1, "{run}");
        assert!(run.stderr.contains("resolve_ip_addresses"), "{run}");
    }
    let whole = two_nodes(1).ok(&["status", "--backup-name", "b1"]);
    assert!(!whole.stderr.contains("two names"), "{whole}");
}

//! Rebuilding the index of buckets that are made up.

use super::*;
use crate::purge::made::{Hook, Made, denied, nothing};

const KEY: &str = "n1/data/ks/t-34998de0e59711f199fcf93f14538dd2/nb-1-big-Data.db";

fn of<'a>(report: &'a IndexReport, fqdn: &str) -> &'a NodeChanges {
    &report.nodes[&Fqdn::new(fqdn).unwrap()]
}

fn names(keys: &[ObjectKey]) -> Vec<String> {
    keys.iter().map(|key| key.as_str().rsplit_once('/').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn a_differential_backup_without_its_marker_is_known_by_its_files() {
    let made = Made::new();
    made.backup("b1", 3, &[KEY]);
    let context = made.context().await;
    rebuild(&context, false).await.unwrap();
    for marker in ["n1/b1/meta/differential", "index/backup_index/b1/differential_n1"] {
        std::fs::remove_file(made.file(marker)).unwrap();
    }
    let report = rebuild(&context, false).await.unwrap();
    assert_eq!(names(&of(&report, "n1").written), ["differential_n1"]);
    assert!(report.failure().is_none());
}

#[tokio::test]
async fn the_start_in_the_index_outlives_a_schema_that_was_written_again() {
    let made = Made::new();
    made.backup("b1", 3, &[KEY]);
    made.put("n1/b1/meta/schema.cql", "another schema", 2);
    let report = rebuild(&made.context().await, false).await.unwrap();
    let changes = of(&report, "n1");
    // The summary was one of other nodes.
    assert!(names(&changes.removed).iter().all(|key| key.ends_with(".summary")), "{changes:?}");
    assert!(!names(&changes.written).iter().any(|key| key.starts_with("finished_")), "{changes:?}");
    let started = made.keys().into_iter().filter(|key| key.contains("/started_n1_")).count();
    assert_eq!(started, 1);
}

#[tokio::test]
async fn p3_what_cannot_be_read_is_not_taken_for_gone() {
    let made = Made::new();
    made.backup("b1", 3, &[KEY]);
    made.backup("b2", 2, &[KEY]);
    let before = made.keys();
    for meta in ["manifest.json", "tokenmap.json", "schema.cql"] {
        let end = format!("n1/b1/meta/{meta}");
        let deny: Hook = Box::new(move |path| (path.as_ref() == end).then(|| denied(path)));
        let report = rebuild(&made.hooked(deny, nothing()).await, false).await.unwrap();
        assert!(report.failure().unwrap().details[0].contains("403 Forbidden"), "{meta}");
        assert!(before.is_subset(&made.keys()), "{meta}");
    }
    // Damaged in the bucket itself, one backup does not keep the others from being rebuilt.
    std::fs::remove_file(made.file("n1/b1/meta/schema.cql")).unwrap();
    made.put("n1/b1/meta/tokenmap.json", "[", 3);
    std::fs::remove_dir_all(made.file("index/backup_index/b2")).unwrap();
    let report = rebuild(&made.context().await, false).await.unwrap();
    assert_eq!(of(&report, "n1").problems, ["b1: it has a manifest, but schema.cql is missing"]);
    assert!(made.keys().iter().filter(|key| key.starts_with("index/backup_index/b1/")).count() == 6);
    assert_eq!(made.keys().iter().filter(|key| key.starts_with("index/backup_index/b2/")).count(), 6);
}

#[tokio::test]
async fn a_backup_that_has_just_begun_is_not_put_into_the_index() {
    let made = Made::new();
    made.put("n1/b1/meta/schema.cql", "schema", 0);
    let report = rebuild(&made.context().await, false).await.unwrap();
    assert_eq!((of(&report, "n1").backups, of(&report, "n1").written.len()), (1, 0));
    assert_eq!(made.keys().into_iter().collect::<Vec<_>>(), ["n1/b1/meta/schema.cql"]);
}

#[tokio::test]
async fn folders_without_a_backup_are_no_nodes() {
    let made = Made::new();
    made.put("photos/2024/meta/readme.txt", "x", 1);
    made.put("photos/2024/data/x.jpg", "x", 1);
    made.put("cluster2/n1/b1/meta/schema.cql", "of another prefix", 1);
    assert!(rebuild(&made.context().await, false).await.unwrap().nodes.is_empty());
}

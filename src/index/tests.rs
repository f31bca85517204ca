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
    // The made-up summary of b2 is not what its manifest says: it may be replaced, but not be missing.
    let of_b2 = |key: &String| key.starts_with("index/summaries/b2/n1_");
    let before: Vec<_> = made.keys().into_iter().filter(|key| !of_b2(key)).collect();
    for meta in ["manifest.json", "tokenmap.json", "schema.cql"] {
        let end = format!("n1/b1/meta/{meta}");
        let deny: Hook = Box::new(move |path| (path.as_ref() == end).then(|| denied(path)));
        let report = rebuild(&made.hooked(deny, nothing()).await, false).await.unwrap();
        assert!(report.failure().unwrap().details[0].contains("403 Forbidden"), "{meta}");
        let keys = made.keys();
        let gone: Vec<_> = before.iter().filter(|key| !keys.contains(*key)).collect();
        assert!(gone.is_empty(), "{meta}: {gone:?}");
        assert!(keys.iter().any(of_b2), "{meta}: {keys:?}");
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
async fn p3_the_last_copy_of_a_lost_manifest_stays() {
    let made = Made::new();
    made.backup("b1", 3, &[KEY]);
    std::fs::remove_file(made.file("n1/b1/meta/manifest.json")).unwrap();
    let (copy, manifest) = ("index/backup_index/b1/manifest_n1.json", "n1/b1/meta/manifest.json");
    let before = made.keys();
    let report = rebuild(&made.context().await, false).await.unwrap();
    let problem = &report.failure().unwrap().details[0];
    assert!(problem.contains(&format!("copy {copy} to {manifest}, or medusa --fqdn n1 delete-backup")), "{problem}");
    assert_eq!(made.keys(), before);
    // The way out that it names.
    std::fs::copy(made.file(copy), made.file(manifest)).unwrap();
    assert!(rebuild(&made.context().await, false).await.unwrap().failure().is_none());
    std::fs::remove_file(made.file(manifest)).unwrap();
    std::fs::remove_file(made.file(copy)).unwrap();
    let report = rebuild(&made.context().await, false).await.unwrap();
    assert!(report.failure().unwrap().details[0].contains("the index has no copy"));
    assert!(made.keys().iter().any(|key| key.contains("/b1/finished_n1_")));
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
async fn p2_a_signal_gives_the_lease_back() {
    let made = Made::new();
    made.backup("b1", 3, &[KEY]);
    // The work on n1 may end with the signal; that on n2 never begins.
    made.put("n2/b1/meta/schema.cql", "x", 3);
    let interrupt = crate::interrupt::Interrupt::default();
    let signal = interrupt.clone();
    let raise: Hook = Box::new(move |path| {
        if path.as_ref().ends_with("b1/meta/tokenmap.json") {
            signal.raise(15);
        }
        None
    });
    let context = Context { interrupt, ..made.hooked(raise, nothing()).await };
    let error = rebuild(&context, false).await.unwrap_err();
    assert_eq!(error.downcast_ref::<Failure>().unwrap().kind.exit_code(), 143);
    assert!(!made.keys().iter().any(|key| key.starts_with("index/leases/")), "{:?}", made.keys());
}

#[tokio::test]
async fn folders_without_a_backup_are_no_nodes() {
    let made = Made::new();
    made.put("photos/2024/meta/readme.txt", "x", 1);
    made.put("photos/2024/data/x.jpg", "x", 1);
    made.put("cluster2/n1/b1/meta/schema.cql", "of another prefix", 1);
    assert!(rebuild(&made.context().await, false).await.unwrap().nodes.is_empty());
}

//! Purges of buckets that are made up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{Local, TimeDelta};
use serde_json::json;

use super::made::{Hook, Made, TABLE, as_object_store, denied, nothing};
use super::*;
use crate::config::Retention;
use crate::model::look::Look;
use crate::monitor::{Monitor, Transfer};

/// Keeps the newest `count`, with a grace period of 10 days.
fn newest(count: u64) -> PurgeOptions {
    let retention = Retention { max_backup_count: count, backup_grace_period_in_days: 10, ..Retention::default() };
    PurgeOptions { policy: Policy { retention, allow_last: false, decommissioned: false }, dry_run: false }
}

fn graceless(options: PurgeOptions) -> PurgeOptions {
    let retention = Retention { backup_grace_period_in_days: 0, ..options.policy.retention };
    PurgeOptions { policy: Policy { retention, ..options.policy }, ..options }
}

async fn purge(context: &Context, options: PurgeOptions) -> NodeOutcome {
    let bucket = Bucket::gather(&context.storage).await.unwrap();
    let fqdn = Fqdn::new("n1").unwrap();
    purge_node(context, &bucket, &fqdn, &options).await.unwrap()
}

fn gone(outcome: &NodeOutcome) -> Vec<&str> {
    outcome.plan.goes().map(|backup| backup.name.as_str()).collect()
}

/// Keeps what is shown, and how far it came.
#[derive(Debug, Default)]
struct Shown(Mutex<Vec<(&'static str, Amount, Arc<Counters>)>>);

impl Monitor for Shown {
    fn title(&self, _: &str) {}
    fn step(&self, _: &str, _: &str, _: Duration) {}
    fn transfer(&self, label: &'static str, total: Amount) -> Transfer {
        let counters = Arc::<Counters>::default();
        self.0.lock().unwrap().push((label, total, Arc::clone(&counters)));
        Transfer::new(counters, || ())
    }
    fn problem(&self, _: &str) {}
}

#[tokio::test]
async fn the_manifests_that_are_read_are_counted() {
    let made = Made::new();
    for (name, days) in [("b1", 30), ("b2", 20), ("b3", 15), ("b4", 12)] {
        made.backup(name, days, &[]);
    }
    let shown = Arc::new(Shown::default());
    let context = Context { monitor: Arc::clone(&shown) as Arc<dyn Monitor>, ..made.context().await };
    purge(&context, newest(3)).await;
    let shown = shown.0.lock().unwrap();
    let (_, total, counters) = shown.iter().find(|(label, ..)| *label == "manifests").unwrap();
    // Of the one that goes nothing is read.
    assert_eq!((total.files, counters.amount().files), (3, 3));
}

#[tokio::test]
async fn p3_what_a_manifest_names_stays_whatever_its_age() {
    let made = Made::new();
    let shared = made.pool("nb-1-big-Data.db", 40);
    let last = made.pool("nb-2-big-Data.db", 40);
    let first_only = made.pool("nb-3-big-Data.db", 40);
    let content_key = made.pool("0123456789abcdef/nb-1-big-Data.db", 40);
    let young = made.pool("nb-4-big-Data.db", 9);
    let index_folder = made.pool(".t_idx/nb-1-big-Data.db", 40);
    made.backup("b1", 30, &[&shared, &first_only, &content_key]);
    made.backup("b2", 20, &[&shared]);
    made.backup("b3", 15, &[&shared, &last, &index_folder]);
    // Neither is in the pool, although its name begins so.
    made.put(&format!("n1/data-1/data/{TABLE}/nb-1-big-Data.db"), "x", 5);
    made.put(&format!("n10/data/{TABLE}/nb-1-big-Data.db"), "x", 40);
    let before = made.keys();

    let outcome = purge(&made.context().await, newest(2)).await;
    assert_eq!(gone(&outcome), ["b1"]);
    assert_eq!(outcome.stopped, None);
    let removed: BTreeSet<_> = before.difference(&made.keys()).cloned().collect();
    let own = |key: &String| key.contains("/b1/");
    assert_eq!(removed.iter().filter(|key| !own(key)).collect::<Vec<_>>(), [&content_key, &first_only]);
    assert_eq!(removed.iter().filter(|key| own(key)).count(), 11, "{removed:?}");
    assert!(made.keys().is_subset(&before), "something was left behind");
    let PoolPlan::Sweep(state) = &outcome.plan.pool else { panic!("{:?}", outcome.plan.pool) };
    assert_eq!((state.named.files, state.garbage_amount.files, state.young.files), (3, 2, 1));
    assert_eq!((outcome.swept, outcome.deleted.files), (state.garbage_amount, 11));
    assert!(made.file(&young).exists());

    // Nothing is left to do, and the young one goes in its time.
    let outcome = purge(&made.context().await, newest(2)).await;
    assert_eq!((gone(&outcome), outcome.swept.files), (vec![], 0));
    assert_eq!(purge(&made.context().await, graceless(newest(2))).await.swept.files, 1);
    assert_eq!(made.pool_keys(), BTreeSet::from([shared, last, index_folder]));
}

#[tokio::test]
async fn p3_a_dry_run_says_the_same_and_changes_nothing() {
    let made = Made::new();
    let (kept, garbage) = (made.pool("nb-1-big-Data.db", 40), made.pool("nb-2-big-Data.db", 40));
    made.backup("b1", 30, &[&garbage]);
    made.backup("b2", 20, &[&kept]);
    let before = made.keys();
    let context = made.context().await;
    let planned = purge(&context, PurgeOptions { dry_run: true, ..newest(1) }).await;
    assert_eq!(made.keys(), before);
    let done = purge(&context, newest(1)).await;
    assert_eq!(planned.plan.backups, done.plan.backups);
    let PoolPlan::Sweep(state) = &planned.plan.pool else { panic!("{:?}", planned.plan.pool) };
    assert_eq!((state.garbage_amount, planned.plan.backups[0].amount), (done.swept, done.deleted));
    assert_eq!(made.pool_keys(), BTreeSet::from([kept]));
}

/// The pool stays, also garbage; the reason names the backup.
async fn refused(made: &Made, context: &Context, reason: &str) {
    let before = made.pool_keys();
    let outcome = purge(context, newest(2)).await;
    let PoolPlan::Refuse(reasons) = &outcome.plan.pool else { panic!("{reason}: {:?}", outcome.plan.pool) };
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("b3") && reasons[0].contains(reason), "{reasons:?}");
    assert_eq!(made.pool_keys(), before, "{reason}");
    assert_eq!(gone(&outcome), ["b1"], "backups go by their own age");
    assert!(!made.file("n1/b1").join("meta/schema.cql").exists());
}

/// One that cannot be restored does not stand for one that can.
#[tokio::test]
async fn p3_the_newest_backup_that_can_be_restored_stays() {
    for content in ["[{\"keyspace\": \"ks\"", "[]"] {
        let made = three_backups();
        made.put("n1/b3/meta/manifest.json", content, 15);
        let outcome = purge(&made.context().await, newest(1)).await;
        assert_eq!(gone(&outcome), ["b1"]);
        assert_eq!(outcome.plan.backups[1].verdict, Verdict::Keep(vec![Keep::NewestUnusable]));
        let left = made.pool_keys();
        assert!(left.iter().any(|key| key.ends_with("nb-2-big-Data.db")), "{content}: {left:?}");

        let made = three_backups();
        for name in ["b2", "b3"] {
            made.put(&format!("n1/{name}/meta/manifest.json"), content, 15);
        }
        let outcome = purge(&made.context().await, newest(1)).await;
        assert_eq!(gone(&outcome), [""; 0]);

        let made = three_backups();
        std::fs::remove_file(made.file("n1/b2/meta/manifest.json")).unwrap();
        made.put("n1/b3/meta/manifest.json", content, 15);
        let outcome = purge(&made.context().await, newest(1)).await;
        assert_eq!(gone(&outcome), [""; 0]);
        assert!(made.pool_keys().iter().any(|key| key.ends_with("nb-1-big-Data.db")));
    }
}

fn three_backups() -> Made {
    let made = Made::new();
    let keys =
        [made.pool("nb-1-big-Data.db", 40), made.pool("nb-2-big-Data.db", 40), made.pool("nb-3-big-Data.db", 40)];
    made.pool("nb-9-big-Data.db", 40);
    for (name, days, key) in [("b1", 30, &keys[0]), ("b2", 20, &keys[1]), ("b3", 15, &keys[2])] {
        made.backup(name, days, &[key]);
    }
    made
}

#[tokio::test]
async fn p3_a_manifest_that_is_missing_keeps_the_pool() {
    let made = three_backups();
    std::fs::remove_file(made.file("n1/b3/meta/manifest.json")).unwrap();
    refused(&made, &made.context().await, "manifest is missing").await;

    // Also where the whole folder is gone, and only the index tells of the backup.
    let made = three_backups();
    made.backup("b4", 15, &[]);
    std::fs::remove_dir_all(made.file("n1/b3")).unwrap();
    refused(&made, &made.context().await, "manifest is missing").await;
}

#[tokio::test]
async fn p3_a_manifest_that_is_damaged_keeps_the_pool() {
    for (content, reason) in [
        ("", "not readable"),
        ("[{\"keyspace\": \"ks\"", "not readable"),
        ("{}", "not readable"),
        (
            r#"[{"keyspace": "ks", "columnfamily": "t", "objects": [{"path": "n2/data/ks/t/f", "MD5": null, "size": 1}]}]"#,
            "outside",
        ),
        (
            r#"[{"keyspace": "ks", "columnfamily": "t", "objects": [{"path": "n1/../n2/ks/t/f", "MD5": null, "size": 1}]}]"#,
            "no object key",
        ),
        (
            r#"[{"keyspace": "ks", "columnfamily": "t", "objects": [{"path": "n1/data", "MD5": null, "size": 1}]}]"#,
            "no object key",
        ),
    ] {
        let made = three_backups();
        made.put("n1/b3/meta/manifest.json", content, 15);
        refused(&made, &made.context().await, reason).await;
    }
}

#[tokio::test]
async fn p3_a_storage_that_fails_keeps_the_pool() {
    let made = three_backups();
    let deny: Hook = Box::new(|path| path.as_ref().ends_with("n1/b3/meta/manifest.json").then(|| denied(path)));
    let context = made.hooked(deny, nothing()).await;
    refused(&made, &context, "403 Forbidden").await;
    // Once it answers again, the rest is done.
    let outcome = purge(&made.context().await, newest(2)).await;
    assert_eq!(outcome.swept.files, 2);
}

#[tokio::test]
async fn p3_an_index_that_was_lost_takes_no_data_with_it() {
    let made = three_backups();
    std::fs::remove_dir_all(made.file("index")).unwrap();
    let outcome = purge(&made.context().await, graceless(newest(0))).await;
    assert_eq!((gone(&outcome), outcome.swept.files), (vec![], 1));
    assert_eq!(made.pool_keys().len(), 3);
}

#[tokio::test]
async fn p3_a_backup_that_begins_or_ends_meanwhile_stops_the_purge() {
    for finished in [false, true] {
        let made = three_backups();
        let other = made.clone();
        let begin: Hook = Box::new(move |path| {
            if path.as_ref() == "n1/b1/meta/schema.cql" {
                let reused = format!("n1/data/{TABLE}/nb-9-big-Data.db");
                if finished { other.backup("b4", 0, &[&reused]) } else { other.begun("b4", 0) }
            }
            None
        });
        let context = made.hooked(nothing(), begin).await;
        let outcome = purge(&context, newest(2)).await;
        assert!(outcome.stopped.as_deref().unwrap().contains("b4"), "{:?}", outcome.stopped);
        assert_eq!(outcome.swept, Amount::default());
        assert_eq!(made.pool_keys().len(), 4);
    }
}

#[tokio::test]
async fn p3_a_backup_that_is_finished_meanwhile_is_not_deleted() {
    let made = three_backups();
    made.begun("b0", 50);
    let other = made.clone();
    let once = Mutex::new(false);
    // Its run was slow, and comes to its end while the purge reads other manifests.
    let finish: Hook = Box::new(move |path| {
        if path.as_ref().ends_with("manifest.json") && !std::mem::replace(&mut *once.lock().unwrap(), true) {
            other.backup("b0", 50, &[&format!("n1/data/{TABLE}/nb-9-big-Data.db")]);
        }
        None
    });
    let context = made.hooked(finish, nothing()).await;
    let outcome = purge(&context, newest(3)).await;
    assert_eq!(gone(&outcome), ["b0"]);
    assert!(outcome.stopped.as_deref().unwrap().contains("b0 was changed"), "{:?}", outcome.stopped);
    assert!(made.file("n1/b0/meta/manifest.json").exists());
    assert_eq!(made.pool_keys().len(), 4);
}

#[tokio::test]
async fn p3_an_unfinished_backup_that_is_young_is_not_touched() {
    let made = three_backups();
    made.begun("b4", 5);
    let outcome = purge(&made.context().await, newest(1)).await;
    // By number only b4 would stay; b3 is the last one that was finished.
    assert_eq!(gone(&outcome), ["b1", "b2"]);
    assert_eq!(outcome.swept.files, 3, "a run of five days ago does not keep the pool");
    assert!(made.file("n1/b4/meta/schema.cql").exists());

    // One that may be running keeps what it may use, although nothing names it yet.
    let made = three_backups();
    made.begun("b4", 0);
    let outcome = purge(&made.context().await, newest(2)).await;
    assert_eq!(outcome.plan.pool, PoolPlan::Wait(BackupName::new("b4").unwrap()));
    assert_eq!((gone(&outcome), made.pool_keys().len()), (vec!["b1", "b2"], 4));

    let made = three_backups();
    made.begun("b0", 40);
    let outcome = purge(&made.context().await, newest(3)).await;
    assert_eq!((gone(&outcome), outcome.swept.files), (vec!["b0"], 1));
    assert!(!made.keys().iter().any(|key| key.contains("b0")));
}

#[tokio::test]
async fn p3_a_finished_backup_that_lost_its_manifest_is_not_deleted() {
    let made = three_backups();
    std::fs::remove_file(made.file("n1/b1/meta/manifest.json")).unwrap();
    let before = made.keys();
    let outcome = purge(&made.context().await, newest(2)).await;
    assert_eq!(outcome.plan.backups[0].verdict, Verdict::Keep(vec![Keep::ManifestMissing]));
    let PoolPlan::Refuse(reasons) = &outcome.plan.pool else { panic!("{:?}", outcome.plan.pool) };
    assert!(reasons[0].contains("index/backup_index/b1/manifest_n1.json is a copy of it"), "{reasons:?}");
    assert_eq!(made.keys(), before);
}

#[tokio::test]
async fn p3_a_backup_that_takes_no_lease_may_run_whatever_the_grace_period() {
    let made = three_backups();
    made.begun("b4", 0);
    made.backup("b5", 0, &[]);
    let outcome = purge(&made.context().await, graceless(newest(1))).await;
    let b4 = outcome.plan.backups.iter().find(|backup| backup.name.as_str() == "b4").unwrap();
    assert_eq!(b4.verdict, Verdict::Keep(vec![Keep::MayRun]));
    assert_eq!(outcome.plan.pool, PoolPlan::Wait(BackupName::new("b4").unwrap()));
    assert_eq!(made.pool_keys().len(), 4);
    // One of ours would hold the lease.
    made.put("n1/b4/meta/schema_internals.cql", "schema", 0);
    let outcome = purge(&made.context().await, graceless(newest(1))).await;
    assert_eq!((gone(&outcome), outcome.swept.files), (vec!["b4"], 4));
}

#[tokio::test]
async fn p3_files_in_the_folder_of_another_backup_stay_with_it() {
    let made = Made::new();
    let key = format!("n1/b1/data/{TABLE}/nb-1-big-Data.db");
    made.put(&key, "x", 30);
    let shared = made.pool("nb-2-big-Data.db", 40);
    made.backup("b1", 30, &[&key, &shared]);
    made.backup("b2", 20, &[&key]);
    let outcome = purge(&made.context().await, newest(1)).await;
    assert_eq!(gone(&outcome), [""; 0]);
    assert_eq!(outcome.plan.backups[0].verdict, Verdict::Keep(vec![Keep::NamedBy("b2".into())]));
    assert!(made.file(&key).exists());
    assert!(made.file(&shared).exists(), "the backup that stays names it");
}

#[tokio::test]
async fn full_backups_go_with_their_files_and_the_latest_marker_follows() {
    let made = Made::new();
    let key = |name: &str| format!("n1/{name}/data/{TABLE}/nb-1-big-Data.db");
    for (name, days) in [("f1", 30), ("f2", 20)] {
        made.put(&key(name), "x", days);
        made.backup(name, days, &[&key(name)]);
    }
    made.put("index/latest_backup/n1/backup_name.txt", "f1", 30);
    made.put("index/latest_backup/n1/tokenmap.json", "{}", 30);
    let outcome = purge(&made.context().await, newest(1)).await;
    assert_eq!((gone(&outcome), outcome.deleted.files), (vec!["f1"], 12));
    assert!(!made.file(&key("f1")).exists() && made.file(&key("f2")).exists());
    let latest = made.file("index/latest_backup/n1/backup_name.txt");
    assert_eq!(std::fs::read_to_string(latest).unwrap(), "f2");
}

#[tokio::test]
async fn what_killed_deletions_left_goes_after_the_grace_period() {
    let made = three_backups();
    made.put(&format!("n1/old/data/{TABLE}/nb-1-big-Data.db"), "x", 40);
    made.put(&format!("n1/new/data/{TABLE}/nb-1-big-Data.db"), "x", 5);
    made.put("index/backup_index/entries/tokenmap_n1.json", "{}", 40);
    // Of another node.
    made.put("index/backup_index/entries/tokenmap_n2.json", "{}", 40);
    // cassandra-medusa deletes all but the summary.
    made.put("index/summaries/told/n1_full_5_7_1_2_1_2_0123456789abcdef_cassandra_5.0.9.summary", "", 40);
    let outcome = purge(&made.context().await, newest(3)).await;
    let orphans: Vec<_> = outcome.plan.orphans.iter().map(|orphan| (orphan.name.as_str(), orphan.young)).collect();
    assert_eq!(orphans, [("new", true), ("old", false), ("entries", false), ("told", false)]);
    assert_eq!(outcome.deleted.files, 3);
    let left: Vec<_> = made.keys().into_iter().filter(|key| !key.contains("/b")).collect();
    assert_eq!(
        left,
        [
            format!("n1/data/{TABLE}/nb-1-big-Data.db"),
            format!("n1/data/{TABLE}/nb-2-big-Data.db"),
            format!("n1/data/{TABLE}/nb-3-big-Data.db"),
            format!("n1/new/data/{TABLE}/nb-1-big-Data.db")
        ]
    );
    assert!(made.file("index/backup_index/entries/tokenmap_n2.json").exists());
}

#[tokio::test]
async fn p3_the_clock_of_the_storage_counts_and_not_that_of_the_host() {
    let made = three_backups();
    made.pool("nb-8-big-Data.db", 5);
    let context = made.context().await;
    let wrong = Context { now: Local::now() + TimeDelta::days(3650), ..context };
    let retention = Retention { max_backup_age: 18, ..newest(0).policy.retention };
    let options = PurgeOptions { policy: Policy { retention, ..newest(0).policy }, dry_run: false };
    let outcome = purge(&wrong, options).await;
    assert_eq!(gone(&outcome), ["b1", "b2"]);
    assert_eq!(outcome.swept.files, 3);
    assert!(made.file(&format!("n1/data/{TABLE}/nb-8-big-Data.db")).exists());
}

#[tokio::test]
async fn an_interrupted_deletion_is_finished_by_the_next_purge() {
    let made = three_backups();
    let (all, context) = (made.keys().len(), made.context().await);
    // The storage fails at every object in turn.
    for fails_at in 0.. {
        let counted = Mutex::new(0);
        let fail: Hook = Box::new(move |path| {
            let mut counted = counted.lock().unwrap();
            *counted += 1;
            let is_own = ["/clock/", "/leases/"].iter().any(|own| path.as_ref().contains(own));
            (*counted > fails_at && !is_own).then(|| denied(path))
        });
        let outcome = purge(&made.hooked(nothing(), fail).await, newest(2)).await;
        if outcome.stopped.is_none() {
            assert!(fails_at > 3 && made.keys().len() < all - 11);
            break;
        }
        // Also for a purge that leaves b1 alone no manifest is missing, and what b2 and b3 need is there.
        let outcome = purge(&context, PurgeOptions { dry_run: true, ..newest(0) }).await;
        assert!(matches!(outcome.plan.pool, PoolPlan::Sweep(_)), "{fails_at}: {:?}", outcome.plan.pool);
        assert!(made.pool_keys().len() >= 2);
    }
    assert!(!made.keys().iter().any(|key| key.contains("/b1/")), "{:?}", made.keys());
}

#[tokio::test]
async fn without_permission_nothing_is_called_deleted_and_the_purge_failed() {
    let made = three_backups();
    let before = made.keys();
    let deny: Hook = Box::new(|path| {
        let is_own = ["/clock/", "/leases/"].iter().any(|own| path.as_ref().contains(own));
        (!is_own).then(|| denied(path))
    });
    let outcome = purge(&made.hooked(nothing(), deny).await, newest(1)).await;
    assert_eq!(made.keys(), before);
    let mut report = report::PurgeReport {
        dry_run: false,
        grace: 10,
        began: 0,
        took: Duration::ZERO,
        nodes: vec![outcome],
        failed: Vec::new(),
        storage_failures: 0,
    };
    let text = report.text(Look::default(), "/backups/prod");
    assert!(text.starts_with("kept 3, deleted 0 backups of n1\n"), "{text}");
    assert!(!text.contains("  deleted ") && text.contains("  left "), "{text}");
    assert_eq!(report.json()["nodes"][0]["backups"][0]["action"], "left");
    let failure = report.failure().unwrap();
    assert_eq!(failure.kind.exit_code(), 1);
    assert!(failure.message.starts_with("no backup was deleted: ") && failure.message.contains("403"), "{failure:?}");
    assert!(failure.hint.unwrap().contains("permission"));
    // Another node was purged.
    report.nodes[0].swept = Amount { files: 1, bytes: 1 };
    assert_eq!(report.failure().unwrap().kind.exit_code(), 3);
}

#[tokio::test]
async fn a_folder_that_may_not_be_deleted_from_keeps_all_others() {
    for folder in ["n1/data/", "/meta/", "index/backup_index/", "index/summaries/"] {
        let made = three_backups();
        let before = made.keys();
        let deny: Hook = Box::new(move |path| path.as_ref().contains(folder).then(|| denied(path)));
        let outcome = purge(&as_object_store(made.hooked(nothing(), deny).await), newest(1)).await;
        assert!(outcome.stopped.as_deref().unwrap().starts_with(delete::NOTHING_DELETED), "{folder}: {outcome:?}");
        assert!(outcome.storage_failed);
        assert_eq!(made.keys(), before, "{folder}");
    }
}

#[tokio::test]
async fn the_report_explains_every_class_of_objects() {
    let made = three_backups();
    made.pool("nb-8-big-Data.db", 5);
    made.put(&format!("n1/old/data/{TABLE}/nb-1-big-Data.db"), "x", 40);
    let outcome = purge(&made.context().await, PurgeOptions { dry_run: true, ..newest(2) }).await;
    let mut report = report::PurgeReport {
        dry_run: true,
        grace: 10,
        began: 0,
        took: Duration::ZERO,
        nodes: vec![outcome],
        failed: Vec::new(),
        storage_failures: 0,
    };
    let text = report.text(Look::default(), "/backups/prod");
    let lines: Vec<_> = text
        .lines()
        .map(|line| {
            if line.starts_with(' ') {
                line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
            } else {
                line.to_owned()
            }
        })
        .collect();
    assert_eq!(
        lines,
        [
            "keep 2, delete 1 backup of n1",
            "keep b3",
            "keep b2",
            "delete b1",
            "delete old",
            "objects: 3 (48 B) no longer named by any manifest: 2 older than 10 days go, 1 stay for their grace period",
        ],
        "{text}"
    );
    assert!(text.contains("newest complete") && text.contains("not among the newest 2"), "{text}");
    let node = &report.json()["nodes"][0];
    assert_eq!(node["backups"][0]["reasons"], json!(["not among the newest 2"]));
    assert_eq!(node["pool"]["garbage"], json!({ "objects": 2, "bytes": 32 }));
    assert_eq!(node["pool"]["within_grace_period"]["objects"], 1);
    assert_eq!(node["orphans"][0]["objects"], 1);
    assert!(report.failure().is_none());
    report.failed.push((Fqdn::new("n2").unwrap(), "no answer".into()));
    report.nodes[0].plan.pool = PoolPlan::Refuse(vec!["b3 is damaged".into()]);
    let failure = report.failure().unwrap();
    assert_eq!(
        (failure.kind.exit_code(), failure.details),
        (3, vec!["n2: no answer".into(), "n1: b3 is damaged".into()])
    );
}

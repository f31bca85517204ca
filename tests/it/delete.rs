//! Deleting backups, and what verify says of a backup that lost something.

use std::path::Path;

use crate::lab::medusa::Medusa;
use crate::lab::node::Node;
use crate::lab::tree;
use crate::support::{
    assert_fails, insert, keyspace, listed, load, medusa, object_file, program, removed, shared_node, wrap_nodetool,
};

type Tree = std::collections::BTreeMap<String, Vec<u8>>;

fn backup(medusa: &Medusa, name: &str) {
    medusa.ok(&["backup-node", "--backup-name", name]);
}

/// Every object that the backup names can be read and is what was stored.
#[track_caller]
fn is_whole(medusa: &Medusa, name: &str) {
    medusa.ok(&["verify", "--backup-name", name, "--enable-md5-checks"]);
    can_be_downloaded(medusa, name);
}

#[track_caller]
fn can_be_downloaded(medusa: &Medusa, name: &str) {
    let target = medusa.folder.path().join(keyspace("download"));
    std::fs::create_dir(&target).unwrap();
    medusa.ok(&["download", "--backup-name", name, "--download-destination", target.to_str().unwrap()]);
    assert!(tree(&target).len() > 3);
}

fn latest(medusa: &Medusa, node: &Node) -> Option<String> {
    let path = medusa.bucket().join("index/latest_backup").join(&node.address).join("backup_name.txt");
    std::fs::read_to_string(path).ok()
}

/// Whether a key belongs to one backup of one node and to nothing else.
fn is_own(key: &str, fqdn: &str, name: &str) -> bool {
    let index = key.strip_prefix(&format!("index/backup_index/{name}/"));
    key.starts_with(&format!("{fqdn}/{name}/"))
        || key.starts_with(&format!("index/summaries/{name}/{fqdn}_"))
        || index.is_some_and(|file| {
            file.contains(&format!("_{fqdn}_"))
                || file.contains(&format!("_{fqdn}."))
                || file.ends_with(&format!("_{fqdn}"))
        })
}

/// What was removed is everything of these backups and nothing else.
#[track_caller]
fn removed_exactly(medusa: &Medusa, before: &Tree, gone: &[(&str, &str)]) {
    let expected: Vec<_> =
        before.keys().filter(|key| gone.iter().any(|(fqdn, name)| is_own(key, fqdn, name))).collect();
    assert!(!expected.is_empty());
    assert_eq!(removed(medusa, before).iter().collect::<Vec<_>>(), expected);
}

#[test]
fn p3_objects_that_other_backups_name_stay() {
    let node = shared_node();
    let medusa = medusa(node);
    let (session, keyspace) = (node.session(), keyspace("del"));
    let fqdn = node.address.as_str();
    load(&session, &keyspace, 20);
    backup(&medusa, "first");
    insert(&session, &keyspace, 20..30);
    backup(&medusa, "second");
    medusa.ok(&["backup-node", "--backup-name", "third", "--mode", "full"]);
    assert_eq!(latest(&medusa, node).as_deref(), Some("third"));

    let before = tree(&medusa.bucket());
    let run = medusa.ok(&["delete-backup", "--backup-name", "first", "--dry-run"]);
    assert!(run.stdout.starts_with(&format!("would delete first (differential) of {fqdn}: ")), "{run}");
    assert_eq!(removed(&medusa, &before), [""; 0]);

    let run = medusa.ok(&["delete-backup", "--backup-name", "first"]);
    assert!(run.stdout.starts_with(&format!("deleted first (differential) of {fqdn}: ")), "{run}");
    removed_exactly(&medusa, &before, &[(fqdn, "first")]);
    assert_eq!(latest(&medusa, node).as_deref(), Some("third"));
    is_whole(&medusa, "second");
    is_whole(&medusa, "third");
    assert_fails(&medusa.run(&["verify", "--backup-name", "first"]), 1, &["there is no backup first"]);

    // A full backup takes its data with it, and the latest marker goes to the one before it.
    let (before, data) = (tree(&medusa.bucket()), medusa.bucket().join(fqdn).join("third/data"));
    assert!(!tree(&data).is_empty());
    let run = medusa.ok(&["delete-backup", "--backup-name", "third", "--output", "json"]);
    assert_eq!(run.json()["deleted"][0]["mode"], "full", "{run}");
    assert!(tree(&data).is_empty());
    assert_eq!(latest(&medusa, node).as_deref(), Some("second"));
    let pool = |tree: &Tree| tree.keys().filter(|key| key.starts_with(&format!("{fqdn}/data/"))).count();
    assert_eq!(pool(&tree(&medusa.bucket())), pool(&before));
    is_whole(&medusa, "second");

    // The next backup finds what it needs in the pool.
    backup(&medusa, "fourth");
    medusa.ok(&["delete-backup", "--backup-name", "second", "--backup-name", "fourth"]);
    assert_eq!(latest(&medusa, node), None);
    assert!(listed(&medusa).is_empty());
    assert!(pool(&tree(&medusa.bucket())) >= pool(&before), "only a purge may delete from the pool");
}

#[test]
fn p3_names_that_begin_alike_are_different_names() {
    let node = shared_node();
    let mut medusa = medusa(node);
    for (fqdn, name) in [("node1", "day-1"), ("node1", "day-10"), ("node10", "day-1"), ("node_1", "day-1")] {
        medusa.set("storage", "fqdn", fqdn);
        backup(&medusa, name);
    }
    medusa.set("storage", "fqdn", "node1");
    let before = tree(&medusa.bucket());
    medusa.ok(&["delete-backup", "--backup-name", "day-1"]);
    removed_exactly(&medusa, &before, &[("node1", "day-1")]);

    // What is left of that name is of other nodes: nothing to do here, as in Medusa, and the other names are deleted.
    let before = tree(&medusa.bucket());
    let run = medusa.ok(&["delete-backup", "--backup-name", "day-1"]);
    assert!(run.stdout.is_empty(), "{run}");
    for part in ["WARNING", "there is no backup day-1 of node1", "there is one of node10, node_1", "--all-nodes"] {
        assert!(run.stderr.contains(part), "{part}: {run}");
    }
    assert_eq!(removed(&medusa, &before), [""; 0]);
    let run = medusa.ok(&["delete-backup", "--backup-name", "day-1", "--backup-name", "day-10", "--dry-run"]);
    assert_eq!(run.stdout.lines().count(), 1, "{run}");
    assert!(run.stdout.starts_with("would delete day-10 "), "{run}");
    let run = medusa.ok(&["delete-backup", "--backup-name", "day-1", "--all-nodes", "--dry-run"]);
    assert_eq!(run.stdout.matches("would delete day-1").count(), 2, "{run}");
    assert_eq!(removed(&medusa, &before), [""; 0]);
    let run = medusa.ok(&["delete-backup", "--backup-name", "day-1", "--all-nodes", "--output", "json"]).json();
    let of: Vec<_> = run["deleted"].as_array().unwrap().iter().map(|plan| plan["fqdn"].as_str().unwrap()).collect();
    assert_eq!(of, ["node10", "node_1"]);
    assert_eq!(listed(&medusa).into_keys().collect::<Vec<_>>(), ["day-10"]);
    can_be_downloaded(&medusa, "day-10");
}

#[test]
fn p3_unknown_and_unsafe_names_delete_nothing() {
    let node = shared_node();
    let medusa = medusa(node);
    backup(&medusa, "known");
    let before = tree(&medusa.bucket());
    let run = medusa.run(&["delete-backup", "--backup-name", "known", "--backup-name", "unknown"]);
    assert_fails(&run, 1, &["there is no backup unknown", "hint: did you mean known?"]);
    // `data` is the folder of all differential backups.
    for name in ["data", "..", "../known", "known/", "known/meta", ""] {
        let run = medusa.run(&["delete-backup", "--backup-name", "known", "--backup-name", name]);
        assert_fails(&run, 2, &["backup name", &format!("{name:?}")]);
    }
    assert_eq!(removed(&medusa, &before), [""; 0]);
    let run = medusa.ok(&["delete-backup", "--backup-name", "known", "--backup-name", "known"]);
    assert_eq!(run.stdout.lines().count(), 1, "one backup is deleted once: {run}");
    removed_exactly_with_marker(&medusa, &before, node);
}

/// The backup was the only one, so the marker of the latest one goes too.
#[track_caller]
fn removed_exactly_with_marker(medusa: &Medusa, before: &Tree, node: &Node) {
    let fqdn = &node.address;
    let expected: Vec<_> = before.keys().filter(|key| !key.starts_with(&format!("{fqdn}/data/"))).collect();
    assert_eq!(removed(medusa, before).iter().collect::<Vec<_>>(), expected);
}

#[test]
fn p3_an_unfinished_backup_is_deleted_and_the_latest_stays() {
    let node = shared_node();
    let mut medusa = medusa(node);
    backup(&medusa, "sound");
    let before = tree(&medusa.bucket());
    wrap_nodetool(
        &mut medusa,
        node,
        "case \"$*\" in *' snapshot '*) echo 'no space left' >&2; exit 1 ;; esac\nexec $REAL \"$@\"\n",
    );
    assert_fails(&medusa.run(&["backup-node", "--backup-name", "begun"]), 1, &["nodetool snapshot failed"]);
    assert_eq!(listed(&medusa), [("begun".to_owned(), false), ("sound".to_owned(), true)].into());
    medusa.ok(&["delete-backup", "--backup-name", "begun"]);
    assert!(tree(&medusa.bucket()) == before, "what is left is not what was before");
    is_whole(&medusa, "sound");
}

#[test]
fn verify_names_every_damaged_object() {
    let node = shared_node();
    let medusa = medusa(node);
    let (session, keyspace) = (node.session(), keyspace("damage"));
    load(&session, &keyspace, 20);
    backup(&medusa, "v1");
    let object = |end: &str| object_file(&medusa, &node.address, "v1", &keyspace, end);
    let key = |path: &Path| path.strip_prefix(medusa.bucket()).unwrap().display().to_string();
    let (flipped, cut, gone) = (object("-big-Data.db"), object("-big-Index.db"), object("-big-Filter.db"));
    let mut bad = std::fs::read(&flipped).unwrap();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&flipped, &bad).unwrap();
    let cut_size = std::fs::metadata(&cut).unwrap().len();
    std::fs::write(&cut, &std::fs::read(&cut).unwrap()[1..]).unwrap();
    std::fs::remove_file(&gone).unwrap();
    let before = tree(&medusa.bucket());
    let (flipped_line, cut_line) =
        (format!("  - [{}] Blob different\n", key(&flipped)), format!("  - [{}] Blob different\n", key(&cut)));
    let gone_line = format!("  - [{}] Doesn't exists\n", key(&gone));
    let head = "Validating v1 ...\n- Completion: OK!\n- Manifest validation: Failed!\n";

    let run = medusa.run(&["verify", "--backup-name", "v1"]);
    assert_fails(&run, 3, &["1 of 1 node", "damaged", &node.address, "2 problems", "\nhint: "]);
    assert!(run.stdout.starts_with(head) && run.stdout.contains(&cut_line) && run.stdout.contains(&gone_line), "{run}");
    assert_eq!(run.stdout.lines().count(), 5, "{run}");

    let run = medusa.run(&["verify", "--backup-name", "v1", "--enable-md5-checks"]);
    assert_fails(&run, 3, &["3 problems"]);
    for line in [head, &flipped_line, &cut_line, &gone_line] {
        assert!(run.stdout.contains(line), "{line:?} is not in {run}");
    }
    assert_eq!(run.stdout.lines().count(), 6, "{run}");

    let run = medusa.run(&["verify", "--backup-name", "v1", "--enable-md5-checks", "--output", "json"]);
    assert_fails(&run, 3, &["3 problems"]);
    let node_report = &run.json()["nodes"][0];
    assert_eq!((&run.json()["ok"], &node_report["ok"]), (&false.into(), &false.into()));
    let problem = |path: &Path| {
        let problems = node_report["problems"].as_array().unwrap().iter();
        problems.filter(|problem| problem["path"] == key(path).as_str()).cloned().collect::<Vec<_>>()
    };
    assert_eq!(problem(&flipped)[0]["problem"], "wrong hash");
    assert_eq!(problem(&gone)[0]["problem"], "missing");
    let wrong_size = &problem(&cut)[0];
    assert_eq!((&wrong_size["expected"], &wrong_size["found"]), (&cut_size.into(), &(cut_size - 1).into()));
    assert!(tree(&medusa.bucket()) == before, "verify changed something");

    // The next backup needs the same files. It stores again what is missing or was changed since, and overwrites nothing.
    backup(&medusa, "v2");
    is_whole(&medusa, "v2");
    assert_eq!(removed(&medusa, &before), [""; 0]);
    assert_fails(&medusa.run(&["verify", "--backup-name", "v1", "--enable-md5-checks"]), 3, &["2 problems"]);
}

#[test]
fn verify_tells_what_a_full_backup_holds_too_much_and_what_is_not_complete() {
    let node = shared_node();
    let mut medusa = medusa(node);
    medusa.ok(&["backup-node", "--backup-name", "full", "--mode", "full"]);
    let fqdn = &node.address;
    let extra = medusa.bucket().join(fqdn).join("full/data/odd.db");
    std::fs::write(extra, "x").unwrap();
    let run = medusa.run(&["verify", "--backup-name", "full"]);
    assert_fails(&run, 3, &["1 problem"]);
    let line = format!("  - [{fqdn}/full/data/odd.db] exists in storage, but not in manifest\n");
    assert_eq!(run.stdout, format!("Validating full ...\n- Completion: OK!\n- Manifest validation: Failed!\n{line}"));

    let fails = program(&medusa, "no-nodetool", "exit 1\n");
    medusa.set("cassandra", "nodetool_executable", &fails);
    assert_fails(&medusa.run(&["backup-node", "--backup-name", "half"]), 1, &["nodetool flush failed"]);
    let run = medusa.run(&["verify", "--backup-name", "half"]);
    assert_fails(&run, 3, &["backup half is not complete", "hint: medusa status --backup-name half"]);
    let begin = format!("Validating half ...\n- Completion: Not complete!\n  - [{fqdn}] Backup started at ");
    assert!(run.stdout.starts_with(&begin) && run.stdout.ends_with(", but not finished yet\n"), "{run}");
    assert_fails(&medusa.run(&["verify", "--backup-name", "none"]), 1, &["there is no backup none"]);
}

//! Purging by age and number, the pool, nodes that left, and rebuilding the index: what is left can be used, by this program
//! and by cassandra-medusa.

use std::collections::BTreeSet;
use std::path::Path;

use crate::lab::medusa::{Medusa, Run};
use crate::lab::node::Node;
use crate::lab::tree;
use crate::support::{
    answers, assert_fails, copy_bucket, edit, insert, keyspace, listed, load, manifest, manifest_objects, medusa,
    program, removed, shared_node,
};

/// On the node that tests share, a name is also that of a snapshot: no two tests have the same.
fn backup(medusa: &Medusa, name: &str) {
    medusa.ok(&["backup-node", "--backup-name", name]);
}

/// Which backups are the newest is told by whole seconds.
fn a_second_later() {
    std::thread::sleep(std::time::Duration::from_secs(1));
}

/// Five differential backups, `PREFIX-one` to `PREFIX-five`; between them rows are added and the table is compacted.
fn history(medusa: &Medusa, node: &Node, keyspace: &str, prefix: &str) {
    let session = node.session();
    load(&session, keyspace, 10);
    for (i, name) in (1..).zip(["one", "two", "three", "four", "five"]) {
        insert(&session, keyspace, i * 10..i * 10 + 10);
        backup(medusa, &format!("{prefix}-{name}"));
        node.nodetool(&["flush", keyspace]);
        node.nodetool(&["compact", keyspace]);
        a_second_later();
    }
}

/// The keys of the pool.
fn pool(medusa: &Medusa, fqdn: &str) -> BTreeSet<String> {
    let all = tree(&medusa.bucket());
    all.into_keys().filter(|key| key.starts_with(&format!("{fqdn}/data/"))).collect()
}

/// What the manifests of these backups name.
fn named(medusa: &Medusa, fqdn: &str, names: &[&str]) -> BTreeSet<String> {
    names.iter().flat_map(|name| manifest_objects(&manifest(medusa, fqdn, name)).into_keys()).collect()
}

/// Both tools read every object, or look at it, and list the same.
#[track_caller]
fn both_find_it_whole(medusa: &Medusa, names: &[&str]) {
    assert_eq!(listed(medusa).into_keys().collect::<BTreeSet<_>>(), names.iter().map(ToString::to_string).collect());
    for name in names {
        medusa.ok(&["verify", "--backup-name", name, "--enable-md5-checks"]);
        medusa.peer_ok(&["verify", "--backup-name", name]);
    }
    let (ours, theirs) = (medusa.ok(&["list-backups"]), medusa.peer_ok(&["list-backups"]));
    assert_eq!(ours.stdout, theirs.stdout);
}

/// Files of the bucket without what only we write.
fn as_medusa_sees_it(medusa: &Medusa) -> BTreeSet<String> {
    tree(&medusa.bucket()).into_keys().filter(|key| !key.starts_with("index/summaries/")).collect()
}

#[test]
fn p3_a_purge_leaves_what_that_of_cassandra_medusa_leaves() {
    let node = shared_node();
    let (mut ours, mut theirs) = (medusa(node), medusa(node));
    let keyspace = keyspace("purge");
    history(&ours, node, &keyspace, "p");
    let before = tree(&ours.bucket());
    copy_bucket(&ours, &theirs);
    for medusa in [&mut ours, &mut theirs] {
        medusa.set("storage", "max_backup_count", "2");
        medusa.set("storage", "backup_grace_period_in_days", "0");
    }

    let planned = ours.ok(&["purge", "--dry-run"]);
    let fqdn = node.address.as_str();
    assert!(planned.stdout.starts_with(&format!("keep 2, delete 3 backups of {fqdn}\n")), "{planned}");
    for line in ["  keep     p-five    newest complete", "  delete   p-one     not among the newest 2"] {
        assert!(planned.stdout.lines().any(|shown| shown.starts_with(line)), "{line:?} is not in {planned}");
    }
    let plan = ours.ok(&["purge", "--dry-run", "--output", "json"]).json();
    assert_eq!(removed(&ours, &before), [""; 0], "a dry run deletes nothing");
    assert_eq!(tree(&ours.bucket()).len(), before.len(), "and writes nothing");

    let run = ours.ok(&["purge", "--output", "json"]).json();
    assert_eq!(run["nodes"][0]["deleted"]["pool"], plan["nodes"][0]["pool"]["garbage"]);
    let deleted = removed(&ours, &before).len();
    assert_eq!(run["deleted"]["objects"], deleted, "the report counts what was deleted");
    assert_eq!(pool(&ours, fqdn), named(&ours, fqdn, &["p-four", "p-five"]));
    assert!(pool(&ours, fqdn).len() < before.keys().filter(|key| key.contains("/data/")).count());

    theirs.peer_ok(&["purge"]);
    assert_eq!(as_medusa_sees_it(&ours), as_medusa_sees_it(&theirs));
    both_find_it_whole(&ours, &["p-four", "p-five"]);
    let again = ours.ok(&["purge"]);
    let bucket = ours.bucket().display().to_string();
    let end = format!("objects: all are named by a manifest\npurged 0 objects (0 B) in {bucket}\nstarted ");
    assert!(again.stdout.contains(&end), "{again}");
}

#[test]
fn p3_rules_of_the_command_line_and_of_the_ini_keep_backups() {
    let node = shared_node();
    let mut medusa = medusa(node);
    for name in ["rule-1", "rule-2", "rule-3"] {
        backup(&medusa, name);
    }
    let before = tree(&medusa.bucket());
    let run = medusa.ok(&["purge"]);
    assert!(run.stdout.starts_with("kept 3, deleted 0 backups"), "nothing is set, so nothing goes: {run}");
    assert_eq!(removed(&medusa, &before), [""; 0]);
    let reasons = |run: &Run| -> Vec<String> {
        let backups = run.json()["nodes"][0]["backups"].as_array().unwrap().clone();
        backups
            .iter()
            .map(|backup| format!("{}: {}", backup["action"].as_str().unwrap(), backup["reasons"][0]))
            .collect()
    };
    // All three are of today.
    let run = medusa.ok(&["purge", "--keep-daily", "7", "--dry-run", "--output", "json"]);
    assert_eq!(
        reasons(&run),
        [r#"delete: "no rule keeps it""#, r#"delete: "no rule keeps it""#, r#"keep: "newest complete""#],
        "{run}"
    );
    assert!(run.stdout.contains("daily 1 of 7"), "{run}");
    medusa.set("storage", "keep_last", "2");
    medusa.ok(&["purge"]);
    assert_eq!(listed(&medusa).into_keys().collect::<Vec<_>>(), ["rule-2", "rule-3"]);
    // The last one stays, unless it is allowed to go.
    medusa.set("storage", "keep_last", "0");
    medusa.set("storage", "max_backup_age", "1");
    for name in ["rule-2", "rule-3"] {
        let entries = medusa.bucket().join("index/backup_index").join(name);
        for entry in std::fs::read_dir(&entries).unwrap().flatten() {
            let old = entry.file_name().into_string().unwrap();
            if old.starts_with("started_") {
                let begun = format!("started_{}_1700000000.timestamp", node.address);
                std::fs::rename(entry.path(), entries.join(begun)).unwrap();
            }
        }
    }
    let run = medusa.ok(&["purge"]);
    assert!(run.stdout.contains("  deleted   rule-2   older than 1 day"), "{run}");
    medusa.ok(&["verify", "--backup-name", "rule-3"]);
    medusa.ok(&["purge", "--allow-last", "--backup-grace-period-in-days", "0"]);
    assert!(tree(&medusa.bucket()).is_empty(), "{:?}", tree(&medusa.bucket()).keys());
}

#[test]
fn p3_a_damaged_manifest_keeps_the_pool_of_its_node_and_not_that_of_others() {
    let node = shared_node();
    let mut medusa = medusa(node);
    for fqdn in ["node1", "node2"] {
        medusa.set("storage", "fqdn", fqdn);
        for name in ["damaged-1", "damaged-2"] {
            backup(&medusa, name);
        }
        std::fs::write(medusa.bucket().join(fqdn).join("data/stray"), "garbage").unwrap();
    }
    edit(&manifest(&medusa, "node1", "damaged-2"), |text| text[..text.len() / 2].to_owned());
    let before = tree(&medusa.bucket());
    let arguments = ["purge", "--all-nodes", "--keep-last", "1", "--backup-grace-period-in-days", "0"];
    let run = medusa.run(&arguments);
    assert_fails(&run, 3, &["on 1 node", "node1: the manifest of damaged-2 is not readable", "\nhint: "]);
    let gone = removed(&medusa, &before);
    assert!(!gone.iter().any(|key| key.starts_with("node1/data/")), "{gone:?}");
    assert!(gone.contains(&"node2/data/stray".to_owned()), "{gone:?}");
    assert_eq!(pool(&medusa, "node2"), named(&medusa, "node2", &["damaged-2"]));
    // The newest one of node1 cannot be restored.
    let manifests: Vec<_> = gone.iter().filter(|key| key.ends_with("/meta/manifest.json")).collect();
    assert_eq!(manifests, ["node2/damaged-1/meta/manifest.json"], "{gone:?}");
    medusa.set("storage", "fqdn", "node2");
    medusa.ok(&[
        "download",
        "--backup-name",
        "damaged-2",
        "--download-destination",
        medusa.folder.path().to_str().unwrap(),
    ]);
    // The way out that the hint names.
    medusa.set("storage", "fqdn", "node1");
    medusa.ok(&["delete-backup", "--backup-name", "damaged-2"]);
    medusa.ok(&arguments);
    assert_eq!(pool(&medusa, "node1"), named(&medusa, "node1", &["damaged-1"]));
}

#[test]
fn p3_a_backup_that_is_not_finished_keeps_its_files() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let arguments = ["purge", "--keep-last", "1"];
    backup(&medusa, "whole");
    let fails = program(&medusa, "no-nodetool", "exit 1\n");
    medusa.set("cassandra", "nodetool_executable", &fails);
    assert_fails(&medusa.run(&["backup-node", "--backup-name", "going"]), 1, &["nodetool flush failed"]);
    let before = tree(&medusa.bucket());
    // It does not run: the purge had its lease.
    let run = medusa.ok(&arguments);
    assert!(run.stdout.contains("objects: all are named by a manifest"), "{run}");
    assert_eq!(removed(&medusa, &before), [""; 0]);
    medusa.set("cassandra", "nodetool_executable", node.program("nodetool").to_str().unwrap());
    backup(&medusa, "going");
    both_find_it_whole(&medusa, &["whole", "going"]);
}

fn index(medusa: &Medusa) -> std::path::PathBuf {
    medusa.bucket().join("index")
}

#[test]
fn an_index_that_was_lost_is_built_again_as_it_was() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let keyspace = keyspace("index");
    for prefix in [None, Some("cluster1")] {
        if let Some(prefix) = prefix {
            medusa.set("storage", "prefix", prefix);
        }
        let below = medusa.bucket().join(prefix.unwrap_or_default());
        if prefix.is_none() {
            load(&node.session(), &keyspace, 20);
        }
        backup(&medusa, "diff-1");
        medusa.ok(&["backup-node", "--backup-name", "full-1", "--mode", "full"]);
        medusa.peer_ok(&["backup-node", "--backup-name", "theirs-1"]);
        let fails = program(&medusa, "no-nodetool", "exit 1\n");
        medusa.set("cassandra", "nodetool_executable", &fails);
        medusa.run(&["backup-node", "--backup-name", "part"]).expect_code(1);
        medusa.set("cassandra", "nodetool_executable", node.program("nodetool").to_str().unwrap());

        let before = tree(&below);
        // Where another test creates a table meanwhile, the schema is written again, and is younger than the backup.
        for (key, content) in &before {
            let Some((entries, _)) = key.split_once("/started_") else { continue };
            let (name, began) = (entries.rsplit('/').next().unwrap(), std::str::from_utf8(content).unwrap());
            let began = std::time::UNIX_EPOCH + std::time::Duration::from_secs(began.parse().unwrap());
            let schema = below.join(&node.address).join(name).join("meta/schema.cql");
            std::fs::File::options().write(true).open(schema).unwrap().set_modified(began).unwrap();
        }
        std::fs::remove_dir_all(below.join("index")).unwrap();
        assert!(listed(&medusa).is_empty());
        let noop = medusa.ok(&["build-index", "--noop", "--output", "json"]).json();
        assert!(!below.join("index").exists(), "--noop writes nothing");
        // It needs no Cassandra.
        medusa.set("cassandra", "config_file", "/nowhere/cassandra.yaml");
        let run = medusa.ok(&["build-index"]);
        medusa.set("cassandra", "config_file", node.yaml().to_str().unwrap());
        assert!(run.stdout.starts_with(&format!("{}: 4 backups, ", node.address)), "{run}");
        let after = tree(&below);
        let written = noop["nodes"][0]["written"].as_array().unwrap();
        assert_eq!(written.len(), after.keys().filter(|key| key.starts_with("index/")).count());
        let theirs = "index/summaries/theirs-1/";
        // What was uploaded is known to nobody any more.
        let known = |key: &String| {
            let mut fields: Vec<_> = key.split('_').collect();
            if key.starts_with("index/summaries/") {
                let end = fields.len() - 3;
                fields[end - 2..end].fill("0");
            }
            fields.join("_")
        };
        let before: std::collections::BTreeMap<_, _> =
            before.into_iter().map(|(key, content)| (known(&key), content)).collect();
        for (key, content) in &before {
            assert!(after.get(key) == Some(content), "{key} is another one");
        }
        let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
        assert!(new.iter().all(|key| key.starts_with(theirs)) && new.len() == 1, "{new:?}");

        let run = medusa.ok(&["build-index"]);
        assert!(run.stdout.contains(", 0 objects written, 0 removed, "), "nothing is left to do: {run}");
        for name in ["diff-1", "full-1", "theirs-1"] {
            medusa.ok(&["verify", "--backup-name", name, "--enable-md5-checks"]);
            medusa.peer_ok(&["verify", "--backup-name", name]);
            for arguments in [vec!["status", "--backup-name", name], vec!["list-backups", "--output", "json"]] {
                assert_eq!(medusa.ok(&arguments).stdout, medusa.peer_ok(&arguments).stdout);
            }
        }
        // A purge of cassandra-medusa takes backups for full ones whose marker is missing, and deletes their files.
        medusa.peer_ok(&["--backup-grace-period-in-days", "0", "purge"]);
        medusa.ok(&["verify", "--backup-name", "diff-1", "--enable-md5-checks"]);
        medusa.ok(&["delete-backup", "--backup-name", "part"]);
    }
}

#[test]
fn p3_entries_of_backups_that_are_gone_are_removed_and_no_others() {
    let node = shared_node();
    let medusa = medusa(node);
    let fqdn = node.address.as_str();
    for name in ["gone", "there", "damaged"] {
        backup(&medusa, name);
    }
    let before = tree(&medusa.bucket());
    std::fs::remove_dir_all(medusa.bucket().join(fqdn).join("gone")).unwrap();
    edit(&manifest(&medusa, fqdn, "damaged"), |text| text.replace('[', "("));
    let kept = tree(&medusa.bucket());
    // An entry of another kind of backup, one of another time, and a marker that points to nothing.
    let entries = index(&medusa).join("backup_index/there");
    std::fs::write(entries.join(format!("finished_{fqdn}_1.timestamp")), "1").unwrap();
    std::fs::write(entries.join(format!("schema_{fqdn}.cql")), "another one").unwrap();
    std::fs::write(index(&medusa).join("latest_backup").join(fqdn).join("backup_name.txt"), "gone").unwrap();

    let run = medusa.run(&["build-index", "--dry-run"]);
    assert_fails(&run, 3, &["damaged: its manifest cannot be used"]);
    assert!(run.stdout.contains("  to remove  index/backup_index/gone/manifest_"), "{run}");
    assert_fails(&medusa.run(&["build-index"]), 3, &["left as it was"]);
    let after = tree(&medusa.bucket());
    let gone: Vec<_> = kept.keys().filter(|key| !after.contains_key(*key)).cloned().collect();
    let expected: Vec<_> =
        kept.keys().filter(|key| key.contains("index/") && key.contains("/gone/")).cloned().collect();
    assert_eq!((gone.len(), gone), (7, expected));
    for (key, content) in after.iter().filter(|(key, _)| !key.starts_with("index/latest_backup/")) {
        assert!(kept.get(key) == Some(content), "{key} is another one");
    }
    assert_eq!(listed(&medusa).into_keys().collect::<Vec<_>>(), ["damaged", "there"]);
    assert!(before.len() > after.len());
    medusa.ok(&["verify", "--backup-name", "there", "--enable-md5-checks"]);
}

/// Backups of a node that is not in the ring, beside those of one that is.
fn with_a_node_that_left(medusa: &mut Medusa, node: &Node) {
    medusa.set("storage", "fqdn", "left.example.net");
    backup(medusa, "stayed");
    medusa.ok(&["backup-node", "--backup-name", "stayed-full", "--mode", "full"]);
    medusa.set("storage", "fqdn", &node.address);
    backup(medusa, "stayed");
}

#[test]
fn p3_only_nodes_that_left_lose_their_backups() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let run = medusa.ok(&["purge-decommissioned"]);
    assert!(run.stdout.starts_with("no node of ") && run.stdout.ends_with(" has left the cluster\n"), "{run}");
    with_a_node_that_left(&mut medusa, node);
    let before = tree(&medusa.bucket());
    // Whoever is not sure of its own name cannot be sure of others.
    medusa.set("storage", "fqdn", "who.example.net");
    let run = medusa.run(&["purge-decommissioned"]);
    assert_fails(&run, 1, &["who.example.net, is not among the nodes", &node.address, "resolve_ip_addresses"]);
    medusa.set("storage", "fqdn", &node.address);
    let grace = ["--backup-grace-period-in-days", "0"];
    let run = medusa.ok(&[&["purge-decommissioned", "--dry-run"], &grace[..]].concat());
    assert_eq!(removed(&medusa, &before), [""; 0]);
    assert!(run.stdout.contains("of left.example.net\n") && !run.stdout.contains(&node.address), "{run}");
    assert!(run.stdout.contains("  delete   stayed-full   node decommissioned   full"), "{run}");

    medusa.ok(&[&["purge-decommissioned", "--allow-last"], &grace[..]].concat());
    let gone = removed(&medusa, &before);
    let expected: Vec<_> = before
        .keys()
        .filter(|key| key.contains("left.example.net") || key.starts_with("index/backup_index/stayed-full/"))
        .cloned()
        .collect();
    assert_eq!(gone, expected);
    both_find_it_whole(&medusa, &["stayed"]);
    medusa.ok(&["purge-decommissioned"]);
    let without_cassandra = medusa.bucket().join("none.yaml");
    medusa.set("cassandra", "config_file", without_cassandra.to_str().unwrap());
    assert_fails(&medusa.run(&["purge-decommissioned"]), 2, &["none.yaml"]);
}

#[test]
fn restores_work_after_a_purge_and_a_rebuilt_index() {
    let node = shared_node();
    let medusa = medusa(node);
    let keyspace = keyspace("after");
    let session = node.session();
    history(&medusa, node, &keyspace, "after");
    let rows = answers(&session, &keyspace);
    backup(&medusa, "last");
    medusa.ok(&["purge", "--keep-last", "1", "--backup-grace-period-in-days", "0"]);
    std::fs::remove_dir_all(index(&medusa)).unwrap();
    medusa.ok(&["build-index"]);
    let target = medusa.folder.path().join("download");
    std::fs::create_dir(&target).unwrap();
    medusa.ok(&["download", "--backup-name", "last", "--download-destination", target.to_str().unwrap()]);
    let files = tree(&target.join(&keyspace));
    assert!(files.len() > 8 && !rows[0].is_empty(), "{:?}", files.keys());
    assert!(is_complete(&target, &manifest(&medusa, &node.address, "last")));
}

/// Whether a download holds as many files as the manifest names.
fn is_complete(download: &Path, manifest: &Path) -> bool {
    let files = tree(download).into_keys().filter(|file| file.contains('/'));
    files.count() == manifest_objects(manifest).len()
}

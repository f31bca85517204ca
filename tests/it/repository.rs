//! What `verify --repository` says of an index, of summaries and markers, and of what no backup needs.

use crate::lab::medusa::Medusa;
use crate::lab::tree;
use crate::made::{self, object, put};
use crate::support::assert_fails;

/// Backups b1 and b2 of nodes n1 and n10.
fn two_nodes() -> Medusa {
    let medusa = made::medusa();
    for fqdn in ["n1", "n10"] {
        let first = object(fqdn, "nb-1-big-Data.db", "shared");
        let second = object(fqdn, "nb-2-big-Data.db", "of b2");
        made::backup(&medusa.bucket(), fqdn, "b1", &["n1", "n10"], std::slice::from_ref(&first));
        made::backup(&medusa.bucket(), fqdn, "b2", &["n1", "n10"], &[first, second]);
    }
    medusa
}

/// An object, what is put there (`None`: it is removed), the exit code, what is said, and what mends it.
type Case = (&'static str, Option<&'static str>, i32, &'static str, &'static str);

const CASES: [Case; 19] = [
    ("index/backup_index/b1/tokenmap_n1.json", None, 3, "tokenmap_n1.json is missing", "medusa build-index"),
    ("index/backup_index/b1/started_n10_1700000000.timestamp", None, 3, "no entry started_n10_", "medusa build-index"),
    ("index/backup_index/b1/differential_n1", None, 3, "differential_n1 is missing", "medusa build-index"),
    ("index/backup_index/b1/schema_n1.cql", Some("x"), 3, "is not the same as n1/b1/meta/schema.cql", "--read-data"),
    ("n1/b1/meta/differential", None, 3, "n1/b1/meta/differential is missing", "write it again"),
    ("n1/b1/meta/schema.cql", None, 3, "n1/b1/meta/schema.cql is missing", "copy it from the index"),
    ("n1/b1/meta/tokenmap.json", None, 3, "n1/b1/meta/tokenmap.json is missing", "copy it from the index"),
    ("n1/b1/meta/manifest.json", None, 3, "manifest.json is gone", "copy index/backup_index/b1/manifest_n1.json"),
    ("n10/b2/meta/manifest.json", Some("{"), 3, "n10/b2/meta/manifest.json cannot be read", "copy it from the index"),
    ("index/backup_index/b1/started_n1_16.timestamp", Some("1"), 0, "holds another time", "medusa build-index"),
    ("index/backup_index/gone/tokenmap_n1.json", Some("{}"), 0, "is of a backup that is gone", "delete-backup"),
    ("index/summaries/gone/n1.json", Some("{}"), 0, "speaks of a backup that is gone", "no harm"),
    ("index/summaries/b1/n1.json", Some("{}"), 0, "n1.json cannot be read", "medusa build-index"),
    (
        "index/summaries/b1/n1_full_5_7_1_2_1_2_0123456789abcdef_cassandra_5.0.9.summary",
        Some(""),
        0,
        "speaks of an earlier backup of that name",
        "no harm",
    ),
    ("index/latest_backup/n1/backup_name.txt", Some("b9"), 0, "the newest is b2", "medusa build-index"),
    ("index/latest_backup/n1/tokenmap.json", None, 0, "is not the token map of b2", "medusa build-index"),
    ("index/backup_index/b1/readme", Some("x"), 0, "b1/readme is nothing that belongs", "who put it there"),
    ("n1/b1/notes.txt", Some("x"), 0, "n1/b1/notes.txt is nothing that belongs", "who put it there"),
    ("elsewhere/n1/b1/meta/schema.cql", Some("x"), 0, "elsewhere holds 1 object and no backup", "another prefix"),
];

#[test]
fn what_endangers_or_hides_a_backup_is_a_problem_and_the_rest_is_a_note() {
    let clean = two_nodes().ok(&["verify", "--repository"]).stdout;
    let expected = "   2 nodes, 4 finished backups of nodes, 4 objects, 22 B\nNo backup is endangered or hidden.\n";
    assert!(clean.contains(&format!("{expected}started ")), "{clean}");
    for (key, content, code, said, mend) in CASES {
        let medusa = two_nodes();
        match content {
            Some(content) => put(&medusa.bucket(), key, content),
            None => std::fs::remove_file(medusa.bucket().join(key)).unwrap(),
        }
        let before = tree(&medusa.bucket());
        let run = medusa.run(&["verify", "--repository"]).expect_code(code);
        let lines: Vec<_> = run.stdout.lines().collect();
        let at =
            lines.iter().position(|line| line.contains(said)).unwrap_or_else(|| panic!("{said:?} is not in {run}"));
        assert_eq!(lines[at].starts_with("  problem "), code == 3, "{run}");
        assert!(lines[at + 1].contains(mend), "{mend:?} is not in {run}");
        let document = medusa.run(&["verify", "--repository", "--output", "json"]).json();
        let problems = document["problems"].as_u64() > Some(0);
        assert_eq!((&document["ok"], problems), (&(code == 0).into(), code == 3), "{document}");
        assert!(tree(&medusa.bucket()) == before, "verify changed something");
    }
}

#[test]
fn garbage_and_unfinished_backups_are_told_and_are_no_problem() {
    let medusa = two_nodes();
    let bucket = medusa.bucket();
    put(&bucket, &object("n1", "nb-7-big-Data.db", "").path, "12345");
    put(&bucket, &object("n1", ".t_idx/nb-8-big-Data.db", "").path, "123");
    made::begun(&bucket, "n10", "b3", &["n1", "n10"]);
    let run = medusa.ok(&["verify", "--repository"]);
    for part in [
        "  garbage    n1: 2 objects, 8 B that no manifest names\n             medusa purge ",
        "  unfinished b3 of n10, begun ",
        "medusa backup-node --backup-name b3 on that node finishes it, medusa --fqdn n10 delete-backup --backup-name b3 removes it",
    ] {
        assert!(run.stdout.contains(part), "{part:?} is not in {run}");
    }
    assert!(!run.stdout.contains("garbage    n10"), "{run}");
    let document = medusa.ok(&["verify", "--repository", "--output", "json"]).json();
    assert_eq!((&document["garbage"][0]["objects"], &document["garbage"][0]["bytes"]), (&2.into(), &8.into()));
    assert_eq!((&document["unfinished"][0]["name"], &document["unfinished"][0]["fqdn"]), (&"b3".into(), &"n10".into()));
    assert!(document["unfinished"][0]["age_seconds"].as_u64() < Some(600), "{document}");
    // The lost manifest may have named it.
    std::fs::write(bucket.join("n1/b1/meta/manifest.json"), "").unwrap();
    let run = medusa.run(&["verify", "--repository"]).expect_code(3);
    assert!(run.stdout.contains("  garbage    n1: cannot be told"), "{run}");
}

#[test]
fn p1_backups_that_the_index_has_forgotten_are_found_and_verified() {
    let medusa = two_nodes();
    std::fs::remove_dir_all(medusa.bucket().join("index")).unwrap();
    assert_eq!(medusa.ok(&["list-backups", "--show-all"]).stdout, "");
    let run = medusa.run(&["verify", "--repository"]);
    assert_fails(&run, 3, &["problems in "]);
    for name in ["b1", "b2"] {
        for fqdn in ["n1", "n10"] {
            assert!(
                run.stdout.contains(&format!("index/backup_index/{name}/manifest_{fqdn}.json is missing")),
                "{run}"
            );
        }
        let document = medusa.ok(&["verify", "--backup-name", name, "--read-data", "--output", "json"]).json();
        assert_eq!(document["nodes"].as_array().unwrap().len(), 2, "{document}");
    }
    let document = medusa.ok(&["verify", "--all", "--read-data", "--output", "json"]).json();
    assert_eq!(document["objects_read"], 4);
    std::fs::remove_file(medusa.bucket().join(object("n10", "nb-1-big-Data.db", "").path)).unwrap();
    assert_fails(&medusa.run(&["verify", "--all"]), 3, &["b1 of n10", "b2 of n10"]);
}

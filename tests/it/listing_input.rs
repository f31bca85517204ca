//! What listings make of a bucket that holds what nobody expects: parts of backups, foreign objects, times and names that
//! cannot be, storage that fails half way, and readers that go away.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::lab::medusa::{Medusa, Run, finish};
use crate::lab::tree;
use crate::made::{self, object, put};
use crate::memory::peak;
use crate::people::on_terminal;
use crate::support::assert_fails;

const HOSTS: [&str; 2] = ["n1", "n10"];

/// Everything that only looks, and the exit code for a bucket without faults.
const LOOKS: [&[&str]; 9] = [
    &["list-backups", "--show-all"],
    &["list-backups", "--show-all", "--output", "json"],
    &["status", "--latest"],
    &["status", "--latest", "--output", "json"],
    &["report-last-backup"],
    &["report-last-backup", "--output", "json"],
    &["get-last-complete-cluster-backup"],
    &["verify", "--all", "--output", "json"],
    &["purge", "--all-nodes", "--dry-run"],
];

/// Backups b1 and b2 of two nodes.
fn bucket() -> Medusa {
    let mut medusa = made::medusa();
    medusa.set("storage", "fqdn", "n1");
    for (name, at) in [("b1", 0), ("b2", 1000)] {
        for fqdn in HOSTS {
            backup(&medusa, fqdn, name, at);
        }
    }
    medusa
}

/// A finished backup with one object, begun and ended so many seconds after all others.
fn backup(medusa: &Medusa, fqdn: &str, name: &str, at: i64) {
    made::backup(&medusa.bucket(), fqdn, name, &HOSTS, &[object(fqdn, "nb-1-big-Data.db", fqdn)]);
    date(medusa, fqdn, name, 1_700_000_000 + at, 1_700_000_100 + at);
}

/// Gives the index entries of a backup these times.
fn date(medusa: &Medusa, fqdn: &str, name: &str, started: i64, finished: i64) {
    let folder = medusa.bucket().join("index/backup_index").join(name);
    for (kind, was, at) in [("started", 1_700_000_000, started), ("finished", 1_700_000_100, finished)] {
        let entry = |at: i64| folder.join(format!("{kind}_{fqdn}_{at}.timestamp"));
        fs::rename(entry(was), entry(at)).unwrap();
        fs::write(entry(at), at.to_string()).unwrap();
    }
}

/// What the looks say, without what changes from one second to the next.
fn said(medusa: &Medusa) -> Vec<String> {
    let now = |word: &str| word.len() == 8 && word.parse::<u64>().is_ok();
    let without_now = |run: Run| {
        let words = run.stdout.split_inclusive([' ', ',', '}']);
        words.filter(|word| !now(word.trim_end_matches([' ', ',', '}']))).collect()
    };
    LOOKS.iter().map(|arguments| without_now(medusa.ok(arguments))).collect()
}

fn names(run: &Run) -> Vec<&str> {
    run.stdout.lines().filter_map(|line| line.split_once(" (started: ")).map(|(name, _)| name).collect()
}

#[test]
fn foreign_objects_are_passed_over_wherever_they_lie() {
    let medusa = bucket();
    let clean = said(&medusa);
    for key in [
        "README",
        "lost+found/x",
        "n1/notes.txt",
        "n1/b9/other/x",
        "n1/b1/meta/extra.json",
        "n1/b1/notes/deep/er/x",
        "index/readme",
        "index/other/b1/n1.json",
        "index/backup_index/readme",
        "index/backup_index/b1/what_n1.json",
        "index/backup_index/b1/started_n1_yesterday.timestamp",
        "index/backup_index/b1/finished_n1_99999999999999999999.timestamp",
        "index/backup_index/b1/finished_n1.timestamp",
        "index/backup_index/b1/deeper/started_n1_1.timestamp",
        "index/backup_index/data/started_n1_1.timestamp",
        "index/latest_backup/n1/other",
        "index/summaries/x",
    ] {
        put(&medusa.bucket(), key, "foreign");
        for ((arguments, now), before) in LOOKS.iter().zip(said(&medusa)).zip(&clean) {
            assert_eq!(now, *before, "{key}: {arguments:?}");
        }
    }
}

#[test]
fn p3_a_purge_deletes_nothing_that_is_no_part_of_a_backup() {
    let mut medusa = bucket();
    medusa.set("storage", "backup_grace_period_in_days", "0");
    put(&medusa.bucket(), "n1/b9/other/x", "foreign");
    // Another cluster, whose prefix is called as a node of this one.
    let prefix = medusa.bucket().join("n1");
    made::backup(&prefix, "n5", "b1", &["n5"], &[]);
    put(&prefix, &object("n5", "nb-1-big-Data.db", "").path, "of n5");
    let before = tree(&medusa.bucket());
    for node in ["n1", "n10", "n5"] {
        medusa.ok(&["purge", "--fqdn", node]);
    }
    medusa.ok(&["purge", "--all-nodes"]);
    assert_eq!(tree(&medusa.bucket()), before);
    // What a deletion has left goes.
    put(&medusa.bucket(), "n1/b8/meta/tokenmap.json", "{}");
    put(&medusa.bucket(), &object("n1/b8", "nb-1-big-Data.db", "").path, "left");
    medusa.ok(&["purge"]);
    assert_eq!(tree(&medusa.bucket()), before);
}

#[test]
fn index_entries_of_backups_that_are_gone_mislead_nobody_who_restores_or_deletes() {
    let medusa = bucket();
    let clean = tree(&medusa.bucket());
    for fqdn in HOSTS {
        backup(&medusa, fqdn, "first", -1000);
        backup(&medusa, fqdn, "last", 2000);
        for name in ["first", "last"] {
            fs::remove_dir_all(medusa.bucket().join(fqdn).join(name)).unwrap();
        }
    }
    // As in cassandra-medusa, the oldest ones are looked for.
    assert_eq!(names(&medusa.ok(&["list-backups", "--show-all"])), ["b1", "b2", "last"]);
    for command in ["status", "fetch-tokenmap", "verify"] {
        assert_fails(&medusa.run(&[command, "--backup-name", "last"]), 1, &["there is no backup last"]);
    }
    let run = medusa.ok(&["get-last-complete-cluster-backup"]);
    assert_eq!(run.stdout, "b2\n");
    assert!(run.stderr.contains("the index calls last complete, and it is not"), "{run}");
    medusa.ok(&["verify", "--all"]);
    let run = medusa.run(&["purge", "--all-nodes", "--dry-run"]);
    assert!(run.stdout.contains("keep 2, delete 0 backups of n1\n"), "{run}");
    // What puts it right.
    for key in tree(&medusa.bucket()).into_keys().filter(|key| key.starts_with("index/latest_backup/")) {
        fs::remove_file(medusa.bucket().join(key)).unwrap();
    }
    medusa.ok(&["build-index"]);
    assert_eq!(names(&medusa.ok(&["list-backups", "--show-all"])), ["b1", "b2"]);
    medusa.ok(&["purge", "--all-nodes"]);
    let data = |key: &&String| key.contains("/meta/") || key.contains("/data/");
    let after = tree(&medusa.bucket());
    assert_eq!(after.keys().filter(data).collect::<Vec<_>>(), clean.keys().filter(data).collect::<Vec<_>>());
}

#[test]
fn backups_without_index_entries_are_found_by_those_who_look_at_the_nodes() {
    let medusa = bucket();
    fs::remove_dir_all(medusa.bucket().join("index/backup_index/b2")).unwrap();
    // As in cassandra-medusa, listings are those of the index.
    assert_eq!(names(&medusa.ok(&["list-backups", "--show-all"])), ["b1"]);
    let run = medusa.ok(&["verify", "--backup-name", "b2", "--read-data"]);
    assert!(run.stdout.starts_with("b2   2 nodes, 2 objects, "), "{run}");
    assert_fails(&medusa.run(&["verify", "--repository"]), 3, &["problems in "]);
    let before = tree(&medusa.bucket());
    let run = medusa.run(&["purge", "--all-nodes"]);
    assert!(before.keys().all(|key| medusa.bucket().join(key).exists()), "{run}");
    medusa.ok(&["build-index"]);
    assert_eq!(names(&medusa.ok(&["list-backups", "--show-all"])), ["b1", "b2"]);
}

#[test]
fn clocks_that_disagree_hide_no_backup_and_delete_none() {
    let medusa = bucket();
    for (name, started, finished) in [("skewed", 1_700_000_900, 1_700_000_200), ("far", 1_700_000_950, i64::MAX)] {
        for fqdn in HOSTS {
            made::backup(&medusa.bucket(), fqdn, name, &HOSTS, &[object(fqdn, "nb-1-big-Data.db", fqdn)]);
            date(&medusa, fqdn, name, started, finished);
        }
    }
    let list = medusa.ok(&["list-backups", "--show-all"]);
    let line = "skewed (started: 2023-11-14 22:28:20, finished: 2023-11-14 22:16:40)\n";
    assert!(list.stdout.contains(line) && names(&list) == ["b1", "skewed", "far", "b2"], "{list}");
    for arguments in LOOKS {
        let run = medusa.ok(arguments);
        assert!(!run.stderr.contains("panicked"), "{run}");
        assert!(!run.stdout.contains(" -9"), "{run}");
    }
    let report = medusa.ok(&["report-last-backup"]).stdout;
    assert!(report.starts_with("This node has not") || report.contains("finished 0 seconds ago"), "{report}");
    let plan = medusa.ok(&["purge", "--all-nodes", "--dry-run"]).stdout;
    assert!(plan.contains("keep 4, delete 0 backups of n1\n"), "{plan}");
}

/// Names that somebody may have given, of which the last ones would steer a terminal.
const ODD: [&str; 9] =
    ["with blank", "100%", "100%25", "ü ☃", "quote\"'", "back\\slash", "-rf", "c1\u{9b}31mred", "bidi\u{202e}gnp"];

#[test]
fn odd_names_are_told_as_they_are_to_programs_and_harmlessly_to_people() {
    let medusa = bucket();
    for name in ODD {
        backup(&medusa, "n1", name, -500);
        // One of a node that has no backup.
        let tokenmap = format!(
            r#"{{"n1": {{"tokens": [1], "is_up": true}}, {}: {{"tokens": [2], "is_up": true}}}}"#,
            quoted(name)
        );
        fs::write(medusa.bucket().join("n1").join(name).join("meta/tokenmap.json"), tokenmap).unwrap();
    }
    let list = medusa.ok(&["list-backups", "--show-all"]);
    assert_eq!(list.stdout, medusa.peer_ok(&["list-backups", "--show-all"]).stdout);
    let document = medusa.ok(&["list-backups", "--show-all", "--output", "json"]).json();
    for name in ODD {
        assert!(names(&list).contains(&name), "{list}");
        assert!(document.as_array().unwrap().iter().any(|backup| backup["name"] == name), "{document}");
        let name_option = format!("--backup-name={name}");
        let status = medusa.ok(&["status", &name_option]);
        assert!(status.stdout.contains(&format!("\n    {name}\n")), "{status}");
        let shown = on_terminal(&medusa, &["status", &name_option]).expect_code(0).stdout;
        assert!(shown.chars().all(|c| !steers(c)), "{shown:?}");
        let document = medusa.ok(&["status", &name_option, "--output", "json"]).json();
        assert_eq!((&document["name"], &document["missing_nodes_list"][0]), (&name.into(), &name.into()));
    }
    for arguments in LOOKS {
        let shown = on_terminal(&medusa, arguments).stdout;
        assert!(shown.chars().all(|c| !steers(c)), "{arguments:?}: {shown:?}");
    }
    let shown = on_terminal(&medusa, &["list-backups", "--show-all"]).stdout;
    assert!(shown.contains("c1\\u009b31mred (started: ") && shown.contains("ü ☃ (started: "), "{shown}");
    // What an object store cannot hold is not seen, and keeps nobody from seeing the rest.
    put(&medusa.bucket(), "index/backup_index/esc\x1b[31m/started_n1_1700000000.timestamp", "1700000000");
    put(&medusa.bucket(), "index/backup_index/new\nline/started_n1_1700000000.timestamp", "1700000000");
    assert_eq!(medusa.ok(&["list-backups", "--show-all"]).stdout, list.stdout);
    // Hosts of a token map are no names of objects.
    let tokenmap = r#"{"n1": {"tokens": [1], "is_up": true}, "\u001b[31mred": {"tokens": [2], "is_up": true}}"#;
    fs::write(medusa.bucket().join("n1/b1/meta/tokenmap.json"), tokenmap).unwrap();
    for command in ["status", "fetch-tokenmap"] {
        let shown = on_terminal(&medusa, &[command, "--backup-name", "b1"]).expect_code(0).stdout;
        assert!(shown.contains("\\u001b[31mred"), "{shown}");
    }
    // A manifest that names what cannot be is told of in an error.
    let manifest = medusa.bucket().join("n1/b1/meta/manifest.json");
    let path = r"n2/data/\u001b[31m\u009b";
    fs::write(
        &manifest,
        format!(r#"[{{"keyspace": "k", "columnfamily": "t", "objects": [{{"path": "{path}", "size": 1}}]}}]"#),
    )
    .unwrap();
    let run = on_terminal(&medusa, &["download", "--backup-name", "b1", "--download-destination", "."]);
    assert!(run.code != 0 && run.stdout.contains("b1") && !run.stdout.contains("\x1b[31m\u{9b}"), "{run}");
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a terminal does something with it other than to show it. Lines end, and our own colours are begun.
fn steers(c: char) -> bool {
    c.is_control() && !"\r\n\t\x1b".contains(c) || ('\u{202a}'..='\u{202e}').contains(&c)
}

#[test]
fn p6_an_index_of_a_million_entries_is_listed_in_bounded_memory() {
    const BACKUPS: u32 = 100;
    const NODES: u32 = 1667;
    let medusa = made::medusa();
    let index = medusa.bucket().join("index/backup_index");
    let host = |node: u32| format!("node{node:04}.example.net");
    for backup in 0..BACKUPS {
        let (folder, at) = (index.join(format!("b{backup:03}")), 1_700_000_000 + 86_400 * backup);
        fs::create_dir_all(&folder).unwrap();
        for fqdn in (0..NODES).map(host) {
            let (started, finished) =
                (format!("started_{fqdn}_{at}.timestamp"), format!("finished_{fqdn}_{}.timestamp", at + 60));
            let files = ["tokenmap_F.json", "schema_F.cql", "manifest_F.json", "differential_F"]
                .map(|file| file.replace('F', &fqdn));
            for file in files.iter().chain([&started, &finished]) {
                fs::File::create(folder.join(file)).unwrap();
            }
        }
        fs::write(
            folder.join(format!("tokenmap_{}.json", host(0))),
            format!(r#"{{"{}": {{"tokens": [1], "is_up": true}}}}"#, host(0)),
        )
        .unwrap();
    }
    put(&medusa.bucket(), &format!("{}/b000/meta/schema.cql", host(0)), "");
    for (arguments, lines) in [
        (&["list-backups", "--show-all"][..], 100),
        (&["list-backups", "--node", "node0007.example.net", "--last", "3"], 3),
    ] {
        let (mebibytes, stdout) = peak(&medusa, arguments);
        println!("{mebibytes} MiB: {}", arguments.join(" "));
        assert_eq!(stdout.matches(" (started: ").count(), lines, "{stdout}");
        assert!(mebibytes < 256, "{arguments:?} took {mebibytes} MiB");
    }
}

#[test]
fn a_listing_that_fails_half_way_prints_nothing() {
    for folder in ["index/backup_index/b1", "index/backup_index/b2", "index/backup_index"] {
        let medusa = bucket();
        let path = medusa.bucket().join(folder);
        fs::remove_dir_all(&path).unwrap();
        // As a folder that root may not read: one that leads to itself.
        symlink(path.file_name().unwrap(), &path).unwrap();
        for arguments in LOOKS {
            let run = medusa.run(arguments);
            assert_fails(&run, 1, &["could not ", "Too many levels of symbolic links"]);
            assert_eq!(run.stdout, "", "{run}");
        }
    }
    let medusa = bucket();
    let manifest = medusa.bucket().join("n10/b1/meta/manifest.json");
    fs::remove_file(&manifest).unwrap();
    symlink("manifest.json", &manifest).unwrap();
    let run = medusa.run(&["list-backups", "--show-all", "--output", "json"]);
    assert_fails(&run, 1, &["n10/b1/meta/manifest.json", "Too many levels of symbolic links"]);
    assert_eq!(run.stdout, "", "{run}");
}

#[test]
fn a_lost_or_damaged_manifest_hides_no_other_backup() {
    for damaged in [None, Some("[{\"keyspace\": "), Some("{}"), Some("")] {
        let medusa = bucket();
        let manifest = medusa.bucket().join("n10/b2/meta/manifest.json");
        match damaged {
            Some(content) => fs::write(&manifest, content).unwrap(),
            None => fs::remove_file(&manifest).unwrap(),
        }
        for arguments in [
            &["list-backups", "--show-all", "--output", "json"][..],
            &["report-last-backup"],
            &["status", "--backup-name", "b2"],
        ] {
            let run = medusa.run(arguments);
            let said = "the manifest of backup b2 of n10 is lost or damaged";
            assert_fails(&run, 3, &[said, "medusa verify --repository"]);
            let told = run.stderr.contains("n10/b2/meta/manifest.json cannot be used");
            assert_eq!(told, damaged.is_some(), "{run}");
            assert!(run.stdout.contains("b2"), "{run}");
        }
        let document = medusa.run(&["list-backups", "--show-all", "--output", "json"]).json();
        assert_eq!(document.as_array().unwrap().len(), 2, "{document}");
    }
}

#[test]
fn a_reader_that_takes_one_line_is_no_error() {
    let medusa = bucket();
    // More than a pipe holds.
    for number in 0..1500 {
        made::begun(&medusa.bucket(), "n1", &format!("nightly-{number:04}-{}", "x".repeat(60)), &["n1"]);
    }
    for output in ["text", "json"] {
        let arguments = ["list-backups", "--show-all", "--output", output];
        let command = medusa.prepare(&arguments);
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_str().unwrap());
        let pipe = format!("{} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", shell_words::join(words));
        let run = finish(Command::new("bash").args(["-c", &pipe]).output().unwrap(), "bash", &[&pipe]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run}");
        let whole = medusa.ok(&arguments);
        assert!(whole.stdout.len() > 1 << 17, "{} bytes fit into the pipe", whole.stdout.len());
        assert_eq!(whole.stderr, "");
    }
}

#[test]
fn tokens_are_printed_to_the_last_digit() {
    let medusa = bucket();
    let tokenmap = r#"{"n1": {"tokens": [170141183460469231731687303715884105727, -1], "is_up": true}}"#;
    fs::write(medusa.bucket().join("n1/b1/meta/tokenmap.json"), tokenmap).unwrap();
    let run = medusa.ok(&["fetch-tokenmap", "--backup-name", "b1", "--output", "json"]);
    assert_eq!(run.stdout, format!("{tokenmap}\n"));
}

//! `doctor`: a healthy node, then one thing broken at a time, each with what to do.

use std::fs;

use serde_json::{Value, json};

use crate::lab::medusa::{Medusa, Run, finish};
use crate::lab::node::Node;
use crate::lab::tree;
use crate::made;
use crate::support::{assert_fails, binary, medusa, own_data, program, shared_node, snapshot_folder, wrap_nodetool};

/// A medusa of the shared node that has a folder for its backups.
fn prepared(node: &Node) -> Medusa {
    let medusa = medusa(node);
    fs::create_dir_all(medusa.bucket()).unwrap();
    medusa
}

fn examined(medusa: &Medusa, code: i32) -> Run {
    medusa.run(&["doctor", "--output", "json"]).expect_code(code)
}

/// What a check found: its states, and texts with what to do.
#[track_caller]
fn findings(run: &Run, check: &str) -> (Vec<String>, String) {
    let document = run.json();
    let all = document["findings"].as_array().unwrap();
    let found: Vec<_> = all.iter().filter(|finding| finding["check"] == check).collect();
    assert!(!found.is_empty(), "{check} is not in {run}");
    let states = found.iter().map(|finding| finding["state"].as_str().unwrap().to_owned()).collect();
    let text = |finding: &&Value| format!("{} {}", finding["text"], finding["fix"]);
    (states, found.iter().map(text).collect::<Vec<_>>().join("\n"))
}

#[track_caller]
fn assert_found(run: &Run, check: &str, state: &str, parts: &[&str]) {
    let (states, text) = findings(run, check);
    assert_eq!(states, [state], "{check} in {run}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// The checks that are not ok. This machine may have little space.
fn wrong(run: &Run) -> Vec<String> {
    let is_wrong = |finding: &&Value| {
        !["ok", "not checked"].contains(&finding["state"].as_str().unwrap()) && finding["check"] != "free space"
    };
    let document = run.json();
    let found = document["findings"].as_array().unwrap().iter().filter(is_wrong);
    found.map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_node_in_order() {
    let node = shared_node();
    let mut medusa = prepared(node);
    // Other tests have snapshots on this node.
    let data = own_data(&mut medusa, node);
    medusa.set("cassandra", "config_file", &node.yaml().display().to_string());
    medusa.ok(&["backup-node", "--backup-name", "o1"]);
    medusa.set("cassandra", "config_file", &data.with_file_name("cassandra.yaml").display().to_string());
    let before = tree(&medusa.bucket());
    let run = examined(&medusa, 0);
    assert_eq!(wrong(&run), Vec::<String>::new(), "{run}");
    for (check, parts) in [
        ("medusa.ini", &["keys set"][..]),
        ("cassandra.yaml", &["1 data directory"]),
        ("data directories", &["read, write and link"]),
        ("CQL", &[&node.address, "Cassandra 5.0", "without TLS"]),
        ("name of this node", &["as in the token map of 1 node"]),
        ("nodetool", &["answered in", "5.0"]),
        ("service", &["bin/stop"]),
        ("storage", &["list, read, write and delete work"]),
        ("clock", &["that of the storage"]),
        ("last backup", &["o1, finished", "last complete one of the cluster: o1"]),
        ("leases", &["nobody works"]),
        ("restores", &["none"]),
        ("snapshots", &["none"]),
    ] {
        assert_found(&run, check, "ok", parts);
    }
    assert_eq!(run.json()["fqdn"], node.address.as_str());
    assert_eq!(tree(&medusa.bucket()), before, "nothing stays in the bucket");
    assert!(!medusa.bucket().join("index/storage-check").exists(), "nor an empty folder");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "nor in the data directory");
    assert!(findings(&run, "free space").1.contains("free of"), "{run}");
    let text = medusa.ok(&["doctor"]);
    assert!(text.stdout.contains("\nok           nodetool"), "{text}");
    println!("{text}");
}

#[test]
fn a_broken_thing_hides_no_other() {
    let node = shared_node();
    let mut medusa = prepared(node);
    // Cassandra does not answer: nothing listens for CQL, and nodetool fails.
    let data = own_data(&mut medusa, node);
    let yaml = data.with_file_name("cassandra.yaml");
    let text = fs::read_to_string(&yaml).unwrap();
    fs::write(&yaml, format!("{text}\nnative_transport_port: 1\n")).unwrap();
    wrap_nodetool(&mut medusa, node, "echo 'nodetool: Failed to connect' >&2; exit 1\n");
    medusa.set("cassandra", "stop_cmd", "/no/such/program stop");
    medusa.set("storage", "buket_name", "x");
    let run = examined(&medusa, 3);
    assert_found(&run, "CQL", "failed", &["nothing listens for CQL", "is Cassandra running"]);
    assert_found(&run, "nodetool", "failed", &["Failed to connect", "nodetool_port"]);
    assert_found(&run, "service", "warning", &["there is no /no/such/program", "restores need stop_cmd"]);
    assert_found(&run, "last backup", "warning", &["this node has none yet", "medusa backup-node"]);
    let (states, text) = findings(&run, "medusa.ini");
    assert_eq!(states, ["ok", "warning"]);
    assert!(text.contains("unknown key buket_name"), "{text}");
    assert_found(&run, "storage", "ok", &[]);
    assert_found(&run, "data directories", "ok", &[]);
    assert_eq!(wrong(&run), ["medusa.ini", "CQL", "nodetool", "service", "last backup"], "{run}");
    assert_eq!(run.json()["failed"], 2, "{run}");
    let run = medusa.run(&["doctor"]);
    println!("{run}");
    assert_fails(&run, 3, &["error: 2 checks failed", "hint: "]);
    assert!(run.stdout.contains("\nfailed       nodetool") && run.stdout.contains("\n2 failed, "), "{run}");

    wrap_nodetool(&mut medusa, node, "exec sleep 600\n");
    let run = medusa.run(&["doctor", "--timeout", "5", "--output", "json"]).expect_code(3);
    assert_found(&run, "nodetool", "failed", &["no answer within 5 s"]);
    assert_found(&run, "cassandra.yaml", "ok", &[]);
}

#[test]
fn what_backups_and_restores_left() {
    let node = shared_node();
    let mut medusa = prepared(node);
    let data = own_data(&mut medusa, node);
    snapshot_folder(&data, "medusa-b7");
    snapshot_folder(&data, "of-somebody-else");
    made::backup(&medusa.bucket(), &node.address, "old", &[&node.address], &[]);
    let lease = json!({ "version": 1, "id": "x", "work": "backup", "backup": "b7", "since": 1_700_000_000, "ttl": 1,
        "holder": { "host": "h", "pid": 1, "boot": "", "pid_namespace": "", "started": "" } });
    made::put(&medusa.bucket(), "index/leases/n9.json", lease.to_string());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let restore = data.join(".medusa-restore-b5");
    fs::create_dir(&restore).unwrap();
    let journal = |phase: &str| {
        let journal = json!({ "version": 1, "command": "x", "phase": phase, "moves": [], "emptied": [], "rewrite": null,
            "folders": [], "tables": 1, "was_running": true });
        fs::write(restore.join("journal.json"), journal.to_string()).unwrap();
    };
    journal("staged");
    let run = examined(&medusa, 0);
    assert_found(&run, "snapshots", "warning", &["medusa-b7", "nodetool clearsnapshot -t medusa-b7"]);
    assert_found(&run, "last backup", "warning", &["old, finished", "days ago", "older than 2 days"]);
    assert_found(&run, "leases", "warning", &["process 1 on h backs up n9 (b7)", "medusa leases --break n9"]);
    assert_found(&run, "restores", "warning", &["staged", "--backup-name b5 --undo"]);
    assert_eq!(wrong(&run), ["last backup", "leases", "restores", "snapshots"], "{run}");
    journal("swapping");
    assert_found(&examined(&medusa, 3), "restores", "failed", &["swapping"]);
    let run = medusa.run(&["doctor", "--max-backup-age", "9999", "--output", "json"]);
    assert_found(&run, "last backup", "ok", &[]);
}

#[test]
fn storage_that_cannot_be_used() {
    let mut medusa = made::medusa();
    let run = examined(&medusa, 3);
    assert_found(&run, "storage", "failed", &["base_path", "is not there", "mount it"]);
    assert!(!medusa.base_path().exists(), "nothing was created in the place of a mount");
    fs::create_dir(medusa.base_path()).unwrap();
    let run = examined(&medusa, 0);
    assert_found(&run, "storage", "warning", &["is not there yet", "the first backup creates it"]);
    assert!(!medusa.bucket().exists());
    // Nobody can write there, not even root.
    made::put(&medusa.bucket(), "index/storage-check", "in the way");
    let run = examined(&medusa, 3);
    let (states, text) = findings(&run, "storage");
    assert!(states.iter().all(|state| state == "failed") && text.contains("write does not work"), "{run}");
    assert_found(&run, "leases", "ok", &[]);
    fs::remove_dir_all(medusa.bucket()).unwrap();
    fs::write(medusa.bucket(), "").unwrap();
    assert_found(&examined(&medusa, 3), "storage", "failed", &["is not a folder"]);

    medusa.unset("storage", "base_path");
    let run = examined(&medusa, 3);
    assert_found(&run, "storage", "failed", &["base_path is missing"]);
    assert_found(&run, "last backup", "not checked", &[]);
    for (key, value) in [("storage_provider", "s3_compatible"), ("host", "127.0.0.1"), ("port", "1")] {
        medusa.set("storage", key, value);
    }
    medusa.env("AWS_ACCESS_KEY_ID", "a");
    medusa.env("AWS_SECRET_ACCESS_KEY", "b");
    let run = medusa.run(&["doctor", "--timeout", "2", "--output", "json"]).expect_code(3);
    for check in ["storage", "last backup", "leases"] {
        let (states, _) = findings(&run, check);
        assert_eq!(states[0], "failed", "{check} in {run}");
    }
}

#[test]
fn a_machine_without_cassandra_is_told_so() {
    let medusa = made::medusa();
    fs::create_dir_all(medusa.bucket()).unwrap();
    made::backup(&medusa.bucket(), "n1", "b1", &["n1"], &[]);
    let run = examined(&medusa, 0);
    assert_found(&run, "cassandra.yaml", "not checked", &["no Cassandra on this machine"]);
    assert_found(&run, "storage", "ok", &[]);
    assert_found(&run, "last backup", "warning", &["last complete one of the cluster: b1"]);
    let document = run.json();
    let nodetool = document["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "nodetool");
    assert_eq!(nodetool, None);
}

#[test]
fn a_configuration_that_cannot_be_used() {
    let mut medusa = made::medusa();
    medusa.set("storage", "max_backup_age", "much");
    let run = examined(&medusa, 3);
    assert_found(&run, "medusa.ini", "failed", &["max_backup_age", "medusa.ini:"]);
    assert_found(&run, "everything else", "not checked", &[]);
    let run = std::process::Command::new(binary()).args(["doctor", "--config-file", "/no/such.ini"]).output().unwrap();
    let run = finish(run, "medusa", &["doctor"]);
    assert_fails(&run, 3, &["1 check failed"]);
    assert!(run.stdout.contains("/no/such.ini") && run.stdout.contains("medusa init writes a new file"), "{run}");

    medusa.set("storage", "max_backup_age", "30");
    medusa.set("cassandra", "cql_password", "hunter2");
    fs::create_dir_all(medusa.bucket()).unwrap();
    let run = examined(&medusa, 0);
    let (states, text) = findings(&run, "medusa.ini");
    assert_eq!(states, ["ok", "warning"], "{run}");
    assert!(text.contains("holds cql_password and can be read by everybody") && text.contains("chmod o-rwx"), "{text}");
    assert!(!format!("{run}").contains("hunter2"));
}

#[test]
fn a_log_file_that_cannot_be_written_hides_no_check() {
    let mut medusa = made::medusa();
    fs::create_dir_all(medusa.bucket()).unwrap();
    medusa.set("logging", "enabled", "1");
    medusa.set("logging", "file", "/no/such/folder/medusa.log");
    let run = examined(&medusa, 3);
    assert_found(&run, "log file", "failed", &["could not open the log file", "enabled = 0"]);
    assert_found(&run, "storage", "ok", &[]);
    assert_fails(&medusa.run(&["list-backups"]), 2, &["could not open the log file"]);
}

#[test]
fn a_cassandra_yaml_that_is_named_must_be_there() {
    let mut medusa = made::medusa();
    fs::create_dir_all(medusa.bucket()).unwrap();
    medusa.set("cassandra", "config_file", "/no/such/cassandra.yaml");
    let run = examined(&medusa, 3);
    assert_found(&run, "cassandra.yaml", "failed", &["/no/such/cassandra.yaml does not exist", "leaves it out"]);
}

#[test]
fn peers_are_asked_for_their_version() {
    let mut medusa = made::medusa();
    fs::create_dir_all(medusa.bucket()).unwrap();
    let ssh = program(&medusa, "ssh", "echo 'ssh: connect to host n2 port 22: Connection refused' >&2; exit 255\n");
    let run = medusa.run(&["doctor", "--peers", "--output", "json"]);
    assert_found(&run, "ssh to the peers", "not checked", &["--peers HOST"]);
    medusa.set("ssh", "ssh_program", &ssh);
    let run = medusa.run(&["doctor", "--peers", "n2,n3", "--output", "json"]).expect_code(3);
    let (states, text) = findings(&run, "ssh to the peers");
    assert_eq!(states, ["failed", "failed"]);
    assert!(text.contains("n2") && text.contains("n3") && text.contains("username, port and config_file"), "{text}");
    assert_fails(&medusa.run(&["doctor", "--peers=-oProxyCommand=x"]), 2, &["is not the name"]);
}

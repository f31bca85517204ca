//! Commands that look at a whole repository, on a bucket of many nodes, side by side with cassandra-medusa where it has the
//! command.
//!
//! Sizes by environment: `BENCH_NODES` (60), `BENCH_BACKUPS` (10), `BENCH_OBJECTS` (2000, of each backup), `BENCH_ROUNDS` (3).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "this is a measurement")]

mod common;
#[path = "../tests/lab/mod.rs"]
mod lab;

use std::path::Path;

use common::{Measured, median, number, rounds, timed};
use lab::medusa::Medusa;
use serde_json::{Value, json};

const TABLE: &str = "t-34998de0e59711f199fcf93f14538dd2";

fn main() {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa");
    let mut medusa = Medusa::without_node(&binary);
    medusa.set("storage", "fqdn", "node0");
    medusa.set("storage", "max_backup_count", "5");
    medusa.set("storage", "backup_grace_period_in_days", "0");
    let (nodes, backups, objects) =
        (number("BENCH_NODES", 60), number("BENCH_BACKUPS", 10), number("BENCH_OBJECTS", 2000));
    fill(&medusa.bucket(), nodes, backups, objects);
    medusa.ok(&["build-index"]);
    println!("{nodes} nodes x {backups} backups of {objects} objects; {} rounds\n", rounds());
    println!("{:<40} {:>9} {:>9} {:>10} {:>8}", "what", "seconds", "theirs", "x theirs", "peak MiB");
    let last = format!("b{}", backups - 1);
    for (arguments, peer_has_it) in [
        (&["list-backups", "--show-all"][..], true),
        (&["status", "--backup-name", &last], true),
        (&["verify", "--backup-name", &last], true),
        (&["verify", "--all"], false),
        (&["verify", "--repository"], false),
        (&["purge", "--all-nodes", "--dry-run"], false),
        (&["build-index", "--dry-run"], false),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds() {
            ours.push(timed(0, &mut medusa.prepare(arguments)));
            if peer_has_it {
                theirs.push(timed(0, &mut medusa.prepare_peer(arguments)));
            }
        }
        tell(&arguments.join(" "), &ours, &theirs);
    }
}

fn tell(what: &str, ours: &[Measured], theirs: &[Measured]) {
    let ours = median(ours);
    let seconds = ours.time.as_secs_f64();
    let (peer, ratio) = if theirs.is_empty() {
        (String::new(), String::new())
    } else {
        let theirs = median(theirs).time.as_secs_f64();
        (format!("{theirs:.2}"), format!("{:.2}", seconds / theirs))
    };
    println!("{what:<40} {seconds:>9.2} {peer:>9} {ratio:>10} {:>8.0}", ours.memory as f64 / 1024.0);
}

fn put(bucket: &Path, key: &str, content: impl AsRef<[u8]>) {
    let path = bucket.join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Every backup shares nine tenths of its objects with the one before it.
fn fill(bucket: &Path, nodes: u64, backups: u64, objects: u64) {
    let host = |node: u64| format!("node{node}");
    let entry = json!({ "tokens": [1], "is_up": true, "rack": "r1", "dc": "dc1" });
    let hosts: serde_json::Map<_, _> = (0..nodes).map(|node| (host(node), entry.clone())).collect();
    let tokenmap = Value::Object(hosts).to_string();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for fqdn in (0..nodes).map(host) {
        for backup in 0..backups {
            let meta = |file: &str| format!("{fqdn}/b{backup}/meta/{file}");
            put(bucket, &meta("differential"), "differential");
            for file in ["schema.cql", "schema_internals.cql"] {
                put(bucket, &meta(file), "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy'};");
            }
            put(bucket, &meta("tokenmap.json"), &tokenmap);
            put(bucket, &meta("server_version.json"), r#"{"server_type": "cassandra", "release_version": "5.0.9"}"#);
            let first = backup * objects / 10;
            let paths = (first..first + objects).map(|file| format!("{fqdn}/data/ks/{TABLE}/nb-{file}-big-Index.db"));
            let entries: Vec<_> = paths
                .map(|path| {
                    if !bucket.join(&path).exists() {
                        put(bucket, &path, "");
                    }
                    json!({ "path": path, "MD5": null, "size": 0, "SHA256": empty, "mtime": 1 })
                })
                .collect();
            let manifest = json!([{ "keyspace": "ks", "columnfamily": TABLE, "objects": entries }]).to_string();
            put(bucket, &meta("manifest.json"), manifest);
            // Times tell the order of the backups.
            for file in ["schema.cql", "manifest.json"] {
                let days = backups - backup;
                let time = std::time::SystemTime::now() - std::time::Duration::from_hours(24 * days);
                std::fs::File::options()
                    .append(true)
                    .open(bucket.join(meta(file)))
                    .unwrap()
                    .set_modified(time)
                    .unwrap();
            }
        }
    }
}

//! A small cluster for pictures of the screen: three real Cassandra nodes with some backups, among them a damaged one, on
//! which `docs/screens/capture.sh` is run. `make screens` does it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is a demonstration")]

#[path = "../lab/mod.rs"]
mod lab;

use std::process::{Command, ExitCode};

use lab::cluster::Ring;
use lab::medusa::Medusa;
use lab::node::Release;

fn main() -> ExitCode {
    // target/debug/examples/screens -> target/debug/medusa
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa");
    println!("starts three nodes");
    let ring = Ring::start(&binary, Release::V5_0, 3);
    let jobs = ring.temporary();
    load(&ring);
    for name in ["nightly-0411", "nightly-0412"] {
        println!("backs them up as {name}");
        let words = ["backup-cluster", "--backup-name", name, "--parallel-uploads", "3", "--temp-dir", &jobs];
        ring.medusa.ok(&words);
        ring.members[0].node.session().query("INSERT INTO shop.orders (id, customer) VALUES (-1, 'late')");
    }
    // One node of three has a third one.
    ring.members[1].medusa.ok(&["backup-node", "--backup-name", "nightly-0413"]);
    let screens = lab::project().join("docs/screens");
    let damaged = damaged(&ring, &binary);
    let ini = |medusa: &Medusa| medusa.ini().display().to_string();
    let status = Command::new(screens.join("capture.sh"))
        .arg(&screens)
        .env("MEDUSA", &binary)
        .env("NODE_INI", ini(&ring.members[0].medusa))
        .env("CLUSTER_INI", ini(&ring.medusa))
        .env("DAMAGED_INI", ini(&damaged))
        .env("JOBS", &jobs)
        .env("PATH", lab::search_path())
        .status()
        .unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn load(ring: &Ring) {
    let session = ring.members[0].node.session();
    session.run(
        "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2}
         CREATE TABLE shop.orders (id int PRIMARY KEY, customer text)
         CREATE TABLE shop.items (id int PRIMARY KEY, name text)",
    );
    for id in 0..300 {
        session.query(&format!("INSERT INTO shop.orders (id, customer) VALUES ({id}, 'customer {id}')"));
        session.query(&format!("INSERT INTO shop.items (id, name) VALUES ({id}, 'item {id}')"));
    }
}

/// A copy of the bucket in which a file of the second node is gone, and another one is cut off.
fn damaged(ring: &Ring, binary: &std::path::Path) -> Medusa {
    let copy = Medusa::new(binary, &ring.members[0].node);
    let copied = Command::new("cp").arg("-a").args([ring.medusa.base_path(), copy.base_path()]).status();
    assert!(copied.unwrap().success());
    let data = copy.bucket().join(&ring.members[1].node.address).join("data/shop");
    let mut files: Vec<_> =
        walkdir::WalkDir::new(data).into_iter().flatten().map(walkdir::DirEntry::into_path).collect();
    files.sort();
    let of = |end: &str| files.iter().find(|path| path.display().to_string().ends_with(end)).unwrap();
    std::fs::remove_file(of("-Index.db")).unwrap();
    std::fs::write(of("-Data.db"), "cut off").unwrap();
    copy
}

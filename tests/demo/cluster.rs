//! The whole cluster, shown: three real Cassandra nodes with an sshd each are backed up by one command, lose rows, a table and
//! a disk, and are brought back by one command. Every row is read from all replicas before and after.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "this is a demonstration")]

#[path = "../lab/mod.rs"]
mod lab;
mod show;

use std::process::ExitCode;
use std::time::Instant;

use lab::cluster::Ring;
use lab::node::Release;
use show::{Answers, binary, run, step};

const ROWS: u32 = 500;

/// What must be the same afterwards.
const QUESTIONS: [(&str, &str); 5] = [
    ("all orders", "SELECT * FROM shop.orders"),
    ("orders by index", "SELECT id FROM shop.orders WHERE customer = 'customer 7'"),
    ("orders by view", "SELECT id FROM shop.by_qty WHERE qty = 3"),
    ("all items", "SELECT * FROM shop.items"),
    ("visit counters", "SELECT * FROM shop.visits"),
];

fn main() -> ExitCode {
    let begin = Instant::now();
    step("start three nodes of Apache Cassandra 5.0.9, and an sshd before each");
    let ring = Ring::start(&binary(), Release::V5_0, 3);
    let jobs = ring.temporary();

    step("load a keyspace with two replicas of every row");
    load(&ring);
    let before = Answers::get(&ring.members[0].node.session(), &QUESTIONS);

    step("back the cluster up");
    run(&ring.medusa, &["backup-cluster", "--backup-name", "demo-1", "--parallel-uploads", "3", "--temp-dir", &jobs]);
    run(&ring.medusa, &["status", "--backup-name", "demo-1"]);

    step("lose rows, a table, and the disk of a node");
    let session = ring.members[0].node.session();
    for id in 0..ROWS / 5 {
        session.query(&format!("DELETE FROM shop.orders WHERE id = {id}"));
    }
    session.query("DROP TABLE shop.items");
    drop(session);
    let lost = &ring.members[2].node;
    for data in lost.data_directories() {
        let shop = data.join("shop");
        println!("  {}: {} files removed", shop.display(), lab::tree(&shop).len());
        std::fs::remove_dir_all(shop).unwrap();
    }

    step("restore the cluster");
    run(&ring.medusa, &["restore-cluster", "--backup-name", "demo-1", "--temp-dir", &jobs, "--dry-run"]);
    run(&ring.medusa, &["restore-cluster", "--backup-name", "demo-1", "--temp-dir", &jobs, "--bypass-checks"]);

    step("compare");
    before.compare(&ring.members[0].node.session(), begin)
}

fn load(ring: &Ring) {
    let session = ring.members[0].node.session();
    session.run(
        "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2}
         CREATE TABLE shop.orders (id int PRIMARY KEY, customer text, qty int)
         CREATE INDEX orders_customer ON shop.orders (customer)
         CREATE MATERIALIZED VIEW shop.by_qty AS SELECT id, qty FROM shop.orders WHERE qty IS NOT NULL AND id IS NOT NULL PRIMARY KEY (qty, id)
         CREATE TABLE shop.items (id int PRIMARY KEY, name text)
         CREATE TABLE shop.visits (page text PRIMARY KEY, n counter)",
    );
    for id in 0..ROWS {
        let (customer, qty) = (id % 100, id % 10);
        session
            .query(&format!("INSERT INTO shop.orders (id, customer, qty) VALUES ({id}, 'customer {customer}', {qty})"));
        session.query(&format!("INSERT INTO shop.items (id, name) VALUES ({id}, 'item {id}')"));
        session.query(&format!("UPDATE shop.visits SET n = n + {id} WHERE page = 'page {qty}'"));
    }
}

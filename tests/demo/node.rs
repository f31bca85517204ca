//! The main job, shown: a keyspace on a real Cassandra is backed up, destroyed, restored, and every row and every answer of
//! its indexes is compared.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "this is a demonstration")]

#[path = "../lab/mod.rs"]
mod lab;
mod show;

use std::process::ExitCode;
use std::time::Instant;

use lab::medusa::Medusa;
use lab::node::{Node, Options, Release};
use show::{Answers, binary, run, step};

const ROWS: u32 = 2000;

/// What must be the same afterwards.
const QUESTIONS: [(&str, &str); 6] = [
    ("all orders", "SELECT * FROM shop.orders"),
    ("orders by index", "SELECT id, qty FROM shop.orders WHERE customer = 'customer 7'"),
    ("all items", "SELECT * FROM shop.items"),
    ("items by SAI index", "SELECT id FROM shop.items WHERE price > 900 ALLOW FILTERING"),
    ("visit counters", "SELECT * FROM shop.visits"),
    ("orders by view", "SELECT id FROM shop.by_qty WHERE qty = 3"),
];

fn main() -> ExitCode {
    let begin = Instant::now();
    step("start Apache Cassandra 5.0.9");
    let node = Node::start(Options::new(Release::V5_0));
    let medusa = Medusa::new(&binary(), &node);

    step("load a keyspace: 3 tables, 2 indexes, a view, counters");
    load(&node);
    let before = Answers::get(&node.session(), &QUESTIONS);

    step("back it up");
    run(&medusa, &["backup-node", "--backup-name", "demo-1"]);
    run(&medusa, &["list-backups"]);
    run(&medusa, &["verify", "--backup-name", "demo-1", "--enable-md5-checks"]);

    step("lose everything: kill -9, then remove data, commit log, caches and hints");
    node.kill();
    node.wipe();
    println!("  {} holds {} files", node.path("data").display(), lab::tree(&node.path("data")).len());

    step("restore");
    run(&medusa, &["restore-node", "--backup-name", "demo-1", "--dry-run"]);
    run(&medusa, &["restore-node", "--backup-name", "demo-1"]);

    step("compare");
    before.compare(&node.session(), begin)
}

fn load(node: &Node) {
    let session = node.session();
    session.run(
        "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
         CREATE TABLE shop.orders (id int PRIMARY KEY, customer text, qty int)
         CREATE INDEX orders_customer ON shop.orders (customer)
         CREATE TABLE shop.items (id int PRIMARY KEY, name text, price int)
         CREATE INDEX items_price ON shop.items (price) USING 'sai'
         CREATE TABLE shop.visits (page text PRIMARY KEY, n counter)
         CREATE MATERIALIZED VIEW shop.by_qty AS SELECT id, qty FROM shop.orders WHERE qty IS NOT NULL AND id IS NOT NULL PRIMARY KEY (qty, id)",
    );
    for id in 0..ROWS {
        session.query(&format!(
            "INSERT INTO shop.orders (id, customer, qty) VALUES ({id}, 'customer {}', {})",
            id % 100,
            id % 10
        ));
        session.query(&format!("INSERT INTO shop.items (id, name, price) VALUES ({id}, 'item {id}', {})", id % 1000));
        session.query(&format!("UPDATE shop.visits SET n = n + {} WHERE page = 'page {}'", id, id % 20));
    }
}

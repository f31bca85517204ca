//! The main job, on every SSTable format: back up, lose everything, restore, compare every row and every answer of the
//! indexes. Then back to older states.

use crate::lab::cql::Session;
use crate::lab::node::{Node, Release};
use crate::support::{medusa, node};

#[test]
fn p1_cassandra_5_0_9_with_sstables_nb() {
    round_trip(Release::V5_0);
}

#[test]
fn p1_cassandra_5_0_9_with_sstables_oa() {
    round_trip(Release::V5_0Oa);
}

#[test]
fn p1_cassandra_5_0_9_with_sstables_da() {
    round_trip(Release::V5_0Da);
}

#[test]
fn p1_cassandra_4_1_10_with_sstables_nb() {
    round_trip(Release::V4_1);
}

/// Tables with everything that leaves files of its own.
fn create(session: &Session, release: Release) {
    session.run(
        "CREATE KEYSPACE rt WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
         CREATE KEYSPACE \"Empty\" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
         CREATE TYPE rt.addr (street text, no int)
         CREATE TABLE rt.plain (id int PRIMARY KEY, v text, s set<int>, m map<text, int>, a frozen<addr>)
         CREATE INDEX plain_v ON rt.plain (v)
         CREATE TABLE rt.\"Mixed\" (\"Id\" int PRIMARY KEY, \"Val\" text)
         CREATE TABLE rt.wide (p int, c int, st text static, v blob, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (c DESC) AND compression = {'enabled': 'false'}
         CREATE TABLE rt.counters (k text PRIMARY KEY, n counter)
         CREATE TABLE rt.empty (id int PRIMARY KEY)
         CREATE TABLE rt.sasi (id int PRIMARY KEY, v text)
         CREATE CUSTOM INDEX sasi_v ON rt.sasi (v) USING 'org.apache.cassandra.index.sasi.SASIIndex'
         CREATE TABLE rt.altered (id int PRIMARY KEY, gone text, v text)
         INSERT INTO rt.altered (id, gone, v) VALUES (1, 'x', 'y')
         ALTER TABLE rt.altered DROP gone
         CREATE TABLE rt.again (id int PRIMARY KEY, old text)
         INSERT INTO rt.again (id, old) VALUES (1, 'old')
         DROP TABLE rt.again
         CREATE TABLE rt.again (id int PRIMARY KEY, new text)
         INSERT INTO rt.again (id, new) VALUES (2, 'new')
         CREATE MATERIALIZED VIEW rt.by_v AS SELECT v, id FROM rt.plain WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY (v, id)",
    );
    if release != Release::V4_1 {
        session.run("CREATE TABLE rt.sai (id int PRIMARY KEY, v text)\nCREATE INDEX sai_v ON rt.sai (v) USING 'sai'");
    }
}

fn write(session: &Session, release: Release, ids: std::ops::Range<u32>) {
    for id in ids {
        session.run(&format!(
            "INSERT INTO rt.plain (id, v, s, m, a) VALUES ({id}, 'v{}', {{{id}, 1}}, {{'k': {id}}}, {{street: 'it''s; {id}', no: {id}}})
             INSERT INTO rt.\"Mixed\" (\"Id\", \"Val\") VALUES ({id}, 'm{id}')
             INSERT INTO rt.wide (p, c, st, v) VALUES ({}, {id}, 'static', 0x{})
             UPDATE rt.counters SET n = n + {id} WHERE k = 'k{}'
             INSERT INTO rt.sasi (id, v) VALUES ({id}, 'sasi{}')",
            id % 5,
            id % 10,
            "ab".repeat(100),
            id % 3,
            id % 4,
        ));
        if release != Release::V4_1 {
            session.run(&format!("INSERT INTO rt.sai (id, v) VALUES ({id}, 'sai{}')", id % 6));
        }
    }
}

fn answers(session: &Session, release: Release) -> Vec<Vec<Vec<String>>> {
    let mut queries = vec![
        "SELECT * FROM rt.plain",
        "SELECT id FROM rt.plain WHERE v = 'v3'",
        "SELECT * FROM rt.\"Mixed\"",
        "SELECT * FROM rt.wide",
        "SELECT * FROM rt.counters",
        "SELECT * FROM rt.empty",
        "SELECT id FROM rt.sasi WHERE v = 'sasi2'",
        "SELECT * FROM rt.altered",
        "SELECT * FROM rt.again",
        "SELECT id FROM rt.by_v WHERE v = 'v3'",
        "SELECT keyspace_name, table_name, id FROM system_schema.tables WHERE keyspace_name = 'rt'",
    ];
    if release != Release::V4_1 {
        queries.push("SELECT id FROM rt.sai WHERE v = 'sai2'");
    }
    queries.iter().map(|query| session.rows(query)).collect()
}

fn round_trip(release: Release) {
    let node: Node = node(release);
    let medusa = medusa(&node);
    let session = node.session();
    create(&session, release);
    write(&session, release, 0..100);
    let first = answers(&session, release);
    medusa.ok(&["backup-node", "--backup-name", "full-1", "--mode", "full"]);
    medusa.ok(&["backup-node", "--backup-name", "diff-1"]);

    write(&session, release, 100..150);
    session.run("DELETE FROM rt.plain WHERE id = 3\nDELETE FROM rt.sasi WHERE id = 2");
    node.nodetool(&["flush", "rt"]);
    node.nodetool(&["compact", "rt"]);
    let second = answers(&session, release);
    assert_ne!(first, second);
    let outcome = medusa.ok(&["backup-node", "--backup-name", "diff-2", "--output", "json"]).json();
    assert!(outcome["kept_files"].as_u64() > Some(0) && outcome["uploaded_files"].as_u64() > Some(0), "{outcome}");
    let letters = node.sstable_letters("rt");
    println!("Cassandra {}: SSTables {letters:?}", release.number());
    assert_eq!(letters, [release.letters().to_owned()].into());
    assert_eq!(node.snapshots(), node.snapshots().into_iter().filter(|tag| tag.starts_with("dropped-")).collect());

    for name in ["full-1", "diff-1", "diff-2"] {
        let run = medusa.ok(&["verify", "--backup-name", name, "--enable-md5-checks"]);
        assert_eq!(run.stdout, format!("Validating {name} ...\n- Completion: OK!\n- Manifest validated: OK!!\n"));
    }

    drop(session);
    node.kill();
    node.wipe();
    medusa.ok(&["restore-node", "--backup-name", "diff-2"]);
    assert_eq!(answers(&node.session(), release), second, "after losing everything");
    let again = medusa.ok(&["backup-node", "--backup-name", "diff-3", "--output", "json"]).json();
    assert!(
        again["kept_bytes"].as_u64() > again["uploaded_bytes"].as_u64(),
        "restored files are stored already: {again}"
    );

    medusa.ok(&["restore-node", "--backup-name", "full-1"]);
    assert_eq!(answers(&node.session(), release), first, "back to the full backup");
    medusa.ok(&["restore-node", "--backup-name", "diff-2"]);
    assert_eq!(answers(&node.session(), release), second, "and forward again");
    let left: Vec<_> = std::fs::read_dir(node.path("data")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

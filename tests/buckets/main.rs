//! Makes the buckets in `tests/data/buckets`: what this version and cassandra-medusa 0.31.0 store of one keyspace of a real
//! Cassandra. Every later version must be able to read them, so they are made once and then stay as they are:
//!
//! ```text
//! cargo build && cargo run --example make-buckets
//! ```
//!
//! Ours is `ours-VERSION`, and `ours-VERSION-2` and so on where the format changed again before the version did. That of
//! cassandra-medusa is made only where it is missing.
//!
//! Beside each bucket (`bucket.tar.gz`), `expected.json` has the rows and the hashes of the files, taken from Cassandra and not from the bucket.
//! Only the snapshots of that keyspace are handed to the programs, so that the buckets stay small.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a tool for developers")]

#[path = "../lab/mod.rs"]
mod lab;

use std::path::Path;
use std::process::Command;

use lab::medusa::Medusa;
use lab::node::{Node, Options, Release};
use medusa::model::digest::Sha256;
use serde_json::{Map, Value, json};

/// The node's folder in the buckets.
const FQDN: &str = "127.66.66.66";

const QUESTIONS: [&str; 4] = [
    "SELECT * FROM shop.orders",
    "SELECT id FROM shop.orders WHERE customer = 'customer 3'",
    "SELECT * FROM shop.\"Items\"",
    "SELECT * FROM shop.visits",
];

fn main() {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa");
    let node = Node::start(Options { address: Some(FQDN.into()), ..Options::new(Release::V5_0) });
    let target = lab::project().join("tests/data/buckets");
    let mut writers = vec![(free_name(&target), false)];
    let of_medusa = "medusa-0.31.0".to_owned();
    if !target.join(&of_medusa).exists() {
        writers.push((of_medusa, true));
    }
    let made = |_| {
        let mut medusa = Medusa::new(&binary, &node);
        hand_over_snapshots_only(&mut medusa, &node);
        medusa
    };
    let medusas: Vec<_> = writers.iter().map(made).collect();
    let mut expected = Map::new();
    let session = node.session();
    session.run(
        "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
         CREATE TABLE shop.orders (id int PRIMARY KEY, customer text, note text)
         CREATE INDEX orders_customer ON shop.orders (customer)
         CREATE TABLE shop.\"Items\" (\"Id\" int, at int, price decimal, tags set<text>, PRIMARY KEY (\"Id\", at))
         CREATE TABLE shop.visits (page text PRIMARY KEY, n counter)",
    );
    for (step, (name, mode)) in
        [("full-1", "full"), ("diff-1", "differential"), ("diff-2", "differential")].iter().enumerate()
    {
        let first = u32::try_from(step).unwrap() * 20;
        for id in first..first + 20 {
            session.run(&format!(
                "INSERT INTO shop.orders (id, customer, note) VALUES ({id}, 'customer {}', 'it''s süß {id}')
                 INSERT INTO shop.\"Items\" (\"Id\", at, price, tags) VALUES ({}, {id}, {id}.5, {{'a', 'b{id}'}})
                 UPDATE shop.visits SET n = n + {id} WHERE page = 'p{}'",
                id % 7,
                id % 5,
                id % 3
            ));
        }
        node.nodetool(&["snapshot", "-t", name, "shop"]);
        let rows: Map<_, _> = QUESTIONS.iter().map(|query| ((*query).to_owned(), json!(session.rows(query)))).collect();
        expected.insert((*name).to_owned(), json!({ "rows": rows, "files": files(&node, name) }));
        for (medusa, (_, is_peer)) in medusas.iter().zip(&writers) {
            run(Command::new("cp").arg("-a").arg(node.path("data/shop")).arg(medusa.folder.path().join("data")));
            let arguments =
                ["backup-node", "--backup-name", name, "--mode", mode, "--use-existing-snapshot", "--keep-snapshot"];
            let run = if *is_peer { medusa.peer_ok(&arguments) } else { medusa.ok(&arguments) };
            println!("{run}");
        }
    }
    let document = json!({ "fqdn": FQDN, "keyspace": "shop", "backups": expected });
    for (medusa, (name, _)) in medusas.iter().zip(&writers) {
        let folder = target.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        // Packed: most of it is the schema of Cassandra's own keyspaces, again and again.
        let archive = folder.join("bucket.tar.gz");
        run(Command::new("tar").arg("-czf").arg(archive).arg("-C").arg(medusa.base_path()).arg("bucket"));
        std::fs::write(folder.join("expected.json"), serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
        let bytes: usize = lab::tree(&folder).values().map(Vec::len).sum();
        println!("{}: {} KiB", folder.display(), bytes >> 10);
    }
}

/// The next name of a bucket of ours.
fn free_name(folder: &Path) -> String {
    let version = format!("ours-{}", env!("CARGO_PKG_VERSION"));
    let further = (2..).map(|number| format!("{version}-{number}"));
    std::iter::once(version.clone()).chain(further).find(|name| !folder.join(name).exists()).unwrap()
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Gives a medusa a data directory of its own, while CQL stays with the node.
fn hand_over_snapshots_only(medusa: &mut Medusa, node: &Node) {
    let data = medusa.folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let yaml = std::fs::read_to_string(node.yaml()).unwrap();
    let directories = format!("data_file_directories: [{}]", data.display());
    let others = yaml.lines().filter(|line| !line.starts_with("data_file_directories:"));
    let path = medusa.folder.path().join("cassandra.yaml");
    std::fs::write(&path, others.chain([directories.as_str()]).collect::<Vec<_>>().join("\n")).unwrap();
    medusa.set("cassandra", "config_file", &path.display().to_string());
}

/// `keyspace/table/[.index/]file` and SHA-256 of all files of a snapshot.
fn files(node: &Node, tag: &str) -> Map<String, Value> {
    let mut files = Map::new();
    for (path, content) in lab::tree(&node.path("data/shop")) {
        let Some((table, file)) = path.split_once(&format!("/snapshots/{tag}/")) else { continue };
        let name = Path::new(file).file_name().unwrap();
        if name != "manifest.json" && name != "schema.cql" {
            files.insert(format!("shop/{table}/{file}"), Sha256::of(&content).to_string().into());
        }
    }
    assert!(!files.is_empty());
    files
}

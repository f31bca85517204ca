//! Every kind of object in a bucket, damaged in every way: what each level of verify says. The same table stands in
//! `docs/verify.md`.

use std::path::Path;
use std::time::SystemTime;

use crate::lab::medusa::Medusa;
use crate::support::{copy_bucket, keyspace, medusa, object_file, shared_node};

const CHANGES: [&str; 6] = ["flip", "truncate", "extend", "swap", "delete", "empty"];

const LEVELS: [&[&str]; 4] = [
    &["verify", "--backup-name", "c1"],
    &["verify", "--backup-name", "c1", "--enable-md5-checks"],
    &["verify", "--backup-name", "c1", "--read-data"],
    &["verify", "--repository"],
];

/// What every level should say.
const EXPECTED: &str = "\
| object | change | `verify` | `--enable-md5-checks` | `--read-data` | `--repository` |
|---|---|---|---|---|---|
| data: `…-Data.db` | flip | ok | damaged | damaged | ok |
| data: `…-Data.db` | truncate, extend | damaged | damaged | damaged | ok |
| data: `…-Data.db` | swap | ok | damaged | damaged | ok |
| data: `…-Data.db` | delete, empty | damaged | damaged | damaged | ok |
| data: `…-Index.db` | flip | ok | damaged | damaged | ok |
| data: `…-Index.db` | truncate, extend | damaged | damaged | damaged | ok |
| data: `…-Index.db` | swap | ok | damaged | damaged | ok |
| data: `…-Index.db` | delete, empty | damaged | damaged | damaged | ok |
| `meta/manifest.json` | flip | ok | damaged | damaged | problem |
| `meta/manifest.json` | truncate, extend | damaged | damaged | damaged | problem |
| `meta/manifest.json` | swap | ok | ok | ok | problem |
| `meta/manifest.json` | delete, empty | damaged | damaged | damaged | problem |
| `meta/schema.cql` | flip | ok | ok | ok | problem |
| `meta/schema.cql` | truncate, extend, swap, delete, empty | damaged | damaged | damaged | problem |
| `meta/schema_internals.cql` | flip | ok | ok | ok | ok |
| `meta/schema_internals.cql` | truncate, extend, swap, delete, empty | damaged | damaged | damaged | ok |
| `meta/tokenmap.json` | flip, truncate, extend, swap, delete, empty | damaged | damaged | damaged | problem |
| `meta/server_version.json` | flip, truncate, extend, swap, delete, empty | damaged | damaged | damaged | ok |
| `meta/differential` | flip, truncate, extend, swap | ok | ok | ok | ok |
| `meta/differential` | delete | ok | ok | ok | problem |
| `meta/differential` | empty | ok | ok | ok | ok |
| index: `manifest_` | flip, truncate, extend, swap, delete, empty | ok | ok | ok | problem |
| index: `schema_` | flip, truncate, extend, swap, delete, empty | ok | ok | ok | problem |
| index: `tokenmap_` | flip, truncate, extend, swap, delete, empty | ok | ok | ok | problem |
| index: `started_` | flip, truncate, extend, swap | ok | ok | ok | noted |
| index: `started_` | delete | ok | ok | ok | problem |
| index: `started_` | empty | ok | ok | ok | noted |
| index: `finished_` | flip, truncate, extend, swap | ok | ok | ok | noted |
| index: `finished_` | delete | ok | ok | ok | problem |
| index: `finished_` | empty | ok | ok | ok | noted |
| index: `differential_` | flip, truncate, extend, swap | ok | ok | ok | ok |
| index: `differential_` | delete | ok | ok | ok | problem |
| index: `differential_` | empty | ok | ok | ok | ok |
| latest: `backup_name.txt` | flip, truncate, extend, swap, delete, empty | ok | ok | ok | noted |
| latest: `tokenmap.json` | flip, truncate, extend, swap, delete, empty | ok | ok | ok | noted |
| summary | flip, truncate, extend, swap, delete, empty | ok | ok | ok | ok |
| lease | flip, truncate, extend, swap | ok | ok | ok | noted |
| lease | delete | ok | ok | ok | ok |
| lease | empty | ok | ok | ok | noted |
";

/// A kind of object: its name in the table, its key, and what `swap` puts into its place.
struct Kind {
    name: &'static str,
    key: String,
    other: Vec<u8>,
    /// What is there for this kind only.
    put: Option<String>,
}

/// A lease that a process on another machine holds.
const LEASE: &str = r#"{"version":1,"id":"x","work":"purge","holder":{"host":"other","pid":7,"boot":"x","pid_namespace":"x","started":"1"},"since":1700000000,"ttl":120}"#;

#[test]
fn p1_every_damage_is_seen_by_the_level_that_promises_it() {
    let node = shared_node();
    let original = medusa(node);
    let (session, keyspace) = (node.session(), keyspace("rot"));
    session.run(&format!(
        "CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    ));
    // Of the same size, so that only the content tells them apart.
    for (table, first) in [("a", 0), ("b", 100)] {
        session.run(&format!(
            "CREATE TABLE {keyspace}.{table} (id int PRIMARY KEY, v text) WITH compression = {{'enabled': 'false'}}"
        ));
        for id in first..first + 9 {
            session.query(&format!(
                "INSERT INTO {keyspace}.{table} (id, v) VALUES ({id}, '{id:04}') USING TIMESTAMP 1000"
            ));
        }
    }
    original.ok(&["backup-node", "--backup-name", "c1"]);
    session.run(&format!("CREATE TABLE {keyspace}.c (id int PRIMARY KEY)\nINSERT INTO {keyspace}.c (id) VALUES (1)"));
    original.ok(&["backup-node", "--backup-name", "c2"]);
    let kinds = kinds(&original, &node.address, &keyspace);

    let copy = medusa(node);
    copy_bucket(&original, &copy);
    assert_eq!(outcomes(&copy, "").map(|(outcome, _)| outcome), ["ok"; 4]);
    let mut rows: Vec<(&str, Vec<&str>, [&str; 4])> = Vec::new();
    for kind in &kinds {
        for change in CHANGES {
            std::fs::remove_dir_all(copy.base_path()).unwrap();
            copy_bucket(&original, &copy);
            if let Some(content) = &kind.put {
                crate::made::put(&copy.bucket(), &kind.key, content);
            }
            damage(&copy.bucket().join(&kind.key), change, kind);
            let found = outcomes(&copy, &kind.key);
            for (outcome, run) in &found {
                assert!(["ok", "damaged", "noted", "problem"].contains(outcome), "{} {change}: {run}", kind.name);
            }
            let found = found.map(|(outcome, _)| outcome);
            match rows.last_mut() {
                Some((name, changes, outcomes)) if *name == kind.name && *outcomes == found => changes.push(change),
                _ => rows.push((kind.name, vec![change], found)),
            }
        }
    }
    let mut table = "| object | change | `verify` | `--enable-md5-checks` | `--read-data` | `--repository` |\n|---|---|---|---|---|---|\n".to_owned();
    for (name, changes, outcomes) in rows {
        table.push_str(&format!("| {name} | {} | {} |\n", changes.join(", "), outcomes.join(" | ")));
    }
    println!("{} cells, each at {} levels:\n{table}", kinds.len() * CHANGES.len(), LEVELS.len());
    assert_eq!(table, EXPECTED);
    let document = std::fs::read_to_string(crate::lab::project().join("docs/verify.md")).unwrap();
    assert!(document.contains(&table), "docs/verify.md does not have this table");
}

fn kinds(medusa: &Medusa, fqdn: &str, keyspace: &str) -> Vec<Kind> {
    let bucket = medusa.bucket();
    let read = |key: &str| std::fs::read(bucket.join(key)).unwrap();
    let meta = |name: &str, file: &str| format!("{fqdn}/{name}/meta/{file}");
    let mut entries: Vec<_> = crate::lab::tree(&bucket.join("index/backup_index/c1"))
        .into_keys()
        .map(|file| format!("index/backup_index/c1/{file}"))
        .collect();
    entries.sort();
    let entry = |begin: &str| entries.iter().find(|key| key.contains(&format!("/{begin}_"))).unwrap().clone();
    let pool = |table: &str, end: &str| {
        let file = object_file(medusa, fqdn, "c1", &format!("{keyspace}/{table}-"), end);
        file.strip_prefix(&bucket).unwrap().to_str().unwrap().to_owned()
    };
    let version = meta("c1", "server_version.json");
    let tokenmap = meta("c1", "tokenmap.json");
    let latest = |file: &str| format!("index/latest_backup/{fqdn}/{file}");
    let summary = std::fs::read_dir(bucket.join("index/summaries/c1")).unwrap().next().unwrap().unwrap().file_name();
    let kinds: [(&str, String, String); 17] = [
        ("data: `…-Data.db`", pool("a", "-Data.db"), pool("b", "-Data.db")),
        ("data: `…-Index.db`", pool("a", "-Index.db"), pool("b", "-Index.db")),
        ("`meta/manifest.json`", meta("c1", "manifest.json"), meta("c2", "manifest.json")),
        ("`meta/schema.cql`", meta("c1", "schema.cql"), meta("c2", "schema.cql")),
        ("`meta/schema_internals.cql`", meta("c1", "schema_internals.cql"), meta("c2", "schema_internals.cql")),
        ("`meta/tokenmap.json`", tokenmap.clone(), version.clone()),
        ("`meta/server_version.json`", version.clone(), tokenmap),
        ("`meta/differential`", meta("c1", "differential"), meta("c1", "schema.cql")),
        ("index: `manifest_`", entry("manifest"), meta("c2", "manifest.json")),
        ("index: `schema_`", entry("schema"), meta("c2", "schema.cql")),
        ("index: `tokenmap_`", entry("tokenmap"), version.clone()),
        ("index: `started_`", entry("started"), latest("backup_name.txt")),
        ("index: `finished_`", entry("finished"), latest("backup_name.txt")),
        ("index: `differential_`", entry("differential"), meta("c1", "schema.cql")),
        ("latest: `backup_name.txt`", latest("backup_name.txt"), entry("finished")),
        ("latest: `tokenmap.json`", latest("tokenmap.json"), version),
        ("summary", format!("index/summaries/c1/{}", summary.to_str().unwrap()), meta("c1", "schema.cql")),
    ];
    let kinds = kinds.map(|(name, key, other)| {
        let (own, other) = (read(&key), read(&other));
        assert_ne!(own, other, "{name}");
        assert!(!name.starts_with("data") || own.len() == other.len(), "{name}: {} and {}", own.len(), other.len());
        Kind { name, key, other, put: None }
    });
    let lease = format!("index/leases/{fqdn}.json");
    let lease = Kind { name: "lease", key: lease, other: read(&kinds[0].key), put: Some(LEASE.into()) };
    kinds.into_iter().chain([lease]).collect()
}

/// Damages an object as a disk does: its time of modification stays.
fn damage(path: &Path, change: &str, kind: &Kind) {
    let modified: SystemTime = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut content = std::fs::read(path).unwrap();
    match change {
        "flip" => flip(&mut content, kind.name),
        "truncate" => drop(content.pop()),
        "extend" => content.push(b'x'),
        "swap" => content.clone_from(&kind.other),
        "empty" => content.clear(),
        _ => return std::fs::remove_file(path).unwrap(),
    }
    std::fs::write(path, content).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

/// Changes a byte: of a manifest and of a schema where it is hardest to see, of other texts the first letter or digit.
fn flip(content: &mut [u8], name: &str) {
    let text = String::from_utf8(content.to_vec()).unwrap_or_default();
    let hash = text.find("\"SHA256\": \"").map(|at| at + 11);
    let at = match hash.or(text.find("WITH ")) {
        Some(at) if name.contains("manifest") || name.contains("schema") => at,
        _ if name.starts_with("data") => content.len() / 2,
        _ => content.iter().position(u8::is_ascii_alphanumeric).unwrap(),
    };
    content[at] = match content[at] {
        b'0' => b'1',
        byte if byte.is_ascii_digit() || name.contains("manifest") => b'0',
        byte => byte ^ 1,
    };
}

/// What each level says, with the run. `key`: the object that must be named where something is found.
fn outcomes(medusa: &Medusa, key: &str) -> [(&'static str, String); 4] {
    LEVELS.map(|arguments| {
        let run = medusa.run(arguments);
        let repository = arguments.contains(&"--repository");
        let outcome = match run.code {
            0 if repository && (run.stdout.contains("\n  note ") || run.stdout.contains("\n  garbage ")) => "noted",
            0 => "ok",
            3 if repository => "problem",
            3 => "damaged",
            _ => "neither",
        };
        if repository && outcome != "ok" {
            let folder = key.rsplit_once('/').unwrap().0;
            assert!(run.stdout.contains(key) || run.stdout.contains(&format!("{folder} has no entry")), "{key}: {run}");
        }
        (outcome, run.to_string())
    })
}

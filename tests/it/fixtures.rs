//! Buckets that earlier versions and cassandra-medusa wrote (`tests/data/buckets`, made by `make-buckets`). Every version must
//! list, verify, download and restore them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use medusa::model::digest::Sha256;
use serde_json::Value;

use crate::lab::medusa::Medusa;
use crate::lab::node::{Node, Release};
use crate::lab::{project, scratch, tree};
use crate::made;
use crate::support::{listed, node};

/// The folders of the buckets. There is one of Medusa, and one for each change of our format.
fn buckets() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project().join("tests/data/buckets")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.iter().any(|folder| folder.ends_with("medusa-0.31.0")), "{folders:?}");
    assert!(folders.len() >= 2, "{folders:?}");
    folders
}

fn expected(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap()
}

/// Unpacks the bucket where this medusa looks for it.
pub fn install(folder: &Path, medusa: &mut Medusa) -> Value {
    std::fs::create_dir_all(medusa.base_path()).unwrap();
    let archive = folder.join("bucket.tar.gz");
    let unpacked =
        std::process::Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(medusa.base_path()).status();
    assert!(unpacked.unwrap().success());
    let expected = expected(folder);
    medusa.set("storage", "fqdn", expected["fqdn"].as_str().unwrap());
    expected
}

#[test]
fn p1_old_buckets_are_listed_verified_and_downloaded() {
    for folder in buckets() {
        let mut medusa = made::medusa();
        let expected = install(&folder, &mut medusa);
        let before = tree(&medusa.bucket());
        let backups = expected["backups"].as_object().unwrap();
        let finished: BTreeMap<_, _> = backups.keys().map(|name| (name.clone(), true)).collect();
        assert_eq!(listed(&medusa), finished, "{}", folder.display());
        let verified = medusa.ok(&["verify", "--all", "--read-data", "--output", "json"]).json();
        assert!(verified["objects_read"].as_u64() > Some(0), "{verified}");
        medusa.ok(&["verify", "--repository"]);
        for (name, of_backup) in backups {
            let text = medusa.ok(&["verify", "--backup-name", name]).stdout;
            assert_eq!(text, format!("Validating {name} ...\n- Completion: OK!\n- Manifest validated: OK!!\n"));
            let status = medusa.ok(&["status", "--backup-name", name, "--output", "json"]).json();
            let files = of_backup["files"].as_object().unwrap();
            assert_eq!(status["num_objects"], files.len(), "{status}");
            let target = scratch("download");
            medusa.ok(&["download", "--backup-name", name, "--download-destination", target.path().to_str().unwrap()]);
            let hashes = tree(&target.path().join("shop")).into_iter();
            let hashes: BTreeMap<_, _> =
                hashes.map(|(path, content)| (path, Sha256::of(&content).to_string())).collect();
            let wanted: BTreeMap<_, _> = files
                .iter()
                .map(|(path, hash)| (path.strip_prefix("shop/").unwrap().to_owned(), hash.as_str().unwrap().to_owned()))
                .collect();
            assert_eq!(hashes, wanted, "{name} of {}", folder.display());
        }
        assert!(tree(&medusa.bucket()) == before, "reading changed something");
    }
}

#[test]
fn p1_old_buckets_are_restored() {
    let node = node(Release::V5_0);
    for folder in buckets() {
        let mut medusa = Medusa::new(crate::support::binary(), &node);
        let expected = install(&folder, &mut medusa);
        create_keyspace(&node, &medusa, &expected);
        let backups = expected["backups"].as_object().unwrap();
        // The newest differential one, and back to the full one.
        for name in ["diff-2", "full-1"] {
            let of_backup = &backups[name];
            medusa.ok(&["restore-node", "--backup-name", name, "--keyspace", "shop", "--remote"]);
            let session = node.session();
            for (query, rows) in of_backup["rows"].as_object().unwrap() {
                let found = serde_json::to_value(session.rows(query)).unwrap();
                assert_eq!(&found, rows, "{query} after {name} of {}", folder.display());
            }
        }
        node.session().query("DROP KEYSPACE shop");
    }
}

/// What a person does before restoring a table that is gone: Medusa's schema lacks the ids that we would create it with.
fn create_keyspace(node: &Node, medusa: &Medusa, expected: &Value) {
    let (name, _) = expected["backups"].as_object().unwrap().iter().next().unwrap();
    let folder = medusa.bucket().join(expected["fqdn"].as_str().unwrap()).join(name).join("meta");
    let session = node.session();
    let text = std::fs::read_to_string(folder.join("schema.cql")).unwrap();
    let is_ours = folder.join("schema_internals.cql").exists();
    for statement in medusa::model::cql::statements(&text) {
        let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = ["CREATE KEYSPACE shop ", "CREATE TABLE shop.", "CREATE INDEX orders_customer "];
        let wanted = if is_ours { &wanted[..1] } else { &wanted[..] };
        if wanted.iter().any(|begin| statement.starts_with(begin)) {
            session.query(&statement);
        }
    }
}

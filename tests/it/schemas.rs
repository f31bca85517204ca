//! `docs/schemas` describes every JSON document: of every command, completely, and so that nothing else passes. Every run of
//! every test is held against it (`lab::schemas::check`).

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster_backup::Hosts;
use crate::lab::medusa::{Medusa, finish};
use crate::lab::node::{Options, Release};
use crate::lab::schemas::{self, command_of};
use crate::made::{self, object, put};
use crate::support::{binary, load};

/// Commands that print no document.
const WITHOUT_JSON: [&str; 3] = ["completions", "man-pages", "help"];

/// Commands that need Cassandra.
const OF_NODES: [&str; 3] = ["backup-node", "purge-decommissioned", "restore-node"];

/// Commands that need hosts.
const OF_CLUSTERS: [&str; 2] = ["backup-cluster", "restore-cluster"];

/// Fields that may be left out.
const OPTIONAL: [(&str, &str); 2] = [("fetch-tokenmap", "rack"), ("fetch-tokenmap", "dc")];

#[test]
fn every_command_that_prints_json_has_a_schema() {
    let help = Command::new(binary()).arg("--help").output().unwrap();
    let help = finish(help, "medusa", &["--help"]).expect_code(0).stdout;
    let lines = help.split("Commands:").nth(1).unwrap().lines().skip(1).take_while(|line| !line.is_empty());
    let commands = lines.filter(|line| !line.starts_with("   ")).map(|line| line.split_whitespace().next().unwrap());
    let expected: BTreeSet<_> = commands.filter(|command| !WITHOUT_JSON.contains(command)).collect();
    assert!(expected.len() >= 15, "{expected:?}");
    assert_eq!(schemas::all().keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn the_command_of_a_run_is_found_among_its_arguments() {
    for (arguments, command) in [
        (&["status", "--output", "json"][..], Some("status")),
        (&["-vv", "--output=json", "--fqdn", "n1", "backup"], Some("backup-node")),
        (&["verify", "-o", "json"], Some("verify")),
        (&["verify", "-o", "text"], None),
        (&["completions", "bash", "-o", "json"], None),
    ] {
        assert_eq!(command_of(arguments), command, "{arguments:?}");
    }
}

/// Every object in a schema that names its fields.
fn objects<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
    if schema.get("properties").is_some_and(Value::is_object) {
        found.push(schema);
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|field| objects(field, found)),
        Value::Array(items) => items.iter().for_each(|item| objects(item, found)),
        _ => {}
    }
}

#[test]
fn schemas_are_explained_and_leave_no_field_open() {
    let mut definitions: BTreeMap<&str, &Value> = BTreeMap::new();
    for (command, schema) in schemas::all() {
        let document = &schema.document;
        jsonschema::meta::validate(document).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert_eq!(document["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(document["title"], format!("medusa {command} --output json"));
        let explained = |schema: &Value| schema["description"].as_str().is_some_and(|text| !text.is_empty());
        assert!(explained(document), "{command}");
        for (name, definition) in document["$defs"].as_object().unwrap() {
            assert!(explained(definition) && definition["title"].is_string(), "{command}: {name}");
            // What two commands print is the same.
            let known = definitions.entry(name).or_insert(definition);
            let form = schema.forms().any(|form| form == name) && name != "cluster_backup";
            assert!(form || *known == definition, "{name} of {command} is not that of another command");
        }
        let mut found = Vec::new();
        objects(document, &mut found);
        for object in found {
            assert_eq!(object["additionalProperties"], false, "{command}: {object}");
            let fields = object["properties"].as_object().unwrap();
            let required: BTreeSet<_> =
                object["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            for (name, field) in fields {
                assert!(explained(field), "{command}: {name}");
                let is_required = !OPTIONAL.contains(&(command, name));
                assert_eq!(required.contains(name.as_str()), is_required, "{command}: {name}");
                // A size is not told without its unit.
                let is_size =
                    field["type"].to_string().contains("integer") && (name.contains("bytes") || name == "size");
                assert!(!is_size || field["description"].as_str().unwrap().contains("bytes"), "{command}: {name}");
            }
            assert_eq!(
                required.iter().filter(|name| !fields.contains_key(**name)).count(),
                0,
                "{command}: {required:?}"
            );
        }
    }
}

/// What runs have printed.
#[derive(Default)]
struct Printed {
    documents: BTreeMap<String, Vec<Value>>,
}

impl Printed {
    /// Runs medusa for a document.
    fn add(&mut self, medusa: &Medusa, arguments: &[&str]) {
        let arguments = [arguments, &["--output", "json"]].concat();
        let run = medusa.run(&arguments);
        self.documents.entry(command_of(&arguments).unwrap().to_owned()).or_default().push(run.json());
    }

    /// Every form of these commands was printed with a value in each of its fields, `but` for some. Each of the documents is
    /// refused as soon as anything in it is of another type, gone, or new.
    fn covers(&self, commands: impl Fn(&str) -> bool, but: &[(&str, &str)]) {
        for (command, schema) in schemas::all().iter().filter(|(command, _)| commands(command)) {
            let documents = self.documents.get(command).unwrap_or_else(|| panic!("{command} was not run"));
            let forms: BTreeSet<_> = documents.iter().map(|document| schema.form_of(document).unwrap()).collect();
            assert_eq!(forms, schema.forms().collect(), "{command}");
            let (mut described, mut seen) = (Vec::new(), BTreeSet::new());
            objects(&schema.document["$defs"], &mut described);
            for document in documents {
                fields(document, &mut seen);
            }
            let described = described.iter().flat_map(|object| object["properties"].as_object().unwrap().keys());
            let unseen: BTreeSet<_> = described.map(String::as_str).filter(|field| !seen.contains(field)).collect();
            let but: BTreeSet<_> = but.iter().filter(|(of, _)| of == command).map(|(_, field)| *field).collect();
            // All but the list of nodes is that of purge.
            assert!(unseen == but || command == "purge-decommissioned", "{command}: {unseen:?} have no value");
            let mut refused = 0;
            for document in documents {
                for (what, changed) in changes(document) {
                    let accepted = schema.form_of(&changed);
                    assert!(accepted.is_err(), "{command} accepts {what} in {changed}");
                    refused += 1;
                }
            }
            println!("{command}: {} documents, {refused} changes of them are refused", documents.len());
        }
    }
}

/// The names of fields that have a value.
fn fields<'a>(document: &'a Value, seen: &mut BTreeSet<&'a str>) {
    match document {
        Value::Object(all) => {
            for (name, value) in all {
                if !value.is_null() && *value != json!([]) {
                    seen.insert(name);
                }
                fields(value, seen);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, seen)),
        _ => {}
    }
}

/// Every change of a document that its schema must not accept, with its name.
fn changes(document: &Value) -> Vec<(String, Value)> {
    let mut pointers = Vec::new();
    collect(document, String::new(), &mut pointers);
    let mut all = Vec::new();
    for pointer in pointers {
        let change = |change: &dyn Fn(&mut Value)| {
            let mut changed = document.clone();
            change(changed.pointer_mut(&pointer).unwrap());
            changed
        };
        // No number of ours is negative and broken, and no text, number or object is a list of lists.
        let other = if document.pointer(&pointer).unwrap().is_array() { json!(-1.5) } else { json!([[]]) };
        all.push((format!("another type of {pointer:?}"), change(&|value| *value = other.clone())));
        let Some(Value::Object(object)) = document.pointer(&pointer) else { continue };
        all.push((format!("a new field in {pointer:?}"), change(&|value| value["new_field"] = json!([[]]))));
        for name in object.keys().filter(|name| is_fixed(&pointer, name)) {
            let gone = change(&|value| drop(value.as_object_mut().unwrap().remove(name)));
            all.push((format!("no {name} in {pointer:?}"), gone));
        }
    }
    all
}

fn collect(value: &Value, pointer: String, pointers: &mut Vec<String>) {
    let child = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| collect(value, child(name), pointers)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| collect(item, child(&at.to_string()), pointers));
        }
        _ => {}
    }
    pointers.push(pointer);
}

/// Hosts, sections and keys of medusa.ini come and go, and so does what old token maps do not have.
fn is_fixed(pointer: &str, name: &str) -> bool {
    let is_host = name.starts_with("n1");
    let is_config = pointer.starts_with("/sections") && pointer.matches('/').count() < 3;
    !is_host && !is_config && !["rack", "dc"].contains(&name)
}

const HOSTS: [&str; 3] = ["n1", "n10", "n11"];

/// Two backups of which the second one is not complete.
fn bucket() -> Medusa {
    let mut medusa = made::medusa();
    medusa.set("storage", "fqdn", "n1");
    medusa.set("storage", "max_backup_count", "1");
    for fqdn in HOSTS {
        let objects = [object(fqdn, "nb-1-big-Data.db", "shared"), object(fqdn, "nb-2-big-Data.db", "first")];
        made::backup(&medusa.bucket(), fqdn, "b1", &HOSTS, &objects);
    }
    let objects = [object("n1", "nb-1-big-Data.db", "shared"), object("n1", "nb-3-big-Data.db", "old").recorded(None)];
    made::backup(&medusa.bucket(), "n1", "b2", &HOSTS, &objects);
    made::begun(&medusa.bucket(), "n10", "b2", &HOSTS);
    // As cassandra-medusa begins one: without a lease, so it may be running.
    std::fs::remove_file(medusa.bucket().join("n10/b2/meta/schema_internals.cql")).unwrap();
    let folder = medusa.bucket().join("index/backup_index/b2");
    let (was, is) = (folder.join("started_n1_1700000000.timestamp"), folder.join("started_n1_1700001000.timestamp"));
    std::fs::rename(was, is).unwrap();
    medusa
}

#[test]
fn every_document_about_a_bucket_is_what_its_schema_says_and_nothing_else_is() {
    let medusa = bucket();
    let bucket_folder = medusa.bucket();
    let target = medusa.folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let target = target.display().to_string();
    let mut printed = Printed::default();
    let of = |command: &'static str, name: &'static str| [command, "--backup-name", name];
    for arguments in [
        &["list-backups", "--show-all"][..],
        &of("status", "b1"),
        &of("status", "b2"),
        &of("status", "none"),
        &["report-last-backup"],
        &["get-last-complete-cluster-backup"],
        &of("fetch-tokenmap", "b1"),
        &["download", "--backup-name", "b1", "--download-destination", &target, "--dry-run"],
        &["download", "--backup-name", "b1", "--download-destination", &target],
        &["config"],
        &["build-index"],
    ] {
        printed.add(&medusa, arguments);
    }
    put(&bucket_folder, "index/backup_index/gone/manifest_n1.json", "[]");
    put(&bucket_folder, &object("n1", "nb-9-big-Data.db", "").path, "garbage");
    printed.add(&medusa, &["build-index", "--dry-run"]);
    printed.add(&medusa, &["verify", "--repository"]);
    let lease = json!({ "version": 1, "id": "x", "work": "backup", "backup": "b3", "since": 1_700_000_000, "ttl": 120,
        "holder": { "host": "h", "pid": 1, "boot": "", "pid_namespace": "", "started": "" } });
    put(&bucket_folder, "index/leases/n1.json", lease.to_string());
    put(&bucket_folder, "index/leases/n10.json", "?");
    printed.add(&medusa, &["leases"]);
    printed.add(&medusa, &["storage-check"]);
    put(&medusa.base_path().join("blocked"), "index/storage-check", "in the way");
    printed.add(&medusa, &["storage-check", "--bucket-name", "blocked"]);
    printed.add(&medusa, &["doctor", "--bucket-name", "none"]);
    let base = medusa.base_path().display().to_string();
    let init = ["init", "--provider", "local", "--bucket-name", "b", "--base-path"];
    printed.add(&medusa, &[&init[..], &["/no/such/folder", "--dry-run"]].concat());
    printed.add(&medusa, &[&init[..], &[&base, "--force"]].concat());
    printed.add(&medusa, &["purge", "--all-nodes", "--dry-run"]);
    printed.add(&medusa, &["purge", "--all-nodes"]);
    for node in ["n1", "n10"] {
        printed.add(&medusa, &["leases", "--break", node]);
    }
    damage(&medusa, &mut printed);
    let of_bucket = |command: &str| !OF_NODES.contains(&command) && !OF_CLUSTERS.contains(&command);
    printed.covers(of_bucket, &[("purge", "stopped"), ("verify", "failed")]);
}

/// What verify, purge and delete-backup say of damage.
fn damage(medusa: &Medusa, printed: &mut Printed) {
    let bucket = medusa.bucket();
    printed.add(medusa, &["verify", "--backup-name", "b1", "--read-data"]);
    put(&bucket, &object("n1", "nb-1-big-Data.db", "").path, "of another size");
    put(&bucket, &object("n1", "nb-2-big-Data.db", "").path, "FIRST");
    std::fs::remove_file(bucket.join(object("n10", "nb-1-big-Data.db", "").path)).unwrap();
    std::fs::write(bucket.join("n1/b2/meta/tokenmap.json"), "{").unwrap();
    printed.add(medusa, &["verify", "--all", "--sample", "100%"]);
    std::fs::write(bucket.join("n10/b1/meta/manifest.json"), "[{").unwrap();
    for arguments in [&["verify", "--repository"][..], &["build-index"], &["purge", "--all-nodes", "--dry-run"]] {
        printed.add(medusa, arguments);
    }
    let manifest = bucket.join("n11/b1/meta/manifest.json");
    std::fs::remove_file(&manifest).unwrap();
    symlink("manifest.json", &manifest).unwrap();
    printed.add(medusa, &["verify", "--backup-name", "b1"]);
    printed.add(medusa, &["delete-backup", "--backup-name", "b2", "--all-nodes", "--dry-run"]);
    put(&bucket, "index/leases/n10.json", "?");
    printed.add(medusa, &["delete-backup", "--backup-name", "b2", "--all-nodes"]);
}

#[test]
fn every_document_about_a_node_is_what_its_schema_says_and_nothing_else_is() {
    let node = crate::lab::node::Node::start(Options::new(Release::V5_0));
    let mut medusa = Medusa::new(binary(), &node);
    load(&node.session(), "shop", 10);
    let mut printed = Printed::default();
    printed.add(&medusa, &["purge-decommissioned"]);
    printed.add(&medusa, &["backup-node", "--backup-name", "b1"]);
    printed.add(&medusa, &["backup-node", "--backup-name", "b2", "--dry-run"]);
    printed.add(&medusa, &["backup-node", "--backup-name", "b2", "--snapshot-only"]);
    printed.add(&medusa, &["backup-node", "--backup-name", "b2", "--clear-snapshot"]);
    let restore = ["restore-node", "--backup-name", "b1"];
    printed.add(&medusa, &[&restore[..], &["--dry-run"]].concat());
    printed.add(&medusa, &restore);
    let stage = ["--stage-only", "--host", "True,n1,n1"];
    for step in [&stage[..], &["--stop-only"], &["--dry-run"], &[], &["--dry-run"]] {
        printed.add(&medusa, &[&restore[..], step, &["--keyspace", "shop", "--run", "r1"]].concat());
    }
    printed.add(&medusa, &[&restore[..], &["--state"]].concat());
    let load = [&restore[..], &["--use-sstableloader", "--keyspace", "shop"]].concat();
    node.session().query("DROP KEYSPACE shop");
    printed.add(&medusa, &[&load[..], &["--dry-run"]].concat());
    printed.add(&medusa, &load);
    let left = [object("left", "nb-1-big-Data.db", "1"), object("left", "nb-2-big-Data.db", "2")];
    for name in ["left-1", "left-2"] {
        made::backup(&medusa.bucket(), "left", name, &["left"], &left);
    }
    medusa.set("storage", "backup_grace_period_in_days", "0");
    printed.add(&medusa, &["purge-decommissioned", "--dry-run"]);
    // Other tests print these: remote_restore, restore_faults, backup_faults, purge, loader, cluster.
    let elsewhere = [
        ("backup-node", "corrupt"),
        ("restore-node", "notes"),
        ("restore-node", "installed"),
        ("restore-node", "owners"),
        ("restore-node", "host"),
        ("restore-node", "set_aside"),
        ("restore-node", "statements"),
        ("restore-node", "tokens"),
        ("restore-node", "create_after"),
        ("restore-node", "drop"),
        ("restore-node", "dropped"),
        ("restore-node", "failed"),
        ("restore-node", "reason"),
    ];
    printed.covers(|command| OF_NODES.contains(&command), &elsewhere);
}

#[test]
fn every_document_about_a_cluster_is_what_its_schema_says_and_nothing_else_is() {
    let hosts = Hosts::new(3);
    hosts.behave(&format!("upload-{}", hosts.names[1]), "echo 'error: broken' >&2; exit 1\n");
    let (two, temporary) = (hosts.names[..2].join(","), hosts.temporary());
    let arguments = Hosts::arguments(&two, &temporary);
    let mut printed = Printed::default();
    printed.add(&hosts.medusa, &[&arguments[..], &["--dry-run"]].concat());
    printed.add(&hosts.medusa, &arguments);
    crate::cluster_restore::print_documents(|medusa, arguments| printed.add(medusa, arguments));
    printed.covers(|command| OF_CLUSTERS.contains(&command), &[]);
}

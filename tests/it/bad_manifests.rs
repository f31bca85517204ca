//! Manifests that nobody should have written: nothing that is done with them touches anything but the backup's own objects.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::lab::node::Release;
use crate::lab::{scratch, tree};
use crate::made::{self, TABLE, object, put};
use crate::memory::peak;
use crate::support::{State, assert_fails, keyspace, load, manifest, medusa, node, removed};

/// Paths that leave the folder of a node, or are no paths.
fn evil_paths(fqdn: &str) -> Vec<String> {
    let table = format!("data/ks/{TABLE}");
    vec![
        format!("victim/{table}/nb-99-big-Data.db"),
        format!("{fqdn}0/{table}/nb-99-big-Data.db"),
        format!("../{fqdn}/{table}/nb-99-big-Data.db"),
        format!("{fqdn}/../victim/{table}/nb-99-big-Data.db"),
        format!("{fqdn}/{table}/../../../../victim/nb-99-big-Data.db"),
        format!("/{fqdn}/{table}/nb-99-big-Data.db"),
        "/etc/passwd".to_owned(),
        format!("{fqdn}//{table}/nb-99-big-Data.db"),
        format!("{fqdn}/./{table}/nb-99-big-Data.db"),
        format!("{fqdn}/{table}/nb-99-big-Data.db/"),
        format!("{fqdn}/{table}/.."),
        format!("{fqdn}/{table}/a\0b"),
        format!("index/backup_index/b1/manifest_{fqdn}.json"),
        fqdn.to_owned(),
        String::new(),
    ]
}

#[test]
fn p4_no_path_leads_out_of_the_folder_of_the_node() {
    // Its own: the snapshots of other tests would be changes.
    let node = &node(Release::V5_0);
    let medusa = medusa(node);
    let (session, keyspace) = (node.session(), keyspace("evil"));
    load(&session, &keyspace, 5);
    medusa.ok(&["backup-node", "--backup-name", "b1"]);
    let stored = manifest(&medusa, &node.address, "b1");
    let good: Value = serde_json::from_slice(&std::fs::read(&stored).unwrap()).unwrap();
    let section = good.as_array().unwrap().iter().position(|section| section["keyspace"] == keyspace.as_str()).unwrap();
    put(&medusa.bucket(), &format!("victim/data/ks/{TABLE}/nb-99-big-Data.db"), "of another node");
    put(&medusa.bucket(), &format!("{}0/data/ks/{TABLE}/nb-99-big-Data.db", node.address), "of another node");
    let state = State::of(node, &session, &[&keyspace]);
    let target = scratch("download");
    let destination = target.path().to_str().unwrap();
    for path in evil_paths(&node.address) {
        let mut evil = good.clone();
        evil[section]["objects"][0]["path"] = path.as_str().into();
        std::fs::write(&stored, evil.to_string()).unwrap();
        let before = tree(medusa.folder.path());
        // What is wrong is told with the manifest and the path.
        let said = [format!("{}/b1/meta/manifest.json cannot be used", node.address), format!("{path:?}")];
        for arguments in [
            &["download", "--backup-name", "b1", "--download-destination", destination][..],
            &["restore-node", "--backup-name", "b1"],
            &["restore-node", "--backup-name", "b1", "--table", &format!("{keyspace}.t")],
            &["restore-node", "--backup-name", "b1", "--remote", "--dry-run"],
        ] {
            assert_fails(&medusa.run(arguments), 1, &[&said[0], &said[1], "hint: "]);
        }
        for level in [&[][..], &["--enable-md5-checks"], &["--read-data"]] {
            let run = medusa.run(&[&["verify", "--backup-name", "b1"], level].concat());
            assert_fails(&run, 3, &["manifest cannot be read"]);
            assert!(run.stdout.contains(&said[1]), "{run}");
        }
        assert_fails(&medusa.run(&["verify", "--repository"]), 3, &["in "]);
        assert!(tree(target.path()).is_empty(), "{path:?} was downloaded");
        assert!(tree(medusa.folder.path()) == before, "{path:?} changed something");
        assert_eq!(State::of(node, &session, &[&keyspace]), state, "{path:?}");
    }
}

#[test]
fn p3_a_backup_with_a_bad_manifest_is_deleted_without_what_it_names() {
    let medusa = made::medusa();
    let bucket = medusa.bucket();
    for fqdn in ["127.0.0.1", "127.0.0.10", "127.0.0.1 0", "victim"] {
        made::backup(&bucket, fqdn, "b1", &[fqdn], &[object(fqdn, "nb-1-big-Data.db", fqdn)]);
        made::backup(&bucket, fqdn, "b10", &[fqdn], &[object(fqdn, "nb-1-big-Data.db", fqdn)]);
    }
    for path in evil_paths("127.0.0.1") {
        let section = json!([{ "keyspace": "ks", "columnfamily": TABLE,
            "objects": [{ "path": path, "MD5": null, "size": 9 }] }]);
        made::finished(&bucket, "127.0.0.1", "b2", &["127.0.0.1"], &section.to_string());
        let before = tree(&bucket);
        medusa.ok(&["delete-backup", "--backup-name", "b2"]);
        let gone = removed(&medusa, &before);
        assert!(gone.len() > 5, "{gone:?}");
        for key in gone {
            assert!(key.starts_with("127.0.0.1/b2/") || key.starts_with("index/backup_index/b2/"), "{path:?}: {key}");
        }
    }
    for fqdn in ["127.0.0.1", "127.0.0.10", "127.0.0.1 0", "victim"] {
        medusa.ok(&["verify", "--backup-name", "b1", "--node", fqdn, "--read-data"]);
    }
}

#[test]
fn p4_names_with_any_characters_are_read_as_they_are() {
    let names = [
        "nb-1-big-Data.db",
        "nb-2 with blanks-Data.db",
        "nb-3-%2F%2e%2e%00-Data.db",
        "nb-4-ünïcödé-日本語-🦀.db",
        "nb-5-a\\..\\b.db",
        "nb-6-~'\"`$(x);*?#&.db",
        ".t_idx/nb-7-big-Data.db",
        "... dots .../nb-8-big-Data.db",
        "%/nb-9-%-Data.db",
    ];
    let medusa = made::medusa();
    for fqdn in ["n 1", "n%201", "n%2F1", "ñ1", "n", "n1"] {
        let objects = names.map(|name| object(fqdn, name, &format!("{name} of {fqdn}")));
        made::backup(&medusa.bucket(), fqdn, "b 1%", &[fqdn], &objects);
        let document =
            medusa.ok(&["verify", "--backup-name", "b 1%", "--node", fqdn, "--read-data", "--output", "json"]).json();
        assert_eq!(
            (&document["objects_read"], &document["nodes"][0]["objects"]),
            (&names.len().into(), &names.len().into())
        );
        let target = scratch("download");
        let destination = target.path().to_str().unwrap();
        medusa.ok(&["--fqdn", fqdn, "download", "--backup-name", "b 1%", "--download-destination", destination]);
        let files = tree(&target.path().join("ks").join(TABLE));
        let expected = names.map(|name| {
            // Any folder but one of an index is that of a content.
            let file = if name.starts_with('.') { name } else { name.rsplit('/').next().unwrap() };
            (file.to_owned(), format!("{name} of {fqdn}").into_bytes())
        });
        assert_eq!(files, expected.into(), "{fqdn}");
    }
}

#[test]
fn manifests_of_wrong_types_are_refused_and_unknown_fields_are_not() {
    let medusa = made::medusa();
    let bucket = medusa.bucket();
    let good = object("127.0.0.1", "nb-1-big-Data.db", "content");
    made::backup(&bucket, "127.0.0.1", "good", &["127.0.0.1"], std::slice::from_ref(&good));
    let entry = |change: fn(&mut Value)| {
        let mut manifest = made::manifest(std::slice::from_ref(&good));
        change(&mut manifest);
        manifest.to_string()
    };
    let fine = entry(|manifest| {
        manifest[0]["from"] = json!({ "the": ["future"] });
        manifest[0]["objects"][0]["storage_class"] = "COLD".into();
    });
    let twice = made::manifest(&[good.clone(), good.clone()]).to_string();
    let bad = [
        ("{}".to_owned(), "is not a manifest"),
        ("null".to_owned(), "is not a manifest"),
        (String::new(), "is not a manifest"),
        ("[".repeat(100_000), "is not a manifest"),
        (entry(|manifest| manifest[0]["objects"] = json!({})), "is not a manifest"),
        (entry(|manifest| manifest[0]["keyspace"] = 1.into()), "is not a manifest"),
        (entry(|manifest| manifest[0]["keyspace"] = "..".into()), "relative folder"),
        (entry(|manifest| manifest[0]["columnfamily"] = "a/b".into()), "contains a slash"),
        (entry(|manifest| manifest[0]["objects"][0]["size"] = "7".into()), "is not a manifest"),
        (entry(|manifest| manifest[0]["objects"][0]["size"] = (-7).into()), "is not a manifest"),
        (entry(|manifest| manifest[0]["objects"][0]["path"] = Value::Null), "is not a manifest"),
        (entry(|manifest| manifest[0]["objects"][0]["SHA256"] = "abc".into()), "is not a manifest"),
        (entry(|manifest| manifest[0]["objects"][0]["mtime"] = 1.5.into()), "is not a manifest"),
        (format!("{fine} x"), "is not a manifest"),
        (twice, "that would take its place"),
    ];
    for (name, (manifest, said)) in
        [(fine.clone(), "")].into_iter().chain(bad).enumerate().map(|(i, case)| (format!("case-{i}-"), case))
    {
        made::finished(&bucket, "127.0.0.1", &name, &["127.0.0.1"], &manifest);
        let run = medusa.run(&["verify", "--backup-name", &name, "--read-data"]);
        if said.is_empty() {
            assert_eq!(run.code, 0, "{run}");
            continue;
        }
        assert_fails(&run, 3, &["manifest cannot be read"]);
        assert!(run.stdout.contains(said), "{said:?} is not in {run}");
    }
    medusa.ok(&["verify", "--backup-name", "good", "--read-data"]);
}

#[test]
fn p6_a_million_entries_are_read_in_bounded_memory() {
    const ENTRIES: u32 = 1_000_000;
    let medusa = made::medusa();
    let fqdn = "127.0.0.1";
    made::begun(&medusa.bucket(), fqdn, "huge", &[fqdn]);
    let path = medusa.bucket().join(fqdn).join("huge/meta/manifest.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let mut text = format!(r#"[{{"keyspace": "ks", "columnfamily": "{TABLE}", "objects": ["#);
    for number in 0..ENTRIES {
        let comma = if number == 0 { "" } else { ", " };
        write!(
            text,
            r#"{comma}{{"path": "{fqdn}/data/ks/{TABLE}/nb-{number}-big-Data.db", "MD5": null, "size": 1000}}"#
        )
        .unwrap();
        file.write_all(text.as_bytes()).unwrap();
        text.clear();
    }
    file.write_all(b"]}]").unwrap();
    drop(file);
    let mebibytes = std::fs::metadata(&path).unwrap().len() >> 20;
    put(&medusa.bucket(), &format!("index/backup_index/huge/finished_{fqdn}_1700000100.timestamp"), "1700000100");
    let (counting, stdout) = peak(&medusa, &["status", "--backup-name", "huge"]);
    assert!(stdout.contains("- 1000000 files, "), "{stdout}");
    let (whole, _) = peak(&medusa, &["build-index", "--dry-run"]);
    println!("a manifest of {mebibytes} MiB: {counting} MiB to count its objects, {whole} MiB to check them");
    // It is never in memory.
    assert!(counting < 64 && counting < mebibytes, "{counting} MiB for a manifest of {mebibytes} MiB");
    // The text, an entry for each object, and once the places that they take.
    assert!(whole < 64 + 5 * mebibytes, "{whole} MiB for a manifest of {mebibytes} MiB");
}

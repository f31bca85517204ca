//! What the levels of verify prove, on backups whose content is known to the byte.

use std::os::unix::fs::symlink;

use base64::Engine as _;
use serde_json::Value;

use crate::lab::medusa::{Medusa, Run};
use crate::lab::tree;
use crate::made::{self, Object, object, put};
use crate::support::{assert_fails, edit};

fn flip(medusa: &Medusa, key: &str) {
    let path = medusa.bucket().join(key);
    let mut content = std::fs::read(&path).unwrap();
    content[0] ^= 1;
    std::fs::write(path, content).unwrap();
}

fn json(medusa: &Medusa, arguments: &[&str]) -> Value {
    medusa.run(&[&["verify", "--output", "json"], arguments].concat()).json()
}

/// The report of one node in a document about one backup.
fn node<'a>(document: &'a Value, fqdn: &str) -> &'a Value {
    let nodes = document["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["fqdn"] == fqdn).unwrap_or_else(|| panic!("no {fqdn} in {document}"))
}

/// What was found, without the last line: when it was.
fn found(run: &Run) -> &str {
    let times = run.stdout.lines().last().unwrap();
    assert!(times.starts_with("started ") && times.contains(", finished "), "{run}");
    run.stdout.strip_suffix(&format!("{times}\n")).unwrap()
}

/// Backups b1 and b2 of nodes n1, n10 and n2. Both name the same objects, b2 two more.
fn three_nodes() -> Medusa {
    let medusa = made::medusa();
    let hosts = ["n1", "n10", "n2"];
    for fqdn in hosts {
        let mut objects: Vec<_> =
            (0..8).map(|i| object(fqdn, &format!("nb-{i}-big-Data.db"), &format!("content {i} of {fqdn}"))).collect();
        made::backup(&medusa.bucket(), fqdn, "b1", &hosts, &objects);
        objects.push(object(fqdn, ".t_idx/nb-8-big-Data.db", "of an index"));
        objects.push(object(fqdn, "0123456789abcdef/nb-9 ü%-big-Data.db", "under a content key"));
        made::backup(&medusa.bucket(), fqdn, "b2", &hosts, &objects);
    }
    medusa
}

fn key(fqdn: &str, file: &str) -> String {
    object(fqdn, file, "").path
}

#[test]
fn p1_read_data_tells_node_by_node_what_is_wrong() {
    let medusa = three_nodes();
    let clean = medusa.ok(&["verify", "--backup-name", "b2", "--read-data"]);
    assert_eq!(
        found(&clean),
        "b2   3 nodes, 30 objects, 458 B\n  n1    ok   10 objects\n  n10   ok   10 objects\n  n2    ok   10 objects\n\
         3 nodes ok. Existence and sizes were checked, and every byte of 30 objects (458 B) against its hash.\n"
    );
    assert!(clean.stderr.contains("  read       n10: 10 objects, ") && clean.stderr.contains("/s "), "{clean}");

    flip(&medusa, &key("n10", "nb-3-big-Data.db"));
    std::fs::remove_file(medusa.bucket().join(key("n10", ".t_idx/nb-8-big-Data.db"))).unwrap();
    put(&medusa.bucket(), &key("n2", "0123456789abcdef/nb-9 ü%-big-Data.db"), "longer than it was before");
    let before = tree(&medusa.bucket());
    let run = medusa.run(&["verify", "--backup-name", "b2", "--read-data"]);
    assert_fails(&run, 3, &["2 of 3 nodes damaged", "n10   2 problems of 10 objects", "n2   1 problem of 10 objects"]);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(
        lines[1..7],
        [
            "  n1    ok        10 objects".to_owned(),
            "  n10   damaged   8 ok, 1 missing, 1 wrong hash".to_owned(),
            format!("    missing      {}", key("n10", ".t_idx/nb-8-big-Data.db")),
            format!("    wrong hash   {}", key("n10", "nb-3-big-Data.db")),
            "  n2    damaged   9 ok, 1 wrong size".to_owned(),
            format!("    wrong size   {}   expected 19, found 25", key("n2", "0123456789abcdef/nb-9 ü%-big-Data.db")),
        ],
        "{run}"
    );
    assert!(lines[7].starts_with("2 of 3 nodes are damaged or unknown. "), "{run}");

    let document = json(&medusa, &["--backup-name", "b2", "--read-data"]);
    let n10 = node(&document, "n10");
    assert_eq!(
        (&document["ok"], &n10["ok"], &node(&document, "n1")["ok"]),
        (&false.into(), &false.into(), &true.into())
    );
    assert_eq!((&n10["missing"], &n10["wrong_hash"], &n10["wrong_size"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(node(&document, "n2")["problems"][0]["found"], 25);
    // Of sizes alone the changed byte is not seen, and Medusa's text names nothing else.
    let run = medusa.run(&["verify", "--backup-name", "b1"]);
    assert_eq!((run.code, run.stdout.lines().last().unwrap()), (0, "- Manifest validated: OK!!"), "{run}");
    let run = medusa.run(&["verify", "--backup-name", "b1", "--enable-md5-checks"]);
    let expected = format!(
        "Validating b1 ...\n- Completion: OK!\n- Manifest validation: Failed!\n  - [{}] Blob different\n",
        key("n10", "nb-3-big-Data.db")
    );
    assert_eq!((run.code, run.stdout.as_str()), (3, expected.as_str()), "{run}");
    assert!(tree(&medusa.bucket()) == before, "verify changed something");
}

#[test]
fn all_backups_are_looked_at_and_shared_objects_once() {
    let medusa = three_nodes();
    let document = json(&medusa, &["--all", "--read-data"]);
    assert_eq!((&document["ok"], &document["objects_read"]), (&true.into(), &30.into()), "{document}");
    assert_eq!(document["backups"].as_array().unwrap().len(), 2);
    assert_eq!(node(&document["backups"][0], "n1")["objects"], 8);
    flip(&medusa, &key("n1", "nb-0-big-Data.db"));
    let run = medusa.run(&["verify", "--all", "--read-data"]);
    assert_fails(&run, 3, &["2 of 6 node backups damaged", "b1 of n1   1 problem of 8", "b2 of n1   1 problem of 10"]);
    assert_eq!(run.stdout.matches("    wrong hash   ").count(), 2, "{run}");

    // Two manifests that say different things of one object cannot both be right.
    let medusa = three_nodes();
    let manifest = medusa.bucket().join("n2/b1/meta/manifest.json");
    let wrong = "00".repeat(32);
    edit(&manifest, |text| {
        let mut document: Value = serde_json::from_str(&text).unwrap();
        document[0]["objects"][3]["SHA256"] = wrong.as_str().into();
        document.to_string()
    });
    let document = json(&medusa, &["--all", "--read-data"]);
    assert_eq!(document["objects_read"], 30);
    let of = |backup: usize| node(&document["backups"][backup], "n2")["wrong_hash"].clone();
    assert_eq!((of(0), of(1)), (1.into(), 0.into()));
}

#[test]
fn one_bad_node_or_backup_hides_no_other() {
    let medusa = three_nodes();
    let bucket = medusa.bucket();
    std::fs::write(bucket.join("n1/b1/meta/manifest.json"), "[{").unwrap();
    let manifest = bucket.join("n10/b2/meta/manifest.json");
    std::fs::remove_file(&manifest).unwrap();
    symlink("manifest.json", &manifest).unwrap();
    flip(&medusa, &key("n2", "nb-0-big-Data.db"));
    made::begun(&bucket, "n1", "b3", &["n1", "n10"]);
    let run = medusa.run(&["verify", "--all", "--read-data"]);
    assert_fails(
        &run,
        3,
        &["b1 of n1   manifest cannot be read", "b2 of n10   could not be checked: ", "b3   is not complete"],
    );
    let line = |backup: &str, fqdn: &str| {
        let of_backup = run.stdout.split(&format!("{backup}   ")).nth(1).unwrap();
        let line = of_backup.lines().find(|line| line.starts_with(&format!("  {fqdn} ")));
        line.unwrap_or_else(|| panic!("no {fqdn} in {run}")).split_whitespace().nth(1).unwrap().to_owned()
    };
    let states = [("b1", "n1"), ("b1", "n10"), ("b1", "n2"), ("b2", "n1"), ("b2", "n10"), ("b2", "n2"), ("b3", "n1")];
    assert_eq!(
        states.map(|(backup, fqdn)| line(backup, fqdn)),
        ["damaged", "ok", "damaged", "ok", "unknown", "damaged", "unfinished"],
        "{run}"
    );
    assert_eq!(line("b3", "n10"), "missing");
    // The storage that fails says nothing about a backup.
    let run = medusa.run(&["verify", "--backup-name", "b2", "--node", "n10"]);
    assert_fails(&run, 1, &["the storage failed", "n10   could not be checked", "manifest.json"]);
    assert!(run.stdout.contains("  n10   unknown "), "{run}");
}

#[test]
fn only_the_nodes_that_are_named() {
    let medusa = three_nodes();
    for fqdn in ["n10", "n2"] {
        flip(&medusa, &key(fqdn, "nb-0-big-Data.db"));
    }
    let checked = |nodes: &[&str]| {
        let nodes: Vec<_> = nodes.iter().flat_map(|node| ["--node", node]).collect();
        let run =
            medusa.run(&[&["verify", "--backup-name", "b1", "--read-data", "--output", "json"], &*nodes].concat());
        let document = run.json();
        let names = document["nodes"].as_array().unwrap().iter().map(|node| node["fqdn"].as_str().unwrap().to_owned());
        (run.code, names.collect::<Vec<_>>(), document["objects_read"].as_u64())
    };
    assert_eq!(checked(&["n1"]), (0, vec!["n1".to_owned()], Some(8)));
    assert_eq!(checked(&["n1", "n2"]), (3, vec!["n1".to_owned(), "n2".to_owned()], Some(16)));
    let run = medusa.run(&["verify", "--backup-name", "b1", "--node", "n"]);
    assert_fails(&run, 1, &["there is no backup b1 of n in"]);
    // One that is not in the backup is missed, also beside one that is.
    let run = medusa.run(&["verify", "--backup-name", "b1", "--node", "n1", "--node", "n2.typo"]);
    assert_fails(&run, 3, &["backup b1 is not complete"]);
    assert!(run.stdout.contains("n2.typo"), "{run}");
    // A node is complete whatever the others are.
    std::fs::remove_dir_all(medusa.bucket().join("n2/b1")).unwrap();
    for entry in std::fs::read_dir(medusa.bucket().join("index/backup_index/b1")).unwrap().flatten() {
        if entry.file_name().to_str().unwrap().contains("_n2") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_fails(&medusa.run(&["verify", "--backup-name", "b1"]), 3, &["backup b1 is not complete"]);
    medusa.ok(&["verify", "--backup-name", "b1", "--node", "n1"]);
    assert_fails(&medusa.run(&["verify", "--backup-name", "b1", "--node", "n2"]), 3, &["backup b1 is not complete"]);
}

#[test]
fn a_sample_can_be_drawn_again() {
    let medusa = three_nodes();
    flip(&medusa, &key("n1", "nb-5-big-Data.db"));
    let draw = |seed: u32| {
        let seed = seed.to_string();
        let run =
            medusa.run(&["verify", "--backup-name", "b2", "--sample", "50%", "--seed", &seed, "--output", "json"]);
        let document = run.json();
        assert_eq!(document["seed"].as_u64(), seed.parse().ok());
        assert_eq!((run.code == 3), (node(&document, "n1")["wrong_hash"] == 1), "{run}");
        (run.code, document["objects_read"].as_u64().unwrap())
    };
    let draws: Vec<_> = (0..16).map(draw).collect();
    assert_eq!(draws, (0..16).map(draw).collect::<Vec<_>>());
    let finders = draws.iter().filter(|(code, _)| *code == 3).count();
    assert!((1..16).contains(&finders), "{draws:?}");
    assert!(draws.iter().all(|(_, read)| (1..30).contains(read)), "{draws:?}");

    // Without --seed it is another one each time, and it is told.
    let seed = |run: &Run| run.stdout.split("--seed ").nth(1).unwrap().split(')').next().unwrap().to_owned();
    let (one, other) =
        (medusa.run(&["verify", "--all", "--sample", "0.1"]), medusa.run(&["verify", "--all", "--sample", "0.1"]));
    assert_ne!(seed(&one), seed(&other));
    let again = medusa.run(&["verify", "--all", "--sample", "0.1", "--seed", &seed(&one)]);
    assert_eq!(found(&again), found(&one));
    assert!(one.stdout.contains(": a sample of 0.1% (--seed "), "{one}");
    assert_eq!(json(&medusa, &["--backup-name", "b2", "--sample", "100%"])["objects_read"], 30);
}

fn md5(content: &[u8]) -> [u8; 16] {
    use md5::Digest as _;
    md5::Md5::digest(content).into()
}

#[test]
fn p1_what_only_medusa_recorded_is_compared_where_it_says_something() {
    let content = "0123456789";
    let whole = md5(content.as_bytes());
    // S3 takes no parts below 5 MiB, so this is one.
    let parts = hex::encode(md5(&md5(content.as_bytes())));
    let forms: [(&str, Option<String>, bool); 7] = [
        ("hex", Some(hex::encode(whole)), true),
        ("base64", Some(base64::engine::general_purpose::STANDARD.encode(whole)), true),
        ("parts", Some(format!("{parts}-1")), true),
        ("null", None, false),
        ("none", Some("no-md5-hash".into()), false),
        ("etag", Some("0x8DB1234".into()), false),
        // Of parts of another size: nothing can be computed again.
        ("other-parts", Some(format!("{parts}-3")), false),
    ];
    let mut medusa = made::medusa();
    medusa.set("storage", "multipart_chunksize", "8MB");
    let objects: Vec<Object> = forms
        .iter()
        .map(|(name, md5, _)| object("n1", &format!("{name}-Data.db"), content).recorded(md5.as_deref()))
        .collect();
    made::backup(&medusa.bucket(), "n1", "b1", &["n1"], &objects);
    let known = forms.iter().filter(|(.., known)| *known).count();
    let run = medusa.ok(&["verify", "--backup-name", "b1", "--read-data"]);
    assert!(run.stdout.contains("  n1   ok   7 objects, 4 only size known\n"), "{run}");
    assert!(
        run.stdout.contains(" Of 4 objects only the size is known: no hash was recorded that can be compared.\n"),
        "{run}"
    );
    let document = json(&medusa, &["--backup-name", "b1", "--read-data"]);
    assert_eq!(document["objects_read"], known);
    let named = node(&document, "n1")["only_size_known"].as_array().unwrap().clone();
    assert_eq!(
        named,
        ["etag", "none", "null", "other-parts"].map(|name| Value::from(key("n1", &format!("{name}-Data.db"))))
    );
    for (name, _, known) in forms {
        let file = key("n1", &format!("{name}-Data.db"));
        flip(&medusa, &file);
        for arguments in
            [["verify", "--backup-name", "b1", "--read-data"], ["verify", "--backup-name", "b1", "--enable-md5-checks"]]
        {
            let run = medusa.run(&arguments).expect_code(if known { 3 } else { 0 });
            assert_eq!(run.stdout.contains(&file), known, "{name}: {run}");
        }
        flip(&medusa, &file);
    }
}

/// `multipart_chunksize` may have been another one when the objects were stored.
#[test]
fn p1_parts_are_compared_whatever_size_is_configured_now() {
    const MIB: usize = 1 << 20;
    let content = "0123456789abcdef".repeat(12 * MIB / 16);
    let in_parts = |part_size: usize| {
        let parts: Vec<_> = content.as_bytes().chunks(part_size).map(md5).collect();
        format!("{}-{}", hex::encode(md5(&parts.concat())), parts.len())
    };
    let mut medusa = made::medusa();
    let objects = [("usual", 8 * MIB), ("other", 7 * MIB)].map(|(name, part_size)| {
        object("n1", &format!("{name}-Data.db"), &content).recorded(Some(&in_parts(part_size)))
    });
    made::backup(&medusa.bucket(), "n1", "b1", &["n1"], &objects);
    let [usual, other] = ["usual", "other"].map(|name| key("n1", &format!("{name}-Data.db")));
    let found = |medusa: &Medusa| {
        let document = json(medusa, &["--backup-name", "b1", "--read-data"]);
        let only_size = node(&document, "n1")["only_size_known"].clone();
        (node(&document, "n1")["wrong_hash"].clone(), only_size, document["objects_read"].clone())
    };
    let nothing = Value::Array(Vec::new());

    // Of 50 MiB there would be one part. Two parts have one usual size.
    let run = medusa.ok(&["verify", "--backup-name", "b1", "--read-data"]);
    assert!(run.stdout.contains("  n1   ok   2 objects, 1 only size known\n"), "{run}");
    assert!(run.stdout.contains("and every byte of 1 object ("), "{run}");
    assert_eq!(found(&medusa), (0.into(), Value::from([other.clone()].to_vec()), 1.into()));
    flip(&medusa, &usual);
    assert_eq!(found(&medusa), (0.into(), Value::from([other.clone(), usual.clone()].to_vec()), 0.into()));

    // Of 8 MiB there are two: what has another digest is damaged.
    medusa.set("storage", "multipart_chunksize", "8MB");
    assert_eq!(found(&medusa), (2.into(), nothing.clone(), 2.into()));
    flip(&medusa, &usual);
    assert_eq!(found(&medusa), (1.into(), nothing.clone(), 2.into()));
    medusa.set("storage", "multipart_chunksize", "7MB");
    assert_eq!(found(&medusa), (0.into(), nothing, 2.into()));
    medusa.ok(&["verify", "--backup-name", "b1", "--enable-md5-checks"]);

    // A file of the same size is not taken for one whose content cannot be told.
    medusa.set("storage", "multipart_chunksize", "50MB");
    let target = medusa.folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let download = ["--fqdn", "n1", "download", "--backup-name", "b1", "--download-destination"];
    let download = [&download[..], &[target.to_str().unwrap()]].concat();
    medusa.ok(&download);
    let file = target.join("ks").join(made::TABLE).join("other-Data.db");
    std::fs::write(&file, "x".repeat(content.len())).unwrap();
    medusa.ok(&download);
    assert!(std::fs::read_to_string(&file).unwrap() == content, "the other content stayed");
}

#[test]
fn files_that_medusa_overwrites_in_place_are_told_and_are_no_damage() {
    let medusa = made::medusa();
    let right = hex::encode(md5(b"statistics"));
    let objects = [
        object("n1", "nb-1-big-Statistics.db", "statistics").recorded(Some(&right)),
        object("n1", "nb-1-big-Summary.db", "summary").recorded(None),
        object("n1", "nb-2-big-Statistics.db", "statistics"),
    ];
    made::backup(&medusa.bucket(), "n1", "b1", &["n1"], &objects);
    put(&medusa.bucket(), &objects[0].path, "STATISTICS");
    put(&medusa.bucket(), &objects[1].path, "another summary");
    for level in ["--read-data", "--enable-md5-checks"] {
        let run = medusa.ok(&["verify", "--backup-name", "b1", level]);
        assert_eq!(run.stderr.matches(" was rewritten by cassandra-medusa").count(), 2, "{run}");
    }
    let run = medusa.ok(&["verify", "--backup-name", "b1", "--read-data"]);
    assert!(run.stdout.contains("  n1   ok   3 objects, 2 rewritten by cassandra-medusa\n"), "{run}");
    // What is empty was never written to its end.
    put(&medusa.bucket(), &objects[1].path, "");
    assert_fails(&medusa.run(&["verify", "--backup-name", "b1", "--read-data"]), 3, &["1 of 1 node damaged"]);
    put(&medusa.bucket(), &objects[1].path, "another summary");
    // Those that we stored are never rewritten.
    put(&medusa.bucket(), &objects[2].path, "STATISTICS");
    assert_fails(&medusa.run(&["verify", "--backup-name", "b1", "--read-data"]), 3, &["1 of 1 node damaged"]);
}

/// cassandra-medusa finishes a backup without a snapshot where nodetool fails.
#[test]
fn p1_a_backup_of_nothing_is_no_good_one() {
    let medusa = three_nodes();
    std::fs::write(medusa.bucket().join("n1/b2/meta/manifest.json"), "[]").unwrap();
    for level in [&[][..], &["--read-data"]] {
        let run = medusa.run(&[&["verify", "--backup-name", "b2", "--node", "n1"], level].concat());
        assert_ne!(run.code, 0, "{run}");
        assert!(run.stdout.contains("it names no table"), "{run}");
    }
}

#[test]
fn what_stands_beside_the_data_is_read_at_every_level() {
    for (file, content, said) in [
        ("schema.cql", Some("CREATE TABLE ks."), "does not end with a statement"),
        ("schema.cql", Some(""), "is empty"),
        ("schema.cql", None, "missing"),
        ("schema_internals.cql", Some("CREATE"), "does not end with a statement"),
        ("schema_internals.cql", None, "missing"),
        ("tokenmap.json", Some("{\"n1\": {\"tok"), "is no token map"),
        ("tokenmap.json", None, "missing"),
        ("server_version.json", Some("5.0.9"), "names no version"),
        ("server_version.json", None, "missing"),
    ] {
        let medusa = three_nodes();
        let path = medusa.bucket().join("n1/b2/meta").join(file);
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let run = medusa.run(&["verify", "--backup-name", "b2", "--node", "n1"]);
        assert_fails(&run, 3, &["1 of 1 node damaged"]);
        assert!(run.stdout.contains(said) && run.stdout.contains(&format!("n1/b2/meta/{file}")), "{file}: {run}");
        // The other backups are listed and sound.
        assert!(medusa.ok(&["list-backups", "--show-all"]).stdout.starts_with("b1 "));
        medusa.ok(&["verify", "--backup-name", "b1"]);
    }
}

#[test]
fn options_that_cannot_be_are_refused() {
    let medusa = made::medusa();
    for arguments in [
        &[][..],
        &["--all", "--backup-name", "b1"],
        &["--backup-name", "b1", "--sample", "0%"],
        &["--backup-name", "b1", "--sample", "x"],
        &["--backup-name", "b1", "--seed", "1"],
        &["--repository", "--all"],
        &["--repository", "--backup-name", "b1"],
        &["--backup-name", "a/b"],
        &["--backup-name", "b1", "--node", "a/b"],
    ] {
        assert_fails(&medusa.run(&[&["verify"], arguments].concat()), 2, &[]);
    }
    assert_fails(&medusa.run(&["verify", "--all"]), 1, &["there are no backups"]);
}

//! What is told of many nodes: the texts and documents of cassandra-medusa on made-up buckets, and what goes beyond them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::medusa::Medusa;
use crate::made::{self, Object, TABLE};
use crate::support::assert_fails;

const HOSTS: [&str; 2] = ["n1", "n10"];

/// A bucket with what makes it one of its kind.
struct Bucket {
    medusa: Medusa,
    prefix: Option<&'static str>,
}

impl Bucket {
    fn new(prefix: Option<&'static str>) -> Self {
        let mut medusa = made::medusa();
        medusa.set("storage", "fqdn", "n1");
        if let Some(prefix) = prefix {
            medusa.set("storage", "prefix", prefix);
        }
        Self { medusa, prefix }
    }

    fn root(&self) -> PathBuf {
        self.prefix.map_or_else(|| self.medusa.bucket(), |prefix| self.medusa.bucket().join(prefix))
    }

    fn object(&self, folder: &str, file: &str, content: &str) -> Object {
        let prefix = self.prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let path = format!("{prefix}{folder}/ks/{TABLE}/{file}");
        Object { path, content: content.as_bytes().to_vec(), recorded: made::Recorded::Md5(None) }
    }

    /// A backup of one node with two files, begun and ended so many seconds after the first one.
    fn backup(&self, fqdn: &str, name: &str, at: u64, full: bool) {
        let root = self.root();
        let folder = if full { format!("{fqdn}/{name}/data") } else { format!("{fqdn}/data") };
        let objects = [self.object(&folder, "nb-1-big-Data.db", fqdn), self.object(&folder, "nb-2-big-Data.db", name)];
        for object in &objects {
            made::put(&self.medusa.bucket(), &object.path, &object.content);
        }
        made::finished(&root, fqdn, name, &HOSTS, &made::manifest(&objects).to_string());
        self.date(fqdn, name, at);
        if full {
            std::fs::remove_file(root.join(format!("{fqdn}/{name}/meta/differential"))).unwrap();
            std::fs::remove_file(root.join(format!("index/backup_index/{name}/differential_{fqdn}"))).unwrap();
        }
    }

    fn begun(&self, fqdn: &str, name: &str, at: u64) {
        made::begun(&self.root(), fqdn, name, &HOSTS);
        self.date(fqdn, name, at);
    }

    /// Gives the index entries of a backup the times that they should have.
    fn date(&self, fqdn: &str, name: &str, at: u64) {
        let folder = self.root().join(format!("index/backup_index/{name}"));
        for (kind, was) in [("started", 1_700_000_000), ("finished", 1_700_000_100)] {
            let entry = |time: u64| folder.join(format!("{kind}_{fqdn}_{time}.timestamp"));
            if entry(was).exists() && at > 0 {
                std::fs::rename(entry(was), entry(was + at)).unwrap();
                std::fs::write(entry(was + at), (was + at).to_string()).unwrap();
            }
        }
    }
}

fn buckets() -> Vec<(&'static str, Bucket)> {
    let complete = |prefix| {
        let bucket = Bucket::new(prefix);
        for (name, at) in [("b1", 0), ("b2", 1000)] {
            bucket.backup("n1", name, at, false);
            bucket.backup("n10", name, at + 7, false);
        }
        bucket
    };
    let incomplete = complete(None);
    incomplete.backup("n1", "b3", 2000, false);
    incomplete.begun("n10", "b3", 2005);
    let missing = complete(None);
    missing.backup("n1", "b3", 2000, false);
    let mixed = complete(None);
    mixed.backup("n1", "full", 2000, true);
    mixed.backup("n10", "full", 2001, true);
    mixed.backup("n1", "mixed", 3000, true);
    mixed.backup("n10", "mixed", 3001, false);
    let never = Bucket::new(None);
    never.begun("n1", "b1", 0);
    vec![
        ("complete", complete(None)),
        ("with a prefix", complete(Some("cluster1"))),
        ("incomplete", incomplete),
        ("a node is missing", missing),
        ("full and differential", mixed),
        ("never finished", never),
    ]
}

/// The lines that cassandra-medusa logs, without what stands before them, and without seconds.
fn report(lines: &str) -> Vec<String> {
    let of_report = |line: &str| line.split_once("INFO: ").map(|(_, rest)| rest.to_owned());
    lines.lines().filter_map(of_report).map(|line| without_seconds(&line)).collect()
}

fn without_seconds(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let ago = words.iter().position(|word| *word == "seconds");
    let word = |(at, word): (usize, &&str)| if ago == Some(at + 1) { "N".to_owned() } else { (*word).to_owned() };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("index/backup_index")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn both_tools_tell_the_same_of_six_buckets() {
    for (what, bucket) in buckets() {
        let medusa = &bucket.medusa;
        let mut commands: Vec<Vec<String>> =
            ["list-backups --show-all", "list-backups", "get-last-complete-cluster-backup"]
                .map(|words| words.split(' ').map(str::to_owned).collect())
                .into();
        for name in names(&bucket.root()).into_iter().rev() {
            commands.extend(
                ["status", "fetch-tokenmap"].map(|command| [command, "--backup-name", &name].map(str::to_owned).into()),
            );
        }
        let mut asked = BTreeSet::new();
        for words in &commands {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let (ours, theirs) = (medusa.ok(&words), medusa.peer_ok(&words));
            assert_eq!(ours.stdout, theirs.stdout, "{what}: {ours}{theirs}");
            // Once for each bucket: the document has what the text has.
            if ["list-backups", "status"].contains(&words[0]) && asked.insert(words[0].to_owned()) {
                let words = [&words[..], &["--output", "json"]].concat();
                let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
                let (ours, theirs) = (medusa.ok(&words), medusa.peer_ok(&words));
                assert_eq!(parsed(&ours.stdout), parsed(&theirs.stdout), "{what}: {ours}{theirs}");
            }
        }
        // Without any finished backup it asks Cassandra, to rebuild the index.
        if what == "never finished" {
            continue;
        }
        let (ours, theirs) = (medusa.ok(&["report-last-backup"]), medusa.peer_ok(&["report-last-backup"]));
        let lines: Vec<_> = ours.stdout.lines().map(without_seconds).collect();
        let theirs_of_report: Vec<_> = report(&theirs.stderr).into_iter().filter(|line| lines.contains(line)).collect();
        assert_eq!(lines, theirs_of_report, "{what}: {ours}{theirs}");
    }
}

#[test]
fn the_report_as_a_document() {
    let (_, bucket) = buckets().remove(2);
    let document = bucket.medusa.ok(&["report-last-backup", "--output", "json"]).json();
    assert_eq!((&document["node"]["name"], &document["complete"]["name"]), (&"b3".into(), &"b2".into()), "{document}");
    assert_eq!(document["complete"]["finished"], 1_700_001_107);
    assert!(document["node"]["seconds_since_backup"].as_i64() > Some(1_000_000), "{document}");
    assert_eq!((&document["latest"]["name"], &document["latest"]["incomplete_nodes"]), (&"b3".into(), &1.into()));
    let empty = Bucket::new(None);
    let document = empty.medusa.ok(&["report-last-backup", "--output", "json"]).json();
    assert!(["node", "complete", "latest"].iter().all(|key| document[*key].is_null()), "{document}");
    assert_eq!(
        empty.medusa.ok(&["report-last-backup"]).stdout,
        "This node has not been backed up yet\n\
         The cluster this node belongs to has no complete backup yet\n\
         The cluster this node belongs to has not started a backup yet\n"
    );
}

#[test]
fn lists_show_what_is_asked_for() {
    let (_, bucket) = buckets().remove(2);
    bucket.backup("n10", "only10", 3000, false);
    let medusa = &bucket.medusa;
    let shown = |arguments: &[&str]| {
        let run = medusa.ok(&[&["list-backups", "--output", "json"], arguments].concat());
        let document = run.json();
        let names = document.as_array().unwrap().iter().map(|backup| backup["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(shown(&[]), ["b1", "b2", "b3"]);
    assert_eq!(shown(&["--show-all"]), ["b1", "b2", "b3", "only10"]);
    assert_eq!(shown(&["--node", "n10"]), ["b1", "b2", "b3", "only10"]);
    assert_eq!(shown(&["--node", "n"]), [""; 0]);
    assert_eq!(shown(&["--incomplete"]), ["b3"]);
    assert_eq!(shown(&["--last", "2"]), ["b2", "b3"]);
    assert_eq!(shown(&["--since", "2023-11-14 22:45", "--show-all"]), ["b3", "only10"]);
    assert_eq!(shown(&["--since", "7d"]), [""; 0]);
    for (arguments, says) in [
        (&["--since", "yesterday"][..], "is neither a date"),
        (&["--node", "a/b"], "a/b"),
        (&["--last", "few"], "--last"),
        (&["--node", "n1", "--show-all"], "cannot be used with"),
    ] {
        assert_fails(&medusa.run(&[&["list-backups"], arguments].concat()), 2, &[says]);
    }
    assert_eq!(medusa.ok(&["status", "--latest"]).stdout, medusa.ok(&["status", "--backup-name", "only10"]).stdout);
    assert_fails(&medusa.run(&["status"]), 2, &["--backup-name"]);
    assert_fails(&Bucket::new(None).medusa.run(&["status", "--latest"]), 1, &["there is no backup in"]);
}

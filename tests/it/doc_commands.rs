//! Every command that the documentation shows is run: those of the start and of the guide here, on a node; those of the runbook by
//! `doc_runbook.rs`, on a cluster; the others here, without a node. What cannot be run stands in `NOT_RUN` with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::docs::{Page, command, markdown};
use crate::lab::medusa::finish;
use crate::lab::{project, scratch, tree};
use crate::made;
use crate::partial_restore::shared;
use crate::support::{binary, left_by_restores, medusa};

const START: (&str, &str) = ("README.md", "Five minutes");
const GUIDE: &str = "docs/guide.md";
/// The chapters whose commands are run on a node, in this order.
const ON_A_NODE: [(&str, &str); 5] =
    [START, (GUIDE, "Back up one node"), (GUIDE, "Look"), (GUIDE, "Restore"), (GUIDE, "Delete")];

/// How the lines begin that no test runs, and why.
const NOT_RUN: [(&str, &str); 9] = [
    ("make", "what it builds is what the tests test, and the lab is there before them; benches take an hour"),
    ("apt-get install", "changes the machine; `packages.rs` installs the deb into a folder"),
    ("apt-get purge", "likewise"),
    ("dnf install", "changes the machine; `packages.rs` installs the rpm into a folder"),
    ("dnf remove", "likewise"),
    ("systemctl", "speaks to the systemd of the machine; `packages.rs` has it judge the units"),
    ("journalctl", "reads the journal of the machine"),
    ("az", "needs an account at Azure"),
    ("gcloud", "needs an account at Google"),
];

/// A command in a block of code.
#[derive(Debug)]
struct Shown {
    place: String,
    line: String,
}

impl Shown {
    /// Its words without the name of the program, if that is medusa.
    fn words(&self) -> Option<Vec<String>> {
        command(&self.line).map(|words| words[1..].to_vec())
    }
}

/// All lines of blocks of `sh`, and those behind `$` in blocks of `console`. Lines that go on are one.
fn all_shown() -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut mistaken = Vec::new();
    for page in markdown() {
        let (mut language, mut goes_on) = ("", false);
        for (number, in_code, line) in page.lines() {
            let place = format!("{}:{number}", page.name());
            if let Some(begun) = line.trim_start().strip_prefix("```") {
                (language, goes_on) = (if in_code { begun } else { "" }, false);
            } else if in_code {
                let said = match language {
                    "sh" if goes_on => {
                        let before = all.last_mut().unwrap();
                        before.line = format!("{} {}", before.line.trim_end_matches(['\\', ' ']), line.trim());
                        None
                    }
                    "sh" => Some(line),
                    "console" => line.strip_prefix("$ "),
                    _ => {
                        let first = line.split_whitespace().next().unwrap_or_default();
                        let is_one = ["$", "sudo", "make", "systemctl"].contains(&first) || command(line).is_some();
                        // The usage lines of docs/cli.md are those of clap.
                        mistaken.extend((is_one && language != "text").then(|| format!("{place}: {line}")));
                        None
                    }
                };
                all.extend(said.map(|line| Shown { place, line: line.to_owned() }));
                goes_on = language == "sh" && line.ends_with('\\');
            }
        }
    }
    assert!(mistaken.is_empty(), "commands stand in blocks of `sh` or `console`:\n{}", mistaken.join("\n"));
    assert!(all.len() > 60, "{all:#?}");
    all
}

/// The blocks of code of a chapter, by language, in their order.
fn blocks(page: &str, chapter: &str) -> Vec<(String, String)> {
    let page = Page::read(project().join(page));
    let chapter = format!("## {chapter}");
    let mut blocks: Vec<(String, String)> = Vec::new();
    let lines = page.lines().skip_while(|(_, _, line)| *line != chapter).skip(1);
    for (_, in_code, line) in lines.take_while(|(_, in_code, line)| *in_code || !line.starts_with("## ")) {
        if let Some(language) = line.strip_prefix("```").filter(|_| in_code) {
            blocks.push((language.to_owned(), String::new()));
        } else if let Some((_, text)) = blocks.last_mut().filter(|_| in_code) {
            text.push_str(line);
            text.push('\n');
        }
    }
    blocks.retain(|(_, text)| !text.is_empty());
    assert!(!blocks.is_empty(), "{chapter} has no blocks of code");
    blocks
}

/// The commands of a chapter, without the name of the program. Those of a cluster are run by the tests of clusters.
fn commands(page: &str, chapter: &str) -> Vec<Vec<String>> {
    let blocks = blocks(page, chapter);
    let commands = blocks.iter().flat_map(|(_, text)| text.lines()).filter_map(command);
    let commands = commands.map(|words| words[1..].to_vec());
    commands.filter(|words| !["backup-cluster", "restore-cluster"].contains(&words[0].as_str())).collect()
}

/// The README's `medusa.ini`, with the places of the lab in it, and its commands, on a node with the README's table. Then those
/// of the guide.
#[test]
fn the_first_five_minutes_end_with_the_rows_back() {
    shared(|node| {
        let mut medusa = medusa(node);
        let session = node.session();
        session.run(
            "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
             CREATE TABLE shop.orders (id int PRIMARY KEY, v text)",
        );
        for id in 0..20 {
            session.query(&format!("INSERT INTO shop.orders (id, v) VALUES ({id}, 'v{id}')"));
        }
        let rows = session.rows("SELECT * FROM shop.orders");
        drop(session);
        let ini = blocks(START.0, START.1).into_iter().find(|(language, _)| language == "ini").unwrap().1;
        let keys: BTreeMap<_, _> = ini.lines().filter_map(|line| line.split_once(" = ")).collect();
        // In the place of these the lab has the paths of its node.
        let of_node = ["base_path", "config_file", "stop_cmd", "start_cmd"];
        for key in of_node {
            assert!(keys.contains_key(key), "{key} is not in the README's medusa.ini");
        }
        for (key, value) in keys.iter().filter(|(key, _)| !of_node.contains(key)) {
            medusa.set("storage", key, value);
        }
        // In the README the bucket is a folder of the user that backs up, and everything else is done as that user.
        let folder = format!("{}/{}", keys["base_path"], keys["bucket_name"]);
        let texts: String = blocks(START.0, START.1).into_iter().map(|(_, text)| text).collect();
        assert!(texts.contains(&format!("install -d -m 0750 -o cassandra -g cassandra {folder}\n")), "{texts}");
        std::fs::create_dir_all(medusa.bucket()).unwrap();
        let mut restored = 0;
        for (page, chapter) in ON_A_NODE {
            for words in commands(page, chapter) {
                let is_dry = words.iter().any(|word| word == "--dry-run");
                let brings_back = words[0] == "restore-node";
                if brings_back && is_dry {
                    node.session().query("TRUNCATE shop.orders");
                }
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                medusa.ok(&words);
                if brings_back && !is_dry {
                    restored += 1;
                    assert_eq!(node.session().rows("SELECT * FROM shop.orders"), rows, "{page}: {words:?}");
                }
            }
        }
        assert_eq!(restored, 2, "the README and the guide bring the table back");
        node.session().run("DROP KEYSPACE shop");
        assert_eq!(left_by_restores(node), BTreeSet::new());
    });
}

/// The command of the guide that backs up a cluster, which the test of the runbook begins with.
pub fn backup_of_the_cluster() -> Vec<String> {
    let blocks = blocks(GUIDE, "Back up all nodes, from one of them");
    let words = blocks.iter().flat_map(|(_, text)| text.lines()).find_map(command).unwrap();
    words[1..].to_vec()
}

/// What is run where there is a node, or a cluster.
fn run_elsewhere() -> BTreeSet<Vec<String>> {
    let on_a_node = ON_A_NODE.iter().flat_map(|(page, chapter)| commands(page, chapter));
    let runbook = Page::read(project().join("docs/runbook.md"));
    let on_a_cluster = runbook.lines().filter_map(|(_, _, line)| command(line.strip_prefix("$ ")?));
    let on_a_cluster = on_a_cluster.map(|words| words[1..].to_vec());
    on_a_node.chain(on_a_cluster).chain([backup_of_the_cluster()]).collect()
}

/// The rest: commands of medusa on a bucket that was made up, and programs of the system in a folder that stands for `/`.
#[test]
fn every_command_is_run_or_has_a_reason() {
    let medusa = made::medusa();
    for name in ["nightly-1", "nightly-20261121"] {
        made::backup(
            &medusa.bucket(),
            "127.0.0.1",
            name,
            &["127.0.0.1"],
            &[made::object("127.0.0.1", "nb-1-big-Data.db", "x")],
        );
    }
    let root = Root::new();
    let elsewhere = run_elsewhere();
    let mut unused: BTreeSet<_> = NOT_RUN.iter().map(|(begin, _)| *begin).collect();
    let mut seen = [0; 2];
    for shown in all_shown() {
        let without_user = shown.line.trim_start_matches("sudo ");
        let begins = |begin: &str| without_user == begin || without_user.starts_with(&format!("{begin} "));
        if let Some(words) = shown.words() {
            if !elsewhere.contains(&words) {
                println!("{}: {}", shown.place, medusa.ok(&words.iter().map(String::as_str).collect::<Vec<_>>()));
                seen[0] += 1;
            }
        } else if let Some((begin, _)) = NOT_RUN.iter().find(|(begin, _)| begins(begin)) {
            unused.remove(begin);
        } else {
            root.run(&shown, without_user);
            seen[1] += 1;
        }
    }
    assert!(seen[0] >= 6 && seen[1] >= 8, "{seen:?} were run");
    assert!(unused.is_empty(), "the documentation has no {unused:?} any more");
    // The last chapter of packaging/README.md removes what the first one has installed.
    let left = tree(&root.folder.path().join("usr/local"));
    assert!(left.is_empty(), "{:?} are left", left.keys());
}

/// A folder that stands for `/`.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    /// With a program at `/tmp/medusa`, small enough to be installed again and again.
    fn new() -> Self {
        let root = Self { folder: scratch("root") };
        let program = root.folder.path().join("tmp/medusa");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::write(&program, format!("#!/bin/sh\nexec '{}' \"$@\"\n", binary().display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    /// Runs a line for this user, with all its absolute paths below the folder.
    #[track_caller]
    fn run(&self, shown: &Shown, line: &str) {
        const PROGRAMS: [&str; 3] = ["install", "packaging/install.sh", "rm"];
        let root = self.folder.path().display().to_string();
        let moved = |word: &str| match word.split_once('=') {
            Some((variable, path)) if path.starts_with('/') => format!("{variable}={root}{path}"),
            _ if word.starts_with('/') => format!("{root}{word}"),
            _ => word.to_owned(),
        };
        let line = line.replace("-o cassandra", "-o $(id -u)").replace("-g cassandra", "-g $(id -g)");
        let mut words: Vec<String> = line.split_whitespace().map(moved).collect();
        let program = words.iter().find(|word| !word.contains('=')).unwrap().clone();
        let Shown { place, line } = shown;
        assert!(PROGRAMS.contains(&program.as_str()), "{place}: nobody runs {line}, and NOT_RUN has no reason");
        let mut command = Command::new("sh");
        if program == "packaging/install.sh" {
            if words.last() == Some(&program) {
                words.push(format!("{root}/tmp/medusa"));
            }
            if words[0] == program {
                command.env("DESTDIR", &root);
            }
        }
        let script = words.join(" ");
        command.args(["-euc", &script]).current_dir(project());
        println!("{place}: {}", finish(command.output().unwrap(), "sh", &[&script]).expect_code(0));
    }
}

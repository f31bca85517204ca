//! `docs/runbook.md`, carried out: the whole cluster is backed up, damaged as each chapter has it, and brought back by the
//! chapter's own commands on real nodes. Every row is read from all replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lab::cluster::{Member, Ring};
use crate::lab::cql::Session;
use crate::lab::medusa::Medusa;
use crate::lab::node::Release;
use crate::support::{binary, left_by_restores};

/// The lines of the chapters that begin with `$`, as words.
fn chapters() -> BTreeMap<String, Vec<Vec<String>>> {
    let text = std::fs::read_to_string(crate::lab::project().join("docs/runbook.md")).unwrap();
    let mut chapters: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut title = String::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut title);
        } else if let Some(command) = line.strip_prefix("$ medusa ") {
            chapters.entry(title.clone()).or_default().push(shell_words::split(command).unwrap());
        }
    }
    chapters
}

/// What is read of the keyspace: all tables, the view, and an answer of the index.
fn contents(session: &Session) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let queries = [
        ("orders", "SELECT * FROM shop.orders"),
        ("orders by customer", "SELECT id FROM shop.orders WHERE customer = 'c3'"),
        ("orders by quantity", "SELECT * FROM shop.by_quantity"),
        ("visits", "SELECT * FROM shop.visits"),
        ("items", "SELECT * FROM shop.items"),
    ];
    queries.into_iter().map(|(name, query)| (name, session.rows(query))).collect()
}

fn create(session: &Session) {
    session.run(
        "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2}
         CREATE TABLE shop.orders (id int PRIMARY KEY, customer text, quantity int)
         CREATE INDEX orders_customer ON shop.orders (customer)
         CREATE MATERIALIZED VIEW shop.by_quantity AS SELECT id, quantity FROM shop.orders WHERE quantity IS NOT NULL AND id IS NOT NULL PRIMARY KEY (quantity, id)
         CREATE TABLE shop.visits (page text PRIMARY KEY, n counter)
         CREATE TABLE shop.items (id int PRIMARY KEY, name text)",
    );
    for id in 0..100 {
        let (customer, quantity) = (id % 7, id % 5);
        session.query(&format!(
            "INSERT INTO shop.orders (id, customer, quantity) VALUES ({id}, 'c{customer}', {quantity})"
        ));
        session.query(&format!("UPDATE shop.visits SET n = n + {id} WHERE page = 'p{quantity}'"));
        session.query(&format!("INSERT INTO shop.items (id, name) VALUES ({id}, 'item {id}')"));
    }
}

/// Rows that are changed, added and deleted after the backup.
fn change(session: &Session) {
    for id in 0..30 {
        session.query(&format!("DELETE FROM shop.orders WHERE id = {id}"));
        session.query(&format!("INSERT INTO shop.orders (id, customer, quantity) VALUES ({}, 'new', 9)", 1000 + id));
        session.query(&format!("UPDATE shop.orders SET customer = 'changed' WHERE id = {}", 30 + id));
    }
}

struct Lab {
    chapters: BTreeMap<String, Vec<Vec<String>>>,
    ring: Ring,
    /// What was there when the backup was made.
    then: BTreeMap<&'static str, Vec<Vec<String>>>,
}

impl Lab {
    fn session(&self) -> Session {
        self.ring.members[0].node.session()
    }

    #[track_caller]
    fn is_as_then(&self, session: &Session) {
        for (what, rows) in contents(session) {
            let then = &self.then[what];
            let lost: Vec<_> = then.iter().filter(|row| !rows.contains(row)).collect();
            let new: Vec<_> = rows.iter().filter(|row| !then.contains(row)).collect();
            assert!(lost.is_empty() && new.is_empty(), "{what}: {} of {} lost, {new:?} new", lost.len(), then.len());
        }
    }

    /// Carries out the commands of a chapter, with the addresses of these hosts in place of those of the text.
    fn follow(&mut self, title: &str, on: Option<usize>, others: &[&str]) {
        let commands = self.chapters.remove(title).unwrap_or_else(|| panic!("{title} is no chapter with commands"));
        let own: Vec<_> = self.ring.members.iter().map(|member| member.node.address.as_str()).collect();
        let medusa = on.map_or(&self.ring.medusa, |at| &self.ring.members[at].medusa);
        let texts = ["10.0.0.11", "10.0.0.12", "10.0.0.13"].into_iter().zip(own);
        let all: Vec<_> =
            texts.chain(["10.1.0.1", "10.1.0.2", "10.1.0.3"].into_iter().zip(others.iter().copied())).collect();
        for words in commands {
            let jobs = self.ring.temporary();
            let mut words: Vec<String> = words
                .iter()
                .map(|word| all.iter().find(|(text, _)| text == word).map_or(word.as_str(), |(_, address)| address))
                .map(str::to_owned)
                .collect();
            if words[0] == "restore-cluster" {
                words.extend(["--temp-dir".to_owned(), jobs]);
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            run(medusa, title, &words);
        }
    }
}

fn run(medusa: &Medusa, title: &str, words: &[&str]) {
    let run = medusa.ok(words);
    println!("{title}: {run}");
}

/// Keeps writing to a table until it is asked what it wrote. Writes that fail, because all nodes are down, do not count.
struct Writer {
    end: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<u32>>,
}

impl Writer {
    fn start(address: &str) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (ended, address) = (end.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let session = Session::connect(&address);
            let mut written = Vec::new();
            for id in 5000.. {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                if session.try_query(&format!("INSERT INTO shop.items (id, name) VALUES ({id}, 'later')")).is_ok() {
                    written.push(id);
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            written
        });
        Self { end, thread }
    }

    fn written(self) -> Vec<u32> {
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

#[test]
fn the_runbook_brings_everything_back() {
    let ring = Ring::start(binary(), Release::V5_0, 3);
    let session = ring.members[0].node.session();
    create(&session);
    let then = contents(&session);
    let jobs = ring.temporary();
    let backup = crate::doc_commands::backup_of_the_cluster();
    let backup: Vec<&str> = backup.iter().map(String::as_str).chain(["--temp-dir", &jobs]).collect();
    ring.medusa.ok(&backup);
    let mut lab = Lab { chapters: chapters(), ring, then };

    lab.follow("Before anything else", None, &[]);
    let status = lab.ring.medusa.ok(&["status", "--backup-name", "nightly-1"]);
    assert!(status.stdout.contains("3 nodes completed, 0 nodes incomplete, 0 nodes missing"), "{status}");

    // Rows of the table are back, and what was written to the other one meanwhile is there.
    change(&session);
    session.run("DROP MATERIALIZED VIEW shop.by_quantity\nDROP TABLE shop.orders");
    drop(session);
    let writer = Writer::start(&lab.ring.members[1].node.address);
    lab.follow("One table in the whole cluster", None, &[]);
    let written = writer.written();
    let session = lab.session();
    let now = contents(&session);
    for (what, rows) in lab.then.iter().filter(|(what, _)| **what != "items") {
        assert_eq!(&now[what], rows, "{what}");
    }
    assert!(!written.is_empty());
    for id in &written {
        assert_eq!(session.query(&format!("SELECT id FROM shop.items WHERE id = {id}")).len(), 1, "{id} is lost");
    }
    // Of writes that failed, those may be there, too, that one replica took before all were stopped.
    let (later, before): (Vec<_>, Vec<_>) = now["items"].iter().cloned().partition(|row| row[1].contains("later"));
    assert_eq!(before, lab.then["items"]);
    assert!(later.len() >= written.len());

    lab.follow("One table on one node", Some(1), &[]);
    lab.follow("A node", Some(2), &[]);
    drop(session);
    assert_eq!(contents(&lab.session())["orders"], lab.then["orders"]);

    change(&lab.session());
    lab.session().run("DROP TABLE shop.items\nCREATE TABLE shop.later (id int PRIMARY KEY)");
    lab.follow("The cluster, on the same hosts", None, &[]);
    lab.is_as_then(&lab.session());
    assert!(lab.session().try_query("SELECT * FROM shop.later").is_err(), "a newer table came back");

    // What tells that they are done stays, and nothing else.
    for Member { node, .. } in &lab.ring.members {
        let left: Vec<_> = left_by_restores(node).into_iter().collect();
        assert_eq!(left, [node.data_directories()[0].join(".medusa-restore-nightly-1")]);
        assert_eq!(std::fs::read_dir(&left[0]).unwrap().count(), 1);
    }
    assert_eq!(lab.ring.jobs(), [""; 0]);

    on_new_machines(&mut lab);
    assert!(lab.chapters.is_empty(), "nobody tried {:?}", lab.chapters.keys());
}

/// What the ring that a node belongs to would get: the method, and the pairs of target and sources.
fn planned(lab: &Lab, seed: &str) -> (String, Vec<(String, String)>) {
    let jobs = lab.ring.temporary();
    let words = ["restore-cluster", "--backup-name", "nightly-1", "--seed-target", seed, "--temp-dir", &jobs];
    let plan = lab.ring.medusa.ok(&[&words[..], &["--dry-run", "--output", "json"]].concat()).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let sources =
        |target: &serde_json::Value| target["sources"].as_array().unwrap().iter().map(text).collect::<Vec<_>>();
    let targets = plan["targets"].as_array().unwrap().iter();
    let pairs = targets.map(|target| (text(&target["target"]), sources(target).join(","))).collect();
    (text(&plan["method"]), pairs)
}

/// Into two rings of their own: one of two nodes that have other tokens, and one whose addresses have another order than
/// those of the backup have.
fn on_new_machines(lab: &mut Lab) {
    let others = lab.ring.start_others(2);
    let (method, pairs) = planned(lab, &others[0].node.address);
    assert_eq!((method.as_str(), pairs.len()), ("sstableloader", 2), "{pairs:?}");
    lab.follow("The cluster, on fewer or more machines", None, &[&others[0].node.address]);
    lab.is_as_then(&others[0].node.session());
    drop(others);

    let others = lab.ring.start_others(3);
    let addresses: Vec<&str> = others.iter().map(|member| member.node.address.as_str()).collect();
    let own: Vec<_> = lab.ring.members.iter().map(|member| member.node.address.clone()).collect();
    // Each rack has one node.
    let (method, pairs) = planned(lab, addresses[0]);
    let by_rack = addresses.iter().zip(&own).map(|(target, source)| ((*target).to_owned(), source.clone()));
    let ordered = |pairs: Vec<_>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!((method.as_str(), ordered(pairs)), ("remote", by_rack.collect()));
    let list = format!(
        "# is it a seed, target, source\nTrue,{},{}\nFalse,{},{}\n\nFalse,{},{}\n",
        addresses[0], own[1], addresses[1], own[0], addresses[2], own[2]
    );
    std::fs::write(lab.ring.medusa.folder.path().join("targets.csv"), list).unwrap();
    lab.follow("The cluster, on new machines", None, &addresses);
    lab.is_as_then(&others[0].node.session());
}

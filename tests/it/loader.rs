//! `restore-node --use-sstableloader`: a backup goes into another cluster that keeps running, with the schema that it needs, and
//! nothing else there changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lab::cql::Session;
use crate::lab::medusa::Medusa;
use crate::lab::node::{Node, Options, Release};
use crate::support::{Shared, assert_fails, binary, contents, edit, medusa, pid, program, wait_for};

/// No command line of any process may hold it.
const PASSWORD: &str = "mark-of-the-loader \"'\\$";

/// The node that is backed up, and the one into whose cluster it is loaded.
struct Pair {
    source: Node,
    target: Node,
    backups: Medusa,
}

fn pair(test: impl FnOnce(&Pair)) {
    static PAIR: Shared<Pair> = Shared::new();
    PAIR.with(Pair::start, test);
}

impl Pair {
    fn start() -> Self {
        let functions = "user_defined_functions_enabled: true\n".to_owned();
        let source = Node::start(Options { yaml: functions.clone(), ..Options::new(Release::V5_0) });
        let yaml = format!("{functions}authenticator: PasswordAuthenticator\n");
        let target = Node::start(Options { yaml, cluster_name: "other".into(), ..Options::new(Release::V5_0) });
        let quoted = PASSWORD.replace('\'', "''");
        Session::connect_as(&target.address, Some(("cassandra", "cassandra")))
            .query(&format!("ALTER ROLE cassandra WITH PASSWORD = '{quoted}'"));
        create(&source.session());
        let backups = medusa(&source);
        backups.ok(&["backup-node", "--backup-name", "b1"]);
        Self { source, target, backups }
    }

    /// A medusa on the target that has the backups of the source.
    fn loading(&self) -> Medusa {
        let mut medusa = medusa(&self.target);
        medusa.set("storage", "base_path", &self.backups.base_path().display().to_string());
        medusa.set("cassandra", "cql_username", "cassandra");
        medusa.set("cassandra", "cql_password", PASSWORD);
        medusa
    }

    fn session(&self) -> Session {
        Session::connect_as(&self.target.address, Some(("cassandra", PASSWORD)))
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let fixed = ["--fqdn", &self.source.address, "restore-node", "--use-sstableloader"];
        let named: &[&str] = if more.contains(&"--backup-name") { &[] } else { &["--backup-name", "b1"] };
        [&fixed[..], named, more].concat()
    }
}

fn create(session: &Session) {
    session.run(
        "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}
         CREATE TYPE shop.street (name text, no int)
         CREATE TYPE shop.\"Addr\" (at frozen<street>, city text)
         CREATE FUNCTION shop.plus(a int, b int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return a + b; $$
         CREATE AGGREGATE shop.total(int) SFUNC plus STYPE int INITCOND 0
         CREATE TABLE shop.orders (id int PRIMARY KEY, v text, a frozen<\"Addr\">, gone text)
         INSERT INTO shop.orders (id, v, gone) VALUES (1000, 'old', 'dropped')",
    );
    for id in 0..30 {
        session.query(&format!(
            "INSERT INTO shop.orders (id, v, a) VALUES ({id}, 'v{}', {{at: {{name: 'it''s; a', no: 1}}, city: 'c'}})",
            id % 3
        ));
    }
    session.run(
        "ALTER TABLE shop.orders DROP gone
         CREATE INDEX orders_v ON shop.orders (v)
         CREATE MATERIALIZED VIEW shop.by_v AS SELECT v, id FROM shop.orders WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY (v, id)
         CREATE TABLE shop.sai (id int PRIMARY KEY, v text)
         CREATE INDEX sai_v ON shop.sai (v) USING 'sai'
         INSERT INTO shop.sai (id, v) VALUES (1, 'one')
         CREATE TABLE shop.hits (page text PRIMARY KEY, n counter)
         UPDATE shop.hits SET n = n + 5 WHERE page = 'p'
         CREATE TABLE shop.empty (id int PRIMARY KEY)
         CREATE KEYSPACE \"Quoted\" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
         CREATE TABLE \"Quoted\".\"Mixed\" (\"Id\" int PRIMARY KEY, \"Val\" text)
         INSERT INTO \"Quoted\".\"Mixed\" (\"Id\", \"Val\") VALUES (1, 'm1')",
    );
}

const QUERIES: [&str; 4] = [
    "SELECT id FROM shop.orders WHERE v = 'v1'",
    "SELECT id FROM shop.by_v WHERE v = 'v1'",
    "SELECT id FROM shop.sai WHERE v = 'one'",
    "SELECT shop.total(id) FROM shop.orders",
];

fn drop_all(session: &Session) {
    for keyspace in ["shop", "\"Quoted\""] {
        session.query(&format!("DROP KEYSPACE IF EXISTS {keyspace}"));
    }
}

/// Waits until Cassandra has built the index or view from which it answers.
fn built(session: &Session, query: &str, rows: &[Vec<String>]) {
    let answer = || {
        let mut found = session.try_query(query).ok()?;
        found.sort();
        Some(found)
    };
    wait_for(query, || answer().is_some_and(|found| found == rows));
}

/// Looks for the password in the command lines of all processes until it is dropped.
struct Watch {
    end: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<BTreeSet<String>>>,
}

impl Watch {
    fn start() -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !ended.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
                    let line = String::from_utf8_lossy(&line).replace('\0', " ");
                    if line.contains("mark-of-the-loader") || line.contains("/arguments") {
                        seen.insert(line);
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            seen
        });
        Self { end, thread: Some(thread) }
    }

    /// Command lines of Java with its arguments in a file, and those that hold the password.
    fn end(mut self) -> (Vec<String>, Vec<String>) {
        self.end.store(true, Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        seen.into_iter().partition(|line| !line.contains("mark-of-the-loader"))
    }
}

#[test]
fn a_backup_is_loaded_into_another_cluster_with_all_it_needs() {
    pair(|pair| {
        let (medusa, session, running) = (pair.loading(), pair.session(), pid(&pair.target));
        drop_all(&session);
        let plan = medusa.ok(&pair.arguments(&["--dry-run", "--output", "json"])).json();
        let created: Vec<_> =
            plan["create"].as_array().unwrap().iter().map(|step| step["what"].as_str().unwrap()).collect();
        let place = |what: &str| {
            created.iter().position(|found| *found == what).unwrap_or_else(|| panic!("{what}: {created:?}"))
        };
        assert!(place("keyspace shop") < place("type shop.street"), "{created:?}");
        assert!(place("type shop.street") < place("type shop.Addr"), "{created:?}");
        assert!(place("function shop.plus(int,int)") < place("aggregate shop.total(int)"), "{created:?}");
        assert!(place("type shop.Addr") < place("table shop.orders"), "{created:?}");
        assert!(place("table shop.orders") < place("index orders_v of shop.orders"), "{created:?}");
        assert!(place("index orders_v of shop.orders") < place("view shop.by_v"), "{created:?}");
        assert_eq!(plan["drop"], serde_json::json!([]));
        assert!(session.try_query("SELECT * FROM shop.orders").is_err());

        let watch = Watch::start();
        let done = medusa.ok(&pair.arguments(&["--output", "json", "-v"])).json();
        let (with_file, with_password) = watch.end();
        assert!(with_file.iter().any(|line| line.contains("java @")), "{with_file:?}");
        assert_eq!(with_password, [""; 0]);
        assert_eq!(done["failed"], serde_json::json!([]));

        let old = pair.source.session();
        for keyspace in ["shop", "Quoted"] {
            assert_eq!(contents(&session, keyspace), contents(&old, keyspace));
        }
        assert_eq!(contents(&session, "shop")["shop.orders"].len(), 31);
        for query in QUERIES {
            built(&session, query, &old.rows(query));
        }
        assert_eq!(pid(&pair.target), running);
        // The roles of this cluster are newer than those of the backup.
        assert_eq!(pair.session().query("SELECT role FROM system_auth.roles").len(), 1);
        for data in pair.target.data_directories() {
            assert!(!data.join(".medusa-load-b1").exists());
        }

        // Cassandra takes no files into a table with such an index.
        assert_eq!(plan["create_after"][0]["what"], "index sai_v of shop.sai");
        assert_fails(
            &medusa.run(&pair.arguments(&["--table", "shop.sai"])),
            1,
            &["storage-attached index sai_v", "drop the index"],
        );

        // Once more: nothing to create, and rows stay.
        session.query("INSERT INTO shop.orders (id, v) VALUES (5000, 'new')");
        let again = medusa.ok(&pair.arguments(&["--table", "shop.orders", "--output", "json"])).json();
        assert_eq!(again["created"], serde_json::json!([]));
        assert_eq!(again["tables"].as_array().unwrap().len(), 1);
        assert_eq!(session.query("SELECT * FROM shop.orders").len(), 32);
        assert_eq!(session.query("SELECT * FROM shop.hits"), old.query("SELECT * FROM shop.hits"));
    });
}

#[test]
fn only_what_is_selected_is_loaded_and_looked_at() {
    pair(|pair| {
        let (medusa, session) = (pair.loading(), pair.session());
        drop_all(&session);
        session.run(
            "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
             CREATE TABLE shop.orders (id text PRIMARY KEY)
             INSERT INTO shop.orders (id) VALUES ('mine')",
        );
        medusa.ok(&pair.arguments(&["--table", "shop.sai", "--table", "shop.empty"]));
        built(&session, QUERIES[2], &pair.source.session().rows(QUERIES[2]));
        session.query("DROP INDEX shop.sai_v");
        assert_eq!(session.query("SELECT * FROM shop.sai").len(), 1);
        assert_eq!(session.query("SELECT * FROM shop.empty").len(), 0);
        assert_eq!(session.query("SELECT * FROM shop.orders").len(), 1);
        assert!(session.try_query("SELECT * FROM shop.hits").is_err());
        assert!(session.try_query("SELECT * FROM \"Quoted\".\"Mixed\"").is_err());
        assert_fails(&medusa.run(&pair.arguments(&["--keyspace", "system"])), 2, &["system belongs to the cluster"]);
        assert_fails(&medusa.run(&pair.arguments(&["--table", "shop.ordrs"])), 2, &["shop.orders"]);
        assert_fails(&medusa.run(&pair.arguments(&["--table", "shop.by_v"])), 2, &["view of shop.orders"]);

        // Another table of that name is refused in words, and nothing is changed before.
        let refused = medusa.run(&pair.arguments(&["--keyspace", "shop"]));
        assert_fails(&refused, 1, &["column id was int, and is text", "column v text", "--recreate-tables"]);
        assert!(session.try_query("SELECT * FROM shop.hits").is_err());
        assert_fails(
            &medusa.run(&pair.arguments(&["--table", "shop.hits", "--no-schema"])),
            1,
            &["table shop.hits does not exist"],
        );
        let plan = medusa.ok(&pair.arguments(&["--keyspace", "shop", "--recreate-tables", "--dry-run"])).stdout;
        assert!(plan.contains("drop            table shop.orders\n"), "{plan}");
        assert!(!plan.contains("table shop.sai\n"), "{plan}");
        medusa.ok(&pair.arguments(&["--keyspace", "shop", "--recreate-tables", "--schema-only"]));
        assert_eq!(session.query("SELECT * FROM shop.orders").len(), 0);
        medusa.ok(&pair.arguments(&["--table", "shop.orders", "--no-schema"]));
        assert_eq!(session.query("SELECT * FROM shop.orders").len(), 31);
    });
}

#[test]
fn a_table_that_fails_is_named_and_the_others_are_loaded() {
    pair(|pair| {
        let (mut medusa, session) = (pair.loading(), pair.session());
        drop_all(&session);
        let real = pair.target.program("sstableloader").display().to_string();
        let body = format!(
            "for last; do :; done\ncase $last in */shop/sai) echo 'Error: no luck' >&2; exit 1 ;; esac\nexec {real} \"$@\"\n"
        );
        let wrapper = program(&medusa, "sstableloader", &body);
        medusa.set("cassandra", "sstableloader_bin", &wrapper);
        // The script looks for its include file beside itself.
        std::fs::copy(pair.target.path("bin/cassandra.in.sh"), medusa.folder.path().join("cassandra.in.sh")).unwrap();
        let both = ["--table", "shop.sai", "--table", "shop.hits", "--output", "json"];
        let run = medusa.run(&pair.arguments(&both));
        assert_fails(&run, 3, &["shop.sai", "no luck", "medusa-load-b1"]);
        assert_eq!(run.json()["failed"][0]["table"], "shop.sai");
        assert_eq!(run.json()["tables"][0]["table"], "shop.hits");
        assert_eq!(session.query("SELECT * FROM shop.hits").len(), 1);
        assert_fails(&medusa.run(&pair.arguments(&["--table", "shop.sai"])), 1, &["no luck"]);
        medusa.set("cassandra", "sstableloader_bin", &real);
        let done = medusa.ok(&pair.arguments(&["--table", "shop.sai", "--output", "json"])).json();
        assert_eq!(done["downloaded_files"], 0);
        assert_eq!(session.query("SELECT * FROM shop.sai").len(), 1);
    });
}

/// Does it at the end, also if the test fails.
struct Defer<F: Fn()>(F);

impl<F: Fn()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_keyspace_goes_to_datacenters_that_there_are() {
    pair(|pair| {
        let (medusa, session) = (pair.loading(), pair.session());
        drop_all(&session);
        let meta = pair.backups.bucket().join(&pair.source.address).join("b1/meta");
        let schemas: Vec<_> = std::fs::read_dir(&meta).unwrap().map(|entry| entry.unwrap().path()).collect();
        let is_schema = |path: &&std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().contains("schema");
        let replace = |from: &str, to: &str| {
            for path in schemas.iter().filter(is_schema) {
                edit(path, |text| text.replace(&format!("'{from}': '1'"), &format!("'{to}': '1'")));
            }
        };
        replace("dc1", "europe");
        let _back = Defer(|| replace("europe", "dc1"));
        let one = ["--table", "shop.sai"];
        assert_fails(
            &medusa.run(&pair.arguments(&one)),
            1,
            &["datacenter europe, and this cluster has dc1", "--dc-map"],
        );
        medusa.ok(&pair.arguments(&[&one[..], &["--dc-map", "europe=dc1", "--schema-only"]].concat()));
        session.query("DROP KEYSPACE shop");
        medusa.ok(&pair.arguments(&[&one[..], &["--replication", "shop=dc1:1"]].concat()));
        assert_eq!(session.query("SELECT * FROM shop.sai").len(), 1);
    });
}

#[test]
fn backups_of_cassandra_medusa_and_of_several_nodes_are_loaded() {
    pair(|pair| {
        let (medusa, session, old) = (pair.loading(), pair.session(), pair.source.session());
        drop_all(&session);
        old.run(
            "CREATE KEYSPACE IF NOT EXISTS peer WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
             CREATE TABLE IF NOT EXISTS peer.t (id int PRIMARY KEY, v text)
             INSERT INTO peer.t (id, v) VALUES (1, 'by cassandra-medusa')",
        );
        pair.backups.peer_ok(&["backup-node", "--backup-name", "p1"]);
        old.query("INSERT INTO peer.t (id, v) VALUES (2, 'of the second')");
        pair.backups.peer_ok(&["--fqdn", "second", "backup-node", "--backup-name", "p1"]);
        let both = format!("{},second", pair.source.address);
        let load = ["restore-node", "--backup-name", "p1", "--use-sstableloader", "--keyspace", "peer"];
        let arguments = [&["--fqdn", &both][..], &load, &["--output", "json"]].concat();
        let done = medusa.ok(&arguments).json();
        assert_eq!(done["sources"], serde_json::json!([pair.source.address, "second"]));
        assert_eq!(contents(&session, "peer"), contents(&old, "peer"));
        let without = medusa.run(&["--fqdn", &both, "restore-node", "--backup-name", "p1"]);
        assert_fails(&without, 2, &["--use-sstableloader"]);
        session.query("DROP KEYSPACE peer");
    });
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    pair(|pair| {
        let mut medusa = pair.loading();
        medusa.set("cassandra", "cql_password", "mark-of-the-loader-wrong");
        let run = medusa.run(&pair.arguments(&["-vvv"]));
        assert_fails(&run, 1, &["refused the user name and password"]);
        assert!(!run.stderr.contains("mark-of-the-loader"), "{run}");
        assert!(
            Medusa::without_node(binary()).run(&["restore-node", "--backup-name", "b1", "--dc-map", "a=b"]).code == 2
        );
    });
}

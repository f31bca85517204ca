//! Restoring some keyspaces and tables: those come back whatever became of them since, and nothing else changes.

use std::collections::BTreeMap;

use crate::lab::cql::Session;
use crate::lab::node::{Node, Options, Release};
use crate::support::{
    self, Shared, State, assert_fails, contents, copy_bucket, left_by_restores, medusa, node, wait_for,
};

/// A node whose tables may be restored, by one test at a time.
pub fn shared(test: impl FnOnce(&Node)) {
    static NODE: Shared<Node> = Shared::new();
    NODE.with(|| node(Release::V5_0), test);
}

fn create_keyspace(session: &Session, keyspace: &str) {
    session.run(&format!(
        "CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    ));
}

/// Twenty rows from `first` on.
fn fill(session: &Session, table: &str, first: u32) {
    for id in first..first + 20 {
        session.query(&format!("INSERT INTO {table} (id, v) VALUES ({id}, 'v{}')", id % 3));
    }
}

/// Every index and view is asked, too.
fn answers(session: &Session) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut answers = contents(session, "part");
    for query in [
        "SELECT id FROM part.indexed WHERE v = 'v1'",
        "SELECT id FROM part.by_v WHERE v = 'v1'",
        "SELECT id FROM part.sai WHERE v = 'v1'",
        "SELECT \"Id\" FROM part.\"Mixed\" WHERE \"Val\" = 'm1'",
        "SELECT id FROM part.dropped WHERE v = 'v1'",
        "SELECT * FROM gone.t",
        "SELECT id FROM gone.t WHERE v = 'v1'",
        "SELECT id FROM gone.by_v WHERE v = 'v1'",
        "SELECT * FROM \"Quoted\".\"T\"",
    ] {
        answers.insert(query.to_owned(), session.rows(query));
    }
    answers
}

fn create(session: &Session) {
    for keyspace in ["part", "gone", "\"Quoted\"", "other"] {
        create_keyspace(session, keyspace);
    }
    session.run(
        "CREATE TABLE part.indexed (id int PRIMARY KEY, v text)
         CREATE INDEX indexed_v ON part.indexed (v)
         CREATE MATERIALIZED VIEW part.by_v AS SELECT v, id FROM part.indexed WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY (v, id)
         CREATE TABLE part.sai (id int PRIMARY KEY, v text)
         CREATE INDEX sai_v ON part.sai (v) USING 'sai'
         CREATE TABLE part.\"Mixed\" (\"Id\" int PRIMARY KEY, \"Val\" text)
         CREATE INDEX \"Mixed_Val\" ON part.\"Mixed\" (\"Val\")
         CREATE TYPE part.addr (street text, no int)
         CREATE TABLE part.dropped (id int PRIMARY KEY, v text, a frozen<addr>, gone int)
         ALTER TABLE part.dropped DROP gone
         CREATE INDEX dropped_v ON part.dropped (v)
         CREATE TABLE part.again (id int PRIMARY KEY, v text)
         CREATE TABLE part.truncated (id int PRIMARY KEY, v text)
         CREATE TABLE part.empty (id int PRIMARY KEY, v text)
         CREATE TYPE gone.addr (street text, no int)
         CREATE TABLE gone.t (id int PRIMARY KEY, v text, a list<frozen<addr>>)
         CREATE INDEX gone_v ON gone.t (v)
         CREATE MATERIALIZED VIEW gone.by_v AS SELECT v, id FROM gone.t WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY (v, id)
         CREATE TABLE \"Quoted\".\"T\" (id int PRIMARY KEY, v text)
         CREATE TABLE other.t (id int PRIMARY KEY, v text)
         CREATE INDEX other_v ON other.t (v)
         INSERT INTO part.\"Mixed\" (\"Id\", \"Val\") VALUES (1, 'm1')
         INSERT INTO part.dropped (id, a) VALUES (99, {street: 'it''s', no: 3})
         INSERT INTO gone.t (id, a) VALUES (99, [{street: 's', no: 3}])",
    );
    for table in ["part.indexed", "part.sai", "part.dropped", "part.again", "part.truncated", "gone.t", "other.t"] {
        fill(session, table, 0);
    }
    fill(session, "\"Quoted\".\"T\"", 0);
}

/// What may happen to tables between a backup and the day when it is needed.
fn damage(session: &Session) {
    session.run(
        "DELETE FROM part.indexed WHERE id = 1
         DELETE FROM part.sai WHERE id = 1
         DELETE FROM part.\"Mixed\" WHERE \"Id\" = 1
         INSERT INTO part.\"Mixed\" (\"Id\", \"Val\") VALUES (2, 'm1')
         DROP TABLE part.dropped
         DROP TYPE part.addr
         DROP TABLE part.again
         CREATE TABLE part.again (id int PRIMARY KEY, v text, more int)
         TRUNCATE part.truncated
         DROP KEYSPACE gone
         DELETE FROM \"Quoted\".\"T\" WHERE id = 1",
    );
    for table in ["part.indexed", "part.sai", "part.again", "part.truncated", "part.empty", "other.t"] {
        fill(session, table, 1000);
    }
    create_keyspace(session, "later");
    session.run("CREATE TABLE later.t (id int PRIMARY KEY, v text)");
    fill(session, "later.t", 0);
}

#[test]
fn chosen_tables_come_back_and_nothing_else_changes() {
    shared(|node| {
        let medusa = medusa(node);
        let session = node.session();
        create(&session);
        let before = answers(&session);
        medusa.ok(&["backup-node", "--backup-name", "b1"]);
        damage(&session);
        let others = |session: &Session| [contents(session, "other"), contents(session, "later")];
        let (newer, untouched, snapshots) = (contents(&session, "part"), others(&session), node.snapshots());

        let tables =
            ["indexed", "sai", "\"Mixed\"", "dropped", "again", "truncated"].map(|table| format!("part.{table}"));
        let tables = tables.iter().flat_map(|table| ["--table", table]);
        let filters: Vec<_> = tables.chain(["--keyspace", "gone", "--keyspace", "\"Quoted\""]).collect();
        let arguments = [&["restore-node", "--backup-name", "b1"], &filters[..]].concat();
        let plan = medusa.ok(&[&arguments[..], &["--dry-run", "--output", "json"]].concat()).json();
        let chosen: Vec<_> =
            plan["tables"].as_array().unwrap().iter().map(|table| table["source"].to_string()).collect();
        // Six tables, a view, a table and a view of `gone`, one of `Quoted`.
        assert_eq!(chosen.len(), 10, "{chosen:?}");
        let run = medusa.ok(&arguments);
        assert!(run.stdout.contains("10 tables"), "{run}");

        let session = node.session();
        let mut expected = before;
        // Not chosen: still has the rows that were written since.
        expected.insert("part.empty".into(), newer["part.empty"].clone());
        let mut now = answers(&session);
        // The column that the table did not have then.
        for row in now.get_mut("part.again").unwrap() {
            assert_eq!(row.remove(1), "null");
        }
        assert_eq!(now, expected, "{run}");
        assert_eq!(others(&session), untouched, "{run}");
        assert_eq!(session.rows("SELECT id FROM other.t WHERE v = 'v1'").len(), 14);
        assert_eq!((node.snapshots(), left_by_restores(node)), (snapshots, [].into()), "{run}");
        // What was created again is as good as before.
        session.run(
            "INSERT INTO gone.t (id, v) VALUES (500, 'new')\nINSERT INTO part.dropped (id, v) VALUES (500, 'new')",
        );
        for query in ["SELECT id FROM gone.by_v WHERE v = 'new'", "SELECT id FROM part.dropped WHERE v = 'new'"] {
            assert_eq!(session.rows(query), [["Int(500)"]], "{query}");
        }

        // An empty table is restored, too; and with the system keyspaces goes what was created since.
        let run = medusa.ok(&["restore-node", "--backup-name", "b1", "--table", "part.empty", "--with-system"]);
        let session = node.session();
        assert_eq!(contents(&session, "part")["part.empty"], Vec::<Vec<String>>::new(), "{run}");
        assert_eq!(contents(&session, "other"), untouched[0], "{run}");
        assert_eq!(contents(&session, "later"), BTreeMap::new(), "{run}");
        assert!(session.try_query("SELECT * FROM later.t").is_err(), "{run}");
        drop_all(&session, &["part", "gone", "\"Quoted\"", "other"]);
    });
}

fn drop_all(session: &Session, keyspaces: &[&str]) {
    for keyspace in keyspaces {
        session.run(&format!("DROP KEYSPACE {keyspace}"));
    }
}

#[test]
fn tables_that_do_not_fit_their_old_files_are_refused_with_the_reasons() {
    shared(|node| {
        let medusa = medusa(node);
        let session = node.session();
        create_keyspace(&session, "fit");
        session.run(
            "CREATE TYPE fit.addr (street text, no int)
             CREATE TABLE fit.type (id int PRIMARY KEY, v text)
             CREATE TABLE fit.key (id int, c int, v text, PRIMARY KEY (id, c))
             CREATE TABLE fit.clustering (id int, c int, v text, PRIMARY KEY (id, c))
             CREATE TABLE fit.column (id int PRIMARY KEY, v text, w text)
             CREATE TABLE fit.udt (id int PRIMARY KEY, v frozen<addr>)
             CREATE TABLE fit.same (id int PRIMARY KEY, v text)
             CREATE MATERIALIZED VIEW fit.mv AS SELECT * FROM fit.same WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY (v, id)
             INSERT INTO fit.type (id, v) VALUES (1, 'x')
             INSERT INTO fit.same (id, v) VALUES (1, 'x')",
        );
        medusa.ok(&["backup-node", "--backup-name", "b1"]);
        session.run(
            "DROP TABLE fit.type
             DROP TABLE fit.key
             DROP TABLE fit.clustering
             DROP TABLE fit.column
             DROP TABLE fit.udt
             DROP TYPE fit.addr
             DROP MATERIALIZED VIEW fit.mv
             CREATE TYPE fit.addr (street text, no text)
             CREATE TABLE fit.type (id int PRIMARY KEY, v int)
             CREATE TABLE fit.key (id int, c int, v text, PRIMARY KEY ((id, c)))
             CREATE TABLE fit.clustering (id int, c int, v text, PRIMARY KEY (id, c)) WITH CLUSTERING ORDER BY (c DESC)
             CREATE TABLE fit.column (id int PRIMARY KEY, v text)
             CREATE TABLE fit.udt (id int PRIMARY KEY, v frozen<addr>)
             CREATE MATERIALIZED VIEW fit.mv AS SELECT * FROM fit.same WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY (id, v)
             INSERT INTO fit.type (id, v) VALUES (2, 2)
             INSERT INTO fit.same (id, v) VALUES (2, 'y')",
        );
        let reasons = [
            "fit.type: column v was text, and is int",
            "fit.key: the primary key was ((id), c), and is ((id, c))",
            "fit.clustering: the clustering order is another one",
            "fit.column: column w text is not there any more",
            "fit.udt: type addr has changed",
            "fit.mv: the view is defined differently now",
        ];
        let message = "the schema has changed since, and the old files do not fit it";
        let refused = |filter: &[&str], reasons: &[&str]| {
            let before = State::of(node, &session, &["fit"]);
            let run = medusa.run(&[&["restore-node", "--backup-name", "b1"], filter].concat());
            assert_fails(&run, 1, &[message, "hint: make the schema fit"]);
            assert_fails(&run, 1, reasons);
            assert_eq!(State::of(node, &session, &["fit"]), before, "{run}");
            assert_eq!(left_by_restores(node), [].into(), "{run}");
            run
        };
        refused(&["--keyspace", "fit"], &reasons);
        refused(&["--keyspace", "fit", "--dry-run"], &reasons);
        // A view holds rows of its table: not alone.
        refused(&["--table", "fit.mv"], &["fit.mv: it is a view of same, which must be restored with it"]);
        // One table that does not fit keeps the others from being restored, and is the only one that is told.
        let run = refused(&["--table", "fit.type", "--table", "fit.same"], &[reasons[0], reasons[5]]);
        assert!(!run.stderr.contains("fit.key"), "{run}");
        drop_all(&session, &["fit"]);
    });
}

/// An index or view that the backup does not know must not answer from what was before.
#[test]
fn indexes_and_views_that_were_created_since_answer_with_the_restored_rows() {
    shared(|node| {
        let medusa = medusa(node);
        let session = node.session();
        create_keyspace(&session, "since");
        session.run(
            "CREATE TABLE since.t (id int PRIMARY KEY, v text)
             CREATE TABLE since.viewed (id int PRIMARY KEY, v text)",
        );
        fill(&session, "since.t", 0);
        fill(&session, "since.viewed", 0);
        let rows = contents(&session, "since");
        medusa.ok(&["backup-node", "--backup-name", "b1"]);
        session.run(
            "CREATE INDEX since_v ON since.t (v)
             CREATE INDEX since_sai ON since.viewed (v) USING 'sai'
             DELETE FROM since.t WHERE id = 1
             DELETE FROM since.viewed WHERE id = 1",
        );
        let run = medusa.ok(&["restore-node", "--backup-name", "b1", "--keyspace", "since"]);
        let session = node.session();
        assert_eq!(contents(&session, "since"), rows, "{run}");
        for table in ["t", "viewed"] {
            let query = format!("SELECT id FROM since.{table} WHERE v = 'v1'");
            // Cassandra refuses while it builds.
            wait_for("the end of the build", || session.try_query(&query).is_ok());
            let found = session.rows(&query);
            assert_eq!(found.len(), 7, "{table}: {found:?} {run}");
        }

        session.run("CREATE MATERIALIZED VIEW since.by_v AS SELECT v, id FROM since.viewed WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY (v, id)");
        let before = State::of(node, &session, &["since"]);
        let run = medusa.run(&["restore-node", "--backup-name", "b1", "--table", "since.viewed"]);
        assert_fails(&run, 1, &["since.viewed: the view since.by_v was created since", "hint: make the schema fit"]);
        assert_eq!(State::of(node, &session, &["since"]), before, "{run}");
        drop_all(&session, &["since"]);
    });
}

/// Single tables need the schema of the running node.
#[test]
fn single_tables_need_a_running_cassandra() {
    shared(|node| {
        let medusa = medusa(node);
        let session = node.session();
        create_keyspace(&session, "down");
        session.run("CREATE TABLE down.t (id int PRIMARY KEY)");
        medusa.ok(&["backup-node", "--backup-name", "b1"]);
        drop_all(&session, &["down"]);
        let down = Node::prepare(Options::new(Release::V5_0));
        let mut of_down = support::medusa(&down);
        copy_bucket(&medusa, &of_down);
        of_down.set("storage", "fqdn", &node.address);
        let run = of_down.run(&["restore-node", "--backup-name", "b1", "--keyspace", "down"]);
        assert_fails(&run, 1, &["Cassandra is not running", "hint: start Cassandra first"]);
        assert_eq!(std::fs::read_dir(down.path("data")).unwrap().count(), 0);
    });
}

//! Backup and restore of a real Cassandra.

use crate::lab::node::Release;
use crate::support::{self, medusa, node};

#[test]
fn smoke() {
    let node = node(Release::V5_0);
    let session = node.session();
    session.run(
        "CREATE KEYSPACE smoke WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
         CREATE TABLE smoke.t (id int PRIMARY KEY, v text)
         CREATE INDEX t_v ON smoke.t (v)
         CREATE TABLE smoke.u (id int PRIMARY KEY, v text)
         INSERT INTO smoke.t (id, v) VALUES (1, 'a')
         INSERT INTO smoke.u (id, v) VALUES (1, 'a')",
    );
    let medusa = medusa(&node);
    println!("{}", medusa.ok(&["backup-node", "--backup-name", "b1"]));
    println!("{}", medusa.ok(&["restore-node", "--backup-name", "b1", "--dry-run"]));
    session.run("INSERT INTO smoke.t (id, v) VALUES (2, 'b')");
    println!("{}", medusa.ok(&["restore-node", "--backup-name", "b1"]));
    let session = node.session();
    assert_eq!(session.rows("SELECT * FROM smoke.t").len(), 1);
    session.run("INSERT INTO smoke.t (id, v) VALUES (2, 'b')");
    session.run("INSERT INTO smoke.u (id, v) VALUES (2, 'b')");
    println!("{}", medusa.ok(&["restore-node", "--backup-name", "b1", "--table", "smoke.t", "--dry-run"]));
    println!("{}", medusa.ok(&["restore-node", "--backup-name", "b1", "--table", "smoke.t"]));
    let session = node.session();
    assert_eq!(session.rows("SELECT * FROM smoke.t").len(), 1);
    assert_eq!(session.rows("SELECT * FROM smoke.u").len(), 2);
    session.run("DROP TABLE smoke.t");
    println!("{}", medusa.ok(&["restore-node", "--backup-name", "b1", "--table", "smoke.t"]));
    let session = node.session();
    assert_eq!(session.rows("SELECT * FROM smoke.t WHERE v = 'a'").len(), 1);
    session.run("DROP TABLE smoke.t\nCREATE TABLE smoke.t (id int PRIMARY KEY, v text, w text)\nCREATE INDEX t_v ON smoke.t (v)");
    println!("{}", medusa.ok(&["restore-node", "--backup-name", "b1", "--table", "smoke.t"]));
    let session = node.session();
    assert_eq!(session.rows("SELECT * FROM smoke.t WHERE v = 'a'").len(), 1);
    node.kill();
    node.wipe();
    println!("{}", medusa.ok(&["restore-node", "--backup-name", "b1"]));
    let session = node.session();
    assert_eq!(session.rows("SELECT * FROM smoke.t WHERE v = 'a'").len(), 1);
    let _ = support::shared_node;
}

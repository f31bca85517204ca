//! Backups of a real Cassandra.

use crate::support::{medusa, shared_node};

#[test]
fn smoke() {
    let node = shared_node();
    let session = node.session();
    session.run(
        "CREATE KEYSPACE smoke WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
         CREATE TABLE smoke.t (id int PRIMARY KEY, v text)
         INSERT INTO smoke.t (id, v) VALUES (1, 'a')",
    );
    let medusa = medusa(node);
    println!("{}", medusa.ok(&["backup-node", "--backup-name", "b1"]));
    println!("{}", medusa.ok(&["backup-node", "--backup-name", "b2", "--dry-run"]));
    println!("{}", medusa.ok(&["backup-node", "--backup-name", "b2"]));
    println!("{}", medusa.ok(&["list-backups"]));
    println!("{}", medusa.ok(&["status", "--backup-name", "b1"]));
    println!("{}", medusa.ok(&["verify", "--backup-name", "b1", "--enable-md5-checks"]));
    println!("{}", medusa.peer_ok(&["list-backups"]));
    println!("{}", medusa.peer_ok(&["status", "--backup-name", "b1"]));
    println!("{}", medusa.peer_ok(&["verify", "--backup-name", "b1", "--enable-md5-checks"]));
}

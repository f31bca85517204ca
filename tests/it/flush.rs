//! What Cassandra has acknowledged before a backup is in it, also what it is just writing out.

use crate::lab::node::{Node, Options, Release};
use crate::support::{keyspace, load, manifest, manifest_objects, medusa, wrap_nodetool};

/// Cassandra's snapshot flushes the newest memtable only: while an older one is being written out, its rows are in neither.
#[test]
fn p1_rows_that_are_being_flushed_are_in_the_backup() {
    let node = &Node::start(Options::new(Release::V5_0));
    let mut medusa = medusa(node);
    let keyspace = keyspace("flushed");
    let session = node.session();
    load(&session, &keyspace, 1);
    // Enough to take Cassandra a while.
    session.run(&format!("CREATE TABLE {keyspace}.big (p int, c int, v text, PRIMARY KEY (p, c))"));
    for p in 0..600 {
        let row = |c| format!("INSERT INTO {keyspace}.big (p, c, v) VALUES ({p}, {c}, 'value {c} of {p}');");
        let rows: String = (0..100).map(row).collect();
        session.query(&format!("BEGIN UNLOGGED BATCH {rows} APPLY BATCH"));
    }
    let flush = format!("$REAL flush {keyspace} & sleep 0.05");
    wrap_nodetool(&mut medusa, node, &format!("case \"$*\" in *' snapshot '*) {flush} ;; esac\nexec $REAL \"$@\"\n"));
    medusa.ok(&["backup-node", "--backup-name", "flushed"]);
    let objects = manifest_objects(&manifest(&medusa, &node.address, "flushed"));
    let is_data = |path: &String| path.contains(&format!("/{keyspace}/big-")) && path.ends_with("-Data.db");
    assert!(objects.keys().any(is_data), "the rows are not in the backup: {:?}", objects.keys());
}

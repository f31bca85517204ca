//! cassandra-medusa 0.31.0 and this program on one node, in one bucket of each object store: each lists, verifies with MD5 and
//! restores what the other wrote. The node is wiped in between.

use crate::interop::{NAMES, back_up_by_turns, same_listings, same_verification};
use crate::lab::node::Release;
use crate::lab::stores::ObjectServer;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::support::{answers, medusa, node};

#[test]
fn p1_minio() {
    both_tools(Minio::shared());
}

#[test]
fn p1_google_cloud_storage() {
    both_tools(FakeGcs::shared());
}

#[test]
fn p1_azure() {
    both_tools(Azurite::shared());
}

fn both_tools(server: &impl ObjectServer) {
    let node = node(Release::V5_0);
    let mut medusa = medusa(&node);
    medusa.use_store(&server.settings(&server.new_bucket("both")));
    for (name, value) in server.environment() {
        medusa.env(name, &value);
    }
    let states = back_up_by_turns(&node, &medusa);
    same_listings(&medusa, &["theirs-diff-2"]);
    for name in NAMES {
        same_verification(&medusa, name, &["--enable-md5-checks"]);
        medusa.ok(&["verify", "--backup-name", name, "--read-data"]);
    }
    let state = |name: &str| &states[NAMES.iter().position(|other| *other == name).unwrap()];
    node.stop();
    node.wipe();
    for name in ["theirs-diff-2", "ours-full"] {
        medusa.ok(&["restore-node", "--backup-name", name]);
        assert_eq!(&answers(&node.session(), "shop"), state(name), "we restore {name}");
    }
    medusa.peer_ok(&["restore-node", "--backup-name", "ours-diff-2"]);
    node.wait_until_up();
    assert_eq!(&answers(&node.session(), "shop"), state("ours-diff-2"), "Medusa restores ours-diff-2");
}

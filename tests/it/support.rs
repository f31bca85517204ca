//! What the tests share.

use std::path::Path;
use std::sync::OnceLock;

use crate::lab::medusa::Medusa;
use crate::lab::node::{Node, Options, Release};

/// The program under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_medusa"))
}

/// A node that tests share which only back it up. Each uses keyspaces of its own. The watchdog ends it with the program.
pub fn shared_node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| Node::start(Options::new(Release::V5_0)))
}

/// A node of its own.
pub fn node(release: Release) -> Node {
    Node::start(Options::new(release))
}

pub fn medusa(node: &Node) -> Medusa {
    Medusa::new(binary(), node)
}

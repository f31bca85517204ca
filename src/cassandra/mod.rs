//! What a node knows and does: cassandra.yaml, CQL, nodetool, snapshots, start and stop. Nothing about storage.

pub mod cql;
pub mod facts;
pub mod installed;
pub mod loader;
pub mod naming;
pub mod nodetool;
pub mod service;
pub mod snapshot;
pub mod tls;
pub mod yaml;

//! Backup and restore of Apache Cassandra.
//!
//! One binary runs on every node under a common backup name and writes a manifest and the SSTables that shared storage does
//! not hold yet. Calls go one way:
//!
//! ```text
//! argv -> cli -> commands -> init -> doctor -> storage_check
//!                   |    `-> index | cluster | purge | verify | backup | restore | listing      (screen: what people see)
//!                   |               |                |              |
//!                config          model (pure)     cassandra       storage -> object_store
//!                                                     |             |
//!                                                    exec         layout (the only code that knows keys)
//! ```
//!
//! Every operation gathers facts, decides on a plan that is plain data, and then acts.

pub mod backup;
pub mod cassandra;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod context;
pub mod doctor;
pub mod error;
pub mod exec;
pub mod explain;
pub mod files;
pub mod hooks;
pub mod index;
pub mod init;
pub mod interrupt;
pub mod listing;
pub mod model;
pub mod monitor;
pub mod monitoring;
pub mod purge;
pub mod restore;
pub mod screen;
pub mod storage;
pub mod storage_check;
pub mod verify;

//! Plain data that everything else talks about: no I/O, no async.

pub mod backups;
pub mod cql;
pub mod digest;
pub mod manifest;
pub mod names;
pub mod pyjson;
pub mod sstable;
pub mod summary;
pub mod tokenmap;
pub mod totals;
pub mod units;

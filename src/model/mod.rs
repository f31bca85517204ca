//! Plain data that everything else talks about: no I/O, no async.

pub mod backups;
pub mod cql;
pub mod digest;
pub mod look;
pub mod manifest;
pub mod names;
pub mod nearest;
pub mod pyjson;
pub mod sstable;
pub mod summary;
pub mod table;
pub mod tokenmap;
pub mod totals;
pub mod units;

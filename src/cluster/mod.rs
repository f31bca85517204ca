//! What is done on many nodes at once: `backup-cluster` and `restore-cluster`.
//!
//! The coordinator runs nothing but `medusa …` on the hosts, as jobs that outlive its connection. What it does itself is to
//! decide who does what when, and to tell how it went.

pub mod backup;
pub mod hosts;
pub mod remote;
pub mod restore;

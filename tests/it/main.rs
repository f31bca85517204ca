//! All integration tests, as one program: a file per behaviour.

#![allow(unreachable_pub, reason = "nothing uses this crate")]

#[path = "../lab/mod.rs"]
mod lab;
mod support;

mod backup_real;

//! All integration tests, as one program: a file per behaviour.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "these are tests")]

#[path = "../lab/mod.rs"]
mod lab;
mod support;

mod backup_real;

//! All integration tests, as one program: a file per behaviour. Tests of a promise (`docs/architecture.md`) carry its number
//! in their names.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "these are tests"
)]

#[path = "../lab/mod.rs"]
mod lab;
mod support;

mod backup_faults;
mod command_line;
mod connection;
mod delete;
mod interop;
mod kill;
mod memory;
mod partial_restore;
mod people;
mod purge;
mod remote_restore;
mod restore_faults;
mod round_trip;
mod secrets;
mod sudo;

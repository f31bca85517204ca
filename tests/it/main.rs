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
mod made;
#[path = "../docs/pages.rs"]
mod pages;
mod support;

mod alternating;
mod backup_faults;
mod bad_manifests;
mod beside;
mod cluster;
mod cluster_backup;
mod cluster_restore;
mod cluster_restore_faults;
mod command_line;
mod connection;
mod corruption;
mod crash_walk;
mod dedup;
mod delete;
mod doc_commands;
mod doc_runbook;
mod docs;
mod doctor;
mod fixtures;
mod fleet;
mod flush;
mod hooks;
mod house;
mod init;
mod interop;
mod kill;
mod leases;
mod listing_input;
mod loader;
mod memory;
mod monitoring;
mod packages;
mod packaging;
mod partial_restore;
mod people;
mod purge;
mod remote_restore;
mod repository;
mod restore_faults;
mod restore_phases;
mod round_trip;
mod schemas;
mod secrets;
mod simulation;
mod ssh;
mod stopper;
mod storage_check;
mod storage_faults;
mod stores;
mod stores_backup;
mod stores_conformance;
mod stores_credentials;
mod stores_faults;
mod stores_integrity;
mod stores_interop;
mod stores_keys;
mod stores_overload;
mod stores_secrets;
mod stores_versions;
mod sudo;
mod summaries;
mod tracer;
mod verify;

//! Deleting backups.

pub mod delete;

//! The summary: what list, status and report want to know of a node backup, without its manifest.
//!
//! A cache. It speaks of the backup that finished at `finished`; another finishing time means that the name was used again,
//! and the summary is ignored.

use serde::{Deserialize, Serialize};

use super::backups::BackupMode;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Of this format.
    pub version: u32,
    pub mode: BackupMode,
    /// Unix seconds by the storage server's clock.
    pub started: i64,
    pub finished: i64,
    /// Files and bytes that the manifest names.
    pub num_objects: u64,
    pub size: u64,
    /// Files and bytes that this backup moved; the others were there.
    pub uploaded_objects: u64,
    pub uploaded_size: u64,
    pub server_type: String,
    pub release_version: String,
    /// The version of medusa that wrote the backup.
    pub written_by: String,
}

impl Summary {
    pub const VERSION: u32 = 1;

    /// `None` for what is no summary of a version that we know.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|summary| summary.version == Self::VERSION)
    }
}

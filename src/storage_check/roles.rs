//! Who works with a bucket, and what each needs there. As in `docs/storage`: "Who needs what".

use super::spots::{DELETE_DATA, DELETE_INDEX, DELETE_META, WRITE_BACKUPS};
use super::{CREATE, DELETE, DOWNLOAD, LEASE, LIST, PARTS, RANGE, READ, WRITE, What};

/// A set of commands that share their permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Looks, verifies, downloads and restores
    Reader,
    /// Backs up
    Node,
    /// Purges and deletes
    Janitor,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Reader, Self::Node, Self::Janitor];

    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Node => "node",
            Self::Janitor => "janitor",
        }
    }

    pub fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Reader => &["list-backups", "status", "verify", "download", "restore-node"],
            Self::Node => &["backup-node", "leases"],
            Self::Janitor => &["purge", "purge-decommissioned", "delete-backup", "build-index"],
        }
    }

    pub fn needs_probe(self, what: &What) -> bool {
        self.needs().iter().any(|needed| needed.name == what.name)
    }

    /// What must not be missing. Listings that are behind cost requests only.
    fn needs(self) -> Vec<&'static What> {
        let mut needs: Vec<&What> = vec![&LIST, &READ];
        if self != Self::Reader {
            needs.extend([&WRITE, &CREATE, &LEASE, &DELETE, &DELETE_META]);
        }
        match self {
            Self::Reader => needs.extend([&RANGE, &DOWNLOAD]),
            Self::Node => needs.extend([&RANGE, &DOWNLOAD, &PARTS, &WRITE_BACKUPS]),
            Self::Janitor => needs.extend([&DELETE_DATA, &DELETE_INDEX]),
        }
        needs
    }
}

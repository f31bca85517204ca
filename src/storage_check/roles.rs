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
            Self::Reader => &[
                "list-backups",
                "status",
                "report-last-backup",
                "fetch-tokenmap",
                "get-last-complete-cluster-backup",
                "verify",
                "download",
                "restore-node",
                "restore-cluster",
            ],
            Self::Node => &["backup-node", "backup-cluster", "leases", "storage-check", "doctor"],
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    /// `init` looks into the bucket, and does without.
    const NEED_NO_BUCKET: [&str; 4] = ["init", "config", "completions", "man-pages"];

    #[test]
    fn every_command_has_a_role_and_stands_with_it_in_the_documentation() {
        let page = include_str!("../../docs/storage/README.md");
        let row = |role: Role| page.lines().find(|line| line.starts_with(&format!("| {} | ", role.name()))).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let roles: Vec<_> = Role::ALL.into_iter().filter(|role| role.commands().contains(&name)).collect();
            assert_eq!(roles.len(), usize::from(!NEED_NO_BUCKET.contains(&name)), "{name}: {roles:?}");
            assert!(roles.iter().all(|role| row(*role).contains(&format!("`{name}`"))), "{name} is not documented");
        }
        let is_unknown = |name: &&&str| Cli::command().find_subcommand(name).is_none();
        let unknown: Vec<_> = Role::ALL.iter().flat_map(|role| role.commands()).filter(is_unknown).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

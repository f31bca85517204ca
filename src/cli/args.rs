//! The command line: cassandra-medusa's commands and options, and ours.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    backup_node, build_index, completions, config, delete_backup, download, fetch_tokenmap, get_last_complete, leases,
    list_backups, purge, purge_decommissioned, report_last_backup, restore_node, status, storage_check, verify,
};
use crate::config::Overrides;

/// Backup and restore of Apache Cassandra
#[derive(Debug, Parser)]
#[command(name = "medusa", version, disable_version_flag = true, arg_required_else_help = true)]
pub struct Cli {
    /// Prints the version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that may stand before or after the command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// More messages; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbosity: u8,
    /// No time in front of messages
    #[arg(long, global = true)]
    pub without_log_timestamp: bool,
    /// The configuration [default: /etc/medusa/medusa.ini]
    #[arg(long, global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Overrides `bucket_name`
    #[arg(long, global = true, value_name = "NAME")]
    pub bucket_name: Option<String>,
    /// Overrides `key_file` of `[storage]`
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<String>,
    /// Overrides `prefix`
    #[arg(long, global = true, value_name = "NAME")]
    pub prefix: Option<String>,
    /// Acts as another host
    #[arg(long, global = true, value_name = "NAME")]
    pub fqdn: Option<String>,
    /// Overrides `backup_grace_period_in_days`
    #[arg(long, global = true, value_name = "DAYS")]
    pub backup_grace_period_in_days: Option<String>,
    /// Overrides `username` of `[ssh]`
    #[arg(long, global = true, value_name = "USER")]
    pub ssh_username: Option<String>,
    /// Overrides `key_file` of `[ssh]`
    #[arg(long, global = true, value_name = "FILE")]
    pub ssh_key_file: Option<String>,
    /// What stdout gets
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

/// What stdout gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    /// For people, as cassandra-medusa prints it
    Text,
    /// One JSON document
    Json,
}

impl GlobalArgs {
    pub fn overrides(&self) -> Overrides {
        Overrides {
            bucket_name: self.bucket_name.clone(),
            key_file: self.key_file.clone(),
            prefix: self.prefix.clone(),
            fqdn: self.fqdn.clone(),
            backup_grace_period_in_days: self.backup_grace_period_in_days.clone(),
            ssh_username: self.ssh_username.clone(),
            ssh_key_file: self.ssh_key_file.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(visible_alias = "backup")]
    BackupNode(backup_node::BackupNodeArgs),
    RestoreNode(restore_node::RestoreNodeArgs),
    ListBackups(list_backups::ListBackupsArgs),
    Status(status::StatusArgs),
    Verify(verify::VerifyArgs),
    Download(download::DownloadArgs),
    FetchTokenmap(fetch_tokenmap::FetchTokenmapArgs),
    DeleteBackup(delete_backup::DeleteBackupArgs),
    Purge(purge::PurgeArgs),
    PurgeDecommissioned(purge_decommissioned::PurgeDecommissionedArgs),
    BuildIndex(build_index::BuildIndexArgs),
    GetLastCompleteClusterBackup(get_last_complete::GetLastCompleteArgs),
    ReportLastBackup(report_last_backup::ReportLastBackupArgs),
    Leases(leases::LeasesArgs),
    StorageCheck(storage_check::StorageCheckArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    ManPages(completions::ManPagesArgs),
}

impl Command {
    /// As on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BackupNode(_) => "backup-node",
            Self::RestoreNode(_) => "restore-node",
            Self::ListBackups(_) => "list-backups",
            Self::Status(_) => "status",
            Self::Verify(_) => "verify",
            Self::Download(_) => "download",
            Self::FetchTokenmap(_) => "fetch-tokenmap",
            Self::DeleteBackup(_) => "delete-backup",
            Self::Purge(_) => "purge",
            Self::PurgeDecommissioned(_) => "purge-decommissioned",
            Self::BuildIndex(_) => "build-index",
            Self::GetLastCompleteClusterBackup(_) => "get-last-complete-cluster-backup",
            Self::ReportLastBackup(_) => "report-last-backup",
            Self::Leases(_) => "leases",
            Self::StorageCheck(_) => "storage-check",
            Self::Config(_) => "config",
            Self::Completions(_) => "completions",
            Self::ManPages(_) => "man-pages",
        }
    }

    pub fn is_dry_run(&self) -> bool {
        match self {
            Self::BackupNode(args) => args.dry_run,
            Self::RestoreNode(args) => args.dry_run,
            Self::Download(args) => args.dry_run,
            Self::DeleteBackup(args) => args.dry_run,
            Self::Purge(args) => args.dry_run,
            Self::PurgeDecommissioned(args) => args.dry_run,
            Self::BuildIndex(args) => args.noop,
            _ => false,
        }
    }

    /// Whether it writes to the bucket or to this node's Cassandra.
    pub fn writes(&self) -> bool {
        matches!(
            self,
            Self::BackupNode(_)
                | Self::RestoreNode(_)
                | Self::DeleteBackup(_)
                | Self::Purge(_)
                | Self::PurgeDecommissioned(_)
                | Self::BuildIndex(_)
        )
    }

    /// Whether it is run for its metrics too.
    pub fn is_watched(&self) -> bool {
        let pushes = matches!(self, Self::ReportLastBackup(args) if args.push_metrics);
        self.writes() || pushes || matches!(self, Self::Verify(_))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for words in [
            ["medusa", "--fqdn", "n1", "-vv", "status", "--backup-name", "b1"],
            ["medusa", "status", "--backup-name", "b1", "--fqdn", "n1", "-vv"],
        ] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!((cli.global.fqdn.as_deref(), cli.global.verbosity), (Some("n1"), 2));
        }
    }

    #[test]
    fn every_command_knows_its_name() {
        let name = ["--backup-name", "b1"];
        for command in Cli::command().get_subcommands().map(|command| command.get_name().to_owned()) {
            let further: &[&str] = match command.as_str() {
                "restore-node" | "status" | "verify" | "fetch-tokenmap" | "delete-backup" => &name,
                "download" => &["--backup-name", "b1", "--download-destination", "/tmp"],
                "completions" => &["bash"],
                "man-pages" => &["/tmp"],
                _ => &[],
            };
            let cli = Cli::try_parse_from([&["medusa", &command], further].concat()).unwrap();
            assert_eq!(cli.command.name(), command);
            assert!(!cli.command.is_dry_run());
            if cli.command.writes() {
                let dry = Cli::try_parse_from([&["medusa", &command, "--dry-run"], further].concat()).unwrap();
                assert!(dry.command.is_dry_run(), "{command}");
            }
        }
    }

    #[test]
    fn both_names_of_the_backup_command_work() {
        for name in ["backup", "backup-node"] {
            assert!(matches!(Cli::try_parse_from(["medusa", name]).unwrap().command, Command::BackupNode(_)));
        }
    }
}

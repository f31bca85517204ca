//! The command line: cassandra-medusa's commands and options, and ours.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    backup_node, build_index, completions, config, delete_backup, download, fetch_tokenmap, get_last_complete, leases,
    list_backups, purge, purge_decommissioned, report_last_backup, restore_node, status, verify,
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
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    ManPages(completions::ManPagesArgs),
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
    fn both_names_of_the_backup_command_work() {
        for name in ["backup", "backup-node"] {
            assert!(matches!(Cli::try_parse_from(["medusa", name]).unwrap().command, Command::BackupNode(_)));
        }
    }
}

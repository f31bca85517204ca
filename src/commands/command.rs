//! All commands, cassandra-medusa's and ours, and what is known of each before it runs.

use clap::Subcommand;

use super::{
    backup_cluster, backup_node, build_index, completions, config, delete_backup, doctor, download, fetch_tokenmap,
    get_last_complete_cluster_backup, init, leases, list_backups, man_pages, purge, purge_decommissioned,
    report_last_backup, restore_cluster, restore_node, status, storage_check, verify,
};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    #[command(visible_alias = "backup")]
    BackupNode(backup_node::BackupNodeArgs),
    BackupCluster(backup_cluster::BackupClusterArgs),
    RestoreNode(restore_node::RestoreNodeArgs),
    RestoreCluster(restore_cluster::RestoreClusterArgs),
    ListBackups(list_backups::ListBackupsArgs),
    Status(status::StatusArgs),
    Verify(verify::VerifyArgs),
    Download(download::DownloadArgs),
    FetchTokenmap(fetch_tokenmap::FetchTokenmapArgs),
    DeleteBackup(delete_backup::DeleteBackupArgs),
    Purge(purge::PurgeArgs),
    PurgeDecommissioned(purge_decommissioned::PurgeDecommissionedArgs),
    BuildIndex(build_index::BuildIndexArgs),
    GetLastCompleteClusterBackup(get_last_complete_cluster_backup::GetLastCompleteClusterBackupArgs),
    ReportLastBackup(report_last_backup::ReportLastBackupArgs),
    Leases(leases::LeasesArgs),
    StorageCheck(storage_check::StorageCheckArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    ManPages(man_pages::ManPagesArgs),
}

impl Command {
    /// As on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Doctor(_) => "doctor",
            Self::BackupNode(_) => "backup-node",
            Self::BackupCluster(_) => "backup-cluster",
            Self::RestoreNode(_) => "restore-node",
            Self::RestoreCluster(_) => "restore-cluster",
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
            Self::Init(args) => args.dry_run,
            Self::BackupNode(args) => args.dry_run,
            Self::BackupCluster(args) => args.dry_run,
            Self::RestoreNode(args) => args.dry_run,
            Self::RestoreCluster(args) => args.dry_run,
            Self::Download(args) => args.dry_run,
            Self::DeleteBackup(args) => args.dry_run,
            Self::Purge(args) => args.dry_run,
            Self::PurgeDecommissioned(args) => args.dry_run,
            Self::BuildIndex(args) => args.noop,
            _ => false,
        }
    }

    /// Whether it is a part of the work of a coordinator.
    pub fn is_part(&self) -> bool {
        match self {
            Self::BackupNode(args) => args.is_part(),
            Self::RestoreNode(args) => args.is_part(),
            _ => false,
        }
    }

    /// Whether it writes to the bucket or to this node's Cassandra.
    pub fn writes(&self) -> bool {
        matches!(
            self,
            Self::BackupNode(_)
                | Self::BackupCluster(_)
                | Self::RestoreNode(_)
                | Self::RestoreCluster(_)
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

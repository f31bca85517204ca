//! `backup-node`.

use std::time::Duration;

use clap::Args;

use crate::backup::{BackupOptions, NodeBackupRun};
use crate::context::Context;
use crate::error::Failure;
use crate::hooks;
use crate::model::backups::BackupMode;
use crate::model::names::BackupName;
use crate::monitoring::run::{Backup, Facts};
use crate::screen::output::Output;

/// Backs up this node
///
/// Takes a snapshot, uploads the files that the storage does not hold yet, and writes a manifest. Run again with the same
/// name, an interrupted backup is continued.
#[derive(Debug, Args)]
pub struct BackupNodeArgs {
    /// Name of the backup [default: the local time as %Y%m%d%H%M]
    #[arg(long, value_name = "NAME")]
    backup_name: Option<String>,
    /// Wait so many seconds at most until the node before this one in the ring has finished a backup
    #[arg(long, value_name = "SECONDS")]
    stagger: Option<u64>,
    /// Compare the content of every file, not only of those whose size or time differs
    #[arg(long)]
    enable_md5_checks: bool,
    /// Store only files that are not stored yet, or all
    #[arg(long, value_enum, default_value_t = BackupMode::Differential)]
    mode: BackupMode,
    /// Do not clear the snapshot after the backup
    #[arg(long)]
    keep_snapshot: bool,
    /// Back up the snapshot that is called exactly as the backup, instead of taking one
    #[arg(long, requires = "backup_name")]
    use_existing_snapshot: bool,
    /// Store SSTables that do not match their own digest, and mark them
    #[arg(long)]
    allow_corrupt: bool,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Take the snapshot of the backup, if it is not there, and leave it
    #[arg(long, help_heading = FOR_CLUSTER, requires = "backup_name", conflicts_with_all = ["dry_run", "use_existing_snapshot", "clear_snapshot"])]
    pub snapshot_only: bool,
    /// Clear the snapshot of the backup, if it is there, and end
    #[arg(long, help_heading = FOR_CLUSTER, requires = "backup_name", conflicts_with_all = ["dry_run", "use_existing_snapshot"])]
    clear_snapshot: bool,
    /// Back up the snapshot that --snapshot-only has taken, whatever its age
    #[arg(long, help_heading = FOR_CLUSTER, requires = "backup_name", conflicts_with_all = ["use_existing_snapshot", "snapshot_only", "clear_snapshot"])]
    snapshot_taken: bool,
}

const FOR_CLUSTER: &str = "For backup-cluster";

impl BackupNodeArgs {
    /// Whether it is a part of a backup, of whose end nobody is told unless it fails.
    pub fn is_part(&self) -> bool {
        self.snapshot_only || self.clear_snapshot
    }

    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        let name = self.backup_name.clone().unwrap_or_else(|| context.now.format("%Y%m%d%H%M").to_string());
        *facts = Facts::Backup { name: name.clone(), done: None };
        let name = BackupName::new(&name).map_err(|error| Failure::usage(error.to_string()))?;
        let options = BackupOptions {
            name,
            mode: self.mode,
            stagger: self.stagger.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            compare_contents: self.enable_md5_checks || context.config.checks.enable_md5_checks,
            keep_snapshot: self.keep_snapshot,
            use_existing_snapshot: self.use_existing_snapshot,
            snapshot_taken: self.snapshot_taken,
            allow_corrupt: self.allow_corrupt,
        };
        let backup = NodeBackupRun::new(context, &options)?;
        if self.dry_run {
            let plan = context.interrupt.or(backup.dry_run()).await?;
            let (name, fqdn, location) = (&options.name, &context.fqdn, context.storage.location());
            return output.print(
                |look| plan.text(look, name, fqdn, location, options.mode),
                || plan.json(name, fqdn, options.mode),
            );
        }
        if self.clear_snapshot {
            let cleared = backup.clear_snapshot_only().await?;
            return output.print(|_| cleared.text(), || cleared.json());
        }
        let hooks = &context.config.hooks;
        if !self.snapshot_taken {
            context.interrupt.or(hooks::before_backup(hooks, &options.name, &context.fqdn, options.mode)).await?;
        }
        if self.snapshot_only {
            let taken = backup.take_snapshot_only().await?;
            return output.print(|_| taken.text(), || taken.json());
        }
        let outcome = backup.run().await?;
        let done = Backup {
            took: outcome.took.saturating_sub(outcome.waited),
            finished: outcome.finished,
            all: outcome.all,
            uploaded: outcome.uploaded,
        };
        *facts = Facts::Backup { name: options.name.to_string(), done: Some(done) };
        output.print(|look| outcome.text(look, context.storage.location()), || outcome.json())?;
        hooks::after_backup(hooks, &options.name, &outcome.json()).await?;
        outcome.check_cleared()
    }
}

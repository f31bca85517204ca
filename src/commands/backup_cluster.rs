//! `backup-cluster`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::cluster::backup::report::State;
use crate::cluster::backup::{ClusterBackupOptions, ClusterBackupRun};
use crate::cluster::hosts::Choice;
use crate::context::Context;
use crate::error::Failure;
use crate::model::backups::BackupMode;
use crate::model::names::BackupName;
use crate::monitoring::run::Facts;
use crate::screen::output::Output;

/// Backs up all nodes of this datacenter
///
/// Takes a snapshot on all of them at once, by ssh, and then has them upload, a few at a time. Run again with the same name,
/// it finishes the nodes that are missing.
#[derive(Debug, Args)]
pub struct BackupClusterArgs {
    /// Name of the backup [default: the local time as %Y%m%d%H%M]
    #[arg(long, value_name = "NAME")]
    backup_name: Option<String>,
    /// The node that is asked which nodes there are [default: this one]
    #[arg(long, value_name = "HOST", conflicts_with_all = ["host_list", "hosts"])]
    seed_target: Option<String>,
    /// Only the hosts in this file: one on each line, or `is_seed,target,source`
    #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
    host_list: Option<PathBuf>,
    /// Only these hosts
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Each node waits so many seconds at most until the node before it in the ring has finished a backup (not with a list of hosts)
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["host_list", "hosts"])]
    stagger: Option<u64>,
    /// Compare the content of every file, not only of those whose size or time differs
    #[arg(long)]
    enable_md5_checks: bool,
    /// Store only files that are not stored yet, or all
    #[arg(long, value_enum, default_value_t = BackupMode::Differential)]
    mode: BackupMode,
    /// Folder on the hosts for files that the runs need while they last
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    temp_dir: String,
    /// Snapshots that are taken at once (also -ps)
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    parallel_snapshots: usize,
    /// Nodes that upload at once (also -pu)
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    parallel_uploads: usize,
    /// Do not clear the snapshots after the backup
    #[arg(long)]
    keep_snapshot: bool,
    /// Back up the snapshots that are called exactly as the backup, instead of taking them
    #[arg(long, requires = "backup_name")]
    use_existing_snapshot: bool,
    /// Store SSTables that do not match their own digest, and mark them
    #[arg(long)]
    allow_corrupt: bool,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
}

impl BackupClusterArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        let name = self.backup_name.clone().unwrap_or_else(|| context.now.format("%Y%m%d%H%M").to_string());
        *facts = Facts::ClusterBackup { name: name.clone(), done: None };
        let name = BackupName::new(&name).map_err(|error| Failure::usage(error.to_string()))?;
        if !self.temp_dir.starts_with('/') {
            return Err(
                Failure::usage(format!("--temp-dir is {:?}, and must be an absolute path", self.temp_dir)).into()
            );
        }
        let separator = context.config.values.get("storage", "host_file_separator").text.as_deref().unwrap_or(",");
        let host_list = self.host_list.as_deref();
        let options = ClusterBackupOptions {
            name,
            choice: Choice::new(self.seed_target.as_deref(), host_list, &self.hosts, separator)?,
            mode: self.mode,
            stagger: self.stagger.filter(|seconds| *seconds > 0),
            compare_contents: self.enable_md5_checks,
            folder: self.temp_dir.clone(),
            parallel_snapshots: self.parallel_snapshots,
            parallel_uploads: self.parallel_uploads,
            keep_snapshot: self.keep_snapshot,
            use_existing_snapshot: self.use_existing_snapshot,
            allow_corrupt: self.allow_corrupt,
        };
        let backup = ClusterBackupRun::new(context, &options);
        if self.dry_run {
            let plan = backup.plan().await?;
            let parallel = (options.parallel_snapshots, options.parallel_uploads);
            let (name, mode, location) = (&options.name, options.mode, context.storage.location());
            return output.print(|look| plan.text(look, name, location, mode, parallel), || plan.json(name, mode));
        }
        let outcome = backup.run().await?;
        if outcome.hosts.iter().all(|host| host.state != State::Failed) {
            *facts = Facts::ClusterBackup { name: options.name.to_string(), done: Some(outcome.took) };
        }
        let failure = outcome.failure();
        output.print(|look| outcome.text(look, context.storage.location()), || outcome.json())?;
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }
}

//! A thin file for each command, called as the command is: its arguments, and how they become an operation. Beside them
//! what commands share: who is told of the end (`ending`), the rights and the priority of the process (`elevate`, `priority`).

pub mod backup_cluster;
pub mod backup_node;
pub mod build_index;
pub mod command;
pub mod completions;
pub mod config;
pub mod delete_backup;
pub mod doctor;
pub mod download;
pub mod elevate;
mod ending;
pub mod fetch_tokenmap;
pub mod get_last_complete_cluster_backup;
pub mod global;
pub mod init;
pub mod leases;
pub mod list_backups;
pub mod man_pages;
pub mod priority;
pub mod purge;
pub mod purge_decommissioned;
pub mod report_last_backup;
pub mod restore_cluster;
pub mod restore_node;
mod selection;
pub mod status;
pub mod storage_check;
pub mod verify;

use std::sync::Arc;

use self::command::Command;
use self::doctor::DoctorArgs;
use self::ending::Ending;
use self::global::GlobalArgs;
use crate::config::Config;
use crate::config::forward::Forward;
use crate::context::Context;
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::listing::suggest;
use crate::model::names::{BackupName, Fqdn};
use crate::monitor::Monitor;
use crate::monitoring::run::Facts;
use crate::screen::output::Output;

/// Commands that need no configuration. `None` for the others. `program`: the definition of the command line.
pub fn run_without_config(
    command: &Command,
    global: &GlobalArgs,
    program: impl FnOnce() -> clap::Command,
    output: &Output,
) -> Option<anyhow::Result<()>> {
    match command {
        Command::Init(args) => Some(args.run(global, output)),
        Command::Completions(args) => Some(args.run(program(), output)),
        Command::ManPages(args) => Some(args.run(program())),
        _ => None,
    }
}

/// What concerns the whole process and must happen before it has threads.
pub fn prepare_process(command: &Command, config: &Config) -> Result<(), Failure> {
    match command {
        // A snapshot costs little, and those of a cluster should be of one time.
        Command::BackupNode(args) if !args.snapshot_only => priority::lower(),
        Command::RestoreNode(_) => elevate::if_needed(config)?,
        _ => {}
    }
    Ok(())
}

/// Runs a command, and tells monitoring and hooks how it ended. `prepared`: how [`prepare_process`] and the start of
/// logging ended.
pub async fn run(
    command: &Command,
    config: Config,
    forward: Forward,
    prepared: Result<(), Failure>,
    monitor: Arc<dyn Monitor>,
    interrupt: Interrupt,
    output: &Output,
) -> anyhow::Result<()> {
    let ending = Ending::of(&config);
    let (mut facts, mut fqdn) = (Facts::default(), None);
    // On the heap: the largest of the commands decides how big it is.
    let outcome = Box::pin(async {
        // Says itself what is wrong with the storage, and with what was prepared.
        if let Command::Doctor(args) = command {
            let known = prepared.err().map(DoctorArgs::not_prepared).into_iter().collect();
            return args.run(known, config, forward, monitor, interrupt, output).await;
        }
        prepared?;
        let context = Context::new(config, forward, monitor, interrupt).await?;
        fqdn = Some(context.fqdn.clone());
        act(command, &context, output, &mut facts).await
    });
    let outcome = outcome.await;
    ending.tell(command, fqdn.as_ref().map(Fqdn::as_str), &facts, &outcome).await;
    outcome
}

async fn act(command: &Command, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
    match command {
        Command::BackupNode(args) => args.run(context, output, facts).await,
        Command::BackupCluster(args) => args.run(context, output, facts).await,
        Command::RestoreNode(args) => Box::pin(args.run(context, output, facts)).await,
        Command::RestoreCluster(args) => args.run(context, output, facts).await,
        Command::Download(args) => args.run(context, output).await,
        Command::ListBackups(args) => args.run(context, output).await,
        Command::Status(args) => args.run(context, output).await,
        Command::Verify(args) => args.run(context, output, facts).await,
        Command::FetchTokenmap(args) => args.run(context, output).await,
        Command::DeleteBackup(args) => args.run(context, output, facts).await,
        Command::Purge(args) => args.run(context, output, facts).await,
        Command::PurgeDecommissioned(args) => args.run(context, output, facts).await,
        Command::BuildIndex(args) => args.run(context, output).await,
        Command::GetLastCompleteClusterBackup(args) => args.run(context, output).await,
        Command::ReportLastBackup(args) => args.run(context, output, facts).await,
        Command::Leases(args) => args.run(context, output).await,
        Command::StorageCheck(args) => args.run(context, output).await,
        Command::Config(args) => args.run(context, output),
        Command::Init(_) | Command::Doctor(_) | Command::Completions(_) | Command::ManPages(_) => Ok(()),
    }
}

/// The name of a backup that should exist.
fn existing_name(name: &str) -> Result<BackupName, Failure> {
    BackupName::existing(name).map_err(|error| Failure::usage(error.to_string()))
}

async fn no_such_backup(context: &Context, name: &BackupName) -> Failure {
    Failure::failed(format!("there is no backup {name} in {}", context.storage.location()))
        .hint(suggest::hint(&context.storage, name, None).await)
}

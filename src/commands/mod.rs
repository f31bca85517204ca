//! One thin file per command: its arguments, and how they become an operation.

pub mod backup_node;
pub mod build_index;
pub mod completions;
pub mod config;
pub mod delete_backup;
pub mod download;
pub mod elevate;
mod ending;
pub mod fetch_tokenmap;
pub mod get_last_complete;
pub mod leases;
pub mod list_backups;
pub mod priority;
pub mod purge;
pub mod purge_decommissioned;
pub mod report_last_backup;
pub mod restore_node;
pub mod status;
pub mod storage_check;
pub mod verify;

use std::sync::Arc;

use self::ending::Ending;
use crate::cli::args::Command;
use crate::cli::output::Output;
use crate::config::Config;
use crate::context::Context;
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::model::names::{BackupName, Fqdn};
use crate::monitor::Monitor;
use crate::monitoring::run::Facts;

/// Commands that need no configuration. `None` for the others.
pub fn run_without_config(command: &Command, output: &Output) -> Option<anyhow::Result<()>> {
    match command {
        Command::Completions(args) => Some(args.run(output)),
        Command::ManPages(args) => Some(args.run()),
        _ => None,
    }
}

/// What concerns the whole process and must happen before it has threads.
pub fn prepare_process(command: &Command, config: &Config) -> Result<(), Failure> {
    match command {
        Command::BackupNode(_) => priority::lower(),
        Command::RestoreNode(_) => elevate::if_needed(config)?,
        _ => {}
    }
    Ok(())
}

/// Runs a command, and tells monitoring and hooks how it ended. `prepared` is the outcome of [`prepare_process`].
pub async fn run(
    command: &Command,
    config: Config,
    prepared: Result<(), Failure>,
    monitor: Arc<dyn Monitor>,
    interrupt: Interrupt,
    output: &Output,
) -> anyhow::Result<()> {
    let ending = Ending::of(&config);
    let (mut facts, mut fqdn) = (Facts::default(), None);
    let outcome = async {
        prepared?;
        let context = Context::new(config, monitor, interrupt).await?;
        fqdn = Some(context.fqdn.clone());
        act(command, &context, output, &mut facts).await
    };
    let outcome = outcome.await;
    ending.tell(command, fqdn.as_ref().map(Fqdn::as_str), &facts, &outcome).await;
    outcome
}

async fn act(command: &Command, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
    match command {
        Command::BackupNode(args) => args.run(context, output, facts).await,
        Command::RestoreNode(args) => args.run(context, output, facts).await,
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
        Command::Completions(_) | Command::ManPages(_) => Ok(()),
    }
}

/// The name of a backup that should exist.
fn existing_name(name: &str) -> Result<BackupName, Failure> {
    BackupName::existing(name).map_err(|error| Failure::usage(error.to_string()))
}

fn no_such_backup(context: &Context, name: &BackupName) -> Failure {
    Failure::failed(format!("there is no backup {name} in {}", context.storage.location()))
        .hint("medusa list-backups --show-all lists them")
}

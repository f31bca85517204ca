//! `download`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::existing_name;
use crate::context::Context;
use crate::model::units::{counted, size};
use crate::restore::download::{DownloadOptions, DownloadPlan};
use crate::restore::select::Selection;
use crate::screen::output::Output;

/// Downloads this node's files of a backup into a folder
///
/// Every file is compared with its recorded hash. Run again, an interrupted download goes on.
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// Name of the backup
    #[arg(long, value_name = "NAME")]
    backup_name: String,
    /// An existing folder
    #[arg(long, value_name = "FOLDER")]
    download_destination: PathBuf,
    /// Only tables of this keyspace; may be given several times
    #[arg(long = "keyspace", value_name = "KEYSPACE")]
    keyspaces: Vec<String>,
    /// Only this table; may be given several times
    #[arg(long = "table", value_name = "KEYSPACE.TABLE")]
    tables: Vec<String>,
    /// With --keyspace or --table: not the system keyspaces as well
    #[arg(long)]
    ignore_system_keyspaces: bool,
    /// Print what would be downloaded
    #[arg(long)]
    pub dry_run: bool,
}

impl DownloadArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let options = DownloadOptions {
            name: existing_name(&self.backup_name)?,
            destination: self.download_destination.clone(),
            // As in Medusa, with a filter the system keyspaces come along unless they are declined.
            selection: Selection::new(&self.keyspaces, &self.tables, !self.ignore_system_keyspaces),
        };
        let plan = context.interrupt.or(DownloadPlan::gather(context, &options)).await?;
        if !self.dry_run {
            plan.execute(context, &options).await?;
        }
        let verb = if self.dry_run { "would download" } else { "downloaded" };
        let (files, bytes) = (plan.amount.files, plan.amount.bytes);
        let destination = options.destination.display();
        output.print(
            |look| {
                let amount = format!("{}, {}", counted(files, "file"), size(bytes));
                let mut text = format!("{verb} {} of {} to {destination}: {amount}\n", options.name, context.fqdn);
                if !self.dry_run {
                    text.push_str(&look.folded(&context.times(), 2));
                }
                text
            },
            || json!({ "version": 1, "dry_run": self.dry_run, "name": options.name.as_str(), "fqdn": context.fqdn.as_str(), "destination": options.destination, "files": files, "bytes": bytes }),
        )
    }
}

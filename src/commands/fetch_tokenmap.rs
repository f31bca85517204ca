//! `fetch-tokenmap`.

use clap::Args;

use super::{existing_name, no_such_backup};
use crate::cli::output::Output;
use crate::context::Context;
use crate::listing;

/// Prints the hosts of a backup and their tokens
#[derive(Debug, Args)]
pub struct FetchTokenmapArgs {
    /// Name of the backup
    #[arg(long, value_name = "NAME")]
    backup_name: String,
}

impl FetchTokenmapArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let name = existing_name(&self.backup_name)?;
        let backup = context.interrupt.or(listing::listed(&context.storage, &name)).await?;
        let backup = backup.ok_or_else(|| no_such_backup(context, &name))?;
        let tokenmap = context.interrupt.or(listing::tokenmap(&context.storage, &backup)).await?;
        let text =
            || tokenmap.hosts.iter().map(|(host, entry)| format!("{host}\n{}\n", entry.tokens.to_python())).collect();
        output.print(text, || serde_json::to_value(&tokenmap).unwrap_or_default())
    }
}

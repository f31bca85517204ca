//! `fetch-tokenmap`.

use clap::Args;

use super::{existing_name, no_such_backup};
use crate::context::Context;
use crate::listing;
use crate::model::pyjson;
use crate::model::tokenmap::TokenmapEntry;
use crate::screen::output::Output;

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
        let Some(backup) = backup else { return Err(no_such_backup(context, &name).await.into()) };
        let tokenmap = context.interrupt.or(listing::tokenmap(&context.storage, &backup)).await?;
        if output.is_json() {
            // Tokens may be longer than the numbers of a `Value`.
            return output.text(&format!("{}\n", pyjson::printed_in_order(&tokenmap)?));
        }
        let lines = |(host, entry): (&String, &TokenmapEntry)| format!("{host}\n{}\n", entry.tokens.to_python());
        output.text(&tokenmap.hosts.iter().map(lines).collect::<String>())
    }
}

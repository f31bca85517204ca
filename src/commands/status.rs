//! `status`.

use clap::Args;
use serde_json::json;

use super::{existing_name, no_such_backup};
use crate::cli::output::Output;
use crate::context::Context;
use crate::listing::{self, render};

/// Shows how complete a backup is
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Name of the backup
    #[arg(long, value_name = "NAME")]
    backup_name: String,
}

impl StatusArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let name = existing_name(&self.backup_name)?;
        let backup = context.interrupt.or(listing::cluster_backup(&context.storage, &name)).await?;
        let Some(backup) = backup else {
            output.print(String::new, || json!({}))?;
            return Err(no_such_backup(context, &name).into());
        };
        let contents = context.interrupt.or(listing::all_contents(&context.storage, &backup)).await?;
        output.print(|| render::status_text(&backup, &contents), || render::backup_json(&backup, &contents))
    }
}

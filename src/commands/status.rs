//! `status`.

use clap::Args;
use serde_json::json;

use super::{existing_name, no_such_backup};
use crate::context::Context;
use crate::error::Failure;
use crate::listing::{self, contents, render};
use crate::model::names::BackupName;
use crate::screen::output::Output;

/// Shows how complete a backup is
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Name of the backup
    #[arg(long, value_name = "NAME", required_unless_present = "latest")]
    backup_name: Option<String>,
    /// The backup that was started last, complete or not
    #[arg(long, conflicts_with = "backup_name")]
    latest: bool,
}

impl StatusArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let name = match &self.backup_name {
            Some(name) => existing_name(name)?,
            None => self.latest(context).await?,
        };
        let backup = context.interrupt.or(listing::listed(&context.storage, &name)).await?;
        let Some(backup) = backup else {
            output.print(|_| String::new(), || json!({}))?;
            return Err(no_such_backup(context, &name).await.into());
        };
        if let Some(warning) = listing::other_names(&backup) {
            tracing::warn!("{warning}");
        }
        let contents = context.interrupt.or(contents::of_one(&context.storage, &backup)).await?;
        output.print(|_| render::status_text(&backup, &contents), || render::backup_json(&backup, &contents))?;
        contents::failure([(&backup, &contents)]).map_or(Ok(()), |failure| Err(failure.into()))
    }

    async fn latest(&self, context: &Context) -> anyhow::Result<BackupName> {
        let backups = context.interrupt.or(listing::cluster_backups(&context.storage)).await?;
        let Some(latest) = backups.last() else {
            return Err(Failure::failed(format!("there is no backup in {}", context.storage.location())).into());
        };
        Ok(latest.name.clone())
    }
}

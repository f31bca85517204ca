//! `build-index`.

use clap::Args;

use crate::context::Context;
use crate::index;
use crate::screen::output::Output;

/// Rebuilds the index of the bucket
///
/// Writes index entries, latest markers and summaries anew from what is stored for each backup, and removes entries of backups
/// that are gone. Needs no Cassandra.
#[derive(Debug, Args)]
pub struct BuildIndexArgs {
    /// Print what would be written and removed
    #[arg(long, visible_alias = "dry-run")]
    pub noop: bool,
}

impl BuildIndexArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let report = index::rebuild(context, self.noop).await?;
        output.print(|look| report.text(look), || report.json())?;
        report.failure().map_or(Ok(()), |failure| Err(failure.into()))
    }
}

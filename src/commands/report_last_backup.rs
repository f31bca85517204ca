//! `report-last-backup`.

use clap::Args;

use crate::cli::output::Output;
use crate::context::Context;
use crate::listing::last::LastBackups;

/// Says what was backed up last, by this node and by all nodes
#[derive(Debug, Args)]
pub struct ReportLastBackupArgs {}

impl ReportLastBackupArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let last = context.interrupt.or(LastBackups::gather(&context.storage, &context.fqdn)).await?;
        let now = context.now.timestamp();
        output.print(|| last.text(now), || last.json(now))
    }
}

//! `get-last-complete-cluster-backup`.

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::listing;
use crate::screen::output::Output;

/// Prints the name of the latest complete backup of the cluster
#[derive(Debug, Args)]
pub struct GetLastCompleteClusterBackupArgs {}

impl GetLastCompleteClusterBackupArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let latest = context.interrupt.or(listing::latest_complete(&context.storage)).await?;
        let name = latest.as_ref().map(|backup| backup.name.as_str());
        let text = |_| format!("{}\n", name.unwrap_or("Could not find any full backup for the cluster"));
        output.print(text, || json!({ "name": name }))
    }
}

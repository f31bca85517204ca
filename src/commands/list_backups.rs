//! `list-backups`.

use clap::Args;
use serde_json::Value;

use crate::cli::output::Output;
use crate::context::Context;
use crate::listing::{self, render};

/// Lists backups
#[derive(Debug, Args)]
pub struct ListBackupsArgs {
    /// Backups of all nodes, not only those that include this one
    #[arg(long, overrides_with = "_no_show_all")]
    show_all: bool,
    /// Only backups that include this node (the default)
    #[arg(long = "no-show-all")]
    _no_show_all: bool,
}

impl ListBackupsArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let mut backups = context.interrupt.or(listing::cluster_backups(&context.storage, None)).await?;
        if !self.show_all {
            backups.retain(|backup| backup.node(context.fqdn.as_str()).is_some());
        }
        if !output.is_json() {
            return output.print(|| render::list_text(&backups), || Value::Null);
        }
        let mut documents = Vec::new();
        for backup in &backups {
            let contents = context.interrupt.or(listing::all_contents(&context.storage, backup)).await?;
            documents.push(render::backup_json(backup, &contents));
        }
        output.print(String::new, || Value::Array(documents))
    }
}

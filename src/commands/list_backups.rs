//! `list-backups`.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::Value;

use crate::context::Context;
use crate::error::Failure;
use crate::listing::contents::{contents, failure};
use crate::listing::filter::{Filter, Since};
use crate::listing::{self, render};
use crate::model::backups::ClusterBackup;
use crate::model::names::Fqdn;
use crate::model::nearest::did_you_mean;
use crate::model::units::Zone;
use crate::screen::output::Output;

/// Lists backups
#[derive(Debug, Args)]
pub struct ListBackupsArgs {
    /// Backups of all nodes, not only those that include this one
    #[arg(long, overrides_with = "_no_show_all")]
    show_all: bool,
    /// Only backups that include this node (the default)
    #[arg(long = "no-show-all")]
    _no_show_all: bool,
    /// Only backups that include this node, in place of the own one
    #[arg(long, value_name = "NODE", conflicts_with = "show_all")]
    node: Option<String>,
    /// Only backups started since: 2026-11-20, "2026-11-20 13:00", 36h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only backups that some node has not finished
    #[arg(long)]
    incomplete: bool,
    /// Only the N of these that were started last
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl ListBackupsArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let mut backups = context.interrupt.or(listing::cluster_backups(&context.storage)).await?;
        let filter = self.filter(context)?;
        if self.node.is_some() {
            warn_of_unknown(filter.node.as_ref(), &backups);
        }
        match Zone::chosen() {
            Zone::Local => filter.apply(&mut backups, &context.now),
            Zone::Utc => filter.apply(&mut backups, &context.now.to_utc()),
        }
        // Once is enough: the reason is the same in all of them.
        if let Some(warning) = backups.iter().rev().find_map(listing::other_names) {
            tracing::warn!("{warning}");
        }
        if !output.is_json() {
            return output.print(|_| render::list_text(&backups), || Value::Null);
        }
        let contents = context.interrupt.or(contents(&context.storage, &backups)).await?;
        let documents = backups.iter().zip(&contents).map(|(backup, contents)| render::backup_json(backup, contents));
        output.print(|_| String::new(), || documents.collect())?;
        failure(backups.iter().zip(&contents)).map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn filter(&self, context: &Context) -> Result<Filter, Failure> {
        let node = match &self.node {
            Some(name) => Some(Fqdn::new(name).map_err(|error| Failure::usage(error.to_string()))?),
            None => (!self.show_all).then(|| context.fqdn.clone()),
        };
        Ok(Filter { node, since: self.since, incomplete: self.incomplete, last: self.last })
    }
}

/// An empty list says nothing of a misspelt name.
fn warn_of_unknown(node: Option<&Fqdn>, backups: &[ClusterBackup]) {
    let Some(node) = node.filter(|node| backups.iter().all(|backup| backup.node(node.as_str()).is_none())) else {
        return;
    };
    let known: BTreeSet<_> = backups.iter().flat_map(|backup| &backup.nodes).map(|known| known.fqdn.as_str()).collect();
    let meant = did_you_mean(node.as_str(), known).map(|meant| format!("; {meant}")).unwrap_or_default();
    tracing::warn!("there is no backup of {node}{meant}");
}

//! `leases`.

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::error::Failure;
use crate::model::look::Tone;
use crate::model::names::Fqdn;
use crate::model::nearest::did_you_mean;
use crate::model::table::{Column, Table};
use crate::model::units::time;
use crate::screen::output::Output;
use crate::storage::lease::{Found, Terms};

/// Shows which processes work on backups right now
///
/// A lease keeps others from writing to the same node's backups. It is renewed while its holder works, and stale when it was
/// not renewed in time; a stale one is taken over by the next command.
#[derive(Debug, Args)]
pub struct LeasesArgs {
    /// Remove the lease of this node. Its holder notices before it finishes a backup
    #[arg(long = "break", value_name = "NODE")]
    broken: Option<String>,
}

impl LeasesArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let storage = &context.storage;
        if let Some(name) = &self.broken {
            let fqdn = Fqdn::new(name).map_err(|error| Failure::usage(error.to_string()))?;
            if !context.interrupt.or(storage.break_lease(&fqdn)).await? {
                let leases = storage.leases().await.unwrap_or_default();
                let meant = did_you_mean(name, leases.iter().map(|found| found.fqdn.as_str()));
                return Err(Failure::failed(format!("there is no lease of {fqdn} in {}", storage.location()))
                    .hint(meant.unwrap_or_else(|| "medusa leases lists them".to_owned()))
                    .into());
            }
            return output.print(
                |_| format!("removed the lease of {fqdn}\n"),
                || json!({ "version": 1, "removed": fqdn.as_str() }),
            );
        }
        let leases = context.interrupt.or(storage.leases()).await?;
        let text = |look| if leases.is_empty() { "no leases\n".to_owned() } else { table(&leases).text(look) };
        output.print(text, || json!({ "version": 1, "leases": leases.iter().map(document).collect::<Vec<_>>() }))
    }
}

fn table(leases: &[Found]) -> Table {
    let mut table = Table::new(&[
        Column::text("node", 0),
        Column::text("work", 0),
        Column::text("process", 2),
        Column::text("since", 1),
        Column::text("until", 0),
    ]);
    for found in leases {
        let until = time(found.until().timestamp());
        let (until, tone) =
            if found.is_stale { (format!("stale since {until}"), Some((4, Tone::Doubtful))) } else { (until, None) };
        let of = |text: &dyn Fn(&Terms) -> String| found.terms.as_ref().map(text).unwrap_or_default();
        let remark = if found.terms.is_none() { "cannot be read" } else { "" };
        let cells = vec![
            found.fqdn.to_string(),
            of(&|terms| terms.work.to_string()),
            of(&|terms| format!("{} on {}", terms.holder.pid, terms.holder.host)),
            of(&|terms| time(terms.since)),
            until,
        ];
        table.row(cells, tone, remark);
    }
    table
}

fn document(found: &Found) -> serde_json::Value {
    json!({
        "fqdn": found.fqdn.as_str(),
        "work": found.terms.as_ref().map(|terms| terms.work),
        "backup": found.terms.as_ref().and_then(|terms| terms.backup.clone()),
        "host": found.terms.as_ref().map(|terms| terms.holder.host.clone()),
        "pid": found.terms.as_ref().map(|terms| terms.holder.pid),
        "since": found.terms.as_ref().map(|terms| terms.since),
        "until": found.until().timestamp(),
        "stale": found.is_stale,
    })
}

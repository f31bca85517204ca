//! `leases`.

use clap::Args;
use serde_json::json;

use crate::cli::output::Output;
use crate::context::Context;
use crate::error::Failure;
use crate::model::names::Fqdn;
use crate::model::units::local_time;
use crate::storage::lease::Found;

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
                return Err(Failure::failed(format!("there is no lease of {fqdn} in {}", storage.location()))
                    .hint("medusa leases lists them")
                    .into());
            }
            return output.print(
                || format!("removed the lease of {fqdn}\n"),
                || json!({ "version": 1, "removed": fqdn.as_str() }),
            );
        }
        let leases = context.interrupt.or(storage.leases()).await?;
        let text = || {
            if leases.is_empty() { "no leases\n".to_owned() } else { leases.iter().map(line).collect() }
        };
        output.print(text, || json!({ "version": 1, "leases": leases.iter().map(document).collect::<Vec<_>>() }))
    }
}

fn line(found: &Found) -> String {
    let state = if found.is_stale { "stale since" } else { "until" };
    let until = local_time(found.until().timestamp());
    match &found.terms {
        Some(terms) => format!(
            "{}  {}  {} on {}, since {}, {state} {until}\n",
            found.fqdn,
            terms.work,
            terms.holder.pid,
            terms.holder.host,
            local_time(terms.since)
        ),
        None => format!("{}  cannot be read, {state} {until}\n", found.fqdn),
    }
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

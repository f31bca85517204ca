//! `doctor`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::cluster::hosts::check_name;
use crate::config::Config;
use crate::config::forward::Forward;
use crate::doctor::node::LOG;
use crate::doctor::peers::Peers;
use crate::doctor::report::{Finding, Report, State};
use crate::doctor::{self, Options};
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::monitor::Monitor;
use crate::screen::output::Output;

/// Checks everything that backups and restores of this machine need, and says what to do about what is wrong
///
/// Ends with 3 where something failed, with 0 where there are warnings only. Run it as the user that backs up: it looks at
/// what this user may do. Nothing is changed.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Ask these hosts for their medusa by ssh; without names, the nodes of the ring. They are asked anyway if `[ssh]` is set
    #[arg(long, value_name = "HOST", num_args = 0.., value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// A last backup that is older is a warning
    #[arg(long, value_name = "DAYS", default_value_t = 2)]
    max_backup_age: u32,
    /// How long each check may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
}

impl DoctorArgs {
    /// `known`: what was found before.
    pub async fn run(
        &self,
        known: Vec<Finding>,
        config: Config,
        forward: Forward,
        monitor: Arc<dyn Monitor>,
        interrupt: Interrupt,
        output: &Output,
    ) -> anyhow::Result<()> {
        let options = self.options(known)?;
        ended(&doctor::run(config, forward, monitor, interrupt, &options).await?, *output)
    }

    /// A log file that cannot be written ends every other command.
    pub fn not_prepared(failure: Failure) -> Finding {
        let fix = "file in [logging] of medusa.ini must be one that the user that backs up may write; enabled = 0 goes without";
        Finding::error(LOG, &failure.into()).or_fix(fix)
    }

    /// Where medusa.ini cannot be used.
    pub fn without_config(path: &Path, error: &anyhow::Error, output: &Output) -> anyhow::Result<()> {
        ended(&doctor::without_config(path, error), *output)
    }

    fn options(&self, known: Vec<Finding>) -> Result<Options, Failure> {
        let peers = match &self.peers {
            None => Peers::IfConfigured,
            Some(hosts) if hosts.is_empty() => Peers::Ring,
            Some(hosts) => Peers::These(hosts.clone()),
        };
        self.peers.iter().flatten().try_for_each(|host| check_name(host))?;
        Ok(Options {
            limit: Duration::from_secs(self.timeout.into()),
            max_backup_age: Duration::from_hours(24) * self.max_backup_age,
            peers,
            known,
        })
    }
}

fn ended(report: &Report, output: Output) -> anyhow::Result<()> {
    output.print(|look| report.text(look), || report.json())?;
    match report.count(State::Failed) {
        0 => Ok(()),
        1 => Err(Failure::problems("1 check failed").hint("what to do stands below it, behind `fix`").into()),
        failed => {
            let message = format!("{failed} checks failed");
            Err(Failure::problems(message).hint("what to do stands below each, behind `fix`").into())
        }
    }
}

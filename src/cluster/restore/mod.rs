//! The restore of a whole cluster.
//!
//! The coordinator decides which node of the backup goes to which host ([`mapping`]), asks every host whether it could do it
//! ([`check`]), shows the plan, and drives `restore-node` on all hosts step by step ([`act`]): all have brought and compared
//! their files before the first one is stopped; all are down before the first one is started with restored files, because a
//! node that runs on would bring dropped tables and newer rows back. What a host has done is written in its own journal, so
//! a coordinator that was killed is followed by the same command on any machine.

pub mod act;
pub mod check;
pub mod interrupted;
#[cfg(test)]
mod made;
pub mod mapping;
pub mod plan;
pub mod report;
pub mod targets;

use std::path::PathBuf;
use std::time::Duration;

use self::check::Check;
use self::mapping::{Assignment, Mapping, Method};
use self::plan::ClusterPlan;
use self::targets::Mapped;
use crate::cluster::hosts::Choice;
use crate::cluster::remote::{check_versions, job_id};
use crate::context::Context;
use crate::error::Failure;
use crate::exec::job::Job;
use crate::exec::ssh::Ssh;
use crate::model::names::BackupName;
use crate::model::units::counted;
use crate::restore::select::Selection;

/// How long a host may take to say what it would do: it lists the backup and asks Cassandra.
const ANSWER: Duration = Duration::from_mins(15);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ClusterRestoreOptions {
    pub name: BackupName,
    pub choice: Choice,
    /// On the targets: for the files of the jobs, and for the stage where it can be there.
    pub temp_dir: Option<PathBuf>,
    pub keep_auth: bool,
    /// Run the `[checks]` on every target afterwards.
    pub verify: bool,
    pub selection: Selection,
    pub load: LoadOptions,
    /// Targets that restore at a time.
    pub parallel: usize,
    /// The release of targets whose Cassandra cannot be asked.
    pub version_target: Option<String>,
    pub ignore_racks: bool,
    /// Nodes that the backup lacks are left out.
    pub allow_incomplete: bool,
    /// Targets that a run before has restored are restored again.
    pub again: bool,
}

/// What is given on to `restore-node --use-sstableloader`.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// In any case, not only where nothing else fits.
    pub wanted: bool,
    pub recreate_tables: bool,
    pub dc_map: Vec<String>,
    pub replication: Vec<String>,
}

impl LoadOptions {
    /// Whether something was asked for that only a load does.
    fn is_about_schema(&self) -> bool {
        self.recreate_tables || !self.dc_map.is_empty() || !self.replication.is_empty()
    }
}

impl ClusterRestoreOptions {
    /// The command line for one target. The same for the same work: it decides about the id of the job.
    pub fn job(&self, context: &Context, method: Method, given: &Assignment, step: &Step<'_>) -> Job {
        let mut words = vec!["restore-node".to_owned()];
        let mut add = |name: &str, value: Option<&str>| {
            words.push(value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}")));
        };
        add("--backup-name", Some(self.name.as_str()));
        match method {
            Method::InPlace => add("--in-place", None),
            Method::Remote => add("--remote", None),
            Method::Load => add("--use-sstableloader", None),
        }
        let folder = self.temp_dir.as_ref().map(|folder| folder.display().to_string());
        if let Some(folder) = &folder {
            add("--temp-dir", Some(folder));
        }
        if self.keep_auth && method != Method::InPlace {
            add("--keep-auth", None);
        }
        if let Some(release) = self.version_target.as_deref().filter(|_| method != Method::Load) {
            add("--version-target", Some(release));
        }
        for keyspace in &self.selection.keyspaces {
            add("--keyspace", Some(keyspace));
        }
        for table in &self.selection.tables {
            add("--table", Some(table));
        }
        if self.selection.with_system {
            add("--with-system", None);
        }
        if method == Method::Load {
            // Whatever does not fit is gone when files are loaded.
            if self.load.recreate_tables && matches!(step, Step::Check | Step::Schema) {
                add("--recreate-tables", None);
            }
            for pair in &self.load.dc_map {
                add("--dc-map", Some(pair));
            }
            for replication in &self.load.replication {
                add("--replication", Some(replication));
            }
        }
        step.words(&mut add);
        add("--output", Some("json"));
        let arguments = context.forward.arguments(Some(&given.sources.join(",")), &words);
        // A run that was begun by another coordinator is the same work, whatever that one waited for.
        let is_work = |word: &&String| {
            ["--run=", "--seeds=", "--host=", "--version-target="].iter().all(|name| !word.starts_with(name))
        };
        let work: Vec<_> = arguments.iter().filter(is_work).cloned().collect();
        let id = job_id(&format!("restore-{}", step.name()), &work);
        let deadline = matches!(step, Step::Check | Step::State).then_some(ANSWER);
        Job { id, folder: folder.unwrap_or_else(|| "/tmp".to_owned()), arguments, deadline }
    }
}

/// What a target does in one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// What runs were begun there.
    State,
    Check,
    Stage {
        run: &'a str,
        /// The plan as a host list, by which any target can tell how to go on.
        hosts: &'a [String],
    },
    Stop {
        run: &'a str,
    },
    /// Swap, and start once one of the seeds is up.
    Start {
        run: &'a str,
        seeds: &'a [String],
    },
    Undo,
    /// Load mode: schema, once for all.
    Schema,
    /// Load mode: files.
    Load,
    /// Load mode: what had to wait for the files.
    Indexes,
}

impl Step<'_> {
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Check => "check",
            Self::Stage { .. } => "stage",
            Self::Stop { .. } => "stop",
            Self::Start { .. } => "start",
            Self::Undo => "undo",
            Self::Schema => "schema",
            Self::Load => "load",
            Self::Indexes => "indexes",
        }
    }

    fn words(self, add: &mut impl FnMut(&str, Option<&str>)) {
        match self {
            Self::State => add("--state", None),
            Self::Check => {
                add("--dry-run", None);
                add("--run", Some("plan"));
            }
            Self::Stage { run, hosts } => {
                add("--stage-only", None);
                add("--run", Some(run));
                for line in hosts {
                    add("--host", Some(line));
                }
            }
            Self::Stop { run } => {
                add("--stop-only", None);
                add("--run", Some(run));
            }
            Self::Start { run, seeds } => {
                if !seeds.is_empty() {
                    add("--seeds", Some(&seeds.join(",")));
                }
                add("--run", Some(run));
            }
            Self::Undo => add("--undo", None),
            Self::Schema => add("--schema-only", None),
            Self::Load => add("--no-schema", None),
            Self::Indexes => {
                add("--schema-only", None);
                add("--after-load", None);
            }
        }
    }
}

/// Gathers everything and makes the plan. Nothing is changed anywhere.
///
/// # Errors
/// The backup is not complete, or a target could not do its part: each of them is named.
pub async fn plan(context: &Context, options: &ClusterRestoreOptions, ssh: &Ssh) -> anyhow::Result<ClusterPlan> {
    let backup = targets::read_backup(context, options).await?;
    let Mapped { mapping, seeds, mut notes, run } = targets::map(context, options, ssh, &backup).await?;
    let is_whole = options.selection.includes_system();
    if mapping.method == Method::InPlace && options.keep_auth && is_whole {
        // Medusa keeps it where there is a host list, because it calls no restore with one in place.
        if matches!(options.choice, Choice::Listed(_)) {
            return Err(Failure::usage("system_auth cannot be kept in a restore in place: it would be overwritten")
                .hint("--keyspace and --table restore tables and leave it as it is; without --keep-auth it comes from the backup")
                .into());
        }
        notes.push("--keep-auth has no effect in place: roles and passwords come from the backup".to_owned());
    }
    let hosts: Vec<_> = mapping.assignments.iter().map(|given| given.target.clone()).collect();
    let monitor = &*context.monitor;
    monitor.title(&format!("asks {} whether they can restore", counted(hosts.len() as u64, "host")));
    let unfit = context.interrupt.or(async { anyhow::Ok(check_versions(ssh, &hosts).await) }).await?;
    if !unfit.is_empty() {
        let message =
            format!("{} of {} cannot be used; nothing was changed", unfit.len(), counted(hosts.len() as u64, "host"));
        return Err(Failure::failed(message)
            .details(unfit.into_iter().map(|(host, why)| format!("{host}: {why}")))
            .hint("every host must be reached by ssh and have the same version of medusa")
            .into());
    }
    let checks = check::all(context, options, ssh, &mapping).await?;
    targets::check_version(context, options, &mapping, &checks).await?;
    targets::check_blind(&mapping, &checks)?;
    targets::check_owners(mapping.assignments.iter().zip(&checks))?;
    notes.extend(version_note(options, &mapping, &checks));
    if mapping.method != Method::Load && options.load.is_about_schema() {
        notes.push("--recreate-tables, --dc-map and --replication have no effect: nothing is loaded".to_owned());
    }
    if is_whole && mapping.method == Method::Remote && !options.keep_auth {
        notes.push(
            "roles and passwords of the targets are replaced by those of the backup (--keep-auth keeps them)"
                .to_owned(),
        );
    }
    let run = run.unwrap_or_else(|| run_of(options, &checks));
    Ok(ClusterPlan::new(options, &backup, mapping, &seeds, checks, run, notes))
}

/// Where nobody says which release runs there.
fn version_note(options: &ClusterRestoreOptions, mapping: &Mapping, checks: &[Check]) -> Option<String> {
    let is_silent = |check: &&Check| check.cassandra.is_none() && check.installed.is_none() && check.phase.is_none();
    let silent = checks.iter().filter(is_silent).count() as u64;
    let is_asked = options.version_target.is_none() && mapping.method != Method::Load && silent > 0;
    is_asked.then(|| {
        format!(
            "Cassandra does not answer on {}: nobody compared its release with that of the backup (--version-target)",
            counted(silent, "target")
        )
    })
}

/// The run that is gone on with, or a new one.
fn run_of(options: &ClusterRestoreOptions, checks: &[Check]) -> String {
    let begun = checks.iter().filter(|check| check.is_begun()).find_map(|check| check.run.clone());
    begun.filter(|_| !options.again).unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()[..12].to_owned())
}

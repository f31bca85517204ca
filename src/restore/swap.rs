//! Stop, swap, start: the part of a restore during which Cassandra is down.
//!
//! Nothing is deleted here before Cassandra answers with the restored files. Any failure takes the moves back and starts
//! Cassandra with what it had.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use fs_err as fs;

use super::journal::{FOLDER, Journal, Phase, Rewrite, is_left_alone};
use super::moves::{Move, Purpose};
use super::plan::{Directory, RestorePlan};
use super::{Extent, RestoreOptions};
use crate::cassandra::naming::first_address;
use crate::cassandra::nodetool::Nodetool;
use crate::cassandra::service::{self, Service};
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::exec::command::ExecError;
use crate::model::names::TableFolder;
use crate::model::units::counted;

/// Between two looks for a seed, and how long it is looked for in all.
const SEED_POLL: Duration = Duration::from_secs(5);
const SEED_PATIENCE: Duration = Duration::from_hours(1);
/// A seed that serves its peers so long answers them, though it may serve no clients.
const SEED_SETTLES: Duration = Duration::from_mins(1);

/// What became of an interrupted restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was the same one, and it is done. Cassandra was down so long, if that is known.
    Done(Option<Duration>),
    /// It was the same one and had brought files, which can be used.
    Begun {
        /// All of them, compared.
        staged: bool,
    },
    /// It was the same one, and it waits for its swap or its start with Cassandra down.
    Waiting,
    /// It was another one, and nothing is left of it.
    Removed,
}

/// The means of a swap.
#[derive(Debug)]
pub struct Swap<'a> {
    pub context: &'a Context,
    pub yaml: &'a CassandraYaml,
    pub service: &'a Service<'a>,
    pub nodetool: &'a Nodetool,
}

impl Swap<'_> {
    /// Makes the swap. Returns how long Cassandra was down.
    pub async fn make(
        &self,
        plan: &RestorePlan,
        folder: &Path,
        journal: &mut Journal,
        seeds: &[String],
    ) -> anyhow::Result<Duration> {
        let begin = self.stop(plan, folder, journal).await?;
        if let Err(error) = self.swap_and_start(folder, journal, seeds).await {
            return Err(self.take_back(folder, journal, error).await);
        }
        let down = begin.elapsed();
        journal.complete(folder, now())?;
        Ok(down)
    }

    /// Prepares the schema, stops Cassandra and writes down what is to be moved. Returns since when it is down.
    pub async fn stop(&self, plan: &RestorePlan, folder: &Path, journal: &mut Journal) -> anyhow::Result<Instant> {
        let (context, service) = (self.context, self.service);
        context.interrupt.check()?;
        if let Err(error) = self.run_statements(&plan.statements).await {
            let message =
                "a statement that prepares the schema failed; no file was changed, but earlier statements stay";
            let hint = format!("see the plan with --dry-run; files that were brought stay in {}", folder.display());
            return Err(Failure::failed(message).cause(error).hint(hint).into());
        }
        let begin = Instant::now();
        let unchanged = |problem: &str, failure: Failure| {
            let changed =
                if plan.statements.is_empty() { "nothing was changed" } else { "nothing but the schema was changed" };
            let hint = failure.hint.clone().unwrap_or_default();
            Failure::failed(format!("{changed}: {problem}")).cause(failure).hint(hint)
        };
        if plan.drain {
            let drained = self.nodetool.drain().await;
            drained.map_err(|failure| {
                let cause = failure.cause.as_ref().and_then(|cause| cause.downcast_ref());
                if matches!(cause, Some(ExecError::Deadline { .. })) {
                    let hint = "see nodetool netstats: a drained Cassandra serves no clients until it is restarted; \
                                snapshot_timeout in [cassandra] sets how long to wait";
                    return Failure::failed("no file was changed, but Cassandra may still be flushing its tables")
                        .cause(failure)
                        .hint(hint);
                }
                unchanged("Cassandra could not flush its tables", failure)
            })?;
        }
        // Not interruptible: what is half stopped would have to be started again anyway.
        if let Err(failure) = service.stop().await {
            let drained = if plan.drain { "; it was drained and serves no clients until it is restarted" } else { "" };
            let state = if service.is_running() {
                format!("Cassandra could not be stopped{drained}")
            } else if !journal.was_running {
                "Cassandra is down, as it was before".to_owned()
            } else if let Err(error) = self.start_again().await {
                format!("Cassandra is down and could not be started again: {}", one_line(&error.into()))
            } else {
                "Cassandra was stopped, and started again".to_owned()
            };
            return Err(unchanged(&state, failure).into());
        }
        context.monitor.step("stop", &plan.stop_command, begin.elapsed());
        if let Err(error) = self.write_down(plan, folder, journal) {
            return Err(self.take_back(folder, journal, error).await);
        }
        Ok(begin)
    }

    fn write_down(&self, plan: &RestorePlan, folder: &Path, journal: &mut Journal) -> anyhow::Result<()> {
        journal.moves = moves(plan, folder)?;
        let places = journal.moves.iter().filter(|step| step.purpose == Purpose::Place);
        let keyspaces: std::collections::BTreeSet<_> = places.filter_map(|step| step.to.parent()).collect();
        journal.made = keyspaces.into_iter().filter(|folder| !folder.exists()).map(Path::to_owned).collect();
        journal.emptied.clone_from(&plan.emptied);
        journal.rewrite = match &plan.tokens {
            Some(edit) => {
                let before = fs::read_to_string(&self.yaml.path)?;
                Some(Rewrite { path: self.yaml.path.clone(), after: edit.apply(&before)?, before })
            }
            None => None,
        };
        journal.phase = Phase::Stopped;
        journal.write(folder)
    }

    /// From `Stopped`, or from wherever a crash left it later. After the swap Cassandra may have taken writes: nothing is
    /// swapped again.
    async fn swap_and_start(&self, folder: &Path, journal: &mut Journal, seeds: &[String]) -> anyhow::Result<()> {
        let begin = Instant::now();
        self.context.interrupt.check()?;
        if journal.phase != Phase::Starting {
            if self.service.is_running() {
                return Err(Failure::failed("somebody started Cassandra while it was down for the restore")
                    .hint("nothing may start it meanwhile: systemd, cron, Puppet and the like")
                    .into());
            }
            journal.phase = Phase::Swapping;
            journal.write(folder)?;
            go_forward(journal)?;
            // From here on Cassandra may be started by anybody, and what it writes belongs to the restored files.
            journal.phase = Phase::Starting;
            journal.write(folder)?;
            self.context.monitor.step("swap", &counted(journal.tables as u64, "table folder"), begin.elapsed());
        }
        self.wait_for_seeds(seeds).await?;
        self.start(folder, journal).await
    }

    async fn start(&self, folder: &Path, journal: &mut Journal) -> anyhow::Result<()> {
        let begin = Instant::now();
        journal.phase = Phase::Starting;
        journal.write(folder)?;
        self.service.start().await?;
        self.service.wait_until_healthy(&self.context.interrupt).await?;
        let detail = format!("{}, answers on {}", self.service.start_command(), self.service.endpoint());
        self.context.monitor.step("start", &detail, begin.elapsed());
        Ok(())
    }

    /// Puts everything back and starts Cassandra with it. Returns what to tell.
    async fn take_back(&self, folder: &Path, journal: &Journal, cause: anyhow::Error) -> anyhow::Error {
        self.context.monitor.problem(&format!("{}; the previous data is put back", one_line(&cause)));
        let kind = cause.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map(|failure| failure.kind);
        let hint = cause.chain().find_map(|cause| cause.downcast_ref::<Failure>()?.hint.clone());
        let folder_shown = folder.display();
        let stay = format!("the files that were brought stay in {folder_shown} for the next attempt");
        let (message, hint) = match self.put_back(folder, journal).await {
            Err(error) => (
                format!("the restore failed, and the previous data could not be put back: {}", one_line(&error)),
                format!("the same command goes on; the previous files are in {folder_shown}/undo until it succeeds"),
            ),
            Ok(()) if !journal.was_running => (
                "the restore failed; the previous data is back, and Cassandra is down as it was before".to_owned(),
                hint.unwrap_or(stay),
            ),
            Ok(()) => match self.start_again().await {
                Err(failure) => (
                    format!(
                        "the restore failed; the previous data is back, but Cassandra could not be started with it: {}",
                        one_line(&failure.into())
                    ),
                    hint.unwrap_or(stay),
                ),
                Ok(()) => (
                    "the restore failed; the previous data is back and Cassandra was started with it".to_owned(),
                    hint.unwrap_or(stay),
                ),
            },
        };
        let mut failure = Failure::failed(message);
        failure.kind = kind.unwrap_or(failure.kind);
        failure.cause(cause).hint(hint).into()
    }

    /// Puts the previous files back. Cassandra is down afterwards.
    async fn put_back(&self, folder: &Path, journal: &Journal) -> anyhow::Result<()> {
        let phase = if journal.phase.is_before_swap() {
            Phase::Staged
        } else {
            if self.service.is_running() || journal.phase == Phase::Starting {
                self.service.stop().await?;
            }
            journal.backward()?;
            // Cassandra may have run with the files.
            Phase::Staging
        };
        journal.write_taken_back(folder, phase)
    }

    /// Takes back what was done to Cassandra: the previous data is in its place, and Cassandra runs with it if it ran before.
    /// What was brought stays.
    ///
    /// # Errors
    /// The restore has come to its end, or the previous data cannot be put back.
    pub async fn undo(&self, folder: &Path, journal: &Journal) -> anyhow::Result<()> {
        if journal.phase == Phase::Done || (journal.phase == Phase::Starting && self.has_run(folder).await?) {
            return Err(Failure::failed("the restore cannot be taken back: Cassandra has run with the restored files")
                .hint("restore an older backup")
                .into());
        }
        let begin = Instant::now();
        if !matches!(journal.phase, Phase::Staging | Phase::Staged) {
            self.put_back(folder, journal).await?;
        } else if !journal.was_running || self.service.is_running() {
            return Ok(());
        }
        // Also where a run was killed between its stop command and its journal.
        if journal.was_running && !self.service.is_running() {
            self.start_again().await?;
        }
        self.context.monitor.step("undo", "the previous data is in its place", begin.elapsed());
        Ok(())
    }

    async fn start_again(&self) -> Result<(), Failure> {
        // The signal that ended the restore must not end this.
        let patient = crate::interrupt::Interrupt::default();
        if !self.service.is_running() {
            self.service.start().await?;
        }
        self.service.wait_until_healthy(&patient).await
    }

    /// Deals with a restore that was interrupted before.
    pub async fn settle(
        &self,
        folder: &Path,
        mut journal: Journal,
        command: &str,
        options: &RestoreOptions,
    ) -> anyhow::Result<Settled> {
        let same = journal.command == command;
        let is_of_other_run = same && options.run.is_some() && journal.run != options.run;
        if is_of_other_run {
            journal.run.clone_from(&options.run);
            if !options.hosts.is_empty() {
                journal.hosts.clone_from(&options.hosts);
            }
        }
        let monitor = &*self.context.monitor;
        match journal.phase {
            // Its files are used again if the same backup is restored, and removed otherwise.
            Phase::Staging | Phase::Staged if same => Ok(Settled::Begun { staged: journal.phase == Phase::Staged }),
            Phase::Staging | Phase::Staged => journal.remove(folder).map(|()| Settled::Removed),
            // Somebody has started it since: the commit log and the tables are no longer those that were written down.
            Phase::Stopped if same && self.service.is_running() => {
                self.put_back(folder, &journal).await?;
                Ok(Settled::Begun { staged: true })
            }
            Phase::Done | Phase::Starting if journal.phase == Phase::Done || self.has_run(folder).await? => {
                monitor.title("  an interrupted restore had come to its end: what it set aside is removed");
                if same {
                    journal.complete(folder, now())?;
                    return Ok(Settled::Done(None));
                }
                journal.remove(folder).map(|()| Settled::Removed)
            }
            Phase::Stopped | Phase::Swapping | Phase::Starting if same && options.extent != Extent::Whole => {
                // Of the later phases the time of the journal counts.
                if is_of_other_run && journal.phase == Phase::Stopped {
                    journal.write(folder)?;
                }
                Ok(Settled::Waiting)
            }
            Phase::Stopped | Phase::Swapping | Phase::Starting if same => {
                monitor.title("  goes on with the restore that was begun");
                let stopped = (journal.phase == Phase::Stopped).then(|| Journal::written(folder)).transpose()?;
                let was_moved = journal.phase != Phase::Stopped;
                let mut going = journal.clone();
                let went_on = async {
                    let is_running = was_moved && self.service.is_running();
                    if is_running && let Err(failure) = self.nodetool.drain().await {
                        tracing::warn!("{}", one_line(&failure.into()));
                    }
                    if is_running || journal.phase == Phase::Starting {
                        self.service.stop().await?;
                    }
                    self.swap_and_start(folder, &mut going, &options.seeds).await
                };
                if let Err(error) = went_on.await {
                    return Err(self.take_back(folder, &going, error).await);
                }
                journal.complete(folder, now())?;
                Ok(Settled::Done(stopped.and_then(|since| since.elapsed().ok())))
            }
            Phase::Stopped | Phase::Swapping | Phase::Starting | Phase::Done => {
                monitor.title("  takes back another restore that was interrupted");
                self.put_back(folder, &journal).await?;
                if journal.was_running && !self.service.is_running() {
                    self.start_again().await?;
                }
                journal.remove(folder)?;
                Ok(Settled::Removed)
            }
        }
    }

    /// Whether Cassandra has run with the restored files: it answers, or it wrote a commit log long after it was started.
    async fn has_run(&self, folder: &Path) -> anyhow::Result<bool> {
        if self.service.check_health().await.is_ok() {
            return Ok(true);
        }
        let swapped = Journal::written(folder)?;
        let mut newest = None;
        match fs::read_dir(&self.yaml.commitlog_directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries? {
                    newest = newest.max(Some(entry?.metadata()?.modified()?));
                }
            }
        }
        let limit = swapped + self.context.config.cassandra.start_timeout;
        Ok(newest.is_some_and(|newest| newest > limit))
    }

    async fn run_statements(&self, statements: &[String]) -> anyhow::Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        let cql = self.context.cql(self.yaml).await?;
        for statement in statements.iter().flat_map(|statement| crate::model::cql::statements(statement)) {
            cql.execute(statement).await?;
        }
        cql.agree_on_schema().await?;
        self.context.monitor.step("schema", &counted(statements.len() as u64, "statement"), begin.elapsed());
        Ok(())
    }

    async fn wait_for_seeds(&self, seeds: &[String]) -> anyhow::Result<()> {
        if seeds.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        let (mut is_told, mut in_reach): (_, Option<Instant>) = (false, None);
        while begin.elapsed() < SEED_PATIENCE {
            let mut addresses: Vec<_> = seeds.iter().filter_map(|seed| first_address(seed)).collect();
            if addresses.is_empty() {
                // Names of ssh may mean nothing here. Cassandra will ask those that it knows.
                addresses = self.yaml.seeds.iter().filter_map(|seed| first_address(seed)).collect();
            }
            let is_open = |port| addresses.iter().any(|address| service::is_open((*address, port).into()));
            // A seed takes connections of its peers before it answers them, and they end if it does not within ring_delay.
            let settled = |since: Instant| since.elapsed() > SEED_SETTLES;
            in_reach = is_open(self.yaml.storage_port).then(|| in_reach.unwrap_or_else(Instant::now));
            if is_open(self.yaml.native_port) || in_reach.is_some_and(settled) {
                return Ok(());
            }
            if !std::mem::replace(&mut is_told, true) {
                self.context.monitor.title(&format!("  waits until one of {} is up", seeds.join(", ")));
            }
            self.context
                .interrupt
                .or(async {
                    tokio::time::sleep(SEED_POLL).await;
                    anyhow::Ok(())
                })
                .await?;
        }
        Err(Failure::failed(format!("none of the seeds {} came up within an hour", seeds.join(", "))).into())
    }
}

/// Unix seconds.
fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// Folders of a table that are not part of its files and stay with it.
pub const KEPT: [&str; 2] = ["snapshots", "backups"];

/// Makes the renames, durably.
fn go_forward(journal: &Journal) -> anyhow::Result<()> {
    journal.forward()?;
    let parents =
        journal.moves.iter().filter_map(|step| step.to.parent()).chain(journal.emptied.iter().map(PathBuf::as_path));
    let mut synced = std::collections::BTreeSet::new();
    for folder in parents.filter(|folder| folder.exists()) {
        if synced.insert(std::os::unix::fs::MetadataExt::dev(&fs::metadata(folder)?)) {
            super::stage::sync_file_system(folder)?;
        }
    }
    Ok(())
}

/// The folder in which a table is staged for a directory.
pub fn stage_folder(plan: &RestorePlan, directory: usize, table: &TableFolder) -> PathBuf {
    plan.directories[directory].work.join("stage").join(&table.keyspace).join(&table.folder)
}

/// Owner and group to give to a file, if we may and it is not ours anyway.
pub fn owner_to_set(owner: (u32, u32)) -> Option<(u32, u32)> {
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    (own != owner && own.0 == 0).then_some(owner)
}

/// Whether a restore made it, or something above it.
fn is_ours(folder: &Path) -> bool {
    folder.iter().any(|part| part.to_string_lossy().starts_with(FOLDER))
}

/// Makes a folder as Cassandra makes its own, with all above it.
pub fn make_folder(folder: &Path, owner: (u32, u32)) -> anyhow::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {
            let user = std::os::unix::fs::MetadataExt::uid(&metadata);
            // In a folder for temporary files anybody may have made it first.
            if is_ours(folder) && user != owner.0 && user != nix::unistd::geteuid().as_raw() {
                bail!("{} is in the way: it belongs to user {user}", folder.display());
            }
            return Ok(());
        }
        // A data directory may be a link to another disk; a folder of ours never is.
        Ok(metadata) if metadata.is_symlink() && !is_ours(folder) && folder.is_dir() => return Ok(()),
        Ok(_) => bail!("{} is in the way: it is no folder", folder.display()),
        Err(_) => {}
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent, owner)?;
    }
    fs::create_dir(folder)?;
    fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    if let Some((user, group)) = owner_to_set(owner) {
        std::os::unix::fs::chown(folder, Some(user), Some(group))?;
    }
    Ok(())
}

/// Everything that the restore makes and removes in the end.
pub fn folders(plan: &RestorePlan, journal_folder: &Path) -> Vec<PathBuf> {
    let name = format!("{FOLDER}{}", plan.backup);
    let mut folders: Vec<_> = plan.directories.iter().map(|directory| directory.work.clone()).collect();
    folders.extend(plan.directories.iter().map(|directory| directory.data.join(&name)));
    folders.extend(plan.emptied.iter().map(|folder| folder.join(&name)));
    folders.push(journal_folder.to_owned());
    folders.sort();
    folders.dedup();
    folders
}

/// The renames, from what is on the disk now that Cassandra is down.
fn moves(plan: &RestorePlan, journal_folder: &Path) -> anyhow::Result<Vec<Move>> {
    let mut moves = Vec::new();
    let name = journal_folder.file_name().unwrap_or_default();
    let restored = plan.tables.iter().map(|table| &table.target);
    for table in restored.chain(&plan.set_aside) {
        for (index, Directory { data, .. }) in plan.directories.iter().enumerate() {
            let live = data.join(&table.keyspace).join(&table.folder);
            let staged = stage_folder(plan, index, table);
            let undo = data.join(name).join("undo").join(&table.keyspace).join(&table.folder);
            if live.exists() {
                // A folder in its place, be it empty: Cassandra makes one anyway, and it must be told from the old one.
                make_folder(&staged, plan.directories[index].owner)?;
                moves.push(Move { purpose: Purpose::SetAside, from: live.clone(), to: undo.clone() });
            }
            if staged.exists() {
                moves.push(Move { purpose: Purpose::Place, from: staged, to: live.clone() });
            }
            for kept in KEPT.into_iter().filter(|kept| live.join(kept).is_dir()) {
                moves.push(Move { purpose: Purpose::Keep, from: undo.join(kept), to: live.join(kept) });
            }
        }
    }
    for folder in &plan.emptied {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let Some(entry_name) = path.file_name().filter(|name| !is_left_alone(name)) else { continue };
            let to = folder.join(name).join("undo").join(entry_name);
            moves.push(Move { purpose: Purpose::SetAside, from: path, to });
        }
    }
    Ok(moves)
}

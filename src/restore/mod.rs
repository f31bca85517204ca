//! The restore of one node.
//!
//! Gather and plan: nothing is touched before the backup is known to be complete and readable, to fit the disk and to match
//! the node. Stage: files are brought beside the tables and compared with their hashes while Cassandra runs. Swap: Cassandra
//! is stopped, folders are renamed, Cassandra is started. The old folders are kept until it answers; whatever fails before,
//! they are put back and Cassandra is started with them. A crash at any point is repaired by the same command: see
//! [`journal`].

pub mod checks;
pub mod download;
pub mod fetch;
pub mod fit;
pub mod gather;
pub mod journal;
pub mod load;
pub mod moves;
pub mod place;
pub mod plan;
pub mod runs;
pub mod select;
pub mod stage;
pub mod swap;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::journal::{Journal, Phase, Restored};
use self::plan::{Mode, RestorePlan};
use self::select::Selection;
use self::stage::{Staged, stage};
use self::swap::{Settled, Swap};
use crate::cassandra::nodetool::Nodetool;
use crate::cassandra::service::Service;
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::Failure;
use crate::model::look::{Look, Tone};
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::{Zone, counted, size, span, took};
use crate::monitor::Amount;

/// Between two attempts to lock the node.
const LOCK_POLL: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    pub name: BackupName,
    pub mode: Mode,
    /// Leave `system_auth` as it is (remote restores only).
    pub keep_auth: bool,
    pub selection: Selection,
    /// Hosts of which one must be up before Cassandra is started.
    pub seeds: Vec<String>,
    pub temp_dir: Option<PathBuf>,
    /// Run the `[checks]` afterwards.
    pub verify: bool,
    pub extent: Extent,
    /// The run of a whole cluster that this belongs to.
    pub run: Option<String>,
    /// Its plan, as the lines of a host list.
    pub hosts: Vec<String>,
    /// Which release starts here is known: what is installed is not looked at.
    pub is_release_known: bool,
}

/// How much of a restore one run does: those of a whole cluster go step by step on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// Files are brought and compared. Cassandra goes on running.
    Stage,
    /// As far as Cassandra being down for the swap.
    Stop,
    /// What the same restore did to Cassandra is taken back.
    Undo,
}

impl RestoreOptions {
    fn work_folder(&self, data: &Path, index: usize) -> PathBuf {
        place::work_folder(data, index, self.name.as_str(), self.temp_dir.as_deref())
    }

    /// What makes a command the same one.
    fn command(&self, source: &Fqdn) -> String {
        json!({
            "backup": self.name.as_str(),
            "source": source.as_str(),
            "remote": self.mode == Mode::Remote,
            "keep_auth": self.keep_auth,
            "keyspaces": self.selection.keyspaces,
            "tables": self.selection.tables,
            "with_system": self.selection.with_system,
        })
        .to_string()
    }
}

/// Where a run left the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Cassandra runs with the restored files.
    Restored,
    /// The files are there; Cassandra was not touched.
    Staged,
    /// Cassandra is down for the swap, or a run got further than that and was interrupted.
    Stopped,
    /// The previous data is in its place.
    Undone,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Staged => "staged",
            Self::Stopped => "stopped",
            Self::Undone => "undone",
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct RestoreOutcome {
    pub state: State,
    pub name: BackupName,
    pub source: Fqdn,
    pub tables: usize,
    pub linked: Amount,
    pub downloaded: Amount,
    /// Files that could not be compared with a hash.
    pub unchecked: usize,
    /// Unix seconds.
    pub began: i64,
    pub took: Duration,
    /// How long Cassandra was down. `None` if an interrupted restore was only brought to its end.
    pub down: Option<Duration>,
}

impl RestoreOutcome {
    pub fn text(&self, look: Look) -> String {
        let tables = counted(self.tables as u64, "table");
        let brought = || {
            let (downloaded, linked) = (size(self.downloaded.bytes), size(self.linked.bytes));
            format!("{tables}, {downloaded} downloaded, {linked} were on this node; {}", self.compared())
        };
        let of = format!("{} of {}", self.name, self.source);
        let (head, mut lines) = match self.state {
            State::Staged => (format!("{of} is staged, Cassandra was not touched"), vec![brought()]),
            State::Stopped => {
                (format!("{of} waits for its swap"), vec!["Cassandra is down, no file was moved yet".to_owned()])
            }
            State::Undone => (format!("{of} is taken back: the previous data is in its place"), Vec::new()),
            State::Restored => {
                let restored = look.paint(Tone::Good, "restored");
                (format!("{} {restored} from {}", self.name, self.source), self.lines(&tables))
            }
        };
        lines.push(span(Zone::chosen(), self.began, self.took));
        format!("{head}\n") + &lines.iter().map(|line| look.folded(&format!("  {line}"), 4)).collect::<String>()
    }

    fn lines(&self, tables: &str) -> Vec<String> {
        let Some(down) = self.down else {
            return vec![format!("{tables}; the interrupted restore was brought to its end")];
        };
        let downloaded =
            format!("{} downloaded ({})", counted(self.downloaded.files, "file"), size(self.downloaded.bytes));
        let linked = format!("{} were on this node ({})", counted(self.linked.files, "file"), size(self.linked.bytes));
        vec![
            format!("{tables}, {downloaded}, {linked}"),
            format!("{}; Cassandra was down for {}", self.compared(), took(down)),
        ]
    }

    fn compared(&self) -> String {
        if self.unchecked == 0 {
            return "every byte compared with the manifest".to_owned();
        }
        let files = counted(self.unchecked as u64, "file");
        format!("compared with the manifest, {files} by size only: cassandra-medusa recorded no hash that fits them")
    }

    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "state": self.state.name(),
            "name": self.name.as_str(),
            "source": self.source.as_str(),
            "tables": self.tables,
            "downloaded_files": self.downloaded.files,
            "downloaded_bytes": self.downloaded.bytes,
            "local_files": self.linked.files,
            "local_bytes": self.linked.bytes,
            "unchecked_files": self.unchecked,
            "seconds": self.took.as_secs_f64(),
            "down_seconds": self.down.map(|down| down.as_secs_f64()),
        })
    }
}

/// What a dry run says.
#[derive(Debug)]
pub enum DryRun {
    Plan(Box<RestorePlan>, Progress),
    /// The same restore was begun, and has stopped Cassandra or is about to.
    Begun(BackupName, Fqdn, Progress),
}

/// How far the same restore got on this node before.
#[derive(Debug, Default)]
pub struct Progress {
    pub phase: Option<Phase>,
    /// The run of a whole cluster that it belonged to.
    pub run: Option<String>,
    /// Unix seconds; of one that came to its end.
    pub finished: Option<i64>,
    /// Whether the node is a seed of its cluster.
    pub is_seed: bool,
}

impl Progress {
    fn json(&self) -> Value {
        let restored = self.finished.map(|_| "restored");
        let phase = self.phase.as_ref().map(Phase::name).or(restored);
        json!({ "phase": phase, "run": self.run, "finished": self.finished })
    }
}

impl DryRun {
    pub fn text(&self, look: Look) -> String {
        match self {
            Self::Plan(plan, _) => plan.text(look),
            Self::Begun(name, source, progress) => {
                let phase = progress.phase.as_ref().map_or("begun", Phase::name);
                let begun = format!("the restore of {name} of {source} was begun ({phase})");
                look.folded(&format!("{begun}; the same command goes on with it"), 2)
            }
        }
    }

    pub fn json(&self) -> Value {
        match self {
            Self::Plan(plan, progress) => {
                let mut document = plan.json();
                document["progress"] = progress.json();
                document["seed"] = progress.is_seed.into();
                document
            }
            Self::Begun(name, source, progress) => json!({
                "version": 1,
                "dry_run": true,
                "backup": name.as_str(),
                "source": source.as_str(),
                "progress": progress.json(),
                "seed": progress.is_seed,
            }),
        }
    }
}

/// Says what a restore would do.
pub async fn dry_run(context: &Context, options: &RestoreOptions) -> anyhow::Result<DryRun> {
    let yaml = context.cassandra_yaml()?;
    let command = options.command(&context.fqdn);
    let (mut progress, mut notes) = (Progress { is_seed: yaml.is_seed(), ..Progress::default() }, Vec::new());
    for (_, restored) in restored(&yaml)?.into_iter().filter(|(_, restored)| restored.command == command) {
        progress = Progress { run: Some(restored.run), finished: Some(restored.finished), ..progress };
    }
    for (folder, journal) in unfinished(&yaml)? {
        let same = journal.command == command;
        let is_touched = !matches!(journal.phase, Phase::Staging | Phase::Staged);
        if same {
            // Who works on it is about to stop Cassandra: a plan would find it neither up nor down.
            let is_worked_on = journal.phase == Phase::Staged && holder_of(&yaml).is_some();
            progress = Progress { phase: Some(journal.phase), run: journal.run, finished: None, ..progress };
            if is_touched || is_worked_on {
                return Ok(DryRun::Begun(options.name.clone(), context.fqdn.clone(), progress));
            }
        } else if is_touched {
            notes.push(format!("an interrupted restore ({}) is taken back first", folder.display()));
        }
    }
    let service = Service::new(&context.config, &yaml)?;
    let mut plan = make_plan(context, options, &yaml, &service, true).await?;
    plan.notes.extend(notes);
    Ok(DryRun::Plan(Box::new(plan), progress))
}

/// The plan, if it can be carried out on this node's disks.
async fn make_plan(
    context: &Context,
    options: &RestoreOptions,
    yaml: &CassandraYaml,
    service: &Service<'_>,
    asks: bool,
) -> anyhow::Result<RestorePlan> {
    let plan = gather::plan(context, options, yaml, service, asks).await?;
    place::check_renames(&plan.directories, plan.tables.iter().map(|table| &table.target).chain(&plan.set_aside))?;
    Ok(plan)
}

/// Restores the node, or does a part of it.
pub async fn run(context: &Context, options: &RestoreOptions) -> anyhow::Result<RestoreOutcome> {
    let begin = Instant::now();
    let yaml = context.cassandra_yaml()?;
    let command = options.command(&context.fqdn);
    let _held = hold(context, options, &yaml, &command).await?;
    let service = Service::new(&context.config, &yaml)?;
    let nodetool = Nodetool::new(&context.config.cassandra)?;
    let swap = Swap { context, yaml: &yaml, service: &service, nodetool: &nodetool };
    let ended = |staged: &Staged, state, tables, down| staged.outcome(context, options, state, tables, begin, down);
    let nothing = Staged::default();
    if options.extent == Extent::Undo {
        for (folder, journal) in unfinished(&yaml)?.into_iter().filter(|(_, journal)| journal.command == command) {
            swap.undo(&folder, &journal).await?;
        }
        return Ok(ended(&nothing, State::Undone, 0, None));
    }
    let monitor = &*context.monitor;
    monitor.title(&format!("restore {} of {} from {}", options.name, context.fqdn, context.storage.location()));
    let (mut begun_folders, mut ran_then, mut are_staged) = (Vec::new(), false, false);
    // Only the first step is told the plan of the cluster.
    let mut hosts = options.hosts.clone();
    for (folder, journal) in unfinished(&yaml)? {
        if hosts.is_empty() && journal.command == command {
            hosts.clone_from(&journal.hosts);
        }
        let (tables, folders, was_running) = (journal.tables, journal.folders.clone(), journal.was_running);
        match swap.settle(&folder, journal, &command, options).await? {
            Settled::Done(down) => {
                return finish(context, options, ended(&nothing, State::Restored, tables, down)).await;
            }
            Settled::Waiting => return Ok(ended(&nothing, State::Stopped, tables, None)),
            Settled::Begun { staged } => {
                begun_folders.extend(folders);
                ran_then |= was_running;
                are_staged |= staged;
            }
            Settled::Removed => {}
        }
    }
    for (folder, restored) in restored(&yaml)? {
        if options.run.as_ref() == Some(&restored.run) && restored.command == command {
            monitor.title("  this run has restored the node already");
            return Ok(ended(&nothing, State::Restored, 0, None));
        }
        Restored::forget(&folder)?;
    }
    let is_alone = options.run.is_none();
    let plan = context.interrupt.or(make_plan(context, options, &yaml, &service, is_alone)).await?;
    let (all, local) = plan.amounts();
    monitor.step(
        "plan",
        &format!(
            "{}, {}, {} on this node",
            counted(plan.tables.len() as u64, "table"),
            size(all.bytes),
            size(local.bytes)
        ),
        begin.elapsed(),
    );

    let folder = journal_folder(&plan)?;
    let mut journal = Journal {
        version: Journal::VERSION,
        command,
        phase: Phase::Staging,
        moves: Vec::new(),
        made: Vec::new(),
        emptied: Vec::new(),
        rewrite: None,
        folders: swap::folders(&plan, &folder).into_iter().chain(begun_folders).collect(),
        tables: plan.tables.len(),
        was_running: ran_then || service.is_running(),
        run: options.run.clone(),
        hosts,
    };
    moves::make_as_its_parent(&folder)?;
    journal.write(&folder)?;
    let staged = context.interrupt.or(stage(context, &plan, are_staged)).await;
    let staged = staged.map_err(|error| not_staged(error, &folder))?;
    journal.phase = Phase::Staged;
    journal.write(&folder)?;
    match options.extent {
        Extent::Stage => Ok(ended(&staged, State::Staged, plan.tables.len(), None)),
        Extent::Stop => {
            swap.stop(&plan, &folder, &mut journal).await?;
            Ok(ended(&staged, State::Stopped, plan.tables.len(), None))
        }
        Extent::Whole | Extent::Undo => {
            if let Some(edit) = plan.tokens.as_ref().filter(|_| is_alone && plan.id.is_some() && service.is_up()) {
                context.interrupt.or(gather::check_owners(context, &yaml, &edit.tokens)).await?;
            }
            let down = swap.make(&plan, &folder, &mut journal, &options.seeds).await?;
            finish(context, options, ended(&staged, State::Restored, plan.tables.len(), Some(down))).await
        }
    }
}

/// One restore at a time: another one would move the files of this one, or take back what it does. The lock ends with the
/// process, however that ends. A step of a run for a whole cluster waits for the step of the same restore that a coordinator
/// which was killed has left at work.
async fn hold(
    context: &Context,
    options: &RestoreOptions,
    yaml: &CassandraYaml,
    command: &str,
) -> anyhow::Result<Option<std::fs::File>> {
    let Some(data) = yaml.data_directories.first() else { return Ok(None) };
    let folder = match fs_err::File::open(data) {
        // The plan says what is wrong.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened?.into_parts().0,
    };
    let begin = Instant::now();
    let cassandra = &context.config.cassandra;
    let patience = cassandra.snapshot_timeout + cassandra.stop_timeout + cassandra.start_timeout;
    let mut is_told = false;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(folder)),
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(Failure::failed(format!("could not lock {}", data.display())).cause(error).into());
            }
        }
        let is_same = || anyhow::Ok(unfinished(yaml)?.iter().any(|(_, journal)| journal.command == command));
        if options.run.is_none() || begin.elapsed() > patience || !is_same()? {
            let who = holder(&folder).map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let message = format!("another restore works on this node{who}; it has locked {}", data.display());
            let hint = "wait for its end, or end it: the same command then goes on";
            return Err(Failure::failed(message).hint(hint).into());
        }
        if !std::mem::replace(&mut is_told, true) {
            context.monitor.title("  waits for an earlier step of this restore that is still at work");
        }
        context
            .interrupt
            .or(async {
                tokio::time::sleep(LOCK_POLL).await;
                anyhow::Ok(())
            })
            .await?;
    }
}

/// The process that works on this node.
fn holder_of(yaml: &CassandraYaml) -> Option<String> {
    holder(fs_err::File::open(yaml.data_directories.first()?).ok()?.file())
}

/// The process that has the lock, by proc(5).
fn holder(folder: &std::fs::File) -> Option<String> {
    let inode = format!(":{}", std::os::unix::fs::MetadataExt::ino(&folder.metadata().ok()?));
    let locks = fs_err::read_to_string("/proc/locks").ok()?;
    let mut locks = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let lock =
        locks.find(|fields| fields.get(1) == Some(&"FLOCK") && fields.get(5).is_some_and(|at| at.ends_with(&inode)))?;
    lock.get(4).map(|pid| (*pid).to_owned())
}

async fn finish(
    context: &Context,
    options: &RestoreOptions,
    outcome: RestoreOutcome,
) -> anyhow::Result<RestoreOutcome> {
    if options.verify {
        let yaml = context.cassandra_yaml()?;
        checks::run(context, &yaml).await?;
    }
    Ok(outcome)
}

/// The failure before anything was touched, with what is left of it.
fn not_staged(error: anyhow::Error, folder: &Path) -> anyhow::Error {
    let left =
        format!("nothing was changed; files that were brought stay in {} for the next attempt", folder.display());
    let told = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()?.hint.clone());
    let hint = told.map_or_else(|| left.clone(), |told| format!("{left}; {told}"));
    match error.downcast::<Failure>() {
        Ok(failure) => failure.hint(hint).into(),
        Err(error) => Failure::failed("the files could not be brought to this node").cause(error).hint(hint).into(),
    }
}

/// The folder that holds the journal: that of the first data directory, so that any later restore finds it.
fn journal_folder(plan: &RestorePlan) -> anyhow::Result<PathBuf> {
    let first = plan.directories.first().ok_or_else(|| Failure::failed("cassandra.yaml names no data directory"))?;
    Ok(first.data.join(format!("{}{}", journal::FOLDER, plan.backup)))
}

fn unfinished(yaml: &CassandraYaml) -> anyhow::Result<Vec<(PathBuf, Journal)>> {
    yaml.data_directories.first().map_or_else(|| Ok(Vec::new()), |first| Journal::unfinished(first))
}

fn restored(yaml: &CassandraYaml) -> anyhow::Result<Vec<(PathBuf, Restored)>> {
    yaml.data_directories.first().map_or_else(|| Ok(Vec::new()), |first| Restored::all(first))
}

impl Staged {
    fn outcome(
        &self,
        context: &Context,
        options: &RestoreOptions,
        state: State,
        tables: usize,
        begin: Instant,
        down: Option<Duration>,
    ) -> RestoreOutcome {
        let (name, source) = (options.name.clone(), context.fqdn.clone());
        RestoreOutcome {
            state,
            name,
            source,
            tables,
            linked: self.linked,
            downloaded: self.downloaded,
            unchecked: self.unchecked,
            began: context.now.timestamp(),
            took: begin.elapsed(),
            down,
        }
    }
}

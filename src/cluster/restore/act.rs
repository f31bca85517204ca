//! Carrying out the plan: all bring their files, all stop, all start.
//!
//! What a coordinator that is killed leaves behind: jobs go on by themselves as far as their step goes. Targets that have
//! brought files keep them; targets that are down stay down, with their data untouched, until the same command goes on. After
//! an error or a signal before the swap, the targets that were stopped are started again with what they had.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mapping::{Mapping, Method};
use super::plan::{ClusterPlan, PlannedTarget};
use super::report::{ClusterOutcome, State, TargetOutcome};
use super::{ClusterRestoreOptions, Step, check, targets};
use crate::cluster::hosts::connect;
use crate::cluster::remote::on_hosts;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::exec::job::JobEnd;
use crate::exec::ssh::{Ssh, SshError};
use crate::model::units::{counted, took};
use crate::restore::checks;

/// Between two lines about what is waited for.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A plan that is longer, in bytes, does not go along: a command line of ssh has its limit.
const LONGEST_PLAN: usize = 56 << 10;
/// The name of the option and quotes.
const AROUND_A_LINE: usize = 12;

/// What a shell says of a process that was killed.
const KILLED: i32 = 128 + 9;

/// What is needed for every step.
struct Act<'a> {
    context: &'a Context,
    options: &'a ClusterRestoreOptions,
    plan: &'a ClusterPlan,
    ssh: &'a Ssh,
    begin: Instant,
}

/// How a step ended on a target.
struct Ended<'a> {
    target: &'a PlannedTarget,
    took: Duration,
    /// Why it failed.
    problem: Option<String>,
    /// It may come to a good end, of which we hear nothing, or it was killed in the middle.
    is_in_doubt: bool,
    /// It was begun there.
    ran: bool,
}

/// Carries out the plan.
///
/// # Errors
/// Nothing was restored: a step before the swap failed somewhere. What was stopped runs again.
pub async fn run(
    context: &Context,
    options: &ClusterRestoreOptions,
    plan: &ClusterPlan,
    ssh: &Ssh,
) -> anyhow::Result<ClusterOutcome> {
    let act = Act { context, options, plan, ssh, begin: Instant::now() };
    let pending = plan.pending();
    if pending.is_empty() {
        return Ok(act.outcome(Vec::new(), None));
    }
    let mut outcome = match plan.method {
        Method::Load => act.load(&pending).await?,
        Method::InPlace | Method::Remote => act.copy(&pending).await?,
    };
    if options.verify {
        act.verify(&mut outcome).await;
    }
    Ok(outcome)
}

impl<'a> Act<'a> {
    async fn copy(&self, pending: &[&'a PlannedTarget]) -> anyhow::Result<ClusterOutcome> {
        let run = self.plan.run.as_str();
        let was_down: Vec<_> = pending.iter().copied().filter(|target| target.check.is_down()).collect();

        // Jobs of an earlier coordinator may still be at work on the others.
        let early: Vec<_> = pending.iter().copied().filter(|target| !target.check.is_swapping()).collect();
        let hosts = self.written_plan();
        let bring = Step::Stage { run, hosts: &hosts };
        let staged = match self.interruptible(&early, bring).await {
            Ok(ended) => ended,
            Err(error) => {
                self.end_jobs(&early, bring).await;
                let undone = self.undo(&was_down).await;
                return Err(told(error, &undone));
            }
        };
        let failed: Vec<_> = staged.iter().filter_map(Ended::line).collect();
        if !failed.is_empty() {
            let undone = self.undo(&was_down).await;
            let stopped = if was_down.is_empty() { "nothing was stopped" } else { "what was stopped is started again" };
            let message = format!("{} of {} could not bring the files; {stopped}", failed.len(), all(pending));
            return Err(Failure::failed(message)
                .details(failed.into_iter().chain(undone))
                .hint("what was brought stays on the targets: the same command brings the rest and goes on")
                .into());
        }

        if let Err(error) = self.check_owners(&early).await {
            let undone = self.undo(&was_down).await;
            return Err(told(error, &undone));
        }

        let down_since = Instant::now();
        self.stop(&early, &was_down, run).await?;

        let (seeds, rest): (Vec<_>, Vec<_>) = pending.iter().copied().partition(|target| target.is_seed);
        let mut outcomes = self.start(&seeds, &[], &rest).await?;
        let mut up: Vec<String> = restored(&outcomes);
        // Those that this run restored before are up, too.
        up.extend(self.plan.targets.iter().filter(|t| t.is_done && t.is_seed).map(|t| t.given.target.clone()));
        let is_unknown = outcomes.iter().any(|outcome| outcome.state == State::Unknown);
        if up.is_empty() && is_unknown {
            // With restored data or with the previous one the others would be wrong beside a seed that has the other.
            let reason = "it is not known whether a seed was restored";
            outcomes.extend(rest.iter().map(|target| outcome(target, State::Waiting, None, Some(reason.to_owned()))));
        } else if up.is_empty() && !seeds.is_empty() && !rest.is_empty() {
            self.context
                .monitor
                .problem("no seed was restored: the other targets are started with their previous data");
            let not_undone = self.undo(&rest).await;
            outcomes.extend(rest.iter().map(|target| {
                let prefix = format!("{}: ", target.given.target);
                let problem = not_undone.iter().find_map(|line| line.strip_prefix(&prefix));
                let state = if problem.is_some() { State::Waiting } else { State::Undone };
                outcome(target, state, None, problem.map(str::to_owned))
            }));
        } else {
            outcomes.extend(self.start(&rest, &up, &[]).await?);
        }
        Ok(self.outcome(outcomes, Some(down_since.elapsed())))
    }

    /// What every target writes down: only hosts that get other tokens may not know their ring any more.
    fn written_plan(&self) -> Vec<String> {
        if self.plan.method != Method::Remote {
            return Vec::new();
        }
        let lines = self.plan.host_list();
        if lines.iter().map(|line| line.len() + AROUND_A_LINE).sum::<usize>() > LONGEST_PLAN {
            tracing::warn!(
                "the plan is too long for the targets to write it down: if this restore is interrupted, go on with a --host-list of \
                 the same targets and sources"
            );
            return Vec::new();
        }
        lines
    }

    /// Looks once more for owners of the tokens: bringing files may have taken hours.
    async fn check_owners(&self, early: &[&'a PlannedTarget]) -> anyhow::Result<()> {
        if self.plan.method != Method::Remote || early.is_empty() {
            return Ok(());
        }
        let assignments = early.iter().map(|target| target.given.clone()).collect();
        let mapping =
            Mapping { method: Method::Remote, reason: String::new(), assignments, notes: Vec::new(), is_blind: false };
        let now = check::all(self.context, self.options, self.ssh, &mapping).await?;
        let others = self.plan.targets.iter().filter(|target| early.iter().all(|one| one.given != target.given));
        let others = others.map(|target| (&target.given, &target.check));
        Ok(targets::check_owners(mapping.assignments.iter().zip(&now).chain(others))?)
    }

    /// Stops all targets: the first one alone, because it may have to create tables that the others find then.
    /// `was_down`: these are taken back with the others if one fails.
    async fn stop(
        &self,
        targets: &[&'a PlannedTarget],
        was_down: &[&'a PlannedTarget],
        run: &str,
    ) -> anyhow::Result<()> {
        let (first, others) = targets.split_at(targets.len().min(1));
        let mut tried = was_down.to_vec();
        let mut failed: Vec<String> = Vec::new();
        for part in [first, others] {
            tried.extend(part.iter().filter(|target| !target.check.is_down()));
            // Not interruptible: what is half stopped would have to be started again anyway.
            let ended = self.step(part, Step::Stop { run }).await;
            failed.extend(ended.iter().filter_map(Ended::line));
            // One whose connection was lost may still be at work.
            let lost: Vec<_> = ended.iter().filter(|ended| ended.problem.is_some()).map(|ended| ended.target).collect();
            self.end_jobs(&lost, Step::Stop { run }).await;
            if !failed.is_empty() || self.context.interrupt.is_raised() {
                break;
            }
        }
        if failed.is_empty() && !self.context.interrupt.is_raised() {
            return Ok(());
        }
        let undone = self.undo(&tried).await;
        if failed.is_empty() {
            return Err(told(self.context.interrupt.failure().into(), &undone));
        }
        let state = if undone.is_empty() {
            "those that were stopped run again with their previous data"
        } else {
            "not all of those that were stopped could be started again"
        };
        let hint = if undone.is_empty() {
            "nothing was restored; what was brought stays on the targets, and the same command goes on"
        } else {
            "medusa restore-node … --undo on these hosts starts them with their previous data; the same command goes on with \
             the restore"
        };
        Err(Failure::failed(format!("{} of {} could not be stopped; {state}", failed.len(), all(targets)))
            .details(failed.into_iter().chain(undone))
            .hint(hint)
            .into())
    }

    /// Swap and start. A target that fails puts its previous data back by itself. `left`: down, and not started yet.
    async fn start(
        &self,
        targets: &[&'a PlannedTarget],
        seeds: &[String],
        left: &[&'a PlannedTarget],
    ) -> anyhow::Result<Vec<TargetOutcome>> {
        let step = Step::Start { run: &self.plan.run, seeds };
        let ended = self.interruptible(targets, step).await.map_err(|error| {
            let hint = "the others go on by themselves as far as they can; the same command finishes the restore";
            let line = |state: &str, of: &[&PlannedTarget]| {
                let hosts: Vec<_> = of.iter().map(|target| target.given.target.as_str()).collect();
                (!of.is_empty()).then(|| format!("{state}: {}", hosts.join(", ")))
            };
            let down = line("down, with their previous data, until the same command goes on", left);
            let begun = line("being started with the restored data", targets);
            match error.downcast::<Failure>() {
                Ok(failure) => failure.details(down.into_iter().chain(begun)).hint(hint).into(),
                Err(error) => error,
            }
        })?;
        let outcome = |ended: Ended<'_>| {
            let ran = ended.ran;
            let outcome = ended.outcome();
            // Nobody has touched it since it was stopped.
            if ran || outcome.state != State::Failed {
                outcome
            } else {
                TargetOutcome { state: State::Waiting, ..outcome }
            }
        };
        Ok(ended.into_iter().map(outcome).collect())
    }

    async fn load(&self, pending: &[&'a PlannedTarget]) -> anyhow::Result<ClusterOutcome> {
        let first = &pending[..1];
        let schema = match self.interruptible(first, Step::Schema).await {
            Ok(ended) => ended,
            Err(error) => {
                self.end_jobs(first, Step::Schema).await;
                return Err(error);
            }
        };
        if let Some(problem) = schema.iter().find_map(Ended::line) {
            return Err(Failure::failed("the schema could not be prepared; no file was loaded")
                .details([problem])
                .into());
        }
        let ended = match self.interruptible(pending, Step::Load).await {
            Ok(ended) => ended,
            Err(error) => {
                self.end_jobs(pending, Step::Load).await;
                return Err(error);
            }
        };
        let mut outcomes: Vec<_> = ended.into_iter().map(Ended::outcome).collect();
        if outcomes.iter().all(|outcome| outcome.state == State::Restored) {
            let indexes = self.step(first, Step::Indexes).await;
            for problem in indexes.into_iter().filter_map(|ended| ended.problem) {
                outcomes[0].state = State::Failed;
                outcomes[0].reason = Some(format!("all files are loaded; an index is missing: {problem}"));
            }
        }
        Ok(self.outcome(outcomes, None))
    }

    /// Takes back what the step before did. Returns what went wrong with that.
    async fn undo(&self, targets: &[&'a PlannedTarget]) -> Vec<String> {
        if targets.is_empty() {
            return Vec::new();
        }
        let ended = self.step(targets, Step::Undo).await;
        ended
            .iter()
            .filter_map(|ended| {
                Some(format!("{}: could not be taken back: {}", ended.target.given.target, ended.problem.as_ref()?))
            })
            .collect()
    }

    /// `--verify`: asks every restored target the query of `[checks]`.
    async fn verify(&self, outcome: &mut ClusterOutcome) {
        if self.context.config.checks.query.is_empty() {
            tracing::warn!("--verify: query in [checks] is empty, so nothing was asked");
            return;
        }
        let begin = Instant::now();
        let has_it = |outcome: &&TargetOutcome| matches!(outcome.state, State::Restored | State::Already);
        let restored: Vec<_> = outcome.targets.iter().filter(has_it).map(|outcome| outcome.target.clone()).collect();
        let answers = on_hosts(&restored, self.plan.parallel, |host| async move {
            let cql = connect(self.context, Some(host)).await?;
            checks::ask(self.context, &cql).await
        });
        let mut wrong = 0_u64;
        for (host, answer) in restored.iter().zip(answers.await) {
            let Err(error) = answer else { continue };
            wrong += 1;
            if let Some(target) = outcome.targets.iter_mut().find(|target| target.target == *host) {
                target.state = State::Unexpected;
                target.reason = Some(one_line(&error));
            }
        }
        let detail = format!("{} asked, {wrong} answered otherwise", counted(restored.len() as u64, "target"));
        self.context.monitor.step("verify", &detail, begin.elapsed());
    }

    async fn end_jobs(&self, targets: &[&'a PlannedTarget], step: Step<'_>) {
        let stopped = on_hosts(targets, self.plan.parallel, |target| async move {
            let job = self.options.job(self.context, self.plan.method, &target.given, &step);
            (target, self.ssh.stop(&target.given.target, &job).await)
        });
        for (target, stopped) in stopped.await {
            if let Err(error) = stopped {
                let host = &target.given.target;
                self.context.monitor.problem(&format!("{host}: the job could not be ended: {error}"));
            }
        }
    }

    async fn interruptible(&self, targets: &[&'a PlannedTarget], step: Step<'_>) -> anyhow::Result<Vec<Ended<'a>>> {
        self.context.interrupt.or(async { anyhow::Ok(self.step(targets, step).await) }).await
    }

    /// One step on some targets. In their order.
    async fn step(&self, targets: &[&'a PlannedTarget], step: Step<'_>) -> Vec<Ended<'a>> {
        if targets.is_empty() {
            return Vec::new();
        }
        let begin = Instant::now();
        let last_lines = Mutex::new(BTreeMap::new());
        let last_lines = &last_lines;
        let work = on_hosts(targets, self.plan.parallel, |target| async move {
            let (host, sent) = (target.given.target.as_str(), Instant::now());
            last_lines.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), String::new());
            let job = self.options.job(self.context, self.plan.method, &target.given, &step);
            let hear = |line: &str| {
                let mut lines = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.insert(host.to_owned(), line.trim().to_owned());
            };
            let ended = self.ssh.run(host, &job, &hear).await;
            let is_in_doubt = match &ended {
                Ok(end) => end.code == KILLED,
                Err(error) => error.leaves_doubt(),
            };
            let ran = ended.is_ok();
            let problem = problem(host, ended);
            last_lines.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
            if let Some(problem) = &problem {
                self.context.monitor.problem(&format!("{host}: {}: {problem}", step.name()));
            }
            Ended { target, took: sent.elapsed(), problem, is_in_doubt, ran }
        });
        tokio::pin!(work);
        let ended = loop {
            tokio::select! {
                ended = &mut work => break ended,
                () = tokio::time::sleep(LINE_EVERY) => self.tell(step, targets.len(), last_lines),
            }
        };
        let done = ended.iter().filter(|ended| ended.problem.is_none()).count();
        let detail = format!("{done} of {}", counted(targets.len() as u64, "target"));
        self.context.monitor.step(step.name(), &detail, begin.elapsed());
        ended
    }

    /// What is waited for: how many, and what one of them said last.
    fn tell(&self, step: Step<'_>, all: usize, last_lines: &Mutex<BTreeMap<String, String>>) {
        let lines = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        let said = lines.iter().find(|(_, line)| !line.is_empty());
        let said = said.map(|(host, line)| format!("; {host}: {line}")).unwrap_or_default();
        let elapsed = took(self.begin.elapsed());
        self.context.monitor.title(&format!("  {} on {all}, {} at work, {elapsed}{said}", step.name(), lines.len()));
    }

    /// Adds the targets that had been restored before. In the order of the plan.
    fn outcome(&self, mut outcomes: Vec<TargetOutcome>, down: Option<Duration>) -> ClusterOutcome {
        let done = self.plan.targets.iter().filter(|target| target.is_done);
        outcomes.extend(done.map(|target| outcome(target, State::Already, None, None)));
        let position = |name: &str| self.plan.targets.iter().position(|target| target.given.target == name);
        outcomes.sort_by_key(|outcome| position(&outcome.target));
        ClusterOutcome {
            backup: self.plan.backup.clone(),
            method: self.plan.method,
            targets: outcomes,
            began: self.context.now.timestamp(),
            took: self.begin.elapsed(),
            down,
        }
    }
}

impl Ended<'_> {
    fn line(&self) -> Option<String> {
        Some(format!("{}: {}", self.target.given.target, self.problem.as_ref()?))
    }

    fn outcome(self) -> TargetOutcome {
        let state = match self.problem {
            None => State::Restored,
            Some(_) if self.is_in_doubt => State::Unknown,
            Some(_) => State::Failed,
        };
        outcome(self.target, state, Some(self.took), self.problem)
    }
}

fn outcome(target: &PlannedTarget, state: State, took: Option<Duration>, reason: Option<String>) -> TargetOutcome {
    let (host, sources) = (target.given.target.clone(), target.given.sources.clone());
    TargetOutcome { target: host, sources, state, took, reason }
}

fn restored(outcomes: &[TargetOutcome]) -> Vec<String> {
    let restored = outcomes.iter().filter(|outcome| outcome.state == State::Restored);
    restored.map(|outcome| outcome.target.clone()).collect()
}

fn all(targets: &[&PlannedTarget]) -> String {
    counted(targets.len() as u64, "target")
}

fn problem(host: &str, ended: Result<JobEnd, SshError>) -> Option<String> {
    match ended {
        Ok(end) if end.code == 0 => None,
        Ok(end) => {
            tracing::debug!("{host} ended with exit code {}, and said last:\n{}", end.code, end.stderr);
            Some(end.reason())
        }
        Err(error) => Some(error.to_string()),
    }
}

/// The failure of a signal, with what could not be taken back.
fn told(error: anyhow::Error, undone: &[String]) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) if !undone.is_empty() => failure.details(undone.to_vec()).into(),
        Ok(failure) => failure.into(),
        Err(error) => error,
    }
}

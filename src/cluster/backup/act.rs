//! Snapshots on all hosts, then uploads. What may be running or lying on which host is known at every moment, so that it can
//! be ended and cleared on every way out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::plan::ClusterPlan;
use super::report::{HostOutcome, State};
use super::{ClusterBackupOptions, deadlines};
use crate::backup::store::EXISTS;
use crate::backup::wave::IN_USE;
use crate::cluster::remote::{job_id, on_hosts};
use crate::context::Context;
use crate::exec::job::{ATTACHED, Job, JobEnd};
use crate::exec::ssh::{Ssh, SshError};
use crate::model::names::Fqdn;
use crate::model::units;

/// Hosts that are tidied up at a time.
const TIDIED_AT_ONCE: usize = 32;

/// Between two lines of progress about one host.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Acting<'a> {
    context: &'a Context,
    options: &'a ClusterBackupOptions,
    plan: &'a ClusterPlan,
    ssh: &'a Ssh,
    known: Mutex<Known>,
}

/// What there may be on the hosts.
#[derive(Debug, Default)]
struct Known {
    running: BTreeMap<String, Job>,
    /// Hosts with a snapshot that nobody else clears.
    snapshots: BTreeSet<String>,
}

/// A snapshot, and when it was taken in Unix seconds.
type Snapshots = BTreeMap<String, f64>;

impl<'a> Acting<'a> {
    pub fn new(context: &'a Context, options: &'a ClusterBackupOptions, plan: &'a ClusterPlan, ssh: &'a Ssh) -> Self {
        Self { context, options, plan, ssh, known: Mutex::default() }
    }

    fn known<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The whole work: all of it on the hosts `missing`, and on those `before` what a run that finished there has left. Returns
    /// what became of the former, and how far their snapshots lie apart.
    pub async fn run(&self, missing: &[String], before: &[String]) -> (Vec<HostOutcome>, Option<Duration>) {
        let worked = self.back_up(missing).await;
        on_hosts(before, TIDIED_AT_ONCE, |host| self.settle(host)).await;
        worked
    }

    async fn back_up(&self, hosts: &[String]) -> (Vec<HostOutcome>, Option<Duration>) {
        let (context, options) = (self.context, self.options);
        if options.use_existing_snapshot {
            return (self.uploads(hosts).await, None);
        }
        let begin = Instant::now();
        let taken = on_hosts(hosts, options.parallel_snapshots, |host| self.snapshot(host)).await;
        let (mut ended, mut snapshots) = (Vec::new(), Snapshots::new());
        for (host, taken) in hosts.iter().zip(taken) {
            match taken {
                Ok(at) => drop(snapshots.insert(host.clone(), at)),
                Err(failed) => ended.push(failed),
            }
        }
        let spread = spread(&snapshots);
        let detail = spread.map_or_else(String::new, |spread| format!(", {:.1} s apart", spread.as_secs_f64()));
        let count = units::counted(snapshots.len() as u64, "host");
        context.monitor.step("snapshot", &format!("on {count}{detail}"), begin.elapsed());
        let ready: Vec<_> = hosts.iter().filter(|host| snapshots.contains_key(*host)).cloned().collect();
        ended.extend(self.uploads(&ready).await);
        (ended, spread)
    }

    async fn snapshot(&self, host: &str) -> Result<f64, HostOutcome> {
        let begin = Instant::now();
        let (deadline, _) = deadlines(&self.context.config);
        let job = self.job(host, "snapshot", &["--snapshot-only".to_owned()], Some(deadline));
        self.known(|known| known.snapshots.insert(host.to_owned()));
        let end = self.run_job(host, &job).await;
        let failed = |problem: String| HostOutcome::failed(host, problem, begin.elapsed());
        match end {
            Ok(end) if end.code == 0 => match document(&end).and_then(|document| document["taken"].as_f64()) {
                Some(taken) => Ok(taken),
                None => Err(self.tidied(failed(format!("not understood: {}", end.stdout.trim()))).await),
            },
            Ok(end) if end.is_killed() => Err(self.tidied(failed(end.reason())).await),
            Ok(end) => {
                if self.is_finished(host).await {
                    self.settle(host).await;
                    return Err(HostOutcome::before(host));
                }
                // It has cleared what it took, and not what a run before it has left.
                Err(self.tidied(failed(end.reason())).await)
            }
            Err(error) => {
                let failed = HostOutcome { hint: Some(error.hint()), ..failed(error.to_string()) };
                Err(self.tidied(failed).await)
            }
        }
    }

    fn told(&self, failed: HostOutcome) -> HostOutcome {
        self.context.monitor.problem(&format!("{}: {}", failed.host, failed.problem.as_deref().unwrap_or_default()));
        failed
    }

    async fn uploads(&self, hosts: &[String]) -> Vec<HostOutcome> {
        on_hosts(hosts, self.options.parallel_uploads, |host| self.upload(host)).await
    }

    /// Whether a run of an earlier coordinator has finished it while this one was at other hosts.
    async fn is_finished(&self, host: &str) -> bool {
        let (storage, name) = (&self.context.storage, &self.options.name);
        let planned = self.plan.hosts.iter().find(|planned| planned.host.name == host);
        for folder in planned.into_iter().flat_map(|planned| &planned.host.folders) {
            let Ok(fqdn) = Fqdn::new(folder) else { continue };
            // What cannot be looked at is tried.
            if let Ok(Some(backup)) = storage.node_backup(&fqdn, name).await
                && backup.finished.is_some()
            {
                return true;
            }
        }
        false
    }

    /// Waits for the run of an earlier coordinator that has finished a host, and removes what it left behind. What fails here
    /// is told, and takes nothing from the backup.
    async fn settle(&self, host: &str) {
        if !self.options.use_existing_snapshot {
            self.known(|known| known.snapshots.insert(host.to_owned()));
        }
        let settled = self.ssh.settle(host, &self.upload_job(host)).await;
        let left = match settled {
            Ok(()) => self.tidy_up_host(host).await,
            Err(error) => Some(self.left(host, &error.to_string())),
        };
        if let Some(left) = left {
            self.context.monitor.problem(&left);
        }
    }

    fn upload_job(&self, host: &str) -> Job {
        let options = self.options;
        let mut further = Vec::new();
        further.extend(options.stagger.map(|seconds| format!("--stagger={seconds}")));
        for (flag, given) in [
            ("--enable-md5-checks", options.compare_contents),
            ("--keep-snapshot", options.keep_snapshot),
            ("--use-existing-snapshot", options.use_existing_snapshot),
            ("--snapshot-taken", !options.use_existing_snapshot),
            ("--allow-corrupt", options.allow_corrupt),
        ] {
            further.extend(given.then(|| flag.to_owned()));
        }
        self.job(host, "backup", &further, None)
    }

    async fn upload(&self, host: &String) -> HostOutcome {
        let begin = Instant::now();
        let job = self.upload_job(host);
        let monitor = &self.context.monitor;
        if self.is_finished(host).await {
            self.settle(host).await;
            return HostOutcome::before(host);
        }
        monitor.title(&format!("  {host}  begins"));
        let failed =
            |problem: String| HostOutcome { uploads: true, ..HostOutcome::failed(host, problem, begin.elapsed()) };
        let outcome = match self.run_job(host, &job).await {
            Ok(end) if end.code == 0 => {
                // The node clears its snapshot itself, if it is to be cleared.
                self.known(|known| known.snapshots.remove(host));
                let document = document(&end).unwrap_or_default();
                HostOutcome {
                    state: State::Complete,
                    uploads: true,
                    fqdn: document["fqdn"].as_str().map(str::to_owned),
                    files: document["files"].as_u64(),
                    uploaded_bytes: document["uploaded_bytes"].as_u64(),
                    took: begin.elapsed(),
                    ..HostOutcome::before(host)
                }
            }
            // The run of an earlier coordinator has finished it in the last moment.
            Ok(end) if end.stderr.contains(EXISTS) => {
                self.settle(host).await;
                HostOutcome::before(host)
            }
            Ok(end) => self.tidied(failed(end.reason())).await,
            Err(error) => {
                let failed = HostOutcome { hint: Some(error.hint()), ..failed(error.to_string()) };
                // It goes on there with the snapshot, and clears it.
                if matches!(error, SshError::Lost { .. }) { self.told(failed) } else { self.tidied(failed).await }
            }
        };
        if outcome.state == State::Complete {
            let uploaded = outcome.uploaded_bytes.map(units::size).unwrap_or_default();
            monitor.step("complete", &format!("{host}  {uploaded}"), outcome.took);
        }
        outcome
    }

    /// A part of `backup-node`.
    fn job(&self, host: &str, kind: &str, further: &[String], deadline: Option<Duration>) -> Job {
        let options = self.options;
        let mut command = vec!["backup-node".to_owned(), format!("--backup-name={}", options.name)];
        command.push(format!("--mode={}", options.mode));
        command.extend_from_slice(further);
        command.push("--output=json".to_owned());
        let arguments = self.context.forward.arguments(None, &command);
        // Hosts may share a folder.
        let id = job_id(kind, &[arguments.as_slice(), &[host.to_owned()]].concat());
        Job { id, folder: options.folder.clone(), arguments, deadline }
    }

    async fn run_job(&self, host: &str, job: &Job) -> Result<JobEnd, SshError> {
        self.known(|known| known.running.insert(host.to_owned(), job.clone()));
        let last = Mutex::new(Instant::now());
        let monitor = &self.context.monitor;
        let progress = |line: &str| {
            if line == ATTACHED {
                monitor.title(&format!("  {host}  {line}"));
                return;
            }
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= PROGRESS_EVERY {
                *last = Instant::now();
                monitor.title(&format!("  {host}  {}", line.trim()));
            }
        };
        let end = self.ssh.run(host, job, &progress).await;
        if end.is_ok() {
            self.known(|known| known.running.remove(host));
        }
        end
    }

    /// Ends what may still run on a host that failed, and clears its snapshot.
    async fn tidied(&self, mut failed: HostOutcome) -> HostOutcome {
        failed = self.told(failed);
        if let Some(left) = self.tidy_up_host(&failed.host).await {
            self.context.monitor.problem(&left);
            failed.problem = Some(format!("{}; {left}", failed.problem.unwrap_or_default()));
        }
        failed
    }

    /// After an interrupt: ends what runs, and clears all snapshots that wait. Returns what could not be done.
    pub async fn tidy_up(&self) -> Vec<String> {
        let hosts: Vec<_> = self.known(|known| {
            known.running.keys().chain(&known.snapshots).cloned().collect::<BTreeSet<_>>().into_iter().collect()
        });
        if hosts.is_empty() {
            return Vec::new();
        }
        let count = units::counted(hosts.len() as u64, "host");
        self.context.monitor.title(&format!("  ends what runs on {count}, and clears the snapshots there"));
        on_hosts(&hosts, TIDIED_AT_ONCE, |host| self.tidy_up_host(host)).await.into_iter().flatten().collect()
    }

    /// Returns what could not be done.
    async fn tidy_up_host(&self, host: &str) -> Option<String> {
        // Forgotten only when it is done: a signal may come in between.
        let running = self.known(|known| known.running.get(host).cloned());
        if let Some(job) = running {
            let stopped = self.ssh.stop(host, &job).await;
            self.known(|known| known.running.remove(host));
            if let Err(error) = stopped {
                self.known(|known| known.snapshots.remove(host));
                return Some(self.left(host, &error.to_string()));
            }
        }
        let has_snapshot = self.known(|known| known.snapshots.contains(host));
        if !has_snapshot || self.options.keep_snapshot {
            return None;
        }
        let (_, deadline) = deadlines(&self.context.config);
        let job = self.job(host, "clear", &["--clear-snapshot".to_owned()], Some(deadline));
        let cleared = self.ssh.run(host, &job, &|_| ()).await;
        self.known(|known| known.snapshots.remove(host));
        match cleared {
            Ok(end) if end.code == 0 => None,
            // By a run that clears it at its end.
            Ok(end) if end.stderr.contains(IN_USE) => None,
            Ok(end) => Some(self.left(host, &end.reason())),
            Err(error) => Some(self.left(host, &error.to_string())),
        }
    }

    fn left(&self, host: &str, why: &str) -> String {
        let tag = self.options.name.snapshot_tag();
        if self.options.use_existing_snapshot || self.options.keep_snapshot {
            return format!("medusa may still run on {host}: {why}");
        }
        format!("the snapshot may still be on {host} ({why}): nodetool clearsnapshot -t {tag} clears it there")
    }
}

/// Between the first and the last one. `None` unless there are two.
fn spread(snapshots: &Snapshots) -> Option<Duration> {
    if snapshots.len() < 2 {
        return None;
    }
    let first = snapshots.values().copied().fold(f64::INFINITY, f64::min);
    let last = snapshots.values().copied().fold(f64::NEG_INFINITY, f64::max);
    Duration::try_from_secs_f64(last - first).ok()
}

fn document(end: &JobEnd) -> Option<Value> {
    serde_json::from_str(end.stdout.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_between_the_first_and_the_last_snapshot() {
        let taken = |times: &[f64]| times.iter().enumerate().map(|(i, at)| (i.to_string(), *at)).collect();
        assert_eq!(spread(&taken(&[])), None);
        assert_eq!(spread(&taken(&[5.0])), None);
        assert_eq!(
            spread(&taken(&[1_700_000_001.5, 1_700_000_000.0, 1_700_000_000.5])),
            Some(Duration::from_millis(1500))
        );
    }
}

//! One local program, run to its end or to its deadline.
//!
//! The program gets a process group of its own, so that Ctrl-C reaches us and not it, and so that the deadline ends its
//! children too. Its end counts, not the end of its output: a start command may leave a daemon behind that holds the pipes.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::secret;

/// What is kept of each output: the last bytes.
const KEPT: usize = 256 << 10;

/// How long output of its children may still arrive after the program has ended.
const AFTERMATH: Duration = Duration::from_millis(300);

/// A program with its arguments, none of them secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub program: String,
    pub arguments: Vec<String>,
    /// Variables that it gets beside ours.
    pub environment: Vec<(String, String)>,
    /// Its children end with it when nobody waits for it any more.
    pub is_bound: bool,
}

impl Invocation {
    pub fn new(program: impl Into<String>, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program: program.into(), arguments, environment: Vec::new(), is_bound: false }
    }

    /// For programs that start others and leave none behind: whoever stops waiting ends them all.
    #[must_use]
    pub fn bound(mut self) -> Self {
        self.is_bound = true;
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// From words, the first of which is the program.
    pub fn from_words(words: &[String]) -> Self {
        let (program, arguments) =
            words.split_first().map_or(("", [].as_slice()), |(first, rest)| (first.as_str(), rest));
        Self::new(program, arguments)
    }
}

impl std::fmt::Display for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        f.write_str(&shell_words::join(words))
    }
}

/// How the program ended, and the end of what it printed.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// What it printed to stdout, unless its exit status is that of a failure.
    pub fn successful(self, program: &str) -> Result<String, ExecError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let output = telling_line(&self.stderr).or_else(|| telling_line(&self.stdout)).unwrap_or_default();
        Err(ExecError::Failed { program: program.to_owned(), status: self.status, output })
    }
}

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("could not start {program}")]
    Start { program: String, source: std::io::Error },
    #[error("{program} did not end within {} s and was killed", deadline.as_secs())]
    Deadline { program: String, deadline: Duration },
    #[error("{program} failed ({status}){}", said(output))]
    Failed { program: String, status: ExitStatus, output: String },
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {output}") }
}

impl Invocation {
    /// Runs the program. Its exit status is for the caller to judge.
    pub async fn run(&self, deadline: Duration) -> Result<Outcome, ExecError> {
        self.run_with(Stdio::null(), deadline).await
    }

    /// The same with something to read.
    pub async fn run_with(&self, stdin: Stdio, deadline: Duration) -> Result<Outcome, ExecError> {
        let failed = |source| ExecError::Start { program: self.program.clone(), source };
        tracing::debug!("running {self}");
        let mut command = Command::new(&self.program);
        for variable in secret::VARIABLES {
            command.env_remove(variable);
        }
        let mut child = command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let (stdout, stderr) = (Tail::follow(child.stdout.take()), Tail::follow(child.stderr.take()));
        let mut bound = Group(group.filter(|_| self.is_bound));
        let Ok(status) = timeout(deadline, child.wait()).await else {
            if let Some(group) = group {
                // Its children would go on without it.
                let _ = killpg(group, Signal::SIGKILL);
            }
            return Err(ExecError::Deadline { program: self.program.clone(), deadline });
        };
        bound.0 = None;
        let status = status.map_err(failed)?;
        let (stdout, stderr) = (stdout.end().await, stderr.end().await);
        tracing::debug!("{} ended ({status})", self.program);
        Ok(Outcome { status, stdout, stderr })
    }

    /// Runs the program and takes any exit status but 0 for a failure. Returns what it printed to stdout.
    pub async fn run_successfully(&self, deadline: Duration) -> Result<String, ExecError> {
        self.run(deadline).await?.successful(&self.program)
    }
}

/// Ends a process group when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// The end of what a pipe brings, which is read in the background.
#[derive(Debug)]
pub(super) struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
    /// The program has ended.
    ended: CancellationToken,
}

impl Tail {
    pub(super) fn follow(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let (kept, ended) = (Arc::<Mutex<Vec<u8>>>::default(), CancellationToken::new());
        let (to_keep, no_more) = (Arc::clone(&kept), ended.clone());
        let reading = tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = vec![0; 8 << 10];
            loop {
                let read = tokio::select! {
                    read = pipe.read(&mut buffer) => read,
                    () = no_more.cancelled() => break,
                };
                let Ok(n @ 1..) = read else { return };
                keep(&to_keep, &buffer[..n]);
            }
            // What the program wrote is all in the pipe, even if this machine is too busy to have read it by now.
            let mut most = KEPT;
            while let Some(Ok(n @ 1..)) = tokio::task::unconstrained(pipe.read(&mut buffer)).now_or_never() {
                keep(&to_keep, &buffer[..n]);
                most = most.saturating_sub(n);
                if most == 0 {
                    return;
                }
            }
        });
        Self { kept, reading, ended }
    }

    /// What the program wrote that has ended, and what its children add in the next moment.
    pub(super) async fn end(self) -> String {
        self.end_within(AFTERMATH).await
    }

    async fn end_within(mut self, aftermath: Duration) -> String {
        if timeout(aftermath, &mut self.reading).await.is_err() {
            self.ended.cancel();
            // A task that panicked has kept what it read.
            let _ = self.reading.await;
        }
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn keep(kept: &Mutex<Vec<u8>>, bytes: &[u8]) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend_from_slice(bytes);
    if kept.len() > 2 * KEPT {
        let surplus = kept.len() - KEPT;
        kept.drain(..surplus);
    }
}

/// The line of an output that says what went wrong: the first one that says so itself, else the last one.
pub(super) fn telling_line(output: &str) -> Option<String> {
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty() && !is_noise(line));
    let names_it = |line: &&str| {
        let line = line.to_lowercase();
        line.starts_with("error") || line.starts_with("nodetool:") || line.contains("exception")
    };
    // Java wraps its exceptions; the innermost cause comes last.
    let cause = lines().filter_map(|line| line.strip_prefix("Caused by: ")).next_back();
    cause.or_else(|| lines().find(names_it)).or_else(|| lines().next_back()).map(str::to_owned)
}

fn is_noise(line: &str) -> bool {
    line.starts_with("WARNING:") || line.starts_with("OpenJDK") || line.starts_with("--") || line.starts_with("at ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_innermost_cause_of_java_is_told() {
        let output = "error: Could not load\njava.lang.RuntimeException: outer\n\tat a.b\nCaused by: java.io.IOException: middle\n\
                      \tat c.d\nCaused by: java.net.ConnectException: refused\n\t... 5 more\n";
        assert_eq!(telling_line(output).as_deref(), Some("java.net.ConnectException: refused"));
        assert_eq!(telling_line("error: no\nlast").as_deref(), Some("error: no"));
    }

    fn shell(script: &str) -> Invocation {
        Invocation::new("/bin/sh", ["-c", script])
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn output_and_status_are_reported() {
        let outcome = shell("echo out; echo err >&2; exit 3").run(LONG).await.unwrap();
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(outcome.status.code(), Some(3));
        assert_eq!(shell("echo yes").run_successfully(LONG).await.unwrap(), "yes\n");
    }

    #[tokio::test]
    async fn a_failure_tells_the_line_that_says_why() {
        let script = "echo 'WARNING: noise' >&2; echo \"nodetool: Failed to connect\" >&2; echo ' at x' >&2; exit 1";
        let error = shell(script).run_successfully(LONG).await.unwrap_err().to_string();
        assert_eq!(error, "/bin/sh failed (exit status: 1): nodetool: Failed to connect");
        let missing = Invocation::new("/no/such/program", ["x"]).run(LONG).await.unwrap_err();
        assert!(matches!(&missing, ExecError::Start { program, .. } if program == "/no/such/program"), "{missing:?}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children() {
        let pid_file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.path().display());
        let error = shell(&script).run(Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(error, ExecError::Deadline { .. }), "{error:?}");
        let pid = std::fs::read_to_string(pid_file.path()).unwrap();
        let state = format!("/proc/{}/stat", pid.trim());
        let gone = |_: &u32| match std::fs::read_to_string(&state) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let waited = (0..100_u32).inspect(|_| std::thread::sleep(Duration::from_millis(20))).find(gone);
        assert!(waited.is_some(), "the child still runs");
    }

    #[tokio::test]
    async fn a_daemon_that_keeps_the_pipes_does_not_keep_us() {
        let begin = Instant::now();
        let outcome = shell("echo started; sleep 5 &").run(LONG).await.unwrap();
        assert_eq!(outcome.stdout, "started\n");
        assert!(begin.elapsed() < Duration::from_secs(4), "waited for the daemon");
    }

    /// On a busy machine all the time may be over before the pipe is looked at. Another process still holds it.
    #[tokio::test]
    async fn what_was_written_is_read_also_by_who_comes_late() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let tail = Tail::follow(Some(ours));
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"said\n").await.unwrap();
        assert_eq!(tail.end_within(Duration::ZERO).await, "said\n");
        drop(theirs);
    }

    #[test]
    fn words_are_shown_as_a_shell_would_need_them() {
        assert_eq!(Invocation::new("sh", ["-c", "a b"]).to_string(), "sh -c 'a b'");
        assert_eq!(Invocation::from_words(&["sudo".into(), "x".into()]), Invocation::new("sudo", ["x"]));
    }
}

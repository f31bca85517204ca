//! medusa on other hosts, by the system's ssh.
//!
//! No process of ours outlives us here: an ssh that waits is killed with us, and the connection that it leaves behind for the
//! next call ends after a few idle seconds, or with [`Ssh::close`]. What runs on the hosts goes on; see [`super::job`].

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::command::{Invocation, Tail};
use super::job::{ATTACHED, Action, Answer, Call, Job, JobEnd, Program};
pub use super::ssh_error::SshError;
use super::ssh_error::{of_end, of_problem, of_ssh};
use crate::config::ssh::HostKeyCheck;
use crate::config::{self, Config, secret};
use crate::error::Failure;

/// How long a connection is kept for the next call.
const KEPT: &str = "ControlPersist=10";
/// What Linux takes as one argument is 128 KiB, and the command travels as one.
const LONGEST: usize = 120 << 10;
/// What local steps may take: a master that is told to end, an ssh that has nothing more to bring.
const MOMENT: Duration = Duration::from_secs(20);
/// A socket's path has at most 107 bytes. Of these, our folder below this one takes 16, and ssh's names, with what it adds
/// while it makes one, 58.
const LONGEST_FOLDER: usize = 33;
/// Between attempts to connect again; doubled each time up to the second one.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// Attempts to begin on a host that closes the connection (a server that limits how many come at once does that).
const FIRST_ATTEMPTS: u32 = 3;

/// Runs medusa on other hosts by the system's ssh. Cheap to clone. Connections are kept for a short while and ended by `close`.
#[derive(Debug, Clone)]
pub struct Ssh(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: config::ssh::Ssh,
    program: Program,
    /// The sockets of kept connections. Only for our user.
    sockets: tempfile::TempDir,
    /// To which there may be connections.
    hosts: Mutex<BTreeSet<String>>,
}

/// What a call heard so far.
#[derive(Debug, Default)]
struct Heard {
    /// The script runs there.
    anything: bool,
    /// The nonce of the run that is followed.
    run: Option<String>,
    stdout: String,
    stderr: String,
    status: Option<i32>,
}

impl Ssh {
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let settings = config.ssh.clone();
        let program = Program {
            name: settings.medusa_program.clone(),
            sudo: settings.use_sudo,
            login_shell: settings.login_shell,
        };
        let temporary = std::env::temp_dir();
        let parent = if temporary.as_os_str().len() > LONGEST_FOLDER { Path::new("/tmp") } else { &temporary };
        let sockets = tempfile::Builder::new().prefix("medusa-").rand_bytes(8).tempdir_in(parent).map_err(|error| {
            Failure::failed(format!("no folder for the connections of ssh could be made in {}", parent.display()))
                .cause(error)
                .hint("TMPDIR names another place")
        })?;
        Ok(Self(Arc::new(Shared { settings, program, sockets, hosts: Mutex::default() })))
    }

    /// Runs a short command line of medusa on a host and waits for its end. Not a job: it ends with the connection.
    pub async fn ask(&self, host: &str, arguments: &[String]) -> Result<JobEnd, SshError> {
        let job = Job { id: String::new(), folder: "/".into(), arguments: arguments.to_vec(), deadline: None };
        let mut heard = Heard::default();
        let mut attempt = 1;
        loop {
            match self.call(host, Action::Ask, &job, &mut heard, &|_| ()).await {
                Ok(()) => break,
                Err(error) if !self.again(host, &heard, &error, attempt).await => return Err(error),
                Err(_) => attempt += 1,
            }
        }
        self.end(host, heard)
    }

    /// Runs medusa on a host as a job. If the same job (by its id) still runs there from an earlier coordinator, attaches to
    /// it instead of starting another, and tells `progress` so ([`ATTACHED`]). A lost connection is made again until
    /// `reconnect_timeout` is over. `progress` gets the last line that the run wrote to stderr, whenever it changes.
    pub async fn run(
        &self,
        host: &str,
        job: &Job,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<JobEnd, SshError> {
        let following = self.follow(host, job, progress);
        match job.deadline {
            None => following.await,
            Some(deadline) => timeout(deadline, following)
                .await
                .unwrap_or_else(|_| Err(SshError::Deadline { host: host.to_owned(), deadline })),
        }
    }

    async fn follow(&self, host: &str, job: &Job, progress: &(dyn Fn(&str) + Send + Sync)) -> Result<JobEnd, SshError> {
        let mut run = uuid::Uuid::new_v4().simple().to_string();
        let (mut begun, mut attempt, mut pause) = (false, 1, PAUSES[0]);
        // A connection that was made and closed may have begun the run without our hearing of it.
        let mut may_be_begun = false;
        let mut last_heard = Instant::now();
        loop {
            let mut heard = Heard::default();
            let outcome = self.call(host, Action::Begin(&run), job, &mut heard, progress).await;
            if let Some(nonce) = heard.run.take() {
                // That of an earlier coordinator, if its run is followed.
                run = nonce;
                begun = true;
            }
            if heard.anything {
                (last_heard, pause) = (Instant::now(), PAUSES[0]);
            }
            let error = match outcome {
                Ok(()) => {
                    let end = self.end(host, heard);
                    let removal = Action::Remove(&run);
                    if let Err(error) = self.call(host, removal, job, &mut Heard::default(), &|_| ()).await {
                        tracing::warn!("the folder of the run may still be on {host}: {error}");
                    }
                    return end;
                }
                Err(error) => error,
            };
            if !begun {
                if !self.again(host, &heard, &error, attempt).await {
                    let is_lost = may_be_begun && matches!(error, SshError::Unreachable { .. });
                    let tried = last_heard.elapsed();
                    let lost = |cause| SshError::Lost { host: host.to_owned(), tried, cause: Box::new(cause) };
                    return Err(if is_lost { lost(error) } else { error });
                }
                may_be_begun |= matches!(error, SshError::Closed { .. } | SshError::Silent { .. });
                attempt += 1;
                continue;
            }
            let tried = last_heard.elapsed();
            if !error.passes() && !matches!(error, SshError::PermissionDenied { .. } | SshError::HostKeyChanged { .. })
            {
                return Err(error);
            }
            if tried + pause > self.0.settings.reconnect_timeout || !error.passes() {
                return Err(SshError::Lost { host: host.to_owned(), tried, cause: Box::new(error) });
            }
            progress(&format!("connection lost, trying again ({error})"));
            tracing::info!("{host}: {error}; trying again in {} s", pause.as_secs());
            self.end_connection(host).await;
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Ends a job that may be running on a host: medusa gets SIGTERM, and what it tidies up is waited for. Then its folder
    /// is removed.
    pub async fn stop(&self, host: &str, job: &Job) -> Result<(), SshError> {
        let late = |limit: Duration| SshError::CannotStop {
            host: host.into(),
            said: format!("it still runs after {} s", limit.as_secs()),
        };
        self.await_end(host, job, Action::Stop).await.unwrap_or_else(|limit| Err(late(limit)))
    }

    /// Waits for the end of a job that may be at its last steps on a host. Then its folder is removed.
    pub async fn settle(&self, host: &str, job: &Job) -> Result<(), SshError> {
        let late = |deadline| SshError::Deadline { host: host.into(), deadline };
        self.await_end(host, job, Action::Settle).await.unwrap_or_else(|limit| Err(late(limit)))
    }

    /// The outer error is how long it was waited for.
    async fn await_end(&self, host: &str, job: &Job, action: Action<'_>) -> Result<Result<(), SshError>, Duration> {
        let limit = self.0.settings.reconnect_timeout;
        let mut attempt = 1;
        let waiting = async {
            loop {
                let mut heard = Heard::default();
                match self.call(host, action, job, &mut heard, &|_| ()).await {
                    Ok(()) => return Ok(()),
                    Err(error) if !self.again(host, &heard, &error, attempt).await => return Err(error),
                    Err(_) => attempt += 1,
                }
            }
        };
        timeout(limit, waiting).await.map_err(|_| limit)
    }

    /// Ends kept connections.
    pub async fn close(&self) {
        let hosts = std::mem::take(&mut *self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner));
        futures::stream::iter(&hosts).for_each_concurrent(16, |host| self.end_connection(host)).await;
    }

    /// Whether a call may be tried once more, after a pause.
    async fn again(&self, host: &str, heard: &Heard, error: &SshError, attempt: u32) -> bool {
        let closed = matches!(error, SshError::Closed { .. }) || (heard.anything && error.passes());
        if !closed || attempt >= FIRST_ATTEMPTS {
            return false;
        }
        tracing::info!("{host}: {error}; trying again");
        self.end_connection(host).await;
        sleep(PAUSES[0] * attempt).await;
        true
    }

    fn end(&self, host: &str, heard: Heard) -> Result<JobEnd, SshError> {
        let Heard { stdout, stderr, status, .. } = heard;
        let Some(code) = status else {
            return Err(SshError::NoStatus { host: host.to_owned(), said: String::new() });
        };
        of_end(host, &self.0.program.name, JobEnd { code, stdout, stderr })
    }

    /// Sends the script, and hears until it has said all.
    async fn call(
        &self,
        host: &str,
        action: Action<'_>,
        job: &Job,
        heard: &mut Heard,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), SshError> {
        check_host(host)?;
        let call = Call::new(&self.0.program, action, job);
        let command = call.command();
        if command.len() > LONGEST {
            return Err(SshError::TooLong(command.len()));
        }
        tracing::debug!("on {host}: {action:?} {}", shell_words::join(&job.arguments));
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
        let mut arguments = self.options();
        if self.0.settings.use_pty {
            arguments.push("-tt".into());
        }
        arguments.extend(["--".into(), host.to_owned(), command]);
        let mut local = Local::start(&self.0.settings.ssh_program, &arguments)?;
        let mut noise = String::new();
        let silence = self.0.settings.idle_timeout;
        loop {
            let Ok(line) = timeout(silence, local.line()).await else {
                local.kill();
                return Err(SshError::Silent { host: host.to_owned(), silence });
            };
            let Some(line) = line else { break };
            let Some(answer) = call.answer(&line) else {
                // With a terminal, medusa's stderr comes here.
                noise.push_str(&line);
                noise.push('\n');
                let surplus = noise.len().saturating_sub(LONGEST);
                noise.drain(..noise.ceil_char_boundary(surplus));
                continue;
            };
            heard.anything = true;
            match answer {
                Answer::Run { nonce, attached } => {
                    heard.run = Some(nonce);
                    if attached {
                        progress(ATTACHED);
                    }
                }
                Answer::Line(line) => progress(line.trim()),
                Answer::Alive => {}
                Answer::Stdout(text) => heard.stdout = text,
                Answer::Stderr(text) => heard.stderr = text,
                Answer::Status(status) => heard.status = Some(status),
                Answer::Problem { kind, said } => return Err(of_problem(host, &kind, &said)),
                Answer::End => {
                    let (_, stderr) = local.ended().await;
                    if matches!(action, Action::Ask) {
                        heard.stderr = format!("{noise}{stderr}");
                    }
                    return Ok(());
                }
            }
        }
        let (status, stderr) = local.ended().await;
        if heard.anything || status.is_none_or(|status| status.code() == Some(255) || status.code().is_none()) {
            return Err(of_ssh(host, &self.0.settings, &stderr));
        }
        let both = format!("{noise}\n{stderr}");
        let said = both.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let said = said.map_or_else(|| "it said nothing".to_owned(), str::to_owned);
        Err(SshError::NotRun { host: host.to_owned(), said })
    }

    /// Ends what is kept of a connection. A dead one would hold up the next call.
    async fn end_connection(&self, host: &str) {
        let mut arguments = self.options();
        arguments.extend(["-O", "exit", "--", host].map(str::to_owned));
        // Where there is none, ssh complains.
        if let Err(error) = Invocation::new(&self.0.settings.ssh_program, arguments).run(MOMENT).await {
            tracing::debug!("{error}");
        }
    }

    fn options(&self) -> Vec<String> {
        let settings = &self.0.settings;
        let mut words: Vec<String> = Vec::new();
        let mut named = |option: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([option.to_owned(), value]);
            }
        };
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
        named("-F", path(&settings.config_file));
        named("-p", settings.port.map(|port| port.to_string()));
        named("-l", settings.username.clone());
        named("-i", path(&settings.key_file));
        // Else an agent with many keys is refused before this one's turn.
        named("-o", settings.key_file.as_ref().map(|_| "IdentitiesOnly=yes".into()));
        named("-o", path(&settings.cert_file).map(|file| format!("CertificateFile=\"{file}\"")));
        let check = match settings.host_key_check {
            HostKeyCheck::Yes => "yes",
            HostKeyCheck::AcceptNew => "accept-new",
            HostKeyCheck::No => "no",
        };
        let sockets = self.0.sockets.path().display();
        for option in [
            "BatchMode=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
            format!("StrictHostKeyChecking={check}"),
            format!("ConnectTimeout={}", settings.connect_timeout.as_secs()),
            format!("ServerAliveInterval={}", settings.keepalive.as_secs()),
            "ServerAliveCountMax=3".to_owned(),
            "ControlMaster=auto".to_owned(),
            format!("ControlPath=\"{sockets}/%C\""),
            KEPT.to_owned(),
            "ForwardAgent=no".to_owned(),
            "ForwardX11=no".to_owned(),
        ] {
            named("-o", Some(option));
        }
        words
    }
}

/// What ssh could take for an option or expand, and what no host is called, is refused.
fn check_host(host: &str) -> Result<(), SshError> {
    let good = |c: char| c.is_alphanumeric() || ".-_:%".contains(c);
    if host.is_empty() || host.starts_with('-') || !host.chars().all(good) {
        return Err(SshError::BadHost(host.to_owned()));
    }
    Ok(())
}

/// A local ssh in a process group of its own, killed when dropped.
#[derive(Debug)]
struct Local {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<Tail>,
}

impl Local {
    fn start(program: &str, arguments: &[String]) -> Result<Self, SshError> {
        let mut command = Command::new(program);
        for variable in secret::VARIABLES {
            command.env_remove(variable);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SshError::Start { program: program.to_owned(), source })?;
        let stderr = Some(Tail::follow(child.stderr.take()));
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self { child, stdout, stderr })
    }

    /// The next line that it brings. `None`: there are no more.
    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = self.stdout.as_mut()?.read_until(b'\n', &mut line).await;
        let whole = read.is_ok_and(|bytes| bytes > 0);
        whole.then(|| String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Its status, unless it goes on although it has nothing to bring, and what it wrote to stderr.
    async fn ended(&mut self) -> (Option<ExitStatus>, String) {
        let status = timeout(MOMENT, self.child.wait()).await.ok().and_then(Result::ok);
        let stderr = match self.stderr.take() {
            Some(stderr) => stderr.end().await,
            None => String::new(),
        };
        (status, stderr)
    }

    fn kill(&self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
    }
}

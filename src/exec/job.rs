//! Runs of medusa on other hosts that outlive the connection: what is sent to a host, and what it answers.
//!
//! A shell there gets one script (`remote.sh`), coded so that no shell on the way interprets anything of it. The run itself
//! has a session of its own, so that it goes on when the connection is lost or the coordinator dies. Who calls again with the
//! same job finds it by its folder.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;

use super::command::telling_line;

/// A run of medusa on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Same id: the same work. Letters, digits, `-`.
    pub id: String,
    /// Folder on the host below which the job keeps its files (`--temp-dir`).
    pub folder: String,
    /// Of medusa, global options first.
    pub arguments: Vec<String>,
    /// How long it may take. `None`: as long as it shows that it lives.
    pub deadline: Option<Duration>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Exit code; 128 and the signal where one ended it.
    pub code: i32,
    pub stdout: String,
    /// The last lines.
    pub stderr: String,
}

/// Told of a run, as if it were its last line, that an earlier coordinator has begun.
pub const ATTACHED: &str = "goes on since an earlier run of this command";

impl JobEnd {
    /// By a signal: what it had begun may lie about.
    pub fn is_killed(&self) -> bool {
        self.code > 128
    }

    /// The line that says why it failed, for a table.
    pub fn reason(&self) -> String {
        reported(&self.stderr)
            .or_else(|| telling_line(&self.stderr))
            .or_else(|| telling_line(&self.stdout))
            .unwrap_or_else(|| match Signal::try_from(self.code - 128) {
                Ok(signal) => format!("medusa was ended by {signal}"),
                Err(_) => format!("medusa ended with exit code {}", self.code),
            })
    }
}

/// What a report of medusa says: the error, and the innermost of its causes or the first of its details.
fn reported(stderr: &str) -> Option<String> {
    let report = stderr.strip_prefix("error: ").or_else(|| Some(stderr.rsplit_once("\nerror: ")?.1))?;
    let mut lines = report.lines();
    let error = lines.next()?;
    let further: Vec<_> = lines.take_while(|line| line.starts_with(' ')).map(str::trim).collect();
    let cause = further.iter().rev().find_map(|line| line.strip_prefix("caused by: "));
    let detail = cause.or_else(|| further.first().copied());
    Some(detail.map_or_else(|| error.to_owned(), |detail| format!("{error}: {detail}")))
}

/// How medusa is called on the hosts.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) sudo: bool,
    pub(super) login_shell: bool,
}

/// What the host does. The text is the nonce of the run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action<'a> {
    Ask,
    Begin(&'a str),
    Remove(&'a str),
    Stop,
    Settle,
}

/// One call of a host.
#[derive(Debug)]
pub(super) struct Call {
    /// Begins every line of the answer. New each time, so that nothing that medusa prints can be taken for one.
    mark: String,
    script: String,
    login_shell: bool,
}

impl Call {
    pub(super) fn new(program: &Program, action: Action<'_>, job: &Job) -> Self {
        let mark = format!("@medusa-{}", uuid::Uuid::new_v4().simple());
        let (function, nonce) = match action {
            Action::Ask => ("as_medusa ask", ""),
            Action::Begin(nonce) => ("as_medusa begin", nonce),
            Action::Remove(nonce) => ("remove", nonce),
            Action::Stop => ("await terminate", ""),
            Action::Settle => ("await", ""),
        };
        // A name that is neither empty nor relative is never taken for an option.
        let base = if job.folder.starts_with('/') { job.folder.clone() } else { format!("./{}", job.folder) };
        let folder = format!("{}/medusa-job-{}", base.trim_end_matches('/'), job.id);
        let arguments = match action {
            Action::Ask | Action::Begin(_) => shell_words::join(&job.arguments),
            Action::Remove(_) | Action::Stop | Action::Settle => String::new(),
        };
        let values = [
            ("mark", mark.as_str()),
            ("base", &base),
            ("folder", &folder),
            ("nonce", nonce),
            ("medusa", &program.name),
            ("sudo", if program.sudo { "yes" } else { "no" }),
            ("wrapper", include_str!("../../packaging/medusa-wrapper")),
        ];
        let mut script: String =
            values.iter().map(|(name, value)| format!("{name}={}\n", shell_words::quote(value))).collect();
        script.push_str(include_str!("remote.sh"));
        // Nothing may read the rest of the script as its input.
        script.push_str(&format!("{function} {arguments} </dev/null\n"));
        Self { mark, script, login_shell: program.login_shell }
    }

    /// The command for the login shell of the host, whichever that is.
    pub(super) fn command(&self) -> String {
        let shell = if self.login_shell { "/bin/sh -l" } else { "/bin/sh" };
        format!("echo {} | base64 -d | {shell}", BASE64.encode(&self.script))
    }

    /// What a line of the output says. `None`: it is not of the script, but of a profile or of medusa.
    pub(super) fn answer(&self, line: &str) -> Option<Answer> {
        // Something before it may have ended without a newline.
        let at = line.find(&self.mark)?;
        let mut words = line[at + self.mark.len()..].split_whitespace();
        let kind = words.next()?;
        let mut word = || words.next().unwrap_or_default();
        Some(match kind {
            "run" => Answer::Run { nonce: word().to_owned(), attached: word() == "attached" },
            "line" => Answer::Line(decoded(word())),
            "alive" => Answer::Alive,
            "stdout" => Answer::Stdout(decoded(word())),
            "stderr" => Answer::Stderr(decoded(word())),
            "status" => Answer::Status(word().parse().ok()?),
            "problem" => {
                let kind = word().to_owned();
                Answer::Problem { kind, said: decoded(word()) }
            }
            "end" => Answer::End,
            _ => return None,
        })
    }
}

/// One line of what the script answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Run { nonce: String, attached: bool },
    Line(String),
    Alive,
    Stdout(String),
    Stderr(String),
    Status(i32),
    Problem { kind: String, said: String },
    End,
}

fn decoded(word: &str) -> String {
    BASE64.decode(word).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_failure_is_told_with_its_cause_or_its_first_detail() {
        let reason =
            |stderr: &str| super::JobEnd { code: 1, stdout: String::new(), stderr: stderr.to_owned() }.reason();
        let report =
            "  step one\nerror: no snapshot\n  n1: x\n  caused by: nodetool failed\n  caused by: no space\nhint: y\n";
        assert_eq!(reason(report), "no snapshot: no space");
        assert_eq!(
            reason("error: 1 table could not be loaded\n  shop.t: Stream failed\nhint: y\n"),
            "1 table could not be loaded: shop.t: Stream failed"
        );
        assert_eq!(reason("error: alone\n"), "alone");
        assert_eq!(reason("Segmentation fault\n"), "Segmentation fault");
        let silent = |code| super::JobEnd { code, stdout: String::new(), stderr: String::new() };
        assert_eq!(silent(137).reason(), "medusa was ended by SIGKILL");
        assert_eq!(silent(77).reason(), "medusa ended with exit code 77");
        assert!(silent(137).is_killed() && !silent(1).is_killed());
    }

    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::Barrier;

    use super::*;

    /// A host that is this one, with a program in the place of medusa.
    struct Host {
        folder: tempfile::TempDir,
        program: Program,
    }

    impl Host {
        fn new(medusa: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("medusa");
            std::fs::write(&file, format!("#!/bin/sh\n{medusa}\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
            let program = Program { name: file.display().to_string(), sudo: false, login_shell: false };
            Self { folder, program }
        }

        fn path(&self, below: &str) -> PathBuf {
            self.folder.path().join(below)
        }

        fn job(&self, arguments: &[&str]) -> Job {
            let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
            Job { id: "b1".into(), folder: self.path("temp dir").display().to_string(), arguments, deadline: None }
        }

        fn call(&self, action: Action<'_>, job: &Job) -> Vec<Answer> {
            self.call_by("/bin/sh", action, job)
        }

        fn call_by(&self, shell: &str, action: Action<'_>, job: &Job) -> Vec<Answer> {
            self.hear(shell, action, job, &|_| ())
        }

        /// Calls, and has each answer looked at as it comes.
        fn hear(&self, shell: &str, action: Action<'_>, job: &Job, look: &dyn Fn(&Answer)) -> Vec<Answer> {
            let call = Call::new(&self.program, action, job);
            let mut command = Command::new(shell);
            command.arg("-c").arg(call.command()).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            let answers = lines.filter_map(|line| call.answer(&line)).inspect(|answer| look(answer));
            let answers = answers.filter(|answer| *answer != Answer::Alive).collect();
            assert!(child.wait().unwrap().success());
            answers
        }

        fn job_folder(&self) -> PathBuf {
            self.path("temp dir/medusa-job-b1")
        }
    }

    fn ended(nonce: &str, attached: bool, status: i32) -> Vec<Answer> {
        let run = Answer::Run { nonce: nonce.into(), attached };
        let (stdout, stderr) = (Answer::Stdout(String::new()), Answer::Stderr(String::new()));
        vec![run, stdout, stderr, Answer::Status(status), Answer::End]
    }

    fn kill(pid: &Path) {
        let pid = std::fs::read_to_string(pid).unwrap();
        let pid = pid.split_whitespace().next().unwrap();
        assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    }

    /// Until it is there, on a busy machine too.
    fn await_file(path: &Path) {
        (0..15_000).find(|_| {
            std::thread::sleep(Duration::from_millis(20));
            path.exists()
        });
        assert!(path.exists(), "{}", path.display());
    }

    const STRANGE: [&str; 7] = ["a b", "it's \"so\"", "$(touch x)", "two\nlines", "`id` ; & | > < * ~ !", "é ü 漢", ""];

    #[test]
    fn arguments_arrive_as_they_are_in_a_job_and_in_a_question() {
        let host = Host::new("printf '<%s>' \"$@\"; echo said >&2; exit 3");
        let expected: String = STRANGE.iter().map(|argument| format!("<{argument}>")).collect();
        for shell in ["/bin/sh", "/bin/bash"] {
            let asked = host.call_by(shell, Action::Ask, &host.job(&STRANGE));
            assert_eq!(asked, [Answer::Stdout(expected.clone()), Answer::Status(3), Answer::End]);
            let answers = host.call_by(shell, Action::Begin("n1"), &host.job(&STRANGE));
            assert!(answers.contains(&Answer::Stdout(expected.clone())), "{answers:?}");
            assert!(answers.contains(&Answer::Stderr("said\n".into())), "{answers:?}");
            assert_eq!(answers[0], Answer::Run { nonce: "n1".into(), attached: false });
            assert_eq!(answers[answers.len() - 2..], [Answer::Status(3), Answer::End]);
            assert_eq!(std::fs::metadata(host.job_folder()).unwrap().permissions().mode() & 0o777, 0o700);
            assert_eq!(host.call_by(shell, Action::Remove("n1"), &host.job(&[])), [Answer::End]);
            assert_eq!(std::fs::read_dir(host.path("temp dir")).unwrap().count(), 0);
        }
    }

    #[test]
    fn an_end_is_told_again_to_who_began_it_and_is_old_for_others() {
        let host = Host::new(&format!("echo run >>{}", "\"${0%/medusa}/runs\""));
        let runs = || std::fs::read_to_string(host.path("runs")).unwrap().lines().count();
        let job = host.job(&[]);
        assert_eq!(host.call(Action::Begin("n1"), &job), ended("n1", false, 0));
        assert_eq!(host.call(Action::Begin("n1"), &job), ended("n1", false, 0));
        assert_eq!(runs(), 1);
        host.call(Action::Remove("n2"), &job);
        assert!(host.job_folder().exists(), "the folder of another run was removed");
        assert_eq!(host.call(Action::Begin("n2"), &job), ended("n2", false, 0));
        assert_eq!(runs(), 2);
    }

    #[test]
    fn of_many_who_begin_at_once_one_does_and_the_others_attach() {
        let host =
            Host::new("echo run >>\"${0%/medusa}/runs\"; while [ ! -e \"${0%/medusa}/go\" ]; do sleep 0.1; done");
        let job = host.job(&[]);
        let all_follow = Barrier::new(6);
        let all: Vec<_> = std::thread::scope(|scope| {
            let begin = |nonce: &'static str| {
                let (host, job, all_follow) = (&host, &job, &all_follow);
                let look = move |answer: &Answer| {
                    if matches!(answer, Answer::Run { .. } | Answer::Problem { .. }) {
                        all_follow.wait();
                    }
                };
                scope.spawn(move || host.hear("/bin/sh", Action::Begin(nonce), job, &look))
            };
            let threads: Vec<_> = ["n1", "n2", "n3", "n4", "n5"].into_iter().map(begin).collect();
            all_follow.wait();
            std::fs::write(host.path("go"), "").unwrap();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(std::fs::read_to_string(host.path("runs")).unwrap(), "run\n", "{all:?}");
        let attached = all.iter().filter(|answers| matches!(answers[0], Answer::Run { attached: true, .. }));
        assert_eq!(attached.count(), 4, "{all:?}");
    }

    #[test]
    fn a_medusa_that_is_killed_has_a_status_and_a_shell_that_is_killed_has_none() {
        let host = Host::new("kill -9 $$");
        assert_eq!(host.call(Action::Begin("n1"), &host.job(&[])), ended("n1", false, 137));
        let host = Host::new("echo $$ >\"${0%/medusa}/pid\"; exec sleep 600");
        let answers = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| host.call(Action::Begin("n1"), &host.job(&[])));
            await_file(&host.path("pid"));
            await_file(&host.job_folder().join("session"));
            kill(&host.job_folder().join("session"));
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!waiting.is_finished(), "medusa itself still runs");
            kill(&host.path("pid"));
            waiting.join().unwrap()
        });
        assert_eq!(answers[1..], [Answer::Problem { kind: "gone".into(), said: String::new() }]);
        let again = host.call(Action::Begin("n1"), &host.job(&[]));
        assert_eq!(again, [Answer::Problem { kind: "gone".into(), said: String::new() }], "the loss is told once more");
    }

    #[test]
    fn a_stop_waits_until_medusa_has_tidied_up() {
        let host = Host::new(
            "f=${0%/medusa}; trap 'sleep 1; touch \"$f/tidy\"; exit 143' TERM; touch \"$f/up\"; \
             while :; do sleep 0.1; done",
        );
        let job = host.job(&[]);
        assert_eq!(host.call(Action::Stop, &job), [Answer::End], "there is nothing to stop");
        std::thread::scope(|scope| {
            scope.spawn(|| host.call(Action::Begin("n1"), &job));
            await_file(&host.path("up"));
            assert_eq!(host.call(Action::Stop, &job), [Answer::End]);
            assert!(host.path("tidy").exists() && !host.job_folder().exists());
        });
    }

    #[test]
    fn a_run_settles_by_itself_and_leaves_nothing() {
        let host = Host::new("f=${0%/medusa}; touch \"$f/up\"; until [ -e \"$f/go\" ]; do sleep 0.1; done");
        let job = host.job(&[]);
        assert_eq!(host.call(Action::Settle, &job), [Answer::End], "there is nothing to wait for");
        std::thread::scope(|scope| {
            scope.spawn(|| host.call(Action::Begin("n1"), &job));
            await_file(&host.path("up"));
            let settling = scope.spawn(|| host.call(Action::Settle, &job));
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!settling.is_finished(), "the run was not waited for");
            std::fs::write(host.path("go"), "").unwrap();
            assert_eq!(settling.join().unwrap(), [Answer::End]);
            assert!(!host.job_folder().exists());
        });
    }

    #[test]
    fn what_was_left_a_day_ago_is_removed_and_what_still_runs_is_not() {
        let host = Host::new("until [ -e \"${0%/medusa}/go\" ]; do sleep 0.1; done");
        let others = ["ended", "running", "young"].map(|id| Job { id: id.into(), ..host.job(&[]) });
        let folder = |id: &str| host.path(&format!("temp dir/medusa-job-{id}"));
        let age = |id: &str| {
            let touched = Command::new("touch").args(["-d", "25 hours ago"]).arg(folder(id)).status().unwrap();
            assert!(touched.success());
        };
        std::thread::scope(|scope| {
            scope.spawn(|| host.call(Action::Begin("n1"), &others[1]));
            await_file(&folder("running").join("pid"));
            for id in ["ended", "young"] {
                std::fs::create_dir(folder(id)).unwrap();
                std::fs::write(folder(id).join("status"), "0\n").unwrap();
            }
            std::fs::create_dir(host.path("temp dir/of somebody else")).unwrap();
            age("ended");
            age("running");
            let begun = scope.spawn(|| host.call(Action::Begin("n2"), &host.job(&[])));
            await_file(&host.job_folder().join("pid"));
            assert!(!folder("ended").exists());
            assert!(folder("running").exists() && folder("young").exists());
            assert!(host.path("temp dir/of somebody else").exists());
            std::fs::write(host.path("go"), "").unwrap();
            assert_eq!(begun.join().unwrap(), ended("n2", false, 0));
        });
    }

    #[test]
    fn a_folder_that_is_not_ours_is_not_used() {
        let host = Host::new("touch \"${0%/medusa}/ran\"");
        std::fs::create_dir_all(host.path("temp dir")).unwrap();
        std::fs::create_dir(host.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(host.path("elsewhere"), host.job_folder()).unwrap();
        for action in [Action::Begin("n1"), Action::Stop, Action::Settle, Action::Remove("n1")] {
            let answers = host.call(action, &host.job(&[]));
            assert!(matches!(&answers[..], [Answer::Problem { kind, .. }] if kind == "folder"), "{answers:?}");
        }
        std::fs::remove_file(host.job_folder()).unwrap();
        std::fs::write(host.job_folder(), "").unwrap();
        let answers = host.call(Action::Begin("n1"), &host.job(&[]));
        assert!(matches!(&answers[..], [Answer::Problem { kind, .. }] if kind == "folder"), "{answers:?}");
        assert!(!host.path("ran").exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let mut host = Host::new("");
        host.program.name = "/no/such medusa".into();
        let missing = [Answer::Problem { kind: "missing".into(), said: "/no/such medusa".into() }];
        assert_eq!(host.call(Action::Ask, &host.job(&[])), missing);
        assert_eq!(host.call(Action::Begin("n1"), &host.job(&[])), missing);
    }

    /// Calls as a user who is not root, with a sudo of our own.
    fn by_nobody(host: &Host, sudo: &str, action: Action<'_>) -> Vec<Answer> {
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(host.path("sudo"), format!("#!/bin/sh\n{sudo}\n")).unwrap();
        open(&host.path("sudo"));
        open(host.folder.path());
        let call = Call::new(&host.program, action, &host.job(&STRANGE));
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh"];
        let words = if nix::unistd::geteuid().is_root() { &nobody[..] } else { &["/bin/sh"] };
        let path = format!("{}:{}", host.folder.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new(words[0]).args(&words[1..]).arg("-c").arg(call.command()).env("PATH", path).output();
        let said = String::from_utf8(output.unwrap().stdout).unwrap();
        said.lines().filter_map(|line| call.answer(line)).filter(|answer| *answer != Answer::Alive).collect()
    }

    #[test]
    fn who_is_not_root_runs_medusa_by_sudo() {
        let mut host = Host::new("printf '<%s>' \"$@\"");
        host.program.sudo = true;
        let expected: String = STRANGE.iter().map(|argument| format!("<{argument}>")).collect();
        // It must not ask.
        let sudo = "[ \"$1\" = -n ] || exit 9; shift; printf sudo:; exec \"$@\"";
        let asked = by_nobody(&host, sudo, Action::Ask);
        assert_eq!(asked, [Answer::Stdout(format!("sudo:{expected}")), Answer::Status(0), Answer::End]);
        let ran = by_nobody(&host, sudo, Action::Begin("n1"));
        assert!(ran.contains(&Answer::Stdout(format!("sudo:{expected}"))), "{ran:?}");
        let refused = by_nobody(&host, "echo 'sudo: a password is required' >&2; exit 1", Action::Begin("n2"));
        assert!(refused.contains(&Answer::Stderr("sudo: a password is required\n".into())), "{refused:?}");
        assert!(refused.contains(&Answer::Status(1)), "{refused:?}");
    }

    #[test]
    fn an_answer_is_found_behind_what_a_profile_prints() {
        let host = Host::new("");
        let call = Call::new(&host.program, Action::Ask, &host.job(&[]));
        assert_eq!(call.answer(&format!("Welcome!{} status 7", call.mark)), Some(Answer::Status(7)));
        assert_eq!(call.answer("@medusa-0 status 7"), None);
        assert_eq!(call.answer(&format!("{} later-kind", call.mark)), None);
    }
}

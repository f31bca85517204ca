//! Runs on other hosts: by a real sshd on loopback, and by a scripted ssh where the real one cannot be made to fail.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use medusa::config::{Config, Overrides};
use medusa::exec::job::{ATTACHED, Job, JobEnd};
use medusa::exec::ssh::{Ssh, SshError};

use crate::lab::sshd::SshLab;
use crate::lab::{project, scratch};

const STRANGE: [&str; 6] = ["a b", "it's \"so\"", "$(touch x)", "two\nlines", "`id` ; & | > < * ~ !", "é 漢"];

/// Writes down that it runs, says so, and waits until it may end.
const WAITING: &str = "echo run >>\"$F/runs\"; echo up >&2; while [ ! -e \"$F/go\" ]; do sleep 0.1; done; echo result";

/// A place with a program in the place of medusa. `F` is the place, for the program.
struct Place(tempfile::TempDir);

impl Place {
    fn new(medusa: &str) -> Self {
        let place = Self(scratch("remote"));
        place.program("medusa", &format!("F='{}'\n{medusa}", place.0.path().display()));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        self.path(name)
    }

    fn ssh(&self, settings: &str) -> Ssh {
        let text = format!(
            "[storage]\nstorage_provider = local\nbucket_name = b\n[cassandra]\nuse_sudo = False\n\
             [ssh]\nmedusa_program = {}\n{settings}\n",
            self.path("medusa").display()
        );
        let config = Config::from_text(&text, Path::new("m.ini"), &Overrides::default(), &BTreeMap::new()).unwrap();
        Ssh::new(&config).unwrap()
    }

    /// By the real ssh, to the hosts that were started.
    fn by_ssh(&self, lab: &SshLab, settings: &str) -> Ssh {
        self.ssh(&format!("config_file = {}\n{settings}", lab.config().display()))
    }

    /// By the scripted ssh.
    fn scripted(&self, settings: &str) -> Ssh {
        let endpoint = project().join("tests/lab/ssh_endpoint");
        let text = format!("FOLDER='{}' exec '{}' \"$@\"", self.0.path().display(), endpoint.display());
        let program = self.program("ssh", &text);
        self.ssh(&format!("ssh_program = {}\n{settings}", program.display()))
    }

    fn job(&self, arguments: &[&str]) -> Job {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Job { id: "backup-b1".into(), folder: self.path("tmp").display().to_string(), arguments, deadline: None }
    }

    /// How often medusa was run.
    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    fn release(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What a run said so far.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Runs a job beside the test.
    fn run(&self, ssh: &Ssh, host: &str, job: &Job) -> tokio::task::JoinHandle<Result<JobEnd, SshError>> {
        let (ssh, host, job, said) = (ssh.clone(), host.to_owned(), job.clone(), self.clone());
        tokio::spawn(async move {
            let progress = |line: &str| said.0.lock().unwrap().push(line.to_owned());
            ssh.run(&host, &job, &progress).await
        })
    }

    async fn until(&self, line: &str) {
        let patience = tokio::time::timeout(Duration::from_mins(5), async {
            while !self.all().iter().any(|said| said.contains(line)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(patience.await.is_ok(), "no {line}: {:?}", self.all());
    }
}

fn end(code: i32, stdout: &str, stderr: &str) -> JobEnd {
    JobEnd { code, stdout: stdout.into(), stderr: stderr.into() }
}

#[tokio::test]
async fn arguments_arrive_as_they_are_whatever_the_shell_and_the_terminal() {
    let place = Place::new("printf '<%s>' \"$@\"; echo said >&2; exit 3");
    let lab = SshLab::new();
    let forced = |shell: &str| format!("ForceCommand {shell} -c \"$SSH_ORIGINAL_COMMAND\"");
    let hosts = [
        lab.host("127.0.0.1", &[], ""),
        lab.host("127.0.0.2", &[], &forced("/bin/sh")),
        lab.host("127.0.0.3", &[], &forced("/bin/bash")),
    ];
    let expected: String = STRANGE.iter().map(|argument| format!("<{argument}>")).collect();
    for settings in ["", "use_pty = True", "login_shell = True"] {
        let ssh = place.by_ssh(&lab, settings);
        for host in &hosts {
            let job = place.job(&STRANGE);
            let asked = ssh.ask(&host.address, &job.arguments).await.unwrap();
            assert_eq!((asked.code, &asked.stdout), (3, &expected), "{settings}");
            assert_eq!(asked.reason(), "said", "{settings}");
            let ran = ssh.run(&host.address, &job, &|_| ()).await.unwrap();
            assert_eq!(ran, end(3, &expected, "said\n"), "{settings}");
        }
        ssh.close().await;
        place.nothing_is_left();
    }
    assert!(!project().join("x").exists() && !place.path("x").exists());
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_the_run_goes_on() {
    let place = Place::new(WAITING);
    let lab = SshLab::new();
    let host = lab.host("127.0.0.1", &[], "");
    // Connections are kept until they are ended.
    let patient = place.program("ssh", "exec ssh -o ControlPersist=600 \"$@\"").display().to_string();
    let (ssh, said) = (place.by_ssh(&lab, &format!("ssh_program = {patient}")), Said::default());
    let running = said.run(&ssh, &host.address, &place.job(&[]));
    said.until("up").await;
    host.break_connections();
    said.until("connection lost, trying again").await;
    place.release();
    assert_eq!(running.await.unwrap().unwrap(), end(0, "result\n", "up\n"));
    assert_eq!(place.runs(), 1);
    place.nothing_is_left();
    assert!(!host.connections().is_empty(), "no connection is kept");
    ssh.close().await;
    // sshd may need a moment to see it.
    for _ in 0..3000 {
        if host.connections().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("connections are left: {:?}", host.connections());
}

#[tokio::test]
async fn a_run_outlives_its_coordinator_and_the_next_one_attaches() {
    let place = Place::new(WAITING);
    let lab = SshLab::new();
    let host = lab.host("127.0.0.1", &[], "");
    let (first, said) = (place.by_ssh(&lab, ""), Said::default());
    let running = said.run(&first, &host.address, &place.job(&[]));
    said.until("up").await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    drop(first);
    let (second, said) = (place.by_ssh(&lab, ""), Said::default());
    let running = said.run(&second, &host.address, &place.job(&[]));
    said.until("up").await;
    assert_eq!(said.all()[0], ATTACHED);
    // What is attached to is not lost with the next connection either.
    host.break_connections();
    place.release();
    assert_eq!(running.await.unwrap().unwrap(), end(0, "result\n", "up\n"));
    assert_eq!(place.runs(), 1);
    place.nothing_is_left();
    second.close().await;
}

#[tokio::test]
async fn a_stopped_run_tidies_up_and_leaves_nothing() {
    let place = Place::new("trap 'touch \"$F/tidy\"; exit 143' TERM; echo up >&2; while :; do sleep 0.1; done");
    let lab = SshLab::new();
    let host = lab.host("127.0.0.1", &[], "");
    let (ssh, said) = (place.by_ssh(&lab, ""), Said::default());
    let job = place.job(&[]);
    ssh.stop(&host.address, &job).await.unwrap();
    let running = said.run(&ssh, &host.address, &job);
    said.until("up").await;
    running.abort();
    ssh.stop(&host.address, &job).await.unwrap();
    assert!(place.path("tidy").exists());
    place.nothing_is_left();
    ssh.close().await;
}

#[tokio::test]
async fn a_host_must_prove_by_a_known_key_who_it_is() {
    let place = Place::new("echo 1.0");
    let lab = SshLab::new();
    let host = lab.host("127.0.0.1", &[], "");
    let (ssh, known) = (place.by_ssh(&lab, ""), fs::read_to_string(lab.path("known_hosts")).unwrap());
    let ask = async |ssh: &Ssh| {
        let answer = ssh.ask(&host.address, &["--version".to_owned()]).await;
        ssh.close().await;
        answer
    };
    assert_eq!(ask(&ssh).await.unwrap().stdout, "1.0\n");
    fs::write(lab.path("known_hosts"), "").unwrap();
    let error = ask(&ssh).await.unwrap_err();
    assert!(matches!(error, SshError::HostKeyUnknown { .. }), "{error}");
    assert!(error.hint().contains("ssh-keyscan") && error.hint().contains("accept-new"), "{}", error.hint());
    let accepting = place.ssh(&format!("config_file = {}\nhost_key_check = accept-new", lab.path("config").display()));
    assert_eq!(ask(&accepting).await.unwrap().stdout, "1.0\n");
    assert_eq!(ask(&ssh).await.unwrap().stdout, "1.0\n", "the key was not kept");
    let other = fs::read_to_string(lab.path("id.pub")).unwrap();
    let port = known.split(' ').next().unwrap();
    fs::write(lab.path("known_hosts"), format!("{port} {other}")).unwrap();
    let unchecked = place.ssh(&format!("config_file = {}\nhost_key_check = no", lab.path("config").display()));
    assert_eq!(ask(&unchecked).await.unwrap().stdout, "1.0\n");
    for ssh in [&ssh, &accepting] {
        let error = ask(ssh).await.unwrap_err();
        assert!(matches!(error, SshError::HostKeyChanged { .. }), "{error}");
        assert!(
            error.hint().contains("installed anew") && error.hint().contains("another machine"),
            "{}",
            error.hint()
        );
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_told_with_which_key() {
    let place = Place::new("echo 1.0");
    let lab = SshLab::new();
    let host = lab.host("127.0.0.1", &[], "");
    lab.config();
    let stranger = place.by_ssh(&lab, "username = no-such-user");
    let error = stranger.ask(&host.address, &[]).await.unwrap_err();
    assert!(error.to_string().contains("no-such-user"), "{error}");
    fs::write(lab.path("authorized_keys"), "").unwrap();
    let ssh = place.by_ssh(&lab, &format!("key_file = {}", lab.path("id").display()));
    let error = ssh.ask(&host.address, &[]).await.unwrap_err();
    assert!(matches!(error, SshError::PermissionDenied { .. }), "{error}");
    assert!(error.hint().contains(&lab.path("id").display().to_string()), "{}", error.hint());
    let address = host.address.clone();
    drop(host);
    let error = ssh.run(&address, &place.job(&[]), &|_| ()).await.unwrap_err();
    assert!(matches!(error, SshError::Unreachable { .. }) && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn port_key_and_certificate_are_those_that_are_set() {
    let place = Place::new("echo 1.0");
    let lab = SshLab::new();
    let [authority, certificate] = lab.certificate();
    let host = lab.host("127.0.0.1", &[], &format!("TrustedUserCAKeys {}", authority.display()));
    lab.config();
    fs::write(lab.path("authorized_keys"), "").unwrap();
    let known = format!("Host *\n  UserKnownHostsFile {}\n", lab.path("known_hosts").display());
    fs::write(lab.path("config"), known).unwrap();
    let keys = [
        ("config_file", lab.path("config").display().to_string()),
        ("port", host.port().to_string()),
        ("key_file", lab.path("id").display().to_string()),
        ("cert_file", certificate.display().to_string()),
    ];
    let ask = async |keys: &[(&str, String)]| {
        let settings: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let ssh = place.ssh(&settings);
        let answer = ssh.ask(&host.address, &["--version".to_owned()]).await;
        ssh.close().await;
        answer
    };
    assert_eq!(ask(&keys).await.unwrap().stdout, "1.0\n");
    let error = ask(&keys[..3]).await.unwrap_err();
    assert!(matches!(error, SshError::PermissionDenied { .. }), "{error}");
    let [config, port, _, certificate] = keys;
    let error = ask(&[config, port, certificate]).await.unwrap_err();
    assert!(matches!(error, SshError::PermissionDenied { .. }), "{error}");
}

#[tokio::test]
async fn a_host_behind_another_one_is_reached_through_it() {
    let place = Place::new(WAITING);
    let lab = SshLab::new();
    let (door, inner) = (lab.host("127.0.0.1", &[], ""), lab.host("127.0.0.2", &[], ""));
    let (ssh, said) = (place.by_ssh(&lab, ""), Said::default());
    let config = fs::read_to_string(lab.path("config")).unwrap();
    let jump = format!("Host {}\n  ProxyJump {}\n", inner.address, door.address);
    fs::write(lab.path("config"), jump + &config).unwrap();
    let running = said.run(&ssh, &inner.address, &place.job(&[]));
    said.until("up").await;
    assert!(!door.connections().is_empty(), "it was reached by another way");
    // What breaks on the way there is found again, too.
    door.break_connections();
    said.until("connection lost, trying again").await;
    place.release();
    assert_eq!(running.await.unwrap().unwrap(), end(0, "result\n", "up\n"));
    assert_eq!(place.runs(), 1);
    ssh.close().await;
    place.nothing_is_left();
}

#[tokio::test]
async fn a_connection_that_went_silent_is_given_up_by_its_keepalive() {
    let place = Place::new(WAITING);
    let lab = SshLab::new();
    let host = lab.host("127.0.0.1", &[], "");
    let (ssh, said) = (place.by_ssh(&lab, "keepalive_seconds = 1\nidle_timeout = 86400"), Said::default());
    let running = said.run(&ssh, &host.address, &place.job(&[]));
    said.until("up").await;
    host.freeze_connections();
    // By its default it would be noticed after three minutes.
    let noticed = tokio::time::timeout(Duration::from_secs(100), said.until("connection lost, trying again"));
    assert!(noticed.await.is_ok(), "{:?}", said.all());
    place.release();
    assert_eq!(running.await.unwrap().unwrap(), end(0, "result\n", "up\n"));
    assert_eq!(place.runs(), 1);
    host.break_connections();
    ssh.close().await;
    place.nothing_is_left();
}

#[tokio::test]
async fn each_failure_says_what_it_is() {
    let place = Place::new("echo 1.0");
    let (patient, impatient) = (place.scripted(""), place.scripted("idle_timeout = 2"));
    for (host, message, hint) in [
        ("changed", "is not the one that is known", "-f /home/ops/.ssh/known_hosts"),
        ("unknown", "is not known", "ssh-keyscan"),
        ("password", "Permission denied (publickey,password)", "authorized_keys"),
        ("agent", "Too many authentication failures", "key_file"),
        ("refused", "cannot be reached: port 22: Connection refused", "ssh refused true"),
        ("unresolved", "Could not resolve hostname", "config_file"),
        ("timeout", "Connection timed out", "config_file"),
        ("closed", "was closed: kex_exchange_identification", "ssh closed true"),
        ("hang", "nothing was heard of it for 2 s", "idle_timeout"),
        ("nologin", "This account is currently not available.", "login shell"),
        ("-oProxyCommand=x", "is not the name of a host", "letters"),
        ("a b", "is not the name of a host", "letters"),
        ("", "is not the name of a host", "letters"),
    ] {
        let ssh = if host == "hang" { &impatient } else { &patient };
        for error in [
            ssh.ask(host, &[]).await.unwrap_err(),
            ssh.run(host, &place.job(&[]), &|_| ()).await.unwrap_err(),
            ssh.stop(host, &place.job(&[])).await.unwrap_err(),
        ] {
            assert!(error.to_string().contains(message), "{host}: {error}");
            assert!(error.hint().contains(hint), "{host}: {}", error.hint());
            assert!(!error.to_string().contains('\n'), "{host}: {error}");
        }
    }
    assert_eq!(patient.ask("slow", &[]).await.unwrap().stdout, "1.0\n");
    fs::remove_file(place.path("medusa")).unwrap();
    let error = patient.run("here", &place.job(&[]), &|_| ()).await.unwrap_err();
    assert!(matches!(error, SshError::MedusaMissing { .. }), "{error}");
    assert!(error.hint().contains("medusa_program"), "{}", error.hint());
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_followed_up_until_the_time_is_over() {
    let place = Place::new(&format!("touch \"$F/go\"; {WAITING}"));
    let ssh = place.scripted("reconnect_timeout = 2");
    let ended = ssh.run("cut", &place.job(&[]), &|_| ()).await.unwrap();
    assert_eq!(ended, end(0, "result\n", "up\n"));
    assert_eq!(place.runs(), 1);
    place.nothing_is_left();
    let error = ssh.run("lost", &place.job(&[]), &|_| ()).await.unwrap_err();
    assert!(matches!(error, SshError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("No route to host") && error.to_string().contains("goes on there"), "{error}");
    assert!(error.hint().contains("the same command"), "{}", error.hint());
}

#[tokio::test]
async fn a_deadline_leaves_the_run_to_be_attached_to_or_stopped() {
    let place = Place::new(WAITING);
    let ssh = place.scripted("");
    let job = Job { deadline: Some(Duration::from_secs(2)), ..place.job(&[]) };
    let error = ssh.run("here", &job, &|_| ()).await.unwrap_err();
    assert!(matches!(error, SshError::Deadline { .. }), "{error}");
    let running = Said::default().run(&ssh, "here", &place.job(&[]));
    // Whether it comes before or after: the run that began first is the one.
    place.release();
    let ended = running.await.unwrap().unwrap();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "result\n"));
    ssh.stop("here", &place.job(&[])).await.unwrap();
    place.nothing_is_left();
}

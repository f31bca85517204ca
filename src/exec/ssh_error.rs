//! Why a host did not do what it was asked for, told from what ssh and the host say.

use std::time::Duration;

use super::job::JobEnd;
use crate::config;

/// Why it is not known how a run ended, or why it did not begin. One line for a table or behind `HOST: `, which name the host.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    #[error("{0:?} is not the name of a host")]
    BadHost(String),
    #[error("a command line of {0} bytes is too long for ssh")]
    TooLong(usize),
    #[error("{program} could not be started: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("its host key is not known")]
    HostKeyUnknown { host: String },
    #[error("its host key is not the one that is known")]
    HostKeyChanged { host: String, file: Option<String> },
    #[error("it did not let us in: {said}")]
    PermissionDenied { host: String, said: String, key: Option<String> },
    #[error("cannot be reached: {said}")]
    Unreachable { host: String, said: String },
    #[error("the connection was closed: {said}")]
    Closed { host: String, said: String },
    #[error("nothing was heard of it for {} s", silence.as_secs())]
    Silent { host: String, silence: Duration },
    /// The login shell ran something else than what was sent, or could not run it.
    #[error("it did not run what was sent: {said}")]
    NotRun { host: String, said: String },
    #[error("medusa ({program}) was not found there")]
    MedusaMissing { host: String, program: String },
    #[error("sudo did not run medusa there: {said}")]
    Sudo { host: String, said: String },
    #[error("the folder of the run cannot be used there: {said}")]
    Folder { host: String, said: String },
    #[error("the run ended without saying how{}", after_colon(said))]
    NoStatus { host: String, said: String },
    #[error("the run was ended, or its result taken, by another command")]
    Taken { host: String },
    #[error("the run cannot be ended: {said}")]
    CannotStop { host: String, said: String },
    #[error("did not finish within {} s; the run goes on there", deadline.as_secs())]
    Deadline { host: String, deadline: Duration },
    #[error("it was lost for {} s ({cause}); the run goes on there", tried.as_secs())]
    Lost { host: String, tried: Duration, cause: Box<SshError> },
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl SshError {
    /// The way forward.
    pub fn hint(&self) -> String {
        match self {
            Self::BadHost(_) => "letters, digits and . - _ : % are allowed".into(),
            Self::TooLong(_) => "name fewer tables in one command".into(),
            Self::Start { .. } => "install the OpenSSH client, or set ssh_program in [ssh]".into(),
            Self::HostKeyUnknown { host } => format!(
                "if you trust the network: ssh-keyscan -H {host} >> ~/.ssh/known_hosts, \
                 or host_key_check = accept-new in [ssh]"
            ),
            Self::HostKeyChanged { host, file } => format!(
                "either {host} was installed anew, then remove its old key: ssh-keygen -R {host}{}; \
                 or another machine answers in its place: find out before anything is sent there",
                file.as_ref().map(|file| format!(" -f {file}")).unwrap_or_default()
            ),
            Self::PermissionDenied { host, key, .. } => {
                let key = match key {
                    Some(key) => format!("the key {key}"),
                    None => "a key of your agent or of ~/.ssh".to_owned(),
                };
                format!(
                    "{key} must be in authorized_keys of that user on {host}, and must need no passphrase unless an agent \
                     holds it; username and key_file in [ssh] choose another. Try: ssh -o BatchMode=yes {host} true"
                )
            }
            Self::Unreachable { host, .. } | Self::Closed { host, .. } => {
                format!("try: ssh {host} true; username, port and config_file in [ssh] say how it is reached")
            }
            Self::Silent { host, .. } => {
                format!("see whether {host} is overloaded; idle_timeout in [ssh] says how long to wait")
            }
            Self::NotRun { host, .. } => {
                format!("the user of ssh needs a login shell on {host}, and that host /bin/sh and base64")
            }
            Self::MedusaMissing { host, .. } => {
                format!("install medusa on {host}, or set medusa_program in [ssh] to its path there")
            }
            Self::Sudo { host, .. } => format!(
                "allow it in sudoers on {host} without a password and a terminal, or set use_sudo = False in [cassandra]"
            ),
            Self::Folder { host, .. } => {
                format!("--temp-dir must name a folder on {host} in which the user of ssh can create others")
            }
            Self::NoStatus { host, .. } => format!(
                "it was killed, or {host} was restarted: see its logs (with KillUserProcesses of systemd-logind, \
                 runs end with their connection). The same command goes on with what was done"
            ),
            Self::Taken { .. } => "let one command at a time work on the cluster; run this one again".into(),
            Self::CannotStop { host, .. } => format!("end medusa on {host} by hand (kill -TERM)"),
            Self::Deadline { .. } | Self::Lost { .. } => {
                "the same command, run again, takes up the run that goes on there".into()
            }
        }
    }

    /// Whether a run may have been begun that goes on, or has ended in a way of which nothing was heard.
    pub fn leaves_doubt(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. }
                | Self::Deadline { .. }
                | Self::Closed { .. }
                | Self::Silent { .. }
                | Self::NoStatus { .. }
                | Self::Taken { .. }
        )
    }

    /// Whether it may go by itself.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Closed { .. } | Self::Silent { .. })
    }
}

/// What ssh says where the host refuses us, and where there is no way to it.
const DENIED: [&str; 2] = ["Permission denied (", "Too many authentication failures"];
const AWAY: [&str; 6] = [
    "Connection refused",
    "timed out",
    "Could not resolve hostname",
    "No route to host",
    "is unreachable",
    "connect to host",
];

/// From what ssh wrote before it ended with 255.
pub(super) fn of_ssh(host: &str, settings: &config::ssh::Ssh, stderr: &str) -> SshError {
    let host = host.to_owned();
    let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    let line = |texts: &[&str]| stderr.lines().rev().find(|line| texts.iter().any(|text| line.contains(text)));
    let last = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let said = |line: Option<&str>| {
        let line = line.or(last).unwrap_or("ssh ended without a word").trim();
        line.strip_prefix("ssh: ").unwrap_or(line).to_owned()
    };
    if has(&["REMOTE HOST IDENTIFICATION HAS CHANGED", "REVOKED HOST KEY"]) {
        let file = line(&["Offending "]).and_then(|line| line.split(" in ").nth(1));
        let file = file.and_then(|file| file.trim().rsplit_once(':')).map(|(file, _)| file.to_owned());
        return SshError::HostKeyChanged { host, file };
    }
    if has(&["Host key verification failed", "host key is known for"]) {
        return SshError::HostKeyUnknown { host };
    }
    if has(&DENIED) {
        let key = settings.key_file.as_ref().map(|key| key.display().to_string());
        return SshError::PermissionDenied { host, said: said(line(&DENIED)), key };
    }
    if has(&AWAY) {
        let said = said(line(&AWAY));
        let told = format!("connect to host {host} ");
        let said = said.strip_prefix(told.as_str()).map_or_else(|| said.clone(), str::to_owned);
        return SshError::Unreachable { host, said };
    }
    SshError::Closed { host, said: said(None) }
}

/// What the script on the host could not do.
pub(super) fn of_problem(host: &str, kind: &str, said: &str) -> SshError {
    let (host, said) = (host.to_owned(), said.trim().to_owned());
    match kind {
        "missing" => SshError::MedusaMissing { host, program: said },
        "sudo" => SshError::Sudo { host, said },
        "gone" => SshError::NoStatus { host, said },
        "removed" => SshError::Taken { host },
        "stop" => SshError::CannotStop { host, said },
        _ => SshError::Folder { host, said },
    }
}

/// An end that is not one of medusa, because it never began.
pub(super) fn of_end(host: &str, program: &str, end: JobEnd) -> Result<JobEnd, SshError> {
    if end.code == 127 {
        return Err(SshError::MedusaMissing { host: host.to_owned(), program: program.to_owned() });
    }
    let by_sudo = |line: &&str| line.starts_with("sudo: ") || line.starts_with("Sorry, user ");
    if end.code == 1
        && end.stdout.is_empty()
        && let Some(line) = end.stderr.lines().map(str::trim).rfind(by_sudo)
    {
        if line.ends_with("command not found") {
            return Err(SshError::MedusaMissing { host: host.to_owned(), program: program.to_owned() });
        }
        let said = line.strip_prefix("sudo: ").unwrap_or(line).to_owned();
        return Err(SshError::Sudo { host: host.to_owned(), said });
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(code: i32, stderr: &str) -> JobEnd {
        JobEnd { code, stdout: String::new(), stderr: stderr.into() }
    }

    #[test]
    fn what_sudo_says_is_not_taken_for_medusas_words() {
        let said = |code, stderr| of_end("h", "medusa", end(code, stderr)).map_err(|error| error.to_string());
        let missing = "medusa (medusa) was not found there".to_owned();
        assert_eq!(said(1, "sudo: medusa: command not found\n"), Err(missing.clone()));
        assert_eq!(said(127, "sh: 1: medusa: not found\n"), Err(missing));
        let password = "sudo did not run medusa there: a password is required".to_owned();
        assert_eq!(said(1, "sudo: a password is required\n"), Err(password));
        let refused = "Sorry, user ops is not allowed to execute '/usr/bin/medusa' as root on h.\n";
        assert!(said(1, refused).unwrap_err().contains("is not allowed to execute"));
        for (code, stderr) in [(1, "error: backup b1 exists\n"), (3, "sudo: x\n"), (0, "")] {
            assert_eq!(said(code, stderr), Ok(end(code, stderr)));
        }
    }
}

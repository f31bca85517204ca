//! nodetool, with the options of `[cassandra]`. A password goes through a private file, never through the command line.
//!
//! A nodetool outlives a medusa that is killed, and goes on taking or clearing a snapshot. So its standard input is an empty
//! file with a lock that it inherits: whoever needs to be alone with a snapshot waits for that lock. Each tag has its own, so
//! that backups of other names go on beside it.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use nix::fcntl::OFlag;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::config;
use crate::error::Failure;
use crate::exec::command::{ExecError, Invocation};

/// How nodetool is called on this node.
#[derive(Debug)]
pub struct Nodetool {
    program: String,
    options: Vec<String>,
    password_file: Option<PasswordFile>,
    /// Of a call that is quick on a healthy node.
    timeout: Duration,
    /// Of a call that may flush much.
    snapshot_timeout: Duration,
    /// Held by this process and by every nodetool that it starts.
    lock: OnceLock<Lock>,
}

/// Between two looks whether the nodetool of another run has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The locked file of one snapshot, removed when dropped: by then every nodetool of this run has ended.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// `None`: somebody else has it, or has just removed it.
    fn try_take(path: &Path) -> anyhow::Result<Option<Self>> {
        // Never through a link: the folder belongs to everybody.
        let (flags, mode) = (OFlag::O_NOFOLLOW.bits(), 0o600);
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(mode).custom_flags(flags);
        let file = file.open(path)?.into_file();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("could not lock {}", path.display())),
        }
        let is_there =
            fs_err::metadata(path).is_ok_and(|found| file.metadata().is_ok_and(|own| own.ino() == found.ino()));
        Ok(is_there.then(|| Self { file, path: path.to_owned() }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs_err::remove_file(&self.path);
    }
}

#[derive(Debug)]
enum PasswordFile {
    Given(PathBuf),
    /// Readable by this user only; removed when we end.
    Private(tempfile::NamedTempFile),
}

impl PasswordFile {
    fn path(&self) -> String {
        match self {
            Self::Given(path) => path.display().to_string(),
            Self::Private(file) => file.path().display().to_string(),
        }
    }
}

impl Nodetool {
    /// # Errors
    /// A password without a user name, or one that nodetool cannot read from a file.
    pub fn new(config: &config::Cassandra) -> Result<Self, Failure> {
        let mut options = config.nodetool_flags.clone();
        if config.nodetool_ssl {
            options.push("--ssl".into());
        }
        for (option, value) in
            [("-u", &config.nodetool_username), ("-h", &config.nodetool_host), ("-p", &config.nodetool_port)]
        {
            if let Some(value) = value {
                options.extend([option.to_owned(), value.clone()]);
            }
        }
        Ok(Self {
            program: config.nodetool_executable.clone(),
            options,
            password_file: password_file(config)?,
            timeout: config.nodetool_timeout,
            snapshot_timeout: config.snapshot_timeout,
            lock: OnceLock::new(),
        })
    }

    /// Waits until no other run, and no nodetool of one that was killed, works on this snapshot of the node with this data
    /// directory. One that takes longer than a nodetool may is not waited for.
    pub async fn wait_for_others(&self, data_directory: &Path, tag: &str) {
        if let Err(error) = self.lock(data_directory, tag).await {
            tracing::warn!("{}; another run on snapshot {tag} would not be noticed", crate::error::one_line(&error));
        }
    }

    async fn lock(&self, data_directory: &Path, tag: &str) -> anyhow::Result<()> {
        let folder = fs_err::metadata(data_directory)?;
        let path = std::env::temp_dir().join(format!("medusa-nodetool-{}-{}-{tag}.lock", folder.dev(), folder.ino()));
        let deadline = Instant::now() + self.snapshot_timeout;
        let mut told = false;
        loop {
            if let Some(lock) = Lock::try_take(&path)? {
                self.lock.get_or_init(|| lock);
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} is locked", path.display());
            if !told {
                tracing::info!("waiting for another run on snapshot {tag}, or for the nodetool that it left behind");
                told = true;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn stdin(&self) -> Stdio {
        self.lock.get().and_then(|lock| lock.file.try_clone().ok()).map_or_else(Stdio::null, Stdio::from)
    }

    fn invocation(&self, words: &[&str]) -> Invocation {
        let password = self.password_file.iter().flat_map(|file| ["-pwf".to_owned(), file.path()]);
        let words = words.iter().map(|word| (*word).to_owned());
        Invocation::new(self.program.clone(), self.options.iter().cloned().chain(password).chain(words))
    }

    async fn call(&self, words: &[&str], deadline: Duration) -> Result<String, Failure> {
        let run = self.invocation(words).run_with(self.stdin(), deadline).await;
        run.and_then(|outcome| outcome.successful(&self.program)).map_err(|error| failure(words, error))
    }

    /// Nothing is left behind by what it does, so nobody must wait for it who has given up.
    async fn ask(&self, word: &str, deadline: Duration) -> Result<String, Failure> {
        let run = self.invocation(&[word]).bound().run_successfully(deadline).await;
        run.map_err(|error| failure(&[word], error))
    }

    /// The release of the node that it talks to.
    pub async fn release(&self) -> Result<String, Failure> {
        let said = self.ask("version", self.timeout).await?;
        let release = said.lines().find_map(|line| line.strip_prefix("ReleaseVersion:"));
        let odd = || Failure::failed(format!("nodetool version gave an unexpected answer: {}", said.trim()));
        release.map(|release| release.trim().to_owned()).ok_or_else(odd)
    }

    /// The nodes of the ring that this one finds up, by their Host ID.
    pub async fn live_nodes(&self) -> Result<HashSet<Uuid>, Failure> {
        Ok(live_nodes(&self.ask("status", self.timeout).await?))
    }

    /// Writes everything that was acknowledged before into `SSTables`.
    ///
    /// A snapshot flushes, too, but only what is in the newest memtable (`ColumnFamilyStore.snapshot`): where a flush is under
    /// way and nothing was written since, it does not wait, and the rows that are being written out are not in it. This one
    /// waits for flushes that others began.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.ask("flush", self.snapshot_timeout).await.map(drop)
    }

    /// Takes a snapshot of all keyspaces.
    pub async fn snapshot(&self, tag: &str) -> Result<(), Failure> {
        self.call(&["snapshot", "-t", tag], self.snapshot_timeout).await.map(drop)
    }

    pub async fn clear_snapshot(&self, tag: &str) -> Result<(), Failure> {
        self.call(&["clearsnapshot", "-t", tag], self.timeout).await.map(drop)
    }

    /// Flushes everything and stops taking writes: afterwards the commit log holds nothing that the tables do not.
    pub async fn drain(&self) -> Result<(), Failure> {
        self.call(&["drain"], self.snapshot_timeout).await.map(drop)
    }
}

/// `UN  10.0.0.1  104.4 KiB  16  66.7%  7b4f0c5e-…  rack1`: up, and normal, joining, leaving or moving.
fn live_nodes(status: &str) -> HashSet<Uuid> {
    let is_up = |line: &&str| ["UN ", "UJ ", "UL ", "UM "].iter().any(|state| line.starts_with(state));
    let id = |line: &str| line.split_whitespace().find_map(|word| Uuid::try_parse(word).ok());
    status.lines().filter(is_up).filter_map(id).collect()
}

/// Whether a nodetool was given up because it took too long.
pub fn took_too_long(failure: &Failure) -> bool {
    let cause = failure.cause.as_ref().and_then(|cause| cause.downcast_ref::<ExecError>());
    matches!(cause, Some(ExecError::Deadline { .. }))
}

fn failure(words: &[&str], error: ExecError) -> Failure {
    let what = format!("nodetool {} failed on this node", words.first().unwrap_or(&""));
    let hint = match &error {
        ExecError::Start { .. } => "nodetool_executable in [cassandra] of medusa.ini says where nodetool is",
        ExecError::Deadline { .. } => {
            "is the node overloaded? nodetool_timeout and snapshot_timeout in [cassandra] set the deadlines"
        }
        ExecError::Failed { .. } => "is Cassandra running on this node? medusa doctor checks CQL, JMX and the service",
    };
    Failure::failed(what).cause(error).hint(hint)
}

fn password_file(config: &config::Cassandra) -> Result<Option<PasswordFile>, Failure> {
    if let Some(path) = &config.nodetool_password_file_path {
        return Ok(Some(PasswordFile::Given(path.clone())));
    }
    let Some(password) = &config.nodetool_password else { return Ok(None) };
    let Some(user) = &config.nodetool_username else {
        return Err(Failure::usage("nodetool_password is set in [cassandra], but nodetool_username is not"));
    };
    if [user.as_str(), password.reveal()].iter().any(|text| text.contains(char::is_whitespace)) {
        let message = "nodetool_username or nodetool_password contains a blank, which nodetool cannot read from a file";
        return Err(Failure::usage(message));
    }
    let write = || {
        let mut file = tempfile::Builder::new().prefix("medusa-jmx-").tempfile()?;
        writeln!(file, "{user} {}", password.reveal())?;
        file.flush()?;
        Ok::<_, std::io::Error>(file)
    };
    let file = write().map_err(|error| Failure::failed("could not write a password file for nodetool").cause(error))?;
    Ok(Some(PasswordFile::Private(file)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides};

    fn nodetool(lines: &str) -> Result<Nodetool, Failure> {
        let text = format!("[storage]\nstorage_provider = local\nbucket_name = b\n[cassandra]\n{lines}");
        let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
        Nodetool::new(&config.cassandra)
    }

    #[test]
    fn a_lock_is_held_by_one_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(lock);
        assert!(!path.exists());
        assert!(Lock::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn nodes_that_are_up_are_told_by_their_host_id() {
        let status = "Datacenter: dc1\n===============\nStatus=Up/Down\n|/ State=Normal/Leaving/Joining/Moving\n\
            --  Address     Load        Tokens  Owns (effective)  Host ID                               Rack \n\
            UN  127.0.0.1   104.4 KiB   16      66.7%             00000000-0000-0000-0000-000000000001  rack1\n\
            DN  10.0.0.2    ?           16      66.7%             00000000-0000-0000-0000-000000000002  rack1\n\
            UL  2001:db8::3 1.02 MiB    16      66.7%             00000000-0000-0000-0000-000000000003  rack1\n\n\
            Note: Non-system keyspaces don't have the same replication settings\n";
        assert_eq!(live_nodes(status), HashSet::from([1, 3].map(Uuid::from_u128)));
    }

    #[test]
    fn options_come_in_the_order_of_medusa() {
        let all = "nodetool_executable = /opt/nodetool\nnodetool_flags = -Da=b -Dc=d\nnodetool_ssl = true\nnodetool_username = u\n\
                   nodetool_password_file_path = /pw\nnodetool_host = h\nnodetool_port = 7199\n";
        let shown = nodetool(all).unwrap().invocation(&["snapshot", "-t", "medusa-b1"]).to_string();
        assert_eq!(shown, "/opt/nodetool '-Da=b' '-Dc=d' --ssl -u u -h h -p 7199 -pwf /pw snapshot -t medusa-b1");
        let plain = nodetool("nodetool_flags =\n").unwrap().invocation(&["drain"]).to_string();
        assert_eq!(plain, "nodetool drain");
    }

    #[test]
    fn a_password_goes_through_a_private_file() {
        let nodetool = nodetool("nodetool_username = u\nnodetool_password = hunter2\n").unwrap();
        assert!(!nodetool.invocation(&["drain"]).to_string().contains("hunter2"));
        let Some(PasswordFile::Private(file)) = &nodetool.password_file else { panic!("no private file") };
        assert_eq!(fs_err::read_to_string(file.path()).unwrap(), "u hunter2\n");
        assert_eq!(fs_err::metadata(file.path()).unwrap().mode() & 0o777, 0o600);
        let path = file.path().to_owned();
        drop(nodetool);
        assert!(!path.exists());
    }

    #[test]
    fn passwords_that_cannot_work_are_refused() {
        assert!(nodetool("nodetool_password = x\n").is_err());
        let error = nodetool("nodetool_username = u\nnodetool_password = hun ter\n").unwrap_err();
        assert!(!format!("{error:?}").contains("hun ter"), "{error:?}");
    }
}

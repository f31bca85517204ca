//! The machine: its configuration files, folders and programs, and its Cassandra.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use nix::unistd::{AccessFlags, Uid, User, access, geteuid};

use super::report::{Finding, age};
use crate::cassandra::cql::Cql;
use crate::cassandra::facts::ClusterFacts;
use crate::cassandra::installed;
use crate::cassandra::naming::Resolver;
use crate::cassandra::nodetool::Nodetool;
use crate::cassandra::snapshot;
use crate::cassandra::yaml::CassandraYaml;
use crate::config::keys::Kind;
use crate::config::values::Origin;
use crate::config::{Config, TlsVerify};
use crate::model::units;
use crate::restore::journal::{FOLDER, Journal, Phase};

pub const INI: &str = "medusa.ini";
pub const LOG: &str = "log file";
pub const YAML: &str = "cassandra.yaml";
pub const DATA: &str = "data directories";
pub const SPACE: &str = "free space";
pub const CQL: &str = "CQL";
pub const NAME: &str = "name of this node";
pub const NODETOOL: &str = "nodetool";
pub const SERVICE: &str = "service";
pub const RESTORES: &str = "restores";
pub const SNAPSHOTS: &str = "snapshots";

/// The tags of our snapshots begin so.
const TAG: &str = "medusa-";
/// Less than that in a hundred is worth a warning: compactions and snapshots need room.
const LITTLE_SPACE: u64 = 10;
/// Bytes with which neither Cassandra nor a backup gets far.
const NO_SPACE: u64 = 100 << 20;

/// Whether there is a Cassandra on this machine.
#[derive(Debug)]
pub enum Node {
    Here(Box<CassandraYaml>),
    /// A machine that only coordinates.
    Absent,
    /// There should be one, and what is known of it cannot be used.
    Unknown,
}

pub fn ini(config: &Config) -> Vec<Finding> {
    let path = config.path.display();
    let mut findings: Vec<_> = config.values.warnings.iter().map(|warning| ini_warning(warning)).collect();
    let in_file = |origin: &Origin| matches!(origin, Origin::File { .. });
    let set = config.values.iter().filter(|(_, value)| in_file(&value.origin)).count() as u64;
    let secret = config.values.iter().find(|(key, value)| {
        key.kind == Kind::Secret && in_file(&value.origin) && value.text.as_ref().is_some_and(|text| !text.is_empty())
    });
    if let Some((key, _)) = secret.filter(|_| others_read(&config.path)) {
        let text = format!("{path} holds {} and can be read by everybody", key.name);
        findings.push(Finding::warning(INI, text, format!("chmod o-rwx {path}")));
    }
    if let Some(file) = config.storage.object_store.key_file.as_ref().filter(|file| others_read(file)) {
        let text = format!("{} holds credentials and can be read by everybody", file.display());
        findings.push(Finding::warning(INI, text, format!("chmod o-rwx {}", file.display())));
    }
    findings.insert(0, Finding::ok(INI, format!("{path}, {} set", units::counted(set, "key"))));
    findings
}

fn ini_warning(warning: &str) -> Finding {
    let fix = "is it a misspelt key? medusa.example.ini has every key; medusa config shows what is in effect";
    Finding::warning(INI, warning, fix)
}

fn others_read(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

pub fn cassandra_yaml(config: &Config) -> (Finding, Node) {
    let path = &config.cassandra.config_file;
    if !path.exists() {
        return match installed::find_yaml() {
            Some(found) => {
                let fix = format!("config_file = {} in [cassandra] of medusa.ini", found.display());
                (Finding::failed(YAML, format!("{} does not exist", path.display()), fix), Node::Unknown)
            }
            None if installed::is_likely() => {
                let fix = "config_file in [cassandra] of medusa.ini must be the cassandra.yaml of this node";
                (Finding::failed(YAML, format!("{} does not exist", path.display()), fix), Node::Unknown)
            }
            None if is_given(config) => {
                let fix = "config_file in [cassandra] must be the cassandra.yaml of this node; a machine without Cassandra leaves it out";
                (Finding::failed(YAML, format!("{} does not exist", path.display()), fix), Node::Unknown)
            }
            None => {
                let text = format!(
                    "there is no {}, and no Cassandra on this machine: it can coordinate, and look after the bucket",
                    path.display()
                );
                (Finding::not_checked(YAML, text), Node::Absent)
            }
        };
    }
    match CassandraYaml::read(path) {
        Ok(yaml) => {
            let folders = yaml.data_directories.len() as u64;
            let folders =
                if folders == 1 { "1 data directory".to_owned() } else { format!("{folders} data directories") };
            (Finding::ok(YAML, format!("{}, {folders}", path.display())), Node::Here(Box::new(yaml)))
        }
        Err(error) => {
            let fix = "Cassandra cannot read it either, or config_file in [cassandra] names another file";
            (Finding::error(YAML, &error).or_fix(fix), Node::Unknown)
        }
    }
}

/// Somebody has said where cassandra.yaml is.
fn is_given(config: &Config) -> bool {
    matches!(config.values.get("cassandra", "config_file").origin, Origin::File { .. } | Origin::Flag(_))
}

/// Whether this user may do there what backups and restores do. `is_elevated`: restores run as root by way of sudo.
pub fn data_directories(yaml: &CassandraYaml, is_elevated: bool) -> Vec<Finding> {
    let user = user_name(geteuid());
    let restores = if is_elevated {
        "restores are run as root by way of sudo (use_sudo_for_restore); a snapshot is removed by nodetool only"
    } else {
        "run restores as Cassandra's user or as root"
    };
    let mut findings = Vec::new();
    let folders = yaml.table_directories();
    for folder in &folders {
        let shown = folder.display();
        let owner = match fs::metadata(folder) {
            Ok(metadata) => user_name(Uid::from_raw(metadata.uid())),
            Err(error) => {
                let fix = "is the disk mounted, and is config_file in [cassandra] the cassandra.yaml of this node?";
                findings.push(Finding::failed(DATA, error.to_string(), fix));
                continue;
            }
        };
        if access(folder, AccessFlags::R_OK | AccessFlags::X_OK).is_err() {
            let text = format!("{user} cannot read {shown}");
            findings.push(Finding::failed(DATA, text, format!("run medusa as {owner} or as root")));
        } else if access(folder, AccessFlags::W_OK).is_err() {
            let text = format!("{user} cannot write to {shown}, which belongs to {owner}");
            findings.push(Finding::warning(DATA, text, restores));
        } else if let Err(error) = try_link(folder) {
            let text = format!("{user} cannot make hard links in {shown}: {error}");
            findings.push(Finding::warning(DATA, text, restores));
        }
    }
    for folder in [&yaml.commitlog_directory, &yaml.saved_caches_directory, &yaml.hints_directory] {
        if folder.exists() && access(folder, AccessFlags::W_OK).is_err() {
            let text = format!("{user} cannot write to {}", folder.display());
            findings.push(Finding::warning(DATA, text, restores));
        }
    }
    if findings.is_empty() {
        let shown: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        findings.push(Finding::ok(DATA, format!("{}: {user} can read, write and link", shown.join(", "))));
    }
    findings
}

pub fn user_name(user: Uid) -> String {
    let found = User::from_uid(user).ok().flatten();
    found.map_or_else(|| format!("user {user}"), |found| found.name)
}

/// Links a file as a restore does: an SSTable of Cassandra's, if there is one.
fn try_link(data: &Path) -> std::io::Result<()> {
    // Cassandra passes over hidden folders.
    let folder = tempfile::Builder::new().prefix(".medusa-doctor-").tempdir_in(data)?;
    let link = folder.path().join("link");
    let is_sstable = |entry: &walkdir::DirEntry| entry.file_name().to_string_lossy().ends_with("-Data.db");
    let sstable = walkdir::WalkDir::new(data).max_depth(3).into_iter().flatten().find(is_sstable);
    match sstable.map(|entry| fs::hard_link(entry.path(), &link)) {
        // Compacted away meanwhile.
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Some(Ok(())) => return Ok(()),
        _ => {}
    }
    let own = folder.path().join("file");
    fs::write(&own, "")?;
    fs::hard_link(own, link)
}

/// Each file system once.
pub fn space(folders: &[PathBuf]) -> Vec<Finding> {
    let mut systems = BTreeMap::new();
    for folder in folders {
        if let Ok(metadata) = fs::metadata(folder) {
            systems.entry(metadata.dev()).or_insert_with(|| folder.clone());
        }
    }
    let mut findings: Vec<_> = systems.into_values().map(|folder| space_of(&folder)).collect();
    if findings.is_empty() {
        findings.push(Finding::not_checked(SPACE, "no data directory can be looked at"));
    }
    findings
}

fn space_of(folder: &Path) -> Finding {
    match nix::sys::statvfs::statvfs(folder) {
        Ok(space) => {
            let unit = space.fragment_size();
            judge_space(folder, space.blocks_available() * unit, space.blocks() * unit)
        }
        Err(error) => Finding::error(SPACE, &anyhow::anyhow!("{}: {error}", folder.display())),
    }
}

fn judge_space(folder: &Path, free: u64, all: u64) -> Finding {
    let text = format!("{} has {} free of {}", folder.display(), units::size(free), units::size(all));
    let fix =
        "nodetool listsnapshots shows what snapshots keep; medusa restore-node --dry-run tells what a restore needs";
    match free {
        ..NO_SPACE => Finding::failed(SPACE, text, fix),
        free if free / LITTLE_SPACE < all / 100 => Finding::warning(SPACE, text, fix),
        _ => Finding::ok(SPACE, text),
    }
}

pub async fn cql(config: &Config, yaml: &CassandraYaml) -> (Finding, Option<ClusterFacts>) {
    if !yaml.native_transport {
        let fix = "backups ask for tables and tokens by CQL: remove start_native_transport: false";
        return (Finding::failed(CQL, format!("it is switched off in {}", yaml.path.display()), fix), None);
    }
    let gathered = async {
        let cql = Cql::connect(&config.cassandra, yaml).await?;
        let facts = ClusterFacts::gather(&cql, &Resolver::new(config)).await?;
        anyhow::Ok((cql.address(), facts))
    };
    match gathered.await {
        Ok((address, facts)) => {
            let tls = match (&config.cassandra.certfile, config.cassandra.cql_tls_verify) {
                (None, _) => "without TLS",
                (Some(_), TlsVerify::Full) => "TLS verified",
                (Some(_), TlsVerify::Ca) => "TLS, signed by the CA, name not verified",
                (Some(_), TlsVerify::None) => "TLS not verified",
            };
            let release = &facts.version.release_version;
            let text = format!("{address}, Cassandra {release}, cluster {}, {tls}", facts.cluster_name);
            (Finding::ok(CQL, text), Some(facts))
        }
        Err(error) => (Finding::error(CQL, &error).or_fix("does cqlsh work on this node?"), None),
    }
}

/// A node under another name than in its token map is missing from its own backups.
pub fn name(fqdn: &str, facts: &ClusterFacts) -> Finding {
    if facts.tokenmap.hosts.contains_key(fqdn) {
        let nodes = units::counted(facts.tokenmap.hosts.len() as u64, "node");
        return Finding::ok(NAME, format!("{fqdn}, as in the token map of {nodes}"));
    }
    let text = format!("{fqdn} in the bucket, {} in the token map: no backup would count as complete", facts.own_name);
    let fix = format!(
        "fqdn = {} in [storage] of medusa.ini, unless backups of this node exist under {fqdn}; or change resolve_ip_addresses in [cassandra]",
        facts.own_name
    );
    Finding::warning(NAME, text, fix)
}

pub async fn nodetool(config: &Config) -> Finding {
    let begin = Instant::now();
    let asked = async { anyhow::Ok(Nodetool::new(&config.cassandra)?.release().await?) };
    match asked.await {
        Ok(release) => {
            let took = units::took(begin.elapsed());
            Finding::ok(NODETOOL, format!("{} answered in {took}: {release}", config.cassandra.nodetool_executable))
        }
        Err(error) => {
            let mut finding = Finding::error(NODETOOL, &error);
            // It is this command that the usual hint leads to.
            finding.fix = finding.fix.filter(|fix| !fix.contains("medusa doctor")).or_else(|| {
                let fix = "is Cassandra running on this node? nodetool_host, nodetool_port and the other nodetool_… keys \
                           in [cassandra] say how it is reached";
                Some(fix.to_owned())
            });
            finding
        }
    }
}

/// What a restore stops and starts Cassandra with.
pub async fn service(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, words) in [("stop_cmd", &config.cassandra.stop_cmd), ("start_cmd", &config.cassandra.start_cmd)] {
        let shown = shell_words::join(words);
        let fix = format!(
            "restores need {key} in [cassandra] of medusa.ini, for example systemctl {} cassandra",
            &key[..key.len() - 4]
        );
        if words.is_empty() {
            findings.push(Finding::warning(SERVICE, format!("{key} is empty"), fix));
        } else if let Some(missing) = installed::missing_programs(words).first() {
            findings.push(Finding::warning(SERVICE, format!("{key} is {shown}, and there is no {missing}"), fix));
        } else if let Some(unit) = installed::unit_of(words)
            && !installed::is_unit(unit).await
        {
            findings.push(Finding::warning(
                SERVICE,
                format!("{key} is {shown}, and systemd knows no unit {unit}"),
                fix,
            ));
        }
    }
    if findings.is_empty() {
        let shown = [&config.cassandra.stop_cmd, &config.cassandra.start_cmd].map(shell_words::join);
        findings.push(Finding::ok(SERVICE, format!("{}; {}", shown[0], shown[1])));
    }
    findings
}

pub fn restores(yaml: &CassandraYaml) -> Vec<Finding> {
    let mut findings = Vec::new();
    for data in &yaml.data_directories {
        match Journal::unfinished(data) {
            Ok(found) => findings.extend(found.iter().map(|(folder, journal)| restore(folder, &journal.phase))),
            Err(error) => {
                findings.push(
                    Finding::error(RESTORES, &error).or_fix("look into that folder; medusa restore-node says more"),
                );
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(RESTORES, "none is half-way"));
    }
    findings
}

fn restore(folder: &Path, phase: &Phase) -> Finding {
    let name = folder.file_name().map(|name| name.to_string_lossy().replace(FOLDER, "")).unwrap_or_default();
    let text = format!("{} is half-way ({}), or runs right now", folder.display(), phase.name());
    let fix = format!(
        "if no restore runs: the same command goes on with it, medusa restore-node --backup-name {name} --undo takes it back"
    );
    match phase {
        Phase::Staging | Phase::Staged | Phase::Done => Finding::warning(RESTORES, text, fix),
        Phase::Stopped | Phase::Swapping | Phase::Starting => Finding::failed(RESTORES, text, fix),
    }
}

pub fn snapshots(yaml: &CassandraYaml) -> Vec<Finding> {
    match snapshot::tagged(&yaml.table_directories(), TAG) {
        Ok(found) if found.is_empty() => vec![Finding::ok(SNAPSHOTS, "none was left by a backup")],
        Ok(found) => found.into_iter().map(|(tag, taken)| left(&tag, taken.elapsed().unwrap_or_default())).collect(),
        Err(error) => vec![Finding::error(SNAPSHOTS, &error).or_fix("run medusa as Cassandra's user or as root")],
    }
}

fn left(tag: &str, taken: Duration) -> Finding {
    let name = tag.strip_prefix(TAG).unwrap_or(tag);
    let text = format!("{tag} was taken {} ago and keeps old SSTables on the disk", age(taken));
    let fix = format!(
        "unless backup {name} runs right now: medusa backup-node --backup-name {name} finishes it, nodetool clearsnapshot -t {tag} removes it"
    );
    Finding::warning(SNAPSHOTS, text, fix)
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn little_space_is_a_warning_and_none_a_failure() {
        let state = |free, all| judge_space(Path::new("/d"), free, all).state;
        assert_eq!(state(500 << 30, 1 << 40), State::Ok);
        assert_eq!(state(50 << 30, 1 << 40), State::Warning);
        assert_eq!(state(50 << 20, 1 << 40), State::Failed);
    }

    #[test]
    fn a_restore_that_stopped_cassandra_is_a_failure() {
        let folder = Path::new("/data/.medusa-restore-b1");
        let staged = restore(folder, &Phase::Staged);
        assert_eq!(staged.state, State::Warning);
        assert!(staged.fix.unwrap().contains("--backup-name b1 --undo"));
        assert_eq!(restore(folder, &Phase::Swapping).state, State::Failed);
    }

    #[test]
    fn folders_are_tried_and_left_as_they_were() {
        let data = tempfile::tempdir().unwrap();
        let sstable = data.path().join("shop/orders-1/nb-1-big-Data.db");
        fs::create_dir_all(sstable.parent().unwrap()).unwrap();
        for content in [None, Some("1")] {
            if let Some(content) = content {
                fs::write(&sstable, content).unwrap();
            }
            try_link(data.path()).unwrap();
            assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
        }
        assert_eq!(fs::metadata(&sstable).unwrap().nlink(), 1);
    }
}

//! A medusa.ini for this machine: what was asked for, what was found here, and the example for the rest.
//!
//! The file appears at once and complete; a crash before that leaves a temporary file beside it, or nothing. One that is
//! replaced stays under another name.

pub mod ask;
pub mod template;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use fs_err as fs;
use nix::unistd::{Gid, Group, geteuid};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::template::Setting;
use crate::cassandra::installed;
use crate::cassandra::yaml::CassandraYaml;
use crate::config::{Config, Overrides};
use crate::doctor::bucket::STORAGE;
use crate::doctor::node::{self, NODETOOL, Node, SERVICE};
use crate::doctor::report::{Finding, State};
use crate::error::Failure;
use crate::storage::provider;

/// It may hold passwords.
const MODE: u32 = 0o640;

/// Of each look at something outside.
const LIMIT: Duration = Duration::from_secs(30);

/// Adds what is found on this machine and was not given.
pub async fn look_around(settings: &mut Vec<Setting>) {
    let value = |settings: &[Setting], key: &str| {
        let of_cassandra = |setting: &&Setting| setting.section == "cassandra" && setting.key == key;
        settings.iter().find(of_cassandra).map(|setting| setting.value.clone())
    };
    let mut found: Vec<(&str, String)> = Vec::new();
    let yaml = value(settings, "config_file").map(PathBuf::from).or_else(installed::find_yaml);
    if let Some(yaml) = yaml {
        let nodetool = installed::find_nodetool(&yaml);
        found.push(("config_file", yaml.display().to_string()));
        found.extend(nodetool.map(|nodetool| ("nodetool_executable", nodetool.display().to_string())));
        if installed::is_unit("cassandra").await {
            let sudo = if installed::find_program("sudo", None).is_some() { "sudo " } else { "" };
            found.push(("start_cmd", format!("{sudo}systemctl start cassandra")));
            found.push(("stop_cmd", format!("{sudo}systemctl stop cassandra")));
        }
    }
    for (key, text) in found {
        if value(settings, key).is_none() {
            settings.push(Setting::new("cassandra", key, text));
        }
    }
}

/// The text, and what medusa reads in it.
///
/// # Errors
/// Values that cannot be used, or that are needed and were not given.
pub fn compose(settings: &[Setting], path: &Path) -> anyhow::Result<(String, Config)> {
    let given = |key: &str| settings.iter().find(|setting| setting.section == "storage" && setting.key == key);
    let missing = |option: &str| {
        Failure::usage(format!("{option} is missing, and there is no terminal to ask on"))
            .hint("medusa init --provider local --base-path /mnt/backups --bucket-name prod, for example")
    };
    let provider = given("storage_provider").ok_or_else(|| missing("--provider"))?;
    if !provider::is_known(&provider.value) {
        return Err(provider::unknown(&provider.value).into());
    }
    given("bucket_name").ok_or_else(|| missing("--bucket-name"))?;
    if provider.value == "local" {
        given("base_path").ok_or_else(|| missing("--base-path"))?;
    }
    Ok(filled(settings, path)?)
}

fn filled(settings: &[Setting], path: &Path) -> Result<(String, Config), Failure> {
    let text = template::fill(settings);
    let config = Config::from_text(&text, path, &Overrides::default(), &BTreeMap::new()).map_err(|error| {
        // A line of a file that is not there helps nobody.
        let told = error.to_string();
        Failure::usage(told.rsplit_once(" (from ").map_or(told.as_str(), |(what, _)| what))
    })?;
    for Setting { section, key, value } in settings {
        if config.values.get(section, key).text.as_ref() != Some(value) {
            return Err(Failure::usage(format!("{key} in [{section}] cannot be set to {value:?}")));
        }
        if key == "base_path" && !value.starts_with('/') {
            return Err(Failure::usage(format!(
                "base_path in [storage] is {value:?}, but it must begin with /: commands run in any folder"
            )));
        }
    }
    Ok((text, config))
}

/// What is wrong with one value, whatever else is still to be said.
pub fn objection(setting: &Setting) -> Option<String> {
    let others = [("storage_provider", "local"), ("bucket_name", "b"), ("base_path", "/")];
    let others = others.into_iter().filter(|(key, _)| *key != setting.key);
    let mut settings: Vec<_> = others.map(|(key, value)| Setting::new("storage", key, value)).collect();
    settings.push(setting.clone());
    filled(&settings, Path::new("medusa.ini")).err().map(|failure| failure.message)
}

/// Tries what the file will say. Nothing of it keeps the file from being written.
pub async fn try_out(config: &Config) -> Vec<Finding> {
    let (yaml, node) = node::cassandra_yaml(config);
    let of_node = async {
        let Node::Here(_) = node else { return Vec::new() };
        let nodetool = timeout(LIMIT, node::nodetool(config)).await;
        let nodetool = nodetool.unwrap_or_else(|_| late(NODETOOL));
        let service = timeout(LIMIT, node::service(config)).await.unwrap_or_else(|_| vec![late(SERVICE)]);
        [vec![nodetool], service].concat()
    };
    let storage = async { timeout(LIMIT, list(config)).await.unwrap_or_else(|_| late(STORAGE)) };
    let (of_node, storage) = tokio::join!(of_node, storage);
    let mut findings = [vec![yaml], of_node, vec![storage]].concat();
    for finding in findings.iter_mut().filter(|finding| finding.state == State::Failed) {
        finding.state = State::Warning;
    }
    findings
}

fn late(check: &'static str) -> Finding {
    Finding::warning(check, format!("no answer within {} s", LIMIT.as_secs()), "medusa doctor says more")
}

/// Reads only.
async fn list(config: &Config) -> Finding {
    let storage = match provider::open(&config.storage) {
        Ok(storage) => storage,
        Err(failure) => return Finding::error(STORAGE, &failure.into()),
    };
    let location = storage.location();
    if let ("local", Some(base)) = (config.storage.provider.as_str(), &config.storage.base_path)
        && !is_folder(base.clone()).await
    {
        let fix = "mount it, or create it for the user that backs up, before the first backup";
        return Finding::warning(STORAGE, format!("{} is not there", base.display()), fix);
    }
    match storage.folders(&storage.layout().root()).await {
        Ok(folders) if folders.is_empty() => Finding::ok(STORAGE, format!("{location}: can be listed, and is empty")),
        Ok(_) => Finding::ok(STORAGE, format!("{location}: can be listed, and holds something already")),
        Err(error) => Finding::error(STORAGE, &error.into()).or_fix("medusa storage-check says more"),
    }
}

/// On a thread: a dead mount does not answer.
async fn is_folder(path: PathBuf) -> bool {
    spawn_blocking(move || path.is_dir()).await.unwrap_or(false)
}

/// What was written where.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// The file that was there before.
    pub previous: Option<PathBuf>,
    /// Who may read it beside its owner.
    pub group: String,
}

/// Whether the file has nothing but comments and names of sections.
pub fn sets_nothing(path: &Path) -> bool {
    let is_idle = |line: &str| line.is_empty() || line.starts_with([';', '#', '[']);
    fs::read_to_string(path).is_ok_and(|text| text.lines().map(str::trim).all(is_idle))
}

/// Refuses to replace a file unless that is wanted.
///
/// # Errors
/// There is one.
pub fn check_free(path: &Path, replace: bool) -> Result<(), Failure> {
    if replace || fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    Err(Failure::usage(format!("{} is there already, and stays as it is", path.display())).hint(
        "medusa doctor checks it; medusa init --dry-run prints what would be written; --force replaces it and keeps it under another name",
    ))
}

/// Writes the file so that it is there as a whole or not at all. Cassandra's group may read it.
pub fn write(path: &Path, text: &str, config: &Config, force: bool) -> anyhow::Result<Written> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".medusa-init-")
        .tempfile_in(folder)
        .with_context(|| format!("could not create a file in {}", folder.display()))?;
    file.write_all(text.as_bytes())?;
    let before = fs::metadata(path).ok();
    let of_before = before.as_ref().map(|metadata| (metadata.uid(), metadata.gid()));
    // Nobody has chosen the group of a file that a package brought.
    let chosen = of_before.filter(|_| !sets_nothing(path)).map(|(_, group)| group);
    let group = chosen.or_else(|| group_of_cassandra(config)).or(of_before.map(|(_, group)| group));
    let user = of_before.map(|(user, _)| user);
    // Only root gives files away.
    if geteuid().is_root() {
        chown(file.path(), user, group)?;
    }
    file.as_file().set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.as_file().sync_all()?;
    let owner = Gid::from_raw(file.as_file().metadata()?.gid());
    let previous = if force && before.is_some() { Some(keep(path)?) } else { None };
    if force {
        file.persist(path).map_err(|error| error.error)
    } else {
        file.persist_noclobber(path).map_err(|error| error.error)
    }
    .with_context(|| format!("could not write {}", path.display()))?;
    fs::File::open(folder)?.sync_all()?;
    let group = Group::from_gid(owner).ok().flatten().map_or_else(|| owner.to_string(), |group| group.name);
    Ok(Written { previous, group })
}

fn group_of_cassandra(config: &Config) -> Option<u32> {
    let yaml = CassandraYaml::read(&config.cassandra.config_file).ok()?;
    yaml.data_directories.first().and_then(|data| fs::metadata(data).ok()).map(|metadata| metadata.gid())
}

/// Gives a file a second name, one that nobody has.
fn keep(path: &Path) -> anyhow::Result<PathBuf> {
    // Not an editor's backup of it, either.
    for number in 1..1000 {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 1 { ".bak".to_owned() } else { format!(".bak{number}") });
        match fs::hard_link(path, &name) {
            Ok(()) => return Ok(name.into()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("the previous file could not be kept"),
        }
    }
    anyhow::bail!("there are too many files {}.bak…", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Vec<Setting> {
        [("storage_provider", "local"), ("bucket_name", "b"), ("base_path", "/mnt")]
            .map(|(key, value)| Setting::new("storage", key, value))
            .into()
    }

    #[test]
    fn what_is_needed_must_be_given() {
        let path = Path::new("/etc/medusa/medusa.ini");
        compose(&settings(), path).unwrap();
        for (missing, option) in [(0, "--provider"), (1, "--bucket-name"), (2, "--base-path")] {
            let mut settings = settings();
            settings.remove(missing);
            assert!(compose(&settings, path).unwrap_err().to_string().contains(option), "{option}");
        }
        let odd = [settings(), vec![Setting::new("storage", "prefix", "a/b")]].concat();
        assert!(compose(&odd, path).unwrap_err().to_string().contains("must not contain a slash"));
        let mut relative = settings();
        relative[2].value = "~/b".to_owned();
        assert!(compose(&relative, path).unwrap_err().to_string().contains("must begin with /"));
        let origin = compose(&odd, path).unwrap_err().to_string();
        assert!(!origin.contains("medusa.ini"), "the file is not there yet: {origin}");
        let unknown = [Setting::new("storage", "storage_provider", "s3_mars")];
        assert!(compose(&unknown, path).unwrap_err().to_string().contains("s3_mars"));
    }

    /// Only root may give a file to another group.
    #[test]
    fn the_file_of_a_package_gets_the_group_of_cassandra() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, yaml) = (folder.path().join("medusa.ini"), folder.path().join("cassandra.yaml"));
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        chown(&data, None, Some(4711)).unwrap();
        fs::write(&yaml, format!("data_file_directories:\n  - {}\n", data.display())).unwrap();
        let settings =
            [settings(), vec![Setting::new("cassandra", "config_file", yaml.display().to_string())]].concat();
        let (_, config) = compose(&settings, &path).unwrap();
        for (before, group) in [("; nothing\n[storage]\n", 4711), ("[storage]\nprefix = x\n", 4712)] {
            fs::write(&path, before).unwrap();
            chown(&path, None, Some(4712)).unwrap();
            write(&path, "1", &config, true).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().gid(), group, "{before}");
        }
    }

    #[test]
    fn a_file_is_replaced_only_if_that_is_wanted_and_every_old_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/medusa.ini");
        let (_, config) = compose(&settings(), &path).unwrap();
        check_free(&path, false).unwrap();
        assert_eq!(write(&path, "1", &config, false).unwrap().previous, None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert!(check_free(&path, false).is_err());
        assert!(write(&path, "2", &config, false).is_err());
        for (text, kept) in [("2", "medusa.ini.bak"), ("3", "medusa.ini.bak2")] {
            let previous = write(&path, text, &config, true).unwrap().previous.unwrap();
            assert_eq!(previous, path.with_file_name(kept));
        }
        let read = |name: &str| fs::read_to_string(path.with_file_name(name)).unwrap();
        assert_eq!(["medusa.ini", "medusa.ini.bak2", "medusa.ini.bak"].map(read), ["3", "2", "1"]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 3);
    }
}

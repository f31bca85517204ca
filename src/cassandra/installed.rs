//! What of Cassandra is installed on this machine: where its configuration and its programs are, and what starts it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::yaml::CassandraYaml;
use crate::exec::command::Invocation;

/// Folders of cassandra.yaml: packages of Debian, of Red Hat, and archives that were unpacked by hand.
const CONFIGURATIONS: [&str; 6] = [
    "/etc/cassandra",
    "/etc/cassandra/conf",
    "/etc/cassandra/default.conf",
    "/opt/cassandra/conf",
    "/usr/local/cassandra/conf",
    "/usr/share/cassandra/conf",
];

/// Folders of programs that may not be in the PATH of a service or of sudo.
const PROGRAMS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/opt/cassandra/bin", "/usr/local/cassandra/bin"];

/// Where packages, and images of containers, put its jars.
const HOMES: [&str; 4] = ["/usr/share/cassandra", "/opt/cassandra", "/usr/local/cassandra", "/opt/bitnami/cassandra"];

/// The service manager answers at once, or is not there.
const SERVICE_MANAGER: Duration = Duration::from_secs(10);

/// The first cassandra.yaml in the usual places.
pub fn find_yaml() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let given = variable("CASSANDRA_CONF").into_iter().chain(variable("CASSANDRA_HOME").map(|home| home.join("conf")));
    let folders = given.chain(CONFIGURATIONS.map(PathBuf::from));
    folders.map(|folder| folder.join("cassandra.yaml")).find(|path| path.is_file())
}

/// Whether anything looks as if Cassandra were installed here, with a cassandra.yaml or without.
pub fn is_likely() -> bool {
    let default = CassandraYaml::default_of(Path::new("cassandra.yaml"));
    let data = default.into_iter().flat_map(|yaml| yaml.data_directories);
    find_yaml().is_some() || data.into_iter().any(|folder| folder.is_dir())
}

/// An executable of this name: in the PATH, in `near`, or in the usual folders. A path stands for itself.
pub fn find_program(name: &str, near: Option<&Path>) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let folders = folders.into_iter().chain(near.map(Path::to_owned)).chain(PROGRAMS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs_err::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// nodetool: in the PATH, or beside the configuration, as in an archive.
pub fn find_nodetool(yaml: &Path) -> Option<PathBuf> {
    let home = yaml.parent().and_then(Path::parent);
    find_program("nodetool", home.map(|home| home.join("bin")).as_deref())
}

/// Whether systemd knows the unit.
pub async fn is_unit(name: &str) -> bool {
    let asked = Invocation::new("systemctl", ["cat", name]).run_successfully(SERVICE_MANAGER).await;
    asked.is_ok()
}

/// What a command line runs in the end, and where it is looked for: `sudo`, then what sudo runs.
pub fn missing_programs(words: &[String]) -> Vec<String> {
    let mut programs = words.iter().filter(|word| !word.starts_with('-')).map(String::as_str);
    let mut named: Vec<&str> = programs.next().into_iter().collect();
    if named.first().is_some_and(|first| first.rsplit('/').next() == Some("sudo")) {
        named.extend(programs.next());
    }
    named.into_iter().filter(|name| find_program(name, None).is_none()).map(str::to_owned).collect()
}

/// The unit that `systemctl start cassandra` is about.
pub fn unit_of(words: &[String]) -> Option<&str> {
    let at = words.iter().position(|word| word.rsplit('/').next() == Some("systemctl"))?;
    words[at + 1..].iter().filter(|word| !word.starts_with('-')).nth(1).map(String::as_str)
}

/// A release, as in `5.0.9`, and the jar that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub number: String,
    pub jar: PathBuf,
}

/// Looks beside `cassandra.yaml`, in `CASSANDRA_HOME`, where the start command lies, and where packages put it. `None`: there is
/// none, or there are several releases, and nobody knows which one starts.
pub fn find_release(yaml: &Path, start_command: &[String]) -> Option<Release> {
    let home = std::env::var_os("CASSANDRA_HOME").map(PathBuf::from);
    // conf/cassandra.yaml and bin/cassandra of an unpacked archive, to which links may lead.
    let above = |file: &Path| {
        let files = [Some(file.to_owned()), fs_err::canonicalize(file).ok()];
        files.into_iter().flatten().filter_map(|file| Some(file.parent()?.parent()?.to_owned())).collect::<Vec<_>>()
    };
    let commands = start_command.iter().map(Path::new).filter(|word| word.is_absolute());
    let programs = commands.filter(|word| word.parent().is_some_and(|folder| folder.ends_with("bin")));
    let places = above(yaml).into_iter().chain(home).chain(programs.flat_map(above));
    only_release(places.chain(HOMES.map(PathBuf::from)))
}

fn only_release(places: impl Iterator<Item = PathBuf>) -> Option<Release> {
    let jars = places.flat_map(|place| [place.join("lib"), place]).flat_map(|folder| {
        let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    });
    let mut releases: BTreeMap<String, PathBuf> =
        jars.filter_map(|jar| Some((release_of(jar.file_name()?.to_str()?)?, jar))).collect();
    let (number, jar) = releases.pop_first()?;
    releases.is_empty().then_some(Release { number, jar })
}

/// `apache-cassandra-5.0.9.jar`, and not `apache-cassandra-thrift-3.11.19.jar`.
fn release_of(jar: &str) -> Option<String> {
    let release = jar.strip_prefix("apache-cassandra-")?.strip_suffix(".jar")?;
    release.starts_with(|first: char| first.is_ascii_digit()).then(|| release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_a_command_line_needs_is_looked_for() {
        assert_eq!(missing_programs(&words("sh -c x")), Vec::<String>::new());
        assert_eq!(missing_programs(&words("/no/such/program start")), ["/no/such/program"]);
        assert_eq!(missing_programs(&words("/bin/sudo -n no-such-program")).last().unwrap(), "no-such-program");
    }

    #[test]
    fn the_unit_follows_the_verb() {
        for text in ["systemctl start cassandra", "sudo -n /bin/systemctl --no-block stop cassandra"] {
            assert_eq!(unit_of(&words(text)), Some("cassandra"), "{text}");
        }
        assert_eq!(unit_of(&words("service cassandra start")), None);
    }

    #[test]
    fn a_program_beside_the_configuration_is_found() {
        let home = tempfile::tempdir().unwrap();
        fs_err::create_dir(home.path().join("bin")).unwrap();
        let program = home.path().join("bin/medusa-test-program");
        let near = home.path().join("bin");
        assert_eq!(find_program("medusa-test-program", Some(&near)), None);
        fs_err::write(&program, "").unwrap();
        assert_eq!(find_program("medusa-test-program", Some(&near)), None, "it cannot be executed");
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program("medusa-test-program", Some(&near)), Some(program));
    }

    #[test]
    fn the_jar_tells_the_release_unless_there_are_several() {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        let jar = |path: &str| {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, "").unwrap();
            path
        };
        let found = |names: &[&str]| only_release(names.iter().map(|name| place(name)));
        assert_eq!(found(&["a", "b"]), None);
        jar("a/lib/apache-cassandra-thrift-3.11.19.jar");
        jar("a/lib/jna-5.13.0.jar");
        assert_eq!(found(&["a"]), None);
        let of_archive = jar("a/lib/apache-cassandra-4.1.10.jar");
        assert_eq!(found(&["a", "b"]), Some(Release { number: "4.1.10".into(), jar: of_archive }));
        let of_package = jar("b/apache-cassandra-5.0-beta1.jar");
        assert_eq!(found(&["b"]), Some(Release { number: "5.0-beta1".into(), jar: of_package }));
        assert_eq!(found(&["a", "b"]), None);
        // The same one in two places is no doubt.
        jar("c/lib/apache-cassandra-4.1.10.jar");
        assert_eq!(found(&["a", "c"]).unwrap().number, "4.1.10");
    }

    #[test]
    fn an_unpacked_archive_is_found_by_its_configuration_and_by_its_command() {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(root.path().join("lib")).unwrap();
        fs_err::write(root.path().join("lib/apache-cassandra-99.0.1.jar"), "").unwrap();
        let found = |yaml: PathBuf, command: &[String]| find_release(&yaml, command).map(|found| found.number);
        assert_eq!(found(root.path().join("conf/cassandra.yaml"), &[]).as_deref(), Some("99.0.1"));
        let command = ["sudo".to_owned(), root.path().join("bin/cassandra").display().to_string()];
        assert_eq!(found("/nowhere/conf/cassandra.yaml".into(), &command).as_deref(), Some("99.0.1"));
    }
}

//! What of Cassandra is installed on this machine: where its configuration and its programs are, and what starts it.

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
}

//! Cassandra's `sstableloader`: it streams the files of one table to all its replicas, as writes that were made once.
//!
//! It takes passwords on its command line only, which everybody on the host can read. So it is given an include file
//! (`CASSANDRA_INCLUDE`, which its start script reads in the place of its own). That one reads the script's own include file and
//! then has Java read all arguments, and with them the passwords, from a file that only this user may read. A crash leaves that
//! file in its folder below TMPDIR.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::config::{self, secret::Secret};
use crate::error::Failure;
use crate::exec::command::{ExecError, Invocation};

/// The variable that names the include file of Cassandra's tools.
const INCLUDE: &str = "CASSANDRA_INCLUDE";

/// Where the start scripts of Cassandra look for theirs, as they write it.
const SEARCHED: &str = "\"`dirname \"$0\"`/cassandra.in.sh\" \"$HOME/.cassandra.in.sh\" /usr/share/cassandra/cassandra.in.sh \
                        /usr/local/share/cassandra/cassandra.in.sh /opt/cassandra/cassandra.in.sh";

/// The tool with its options.
#[derive(Debug)]
pub struct Loader {
    program: String,
    options: Vec<String>,
    /// Holds the include file and the passwords; removed when we end.
    private: Option<tempfile::TempDir>,
    timeout: Duration,
}

impl Loader {
    /// `address` is where CQL answers.
    ///
    /// # Errors
    /// If the file for the passwords cannot be written.
    pub fn new(config: &config::Cassandra, yaml: &Path, address: SocketAddr) -> Result<Self, Failure> {
        // Storage ports and internode encryption are those of cassandra.yaml.
        let options = [
            "-d",
            &address.ip().to_string(),
            "--conf-path",
            &yaml.display().to_string(),
            "--no-progress",
            "--port",
            &address.port().to_string(),
        ];
        let secrets = secrets(config);
        let failed = |error| {
            Failure::failed("the passwords for sstableloader could not be put into a file")
                .cause(anyhow::Error::new(error))
        };
        let private = if secrets.is_empty() { None } else { Some(private_folder(&secrets).map_err(failed)?) };
        Ok(Self {
            program: config.sstableloader_bin.clone(),
            options: options.map(str::to_owned).into(),
            private,
            timeout: config.load_timeout,
        })
    }

    /// Whether it gets passwords by its include file.
    pub fn has_secrets(&self) -> bool {
        self.private.is_some()
    }

    /// Loads a folder `…/keyspace/table`.
    pub async fn load(&self, folder: &Path) -> Result<(), ExecError> {
        self.invocation(folder).run_successfully(self.timeout).await.map(drop)
    }

    fn invocation(&self, folder: &Path) -> Invocation {
        let arguments = self.options.iter().cloned().chain([folder.display().to_string()]);
        let invocation = Invocation::new(&self.program, arguments).bound();
        match &self.private {
            Some(private) => invocation.with_variable(INCLUDE, private.path().join("include.sh").display().to_string()),
            None => invocation,
        }
    }
}

/// Options with passwords, and those that go with them.
fn secrets(config: &config::Cassandra) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if let (Some(user), Some(password)) = (&config.cql_username, &config.cql_password) {
        words.extend(["--username".to_owned(), user.clone(), "--password".to_owned(), password.reveal().to_owned()]);
    }
    let stores: [(&str, _, &str, &Option<Secret>); 2] = [
        ("-ts", &config.sstableloader_ts, "-tspw", &config.sstableloader_tspw),
        ("-ks", &config.sstableloader_ks, "-kspw", &config.sstableloader_kspw),
    ];
    for (store, path, password_option, password) in stores {
        if let Some(path) = path {
            words.extend([store.to_owned(), path.display().to_string()]);
            words.extend(
                password.iter().flat_map(|password| [password_option.to_owned(), password.reveal().to_owned()]),
            );
        }
    }
    words
}

fn private_folder(secrets: &[String]) -> std::io::Result<tempfile::TempDir> {
    let only_ours = std::fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix("medusa-").permissions(only_ours).tempdir()?;
    let mut lines = String::new();
    for word in secrets {
        // As the argument files of Java have it.
        let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "\"{escaped}\"");
    }
    let given = std::env::var(INCLUDE).ok().filter(|given| !given.is_empty());
    let script = include_script(folder.path(), given.as_deref());
    for (name, content) in [("secrets", lines), ("arguments", String::new()), ("include.sh", script)] {
        let file =
            fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.path().join(name))?;
        std::io::Write::write_all(&mut { file }, content.as_bytes())?;
    }
    Ok(folder)
}

/// `given`: the include file that the environment names.
fn include_script(folder: &Path, given: Option<&str>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let searched = given.map_or_else(|| SEARCHED.to_owned(), quoted);
    let folder = quoted(&folder.display().to_string());
    // The last words of the start script are: "$JAVA" options class "$@".
    format!(
        r#"medusa_folder={folder}
for include in {searched}; do
    if [ -r "$include" ]; then
        . "$include"
        break
    fi
done
medusa_java="${{JAVA:-java}}"
medusa_run() {{
    case "$("$medusa_java" -version 2>&1)" in
        *'version "1.'*)
            echo "error: sstableloader runs with Java 8, which would show the passwords in the list of processes: set JAVA_HOME to Java 11 or newer" >&2
            exit 1 ;;
    esac
    {{
        for medusa_word in "$@"; do
            printf '"%s"\n' "$(printf '%s' "$medusa_word" | sed 's/[\\"]/\\&/g')"
        done
        cat "$medusa_folder/secrets"
    }} >"$medusa_folder/arguments" || exit 1
    exec "$medusa_java" "@$medusa_folder/arguments"
}}
JAVA=medusa_run
"#
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Overrides};

    const WORD: &str = "pass word \"'\\$x;`#";

    fn loader(folder: &Path, keys: &[(&str, &str)]) -> Loader {
        let lines: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let program = folder.join("bin/sstableloader");
        let text = format!(
            "[storage]\nstorage_provider = local\nbucket_name = b\n[cassandra]\nsstableloader_bin = {}\n{lines}",
            program.display()
        );
        let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
        let address = "127.0.0.9:9042".parse().unwrap();
        Loader::new(&config.cassandra, Path::new("/etc/cassandra.yaml"), address).unwrap()
    }

    /// A start script as Cassandra has it, its include file, and a Java that tells what it was given.
    fn installation(java_version: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        fs_err::create_dir(folder.path().join("bin")).unwrap();
        let start = "if [ \"x$CASSANDRA_INCLUDE\" = \"x\" ]; then . \"`dirname \"$0\"`/cassandra.in.sh\"\nelif [ -r \"$CASSANDRA_INCLUDE\" ]; then . \"$CASSANDRA_INCLUDE\"\nfi\n\
                     \"$JAVA\" $JAVA_AGENT -cp \"$CLASSPATH\" org.apache.cassandra.tools.BulkLoader \"$@\"\n";
        let java = format!(
            "if [ \"$1\" = -version ]; then echo 'openjdk version \"{java_version}\"' >&2; exit; fi\n\
             echo \"$*\" >{path}/command\n[ -e \"${{1#@}}\" ] && cp \"${{1#@}}\" {path}/arguments\nexit 7\n"
        );
        let include = format!("JAVA={path}/bin/java\nCLASSPATH='/a b/*.jar'\n");
        for (name, body) in [("sstableloader", start), ("java", &java), ("cassandra.in.sh", &include)] {
            let file = folder.path().join("bin").join(name);
            fs_err::write(&file, format!("#!/bin/sh\n{body}")).unwrap();
            fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    const KEYS: [(&str, &str); 6] = [
        ("cql_username", "us er"),
        ("cql_password", WORD),
        ("sstableloader_ts", "/ts"),
        ("sstableloader_tspw", "tspw"),
        ("sstableloader_ks", "/ks"),
        ("sstableloader_kspw", "kspw"),
    ];

    #[test]
    fn without_passwords_the_tool_is_run_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let invocation = loader(folder.path(), &[]).invocation(Path::new("/stage/k/t"));
        assert_eq!(
            invocation.arguments.join(" "),
            "-d 127.0.0.9 --conf-path /etc/cassandra.yaml --no-progress --port 9042 /stage/k/t"
        );
        assert_eq!(invocation.environment, []);
    }

    #[tokio::test]
    async fn passwords_reach_java_by_a_private_file_only() {
        let folder = installation("17.0.1");
        let loader = loader(folder.path(), &KEYS);
        let private = loader.private.as_ref().unwrap().path().to_owned();
        assert_eq!(fs_err::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700);
        for file in ["secrets", "arguments", "include.sh"] {
            assert_eq!(fs_err::metadata(private.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
        let error = loader.load(Path::new("/stage/k/t \"1\"")).await.unwrap_err();
        assert!(matches!(&error, ExecError::Failed { status, .. } if status.code() == Some(7)), "{error}");
        let read = |name: &str| fs_err::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("command"), format!("@{}/arguments\n", private.display()));
        let arguments = read("arguments");
        let expected = [
            r#""-cp""#,
            r#""/a b/*.jar""#,
            r#""org.apache.cassandra.tools.BulkLoader""#,
            r#""-d""#,
            r#""127.0.0.9""#,
            r#""--conf-path""#,
            r#""/etc/cassandra.yaml""#,
            r#""--no-progress""#,
            r#""--port""#,
            r#""9042""#,
            r#""/stage/k/t \"1\"""#,
            r#""--username""#,
            r#""us er""#,
            r#""--password""#,
            r#""pass word \"'\\$x;`#""#,
            r#""-ts""#,
            r#""/ts""#,
            r#""-tspw""#,
            r#""tspw""#,
            r#""-ks""#,
            r#""/ks""#,
            r#""-kspw""#,
            r#""kspw""#,
        ];
        assert_eq!(arguments.lines().collect::<Vec<_>>(), expected);
        let shown = format!("{loader:?} {}", loader.invocation(Path::new("/x")));
        assert!(!shown.contains("pass word") && !shown.contains("tspw"), "{shown}");
        drop(loader);
        assert!(!private.exists());
    }

    #[tokio::test]
    async fn java_that_cannot_read_arguments_from_a_file_gets_no_password() {
        let folder = installation("1.8.0_392");
        let error = loader(folder.path(), &KEYS).load(Path::new("/stage/k/t")).await.unwrap_err();
        assert!(error.to_string().contains("set JAVA_HOME to Java 11"), "{error}");
        assert!(!folder.path().join("command").exists());
    }
}

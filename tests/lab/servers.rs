//! Programs whose start is most of what they cost, started once for all tests: nodetool and cassandra-medusa. They are the real
//! ones; each call of cassandra-medusa is a process of its own. They end with the process that started them.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use super::node::java17;
use super::{cache, project, search_path};

struct Server {
    socket: PathBuf,
    /// It ends when its standard input is closed.
    process: Child,
}

/// Starts a server: its socket is its last argument.
fn start(name: &str, command: &mut Command) -> Server {
    // Paths of sockets are short: not in the project's folder.
    let socket = std::env::temp_dir().join(format!("medusa-lab-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let mut server = Server { process: command.arg(&socket).stdin(Stdio::piped()).spawn().unwrap(), socket };
    let begin = Instant::now();
    while UnixStream::connect(&server.socket).is_err() {
        let is_alive = server.process.try_wait().unwrap().is_none();
        assert!(is_alive && begin.elapsed() < Duration::from_mins(5), "{name} did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

/// With the compiler that Cassandra brings: there may be no other one.
fn compile(jars: &Path, classes: &Path) {
    let is_of = |name: &str| {
        let paths = std::fs::read_dir(jars).unwrap().flatten().map(|entry| entry.path());
        paths.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name)).unwrap()
    };
    let source = project().join("tests/lab/NodetoolServer.java");
    let mut java = Command::new(java17());
    java.arg("-jar").arg(is_of("ecj-")).args(["-17", "-cp"]).arg(is_of("cassandra-all-"));
    let compiled = java.arg("-d").args([classes, &source]).status().unwrap();
    assert!(compiled.success(), "{} could not be compiled", source.display());
}

/// The body of a shell script that is nodetool of this release, without its first options.
pub fn nodetool(release: &str) -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let (jars, classes) = (cache(&format!("cassandra/{release}")), project().join(".cache/classes/nodetool"));
        let logging = classes.join("logback.xml");
        compile(&jars, &classes);
        std::fs::write(&logging, "<configuration/>").unwrap();
        let path = format!("{}:{}", classes.display(), jars.join("*").display());
        let mut java = Command::new(java17());
        java.arg(format!("@{}", project().join("tests/lab/jvm.options").display()))
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256M"])
            .arg(format!("-Dlogback.configurationFile={}", logging.display()))
            .args(["-cp", &path, "org.apache.cassandra.tools.NodetoolServer"]);
        start("nodetool", &mut java)
    });
    let client = project().join("tests/lab/nodetool_client.py");
    format!("{} -IS {} {}", cache("peer/bin/python3").display(), client.display(), server.socket.display())
}

/// What a command that begins cassandra-medusa says, in a process that is a copy of one that has read it.
pub fn peer(command: &Command) -> Output {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let mut python = Command::new(cache("peer/bin/python3"));
        python.env_clear().env("PATH", search_path()).env("PYTHONPATH", project().join("tests/lab/path"));
        start("peer", python.arg(project().join("tests/lab/peer_server.py")))
    });
    let folder = tempfile::tempdir().unwrap();
    let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
    let environment = command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?).into())));
    let asked = json!({
        "arguments": command.get_args().map(text).collect::<Vec<_>>(),
        "environment": environment.collect::<serde_json::Map<_, _>>(),
        "folder": command.get_current_dir(),
        "stdout": stdout,
        "stderr": stderr,
    });
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    stream.write_all(format!("{asked}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let read = |path: &Path| std::fs::read(path).unwrap_or_default();
    let code: i32 = answer.parse().unwrap_or_else(|_| {
        panic!("{command:?} ended without an exit code: {}", String::from_utf8_lossy(&read(&stderr)))
    });
    Output { status: ExitStatus::from_raw(code << 8), stdout: read(&stdout), stderr: read(&stderr) }
}

//! Restoring a node's backup onto another node, which takes over tokens and data; also with other data directories.

use std::net::TcpListener;
use std::process::Stdio;

use crate::lab::cql::Session;
use crate::lab::medusa::Run;
use crate::lab::node::{Node, Options, Release, free_address};
use crate::support::{
    State, answers, assert_fails, insert, interrupt, left_by_restores, load, medusa, program, wait_for,
};

const AUTH: &str = "authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer\n";

fn log_in(node: &Node) -> Session {
    Session::connect_as(&node.address, Some(("cassandra", "cassandra")))
}

fn tokens(session: &Session) -> Vec<String> {
    let text = session.query("SELECT tokens FROM system.local")[0][0].clone();
    let mut tokens: Vec<_> = text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    tokens.sort_by_key(|token| token.parse::<i64>().unwrap());
    tokens
}

fn roles(session: &Session) -> Vec<String> {
    let rows = session.rows("SELECT role FROM system_auth.roles");
    rows.iter().map(|row| row[0].split('"').nth(1).unwrap().to_owned()).collect()
}

fn with_password(medusa: &mut crate::lab::medusa::Medusa) {
    medusa.set("cassandra", "cql_username", "cassandra");
    medusa.set("cassandra", "cql_password", "cassandra");
}

/// Data directories that hold SSTables of a keyspace.
fn used_directories(node: &Node, keyspace: &str) -> usize {
    let is_sstable = |entry: &walkdir::DirEntry| entry.file_name().to_str().unwrap().ends_with("-Data.db");
    let used = |data: &std::path::PathBuf| {
        walkdir::WalkDir::new(data.join(keyspace)).into_iter().flatten().any(|e| is_sstable(&e))
    };
    node.data_directories().iter().filter(|data| used(data)).count()
}

/// cassandra.yaml with the three keys of the tokens, and every other byte as before.
fn with_tokens(yaml: &str, tokens: &[String], before: usize) -> String {
    let yaml = yaml.replace(&format!("num_tokens: {before}\n"), &format!("num_tokens: {}\n", tokens.len()));
    let (yaml, has_bootstrap) =
        (yaml.replace("auto_bootstrap: true\n", "auto_bootstrap: false\n"), yaml.contains("auto_"));
    let bootstrap = if has_bootstrap { "" } else { "auto_bootstrap: false\n" };
    format!("{yaml}initial_token: {}\n{bootstrap}", tokens.join(","))
}

/// The value of `initial_token`.
fn written_tokens(node: &Node) -> Vec<String> {
    let yaml = std::fs::read_to_string(node.yaml()).unwrap();
    let line = yaml.lines().find_map(|line| line.strip_prefix("initial_token: ")).unwrap();
    line.split(',').map(str::to_owned).collect()
}

/// Three data directories there, two here; roles on both.
#[test]
fn another_node_takes_over_tokens_rows_and_roles() {
    let source = Node::start(Options { data_directories: 3, yaml: AUTH.into(), ..Options::new(Release::V5_0) });
    let mut medusa = medusa(&source);
    with_password(&mut medusa);
    let session = log_in(&source);
    load(&session, "shop", 200);
    session.run("CREATE ROLE of_source");
    // More SSTables, so that every directory has some.
    for i in 1..4 {
        source.nodetool(&["flush", "shop"]);
        insert(&session, "shop", 200 * i..200 * i + 50);
    }
    let (rows, ring) = (answers(&session, "shop"), tokens(&session));
    medusa.ok(&["backup-node", "--backup-name", "b1"]);
    assert_eq!(used_directories(&source, "shop"), 3);
    drop(session);
    let from = source.address.clone();
    drop(source);

    let options = Options { data_directories: 2, num_tokens: 2, yaml: AUTH.into(), ..Options::new(Release::V5_0) };
    let target = Node::start(options);
    medusa.attach(&target);
    let session = log_in(&target);
    load(&session, "mine", 10);
    session.run("CREATE ROLE of_target");
    let own_tokens = tokens(&session);

    let restore = ["restore-node", "--backup-name", "b1", "--fqdn", &from];
    let before = State::of(&target, &session, &["mine"]);
    let not_this = format!("this node is not {from}: it owns other tokens");
    assert_fails(&medusa.run(&restore), 1, &[&not_this, "hint: --remote gives this node the tokens and the data"]);
    let plan = medusa.ok(&[&restore[..], &["--remote", "--dry-run", "--output", "json"]].concat()).json();
    let mut planned: Vec<_> = plan["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    planned.sort_by_key(|token| token.parse::<i64>().unwrap());
    assert_eq!((planned, &plan["mode"]), (ring.iter().map(String::as_str).collect(), &"remote".into()));
    // The identity of the other one is not taken over.
    let set_aside = plan["set_aside"].to_string();
    assert!(set_aside.contains("system/local-") && set_aside.contains("system/peers"), "{plan}");
    assert_eq!(State::of(&target, &session, &["mine"]), before);
    assert_eq!(left_by_restores(&target), [].into());

    medusa.set("checks", "query", "SELECT id, v FROM shop.t WHERE id = 3");
    medusa.set("checks", "expected_rows", "1");
    medusa.set("checks", "expected_result", "3,value 3");
    let run = medusa.ok(&[&restore[..], &["--remote", "--verify"]].concat());
    assert!(run.stderr.contains("the query of [checks] gave 1 row, as expected"), "{run}");
    let session = log_in(&target);
    assert_eq!((answers(&session, "shop"), tokens(&session)), (rows.clone(), ring.clone()), "{run}");
    assert_eq!(roles(&session), ["cassandra", "of_source"], "{run}");
    assert_eq!(session.rows("SELECT listen_address FROM system.local"), [[format!("Inet({})", target.address)]]);
    assert_eq!(session.rows("SELECT peer FROM system.peers_v2"), Vec::<Vec<String>>::new());
    assert_ne!(own_tokens, ring);
    let yaml = std::fs::read_to_string(target.yaml()).unwrap();
    assert_eq!(yaml, with_tokens(&before.yaml, &written_tokens(&target), 2));
    assert_eq!(
        (used_directories(&target, "shop"), left_by_restores(&target), target.snapshots()),
        (2, [].into(), [].into())
    );

    roles_are_kept(&target, &mut medusa, &restore, &rows);
}

/// Roles that the target has made since, and that are only in its commit log, stay.
fn roles_are_kept(
    target: &Node,
    medusa: &mut crate::lab::medusa::Medusa,
    restore: &[&str],
    rows: &[Vec<Vec<String>>; 2],
) {
    let session = log_in(target);
    session.run("CREATE ROLE kept\nDROP ROLE of_source\nTRUNCATE shop.t");
    let killed = format!("kill -9 $(cat {pid}) && rm {pid}\n", pid = target.path("pid").display());
    medusa.set("cassandra", "stop_cmd", &program(medusa, "kill", &killed));
    medusa.set("checks", "expected_rows", "2");
    let yaml = std::fs::read_to_string(target.yaml()).unwrap();
    let run = medusa.run(&[restore, &["--remote", "--keep-auth", "--verify"]].concat());
    let instead = "the query of [checks] gave 1 row instead of 2";
    assert_fails(&run, 1, &[instead, "hint: the node was restored and runs"]);
    let session = log_in(target);
    assert_eq!(roles(&session), ["cassandra", "kept"], "{run}");
    assert_eq!(&answers(&session, "shop"), rows, "{run}");
    assert_eq!(std::fs::read_to_string(target.yaml()).unwrap(), yaml);
    assert_eq!(left_by_restores(target), [].into());
}

/// One data directory there, three here; the target never ran. It waits for a seed first.
#[test]
fn a_new_node_waits_for_its_seeds_and_takes_over() {
    let source = Node::start(Options::new(Release::V5_0));
    let mut medusa = medusa(&source);
    let session = source.session();
    load(&session, "shop", 100);
    let (rows, ring) = (answers(&session, "shop"), tokens(&session));
    medusa.ok(&["backup-node", "--backup-name", "b1"]);
    drop(session);
    let from = source.address.clone();
    drop(source);

    let target = Node::prepare(Options {
        data_directories: 3,
        num_tokens: 8,
        yaml: "auto_bootstrap: true\n".into(),
        ..Options::new(Release::V5_0)
    });
    for folder in ["commitlog", "saved_caches"] {
        std::fs::create_dir_all(target.path(folder)).unwrap();
    }
    let yaml = std::fs::read_to_string(target.yaml()).unwrap();
    medusa.attach(&target);
    let restore = ["restore-node", "--backup-name", "b1", "--fqdn", &from];
    let unknown = format!("it cannot be told whether this node is {from}");
    assert_fails(&medusa.run(&restore), 1, &[&unknown, "use --remote"]);

    // Roles that are kept may be in a commit log that nobody can flush now.
    let log = target.path("commitlog/CommitLog-7-1.log");
    std::fs::write(&log, "x").unwrap();
    let keep = medusa.run(&[&restore[..], &["--remote", "--keep-auth"]].concat());
    assert_fails(
        &keep,
        1,
        &["Cassandra is not running, and", "may hold writes to other tables", "hint: start Cassandra"],
    );
    assert!(log.exists() && left_by_restores(&target).is_empty(), "{keep}");
    std::fs::remove_file(log).unwrap();

    // No seed is up: a signal ends the waiting, and everything is as before.
    let (seed, silent) = (free_address(), free_address());
    let seeds = format!("{silent},{seed}");
    let arguments = [&restore[..], &["--remote", "--seeds", &seeds]].concat();
    let said = medusa.folder.path().join("said");
    let stderr = std::fs::File::create(&said).unwrap();
    let child = medusa.prepare(&arguments).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let said = || std::fs::read_to_string(&said).unwrap();
    wait_for("the seeds", || said().contains(&format!("waits until one of {silent}, {seed} is up")));
    assert_ne!(std::fs::read_to_string(target.yaml()).unwrap(), yaml);
    let ended = interrupt(child, &arguments);
    let run = Run { stderr: said(), ..ended };
    assert_fails(
        &run,
        143,
        &["the previous data is back, and Cassandra is down as it was before", "interrupted by SIGTERM"],
    );
    assert_eq!(std::fs::read_to_string(target.yaml()).unwrap(), yaml);
    assert!(!target.is_up() && !target.path("pid").exists(), "{run}");

    let _listening = TcpListener::bind((seed.as_str(), 9042)).unwrap();
    medusa.set("checks", "query", "SELECT * FROM shop.none");
    let run = medusa.run(&[&arguments[..], &["--verify"]].concat());
    assert_fails(&run, 1, &["the query of [checks] failed", "shop.none", "hint: the node was restored and runs"]);
    let session = target.session();
    assert_eq!((answers(&session, "shop"), tokens(&session)), (rows, ring), "{run}");
    let now = std::fs::read_to_string(target.yaml()).unwrap();
    assert_eq!(now, with_tokens(&yaml, &written_tokens(&target), 8));
    assert_eq!(left_by_restores(&target), [].into());
}

//! What keeps this machine from backing up and restoring, and what to do about it.
//!
//! Checks run at the same time, each with a deadline: one that fails or hangs hides no other. Nothing is repaired. What is
//! written to try something is removed again; a crash leaves small objects in the bucket, which a later check removes, and a hidden
//! folder `.medusa-doctor-…` in a data directory, which Cassandra passes over.

pub mod bucket;
pub mod node;
pub mod peers;
pub mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::node::Node;
use self::peers::Peers;
use self::report::{Finding, Report};
use crate::cassandra::facts::ClusterFacts;
use crate::cassandra::yaml::CassandraYaml;
use crate::config::Config;
use crate::config::forward::Forward;
use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::monitor::Monitor;

/// What is looked at, and how strictly.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of each check, above the deadlines of medusa.ini.
    pub limit: Duration,
    /// How old the last backup may be.
    pub max_backup_age: Duration,
    pub peers: Peers,
    /// What is wrong with something that doctor itself does not need, as the log file.
    pub known: Vec<Finding>,
}

/// Looks at everything.
///
/// # Errors
/// Interrupts only.
pub async fn run(
    config: Config,
    forward: Forward,
    monitor: Arc<dyn Monitor>,
    interrupt: Interrupt,
    options: &Options,
) -> anyhow::Result<Report> {
    monitor.title(&format!("checking this machine, at most {} s for each check", options.limit.as_secs()));
    let signals = interrupt.clone();
    let examination = async { anyhow::Ok(Box::pin(examine(config, forward, monitor, interrupt, options)).await) };
    signals.or(examination).await
}

/// Where medusa.ini cannot be used, it does not say where anything else is.
pub fn without_config(path: &Path, error: &anyhow::Error) -> Report {
    let is_denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let fix = if error.chain().any(is_denied) {
        let path = path.display();
        format!("as root, where cassandra backs up: chgrp cassandra {path} && chmod 0640 {path}")
    } else {
        "medusa.example.ini has every key; medusa init writes a new file for this machine".to_owned()
    };
    let finding = Finding::error(node::INI, error).or_fix(&fix);
    let rest = ["everything else"].map(|check| Finding::not_checked(check, "medusa.ini says where it is"));
    Report { file: path.display().to_string(), fqdn: None, findings: [finding].into_iter().chain(rest).collect() }
}

async fn examine(
    config: Config,
    forward: Forward,
    monitor: Arc<dyn Monitor>,
    interrupt: Interrupt,
    options: &Options,
) -> Report {
    let limit = options.limit;
    let mut findings = node::ini(&config);
    findings.extend(options.known.iter().cloned());
    let (yaml, node) = node::cassandra_yaml(&config);
    findings.push(yaml);
    let opening = timeout(limit, Context::new(config.clone(), forward, monitor, interrupt));
    let context = match opening.await {
        Ok(opened) => opened.map_err(anyhow::Error::from),
        Err(_) => Err(anyhow::anyhow!("the name of this node was not found within {} s", limit.as_secs())),
    };
    let (of_node, of_bucket) = tokio::join!(
        check_node(&config, &node, context.as_ref().ok(), options),
        check_bucket(&context, !matches!(node, Node::Absent), options)
    );
    findings.extend(of_node.files);
    findings.extend(of_node.cassandra);
    findings.extend(of_bucket);
    findings.extend(of_node.left);
    findings.extend(of_node.peers);
    let fqdn = context.ok().map(|context| context.fqdn.to_string());
    Report { file: config.path.display().to_string(), fqdn, findings }
}

/// In the order of the table.
#[derive(Default)]
struct OfNode {
    files: Vec<Finding>,
    cassandra: Vec<Finding>,
    /// By restores and backups.
    left: Vec<Finding>,
    peers: Vec<Finding>,
}

async fn check_node(config: &Config, node: &Node, context: Option<&Context>, options: &Options) -> OfNode {
    let mut found = OfNode::default();
    let limit = options.limit;
    let asking_peers = async |facts: Option<&ClusterFacts>| match context {
        Some(context) if options.peers.are_wanted(config) => {
            within(peers::PEERS, limit, peers::ask(context, &options.peers, facts)).await
        }
        _ => Vec::new(),
    };
    let yaml = match node {
        Node::Here(yaml) => yaml,
        Node::Absent => {
            found.peers = asking_peers(None).await;
            return found;
        }
        Node::Unknown => {
            let why = "cassandra.yaml says where it is";
            found.files = [node::DATA, node::SPACE, node::CQL].map(|check| Finding::not_checked(check, why)).into();
            let nodetool = within(node::NODETOOL, limit, async { vec![node::nodetool(config).await] });
            let (nodetool, peers) = tokio::join!(nodetool, asking_peers(None));
            found.cassandra = nodetool;
            found.peers = peers;
            return found;
        }
    };
    let by_ring = async {
        let (cql, facts) =
            timeout(limit, node::cql(config, yaml)).await.unwrap_or_else(|_| (late(node::CQL, limit), None));
        let mut findings = vec![cql];
        findings.extend(facts.as_ref().zip(context).map(|(facts, context)| node::name(context.fqdn.as_str(), facts)));
        let peers = asking_peers(facts.as_ref()).await;
        (findings, peers)
    };
    let mut folders = yaml.table_directories();
    folders.push(yaml.commitlog_directory.clone());
    let is_elevated = config.storage.use_sudo_for_restore;
    let ((cql, peers), nodetool, service, data, space, restores, snapshots) = tokio::join!(
        by_ring,
        within(node::NODETOOL, limit, async { vec![node::nodetool(config).await] }),
        within(node::SERVICE, limit, node::service(config)),
        on_disk(node::DATA, limit, yaml, move |yaml| node::data_directories(yaml, is_elevated)),
        on_disk(node::SPACE, limit, yaml, move |_| node::space(&folders)),
        on_disk(node::RESTORES, limit, yaml, node::restores),
        on_disk(node::SNAPSHOTS, limit, yaml, node::snapshots),
    );
    found.files = [data, space].concat();
    found.cassandra = [cql, nodetool, service].concat();
    found.left = [restores, snapshots].concat();
    found.peers = peers;
    found
}

async fn check_bucket(context: &anyhow::Result<Context>, is_node: bool, options: &Options) -> Vec<Finding> {
    let limit = options.limit;
    let context = match context {
        Ok(context) => context,
        Err(error) => {
            let fix = "medusa.example.ini and docs/storage have what [storage] needs";
            let rest = [bucket::CLOCK, bucket::LAST, bucket::LEASES];
            let rest = rest.map(|check| Finding::not_checked(check, "the storage cannot be used"));
            return [Finding::error(bucket::STORAGE, error).or_fix(fix)].into_iter().chain(rest).collect();
        }
    };
    let (storage, last, leases) = tokio::join!(
        within(bucket::STORAGE, limit, bucket::storage(context)),
        within(bucket::LAST, limit, async {
            vec![bucket::last_backup(context, options.max_backup_age, is_node).await]
        }),
        within(bucket::LEASES, limit, bucket::leases(context)),
    );
    [storage, last, leases].concat()
}

fn late(check: &'static str, limit: Duration) -> Finding {
    let text = format!("no answer within {} s", limit.as_secs());
    Finding::failed(check, text, "--timeout of medusa doctor gives it more time; what else hangs on this machine?")
}

async fn within(check: &'static str, limit: Duration, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    timeout(limit, work).await.unwrap_or_else(|_| vec![late(check, limit)])
}

/// What looks at folders: a thread that hangs on one is left behind.
async fn on_disk(
    check: &'static str,
    limit: Duration,
    yaml: &CassandraYaml,
    work: impl FnOnce(&CassandraYaml) -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    let yaml = yaml.clone();
    within(check, limit, on_thread(check, move || work(&yaml))).await
}

/// Work that may hang on a folder, so that the deadline of its check holds.
async fn on_thread(check: &'static str, work: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Vec<Finding> {
    spawn_blocking(work).await.unwrap_or_else(|error| vec![Finding::error(check, &error.into())])
}

#[cfg(test)]
mod tests {
    use super::report::State;
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_check_that_hangs_is_told_and_ends() {
        let found = within("x", SOON, std::future::pending()).await;
        assert_eq!((found.len(), found[0].state), (1, State::Failed));
        let yaml = CassandraYaml::default_of(Path::new("x")).unwrap();
        let (hold, released) = std::sync::mpsc::channel::<()>();
        let waiting = on_thread("x", move || {
            let _ = released.recv();
            Vec::new()
        });
        let found = within("x", SOON, waiting).await;
        assert_eq!((found.len(), found[0].state), (1, State::Failed));
        drop(hold);
        let broken = on_disk("x", Duration::from_secs(20), &yaml, |_| panic!("a mistake")).await;
        assert_eq!((broken.len(), broken[0].state), (1, State::Failed));
    }

    #[test]
    fn a_configuration_that_may_not_be_read_is_not_replaced() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let report = without_config(Path::new("/etc/x.ini"), &anyhow::Error::from(denied).context("not read"));
        assert!(report.findings[0].fix.as_ref().unwrap().contains("chgrp cassandra /etc/x.ini"), "{report:?}");
    }

    #[test]
    fn without_a_configuration_nothing_else_is_known() {
        let report = without_config(Path::new("/etc/x.ini"), &anyhow::anyhow!("line 1: odd"));
        assert_eq!(
            report.findings.iter().map(|finding| finding.state).collect::<Vec<_>>(),
            [State::Failed, State::NotChecked]
        );
    }
}

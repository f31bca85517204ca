//! The two sides of the mapping: the backup's nodes, and the hosts that are there now.

use std::collections::{BTreeMap, BTreeSet};

use super::ClusterRestoreOptions;
use super::check::Check;
use super::interrupted::{self, Interrupted};
use super::mapping::{self, Assignment, Mapping, Method, NEWER, Rules, Source};
use crate::cassandra::facts;
use crate::cassandra::naming::first_address;
use crate::cluster::hosts::{Choice, Listed, check_name, connect, folders_of};
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::exec::ssh::Ssh;
use crate::listing::{self, suggest};
use crate::model::names::Fqdn;
use crate::model::nearest::did_you_mean;
use crate::model::units::counted;

/// What storage says about the backup.
#[derive(Debug)]
pub struct Backup {
    /// Nodes whose part is there.
    pub sources: Vec<Source>,
    /// Nodes of the cluster whose part is not.
    pub missing: Vec<String>,
}

/// Reads the nodes of the backup, each one's tokens from its own token map.
///
/// # Errors
/// Nodes are missing and that is not allowed, or a token map is.
pub async fn read_backup(context: &Context, options: &ClusterRestoreOptions) -> anyhow::Result<Backup> {
    let (storage, name) = (&context.storage, &options.name);
    let found = context.interrupt.or(listing::confirmed(storage, name)).await?;
    let Some(found) = found else {
        return Err(Failure::failed(format!("there is no backup {name} in {}", storage.location()))
            .hint(suggest::hint(storage, name, None).await)
            .into());
    };
    let mut missing: Vec<String> = found.missing_nodes().into_iter().map(str::to_owned).collect();
    missing.extend(found.incomplete_nodes().into_iter().map(|node| node.fqdn.to_string()));
    missing.extend(found.unknown_nodes().into_iter().map(Fqdn::to_string));
    missing.sort();
    missing.dedup();
    if !missing.is_empty() && !options.allow_incomplete {
        let all = counted((found.hosts.len()) as u64, "node");
        return Err(Failure::failed(format!("backup {name} is not complete: {} of {all} did not finish", missing.len()))
            .details(missing)
            .hint(
                "restore a complete one (medusa get-last-complete-cluster-backup); --allow-incomplete goes on: rows are lost \
                 whose replicas were all on these nodes",
            )
            .into());
    }
    let mut sources = Vec::new();
    for node in found.complete_nodes() {
        let tokenmap = context.interrupt.or(storage.tokenmap(&node.fqdn, name)).await?;
        let own = tokenmap.as_ref().and_then(|map| map.hosts.get(node.fqdn.as_str()));
        let Some(own) = own else {
            return Err(Failure::failed(format!("the token map of {} in backup {name} does not name it", node.fqdn))
                .hint("without its tokens nobody knows where its data belongs; restore another backup")
                .into());
        };
        sources.push(Source::new(node.fqdn.as_str(), own));
    }
    Ok(Backup { sources, missing })
}

/// With `--version-target`: an older Cassandra cannot read what a newer one wrote. Targets that run have compared it themselves:
/// scripts spell out Medusa's default, 3.11.9.
///
/// # Errors
/// A target that does not run would get what it cannot read.
pub async fn check_version(
    context: &Context,
    options: &ClusterRestoreOptions,
    mapping: &Mapping,
    checks: &[Check],
) -> anyhow::Result<()> {
    let Some(target) = &options.version_target else { return Ok(()) };
    let number = |version: &str| -> Option<(u32, u32)> {
        let mut parts = version.split(['.', '-']).map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let Some(is) = number(target) else {
        return Err(Failure::usage(format!("{target:?} is no release of Cassandra")).hint("as in 5.0.9").into());
    };
    // sstableloader needs a Cassandra that runs.
    let silent = mapping
        .assignments
        .iter()
        .zip(checks)
        .filter(|(_, check)| mapping.method != Method::Load && check.cassandra.is_none() && check.phase.is_none());
    for (given, source) in silent.flat_map(|(given, _)| given.sources.iter().map(move |source| (given, source))) {
        let version = context
            .interrupt
            .or(async { anyhow::Ok(context.storage.server_version(&Fqdn::new(source)?, &options.name).await?) });
        let version = version.await?;
        if number(&version.release_version).is_some_and(|was| was > is) {
            let message = format!(
                "{source} was backed up by Cassandra {}, and {}, which does not answer, runs {target} (--version-target)",
                version.release_version, given.target
            );
            return Err(Failure::failed(message).hint("install the newer release first").into());
        }
    }
    Ok(())
}

/// Tokens may go to a target while another node has them, if that one is a target itself: it gets others.
///
/// # Errors
/// A node that stays as it is owns the tokens that a target would get.
pub fn check_owners<'a>(targets: impl Iterator<Item = (&'a Assignment, &'a Check)> + Clone) -> Result<(), Failure> {
    let ids: BTreeSet<_> = targets.clone().filter_map(|(_, check)| check.host_id.as_ref()).collect();
    for (given, check) in targets {
        if let Some(owner) = check.owners.iter().find(|owner| !ids.contains(&owner.host_id)) {
            let (sources, host) = (given.sources.join(", "), &owner.host);
            return Err(Failure::failed(format!(
                "the tokens of {sources} are owned by {host}, which is up, is no target, and is in the ring of {}",
                given.target
            ))
            .hint(format!(
                "two nodes of a ring cannot own the same tokens: stop {host} for good first, or give it a part in the host list"
            )));
        }
    }
    Ok(())
}

/// What [`map`] found.
#[derive(Debug)]
pub struct Mapped {
    pub mapping: Mapping,
    /// The targets that a host list calls seeds.
    pub seeds: Vec<String>,
    /// What the person should know.
    pub notes: Vec<String>,
    /// The run that is gone on with.
    pub run: Option<String>,
}

/// Maps the backup to the hosts.
pub async fn map(
    context: &Context,
    options: &ClusterRestoreOptions,
    ssh: &Ssh,
    backup: &Backup,
) -> anyhow::Result<Mapped> {
    let mut notes: Vec<_> = backup
        .missing
        .iter()
        .map(|node| format!("{node} has no part in the backup: what only it had is lost"))
        .collect();
    match &options.choice {
        Choice::Listed(listed) => {
            let mapping = map_list(context, options, listed, backup).await?;
            notes.extend(mapping.notes.iter().cloned());
            Ok(Mapped { mapping, seeds: seeds_of(listed), notes, run: None })
        }
        Choice::Ring { seed_target } => {
            let asked = async {
                let cql = connect(context, seed_target.as_deref()).await?;
                anyhow::Ok(facts::ring(&cql, &context.resolver).await?)
            };
            let ring = context.interrupt.or(asked).await;
            let known: Vec<_> = match (&ring, seed_target) {
                (Ok(ring), _) => ring.iter().map(|node| node.host.clone()).collect(),
                (Err(_), Some(seed)) => vec![seed.clone()],
                (Err(_), None) => Vec::new(),
            };
            if let Some(Interrupted { run, listed }) = interrupted::find(context, options, ssh, known).await? {
                context.monitor.title(&format!("goes on with run {run}, which was interrupted (--again plans anew)"));
                let mut mapping = map_list(context, options, &listed, backup).await?;
                // Only such runs are found, and theirs may give tokens back to the hosts that had them.
                mapping.method = Method::Remote;
                "a run that was interrupted is gone on with (--again plans anew)".clone_into(&mut mapping.reason);
                notes.extend(mapping.notes.iter().cloned());
                return Ok(Mapped { mapping, seeds: seeds_of(&listed), notes, run: Some(run) });
            }
            let mapping = match ring {
                Ok(mut ring) => {
                    ring.retain(|node| !node.tokens.0.is_empty());
                    for node in &ring {
                        check_name(&node.host)?;
                    }
                    let rules = Rules {
                        ignore_racks: options.ignore_racks,
                        may_take_over: options.selection.includes_system(),
                        load: options.load.wanted,
                        incomplete: !backup.missing.is_empty(),
                    };
                    mapping::onto_ring(&backup.sources, &ring, rules)?
                }
                Err(error) if context.interrupt.is_raised() || options.load.wanted => return Err(error),
                Err(error) => match seed_target {
                    Some(seed) if !is_of_backup(context, seed, backup).await => {
                        return Err(Failure::failed(format!(
                            "the ring of {seed} cannot be asked, and the backup has no node of that name"
                        ))
                        .cause(error)
                        .hint("start Cassandra there, or name targets and sources with --host-list")
                        .into());
                    }
                    _ => onto_same_names(backup, &error)?,
                },
            };
            notes.extend(mapping.notes.iter().cloned());
            Ok(Mapped { mapping, seeds: Vec::new(), notes, run: None })
        }
    }
}

/// Whether a host is one of the backed-up ones, by any of its names: another one may belong to another cluster.
async fn is_of_backup(context: &Context, host: &str, backup: &Backup) -> bool {
    let names = folders_of(&context.resolver, host).await;
    backup.sources.iter().any(|source| source.name == host || names.contains(&source.name))
}

/// No node answers: all may be down, as after a disaster, or stopped by a run that was killed. Every host gets its own backup,
/// and compares what it knows of itself.
fn onto_same_names(backup: &Backup, error: &anyhow::Error) -> Result<Mapping, Failure> {
    for source in &backup.sources {
        check_name(&source.name)?;
    }
    let assigned = |source: &Source| Assignment {
        target: source.name.clone(),
        sources: vec![source.name.clone()],
        why: "same host".to_owned(),
    };
    let note = format!(
        "Cassandra could not be asked about the ring ({}): every host gets its own backup, and checks that it is its own; \
         --host-list restores to other hosts",
        one_line(error)
    );
    Ok(Mapping {
        method: Method::InPlace,
        reason: "no node answers, and the hosts of the backup are taken".to_owned(),
        assignments: backup.sources.iter().map(assigned).collect(),
        notes: vec![note],
        is_blind: true,
    })
}

/// Hosts that were taken without asking anybody about the ring must be down, or half-way in this restore.
///
/// # Errors
/// Cassandra answers on one, and knows the ring.
pub fn check_blind(mapping: &Mapping, checks: &[Check]) -> Result<(), Failure> {
    if !mapping.is_blind || checks.iter().any(Check::is_begun) {
        return Ok(());
    }
    let up = mapping.assignments.iter().zip(checks).find(|(_, check)| check.cassandra.is_some());
    up.map_or(Ok(()), |(given, _)| {
        let host = &given.target;
        let message = format!("the ring was not asked, and Cassandra answers on {host}; nothing was changed");
        let hint = format!(
            "--seed-target {host} asks it which hosts there are; where CQL does not reach it from here, --host-list names them"
        );
        Err(Failure::failed(message).details(mapping.notes.clone()).hint(hint))
    })
}

/// What each host of the list may be called in the bucket.
type Names = BTreeMap<String, BTreeSet<String>>;

/// Lists are often of addresses, and folders are called by name.
async fn names(context: &Context, listed: &[Listed]) -> Names {
    let given: BTreeSet<_> = listed.iter().flat_map(|line| line.source.iter().chain([&line.target])).collect();
    let mut names = Names::new();
    for name in given {
        let mut all = folders_of(&context.resolver, name).await;
        all.extend(first_address(name).map(|address| address.to_string()));
        names.insert(name.clone(), all);
    }
    names
}

async fn map_list(
    context: &Context,
    options: &ClusterRestoreOptions,
    listed: &[Listed],
    backup: &Backup,
) -> anyhow::Result<Mapping> {
    let names = context.interrupt.or(async { anyhow::Ok(names(context, listed).await) }).await?;
    Ok(from_list(options, listed, backup, &names)?)
}

fn seeds_of(listed: &[Listed]) -> Vec<String> {
    listed.iter().filter(|line| line.seed).map(|line| line.target.clone()).collect()
}

/// As the host list says.
fn from_list(
    options: &ClusterRestoreOptions,
    listed: &[Listed],
    backup: &Backup,
    names: &Names,
) -> Result<Mapping, Failure> {
    let also = |name: &String| names.get(name).into_iter().flatten();
    let is_known = |name: &&String| backup.sources.iter().any(|known| known.name == **name);
    let mut all_own = true;
    let mut assignments: Vec<Assignment> = Vec::new();
    let mut used = BTreeSet::new();
    for line in listed {
        let source = line.source.as_ref().unwrap_or(&line.target);
        let Some(source) = std::iter::once(source).chain(also(source)).find(is_known) else {
            let known = backup.sources.iter().map(|source| source.name.clone());
            let meant = did_you_mean(source, backup.sources.iter().map(|source| source.name.as_str()));
            return Err(Failure::usage(format!(
                "the host list names the source {source}, of which there is no backup"
            ))
            .hint(meant.unwrap_or_else(|| "sources are called as their folders in the bucket".to_owned()))
            .details(known));
        };
        if !used.insert(source.clone()) {
            return Err(Failure::usage(format!("the host list names the source {source} twice"))
                .hint("two hosts with the same tokens cannot be in one cluster"));
        }
        let is_own = *source == line.target || also(&line.target).any(|name| name == source);
        all_own &= is_own;
        let why = if is_own { "host list: same host" } else { "host list" };
        if let Some(known) = assignments.iter_mut().find(|given| given.target == line.target) {
            if !options.load.wanted {
                return Err(Failure::usage(format!("the host list names the target {} twice", line.target))
                    .hint("a host takes over one node; --use-sstableloader loads several"));
            }
            known.sources.push(source.clone());
        } else {
            let (target, sources) = (line.target.clone(), vec![source.clone()]);
            assignments.push(Assignment { target, sources, why: why.to_owned() });
        }
    }
    let left = backup.sources.iter().filter(|source| !used.contains(&source.name));
    let notes = left.map(|source| {
        format!("{} is in no line of the host list: its data is not restored. If it runs, {NEWER}", source.name)
    });
    let method = match (options.load.wanted, all_own) {
        (true, _) => Method::Load,
        (_, true) => Method::InPlace,
        _ => Method::Remote,
    };
    Ok(Mapping {
        method,
        reason: "the host list says so".to_owned(),
        assignments,
        notes: notes.collect(),
        is_blind: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::hosts::parse_list;
    use crate::cluster::restore::check::NodeOwner;
    use crate::cluster::restore::made::options;
    use crate::model::tokenmap::Tokens;

    #[test]
    fn tokens_of_a_node_that_is_up_go_only_where_that_node_gets_others() {
        let mapping = listed("True,m1,n1\nFalse,m2,n2", false).unwrap();
        let check = |id: &str, owners: &[&str]| Check {
            host_id: Some(id.to_owned()),
            owners: owners
                .iter()
                .map(|id| NodeOwner { host: format!("host-{id}"), host_id: (*id).to_owned() })
                .collect(),
            ..Check::default()
        };
        // However it is called: as m2 in the list, as host-2 in the ring.
        let owners = |checks: [Check; 2]| check_owners(mapping.assignments.iter().zip(&checks));
        owners([check("1", &["2"]), check("2", &["1"])]).unwrap();
        let error = owners([check("1", &[]), check("2", &["1", "3"])]).unwrap_err();
        assert!(error.message.contains("the tokens of n2 are owned by host-3, which is up, is no target"), "{error:?}");
        assert!(error.message.ends_with("in the ring of m2"), "{error:?}");
    }

    fn backup() -> Backup {
        let source = |name: &str| Source { name: name.into(), tokens: Tokens::default(), rack: None, dc: None };
        Backup { sources: ["n1", "n2", "n3"].map(source).into(), missing: Vec::new() }
    }

    fn listed(text: &str, load: bool) -> Result<Mapping, Failure> {
        from_list(&options(load), &parse_list(text, ",").unwrap(), &backup(), &Names::new())
    }

    #[test]
    fn a_list_of_addresses_is_about_the_hosts_that_have_them() {
        let names = |name: &str, more: &[&str]| {
            let all = std::iter::once(&name).chain(more).map(|name| (*name).to_owned()).collect();
            (name.to_owned(), all)
        };
        let names = Names::from([
            names("10.0.0.1", &["n1"]),
            names("10.0.0.2", &["n2"]),
            names("10.0.0.9", &["m9"]),
            names("n3-short", &["10.0.0.3", "n3"]),
        ]);
        let listed = |text: &str| from_list(&options(false), &parse_list(text, ",").unwrap(), &backup(), &names);
        let own = listed("True,10.0.0.1,10.0.0.1\nFalse,10.0.0.2, n2\nFalse,n3-short,n3").unwrap();
        assert_eq!(own.method, Method::InPlace);
        let pairs: Vec<_> = own.assignments.iter().map(|given| (&*given.target, given.sources.join(","))).collect();
        // ssh reaches a target as it is listed; a source is called as its folder.
        assert_eq!(pairs, [("10.0.0.1", "n1".into()), ("10.0.0.2", "n2".into()), ("n3-short", "n3".into())]);
        assert_eq!(listed("True,10.0.0.9,10.0.0.1\nFalse,n2,n2").unwrap().method, Method::Remote);
        let twice = listed("True,10.0.0.9,10.0.0.1\nFalse,m2,n1").unwrap_err();
        assert!(twice.message.contains("the source n1 twice"), "{twice:?}");
        assert!(
            listed("True,m1,10.0.0.9").unwrap_err().message.contains("source 10.0.0.9, of which there is no backup")
        );
    }

    #[test]
    fn a_list_gives_every_target_the_source_of_its_line() {
        let mapping = listed("True,m3,n1\nFalse,m1,n3\nFalse,n2,n2\n", false).unwrap();
        assert_eq!(mapping.method, Method::Remote);
        let pairs: Vec<_> = mapping.assignments.iter().map(|given| (&*given.target, given.sources.join(","))).collect();
        assert_eq!(pairs, [("m3", "n1".into()), ("m1", "n3".into()), ("n2", "n2".into())]);
        assert_eq!(listed("n1\nTrue,n2,n2\nn3", false).unwrap().method, Method::InPlace);
        let part = listed("True,n1,n1", false).unwrap();
        assert_eq!((part.method, part.notes.len()), (Method::InPlace, 2));
        assert!(part.notes[0].starts_with("n2 is in no line"), "{part:?}");
    }

    #[test]
    fn a_list_that_would_double_or_lose_a_node_is_refused() {
        for (text, message) in [
            ("True,m1,n1\nFalse,m2,n1", "the source n1 twice"),
            ("True,m1,n1\nFalse,m1,n2", "the target m1 twice"),
            ("True,m1,n9", "the source n9, of which there is no backup"),
        ] {
            let error = listed(text, false).unwrap_err();
            assert!(error.message.contains(message), "{error:?}");
        }
        let mapping = listed("True,m1,n1\nFalse,m1,n2\nFalse,m2,n3", true).unwrap();
        assert_eq!((mapping.method, mapping.assignments.len()), (Method::Load, 2));
        assert_eq!(mapping.assignments[0].sources, ["n1", "n2"]);
    }
}

//! Which hosts a command is about: those of the ring, or those that are listed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use crate::backup::stagger;
use crate::cassandra::cql::Cql;
use crate::cassandra::facts::ClusterFacts;
use crate::cassandra::naming::{Resolver, first_address};
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::Failure;
use crate::model::units::parse_bool;

/// A host as ssh reaches it, and what its folder in the bucket may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub folders: BTreeSet<String>,
}

/// A line of a host list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whether others wait for it when the cluster is started.
    pub seed: bool,
    pub target: String,
    /// The host whose backup it gets. `None`: its own.
    pub source: Option<String>,
}

/// Which hosts were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// All of the local datacenter of the node that is asked. `None`: this node.
    Ring { seed_target: Option<String> },
    /// These, and no others.
    Listed(Vec<Listed>),
}

impl Choice {
    /// From the options of a command: at most one of them was given.
    ///
    /// # Errors
    /// The file cannot be used, or a name that ssh would take for something else.
    pub fn new(
        seed_target: Option<&str>,
        host_list: Option<&Path>,
        hosts: &[String],
        separator: &str,
    ) -> Result<Self, Failure> {
        let listed = match host_list {
            None if hosts.is_empty() => {
                if let Some(seed) = seed_target {
                    check_name(seed)?;
                }
                return Ok(Self::Ring { seed_target: seed_target.map(str::to_owned) });
            }
            None => hosts.iter().map(|name| one(name)).collect::<Result<_, _>>()?,
            Some(path) => {
                let text = fs_err::read_to_string(path)
                    .map_err(|error| Failure::usage("could not read the host list").cause(error))?;
                parse_list(&text, separator).map_err(|failure| Failure {
                    message: format!("{}: {}", path.display(), failure.message),
                    ..failure
                })?
            }
        };
        if listed.is_empty() {
            return Err(Failure::usage("the host list names no host").hint("one host on each line; # begins a comment"));
        }
        Ok(Self::Listed(listed))
    }

    /// The hosts, each once, in the order of the list or of the token map. `in_ring_order`: as they take turns.
    pub async fn hosts(&self, context: &Context, in_ring_order: bool) -> anyhow::Result<Vec<Host>> {
        let mut hosts: Vec<Host> = Vec::new();
        match self {
            Self::Ring { seed_target } => {
                let tokenmap = discover(context, seed_target.as_deref()).await?.tokenmap;
                let names = if in_ring_order {
                    stagger::in_ring_order(&tokenmap)
                } else {
                    tokenmap.hosts.keys().map(String::as_str).collect()
                };
                for name in names {
                    check_name(name)?;
                    hosts.push(Host { folders: BTreeSet::from([name.to_owned()]), name: name.to_owned() });
                }
            }
            Self::Listed(listed) => {
                for Listed { target: name, .. } in listed {
                    if hosts.iter().all(|host| host.name != *name) {
                        let folders = folders_of(&context.resolver, name).await;
                        hosts.push(Host { name: name.clone(), folders });
                    }
                }
            }
        }
        Ok(hosts)
    }
}

/// What the folder of a host may be called: as it is given, or as nodes call its address.
pub async fn folders_of(resolver: &Resolver, name: &str) -> BTreeSet<String> {
    let mut folders = BTreeSet::from([name.to_owned()]);
    if let Some(address) = first_address(name) {
        folders.insert(resolver.name_of(address).await);
    }
    folders
}

/// A session with the node that tells about the ring: this one, or the one that is named.
pub async fn connect(context: &Context, seed_target: Option<&str>) -> anyhow::Result<Cql> {
    let Some(seed) = seed_target else { return context.cql(&context.cassandra_yaml()?).await };
    let path = &context.config.cassandra.config_file;
    // Who only coordinates has no Cassandra. Otherwise all nodes have the same ports.
    let yaml = if path.exists() { context.cassandra_yaml()? } else { CassandraYaml::default_of(path)? };
    let yaml = CassandraYaml { rpc_address: Some(seed.to_owned()), listen_address: None, ..yaml };
    context.cql(&yaml).await
}

/// The ring as a node sees it.
pub async fn discover(context: &Context, seed_target: Option<&str>) -> anyhow::Result<ClusterFacts> {
    let cql = connect(context, seed_target).await?;
    context.interrupt.or(ClusterFacts::gather(&cql, &context.resolver)).await
}

/// The lines of a host list: a host on each, or Medusa's `is_seed,target,source`. `#` begins a comment.
///
/// # Errors
/// Names the line that cannot be used.
pub fn parse_list(text: &str, separator: &str) -> Result<Vec<Listed>, Failure> {
    let mut listed = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let fields: Vec<_> = line.split(separator).map(str::trim).collect();
        let entry = match fields.as_slice() {
            [target] => one(target),
            [seed, target, source] => match parse_bool(seed) {
                Some(seed) => one(target).and_then(|target| {
                    check_name(source)?;
                    Ok(Listed { seed, source: Some((*source).to_owned()), ..target })
                }),
                None => Err(Failure::usage(format!("{seed:?} is neither True nor False"))),
            },
            _ => Err(Failure::usage(format!("{} fields", fields.len()))),
        };
        let entry = entry.map_err(|failure| {
            let hint = format!("a line is a host, or is_seed{separator}target{separator}source");
            Failure { message: format!("line {number}: {}", failure.message), ..failure }.hint(hint)
        })?;
        listed.push(entry);
    }
    Ok(listed)
}

fn one(target: &str) -> Result<Listed, Failure> {
    let target = target.trim();
    check_name(target)?;
    Ok(Listed { seed: false, target: target.to_owned(), source: None })
}

/// Host names and addresses only: what begins with `-` would be an option of ssh.
///
/// # Errors
/// The name is something else.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.parse::<IpAddr>().is_ok() || (!name.is_empty() && !name.starts_with('-') && name.chars().all(fits)) {
        return Ok(());
    }
    Err(Failure::usage(format!("{name:?} is not the name or the address of a host")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(target: &str) -> Listed {
        Listed { seed: false, target: target.to_owned(), source: None }
    }

    #[test]
    fn a_list_has_a_host_on_each_line_or_medusas_three_fields() {
        let text =
            "# the first rack\nnode1.example.net  # a comment\n\n10.0.0.2\nTrue,node3,old3\nfalse, node4 , old4\n";
        let seed = Listed { seed: true, target: "node3".into(), source: Some("old3".into()) };
        let other = Listed { seed: false, target: "node4".into(), source: Some("old4".into()) };
        assert_eq!(
            parse_list(text, ",").unwrap(),
            [plain("node1.example.net"), plain("10.0.0.2"), seed.clone(), other]
        );
        assert_eq!(parse_list("True;node3;old3", ";").unwrap(), [seed]);
        assert_eq!(parse_list("# nothing\n", ",").unwrap(), []);
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named() {
        for (text, message) in [
            ("a\nb,c", "line 2: 2 fields"),
            ("maybe,a,b", "line 1: \"maybe\" is neither True nor False"),
            ("-oProxyCommand=x", "line 1: \"-oProxyCommand=x\" is not the name or the address of a host"),
            ("True,a,b c", "line 1: \"b c\" is not the name or the address of a host"),
        ] {
            assert_eq!(parse_list(text, ",").unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn only_names_and_addresses_reach_ssh() {
        for name in ["node1", "node-1.example.net", "n_1", "10.0.0.1", "::1", "fe80::1"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-v", "a b", "root@a", "a;b", "$(x)", "a/b", "a:b", "'a'"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_empty_list_is_no_choice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Choice::new(None, Some(file.path()), &[], ",").unwrap_err();
        assert_eq!(refused.message, "the host list names no host");
        assert_eq!(
            Choice::new(None, None, &["a".into(), "b".into()], ",").unwrap(),
            Choice::Listed(vec![plain("a"), plain("b")])
        );
        assert_eq!(Choice::new(None, None, &[], ",").unwrap(), Choice::Ring { seed_target: None });
        assert!(Choice::new(Some("-x"), None, &[], ",").is_err());
    }
}

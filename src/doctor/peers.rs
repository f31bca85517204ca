//! The other nodes, as `backup-cluster` and `restore-cluster` reach them.

use super::report::Finding;
use crate::cassandra::facts::ClusterFacts;
use crate::cluster::remote::{Unfit, check_versions};
use crate::config::Config;
use crate::config::values::Origin;
use crate::context::Context;
use crate::exec::ssh::Ssh;
use crate::model::units;

pub const PEERS: &str = "ssh to the peers";

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Those of the ring, if `[ssh]` says anything.
    IfConfigured,
    /// Those of the ring.
    Ring,
    These(Vec<String>),
}

impl Peers {
    pub fn are_wanted(&self, config: &Config) -> bool {
        *self != Self::IfConfigured || is_configured(config)
    }
}

/// Somebody has written something into `[ssh]`, or given it.
fn is_configured(config: &Config) -> bool {
    config.values.iter().filter(|(key, _)| key.section == "ssh").any(|(key, value)| {
        matches!(value.origin, Origin::File { .. } | Origin::Flag(_)) && value.text.as_deref() != key.default
    })
}

/// Every peer is asked for its version.
pub async fn ask(context: &Context, peers: &Peers, facts: Option<&ClusterFacts>) -> Vec<Finding> {
    let hosts = match (peers, facts) {
        (Peers::These(hosts), _) => hosts.clone(),
        (_, None) => {
            let why = "the ring is not known; --peers HOST,… names them";
            return vec![Finding::not_checked(PEERS, why)];
        }
        (_, Some(facts)) => {
            let own = [facts.own_name.as_str(), context.fqdn.as_str()];
            let names = facts.tokenmap.hosts.keys().filter(|name| !own.contains(&name.as_str()));
            names.cloned().collect()
        }
    };
    if hosts.is_empty() {
        return vec![Finding::ok(PEERS, "this node has none")];
    }
    let ssh = match Ssh::new(&context.config) {
        Ok(ssh) => ssh,
        Err(failure) => return vec![Finding::error(PEERS, &failure.into())],
    };
    let unfit = check_versions(&ssh, &hosts).await;
    ssh.close().await;
    if unfit.is_empty() {
        let answers = units::counted(hosts.len() as u64, "host");
        return vec![Finding::ok(PEERS, format!("{answers} with medusa {}", env!("CARGO_PKG_VERSION")))];
    }
    unfit.into_iter().map(|(host, unfit)| finding(&host, &unfit)).collect()
}

fn finding(host: &str, unfit: &Unfit) -> Finding {
    match unfit {
        Unfit::Other(_) => {
            let fix = format!("install medusa {} on {host}: all hosts need the same one", env!("CARGO_PKG_VERSION"));
            Finding::failed(PEERS, format!("{host}: {unfit}"), fix)
        }
        Unfit::Silent(error) => Finding::failed(PEERS, format!("{host}: {unfit}"), error.hint()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    #[test]
    fn defaults_that_are_written_down_configure_nothing() {
        let wanted = |lines: &str| {
            let text = format!("[storage]\nstorage_provider = local\nbucket_name = b\n[ssh]\n{lines}\n");
            let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
            [Peers::IfConfigured, Peers::Ring].map(|peers| peers.are_wanted(&config))
        };
        assert_eq!(wanted("port = 22\nusername =\nhost_key_check = yes"), [false, true]);
        assert_eq!(wanted("username = backup"), [true, true]);
    }

    #[test]
    fn a_host_with_another_medusa_is_told() {
        let found = finding("n2", &Unfit::Other("0.0.9".into()));
        assert!(found.text.starts_with("n2: medusa is 0.0.9 there"), "{found:?}");
    }
}

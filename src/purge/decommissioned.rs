//! Which nodes of a bucket have left the cluster. Pure.
//!
//! A node is known by the name of its folder, and that name comes from DNS and the configuration. So a folder whose tokens
//! belong to a living node that has no backups of its own is not given up: that node may only be called differently.

use std::collections::{BTreeMap, BTreeSet};

use crate::cassandra::facts::RingNode;
use crate::model::names::Fqdn;
use crate::model::tokenmap::Tokens;

/// What becomes of the nodes of a bucket.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub decommissioned: BTreeSet<Fqdn>,
    /// With the reason.
    pub doubtful: BTreeMap<Fqdn, String>,
}

/// Compares the nodes that have backups, each with the tokens that its newest backup recorded, with the living ones.
pub fn standing(nodes: &BTreeMap<Fqdn, Option<Tokens>>, ring: &[RingNode]) -> Standing {
    let has_backups = |node: &RingNode| nodes.keys().any(|fqdn| node.names.contains(fqdn.as_str()));
    let unknown: Vec<_> = ring.iter().filter(|node| !has_backups(node)).collect();
    let mut standing = Standing::default();
    for (fqdn, tokens) in nodes {
        if ring.iter().any(|node| node.names.contains(fqdn.as_str())) {
            continue;
        }
        let heir = tokens.as_ref().and_then(|tokens| unknown.iter().find(|node| node.tokens.same_set(tokens)));
        if let Some(heir) = heir {
            let names: Vec<_> = heir.names.iter().map(String::as_str).collect();
            let why = format!("its tokens belong to {}, which has no backup of its own", names.join(", "));
            standing.doubtful.insert(fqdn.clone(), why);
        } else {
            standing.decommissioned.insert(fqdn.clone());
        }
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(tokens: &[&str]) -> Tokens {
        Tokens(tokens.iter().map(|token| (*token).to_owned()).collect())
    }

    fn live(names: &[&str], of: &[&str]) -> RingNode {
        RingNode { names: names.iter().map(|name| (*name).to_owned()).collect(), tokens: tokens(of) }
    }

    fn nodes(list: &[(&str, &[&str])]) -> BTreeMap<Fqdn, Option<Tokens>> {
        let node = |(name, of): &(&str, &[&str])| (Fqdn::new(name).unwrap(), (!of.is_empty()).then(|| tokens(of)));
        list.iter().map(node).collect()
    }

    fn gone(standing: &Standing) -> Vec<&str> {
        standing.decommissioned.iter().map(Fqdn::as_str).collect()
    }

    #[test]
    fn who_is_not_in_the_ring_has_left() {
        let ring = [live(&["n1.example.net", "10.0.0.1"], &["1"]), live(&["n2.example.net", "10.0.0.2"], &["2"])];
        let bucket =
            nodes(&[("n1.example.net", &["1"]), ("10.0.0.2", &["2"]), ("n3.example.net", &["3"]), ("n10", &[])]);
        let standing = standing(&bucket, &ring);
        assert_eq!(gone(&standing), ["n10", "n3.example.net"]);
        assert!(standing.doubtful.is_empty());
    }

    #[test]
    fn names_are_compared_as_a_whole() {
        let ring = [live(&["n1"], &["1"])];
        assert_eq!(gone(&standing(&nodes(&[("n1", &["1"]), ("n11", &["2"]), ("n", &["3"])]), &ring)), ["n", "n11"]);
    }

    #[test]
    fn a_living_node_under_another_name_is_not_given_up() {
        let ring = [live(&["n1"], &["1"]), live(&["10.0.0.2"], &["2", "-2"])];
        let bucket = nodes(&[("n1", &["1"]), ("n2.example.net", &["-2", "2"])]);
        let found = standing(&bucket, &ring);
        assert_eq!(gone(&found), [""; 0]);
        assert!(found.doubtful.values().next().unwrap().contains("10.0.0.2"));
        // Once the new name has backups, the old one is a node that was replaced.
        let bucket = nodes(&[("n1", &["1"]), ("n2.example.net", &["-2", "2"]), ("10.0.0.2", &["2", "-2"])]);
        assert_eq!(gone(&standing(&bucket, &ring)), ["n2.example.net"]);
    }

    #[test]
    fn nothing_to_do_is_no_error() {
        assert_eq!(standing(&nodes(&[("n1", &["1"])]), &[live(&["n1"], &["1"])]), Standing::default());
        assert_eq!(standing(&BTreeMap::new(), &[live(&["n1"], &["1"])]), Standing::default());
    }
}

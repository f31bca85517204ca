//! Which nodes of a bucket have left the cluster. Pure.
//!
//! A node is known by the name of its folder, and that name comes from DNS and the configuration. So a folder whose tokens
//! belong to a living node that has no backups of its own is not given up: that node may only be called differently. Nor is,
//! while there is such a node, a folder of which nobody knows the tokens.

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
        let why = match tokens {
            Some(tokens) => {
                let heir = unknown.iter().find(|node| node.tokens.0.iter().any(|token| tokens.0.contains(token)));
                heir.map(|heir| format!("its tokens belong to {}, which has no backup of its own", names_of(heir)))
            }
            None => unknown.first().map(|node| {
                format!(
                    "no backup tells its tokens, and {} lives and has no backup of its own: it may be that node; set fqdn in \
                     medusa.ini of that node, or remove the backups by hand with medusa --fqdn {fqdn} delete-backup",
                    names_of(node)
                )
            }),
        };
        match why {
            Some(why) => drop(standing.doubtful.insert(fqdn.clone(), why)),
            None => drop(standing.decommissioned.insert(fqdn.clone())),
        }
    }
    standing
}

fn names_of(node: &RingNode) -> String {
    node.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(tokens: &[&str]) -> Tokens {
        Tokens(tokens.iter().map(|token| (*token).to_owned()).collect())
    }

    fn live(names: &[&str], of: &[&str]) -> RingNode {
        let host = names.first().map(|name| (*name).to_owned()).unwrap_or_default();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        RingNode { host, names, tokens: tokens(of), rack: None, dc: None }
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
    fn without_tokens_nobody_is_given_up_while_a_living_node_has_no_backups() {
        let ring = [live(&["n1"], &["1"]), live(&["10.0.0.2"], &["2"])];
        let bucket = nodes(&[("n1", &["1"]), ("called-otherwise", &[]), ("left", &["3"])]);
        let found = standing(&bucket, &ring);
        assert_eq!(gone(&found), ["left"], "nobody who lives has its tokens");
        let (fqdn, why) = found.doubtful.first_key_value().unwrap();
        assert!(fqdn.as_str() == "called-otherwise" && why.contains("10.0.0.2 lives") && why.contains("fqdn"), "{why}");
        // One that shares tokens with it is no other node, either.
        let bucket = nodes(&[("n1", &["1"]), ("before", &["2", "9"])]);
        assert_eq!(gone(&standing(&bucket, &ring)), [""; 0]);
    }

    #[test]
    fn nothing_to_do_is_no_error() {
        assert_eq!(standing(&nodes(&[("n1", &["1"])]), &[live(&["n1"], &["1"])]), Standing::default());
        assert_eq!(standing(&BTreeMap::new(), &[live(&["n1"], &["1"])]), Standing::default());
    }
}

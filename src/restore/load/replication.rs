//! Where the replicas of a keyspace go that is created anew. Pure.
//!
//! A keyspace whose replication names no datacenter of the cluster has no replica, and all that is written to it is lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cql;

/// `class`, and the replicas by datacenter.
pub type Replication = BTreeMap<String, String>;

const CLASS: &str = "class";
const FACTOR: &str = "replication_factor";

/// What `--dc-map` and `--replication` say, and what datacenters there are.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// Old name, new name.
    pub dc_map: BTreeMap<String, String>,
    /// By keyspace.
    pub given: BTreeMap<String, Replication>,
    /// Of the live ring.
    pub datacenters: BTreeSet<String>,
}

impl Placement {
    /// The statement that creates a keyspace of the backup here. An error says why it cannot.
    pub fn of_new_keyspace(&self, keyspace: &str, statement: &str) -> Result<String, String> {
        let changed = if let Some(given) = self.given.get(keyspace) {
            given.clone()
        } else {
            let Some(old) = cql::replication(statement) else {
                return Err(format!("the replication of keyspace {keyspace} in the backup cannot be read"));
            };
            self.mapped(keyspace, &old)?
        };
        let by_datacenter = changed.get(CLASS).is_some_and(|class| class.ends_with("NetworkTopologyStrategy"));
        let names = changed.keys().filter(|key| ![CLASS, FACTOR].contains(&key.as_str()));
        let unknown: Vec<_> =
            names.filter(|name| by_datacenter && !self.datacenters.contains(*name)).cloned().collect();
        if !unknown.is_empty() {
            let live: Vec<_> = self.datacenters.iter().cloned().collect();
            return Err(format!(
                "keyspace {keyspace} would be replicated in datacenter {}, and this cluster has {}",
                unknown.join(", "),
                live.join(", ")
            ));
        }
        if by_datacenter && changed.len() < 2 {
            return Err(format!("keyspace {keyspace} would have no replica in any datacenter"));
        }
        cql::with_replication(statement, &changed)
            .ok_or_else(|| format!("the replication of keyspace {keyspace} in the backup cannot be read"))
    }

    fn mapped(&self, keyspace: &str, old: &Replication) -> Result<Replication, String> {
        let mut new = Replication::new();
        for (key, value) in old {
            let is_datacenter = ![CLASS, FACTOR].contains(&key.as_str());
            let name = if is_datacenter { self.dc_map.get(key).unwrap_or(key) } else { key };
            if new.insert(name.clone(), value.clone()).is_some() {
                return Err(format!("--dc-map makes {name} of two datacenters of keyspace {keyspace}"));
            }
        }
        Ok(new)
    }
}

/// `old=new`.
///
/// # Errors
/// What it should look like.
pub fn parse_dc_map(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("it takes OLD=NEW, such as dc1=europe".to_owned()),
    }
}

/// `keyspace=dc1:3,dc2:2`, `keyspace=3`, or `keyspace={…}` as in CQL.
///
/// # Errors
/// What it should look like.
pub fn parse_replication(text: &str) -> Result<(String, Replication), String> {
    let wrong =
        || "it takes KEYSPACE=DC:COUNT,DC:COUNT, such as shop=dc1:3,dc2:2, or KEYSPACE={…} as in CQL".to_owned();
    let (keyspace, value) = text.split_once('=').filter(|(keyspace, _)| !keyspace.is_empty()).ok_or_else(wrong)?;
    let keyspace = keyspace.replace('"', "");
    if value.starts_with('{') {
        let map = cql::map_literal(value).filter(|map| map.contains_key(CLASS)).ok_or_else(wrong)?;
        return Ok((keyspace, map));
    }
    let is_count = |text: &str| text.parse::<u32>().is_ok_and(|count| count > 0);
    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    if is_count(value) {
        return Ok((keyspace, [entry(CLASS, "SimpleStrategy"), entry(FACTOR, value)].into()));
    }
    let mut map = Replication::from([entry(CLASS, "NetworkTopologyStrategy")]);
    for part in value.split(',') {
        let (name, count) =
            part.rsplit_once(':').filter(|(name, count)| !name.is_empty() && is_count(count)).ok_or_else(wrong)?;
        map.insert(name.to_owned(), count.to_owned());
    }
    Ok((keyspace, map))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'old1': '3', 'old2': '2'}  AND durable_writes = true;";

    fn placement(maps: &[&str], given: &[&str], live: &[&str]) -> Placement {
        Placement {
            dc_map: maps.iter().map(|text| parse_dc_map(text).unwrap()).collect(),
            given: given.iter().map(|text| parse_replication(text).unwrap()).collect(),
            datacenters: live.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_datacenter_that_is_not_there_is_refused_unless_it_is_mapped() {
        let reason = placement(&[], &[], &["new1", "new2"]).of_new_keyspace("shop", SHOP).unwrap_err();
        assert_eq!(
            reason,
            "keyspace shop would be replicated in datacenter old1, old2, and this cluster has new1, new2"
        );
        let reason = placement(&["old1=new1"], &[], &["new1"]).of_new_keyspace("shop", SHOP).unwrap_err();
        assert!(reason.contains("datacenter old2, and"), "{reason}");
        let mapped =
            placement(&["old1=new1", "old2=new2"], &[], &["new1", "new2"]).of_new_keyspace("shop", SHOP).unwrap();
        assert!(
            mapped.contains("{'class': 'NetworkTopologyStrategy', 'new1': '3', 'new2': '2'}  AND durable"),
            "{mapped}"
        );
        let reason = placement(&["old1=x", "old2=x"], &[], &["x"]).of_new_keyspace("shop", SHOP).unwrap_err();
        assert!(reason.contains("two datacenters"), "{reason}");
        assert!(placement(&["old1=neww"], &[], &["new1"]).of_new_keyspace("shop", SHOP).is_err());
    }

    #[test]
    fn a_given_replication_takes_the_place_of_the_backups() {
        let new = placement(&[], &["shop=new1:2"], &["new1"]).of_new_keyspace("shop", SHOP).unwrap();
        assert!(new.contains("{'class': 'NetworkTopologyStrategy', 'new1': '2'}"), "{new}");
        assert!(placement(&[], &["shop=new2:2"], &["new1"]).of_new_keyspace("shop", SHOP).is_err());
        let simple = "CREATE KEYSPACE a WITH replication = {'class': 'SimpleStrategy', 'replication_factor': '1'};";
        assert!(placement(&[], &[], &["x"]).of_new_keyspace("a", simple).unwrap().contains("SimpleStrategy"));
        let none = "CREATE KEYSPACE a WITH replication = {'class': 'NetworkTopologyStrategy'};";
        assert!(placement(&[], &[], &["x"]).of_new_keyspace("a", none).unwrap_err().contains("no replica"));
        assert!(placement(&[], &[], &["x"]).of_new_keyspace("a", "CREATE KEYSPACE a;").is_err());
    }

    #[test]
    fn options_are_read_in_all_their_forms() {
        let (keyspace, map) = parse_replication("\"Shop\"=dc:1:3,dc2:2").unwrap();
        assert_eq!((keyspace.as_str(), map["dc:1"].as_str(), map["dc2"].as_str()), ("Shop", "3", "2"));
        assert_eq!(parse_replication("a=2").unwrap().1[FACTOR], "2");
        assert_eq!(parse_replication("a={'class': 'SimpleStrategy', 'replication_factor': 1}").unwrap().1[FACTOR], "1");
        for wrong in ["", "a", "=dc1:3", "a=dc1", "a=dc1:0", "a=dc1:x", "a={'x': 1}", "a={", "a=dc1:3,"] {
            assert!(parse_replication(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a", "=b", "a="] {
            assert!(parse_dc_map(wrong).is_err(), "{wrong}");
        }
    }
}

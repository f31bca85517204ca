//! Which node of a backup goes to which host, and how. Pure.
//!
//! Data belongs to tokens, so a node's files go to the host that owns the same tokens, whatever it is called now. Where no
//! hosts own them, hosts can take tokens over, if as many are there and their racks correspond: replicas were spread over
//! racks, and would be doubled or missing otherwise. Whatever is left is loaded: every row finds its replicas by itself, at the
//! price of streaming all of it. Positions in lists never decide anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::cassandra::facts::RingNode;
use crate::error::Failure;
use crate::model::tokenmap::{TokenmapEntry, Tokens};
use crate::model::units::counted;

/// What comes of a node of the ring that is not restored with the others.
pub const NEWER: &str = "what it has is newer than the backup, and comes back to the others";

/// Tokens that are shown where they differ.
const SHOWN_TOKENS: usize = 3;

/// A node of the backup, by its own token map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its folder in the bucket.
    pub name: String,
    pub tokens: Tokens,
    pub rack: Option<String>,
    pub dc: Option<String>,
}

impl Source {
    pub fn new(name: &str, entry: &TokenmapEntry) -> Self {
        Self { name: name.to_owned(), tokens: entry.tokens.clone(), rack: entry.rack.clone(), dc: entry.dc.clone() }
    }
}

/// How the data comes to its place, the same for all hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Every host gets back what was its own.
    InPlace,
    /// Every host takes over the tokens and the data of a node.
    Remote,
    /// Files are streamed to whoever owns their rows (sstableloader).
    Load,
}

/// What one host gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub target: String,
    /// One, except where files are loaded.
    pub sources: Vec<String>,
    pub why: String,
}

/// What all hosts get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub method: Method,
    /// Why this method.
    pub reason: String,
    pub assignments: Vec<Assignment>,
    /// What the person should know.
    pub notes: Vec<String>,
    /// Nobody could be asked about the ring.
    pub is_blind: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Racks need not correspond.
    pub ignore_racks: bool,
    /// Hosts may take over tokens: schema and identity are restored, too.
    pub may_take_over: bool,
    /// Files are loaded in any case.
    pub load: bool,
    /// Not all nodes of the backup are there.
    pub incomplete: bool,
}

/// Finds a host for every node of the backup.
///
/// # Errors
/// There is no node or no host.
pub fn onto_ring(sources: &[Source], ring: &[RingNode], rules: Rules) -> Result<Mapping, Failure> {
    let mut notes = Vec::new();
    let (mut sources, mut targets) = (sources.to_vec(), of_backed_up_datacenters(sources, ring, &mut notes));
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    targets.sort_by(|a, b| a.host.cmp(&b.host));
    let (sources, targets) = (&sources[..], &targets[..]);
    if sources.is_empty() || targets.is_empty() {
        return Err(Failure::failed("there is nothing to restore, or no host to restore it to"));
    }
    if rules.load {
        return Ok(dealt(sources, targets, "--use-sstableloader".to_owned(), notes));
    }
    let why_not_own = match in_place(sources, targets, rules.incomplete) {
        Ok(assignments) => {
            let left = targets.iter().filter(|target| assignments.iter().all(|given| given.target != target.host));
            notes.extend(left.map(|target| {
                format!(
                    "{} gets nothing: the backup has no part of it. Its data stays and it goes on running; {NEWER}",
                    target.host
                )
            }));
            let reason = "every host owns the tokens that it had in the backup".to_owned();
            return Ok(Mapping { method: Method::InPlace, reason, assignments, notes, is_blind: false });
        }
        Err(why_not) => why_not,
    };
    let why_not_tokens = match by_tokens(sources, targets, rules) {
        Ok(assignments) => {
            let reason = format!("the ring has the same tokens, on other hosts ({why_not_own})");
            return Ok(Mapping { method: Method::Remote, reason, assignments, notes, is_blind: false });
        }
        Err(why_not) => why_not,
    };
    if !rules.may_take_over {
        let reason = format!("{why_not_own}; {why_not_tokens}; single tables cannot take tokens over");
        return Ok(dealt(sources, targets, reason, notes));
    }
    match by_racks(sources, targets, rules) {
        Ok(assignments) => {
            for (source, target) in same_names(sources, targets) {
                if !source.tokens.same_set(&target.tokens) {
                    notes.push(format!("{}: {}", target.host, difference(source, target)));
                }
            }
            let reason = format!("as many hosts, whose tokens are replaced ({why_not_own})");
            Ok(Mapping { method: Method::Remote, reason, assignments, notes, is_blind: false })
        }
        Err(why_not) => Ok(dealt(sources, targets, format!("{why_not_own}; {why_not}"), notes)),
    }
}

/// The hosts of the datacenters that the backup has nodes of; all, if one of those is not there any more.
fn of_backed_up_datacenters(sources: &[Source], ring: &[RingNode], notes: &mut Vec<String>) -> Vec<RingNode> {
    let of_backup: BTreeSet<_> = sources.iter().map(|source| source.dc.as_deref()).collect();
    let of_ring: BTreeSet<_> = ring.iter().map(|target| target.dc.as_deref()).collect();
    if of_backup.contains(&None) || !of_backup.is_subset(&of_ring) || of_backup == of_ring {
        return ring.to_vec();
    }
    let others: Vec<_> = of_ring.difference(&of_backup).flatten().copied().collect();
    notes.push(format!(
        "the backup has no node of {}: its hosts are left as they are and go on running; {NEWER}",
        others.join(", ")
    ));
    ring.iter().filter(|target| of_backup.contains(&target.dc.as_deref())).cloned().collect()
}

/// Pairs of a node and the host that has its name.
fn same_names<'a>(sources: &'a [Source], targets: &'a [RingNode]) -> impl Iterator<Item = (&'a Source, &'a RingNode)> {
    let of = |source: &'a Source| targets.iter().find(|target| target.names.contains(&source.name));
    sources.iter().filter_map(move |source| Some((source, of(source)?)))
}

fn in_place(sources: &[Source], targets: &[RingNode], incomplete: bool) -> Result<Vec<Assignment>, String> {
    let pairs: Vec<_> = same_names(sources, targets).collect();
    let gone: Vec<_> = sources.iter().filter(|source| pairs.iter().all(|(of, _)| of.name != source.name)).collect();
    if !gone.is_empty() {
        let names: Vec<_> = gone.iter().map(|source| source.name.as_str()).collect();
        return Err(format!("the ring has no {}", shortened(&names)));
    }
    if let Some((source, target)) = pairs.iter().find(|(source, target)| !source.tokens.same_set(&target.tokens)) {
        return Err(format!("{}: {}", source.name, difference(source, target)));
    }
    let distinct: BTreeSet<_> = pairs.iter().map(|(_, target)| &target.host).collect();
    if distinct.len() != pairs.len() {
        return Err("two nodes of the backup have names of one host".to_owned());
    }
    if targets.len() != sources.len() && !incomplete {
        let hosts = targets.iter().filter(|target| !distinct.contains(&target.host));
        let names: Vec<_> = hosts.map(|target| target.host.as_str()).collect();
        return Err(format!("the backup has no {}", shortened(&names)));
    }
    Ok(pairs.iter().map(|(source, target)| assigned(source, target, "same host, same tokens")).collect())
}

/// Which tokens a host has that the backed-up node of its name had not, and the other way round.
fn difference(source: &Source, target: &RingNode) -> String {
    let of = |tokens: &Tokens| tokens.0.iter().cloned().collect::<BTreeSet<_>>();
    let (was, is) = (of(&source.tokens), of(&target.tokens));
    let shown = |tokens: Vec<&String>| {
        let more = if tokens.len() > SHOWN_TOKENS { ", …" } else { "" };
        let first: Vec<_> = tokens.iter().take(SHOWN_TOKENS).map(|token| token.as_str()).collect();
        format!("{}{more}", first.join(", "))
    };
    let (gone, new): (Vec<_>, Vec<_>) = (was.difference(&is).collect(), is.difference(&was).collect());
    let mut parts = Vec::new();
    if !gone.is_empty() {
        parts.push(format!("no longer owns {} ({})", counted(gone.len() as u64, "token"), shown(gone)));
    }
    if !new.is_empty() {
        parts.push(format!("owns {} that it had not ({})", counted(new.len() as u64, "token"), shown(new)));
    }
    parts.join(" and ")
}

fn by_tokens(sources: &[Source], targets: &[RingNode], rules: Rules) -> Result<Vec<Assignment>, String> {
    let mut pairs = Vec::new();
    for source in sources {
        let Some(target) = targets.iter().find(|target| target.tokens.same_set(&source.tokens)) else {
            return Err(format!("no host owns the tokens of {}", source.name));
        };
        if source.dc.is_some() && target.dc != source.dc {
            return Err(format!("the host that owns the tokens of {} is in another datacenter", source.name));
        }
        pairs.push((source, target));
    }
    if targets.len() != sources.len() && !rules.incomplete {
        return Err(format!("the ring has {}, the backup {}", targets.len(), sources.len()));
    }
    if !rules.ignore_racks && !racks_correspond(&pairs) {
        return Err("its racks are divided in another way".to_owned());
    }
    let why = |source: &Source, target: &RingNode| {
        if target.names.contains(&source.name) { "same host, same tokens" } else { "same tokens, new address" }
    };
    Ok(pairs.iter().map(|(source, target)| assigned(source, target, why(source, target))).collect())
}

/// Whether nodes that shared a rack do so again, and others do not.
fn racks_correspond(pairs: &[(&Source, &RingNode)]) -> bool {
    if pairs.iter().any(|(source, _)| source.rack.is_none()) {
        return true;
    }
    let mut there = BTreeMap::new();
    let mut back = BTreeMap::new();
    pairs.iter().all(|(source, target)| {
        let (was, is) = ((&source.dc, &source.rack), (&target.dc, &target.rack));
        *there.entry(was).or_insert(is) == is && *back.entry(is).or_insert(was) == was
    })
}

/// Datacenter, then rack.
type Place<'a> = (Option<&'a str>, Option<&'a str>);

/// Groups in which a node and a host must be to fit.
fn grouped<'a, T>(items: &'a [T], place: impl Fn(&'a T) -> Place<'a>) -> BTreeMap<Place<'a>, Vec<&'a T>> {
    let mut groups: BTreeMap<Place<'a>, Vec<&'a T>> = BTreeMap::new();
    for item in items {
        groups.entry(place(item)).or_default().push(item);
    }
    groups
}

fn by_racks(sources: &[Source], targets: &[RingNode], rules: Rules) -> Result<Vec<Assignment>, String> {
    if sources.len() != targets.len() {
        let (nodes, hosts) = (counted(sources.len() as u64, "node"), counted(targets.len() as u64, "host"));
        return Err(format!("the backup has {nodes}, the ring {hosts}"));
    }
    let knows_dcs = sources.iter().all(|source| source.dc.is_some());
    let knows_racks = !rules.ignore_racks && sources.iter().all(|source| source.rack.is_some());
    let dc_of = |dc: &Option<String>| dc.clone().filter(|_| knows_dcs);
    let rack_of = |rack: &Option<String>| rack.clone().filter(|_| knows_racks);
    let mut was: Vec<_> = sources.iter().map(|source| dc_of(&source.dc)).collect();
    let mut is: Vec<_> = targets.iter().map(|target| dc_of(&target.dc)).collect();
    was.sort();
    is.sort();
    if was != is {
        return Err("the ring has other datacenters, or other numbers of nodes in them".to_owned());
    }
    let placed: Vec<_> = sources.iter().map(|source| (dc_of(&source.dc), rack_of(&source.rack), source)).collect();
    let free: Vec<_> = targets.iter().map(|target| (dc_of(&target.dc), rack_of(&target.rack), target)).collect();
    let from = grouped(&placed, |(dc, rack, _)| (dc.as_deref(), rack.as_deref()));
    let to = grouped(&free, |(dc, rack, _)| (dc.as_deref(), rack.as_deref()));
    let mut assignments = Vec::new();
    for (place, other) in corresponding_racks(&from, &to)? {
        let nodes: Vec<_> = from[&place].iter().map(|(.., source)| *source).collect();
        let hosts: Vec<_> = to[&other].iter().map(|(.., target)| *target).collect();
        assignments.extend(within_rack(&nodes, &hosts, place, other));
    }
    assignments.sort_by(|a, b| a.sources.cmp(&b.sources));
    Ok(assignments)
}

/// Racks of the same name and size, then the others of the same size in the order of their names.
fn corresponding_racks<'a, S, T>(
    from: &BTreeMap<Place<'a>, Vec<S>>,
    to: &BTreeMap<Place<'a>, Vec<T>>,
) -> Result<Vec<(Place<'a>, Place<'a>)>, String> {
    let mut free: Vec<Place<'a>> = to.keys().copied().collect();
    let mut pairs = Vec::new();
    let (same, others): (Vec<_>, Vec<_>) =
        from.iter().partition(|(place, nodes)| to.get(place).is_some_and(|hosts| hosts.len() == nodes.len()));
    for (place, nodes) in same.into_iter().chain(others) {
        let fits = |other: &Place<'_>| other.0 == place.0 && to[other].len() == nodes.len();
        let own = free.iter().position(|other| other == place && fits(other));
        let Some(at) = own.or_else(|| free.iter().position(fits)) else {
            let rack = place.1.unwrap_or("(no name)");
            let nodes = counted(nodes.len() as u64, "node");
            return Err(format!("no rack of the ring has {nodes} as rack {rack} of the backup has"));
        };
        pairs.push((*place, free.remove(at)));
    }
    Ok(pairs)
}

/// Hosts of the same name first, the rest in the order of tokens.
fn within_rack(nodes: &[&Source], hosts: &[&RingNode], place: Place<'_>, other: Place<'_>) -> Vec<Assignment> {
    let mut hosts = hosts.to_vec();
    hosts.sort_by_key(|target| order(&target.tokens, &target.host));
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|source| order(&source.tokens, &source.name));
    let mut assignments = Vec::new();
    nodes.retain(|source| {
        let Some(at) = hosts.iter().position(|target| target.names.contains(&source.name)) else { return true };
        assignments.push(assigned(source, hosts.remove(at), "same host, takes its old tokens back"));
        false
    });
    let racks = match (place.1, other.1) {
        (Some(from), Some(to)) if from != to => format!("rack {from} to {to}, takes over the tokens"),
        (Some(from), Some(_)) => format!("rack {from}, takes over the tokens"),
        _ => "takes over the tokens".to_owned(),
    };
    assignments.extend(nodes.iter().zip(hosts).map(|(source, target)| assigned(source, target, &racks)));
    assignments
}

/// By the lowest token as a number; tokens that are none come last, as text.
fn order(tokens: &Tokens, name: &str) -> (Option<i128>, bool, String, String) {
    let numbers = tokens.0.iter().map(|token| token.parse::<i128>().ok());
    let lowest = numbers.min().flatten();
    let text = tokens.0.iter().min().cloned().unwrap_or_default();
    (lowest, lowest.is_none(), text, name.to_owned())
}

fn dealt(sources: &[Source], targets: &[RingNode], reason: String, notes: Vec<String>) -> Mapping {
    let mut names: Vec<_> = sources.iter().map(|source| source.name.clone()).collect();
    names.sort();
    let mut hosts: Vec<_> = targets.iter().map(|target| target.host.clone()).collect();
    hosts.sort();
    let mut assignments: Vec<_> = hosts
        .into_iter()
        .map(|target| Assignment { target, sources: Vec::new(), why: "loads; rows go to their replicas".to_owned() })
        .collect();
    let count = assignments.len();
    for (i, name) in names.into_iter().enumerate() {
        assignments[i % count].sources.push(name);
    }
    assignments.retain(|assignment| !assignment.sources.is_empty());
    Mapping { method: Method::Load, reason, assignments, notes, is_blind: false }
}

fn assigned(source: &Source, target: &RingNode, why: &str) -> Assignment {
    Assignment { target: target.host.clone(), sources: vec![source.name.clone()], why: why.to_owned() }
}

fn shortened(names: &[&str]) -> String {
    let more = if names.len() > SHOWN_TOKENS { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN_TOKENS)].join(", "))
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;

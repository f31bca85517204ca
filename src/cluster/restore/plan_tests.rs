//! Tests of `plan`.

use std::collections::BTreeSet;

use super::*;
use crate::cassandra::facts::RingNode;
use crate::cluster::restore::made::options;
use crate::cluster::restore::mapping::{Rules, Source, onto_ring};
use crate::cluster::restore::{LoadOptions, run_of};
use crate::model::tokenmap::Tokens;

fn tokens(i: usize) -> Tokens {
    Tokens(vec![i.to_string()])
}

fn plan(options: &ClusterRestoreOptions, checks: Vec<Check>, seeds: &[&str]) -> ClusterPlan {
    let sources: Vec<_> =
        (1..=checks.len()).map(|i| Source { name: format!("n{i}"), tokens: tokens(i), rack: None, dc: None }).collect();
    let ring: Vec<_> = (1..=checks.len())
        .map(|i| {
            let host = format!("n{i}");
            RingNode { names: BTreeSet::from([host.clone()]), host, tokens: tokens(i), rack: None, dc: None }
        })
        .collect();
    let mapping = onto_ring(&sources, &ring, Rules { load: options.load.wanted, ..Rules::default() }).unwrap();
    let backup = Backup { sources, missing: Vec::new() };
    let seeds: Vec<_> = seeds.iter().map(|seed| (*seed).to_owned()).collect();
    let run = run_of(options, &checks);
    ClusterPlan::new(options, &backup, mapping, &seeds, checks, run, vec!["careful".into()])
}

fn ready() -> Check {
    Check { bytes: 3 << 30, download: 1 << 30, space: vec![("/d".into(), 1 << 30, 3 << 30)], ..Check::default() }
}

fn at(phase: &str, run: &str) -> Check {
    Check { phase: Some(phase.into()), run: Some(run.into()), ..ready() }
}

#[test]
fn the_plan_says_who_gets_what_and_in_which_order() {
    let text = plan(&options(false), vec![ready(), ready(), ready()], &["n2"]).text(Look::default());
    assert!(text.starts_with("restore nightly into 3 targets from 3 sources, in place "), "{text}");
    for part in [
        "  n2  (seed)   n2       same host, same tokens   1.0 GiB    ok, 2.0 GiB left\n",
        "  files    9.0 GiB in all, 3.0 GiB to download\n",
        "nobody is stopped before all 3 targets have brought and compared their files, 2 at once",
        "seeds are started first (1), then 2 once a seed is up",
        "all 3 targets are down at the same time",
        "  note     careful\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let seeds = |plan: ClusterPlan| plan.targets.iter().map(|target| target.is_seed).collect::<Vec<_>>();
    let own = Check { is_seed: true, ..ready() };
    assert_eq!(seeds(plan(&options(false), vec![ready(), own.clone()], &[])), [false, true]);
    assert_eq!(seeds(plan(&options(false), vec![ready(), own], &["n1"])), [true, false]);
    let none = plan(&options(false), vec![ready(), ready()], &[]);
    assert!(
        none.text(Look::default()).contains("all 2 targets are started together"),
        "{}",
        none.text(Look::default())
    );
    assert_eq!(seeds(none), [true, true]);
}

#[test]
fn a_run_that_was_begun_is_gone_on_with_and_what_it_restored_stays() {
    let checks = vec![at("restored", "r1"), at("stopped", "r1"), ready()];
    let begun = plan(&options(false), checks.clone(), &[]);
    assert_eq!(begun.run, "r1");
    let pending: Vec<_> = begun.pending().iter().map(|target| target.given.target.as_str()).collect();
    assert_eq!(pending, ["n2", "n3"]);
    assert!(begun.text(Look::default()).contains("n1 was restored at"), "{}", begun.text(Look::default()));
    assert!(begun.text(Look::default()).contains("was begun (stopped)"), "{}", begun.text(Look::default()));

    let again = plan(&ClusterRestoreOptions { again: true, ..options(false) }, checks, &[]);
    assert_eq!(again.pending().len(), 3);
    assert_ne!(again.run, "r1");
}

#[test]
fn a_cluster_that_was_restored_before_is_restored_anew() {
    let done = plan(&options(false), vec![at("restored", "r1"), at("restored", "r1")], &[]);
    assert_eq!(done.pending().len(), 2);
    assert_ne!(done.run, "r1");
    // Of another run: it is none of this one's.
    let other = plan(&options(false), vec![at("restored", "r0"), at("staged", "r1")], &[]);
    assert_eq!((other.run.as_str(), other.pending().len()), ("r1", 2));
}

#[test]
fn notes_of_several_targets_are_said_once() {
    let noted = |note: &str| Check { notes: vec![note.into()], ..ready() };
    let text = plan(&options(false), vec![noted("a"), noted("a"), noted("b")], &[]).text(Look::default());
    assert!(text.contains("n1 and 1 more: a") && text.contains("n3: b"), "{text}");
    assert!(plan(&options(false), vec![noted("a"), noted("a")], &[]).text(Look::default()).contains("all targets: a"));
}

#[test]
fn loading_stops_nobody() {
    let load = LoadOptions { wanted: true, ..LoadOptions::default() };
    let text =
        plan(&ClusterRestoreOptions { load, ..options(false) }, vec![ready(), ready()], &[]).text(Look::default());
    assert!(text.contains("by sstableloader") && text.contains("no node is stopped"), "{text}");
}

//! Tests of `mapping`.

use super::*;

fn tokens(list: &[i64]) -> Tokens {
    Tokens(list.iter().map(i64::to_string).collect())
}

fn source(name: &str, list: &[i64], rack: &str) -> Source {
    Source { name: name.into(), tokens: tokens(list), rack: Some(rack.into()), dc: Some("dc1".into()) }
}

fn target(host: &str, list: &[i64], rack: &str) -> RingNode {
    let names = BTreeSet::from([host.to_owned()]);
    RingNode { host: host.into(), names, tokens: tokens(list), rack: Some(rack.into()), dc: Some("dc1".into()) }
}

fn three() -> Vec<Source> {
    vec![source("n1", &[1, 10], "r1"), source("n2", &[2, 20], "r2"), source("n3", &[3, 30], "r3")]
}

fn whole() -> Rules {
    Rules { may_take_over: true, ..Rules::default() }
}

fn pairs(mapping: &Mapping) -> Vec<(&str, String)> {
    mapping.assignments.iter().map(|given| (given.target.as_str(), given.sources.join(","))).collect()
}

fn map(sources: &[Source], ring: &[RingNode], rules: Rules) -> Mapping {
    onto_ring(sources, ring, rules).unwrap()
}

#[test]
fn in_place_when_every_host_has_its_tokens_in_whatever_order() {
    let ring = [target("n3", &[30, 3], "r3"), target("n1", &[10, 1], "r1"), target("n2", &[2, 20], "r2")];
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::InPlace);
    assert_eq!(pairs(&mapping), [("n1", "n1".into()), ("n2", "n2".into()), ("n3", "n3".into())]);
    assert!(mapping.assignments.iter().all(|given| given.why == "same host, same tokens"));
    assert_eq!(map(&three(), &ring, Rules::default()).method, Method::InPlace);
}

#[test]
fn one_common_name_does_not_make_it_in_place() {
    let ring = [target("n1", &[7], "r1"), target("m2", &[8], "r2"), target("m3", &[9], "r3")];
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::Remote);
    assert_eq!(pairs(&mapping), [("n1", "n1".into()), ("m2", "n2".into()), ("m3", "n3".into())]);
    assert!(
        mapping.notes[0].contains("no longer owns 2 tokens (1, 10) and owns 1 token that it had not (7)"),
        "{mapping:?}"
    );
}

#[test]
fn hosts_whose_names_were_exchanged_get_the_data_of_their_tokens() {
    let ring = [target("n2", &[1, 10], "r1"), target("n1", &[2, 20], "r2"), target("n3", &[3, 30], "r3")];
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::Remote);
    assert_eq!(pairs(&mapping), [("n2", "n1".into()), ("n1", "n2".into()), ("n3", "n3".into())]);
    let whys: Vec<_> = mapping.assignments.iter().map(|given| given.why.as_str()).collect();
    assert_eq!(whys, ["same tokens, new address", "same tokens, new address", "same host, same tokens"]);
}

#[test]
fn names_of_one_host_are_all_its_names() {
    let mut ring =
        [target("10.0.0.1", &[1, 10], "r1"), target("10.0.0.2", &[2, 20], "r2"), target("n3", &[3, 30], "r3")];
    ring[0].names.insert("n1".into());
    ring[1].names.insert("n2".into());
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::InPlace);
    assert_eq!(pairs(&mapping)[0], ("10.0.0.1", "n1".into()));
}

#[test]
fn another_ring_takes_over_rack_by_rack_and_not_by_position() {
    // Sorted by address the ring is in another order than by token, and racks are called otherwise.
    let ring = [target("a", &[500], "y"), target("b", &[-7], "x"), target("c", &[4], "y"), target("d", &[6], "x")];
    let sources =
        [source("n1", &[40], "r1"), source("n2", &[-30], "r2"), source("n3", &[-20], "r1"), source("n4", &[10], "r2")];
    let mapping = map(&sources, &ring, whole());
    assert_eq!(mapping.method, Method::Remote);
    // r1 to x, r2 to y; lowest token to lowest token.
    assert_eq!(pairs(&mapping), [("d", "n1".into()), ("c", "n2".into()), ("b", "n3".into()), ("a", "n4".into())]);
    assert!(mapping.assignments[0].why.contains("rack r1 to x"), "{mapping:?}");
}

#[test]
fn a_rack_of_the_same_name_is_preferred() {
    let ring = [target("a", &[1000], "r3"), target("b", &[2000], "r2"), target("c", &[3000], "r1")];
    let mapping = map(&three(), &ring, whole());
    assert_eq!(pairs(&mapping), [("c", "n1".into()), ("b", "n2".into()), ("a", "n3".into())]);
}

#[test]
fn racks_that_do_not_fit_are_loaded_unless_they_are_ignored() {
    let ring = [target("a", &[100], "x"), target("b", &[200], "x"), target("c", &[300], "y")];
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::Load);
    assert!(
        mapping.reason.contains("no rack of the ring has 1 node as rack r2 of the backup has"),
        "{}",
        mapping.reason
    );
    let mapping = map(&three(), &ring, Rules { ignore_racks: true, ..whole() });
    assert_eq!(mapping.method, Method::Remote);
    assert_eq!(pairs(&mapping), [("a", "n1".into()), ("b", "n2".into()), ("c", "n3".into())]);
}

#[test]
fn the_same_tokens_in_racks_that_are_divided_otherwise_do_not_fit() {
    let ring = [target("a", &[1, 10], "x"), target("b", &[2, 20], "x"), target("c", &[3, 30], "y")];
    assert_eq!(map(&three(), &ring, whole()).method, Method::Load);
    assert_eq!(map(&three(), &ring, Rules { ignore_racks: true, ..whole() }).method, Method::Remote);
}

#[test]
fn single_tables_are_never_put_on_other_tokens() {
    let ring = [target("a", &[100], "r1"), target("b", &[200], "r2"), target("c", &[300], "r3")];
    let mapping = map(&three(), &ring, Rules::default());
    assert_eq!(mapping.method, Method::Load);
    assert!(mapping.reason.contains("single tables cannot take tokens over"), "{}", mapping.reason);
    let same = [target("a", &[1, 10], "r1"), target("b", &[2, 20], "r2"), target("c", &[3, 30], "r3")];
    assert_eq!(map(&three(), &same, Rules::default()).method, Method::Remote);
}

#[test]
fn rings_of_another_size_load_and_every_source_is_dealt_once() {
    let ring = [target("b", &[100], "r1"), target("a", &[200], "r2")];
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::Load);
    assert_eq!(pairs(&mapping), [("a", "n1,n3".into()), ("b", "n2".into())]);
    let more: Vec<_> = ["d", "c", "b", "a"].iter().map(|host| target(host, &[100], "r1")).collect();
    assert_eq!(pairs(&map(&three(), &more, whole())), [("a", "n1".into()), ("b", "n2".into()), ("c", "n3".into())]);
}

#[test]
fn a_node_that_joined_since_keeps_it_from_being_in_place() {
    let mut ring: Vec<_> = [("n1", [1, 10], "r1"), ("n2", [2, 20], "r2"), ("n3", [3, 30], "r3")]
        .iter()
        .map(|(host, list, rack)| target(host, list, rack))
        .collect();
    ring.push(target("n4", &[4, 40], "r1"));
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::Load);
    assert!(mapping.reason.contains("the backup has no n4"), "{}", mapping.reason);
    // Asked for: what is there goes to its hosts, and the others are named.
    let mapping = map(&three(), &ring, Rules { incomplete: true, ..whole() });
    assert_eq!((mapping.method, mapping.assignments.len()), (Method::InPlace, 3));
    assert!(mapping.notes[0].contains("n4 gets nothing") && mapping.notes[0].ends_with(NEWER), "{mapping:?}");
}

#[test]
fn names_of_datacenters_count() {
    let mut ring: Vec<_> = ["a", "b", "c"].iter().map(|host| target(host, &[100], "r1")).collect();
    for host in &mut ring {
        host.dc = Some("other".into());
    }
    let mapping = map(&three(), &ring, whole());
    assert_eq!(mapping.method, Method::Load);
    assert!(mapping.reason.contains("other datacenters"), "{}", mapping.reason);
    for (host, source) in ring.iter_mut().zip(three()) {
        host.tokens = source.tokens;
    }
    assert_eq!(map(&three(), &ring, Rules::default()).method, Method::Load);
}

#[test]
fn a_datacenter_that_was_not_backed_up_is_left_alone() {
    let mut ring: Vec<_> = [("n1", [1, 10], "r1"), ("n2", [2, 20], "r2"), ("n3", [3, 30], "r3")]
        .iter()
        .map(|(host, list, rack)| target(host, list, rack))
        .collect();
    ring.push(RingNode { dc: Some("dc2".into()), ..target("x1", &[5], "r1") });
    let mapping = map(&three(), &ring, whole());
    assert_eq!((mapping.method, mapping.assignments.len()), (Method::InPlace, 3));
    assert!(mapping.notes[0].contains("dc2"), "{mapping:?}");
}

#[test]
fn maps_of_old_versions_have_neither_rack_nor_datacenter() {
    let bare = |source: Source| Source { rack: None, dc: None, ..source };
    let sources: Vec<_> = three().into_iter().map(bare).collect();
    let ring = [target("a", &[100], "x"), target("b", &[200], "x"), target("c", &[300], "y")];
    assert_eq!(map(&sources, &ring, whole()).method, Method::Remote);
    let same = [target("n1", &[1, 10], "x"), target("n2", &[2, 20], "x"), target("n3", &[3, 30], "y")];
    assert_eq!(map(&sources, &same, whole()).method, Method::InPlace);
}

#[test]
fn what_is_asked_to_be_loaded_is_loaded() {
    let ring = [target("n1", &[1, 10], "r1"), target("n2", &[2, 20], "r2"), target("n3", &[3, 30], "r3")];
    let mapping = map(&three(), &ring, Rules { load: true, ..whole() });
    assert_eq!((mapping.method, mapping.reason.as_str()), (Method::Load, "--use-sstableloader"));
    assert!(onto_ring(&[], &ring, whole()).is_err());
    assert!(onto_ring(&three(), &[], whole()).is_err());
}

proptest::proptest! {
    #[test]
    fn every_node_goes_to_exactly_one_host_and_nothing_depends_on_the_order(
        racks in proptest::collection::vec(0..3_u8, 1..8),
        other_racks in proptest::collection::vec(0..3_u8, 1..8),
        seed in 0..1000_usize,
    ) {
        let sources: Vec<_> = racks.iter().enumerate()
            .map(|(i, rack)| source(&format!("n{i}"), &[i64::try_from(i).unwrap() * 10], &format!("r{rack}")))
            .collect();
        let mut ring: Vec<_> = other_racks.iter().enumerate()
            .map(|(i, rack)| target(&format!("h{i}"), &[i64::try_from(i * 7 % 5).unwrap() - 100 * i64::try_from(i).unwrap()], &format!("r{rack}")))
            .collect();
        let mapping = map(&sources, &ring, whole());
        let mut given: Vec<_> = mapping.assignments.iter().flat_map(|given| given.sources.clone()).collect();
        given.sort();
        let names: Vec<_> = sources.iter().map(|source| source.name.clone()).collect();
        proptest::prop_assert_eq!(given, names);
        let hosts: BTreeSet<_> = mapping.assignments.iter().map(|given| &given.target).collect();
        proptest::prop_assert_eq!(hosts.len(), mapping.assignments.len());
        let middle = seed % ring.len();
        ring.rotate_left(middle);
        let mut shuffled = sources.clone();
        shuffled.rotate_left(seed % sources.len());
        proptest::prop_assert_eq!(map(&shuffled, &ring, whole()), mapping);
    }
}

//! The packaged dashboard and alerts can be loaded. That they use only metrics that are sent is a unit test of `monitoring`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::lab::medusa::finish;
use crate::lab::{cache, project, scratch};

/// What Grafana needs of a dashboard.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dashboard {
    title: String,
    uid: String,
    schema_version: u32,
    templating: Templating,
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    r#type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u32,
    r#type: String,
    title: String,
    grid_pos: GridPos,
    datasource: Option<Datasource>,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct GridPos {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

impl GridPos {
    fn overlaps(&self, other: &Self) -> bool {
        let apart = |a: u32, length: u32, b: u32, other: u32| a + length <= b || b + other <= a;
        !apart(self.x, self.w, other.x, other.w) && !apart(self.y, self.h, other.y, other.h)
    }
}

#[derive(Debug, Deserialize)]
struct Datasource {
    r#type: String,
    uid: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    ref_id: String,
    expr: String,
}

/// What Prometheus takes as a file of rules, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn packaged<T>(path: &str, parse: impl FnOnce(&str) -> T) -> T {
    parse(&std::fs::read_to_string(project().join("packaging").join(path)).unwrap())
}

/// A parser of `PromQL` takes them all.
#[track_caller]
fn are_promql(expressions: &[String]) {
    const PARSE: &str = "import sys, promql_parser\nfor expression in sys.argv[1:]: promql_parser.parse(expression)\n";
    let mut python = std::process::Command::new(cache("prometheus/bin/python"));
    let words: Vec<_> = expressions.iter().map(String::as_str).collect();
    finish(python.arg("-c").arg(PARSE).args(&words).output().unwrap(), "python", &words).expect_code(0);
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard: Dashboard = packaged("grafana/medusa.json", |text| serde_json::from_str(text).unwrap());
    assert!(!dashboard.title.is_empty() && dashboard.schema_version >= 36);
    assert!(dashboard.uid.len() <= 40 && dashboard.uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    let variables: Vec<_> =
        dashboard.templating.list.iter().map(|variable| (variable.name.as_str(), variable.r#type.as_str())).collect();
    assert_eq!(variables, [("datasource", "datasource"), ("fqdn", "query")]);
    let ids: BTreeSet<_> = dashboard.panels.iter().map(|panel| panel.id).collect();
    assert_eq!(ids.len(), dashboard.panels.len());
    for (i, panel) in dashboard.panels.iter().enumerate() {
        assert!(!panel.title.is_empty(), "{panel:?}");
        assert!(panel.grid_pos.w > 0 && panel.grid_pos.h > 0 && panel.grid_pos.x + panel.grid_pos.w <= 24, "{panel:?}");
        let covered = dashboard.panels[..i].iter().find(|other| other.grid_pos.overlaps(&panel.grid_pos));
        assert!(covered.is_none(), "{panel:?} lies on {covered:?}");
        if panel.r#type == "row" {
            continue;
        }
        assert!(["stat", "timeseries"].contains(&panel.r#type.as_str()), "{panel:?}");
        let datasource = panel.datasource.as_ref().unwrap();
        assert_eq!((datasource.r#type.as_str(), datasource.uid.as_str()), ("prometheus", "${datasource}"));
        let letters: BTreeSet<_> = panel.targets.iter().map(|target| &target.ref_id).collect();
        assert!(!letters.is_empty() && letters.len() == panel.targets.len(), "{panel:?}");
    }
    let targets = dashboard.panels.iter().flat_map(|panel| &panel.targets);
    are_promql(&targets.map(|target| target.expr.replace("$fqdn", ".*")).collect::<Vec<_>>());
}

#[test]
fn the_alerts_are_rules_that_prometheus_loads() {
    let rules: Rules = packaged("prometheus/medusa.rules.yml", |text| serde_saphyr::from_str(text).unwrap());
    assert_eq!(rules.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["medusa"]);
    let rules = &rules.groups[0].rules;
    let names: BTreeSet<_> = rules.iter().map(|rule| rule.alert.as_str()).collect();
    assert_eq!(names.len(), rules.len());
    for needed in [
        "MedusaNoCompleteBackup",
        "MedusaNodeMissing",
        "MedusaNodeIncomplete",
        "MedusaBackupFailed",
        "MedusaVerifyProblems",
        "MedusaPurgeFailed",
        "MedusaMetricsStale",
    ] {
        assert!(names.contains(needed), "{needed}");
    }
    for Rule { alert, r#for, labels, annotations, .. } in rules {
        assert!(["warning", "critical"].contains(&labels["severity"].as_str()), "{alert}");
        assert!(["summary", "description"].iter().all(|key| !annotations[*key].is_empty()), "{alert}");
        assert!(r#for.as_ref().is_none_or(|time| time.ends_with(['m', 'h'])), "{alert}");
    }
    are_promql(&rules.iter().map(|rule| rule.expr.clone()).collect::<Vec<_>>());
}

#[test]
#[should_panic(expected = "exit 1")]
fn what_is_no_promql_is_noticed() {
    are_promql(&["time() - max(medusa_backup_files{fqdn=~}".to_owned()]);
}

/// As cassandra-medusa calls it: in a folder of its own, again after a connection that was lost.
#[test]
fn the_wrapper_keeps_what_became_of_a_command_and_runs_it_once() {
    let folder = scratch("wrapper");
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(project().join("packaging/medusa-wrapper"));
        finish(command.args(words).current_dir(folder.path()).output().unwrap(), "wrapper", words)
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let script = "printf '<%s>' \"$@\"; echo said >&2; exit 3";
    run(&["sh", "-c", script, "sh", "a b", "$(x)"]).expect_code(3);
    assert_eq!((read("stdout").as_str(), read("stderr").as_str()), ("<a b><$(x)>", "said\n"));
    assert_eq!(read("status"), "3\n");
    assert!(read("pid").trim().parse::<u32>().is_ok());
    run(&["touch", "again"]).expect_code(3);
    assert!(!folder.path().join("again").exists(), "it ran twice");
}

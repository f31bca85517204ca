//! What is measured of runs, and what the packaged dashboard and rules rely on.

use std::collections::BTreeSet;

use super::metrics::METRICS;
use super::run::{Backup, Facts, Latest, Purge, Report, Restore, Run};
use super::*;
use crate::monitor::Amount;

fn run<'a>(command: &'static str, exit_code: u8, facts: &'a Facts) -> Run<'a> {
    Run { command, fqdn: "n1", exit_code, took: Duration::from_secs(5), ended: 1_800_000_000, facts }
}

/// `name.what subject value` of what Medusa sends too.
fn medusas(run: &Run<'_>) -> Vec<String> {
    let measured = run.measurements();
    let of_medusa = measured.iter().filter(|measurement| measurement.metric.of_medusa);
    of_medusa.map(|m| format!("{}.{} {} {}", m.metric.name.0, m.metric.name.1, m.subject.tag(), m.value)).collect()
}

fn amount(files: u64, bytes: u64) -> Amount {
    Amount { files, bytes }
}

fn backup() -> Facts {
    let took = Duration::from_millis(2500);
    let done = Backup { took, finished: 1_800_000_000, all: amount(4, 100), uploaded: amount(1, 10) };
    Facts::Backup { name: "b1".into(), done: Some(done) }
}

fn restore(done: bool) -> Facts {
    let took = Duration::from_mins(1);
    let done = done.then_some(Restore { took, down: Some(Duration::from_secs(30)), downloaded: 7 });
    Facts::Restore { name: "b1".into(), done }
}

fn purge() -> Facts {
    Facts::Purge(Purge { backups: 1, deleted: amount(3, 30), kept_for_grace: Some(2) })
}

fn report() -> Report {
    let latest =
        Latest { name: "b2".into(), complete_nodes: 1, incomplete_nodes: 2, missing_nodes: 3, all: amount(5, 50) };
    Report { now: 100, node: Some(("b2".into(), 90)), complete: Some(("b1".into(), 40)), latest: Some(latest) }
}

#[test]
fn what_medusa_sends_is_sent_in_its_order_with_its_names_and_tags() {
    assert_eq!(
        medusas(&run("backup-node", 0, &backup())),
        [
            "medusa-node-backup.backup-duration b1 2.5",
            "medusa-node-backup.backup-size b1 100",
            "medusa-node-backup.backup-error b1 0"
        ]
    );
    let failed = Facts::Backup { name: "b1".into(), done: None };
    assert_eq!(medusas(&run("backup-node", 1, &failed)), ["medusa-node-backup.backup-error b1 1"]);
    let took = Some(Duration::from_secs(9));
    let (failed, done) = [None, took].map(|done| Facts::ClusterBackup { name: "b1".into(), done }).into();
    assert_eq!(
        medusas(&run("backup-cluster", 0, &done)),
        ["medusa-cluster-backup.cluster-backup-duration b1 9.0", "medusa-cluster-backup.cluster-backup-error b1 0"]
    );
    assert_eq!(medusas(&run("backup-cluster", 3, &failed)), ["medusa-cluster-backup.cluster-backup-error b1 1"]);
    for (command, metric) in [
        ("purge", "medusa-node-backup.purge-error PURGE-ERROR"),
        ("purge-decommissioned", "medusa-decommissioned-node-backup.purge-error PURGE-ERROR"),
        ("delete-backup", "medusa-node-backup.delete-error DELETE-ERROR"),
    ] {
        assert_eq!(medusas(&run(command, 0, &purge())), [format!("{metric} 0")]);
        assert_eq!(medusas(&run(command, 3, &Facts::Nothing)), [format!("{metric} 1")]);
    }
    let pushed = Facts::Report(Some(report()));
    assert_eq!(
        medusas(&run("report-last-backup", 0, &pushed)),
        [
            "medusa-node-backup.seconds-since-backup b2 10",
            "medusa-cluster-backup.seconds-since-backup b1 60",
            "medusa-cluster-backup.complete-backups-node-count b2 1",
            "medusa-cluster-backup.incomplete-backups-node-count b2 2",
            "medusa-cluster-backup.missing-backups-node-count b2 3",
            "medusa-cluster-backup.backup-total-size b2 50",
            "medusa-cluster-backup.backup-total-file-count b2 5"
        ]
    );
    assert_eq!(
        medusas(&run("report-last-backup", 1, &Facts::Report(None))),
        ["medusa-cluster-backup.seconds-since-backup TRACKING-ERROR 315365400"]
    );
    for command in ["report-last-backup", "restore-node", "list-backups"] {
        assert_eq!(medusas(&run(command, 0, &Facts::Nothing)), [""; 0]);
    }
}

#[test]
fn what_is_not_known_is_not_sent() {
    let names = |facts: &Facts| -> Vec<_> {
        let measured = run("purge", 1, facts).measurements();
        measured.iter().filter(|m| !m.metric.of_medusa).map(|m| m.metric.name.1).collect()
    };
    let of_command = ["success", "exit-code", "duration", "last-run-timestamp"];
    assert_eq!(names(&Facts::Nothing), of_command);
    let without_pool = Facts::Purge(Purge { kept_for_grace: None, ..Purge::default() });
    assert!(!names(&without_pool).contains(&"kept-for-grace-count"));
    let none = Report { node: None, complete: None, latest: None, ..report() };
    assert_eq!(
        names(&Facts::Report(Some(none))),
        [&["last-backup-timestamp", "last-complete-backup-timestamp"][..], &of_command].concat()
    );
}

#[test]
fn a_backup_that_is_finished_stays_so_if_a_required_hook_fails() {
    let measured = run("backup-node", 1, &backup()).measurements();
    let value = |name: &str| measured.iter().find(|m| m.metric.name.1 == name).unwrap().value;
    assert_eq!((value("backup-error"), value("success")), (Value::Whole(0), Value::Whole(0)));
}

/// Every metric that some run sends.
fn emitted() -> Vec<&'static Metric> {
    let facts = [
        ("backup-node", backup()),
        ("backup-cluster", Facts::ClusterBackup { name: "b1".into(), done: Some(Duration::from_secs(9)) }),
        ("restore-node", restore(true)),
        ("restore-cluster", Facts::ClusterRestore { name: "b1".into(), done: Some(Duration::from_secs(1)) }),
        ("verify", Facts::Verify { name: None, problems: 1 }),
        ("verify", Facts::Repository { problems: 1 }),
        ("purge", purge()),
        ("purge-decommissioned", purge()),
        ("delete-backup", purge()),
        ("report-last-backup", Facts::Report(Some(report()))),
    ];
    facts.iter().flat_map(|(command, facts)| run(command, 0, facts).measurements()).map(|m| m.metric).collect()
}

#[test]
fn the_table_holds_what_is_sent_and_nothing_else_and_each_name_once() {
    let names = |metrics: &mut dyn Iterator<Item = &'static Metric>| metrics.map(|m| m.name).collect::<BTreeSet<_>>();
    let sent = names(&mut emitted().into_iter());
    assert_eq!(sent, names(&mut METRICS.into_iter()));
    assert_eq!(sent.len(), METRICS.len());
    let textfile: Vec<_> = METRICS.iter().filter_map(|metric| metric.textfile).collect();
    assert_eq!(textfile.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), textfile.len());
    for (name, help) in textfile {
        assert!(name.starts_with("medusa_") && !help.contains(['\\', '\n']), "{name} {help}");
    }
}

/// Words that are names of metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("medusa_")).collect()
}

#[test]
fn dashboard_and_rules_use_only_metrics_that_are_sent() {
    let sent: BTreeSet<_> = emitted().into_iter().filter_map(|metric| metric.textfile).map(|(name, _)| name).collect();
    for (text, least) in [
        (include_str!("../../packaging/grafana/medusa.json"), 15),
        (include_str!("../../packaging/prometheus/medusa.rules.yml"), 7),
    ] {
        let used = metrics_in(text);
        assert_eq!(used.difference(&sent).collect::<Vec<_>>(), [&""; 0]);
        assert!(used.len() >= least, "{used:?}");
    }
}

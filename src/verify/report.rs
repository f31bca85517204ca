//! What verify found, as text and as a document. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{BackupReport, Depth, Fault, Finding, NodeReport, Unknown, VerifyReport};
use crate::model::look::{Look, Tone};
use crate::model::table::{Column, Table};
use crate::model::units::{count, counted, size, time};
use crate::monitor::Amount;

impl VerifyReport {
    /// As Medusa prints it.
    pub fn medusa_text(&self) -> String {
        self.backups.iter().map(medusa_text).collect()
    }

    /// Node by node, with what was proven.
    pub fn text(&self, look: Look) -> String {
        let mut text: String = self.backups.iter().map(|backup| backup_text(backup, look)).collect();
        text.push_str(&look.folded(&self.sum(), 0));
        text
    }

    /// All nodes in a sentence, and what was looked at.
    fn sum(&self) -> String {
        let mut text = String::new();
        let what = if self.backups.len() == 1 { "node" } else { "node backup" };
        let all = self.nodes().count();
        let bad = self.nodes().filter(|node| !node.is_good()).count();
        let verb = if bad == 1 { "is" } else { "are" };
        let unfinished = self.backups.iter().filter(|backup| !backup.complete).count();
        let _ = match bad {
            0 => write!(text, "{} ok.", counted(all as u64, what)),
            _ => write!(text, "{} of {} {verb} damaged or unknown.", count(bad as u64), counted(all as u64, what)),
        };
        if unfinished > 0 {
            let _ = write!(text, " {} not complete.", counted(unfinished as u64, "backup"));
        }
        let read = format!("{} ({})", counted(self.read.files, "object"), size(self.read.bytes));
        let _ = match self.depth {
            Depth::Listed => write!(text, " Existence and sizes were checked; --read-data checks every byte."),
            Depth::Data => {
                write!(text, " Existence and sizes were checked, and every byte of {read} against its hash.")
            }
            Depth::Sample(sample) => write!(
                text,
                " Existence and sizes were checked, and every byte of {read} against its hash: \
                 a sample of {} (--seed {}).",
                sample.share, sample.seed
            ),
        };
        let only_sizes: usize = self.nodes().map(|node| node.only_size_known.len()).sum();
        if only_sizes > 0 {
            let _ = write!(
                text,
                " Of {} only the size is known: no hash was recorded that can be compared.",
                counted(only_sizes as u64, "object")
            );
        }
        text
    }

    /// One backup, or a list of all.
    pub fn json(&self, all: bool) -> Value {
        let (sample, seed) = match self.depth {
            Depth::Sample(sample) => (Some(sample.share.to_string()), Some(sample.seed)),
            _ => (None, None),
        };
        let mut document = json!({
            "version": 1,
            "ok": self.is_good(),
            "contents_checked": self.depth != Depth::Listed,
            "sample": sample,
            "seed": seed,
            "objects_read": self.read.files,
            "bytes_read": self.read.bytes,
        });
        let mut backups: Vec<_> = self.backups.iter().map(backup_json).collect();
        let Value::Object(fields) = &mut document else { return document };
        match (all, backups.pop()) {
            (false, Some(Value::Object(backup))) => fields.extend(backup),
            (_, last) => {
                backups.extend(last);
                fields.insert("backups".into(), backups.into());
            }
        }
        document
    }
}

fn medusa_text(backup: &BackupReport) -> String {
    let mut text = format!("Validating {} ...\n", backup.name);
    if !backup.complete {
        text.push_str("- Completion: Not complete!\n");
        for (fqdn, started) in &backup.incomplete {
            let _ = writeln!(text, "  - [{fqdn}] Backup started at {started}, but not finished yet");
        }
        for host in &backup.missing {
            let _ = writeln!(text, "  - [{host}] Backup missing");
        }
        return text;
    }
    text.push_str("- Completion: OK!\n");
    if backup.is_good() {
        text.push_str("- Manifest validated: OK!!\n");
        return text;
    }
    text.push_str("- Manifest validation: Failed!\n");
    // As cassandra-medusa goes through them.
    let mut nodes: Vec<_> = backup.nodes.iter().collect();
    let place = |node: &NodeReport| backup.start_order.iter().position(|fqdn| *fqdn == node.fqdn);
    nodes.sort_by_key(|node| place(node).unwrap_or(usize::MAX));
    for node in nodes {
        if let Some(unknown) = &node.unknown {
            let _ = writeln!(text, "  - [{}] {}", node.fqdn, unknown_text(unknown));
        }
        for Finding { path, fault } in &node.findings {
            let said = match fault {
                Fault::Missing => "Doesn't exists",
                Fault::WrongSize { .. } | Fault::WrongHash => "Blob different",
                Fault::Unusable(why) => why,
                Fault::Unreferenced => "exists in storage, but not in manifest",
            };
            let _ = writeln!(text, "  - [{path}] {said}");
        }
    }
    text
}

fn unknown_text(unknown: &Unknown) -> String {
    match unknown {
        Unknown::Manifest(why) => format!("Manifest cannot be read: {why}"),
        Unknown::Storage(why) => format!("Could not be checked: {why}"),
    }
}

fn backup_text(backup: &BackupReport, look: Look) -> String {
    let all: Amount = backup.nodes.iter().fold(Amount::default(), |all, node| Amount {
        files: all.files + node.objects.files,
        bytes: all.bytes.saturating_add(node.objects.bytes),
    });
    let mut text = format!(
        "{}   {}, {}, {}\n",
        backup.name,
        counted(backup.nodes.len() as u64, "node"),
        counted(all.files, "object"),
        size(all.bytes)
    );
    if let Some(why) = &backup.failed {
        text.push_str(&look.folded(&format!("  could not be checked: {why}"), 4));
    }
    let mut table = Table::new(&[Column::text("", 0), Column::text("", 0)]).without_head();
    for node in &backup.nodes {
        let (state, tone) = node_state(node);
        table.row(vec![node.fqdn.to_string(), state.into()], Some((1, tone)), node_counts(node));
    }
    for (fqdn, started) in &backup.incomplete {
        let said = format!("started {}", time(*started));
        table.row(vec![fqdn.to_string(), "unfinished".into()], Some((1, Tone::Doubtful)), said);
    }
    for host in &backup.missing {
        table.row(vec![host.clone(), "missing".into()], Some((1, Tone::Bad)), "there is no backup of this node");
    }
    let mut findings = backup.nodes.iter().map(|node| node_findings(node, look));
    for line in table.lines(look) {
        text.push_str(&line);
        text.push_str(&findings.next().unwrap_or_default());
    }
    text
}

fn node_state(node: &NodeReport) -> (&'static str, Tone) {
    match &node.unknown {
        Some(Unknown::Storage(_)) => ("unknown", Tone::Doubtful),
        _ if node.is_good() => ("ok", Tone::Good),
        _ => ("damaged", Tone::Bad),
    }
}

fn node_counts(node: &NodeReport) -> String {
    let mut said = Vec::new();
    match &node.unknown {
        Some(unknown) => said.push(unknown_text(unknown)),
        None if node.is_good() => said.push(counted(node.objects.files, "object")),
        None => {
            // What is not in the manifest is none of its objects, and neither is what stands beside the data.
            let faulty = node.count("missing") + node.count("wrong size") + node.count("wrong hash");
            said.push(format!("{} ok", count(node.objects.files.saturating_sub(faulty))));
        }
    }
    for kind in Fault::KINDS {
        let found = node.count(kind);
        if found > 0 {
            said.push(format!("{} {kind}", count(found)));
        }
    }
    if !node.only_size_known.is_empty() {
        said.push(format!("{} only size known", count(node.only_size_known.len() as u64)));
    }
    if node.rewritten > 0 {
        said.push(format!("{} rewritten by cassandra-medusa", count(node.rewritten)));
    }
    said.join(", ")
}

fn node_findings(node: &NodeReport, look: Look) -> String {
    let line = |Finding { path, fault }: &Finding| {
        let remark = match fault {
            Fault::WrongSize { expected, found } => format!("expected {}, found {}", count(*expected), count(*found)),
            Fault::Unusable(why) => why.clone(),
            _ => String::new(),
        };
        look.remarked(&format!("    {:<12} {path}", fault.kind()), &remark, 17)
    };
    node.findings.iter().map(line).collect()
}

fn backup_json(backup: &BackupReport) -> Value {
    let incomplete: Vec<_> = backup.incomplete.iter().map(|(fqdn, _)| fqdn.as_str()).collect();
    json!({
        "name": backup.name.as_str(),
        "ok": backup.is_good(),
        "complete": backup.complete,
        "incomplete_nodes": incomplete,
        "missing_nodes": backup.missing,
        "failed": backup.failed,
        "nodes": backup.nodes.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn node_json(node: &NodeReport) -> Value {
    let (manifest, storage) = match &node.unknown {
        Some(Unknown::Manifest(why)) => (Some(why), None),
        Some(Unknown::Storage(why)) => (None, Some(why)),
        None => (None, None),
    };
    let finding = |Finding { path, fault }: &Finding| {
        let (expected, found, why) = match fault {
            Fault::WrongSize { expected, found } => (Some(expected), Some(found), None),
            Fault::Unusable(why) => (None, None, Some(why)),
            _ => (None, None, None),
        };
        json!({ "path": path, "problem": fault.kind(), "expected": expected, "found": found, "why": why })
    };
    json!({
        "fqdn": node.fqdn.as_str(),
        "ok": node.is_good(),
        "objects": node.objects.files,
        "bytes": node.objects.bytes,
        "unreadable_manifest": manifest,
        "not_checked": storage,
        "missing": node.count("missing"),
        "wrong_size": node.count("wrong size"),
        "wrong_hash": node.count("wrong hash"),
        "unusable": node.count("unusable"),
        "unreferenced": node.count("unreferenced"),
        "only_size_known": node.only_size_known,
        "rewritten": node.rewritten,
        "problems": node.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

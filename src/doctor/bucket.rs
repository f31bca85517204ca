//! The storage: what it allows, what time it has, and what of our backups it holds.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use nix::unistd::{AccessFlags, Uid, access, geteuid};

use super::node::user_name;
use super::on_thread;
use super::report::{Finding, age};
use crate::context::Context;
use crate::explain;
use crate::listing::last::{Finished, LastBackups};
use crate::model::units;
use crate::storage::lease::Found;
use crate::storage_check::report::{Outcome, Probe};
use crate::storage_check::roles::Role;
use crate::storage_check::{self, CLOCK_LIMIT, Extent, What};

pub const STORAGE: &str = "storage";
pub const CLOCK: &str = "clock";
pub const LAST: &str = "last backup";
pub const LEASES: &str = "leases";

/// Seconds. Between that and [`CLOCK_LIMIT`] everything works, and times in listings and logs mislead.
const CLOCK_TOLERANCE: u64 = 30;

/// What this user may do, in a moment: the small probes of `storage-check`.
pub async fn storage(context: &Context) -> Vec<Finding> {
    let config = &context.config.storage;
    if let (true, Some(base_path)) = (config.provider == "local", config.base_path.clone()) {
        let bucket = base_path.join(&config.bucket_name);
        let mut found = on_thread(STORAGE, move || folder(&base_path, &bucket).into_iter().collect()).await;
        if !found.is_empty() {
            found.push(Finding::not_checked(CLOCK, "nothing was written"));
            return found;
        }
    }
    let report = match storage_check::run(context, Extent::Small, None).await {
        Ok(report) => report,
        Err(error) => return vec![Finding::error(STORAGE, &error)],
    };
    let location = &report.location;
    let mut findings = Vec::new();
    let mut for_janitors = Vec::new();
    for probe in &report.probes {
        match &probe.outcome {
            Outcome::Failed(_) if is_for_janitors(probe.what) => for_janitors.push(probe.what.name),
            Outcome::Failed(why) => findings.push(probe_failed(location, probe, why, &config.provider)),
            Outcome::Ok(_) | Outcome::LeftOut(_) => {}
        }
    }
    if !for_janitors.is_empty() {
        findings.push(janitors_lack(location, &for_janitors));
    }
    if findings.is_empty() {
        let took = report.latency.map(|took| format!(", {} for a request", units::took(took))).unwrap_or_default();
        findings.push(Finding::ok(STORAGE, format!("{location}: list, read, write and delete work{took}")));
    }
    findings.push(match report.clock_difference {
        Some(seconds) => clock(seconds),
        None => Finding::not_checked(CLOCK, "the storage did not tell its time"),
    });
    findings
}

/// What keeps a local bucket from being tried. A folder that is not there may be a file system that is not mounted: nothing
/// must be created in its place.
fn folder(base_path: &Path, bucket: &Path) -> Option<Finding> {
    let create = |path: &Path| {
        format!(
            "mount it, or create it for the user that backs up: install -d -m 0750 -o cassandra -g cassandra {}",
            path.display()
        )
    };
    if !base_path.is_dir() {
        let text = format!("base_path {} is not there", base_path.display());
        return Some(Finding::failed(STORAGE, text, create(base_path)));
    }
    let Ok(metadata) = fs::metadata(bucket) else {
        if access(base_path, AccessFlags::W_OK).is_err() {
            let text = format!("{} is not there, and this user cannot create it", bucket.display());
            return Some(Finding::failed(STORAGE, text, create(bucket)));
        }
        let text = format!("{} is not there yet", bucket.display());
        let fix = "the first backup creates it. If there were backups: is the file system mounted?";
        return Some(Finding::warning(STORAGE, text, fix));
    };
    if !metadata.is_dir() {
        let fix = "base_path and bucket_name in [storage] must name a folder";
        return Some(Finding::failed(STORAGE, format!("{} is not a folder", bucket.display()), fix));
    }
    let user = geteuid();
    if access(bucket, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let owner = user_name(Uid::from_raw(metadata.uid()));
        let text = format!("{} belongs to {owner}: {} cannot read and write there", bucket.display(), user_name(user));
        let fix = format!(
            "run medusa as {owner}, or give the folder to the user that backs up: chown -R cassandra:cassandra {}",
            bucket.display()
        );
        return Some(Finding::failed(STORAGE, text, fix));
    }
    // What root writes there, the owner could not write to.
    let is_guest = user.is_root() && metadata.uid() != 0;
    is_guest.then(|| {
        let text = format!("{} belongs to user {}: root did not try to write there", bucket.display(), metadata.uid());
        Finding::ok(STORAGE, text)
    })
}

fn probe_failed(location: &str, probe: &Probe, why: &str, provider: &str) -> Finding {
    let name = probe.what.name;
    let text = format!(
        "{location}: {name} does not work, which is needed for {}: {}",
        probe.what.for_what,
        why.replace('\n', " ")
    );
    let fix = permission(location, name, why, provider).or_else(|| explain::hint(why)).unwrap_or_else(|| {
        "medusa storage-check tries everything that medusa needs, and says what is missing".to_owned()
    });
    // Without these a backup is made and can be restored.
    if ["listing after write", "unfinished uploads"].contains(&name) {
        return Finding::warning(STORAGE, text, fix);
    }
    Finding::failed(STORAGE, text, fix)
}

/// Whether a node can do without it.
fn is_for_janitors(what: &What) -> bool {
    Role::Janitor.needs_probe(what) && !Role::Node.needs_probe(what)
}

/// Often on purpose: who breaks into a node shall delete no backups.
fn janitors_lack(location: &str, probes: &[&str]) -> Finding {
    let (commands, lacks) = (Role::Janitor.commands().join(", "), probes.join(", "));
    let text = format!("{location}: backups work; {commands} do not, with these credentials: {lacks}");
    let fix = "if this machine is to purge, medusa storage-check --role janitor says what to allow; else purge with other \
               credentials, and disable medusa-purge.timer here";
    Finding::warning(STORAGE, text, fix)
}

/// What AWS calls the permission, where one is missing.
fn permission(location: &str, probe: &str, why: &str, provider: &str) -> Option<String> {
    let is_denied = ["AccessDenied", "403 Forbidden"].iter().any(|code| why.contains(code));
    let bucket = location.strip_prefix("s3://").filter(|_| is_denied && provider.starts_with("s3"))?;
    let (action, resource) = match probe {
        "list" | "listing after write" => ("s3:ListBucket", bucket.to_owned()),
        "read" | "range" => ("s3:GetObject", format!("{bucket}/*")),
        "delete" => ("s3:DeleteObject", format!("{bucket}/*")),
        "delete metadata" => ("s3:DeleteObject", format!("{bucket}/*/meta/*")),
        "unfinished uploads" => ("s3:ListBucketMultipartUploads and s3:AbortMultipartUpload", bucket.to_owned()),
        _ => ("s3:PutObject", format!("{bucket}/*")),
    };
    Some(format!("allow {action} on arn:aws:s3:::{resource}; docs/storage has all permissions"))
}

/// Seconds by which the storage's clock is ahead of ours.
fn clock(ahead: i64) -> Finding {
    let difference = ahead.unsigned_abs();
    let by = units::took(Duration::from_secs(difference));
    let side = if ahead > 0 { "behind" } else { "ahead of" };
    let fix = "set it by ntp: timedatectl set-ntp true, or chrony";
    match difference {
        0..2 => Finding::ok(CLOCK, "as that of the storage"),
        2..=CLOCK_TOLERANCE => Finding::ok(CLOCK, format!("{by} {side} that of the storage")),
        _ if difference <= CLOCK_LIMIT.unsigned_abs() => {
            Finding::warning(CLOCK, format!("{by} {side} that of the storage"), fix)
        }
        _ => {
            let text =
                format!("{by} {side} that of the storage: stores refuse requests that are signed at another time");
            Finding::failed(CLOCK, text, fix)
        }
    }
}

/// `limit`: how old the last backup may be. `is_node`: this machine has backups of its own.
pub async fn last_backup(context: &Context, limit: Duration, is_node: bool) -> Finding {
    match LastBackups::gather(&context.storage, &context.fqdn).await {
        Ok(last) => judge_last(&last, context.now.timestamp(), limit, is_node),
        Err(error) => Finding::error(LAST, &error),
    }
}

fn judge_last(last: &LastBackups, now: i64, limit: Duration, is_node: bool) -> Finding {
    let age_of = |finished: &Finished| Duration::from_secs(finished.age(now).unsigned_abs());
    let ago = |finished: &Finished| format!("{}, finished {} ago", finished.name, age(age_of(finished)));
    let cluster = match &last.complete {
        Some(complete) => format!("last complete one of the cluster: {}", ago(complete)),
        None => "no complete one of the cluster".to_owned(),
    };
    let (finished, what) = match (is_node, &last.node) {
        (true, Some(node)) => (node, format!("{}; {cluster}", ago(node))),
        (true, None) => {
            let fix = "medusa backup-node --backup-name NAME makes the first one";
            return Finding::warning(LAST, format!("this node has none yet; {cluster}"), fix);
        }
        (false, _) => {
            let Some(complete) = &last.complete else {
                let fix = "medusa backup-cluster --backup-name NAME makes the first one";
                return Finding::warning(LAST, cluster, fix);
            };
            (complete, cluster)
        }
    };
    if age_of(finished) > limit {
        let fix = format!(
            "it is older than {}: did the timer run? journalctl -u medusa.service; medusa status --latest",
            age(limit)
        );
        return Finding::warning(LAST, what, fix);
    }
    Finding::ok(LAST, what)
}

pub async fn leases(context: &Context) -> Vec<Finding> {
    let now = context.now.timestamp();
    match context.storage.leases().await {
        Ok(found) => {
            let mut findings: Vec<_> =
                found.iter().filter(|found| found.is_stale).map(|found| stale(found, now)).collect();
            if findings.is_empty() {
                let text = match found.len() as u64 {
                    0 => "nobody works in the bucket".to_owned(),
                    count => format!("{}, none of them stale", units::counted(count, "lease")),
                };
                findings.push(Finding::ok(LEASES, text));
            }
            findings
        }
        Err(error) => vec![Finding::error(LEASES, &error)],
    }
}

fn stale(found: &Found, now: i64) -> Finding {
    let fqdn = &found.fqdn;
    let who = match &found.terms {
        Some(terms) => terms.describe(fqdn),
        None => format!("somebody holds {fqdn}"),
    };
    let since = Duration::from_secs(now.saturating_sub(found.renewed.timestamp()).max(0).unsigned_abs());
    let text = format!("a lease was left {} ago: {who}", age(since));
    let fix = format!("the next command on {fqdn} takes it over; medusa leases --break {fqdn} removes it");
    Finding::warning(LEASES, text, fix)
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::model::names::BackupName;
    use crate::storage_check::WRITE_PROBE;

    const DAY: Duration = Duration::from_hours(24);

    fn last(node: Option<i64>, complete: Option<i64>) -> LastBackups {
        let finished = |at: i64| Finished { name: BackupName::existing("b1").unwrap(), at };
        LastBackups { node: node.map(finished), complete: complete.map(finished), latest: None }
    }

    #[test]
    fn an_old_backup_is_a_warning() {
        let now = 1_700_000_000;
        let judge = |last: &LastBackups, is_node| judge_last(last, now, DAY, is_node);
        assert_eq!(
            judge(&last(Some(now - 60), None), true).text,
            "b1, finished 1 min ago; no complete one of the cluster"
        );
        assert_eq!(judge(&last(Some(now - 60), None), true).state, State::Ok);
        assert_eq!(judge(&last(Some(now - 90_000), Some(now)), true).state, State::Warning);
        assert_eq!(judge(&last(None, Some(now)), true).state, State::Warning);
        assert_eq!(judge(&last(None, Some(now)), false).state, State::Ok);
        assert_eq!(judge(&last(None, None), false).state, State::Warning);
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let state = |seconds| clock(seconds).state;
        assert_eq!(
            [0, -30, 31, -300, 301].map(state),
            [State::Ok, State::Ok, State::Warning, State::Warning, State::Failed]
        );
        assert!(clock(64).text.starts_with("1 min 4 s behind"));
        assert!(clock(-64).text.starts_with("1 min 4 s ahead of"));
    }

    #[test]
    fn a_missing_permission_is_called_as_aws_calls_it() {
        let allow = |probe, why| permission("s3://b", probe, why, "s3_eu_west");
        assert!(
            allow("delete", "403 Forbidden: AccessDenied")
                .unwrap()
                .starts_with("allow s3:DeleteObject on arn:aws:s3:::b/*")
        );
        assert!(allow("list", "AccessDenied").unwrap().starts_with("allow s3:ListBucket on arn:aws:s3:::b;"));
        assert_eq!(allow("write", "Connection refused"), None);
        let probe = Probe { what: WRITE_PROBE, outcome: Outcome::LeftOut(String::new()), took: Duration::ZERO };
        let finding = probe_failed("s3://b", &probe, "Connection refused", "s3");
        assert!(finding.state == State::Failed && finding.fix.unwrap().contains("nobody answers there"));
    }

    #[test]
    fn what_only_a_purge_lacks_is_a_warning() {
        let is_for_janitors = |name| is_for_janitors(&What { name, needs: "", for_what: "" });
        assert_eq!(
            ["delete data", "delete in the index", "delete metadata", "write"].map(is_for_janitors),
            [true, true, false, false]
        );
        let finding = janitors_lack("s3://b", &["delete data", "delete in the index"]);
        assert_eq!(finding.state, State::Warning);
        assert!(
            finding.text.contains("purge, purge-decommissioned, delete-backup, build-index do not"),
            "{}",
            finding.text
        );
        assert!(finding.text.ends_with("delete data, delete in the index"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_created() {
        let base = tempfile::tempdir().unwrap();
        let state = |base: &Path| folder(base, &base.join("bucket")).map(|finding| finding.state);
        assert_eq!(state(&base.path().join("mount")), Some(State::Failed));
        assert_eq!(state(base.path()), Some(State::Warning));
        fs::write(base.path().join("bucket"), "").unwrap();
        assert_eq!(state(base.path()), Some(State::Failed));
        fs::remove_file(base.path().join("bucket")).unwrap();
        fs::create_dir(base.path().join("bucket")).unwrap();
        assert_eq!(state(base.path()), None);
    }
}

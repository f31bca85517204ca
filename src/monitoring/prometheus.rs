//! `prometheus`: a textfile for the textfile collector of `node_exporter`.
//!
//! Each command has a file of its own, so that none erases what another one said, also where both run at the same time. What a
//! run does not know keeps the value of an earlier run: a backup that fails does not hide when the last good one was.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::metrics::METRICS;
use super::{Measurement, Subject};

/// The file of a command: `medusa.prom` becomes `medusa_backup_node.prom`.
pub(super) fn path(textfile: &Path, command: &str) -> PathBuf {
    let stem = textfile.file_stem().unwrap_or_default().to_string_lossy();
    textfile.with_file_name(format!("{stem}_{}.prom", command.replace('-', "_")))
}

/// The whole file. `earlier` is what it said before.
fn render(measured: &[Measurement], fqdn: &str, with_name: bool, earlier: &str) -> String {
    let node = format!("fqdn=\"{}\"", escaped(fqdn));
    let mut text = String::new();
    let mut told = BTreeSet::new();
    for Measurement { metric, value, subject, command } in measured {
        let Some((name, help)) = metric.textfile else { continue };
        told.insert(name);
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{node}");
        if let Some(command) = command {
            let _ = write!(text, ",command=\"{command}\"");
        }
        if let (true, Subject::Backup(backup)) = (with_name, subject) {
            let _ = write!(text, ",backup_name=\"{}\"", escaped(backup));
        }
        let _ = writeln!(text, "}} {value}");
    }
    let kept = METRICS.iter().filter_map(|metric| metric.textfile).filter(|(name, _)| !told.contains(name));
    for (name, help) in kept {
        let is_sample = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        if let Some(line) = earlier.lines().find(is_sample) {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{line}");
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Replaces the file of a command as a whole: the collector must never read half of one.
pub(super) fn write(path: &Path, measured: &[Measurement], fqdn: &str, with_name: bool) -> anyhow::Result<()> {
    let earlier = match fs_err::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let text = render(measured, fqdn, with_name, &earlier);
    let replaced = || {
        // The collector reads what ends in .prom.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".medusa-").suffix(".tmp").tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.persist(path)?;
        io::Result::Ok(())
    };
    replaced().with_context(|| format!("could not write {}, see prometheus_textfile in [monitoring]", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::metrics::{BACKUP_ERROR, BACKUP_FINISHED, COMMAND_SUCCESS};

    fn success(flag: bool) -> Measurement {
        let subject = Subject::Nothing;
        Measurement { metric: &COMMAND_SUCCESS, value: flag.into(), subject, command: Some("backup-node") }
    }

    fn finished(at: i64) -> Measurement {
        let subject = Subject::Backup("b\"1\\".to_owned());
        Measurement { metric: &BACKUP_FINISHED, value: at.into(), subject, command: None }
    }

    fn samples(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn each_command_has_its_file() {
        assert_eq!(path(Path::new("/x/medusa.prom"), "backup-node"), Path::new("/x/medusa_backup_node.prom"));
        assert_eq!(path(Path::new("medusa"), "purge"), Path::new("medusa_purge.prom"));
    }

    #[test]
    fn labels_are_escaped_and_what_has_no_name_here_is_left_out() {
        let error = Measurement { metric: &BACKUP_ERROR, ..success(true) };
        let text = render(&[finished(7), error, success(true)], "n\n1", true, "");
        assert_eq!(
            samples(&text),
            [
                r#"medusa_backup_finished_timestamp_seconds{fqdn="n\n1",backup_name="b\"1\\"} 7"#,
                r#"medusa_command_success{fqdn="n\n1",command="backup-node"} 1"#
            ]
        );
        let without = render(&[finished(7)], "n1", false, "");
        assert_eq!(samples(&without), [r#"medusa_backup_finished_timestamp_seconds{fqdn="n1"} 7"#]);
    }

    #[test]
    fn a_failed_run_keeps_what_an_earlier_one_knew() {
        let good = render(&[finished(7), success(true)], "n1", false, "");
        let failed = render(&[success(false)], "n1", false, &good);
        assert_eq!(
            samples(&failed),
            [
                r#"medusa_command_success{fqdn="n1",command="backup-node"} 0"#,
                r#"medusa_backup_finished_timestamp_seconds{fqdn="n1"} 7"#
            ]
        );
        assert_eq!(render(&[success(false)], "n1", false, &failed), failed);
        // The name of the node may not be known when it fails. What was said of it stays true.
        let other = render(&[success(false)], "n10", false, &good);
        assert_eq!(
            samples(&other),
            [
                r#"medusa_command_success{fqdn="n10",command="backup-node"} 0"#,
                r#"medusa_backup_finished_timestamp_seconds{fqdn="n1"} 7"#
            ]
        );
        let broken = format!("nonsense\nmedusa_unknown{{fqdn=\"n1\"}} 1\n{good}");
        assert_eq!(render(&[success(false)], "n1", false, &broken), failed, "what is not ours goes");
    }
}

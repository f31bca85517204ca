//! What was found, as text and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Told;
use crate::model::look::{Look, Tone};
use crate::model::units;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ok,
    /// Backups work; something else does not, or will not for long.
    Warning,
    /// A backup, or what it is made for, does not work.
    Failed,
    /// What it depends on is not there.
    NotChecked,
}

impl State {
    /// As text and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotChecked => "not checked",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Failed => Tone::Bad,
            Self::Warning | Self::NotChecked => Tone::Doubtful,
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at. One check may find several things.
    pub check: &'static str,
    pub state: State,
    pub text: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, state: State::Ok, text: text.into(), fix: None }
    }

    pub fn warning(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Warning, text: text.into(), fix: Some(fix.into()) }
    }

    pub fn failed(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Failed, text: text.into(), fix: Some(fix.into()) }
    }

    pub fn not_checked(check: &'static str, why: impl Into<String>) -> Self {
        Self { check, state: State::NotChecked, text: why.into(), fix: None }
    }

    /// An error with its causes and details on one line; its hint is the way forward.
    pub fn error(check: &'static str, error: &anyhow::Error) -> Self {
        let Told { texts, details, hint } = Told::of(error);
        let text = texts.into_iter().chain(details).collect::<Vec<_>>().join(": ");
        Self { check, state: State::Failed, text: text.replace('\n', " "), fix: hint }
    }

    #[must_use]
    pub fn or_fix(mut self, fix: &str) -> Self {
        self.fix.get_or_insert_with(|| fix.to_owned());
        self
    }
}

/// Everything that was looked at.
#[derive(Debug)]
pub struct Report {
    /// The configuration that was read.
    pub file: String,
    /// The node. `None`: nobody knows what it is called.
    pub fqdn: Option<String>,
    /// In the order of the table.
    pub findings: Vec<Finding>,
}

/// Lines of a table with what to do below each finding.
pub fn table(findings: &[Finding], look: Look) -> String {
    const STATE: usize = 13;
    let name = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default() + 3;
    let line = |Finding { check, state, text, fix }: &Finding| {
        let (told, indent) = (look.paint(state.tone(), &format!("{:<STATE$}", state.name())), STATE + name);
        let mut lines = look.folded(&format!("{told}{check:<name$}{text}"), indent);
        if let Some(fix) = fix {
            lines.push_str(&look.folded(&format!("{:indent$}fix: {fix}", ""), indent + 5));
        }
        lines
    };
    findings.iter().map(line).collect()
}

impl Report {
    pub fn count(&self, state: State) -> u64 {
        self.findings.iter().filter(|finding| finding.state == state).count() as u64
    }

    /// `1 failed, 2 warnings`
    pub fn summary(&self) -> String {
        let (failed, warnings) = (self.count(State::Failed), self.count(State::Warning));
        let failed = Some(format!("{failed} failed")).filter(|_| failed > 0);
        let warnings = Some(units::counted(warnings, "warning")).filter(|_| warnings > 0);
        let found: Vec<_> = failed.into_iter().chain(warnings).collect();
        if found.is_empty() { "everything that was checked is in order".to_owned() } else { found.join(", ") }
    }

    pub fn text(&self, look: Look) -> String {
        format!("{}{}\n", table(&self.findings, look), self.summary())
    }

    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "file": self.file,
            "fqdn": self.fqdn,
            "findings": documents(&self.findings),
            "failed": self.count(State::Failed),
            "warnings": self.count(State::Warning),
        })
    }
}

/// Findings as JSON.
pub fn documents(findings: &[Finding]) -> Value {
    let document = |Finding { check, state, text, fix }: &Finding| json!({ "check": check, "state": state.name(), "text": text, "fix": fix });
    findings.iter().map(document).collect()
}

/// How long ago something was: `40 s`, `5 min`, `9 h`, `3 days`.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    fn report(findings: Vec<Finding>) -> Report {
        Report { file: "/etc/medusa/medusa.ini".into(), fqdn: Some("n1".into()), findings }
    }

    #[test]
    fn what_to_do_stands_below_what_was_found() {
        let report = report(vec![
            Finding::ok("medusa.ini", "31 keys"),
            Finding::warning("clock", "behind", "set it"),
            Finding::failed("data directories", "gone", "mount it"),
            Finding::not_checked("leases", "no storage"),
        ]);
        let expected = [
            "ok           medusa.ini         31 keys",
            "warning      clock              behind",
            "                                fix: set it",
            "failed       data directories   gone",
            "                                fix: mount it",
            "not checked  leases             no storage",
            "1 failed, 1 warning",
            "",
        ];
        assert_eq!(report.text(Look::default()), expected.join("\n"));
        let document = report.json();
        assert_eq!((&document["failed"], &document["warnings"]), (&json!(1), &json!(1)));
        assert_eq!(
            document["findings"][3],
            json!({ "check": "leases", "state": "not checked", "text": "no storage", "fix": null })
        );
    }

    #[test]
    fn the_summary_counts() {
        let warning = Finding::warning("x", "y", "z");
        assert_eq!(report(vec![Finding::ok("x", "y")]).summary(), "everything that was checked is in order");
        assert_eq!(report(vec![warning.clone()]).summary(), "1 warning");
        assert_eq!(report(vec![Finding::failed("x", "y", "z")]).summary(), "1 failed");
        assert_eq!(
            report(vec![warning.clone(), warning, Finding::failed("x", "y", "z")]).summary(),
            "1 failed, 2 warnings"
        );
    }

    #[test]
    fn an_error_becomes_one_line_and_its_hint_the_way_forward() {
        let failure = Failure::failed("nodetool failed").cause(anyhow::anyhow!("exit status 1")).hint("start it");
        let finding = Finding::error("nodetool", &failure.into());
        assert_eq!(
            (finding.text.as_str(), finding.fix.as_deref()),
            ("nodetool failed: exit status 1", Some("start it"))
        );
        assert_eq!(Finding::error("x", &anyhow::anyhow!("a\nb")).or_fix("do").fix.as_deref(), Some("do"));
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        for (seconds, text) in [(40, "40 s"), (300, "5 min"), (32_400, "9 h"), (259_200, "3 days")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}

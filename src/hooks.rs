//! Programs of the operator that are run before and after: `[hooks]`.
//!
//! Each gets one JSON document on its stdin and has a deadline. A hook that fails is a warning, unless hooks are required.

use std::io::{Seek as _, Write as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::config::Hooks;
use crate::error::{Failure, Told, one_line};
use crate::exec::command::{Invocation, Outcome};
use crate::model::backups::BackupMode;
use crate::model::names::{BackupName, Fqdn};

/// Before anything of a backup is touched.
///
/// # Errors
/// The hook is required and failed.
pub async fn before_backup(hooks: &Hooks, name: &BackupName, fqdn: &Fqdn, mode: BackupMode) -> Result<(), Failure> {
    let document = json!({
        "version": 1,
        "event": "before_backup",
        "name": name.as_str(),
        "fqdn": fqdn.as_str(),
        "mode": mode,
    });
    let hook = Hook { key: "before_backup", command: &hooks.before_backup };
    hook.run(hooks, &document, || format!("backup {name} was not begun: its hook failed")).await
}

/// After a backup is complete. `result`: what the command prints as JSON.
///
/// # Errors
/// The hook is required and failed.
pub async fn after_backup(hooks: &Hooks, name: &BackupName, result: &Value) -> Result<(), Failure> {
    let document = json!({ "version": 1, "event": "after_backup", "result": result });
    let hook = Hook { key: "after_backup", command: &hooks.after_backup };
    hook.run(hooks, &document, || format!("backup {name} is complete, and the hook after it failed")).await
}

/// After a restore has succeeded. `result`: what the command prints as JSON.
///
/// # Errors
/// The hook is required and failed.
pub async fn after_restore(hooks: &Hooks, name: &BackupName, result: &Value) -> Result<(), Failure> {
    let document = json!({ "version": 1, "event": "after_restore", "result": result });
    let hook = Hook { key: "after_restore", command: &hooks.after_restore };
    hook.run(hooks, &document, || format!("backup {name} is restored, and the hook after it failed")).await
}

/// After a command that writes has failed. Its own failure changes nothing.
pub async fn on_failure(hooks: &Hooks, command: &str, error: &anyhow::Error, exit_code: u8) {
    let Told { mut texts, details, hint } = Told::of(error);
    let causes = texts.split_off(1.min(texts.len()));
    let document = json!({
        "version": 1,
        "event": "on_failure",
        "command": command,
        "error": texts.pop(),
        "causes": causes,
        "details": details,
        "hint": hint,
        "exit_code": exit_code,
    });
    let hook = Hook { key: "on_failure", command: &hooks.on_failure };
    if let Err(error) = hook.attempt(hooks, &document).await {
        tracing::warn!("{}", one_line(&error));
    }
}

/// One key of `[hooks]`.
struct Hook<'a> {
    key: &'static str,
    /// Words; empty: none.
    command: &'a [String],
}

impl Hook<'_> {
    /// `failed` says what is the case if a required one failed.
    async fn run(&self, hooks: &Hooks, document: &Value, failed: impl Fn() -> String) -> Result<(), Failure> {
        match self.attempt(hooks, document).await {
            Ok(()) => Ok(()),
            Err(error) if hooks.required => Err(Failure::failed(failed())
                .cause(error)
                .hint("required = False in [hooks] makes the failure of a hook a warning")),
            Err(error) => {
                tracing::warn!("{}", one_line(&error));
                Ok(())
            }
        }
    }

    async fn attempt(&self, hooks: &Hooks, document: &Value) -> anyhow::Result<()> {
        if self.command.is_empty() {
            return Ok(());
        }
        let failed = || format!("the hook {} of [hooks] failed", self.key);
        let attempt = async {
            let mut file = tempfile::tempfile()?;
            writeln!(file, "{document}")?;
            file.rewind()?;
            let hook = Invocation::from_words(self.command);
            let outcome = hook.run_with(Stdio::from(file), hooks.timeout).await?;
            if outcome.status.success() { Ok(()) } else { Err(ended(&hook.program, &outcome)) }
        };
        attempt.await.map_err(|error: anyhow::Error| error.context(failed()))
    }
}

/// How it ended, with the last that it said.
fn ended(program: &str, outcome: &Outcome) -> anyhow::Error {
    let last = |output: &str| output.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
    let said = last(&outcome.stderr).or_else(|| last(&outcome.stdout)).map(|line| format!(": {line}"));
    anyhow::anyhow!("{program} failed ({}){}", outcome.status, said.unwrap_or_default())
}

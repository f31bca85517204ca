//! An error as a person meets it, and the exit code that goes with it.

use std::io::Write as _;

use super::logging::FILE;
use super::terminal::{Terminal, harmless};
use crate::config::ConfigError;
use crate::error::{Failure, Kind, Told};
use crate::model::look::{Look, Tone};

/// Lines of detail that are shown; the rest is counted.
const MOST_DETAILS: usize = 20;

/// The exit code of a failed command.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    kind(error).exit_code()
}

fn kind(error: &anyhow::Error) -> Kind {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map(|failure| failure.kind);
    let is_config = error.chain().any(<dyn std::error::Error + 'static>::is::<ConfigError>);
    kind.unwrap_or(if is_config { Kind::Usage } else { Kind::Failed })
}

/// Writes `error:`, `caused by:` and `hint:` to stderr.
pub fn print(error: &anyhow::Error, terminal: Terminal) {
    let text = render(error, terminal.look);
    // Nobody is left to be told where stderr is closed.
    let _ = std::io::stderr().lock().write_all(terminal.shown(&text).as_bytes());
}

/// Writes the same to the log file: who reads it later has no stderr.
pub fn log(error: &anyhow::Error) {
    let Told { texts, details, hint } = Told::of(error);
    tracing::error!(target: FILE, "{}", harmless(&texts.join(": ")));
    for detail in details {
        tracing::error!(target: FILE, "  {}", harmless(&detail));
    }
    if let Some(hint) = hint {
        tracing::error!(target: FILE, "  hint: {}", harmless(&hint));
    }
}

/// The whole report. A cause that was already told is left out. A hint with a command stays on its line: it is copied.
fn render(error: &anyhow::Error, look: Look) -> String {
    let Told { texts, details, hint } = Told::of(error);
    let mut text = String::new();
    for (depth, said) in texts.iter().enumerate() {
        let said = harmless(said);
        match depth {
            0 => text.push_str(&folded(look, &format!("{} {said}", look.paint(Tone::Bad, "error:")), 4)),
            _ => text.push_str(&folded(look, &format!("  caused by: {said}"), 6)),
        }
    }
    for detail in details.iter().take(MOST_DETAILS) {
        text.push_str(&folded(look, &format!("  {}", harmless(detail)), 6));
    }
    if details.len() > MOST_DETAILS {
        text.push_str(&format!("  … and {} more\n", details.len() - MOST_DETAILS));
    }
    if let Some(hint) = hint {
        let line = format!("{} {}", look.paint(Tone::Doubtful, "hint:"), harmless(&hint));
        let may_be_copied = ["medusa ", "ssh", "nodetool "].iter().any(|command| hint.contains(command));
        text.push_str(&if may_be_copied { format!("{line}\n") } else { folded(look, &line, 4) });
    }
    text
}

/// What others say may have lines of its own.
fn folded(look: Look, text: &str, indent: usize) -> String {
    text.split('\n').map(|line| look.folded(line, indent)).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_told_once_and_the_hint_comes_last() {
        let cause = anyhow::anyhow!("connection refused").context("GET x: connection refused");
        let failure = Failure::failed("could not list").cause(cause).details(["one".to_owned()]).hint("look there");
        let error = Err::<(), _>(failure).context("purge").unwrap_err();
        let plain = render(&error, Look::default());
        assert_eq!(
            plain,
            "error: purge\n  caused by: could not list\n  caused by: GET x: connection refused\n  one\nhint: look there\n"
        );
        assert_eq!(exit_code(&error), 1);
    }

    #[test]
    fn configuration_errors_are_usage_errors() {
        let error = anyhow::Error::from(ConfigError::NoFile).context("x");
        assert_eq!(exit_code(&error), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
        assert_eq!(exit_code(&Failure::interrupted(15, "x").into()), 143);
    }

    #[test]
    fn long_lists_are_cut() {
        let failure = Failure::problems("x").details((0..25).map(|i| i.to_string()));
        assert!(render(&failure.into(), Look::default()).ends_with("  19\n  … and 5 more\n"));
    }
}

//! An error as a person meets it, and the exit code that goes with it.

use std::io::Write as _;

use super::output::harmless;
use crate::config::ConfigError;
use crate::error::{Failure, Kind, Told};

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
pub fn print(error: &anyhow::Error) {
    let mut stderr = anstream::stderr().lock();
    // Nobody is left to be told where stderr is closed.
    let _ = stderr.write_all(render(error).as_bytes());
}

/// The whole report. A cause that was already told is left out.
fn render(error: &anyhow::Error) -> String {
    let Told { texts, details, hint } = Told::of(error);
    let mut text = String::new();
    for (depth, said) in texts.iter().enumerate() {
        let said = harmless(said);
        match depth {
            0 => text.push_str(&format!("\x1b[1;31merror:\x1b[0m {said}\n")),
            _ => text.push_str(&format!("  caused by: {said}\n")),
        }
    }
    for detail in details.iter().take(MOST_DETAILS) {
        text.push_str(&format!("  {}\n", harmless(detail)));
    }
    if details.len() > MOST_DETAILS {
        text.push_str(&format!("  … and {} more\n", details.len() - MOST_DETAILS));
    }
    if let Some(hint) = hint {
        text.push_str(&format!("hint: {}\n", harmless(&hint)));
    }
    text
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
        let plain = render(&error).replace("\x1b[1;31m", "").replace("\x1b[0m", "");
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
        assert!(render(&failure.into()).ends_with("  19\n  … and 5 more\n"));
    }
}

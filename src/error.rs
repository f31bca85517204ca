//! What a failure tells the person in front of the terminal.
//!
//! Most errors are `anyhow` chains whose parts name the file, object, host or command. A [`Failure`] in the chain adds what
//! the chain alone cannot say: the exit code and the way forward. Other types exist only where code must act on a case.

use std::error::Error;
use std::fmt;

use crate::explain;

/// How a command ended when it did not end well. The number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The operation failed.
    Failed,
    /// Bad usage or configuration; nothing was attempted.
    Usage,
    /// Finished, and found problems.
    Problems,
    /// By this signal.
    Interrupted(i32),
}

impl Kind {
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Problems => 3,
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

/// An error with its exit code, and perhaps with lines of detail and a hint.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
    /// Shown below the message, indented.
    pub details: Vec<String>,
    pub hint: Option<String>,
    pub cause: Option<anyhow::Error>,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), hint: None, cause: None }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn problems(message: impl Into<String>) -> Self {
        Self::new(Kind::Problems, message)
    }

    pub fn interrupted(signal: i32, message: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted(signal), message)
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
    }
}

/// What an error tells, from the outside in.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// The error and its causes. One that those before it already tell is left out.
    pub texts: Vec<String>,
    pub details: Vec<String>,
    pub hint: Option<String>,
}

impl Told {
    pub fn of(error: &anyhow::Error) -> Self {
        let mut told = Self { texts: Vec::new(), details: Vec::new(), hint: None };
        for cause in error.chain() {
            let said = cause.to_string();
            let said = explain::shortened(&said);
            let said = said.trim();
            if told.texts.iter().all(|text| !text.contains(said)) {
                told.texts.push(said.to_owned());
            }
            if let Some(failure) = cause.downcast_ref::<Failure>() {
                if told.details.is_empty() {
                    told.details.clone_from(&failure.details);
                }
                told.hint = told.hint.or_else(|| failure.hint.clone());
            }
        }
        if told.hint.is_none() && error.chain().any(<dyn Error + 'static>::is::<object_store::Error>) {
            told.hint = explain::hint(&told.texts.join("\n"));
        }
        told
    }
}

/// The text of an error with all its causes, on one line. A cause that the text before it already tells is left out.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = explain::shortened(&cause);
        if text.is_empty() {
            text = cause.into_owned();
        } else if !text.contains(&*cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_design() {
        let kinds = [Kind::Failed, Kind::Usage, Kind::Problems, Kind::Interrupted(2), Kind::Interrupted(15)];
        assert_eq!(kinds.map(Kind::exit_code), [1, 2, 3, 130, 143]);
    }

    #[test]
    fn a_failure_is_found_in_a_chain_and_shows_its_cause() {
        let inner = Failure::failed("nodetool failed").hint("try again").cause(anyhow::anyhow!("exit status 1"));
        let error = Err::<(), _>(inner).context("backup b1").unwrap_err();
        assert_eq!(one_line(&error), "backup b1: nodetool failed: exit status 1");
        let found = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).unwrap();
        assert_eq!(found.hint.as_deref(), Some("try again"));
    }
}

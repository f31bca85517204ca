//! The only writer to stdout: the result and nothing else.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use serde_json::Value;

use super::args::Format;
use crate::model::pyjson;

/// Prints a command's result as text or as one JSON document.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints what the format asks for.
    pub fn print(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> anyhow::Result<()> {
        match self.format {
            Format::Text => self.text(&text()),
            Format::Json => self.text(&format!("{}\n", pyjson::printed(&json())?)),
        }
    }

    /// Prints text, and keeps it from steering a terminal.
    pub fn text(&self, text: &str) -> anyhow::Result<()> {
        let text = if io::stdout().is_terminal() { harmless(text) } else { text.into() };
        self.raw(text.as_bytes())
    }

    /// Prints bytes. A reader that has gone away is no error.
    pub fn raw(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("could not write the result to stdout"),
        }
    }
}

/// A text that does nothing to a terminal but be shown: names come from the bucket. Control characters, and those that turn
/// the direction of writing, stand as JSON writes them.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| match c {
        '\n' | '\t' => false,
        '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => c.is_control(),
    };
    if !text.contains(steers) {
        return text.into();
    }
    let shown = |c: char| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    text.chars().map(shown).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_steers_a_terminal_is_changed() {
        for text in ["", "b1 (started: …)\n\tü ☃ 100% \\u001b\n"] {
            assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(harmless("a\x1b[31m\u{9b}\r\x7f\u{202e}z\n"), "a\\u001b[31m\\u009b\\u000d\\u007f\\u202ez\n");
    }
}

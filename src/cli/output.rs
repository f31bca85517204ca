//! The only writer to stdout: the result and nothing else.

use std::io::{self, Write as _};

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
            Format::Text => self.raw(text().as_bytes()),
            Format::Json => self.raw(format!("{}\n", pyjson::printed(&json())?).as_bytes()),
        }
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

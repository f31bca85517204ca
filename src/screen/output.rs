//! The only writer to stdout: the result and nothing else.

use std::io::{self, BufRead as _, Write as _};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::Value;

use super::terminal::Terminal;
use crate::interrupt::Interrupt;
use crate::model::look::Look;
use crate::model::pyjson;

/// What stdout gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    /// For people, as cassandra-medusa prints it
    Text,
    /// One JSON document
    Json,
}

/// Prints a command's result as text or as one JSON document.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    terminal: Terminal,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format, terminal: Terminal::stdout() }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints what the format asks for.
    pub fn print(&self, text: impl FnOnce(Look) -> String, json: impl FnOnce() -> Value) -> anyhow::Result<()> {
        match self.format {
            Format::Text => self.text(&text(self.terminal.look)),
            Format::Json => self.text(&format!("{}\n", pyjson::printed(&json())?)),
        }
    }

    /// Prints text, and keeps it from steering a terminal.
    pub fn text(&self, text: &str) -> anyhow::Result<()> {
        self.raw(self.terminal.shown(text).as_bytes())
    }

    /// Prints bytes. A reader that has gone away is no error.
    pub fn raw(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("could not write the result to stdout"),
        }
    }

    /// Shows what would be done, asks whether to go on, and waits for the answer: `true` for a yes.
    pub async fn confirm(&self, plan: impl FnOnce(Look) -> String, interrupt: &Interrupt) -> anyhow::Result<bool> {
        // stdout is for the result; where that is a document, the question must not be in it.
        if self.is_json() {
            let terminal = Terminal::stderr();
            let question = format!("{}Proceed? [y/N] ", plan(terminal.look));
            let mut stderr = io::stderr().lock();
            stderr.write_all(terminal.shown(&question).as_bytes())?;
            stderr.flush()?;
        } else {
            self.text(&format!("{}Proceed? [y/N] ", plan(self.terminal.look)))?;
        }
        let read = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer).map(|_| answer)
        });
        let answer = interrupt.or(async { anyhow::Ok(read.await??) }).await?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

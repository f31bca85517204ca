//! What a terminal gets: the one place that decides on colours, widths and drawing.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use crate::model::look::{END, Look, Tone};

/// What is on the other side of stdout or stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Whether a person looks at it.
    pub is_one: bool,
    /// Whether what was written can be replaced.
    pub redraws: bool,
    pub look: Look,
}

impl Terminal {
    pub fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    pub fn stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let width = terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0));
        Self::decide(stream.is_terminal(), variable("NO_COLOR"), variable("TERM"), width)
    }

    /// `no_color`: any text but an empty one, see no-color.org.
    fn decide(is_one: bool, no_color: Option<OsString>, term: Option<OsString>, width: Option<usize>) -> Self {
        if !is_one {
            return Self::default();
        }
        let redraws = term.is_some_and(|term| term != "dumb" && !term.is_empty());
        let colours = redraws && no_color.is_none_or(|value| value.is_empty());
        Self { is_one, redraws, look: Look { width, colours } }
    }

    /// The text as it is written: on a terminal, names cannot steer it, and coloured words get their colour.
    pub fn shown(self, text: &str) -> Cow<'_, str> {
        match (self.is_one, self.look.colours) {
            (false, _) => text.into(),
            (true, false) => harmless(text),
            (true, true) => coloured(&harmless(text)).into(),
        }
    }
}

/// Whether somebody is there who can answer a question.
pub fn can_ask() -> bool {
    io::stdin().is_terminal()
}

/// Where answers come from and questions go to; stdout is for the result.
pub fn conversation() -> (io::StdinLock<'static>, io::Stderr) {
    (io::stdin().lock(), io::stderr())
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

/// Colours in place of the marks of [`Look::paint`].
fn coloured(text: &str) -> String {
    let mut coloured = String::with_capacity(text.len());
    let mut is_on = false;
    for c in text.chars() {
        let code = match c {
            _ if c == Tone::Good.mark() => "\x1b[32m",
            _ if c == Tone::Bad.mark() => "\x1b[1;31m",
            _ if c == Tone::Doubtful.mark() => "\x1b[33m",
            // A name may hold a mark and no end.
            END | '\n' if is_on => "\x1b[0m",
            _ => "",
        };
        is_on = if code.is_empty() { is_on } else { code != "\x1b[0m" };
        coloured.push_str(code);
        if code.is_empty() || c == '\n' {
            coloured.push(c);
        }
    }
    coloured
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(is_one: bool, no_color: Option<&str>, term: Option<&str>) -> Terminal {
        Terminal::decide(is_one, no_color.map(Into::into), term.map(Into::into), Some(80))
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let look = |colours| Look { width: Some(80), colours };
        let wants = decide(true, None, Some("xterm"));
        assert_eq!((wants.is_one, wants.redraws, wants.look), (true, true, look(true)));
        assert_eq!(decide(true, Some(""), Some("xterm")).look, look(true));
        let declined = decide(true, Some("1"), Some("xterm"));
        assert_eq!((declined.redraws, declined.look), (true, look(false)));
        for term in [Some("dumb"), Some(""), None] {
            let dumb = decide(true, None, term);
            assert_eq!((dumb.is_one, dumb.redraws, dumb.look), (true, false, look(false)));
        }
        // Lines for programs stay whole.
        assert_eq!(decide(false, None, Some("xterm")), Terminal::default());
    }

    #[test]
    fn only_what_steers_a_terminal_is_changed() {
        for text in ["", "b1 (started: …)\n\tü ☃ 100% \\u001b\n"] {
            assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(harmless("a\x1b[31m\u{9b}\r\x7f\u{202e}z\n"), "a\\u001b[31m\\u009b\\u000d\\u007f\\u202ez\n");
    }

    #[test]
    fn a_colour_ends_with_its_word_or_with_the_line() {
        let terminal = decide(true, None, Some("xterm"));
        let word = terminal.look.paint(Tone::Good, "ok");
        assert_eq!(terminal.shown(&format!("a {word} \x1b[7m\n")), "a \x1b[32mok\x1b[0m \\u001b[7m\n");
        assert_eq!(terminal.shown("\u{fdd1}name\nb"), "\x1b[1;31mname\x1b[0m\nb");
        assert_eq!(Terminal::default().shown("a\x1b[7m"), "a\x1b[7m");
    }
}

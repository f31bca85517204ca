//! How a text is laid out for who reads it: its width, its colours. Pure.
//!
//! Programs get whole lines without colours, which is the default. Who decides what a terminal gets is `screen::terminal`.

/// Narrower terminals are taken for this wide.
const NARROWEST: usize = 40;

/// What the reader of a text can show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Columns. `None`: lines are not broken.
    pub width: Option<usize>,
    pub colours: bool,
}

/// What a word means, which is what its colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
    /// To be looked at.
    Doubtful,
}

impl Tone {
    /// Stands before a coloured word. These characters are for internal use by definition: Unicode has nothing else for them. A
    /// name that holds one gets a colour and does nothing else.
    pub const fn mark(self) -> char {
        match self {
            Self::Good => '\u{fdd0}',
            Self::Bad => '\u{fdd1}',
            Self::Doubtful => '\u{fdd2}',
        }
    }
}

/// Stands after a coloured word.
pub const END: char = '\u{fdd3}';

pub(super) fn is_mark(c: char) -> bool {
    ('\u{fdd0}'..=END).contains(&c)
}

/// Columns that a text takes.
pub fn columns(text: &str) -> usize {
    text.chars().filter(|c| !is_mark(*c)).count()
}

impl Look {
    /// Of this width, or as wide as it gets.
    pub fn wide(width: Option<usize>) -> Self {
        Self { width, colours: false }
    }

    /// The word with its colour.
    pub fn paint(self, tone: Tone, word: &str) -> String {
        if self.colours { format!("{}{word}{END}", tone.mark()) } else { word.to_owned() }
    }

    pub(super) fn fits(self, columns: usize) -> bool {
        self.width.is_none_or(|width| columns <= width.max(NARROWEST))
    }

    /// One line, which goes on in further ones that begin with so many blanks. A word is never broken.
    pub fn folded(self, line: &str, indent: usize) -> String {
        if self.fits(columns(line)) {
            return format!("{line}\n");
        }
        // What the line begins with belongs to its first word.
        let begin = line.len() - line.trim_start().len();
        let mut words = line[begin..].split(' ');
        let mut text = format!("{}{}", &line[..begin], words.next().unwrap_or_default());
        let mut used = columns(&text);
        let mut is_new = false;
        for word in words {
            let wide = columns(word);
            // A label is not left alone.
            if !self.fits(used + 1 + wide) && used > indent {
                text.truncate(text.trim_end().len());
                text.push_str(&format!("\n{:indent$}", ""));
                (used, is_new) = (indent, true);
            } else if !is_new {
                text.push(' ');
                used += 1;
            }
            if !(is_new && word.is_empty()) {
                text.push_str(word);
                used += wide;
                is_new = false;
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    /// A text behind a label that is padded to so many columns; further lines begin below the text.
    pub fn labelled(self, label: &str, pad: usize, text: &str) -> String {
        let line = format!("  {label:<pad$} {text}");
        self.folded(&line, pad + 3)
    }

    /// A row with a remark, which gets lines of its own where both do not fit into one.
    pub fn remarked(self, row: &str, remark: &str, indent: usize) -> String {
        // The blanks at its end keep the remarks of all rows below each other.
        if !remark.is_empty() && self.fits(columns(row) + 3 + columns(remark)) {
            return format!("{row}   {remark}\n");
        }
        let row = row.trim_end();
        if remark.is_empty() {
            return format!("{row}\n");
        }
        format!("{row}\n{}", self.folded(&format!("{:indent$}{remark}", ""), indent))
    }

    /// The first line of a plan, with what has been done so far.
    pub fn headed(self, head: &str, state: &str) -> String {
        if self.fits(columns(head) + 10 + columns(state)) {
            return format!("{head}          {state}\n");
        }
        format!("{}  {state}\n", self.folded(head, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: Look = Look { width: Some(40), colours: false };

    #[test]
    fn lines_are_whole_unless_there_is_a_width() {
        let line = "  note     one two three four five six seven eight nine ten";
        assert_eq!(Look::default().folded(line, 11), format!("{line}\n"));
        assert_eq!(
            NARROW.labelled("note", 8, "one two three four five six seven eight nine ten"),
            "  note     one two three four five six\n           seven eight nine ten\n"
        );
        assert_eq!(NARROW.folded("short", 4), "short\n");
    }

    #[test]
    fn words_are_never_broken() {
        let path = "/var/lib/cassandra/data/shop/orders-34998de0e59711f1/nb-1-big-Data.db";
        let folded = NARROW.folded(&format!("    missing      {path} is gone"), 6);
        assert_eq!(folded, format!("    missing\n      {path}\n      is gone\n"));
    }

    #[test]
    fn a_remark_that_does_not_fit_has_lines_of_its_own() {
        assert_eq!(NARROW.remarked("  n1   failed  ", "no space left", 4), "  n1   failed     no space left\n");
        assert_eq!(
            NARROW.remarked("  n1   failed", "nodetool: no space left on device (snapshot)", 4),
            "  n1   failed\n    nodetool: no space left on device\n    (snapshot)\n"
        );
        assert_eq!(NARROW.remarked("  n1   ok   ", "", 4), "  n1   ok\n");
        assert_eq!(
            NARROW.headed("restore b1 of n1", "nothing was changed"),
            "restore b1 of n1\n  nothing was changed\n"
        );
    }

    #[test]
    fn colours_take_no_room() {
        let look = Look { width: Some(40), colours: true };
        let word = look.paint(Tone::Bad, "failed");
        assert_eq!(columns(&word), 6);
        assert_eq!(word, "\u{fdd1}failed\u{fdd3}");
        assert_eq!(NARROW.paint(Tone::Bad, "failed"), "failed");
    }
}

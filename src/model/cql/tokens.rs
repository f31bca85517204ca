//! The words of CQL, and how they are read one after the other.

use super::quoted;

/// One word of CQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An identifier or keyword, in the case in which it counts: lower, unless it was quoted.
    Word(String),
    /// A string or number, as written.
    Literal(&'a str),
    Symbol(char),
}

impl Token<'_> {
    pub(super) fn append_to(&self, text: &mut String) {
        match self {
            Self::Word(word) => text.push_str(word),
            Self::Literal(literal) => text.push_str(literal),
            Self::Symbol(symbol) => text.push(*symbol),
        }
    }
}

/// Splits CQL into tokens. Comments are dropped. Never fails: what is cut off ends with the text.
pub(super) struct Tokens<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    /// With the position where the token ends.
    type Item = (Token<'a>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.text[self.at..];
            let first = rest.chars().next()?;
            let token = if first.is_whitespace() {
                self.at += first.len_utf8();
                continue;
            } else if rest.starts_with("--") || rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
                continue;
            } else if let Some(comment) = rest.strip_prefix("/*") {
                self.at += comment.find("*/").map_or(rest.len(), |end| end + 4);
                continue;
            } else if let Some(body) = rest.strip_prefix("$$") {
                let length = body.find("$$").map_or(rest.len(), |end| end + 4);
                Token::Literal(self.take(length))
            } else if first == '\'' {
                let length = quoted_length(rest, '\'');
                Token::Literal(self.take(length))
            } else if first == '"' {
                let quoted = self.take(quoted_length(rest, '"'));
                let inner = quoted.strip_prefix('"').unwrap_or(quoted);
                // A name may end with a quote of its own.
                Token::Word(inner.strip_suffix('"').unwrap_or(inner).replace("\"\"", "\""))
            } else if is_word(first) {
                let word = self.take(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
                if first.is_ascii_digit() { Token::Literal(word) } else { Token::Word(word.to_lowercase()) }
            } else {
                self.at += first.len_utf8();
                Token::Symbol(first)
            };
            return Some((token, self.at));
        }
    }
}

impl<'a> Tokens<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.text[self.at..self.at + length];
        self.at += length;
        taken
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a quoted text at the beginning of `text`; a doubled quote stands for itself.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(end) = text[at..].find(quote) {
        at += end + 1;
        if !text[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// Goes through tokens.
pub(super) struct Reader<'t, 'a> {
    pub(super) tokens: &'t [Token<'a>],
    pub(super) at: usize,
}

impl<'t, 'a> Reader<'t, 'a> {
    pub(super) fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.get(self.at)
    }

    pub(super) fn next(&mut self) -> Option<&'t Token<'a>> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    pub(super) fn word(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(word) => Some(word.clone()),
            _ => None,
        }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(next)) if next == word)
    }

    pub(super) fn symbol(&mut self, symbol: char) -> Option<()> {
        (self.peek()? == &Token::Symbol(symbol)).then(|| self.at += 1)
    }

    pub(super) fn skip_if_not_exists(&mut self) {
        let words = ["if", "not", "exists"];
        let rest = &self.tokens[self.at.min(self.tokens.len())..];
        if words.iter().zip(rest).filter(|(word, token)| **token == Token::Word((**word).to_owned())).count() == 3 {
            self.at += 3;
        }
    }

    pub(super) fn skip_past(&mut self, word: &str) -> Option<()> {
        while !self.is_word(word) {
            self.next()?;
        }
        self.next().map(drop)
    }

    pub(super) fn qualified_name(&mut self) -> Option<(String, String)> {
        let keyspace = self.word()?;
        self.symbol('.')?;
        Some((keyspace, self.word()?))
    }

    /// Everything up to the parenthesis that closes this level, as one text without white space.
    pub(super) fn text_in_parentheses(&mut self) -> String {
        let mut text = String::new();
        let mut depth = 0_u32;
        while let Some(token) = self.next() {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') if depth == 0 => break,
                Token::Symbol(')') => depth -= 1,
                _ => {}
            }
            token.append_to(&mut text);
        }
        text
    }

    /// A type: everything up to a comma, closing parenthesis or property of the column, as one text without white space.
    /// Names are in quotes where they must be, so that they can be read again.
    pub(super) fn type_text(&mut self) -> String {
        let mut text = String::new();
        let mut depth = 0_u32;
        while let Some(token) = self.peek() {
            match token {
                Token::Symbol('<') => depth += 1,
                Token::Symbol('>') => depth = depth.saturating_sub(1),
                Token::Symbol(',' | ')') if depth == 0 => break,
                Token::Word(word) if depth == 0 && matches!(word.as_str(), "static" | "primary") => break,
                Token::Word(word) if depth == 0 && word == "masked" && !text.is_empty() => break,
                _ => {}
            }
            match token {
                Token::Word(word) => text.push_str(&quoted(word)),
                _ => token.append_to(&mut text),
            }
            self.at += 1;
        }
        text
    }

    /// Past `MASKED WITH function(…)`.
    pub(super) fn skip_mask(&mut self) {
        let mut depth = 0_u32;
        while let Some(token) = self.peek() {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(',' | ')') if depth == 0 => break,
                Token::Symbol(')') => depth -= 1,
                Token::Word(word) if depth == 0 && word == "primary" => break,
                _ => {}
            }
            self.at += 1;
        }
    }
}

//! A reader of INI files with the semantics of Python's `ConfigParser(interpolation=None)`, because that is what reads the
//! same file on nodes that still run cassandra-medusa.
//!
//! What surprises: keys are folded to lower case but sections are not; a more indented line continues the value before it;
//! comments are whole lines only, so that `key = p#ss ; x` keeps everything; quotes are part of the value; `[DEFAULT]` is
//! inherited by every section; a duplicate key or section is an error.

use indexmap::IndexMap;

/// Sections in the order of the file. `[DEFAULT]` is not among them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ini {
    pub sections: IndexMap<String, IndexMap<String, Entry>>,
    pub defaults: IndexMap<String, Entry>,
}

/// A value and the line (from 1) on which its key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub value: String,
    pub line: usize,
}

/// What is wrong with the file, and where. The line itself is not told: it may hold a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub struct IniError {
    pub line: usize,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    #[error("something stands before the first [section]")]
    NoSection,
    #[error("section [{section}] was already opened on line {first}")]
    DuplicateSection { section: String, first: usize },
    #[error("{key} in [{section}] was already given on line {first}")]
    DuplicateKey { section: String, key: String, first: usize },
    #[error("the line is neither `key = value` nor a [section]")]
    NotAKey,
}

const DEFAULT_SECTION: &str = "DEFAULT";

impl Ini {
    pub fn parse(text: &str) -> Result<Self, IniError> {
        let mut reader = Reader::default();
        for (index, line) in python_lines(text).into_iter().enumerate() {
            reader.line(index + 1, line)?;
        }
        Ok(reader.finish())
    }

    /// A key of a section, inherited from `[DEFAULT]` where the section has none or is not there.
    pub fn get(&self, section: &str, key: &str) -> Option<&Entry> {
        self.sections.get(section).and_then(|section| section.get(key)).or_else(|| self.defaults.get(key))
    }
}

/// Lines as Python's universal newlines see them.
fn python_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        lines.push(&rest[..end]);
        rest = &rest[end..];
        rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\n', '\r'])).unwrap_or(rest);
    }
    lines
}

/// White space as Python's `str.strip` sees it.
fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A value while it may still be continued: its lines, and the line number of its key.
type Lines = (Vec<String>, usize);

#[derive(Debug, Default)]
struct Reader {
    sections: IndexMap<String, IndexMap<String, Lines>>,
    /// Where each section was opened.
    opened: IndexMap<String, usize>,
    section: Option<String>,
    key: Option<String>,
    /// Indentation of the line that a continuation must exceed.
    indent: usize,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), IniError> {
        let content = strip(line);
        if content.starts_with(['#', ';']) {
            return Ok(());
        }
        let indent = line.chars().take_while(|c| is_python_space(*c)).count();
        if content.is_empty() || indent > self.indent {
            if let Some((lines, _)) = self.current() {
                lines.push(content.to_owned());
                return Ok(());
            }
            if content.is_empty() {
                return Ok(());
            }
        }
        self.indent = indent;
        let header = content.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')).map(|(name, _)| name);
        let outcome = match header {
            Some(section) if !section.is_empty() => self.open_section(section, number),
            _ => self.start_key(content, number),
        };
        outcome.map_err(|problem| IniError { line: number, problem })
    }

    fn current(&mut self) -> Option<&mut Lines> {
        self.sections.get_mut(self.section.as_ref()?)?.get_mut(self.key.as_ref()?)
    }

    fn open_section(&mut self, section: &str, number: usize) -> Result<(), Problem> {
        // Python lets [DEFAULT] be opened again.
        if section != DEFAULT_SECTION
            && let Some(first) = self.opened.insert(section.to_owned(), number)
        {
            return Err(Problem::DuplicateSection { section: section.to_owned(), first });
        }
        self.sections.entry(section.to_owned()).or_default();
        self.section = Some(section.to_owned());
        self.key = None;
        Ok(())
    }

    fn start_key(&mut self, content: &str, number: usize) -> Result<(), Problem> {
        let Some(section) = &self.section else {
            return Err(Problem::NoSection);
        };
        let Some((key, value)) = content.split_once(['=', ':']) else {
            return Err(Problem::NotAKey);
        };
        let key = strip(key).to_lowercase();
        if key.is_empty() {
            return Err(Problem::NotAKey);
        }
        let entries = self.sections.entry(section.clone()).or_default();
        if let Some((_, first)) = entries.get(&key) {
            return Err(Problem::DuplicateKey { section: section.clone(), key, first: *first });
        }
        entries.insert(key.clone(), (vec![strip(value).to_owned()], number));
        self.key = Some(key);
        Ok(())
    }

    fn finish(self) -> Ini {
        let mut ini = Ini::default();
        for (section, entries) in self.sections {
            let entries = entries
                .into_iter()
                .map(|(key, (lines, line))| {
                    let value = lines.join("\n").trim_end_matches(is_python_space).to_owned();
                    (key, Entry { value, line })
                })
                .collect();
            if section == DEFAULT_SECTION {
                ini.defaults = entries;
            } else {
                ini.sections.insert(section, entries);
            }
        }
        ini
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Inputs with what Python 3.11 answers; `tests/data/ini/make_cases.py` makes the file anew.
    const CASES: &str = include_str!("../../tests/data/ini/cases.json");

    #[test]
    fn every_case_is_answered_as_python_answers_it() {
        let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
        assert!(cases.len() >= 35, "only {} cases", cases.len());
        for case in cases {
            let text = case["text"].as_str().unwrap();
            match (Ini::parse(text), case.get("error").and_then(Value::as_str)) {
                (Ok(ini), None) => assert_eq!(as_python_shows(&ini), case["sections"], "{text:?}"),
                (Err(error), Some(expected)) => {
                    let kind = match error.problem {
                        Problem::NoSection => "MissingSectionHeaderError",
                        Problem::DuplicateSection { .. } => "DuplicateSectionError",
                        Problem::DuplicateKey { .. } => "DuplicateOptionError",
                        Problem::NotAKey => "ParsingError",
                    };
                    assert_eq!((kind, error.line as u64), (expected, case["line"].as_u64().unwrap()), "{text:?}");
                }
                (ours, python) => panic!("{text:?}: ours {ours:?}, Python {python:?}"),
            }
        }
    }

    /// Each section with the values that it inherits.
    fn as_python_shows(ini: &Ini) -> Value {
        let values = |section: &str| -> Value {
            let inherited = ini.defaults.keys().chain(ini.sections[section].keys());
            inherited.map(|key| (key.clone(), Value::from(ini.get(section, key).unwrap().value.clone()))).collect()
        };
        ini.sections.keys().map(|section| (section.clone(), values(section))).collect()
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_reader_panic(text in "[\\[\\]=:;# \t\r\na-cA-C\u{1c}é]{0,80}") {
            let _ = Ini::parse(&text);
        }
    }
}

//! The documentation is true where a program can tell: generated pages are those of this version, links and paths lead
//! somewhere, commands are understood, configurations are accepted. That commands do what is said: `doc_commands.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use clap::error::ErrorKind;
use medusa::cli::args::{Cli, with_long_options};

use crate::lab::project;
use crate::pages;

#[test]
fn generated_pages_are_up_to_date() {
    for page in pages::all() {
        let path = pages::path(&page);
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = stored.lines().zip(page.text.lines()).find(|(old, new)| old != new);
        assert!(stored == page.text, "{} is out of date: run make docs\n{differs:#?}", path.display());
    }
}

/// A page of the repository.
pub struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    pub fn read(path: PathBuf) -> Self {
        Self { text: std::fs::read_to_string(&path).unwrap(), path }
    }

    /// Lines with their numbers, and whether they stand in a block of code.
    pub fn lines(&self) -> impl Iterator<Item = (usize, bool, &str)> {
        let mut in_code = false;
        self.text.lines().enumerate().map(move |(number, line)| {
            let is_fence = line.trim_start().starts_with("```");
            in_code ^= is_fence;
            (number + 1, in_code || is_fence, line)
        })
    }

    pub fn name(&self) -> String {
        self.path.strip_prefix(project()).unwrap_or(&self.path).display().to_string()
    }

    /// The anchors of its headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for (_, _, line) in self.lines().filter(|(_, in_code, line)| !in_code && line.starts_with('#')) {
            let title = without_targets(line.trim_start_matches('#').trim());
            let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let anchor: String = title.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-");
            let same = (1..).map(|n| format!("{anchor}-{n}"));
            let free = std::iter::once(anchor.clone()).chain(same).find(|anchor| !anchors.contains(anchor));
            anchors.extend(free);
        }
        anchors
    }
}

/// `[text](target)` as `text`.
fn without_targets(line: &str) -> String {
    let mut text = line.to_owned();
    while let Some(start) = text.find("](") {
        let end = text[start..].find(')').map_or(text.len(), |end| start + end + 1);
        text.replace_range(start..end, "");
        text = text.replacen('[', "", 1);
    }
    text
}

/// Every page of the repository.
pub fn markdown() -> Vec<Page> {
    pages_below(&project())
}

fn pages_below(folder: &Path) -> Vec<Page> {
    let is_ours = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name.starts_with('.') || name == "target")
    };
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(is_ours);
    let paths =
        entries.map(|entry| entry.unwrap().into_path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let pages: Vec<_> = paths.map(Page::read).collect();
    assert!(pages.len() > 15, "{} pages", pages.len());
    pages
}

/// What stands between the marks in a line: every second part.
fn inline_code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_link_leads_somewhere() {
    check_links(&project());
}

/// In all pages below a folder.
pub fn check_links(folder: &Path) {
    let pages = pages_below(folder);
    let anchors: BTreeMap<_, _> = pages.iter().map(|page| (page.path.clone(), page.anchors())).collect();
    let mut broken = Vec::new();
    let mut links = 0;
    for page in &pages {
        for (number, _, line) in page.lines().filter(|(_, in_code, _)| !in_code) {
            let prose: String = line.split('`').step_by(2).collect();
            for rest in prose.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                if target.starts_with("https://") {
                    continue;
                }
                links += 1;
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
                let found = path.canonicalize().ok();
                let known = |path: &PathBuf| anchors.get(path).is_some_and(|anchors| anchors.contains(anchor));
                if !found.as_ref().is_some_and(|path| anchor.is_empty() || known(path)) {
                    broken.push(format!("{}:{number}: {target}", page.name()));
                }
            }
        }
    }
    assert!(links > 50, "{links} links");
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

/// Paths that are named in the text, from the project's folder, from `src`, `tests` or beside the page.
#[test]
fn every_named_file_is_there() {
    let mut missing = Vec::new();
    let mut seen = 0;
    for page in markdown() {
        for (number, _, line) in page.lines().filter(|(_, in_code, _)| !in_code) {
            for name in inline_code(line).filter(|name| is_path(name)) {
                seen += 1;
                let beside = page.path.parent().unwrap();
                let places =
                    [&project(), &project().join("src"), &project().join("tests"), &project().join("tests/it"), beside];
                if !places.iter().any(|place| place.join(name).exists()) {
                    missing.push(format!("{}:{number}: {name}", page.name()));
                }
            }
        }
    }
    assert!(seen > 50, "{seen} paths");
    assert!(missing.is_empty(), "these files are not there:\n{}", missing.join("\n"));
}

fn is_path(text: &str) -> bool {
    let is_plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c));
    let ends = [".rs", ".md", ".sh", ".toml", ".example.ini"];
    is_plain
        && text.contains('/')
        && !text.starts_with('/')
        && !text.starts_with('.')
        && ends.iter().any(|end| text.ends_with(end))
}

/// The words of a command of ours in a line of code: `$ medusa …`, `sudo -u cassandra medusa …`, `sudo medusa …`, without what follows it.
pub fn command(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start();
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let line = ["sudo -u cassandra ", "sudo "].iter().find_map(|user| line.strip_prefix(user)).unwrap_or(line);
    if !line.starts_with("medusa ") {
        return None;
    }
    let words = shell_words::split(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let is_end = |word: &String| matches!(word.as_str(), "|" | ">" | "&&" | ";") || word.starts_with('#');
    Some(words.into_iter().take_while(|word| !is_end(word)).collect())
}

fn parse(words: &[String]) -> Result<(), clap::Error> {
    let outcome = Cli::try_parse_from(with_long_options(words.iter().map(OsString::from)));
    match outcome {
        Err(error) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Err(error),
        _ => Ok(()),
    }
}

#[test]
fn every_command_is_understood() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in markdown() {
        for (number, in_code, line) in page.lines() {
            let place = format!("{}:{number}", page.name());
            if in_code {
                // The usage lines of docs/cli.md are those of clap.
                let Some(words) = command(line).filter(|_| !line.contains("[OPTIONS]")) else { continue };
                seen += 1;
                wrong.extend(parse(&words).err().map(|error| format!("{place}: {line}\n{error}")));
                continue;
            }
            // In a sentence a command may be shortened, but not be another one.
            for code in inline_code(line).filter(|code| !code.contains(['…', '<', '[']) && !code.contains("COMMAND"))
            {
                let Some(words) = command(code) else { continue };
                seen += 1;
                let error = parse(&words).err().filter(|error| error.kind() != ErrorKind::MissingRequiredArgument);
                wrong.extend(error.map(|error| format!("{place}: {code}\n{error}")));
            }
        }
    }
    assert!(seen > 80, "{seen} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The smallest configurations of the pages can be loaded.
#[test]
fn every_shown_configuration_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let ini = folder.path().join("medusa.ini");
    let mut seen = 0;
    for page in markdown() {
        let mut current: Option<String> = None;
        for (number, _, line) in page.lines() {
            if line.trim() == "```ini" {
                current = Some(String::new());
            } else if line.trim() == "```" {
                // Other programs have files of this form, too.
                let Some(text) = current.take().filter(|text| is_of_medusa(text)) else { continue };
                seen += 1;
                std::fs::write(&ini, completed(&text)).unwrap();
                let config = medusa::config::Config::load(Some(Path::new(&ini)), &medusa::config::Overrides::default());
                let place = format!("{}, before line {number}", page.name());
                let config = config.unwrap_or_else(|error| panic!("{place}: {error}\n{text}"));
                assert!(config.values.warnings.is_empty(), "{place}: {:?}", config.values.warnings);
            } else if let Some(text) = &mut current {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(seen >= 5, "{seen} configurations");
}

fn is_of_medusa(text: &str) -> bool {
    let section = |line: &str| Some(line.strip_prefix('[')?.strip_suffix(']')?.to_owned());
    text.lines().find_map(section).is_some_and(|section| medusa::config::keys::is_section(&section))
}

/// A part of a configuration, with what every configuration needs.
fn completed(text: &str) -> String {
    if text.contains("storage_provider") {
        return text.to_owned();
    }
    let storage = "storage_provider = local\nbase_path = /mnt/backups\nbucket_name = prod\n";
    match text.split_once("[storage]\n") {
        Some((before, after)) => format!("{before}[storage]\n{storage}{after}"),
        None => format!("[storage]\n{storage}{text}"),
    }
}

//! The pages that are made of the program: `docs/cli.md` of the definition of the command line, `docs/configuration.md` of
//! `medusa.example.ini` and the table of keys. Nothing is listed here by hand.

#![allow(unreachable_pub, reason = "a tool and a test use it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory as _};
use medusa::cli::args::Cli;
use medusa::config::keys::{self, Key, Kind};
use medusa::config::{Overrides, values};

const NOTE: &str = "<!-- Made by `make docs`. Do not edit: a test compares this page with the program. -->\n";

pub struct Page {
    /// Below `docs/`.
    pub name: &'static str,
    pub text: String,
}

pub fn all() -> [Page; 2] {
    [Page { name: "cli.md", text: cli() }, Page { name: "configuration.md", text: configuration() }]
}

pub fn path(page: &Page) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page.name)
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn cli() -> String {
    let mut program = Cli::command();
    program.build();
    let commands: Vec<&Command> = program.get_subcommands().filter(|command| is_ours(command)).collect();
    let mut text = format!("{NOTE}# Commands\n\n");
    text += "`medusa COMMAND --help` says the same. Exit codes are in [README.md](../README.md#exit-codes), the documents of \
             `--output json` in [schemas](schemas/README.md).\n\n";
    text += "| command | |\n|---|---|\n";
    for command in &commands {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "| [`{name}`](#medusa-{name}) | {} |", cell(&about));
    }
    text += "\n## Global options\n\nThey stand before or after the command.\n\n";
    text += &options(&program, Arg::is_global_set);
    for command in commands {
        let name = command.get_name();
        let _ = writeln!(text, "\n## medusa {name}\n");
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "{}\n", about.replace('<', "&lt;"));
        let aliases: Vec<_> = command.get_visible_aliases().map(code).collect();
        if !aliases.is_empty() {
            let _ = writeln!(text, "Also called {}.\n", aliases.join(", "));
        }
        let usage = command.clone().render_usage().to_string();
        let _ = writeln!(text, "```text\n{}\n```\n", usage.trim_start_matches("Usage: "));
        text += &options(command, |argument| !argument.is_global_set());
    }
    text
}

fn is_ours(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

/// Tables of arguments: those without a heading first, then each heading with its own.
fn options(command: &Command, wanted: impl Fn(&Arg) -> bool) -> String {
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| wanted(argument) && !argument.is_hide_set())
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        .collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for argument in &arguments {
        if !headings.contains(&argument.get_help_heading()) {
            headings.push(argument.get_help_heading());
        }
    }
    headings.sort_by_key(Option::is_some);
    let mut text = String::new();
    for heading in headings {
        if let Some(heading) = heading.filter(|_| text.lines().count() > 0) {
            let _ = writeln!(text, "\n{heading}:\n");
        }
        text += "| option | default | |\n|---|---|---|\n";
        for argument in arguments.iter().filter(|argument| argument.get_help_heading() == heading) {
            text += &row(argument);
        }
    }
    text
}

fn row(argument: &Arg) -> String {
    let takes_value = argument.get_action().takes_values();
    let names = argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>();
    let long = argument.get_long_and_visible_aliases().unwrap_or_default();
    let short = argument.get_short_and_visible_aliases().unwrap_or_default();
    let mut spellings: Vec<String> = short.iter().map(|short| format!("-{short}")).collect();
    spellings.extend(long.iter().map(|long| format!("--{long}")));
    let mut name = spellings.iter().map(|spelling| code(spelling)).collect::<Vec<_>>().join(", ");
    if spellings.is_empty() {
        name = code(&names.join(" "));
    } else if takes_value {
        name = format!("{name} {}", code(&names.join(" ")));
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| code(&value.to_string_lossy()))
        .filter(|_| takes_value)
        .collect();
    let default = if argument.is_required_set() { "must be given".to_owned() } else { defaults.join(" ") };
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut help = cell(&help);
    let choices: Vec<_> = argument.get_possible_values().iter().map(|value| code(value.get_name())).collect();
    if takes_value && !choices.is_empty() {
        let _ = write!(help, ": {}", choices.join(", "));
    }
    format!("| {name} | {default} | {help} |\n")
}

/// A part of the example: a comment, and the keys that it is about.
struct Group {
    comment: String,
    /// Name, and the value of the example.
    keys: Vec<(String, String)>,
}

fn configuration() -> String {
    let mut text = format!("{NOTE}# medusa.ini\n\n");
    text += "`/etc/medusa/medusa.ini`, or what `--config-file` names. [medusa.example.ini](../medusa.example.ini) has the same keys \
             as a file to begin with; `medusa config` shows what is in effect and where each value comes from. The storage \
             [guides](storage/README.md) say more about `[storage]`, [differences.md](differences.md#configuration) what \
             cassandra-medusa does otherwise.\n\n";
    text += "Sizes take the units B, KB, MB, GB, TB, PB, powers of 1024. Where several sources give a value, the last of these wins: \
             default, file, option of the command line, variable of the environment, file of Kubernetes. An unknown key or section is \
             a warning, a value of the wrong kind ends every command (exit code 2). An empty value is as if the line were not there, except for \
             texts and commands that may be empty.\n";
    for (section, groups) in sections(include_str!("../../medusa.example.ini")) {
        let _ = writeln!(text, "\n## [{section}]\n");
        let (about, groups): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.keys.is_empty());
        for group in about {
            let _ = writeln!(text, "{}\n", group.comment.replace('<', "&lt;"));
        }
        text += "| key | kind | default | |\n|---|---|---|---|\n";
        for group in groups {
            let rows: Vec<_> = group.keys.iter().map(|(name, value)| key_cells(&section, name, value)).collect();
            let column =
                |of: fn(&[String; 3]) -> &String| rows.iter().map(of).cloned().collect::<Vec<_>>().join("<br>");
            let [names, kinds, defaults] = [column(|row| &row[0]), column(|row| &row[1]), column(|row| &row[2])];
            let _ = writeln!(text, "| {names} | {kinds} | {defaults} | {} |", cell(&group.comment));
        }
    }
    text += "\n## Options and variables that go before the file\n\n| key | option | variable |\n|---|---|---|\n";
    for ((section, name), [option, variable]) in overridden() {
        let _ = writeln!(text, "| `[{section}] {name}` | {option} | {variable} |");
    }
    text
}

/// Name, kind and default of a key.
fn key_cells(section: &str, name: &str, example: &str) -> [String; 3] {
    let key = keys::find(section, &name.to_lowercase()).unwrap_or_else(|| panic!("{name} is no key of [{section}]"));
    let default = match key.default {
        Some("") => "empty".to_owned(),
        Some(default) => code(default),
        None => format!("not set, e.g. {}", code(example)),
    };
    [code(name), kind(key), default]
}

fn kind(key: &Key) -> String {
    match key.kind {
        Kind::Text | Kind::Unused => "text".to_owned(),
        Kind::Words => "words".to_owned(),
        Kind::Secret => "secret".to_owned(),
        Kind::Flag => "`True`, `False`".to_owned(),
        Kind::Number | Kind::Limit => "number".to_owned(),
        Kind::Seconds => "seconds".to_owned(),
        Kind::Size | Kind::Rate => "size".to_owned(),
        Kind::Choice(choices) => choices.iter().map(|choice| code(choice)).collect::<Vec<_>>().join(", "),
    }
}

/// The sections of the example in their order. A comment holds for the keys below it, up to an empty line or the next
/// comment; one that no key follows is about the section.
fn sections(example: &str) -> Vec<(String, Vec<Group>)> {
    let mut sections: Vec<(String, Vec<Group>)> = Vec::new();
    let mut comment_ended = true;
    for line in example.lines() {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((section.to_owned(), Vec::new()));
            comment_ended = true;
            continue;
        }
        // What stands above the first section is about the file.
        let Some((section, groups)) = sections.last_mut() else { continue };
        if let Some(comment) = line.strip_prefix("; ") {
            match groups.last_mut().filter(|_| !comment_ended) {
                Some(group) => group.comment = format!("{} {comment}", group.comment),
                None => groups.push(Group { comment: comment.to_owned(), keys: Vec::new() }),
            }
            comment_ended = false;
        } else if let Some((key, value)) = line.trim_start_matches(';').split_once('=') {
            let group = groups.last_mut().unwrap_or_else(|| panic!("{key} of [{section}] has no comment"));
            group.keys.push((key.trim().to_owned(), value.trim().to_owned()));
            comment_ended = true;
        } else {
            comment_ended = true;
        }
    }
    sections
}

/// What may give a key another value than the file does.
fn overridden() -> BTreeMap<(&'static str, &'static str), [String; 2]> {
    let mut all: BTreeMap<_, [String; 2]> = BTreeMap::new();
    for (section, name, option) in Overrides::options() {
        all.entry((section, name)).or_default()[0] = code(option);
    }
    for name in values::OF_ENVIRONMENT {
        all.entry(("cassandra", name)).or_default()[1] = code(&values::variable(name));
    }
    all
}

//! The text of a new medusa.ini: the example with its comments, in which only what was decided is set.

use crate::config::keys;
use crate::error::Failure;

/// The only source of every comment and default.
const EXAMPLE: &str = include_str!("../../medusa.example.ini");

/// What the example says from here on holds for every medusa.ini.
const GENERAL: &str = "; Comments are whole lines";

/// A key that is set, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub section: String,
    /// In lower case.
    pub key: String,
    pub value: String,
}

impl Setting {
    pub fn new(section: &str, key: &str, value: impl Into<String>) -> Self {
        Self { section: section.to_owned(), key: key.to_owned(), value: value.into() }
    }

    /// From `section.key=value`.
    ///
    /// # Errors
    /// A key that is not known, or a secret: a command line can be seen by everybody.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let parts = text.split_once('=').and_then(|(name, value)| Some((name.split_once('.')?, value)));
        let Some(((section, key), value)) = parts else {
            return Err(Failure::usage("--set takes SECTION.KEY=VALUE, for example storage.max_backup_age=30"));
        };
        let setting = Self::new(section.trim(), &key.trim().to_lowercase(), value.trim());
        match keys::find(&setting.section, &setting.key) {
            None => Err(Failure::usage(format!("there is no key {} in [{}]", setting.key, setting.section))
                .hint("medusa.example.ini has every key")),
            Some(key) if key.kind == keys::Kind::Secret => {
                Err(Failure::usage(format!("{} is a secret, and a command line can be seen by everybody", key.name))
                    .hint("write it into the file afterwards, or give it by the environment or a file of its own"))
            }
            Some(_) if setting.value.contains(['\n', '\r']) => {
                Err(Failure::usage(format!("the value of {} has several lines", setting.key)))
            }
            Some(_) => Ok(setting),
        }
    }
}

/// The whole file. Every key that is not among the settings is commented out.
pub fn fill(settings: &[Setting]) -> String {
    let mut text = format!(
        "; medusa.ini of this node, written by medusa init {}.\n;\n\
         ; A line that starts with `;key = …` (no blank after the semicolon) is not in effect: it shows the default, or an example\n\
         ; where there is none.\n",
        env!("CARGO_PKG_VERSION")
    );
    let body = EXAMPLE.find(GENERAL).map_or(EXAMPLE, |at| &EXAMPLE[at..]);
    let mut section = "";
    for line in body.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        }
        match key_of(section, line) {
            None => text.push_str(line),
            Some(key) => {
                let is_it = |setting: &&Setting| setting.section == section && setting.key == key.to_lowercase();
                match settings.iter().rev().find(is_it) {
                    Some(setting) => text.push_str(&format!("{key} = {}", setting.value)),
                    None if line.starts_with(';') => text.push_str(line),
                    None => text.push_str(&format!(";{line}")),
                }
            }
        }
        text.push('\n');
    }
    text
}

/// The key of a line that sets one, or shows how.
fn key_of<'a>(section: &str, line: &'a str) -> Option<&'a str> {
    let (key, _) = line.strip_prefix(';').unwrap_or(line).split_once(" =")?;
    keys::find(section, &key.to_lowercase()).map(|_| key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::ini::Ini;
    use crate::config::{Config, Overrides};

    #[test]
    fn only_what_is_set_is_in_effect() {
        let settings = [
            Setting::new("storage", "storage_provider", "s3_eu_west"),
            Setting::new("storage", "bucket_name", "backups"),
            Setting::new("ssh", "key_file", "/keys/id"),
            Setting::new("logging", "maxbytes", "1MB"),
        ];
        let text = fill(&settings);
        let ini = Ini::parse(&text).unwrap();
        let set: Vec<_> = ini
            .sections
            .iter()
            .flat_map(|(section, keys)| keys.iter().map(move |(key, entry)| format!("{section}.{key} {}", entry.value)))
            .collect();
        assert_eq!(
            set,
            [
                "storage.storage_provider s3_eu_west",
                "storage.bucket_name backups",
                "ssh.key_file /keys/id",
                "logging.maxbytes 1MB"
            ]
        );
        let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
        assert_eq!(config.values.warnings, Vec::<String>::new());
        // Defaults and comments are those of the example.
        for line in [";read_timeout = 60", ";prefix = cluster1", "maxBytes = 1MB", ";username =", GENERAL] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line}");
        }
    }

    #[test]
    fn every_key_of_the_example_can_be_set() {
        let known: Vec<_> =
            keys::KEYS.iter().filter(|key| EXAMPLE.contains(key.name) || key.section == "logging").collect();
        let settings: Vec<_> = known.iter().map(|key| Setting::new(key.section, key.name, "7")).collect();
        let ini = Ini::parse(&fill(&settings)).unwrap();
        for Setting { section, key, .. } in &settings {
            assert_eq!(ini.get(section, key).map(|entry| entry.value.as_str()), Some("7"), "{section}.{key}");
        }
        assert!(settings.len() > 100);
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let setting = Setting::parse("storage.Max_Backup_Age = 30").unwrap();
        assert_eq!(setting, Setting::new("storage", "max_backup_age", "30"));
        for (text, part) in [
            ("max_backup_age=30", "SECTION.KEY=VALUE"),
            ("storage.max_age=30", "no key max_age in [storage]"),
            ("cassandra.cql_password=hunter2", "is a secret"),
            ("storage.prefix=a\n[cassandra]", "several lines"),
        ] {
            let failure = Setting::parse(text).unwrap_err();
            assert!(failure.message.contains(part) && !failure.message.contains("hunter2"), "{failure:?}");
        }
    }
}

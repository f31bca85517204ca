//! `config`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Map, Value as Json, json};

use crate::config::values::{Origin, Value, Values};
use crate::context::Context;
use crate::screen::output::Output;

/// Prints the effective configuration and where each value comes from
///
/// Secrets are shown as ****.
#[derive(Debug, Args)]
pub struct ConfigArgs {}

impl ConfigArgs {
    pub fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let mut values = context.config.values.clone();
        values.set("storage", "fqdn", context.fqdn.as_str(), context.fqdn_origin.clone());
        output.print(|_| text(&values), || document(context, &values))
    }
}

/// An INI file that another medusa could read, with the origins as comments.
fn text(values: &Values) -> String {
    let mut text = String::new();
    let mut section = "";
    for (key, value) in values.iter() {
        if key.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = key.section;
            let _ = writeln!(text, "{gap}[{section}]");
        }
        let _ = match Values::shown(key, value) {
            // A value of several lines is continued by indented ones.
            Some(shown) => writeln!(text, "; {}\n{} = {}", value.origin, key.name, shown.replace('\n', "\n    ")),
            None => writeln!(text, ";{} is not set", key.name),
        };
    }
    text
}

fn document(context: &Context, values: &Values) -> Json {
    let mut sections: Map<String, Json> = Map::new();
    for (key, value) in values.iter() {
        let section = sections.entry(key.section).or_insert_with(|| json!({}));
        section[key.name] = json!({ "value": Values::shown(key, value), "origin": origin(value) });
    }
    json!({ "version": 1, "file": context.config.path, "sections": sections })
}

fn origin(value: &Value) -> Json {
    match &value.origin {
        Origin::Unset => Json::Null,
        origin => origin.to_string().into(),
    }
}

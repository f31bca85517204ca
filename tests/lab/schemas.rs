//! What medusa prints as JSON, against `docs/schemas`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// The schema of one command.
pub struct Schema {
    pub document: Value,
    /// The forms of which a document has exactly one.
    forms: BTreeMap<String, Validator>,
}

/// All schemas, by command.
pub fn all() -> &'static BTreeMap<String, Schema> {
    static SCHEMAS: OnceLock<BTreeMap<String, Schema>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let files = std::fs::read_dir(super::project().join("docs/schemas")).unwrap();
        let paths = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        let schema = |path: std::path::PathBuf| {
            let document = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), Schema::new(document))
        };
        paths.map(schema).collect()
    })
}

impl Schema {
    fn new(document: Value) -> Self {
        let form = |form: &Value| {
            let name = form["$ref"].as_str().unwrap().strip_prefix("#/$defs/").unwrap().to_owned();
            let one = json!({ "$schema": document["$schema"], "$ref": form["$ref"], "$defs": document["$defs"] });
            (name, jsonschema::validator_for(&one).unwrap())
        };
        let forms = document["oneOf"].as_array().unwrap().iter().map(form).collect();
        Self { document, forms }
    }

    pub fn forms(&self) -> impl Iterator<Item = &str> {
        self.forms.keys().map(String::as_str)
    }

    /// The form that a document has.
    ///
    /// # Errors
    /// What keeps it from having any.
    pub fn form_of(&self, document: &Value) -> Result<&str, String> {
        let fitting: Vec<_> = self.forms.iter().filter(|(_, form)| form.is_valid(document)).collect();
        match fitting[..] {
            [(name, _)] => Ok(name),
            [] => Err(self.faults(document)),
            _ => Err("more than one form fits".to_owned()),
        }
    }

    fn faults(&self, document: &Value) -> String {
        let fault = |(name, form): (&String, &Validator)| {
            let faults =
                form.iter_errors(document).map(|error| format!("\n  as {name}: {}: {error}", error.instance_path()));
            faults.collect::<String>()
        };
        self.forms.iter().map(fault).collect()
    }
}

/// The command of a run that was asked for JSON, if it has a schema.
pub fn command_of<'a>(arguments: &[&'a str]) -> Option<&'a str> {
    let is_json = arguments.windows(2).any(|two| ["--output", "-o"].contains(&two[0]) && two[1] == "json")
        || arguments.contains(&"--output=json");
    let name = |word: &&'a str| if *word == "backup" { "backup-node" } else { word };
    is_json.then(|| arguments.iter().map(name).find(|word| all().contains_key(*word))).flatten()
}

/// What was printed is what the schema of the command says. A run that printed nothing has failed, or nobody read it.
#[track_caller]
pub fn check(arguments: &[&str], stdout: &str) {
    let Some(command) = command_of(arguments) else { return };
    if stdout.is_empty() {
        return;
    }
    let document: Value =
        serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"));
    if let Err(faults) = all()[command].form_of(&document) {
        panic!("{arguments:?} does not print what docs/schemas/{command}.json says:{faults}\n{stdout}");
    }
}

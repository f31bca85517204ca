//! Access to the objects of a store beside medusa, by the store's own Python library: the tests must not see a bucket through
//! the code that they test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::lab::{cache, project};

/// A Python process that answers calls line by line. It ends when its input does.
#[derive(Debug)]
pub struct Helper {
    script: &'static str,
    /// How the script reaches the server.
    access: Value,
    process: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Helper {
    /// For a script of `tests/lab/stores`. It is started by the first call.
    pub fn new(script: &'static str, access: Value) -> Self {
        Self { script, access, process: Mutex::default() }
    }

    /// What a function of the script returns.
    #[track_caller]
    pub fn call(&self, function: &str, arguments: &Value) -> Value {
        self.attempt(function, arguments).unwrap_or_else(|error| panic!("{function} {arguments}: {error}"))
    }

    /// What a function of the script returns.
    ///
    /// # Errors
    /// What it raised.
    pub fn attempt(&self, function: &str, arguments: &Value) -> Result<Value, String> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let running = process.get_or_insert_with(|| self.start());
        writeln!(running.calls, "{}", json!([function, arguments])).unwrap();
        let mut line = String::new();
        running.answers.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    fn start(&self) -> Running {
        let mut child = Command::new(cache("peer/bin/python"))
            .arg("-B")
            .arg(project().join("tests/lab/stores").join(self.script))
            .arg(self.access.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (calls, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Running { child, calls, answers: BufReader::new(answers) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

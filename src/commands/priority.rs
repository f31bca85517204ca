//! A backup gives way to Cassandra: lowest CPU priority, idle disk priority. As in Medusa, a failure is only a warning.

use std::process::{Command, Stdio};

use crate::config::secret;

/// Lowers the priority of this process. Threads that are started later inherit it.
pub fn lower() {
    let pid = std::process::id().to_string();
    for (program, arguments) in [("ionice", ["-c", "3", "-p"]), ("renice", ["-n", "19", "-p"])] {
        let mut command = Command::new(program);
        for variable in secret::VARIABLES {
            command.env_remove(variable);
        }
        match command.args(arguments).arg(&pid).stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!("{program} failed ({status}); the backup runs with normal priority"),
            Err(error) => tracing::warn!("{program} could not be run ({error}); the backup runs with normal priority"),
        }
    }
}

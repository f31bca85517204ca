//! What people see, and what programs read: stdout, stderr, and the file of `[logging]`. No decisions on anything else.

pub mod logging;
pub mod output;
pub mod progress;
pub mod report;
pub mod terminal;

//! Running programs, here and on other hosts. Every run has a deadline, and a password never stands in an argument.

pub mod command;
pub mod job;
pub mod ssh;
mod ssh_error;

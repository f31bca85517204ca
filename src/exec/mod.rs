//! Running programs. Every run has a deadline, and a password never stands in an argument.

pub mod command;

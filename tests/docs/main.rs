//! Writes the pages of `docs/` that are made of the program: `make docs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is a tool of the project")]

mod pages;

fn main() {
    for page in pages::all() {
        let path = pages::path(&page);
        std::fs::write(&path, page.text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("{}", path.display());
    }
}

#!/bin/sh
# Builds the program without hashes, digest checks and conditional creates, to measure what they cost. It must never be
# installed: it stores without looking. Prints where it lies.
set -eu
project=$(cd "$(dirname "$0")/.." && pwd)
copy=$project/target/unchecked
mkdir -p "$copy"
rm -rf "$copy/src" "$copy/packaging"
# What the sources include.
cp -r "$project/src" "$project/Cargo.toml" "$project/Cargo.lock" "$project/packaging" "$project/medusa.example.ini" "$copy/"
mkdir -p "$copy/benches" "$copy/examples" "$copy/tests/it"
cp -r "$project/benches" "$project/tests" "$copy/"
GIT_CEILING_DIRECTORIES=$project/target git -C "$copy" apply "$project/benches/unchecked.patch"
CARGO_TARGET_DIR=$copy/target cargo build --release --locked --bin medusa --manifest-path "$copy/Cargo.toml" >&2
echo "$copy/target/release/medusa"

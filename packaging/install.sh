#!/bin/sh
# Installs medusa: program, medusa-wrapper, man pages, completions, systemd units, documentation with the example
# configuration, dashboard and alerts.
#
#   packaging/install.sh [PROGRAM]      PROGRAM: default target/release/medusa
#
# PREFIX   default /usr/local
# DESTDIR  put before every path, for making packages
# ZSH_DIR  where zsh looks for completions, below PREFIX; default share/zsh/site-functions
#
# Nothing below /etc is written and no unit is enabled.
set -eu
cd "$(dirname "$0")/.."
program=${1:-target/release/medusa}
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix

if [ ! -x "$program" ]; then
    echo "install.sh: $program is not there. Build it first: make" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# put FILE… FOLDER: readable files below the prefix.
put() {
    for folder; do :; done
    install -d "$root/$folder"
    while [ $# -gt 1 ]; do
        install -m 0644 "$1" "$root/$folder"
        shift
    done
}

mkdir "$work/man" "$work/units"
"$program" man-pages "$work/man"
gzip -9n "$work"/man/*.1
"$program" completions bash >"$work/medusa"
"$program" completions zsh >"$work/_medusa"
"$program" completions fish >"$work/medusa.fish"
for unit in packaging/systemd/*.service packaging/systemd/*.timer; do
    sed "s|/usr/local/bin/|$prefix/bin/|" "$unit" >"$work/units/${unit##*/}"
done

install -D -m 0755 "$program" "$root/bin/medusa"
install -m 0755 packaging/medusa-wrapper "$root/bin/medusa-wrapper"
put "$work"/man/*.1.gz share/man/man1
put "$work/medusa" share/bash-completion/completions
put "$work/_medusa" "${ZSH_DIR:-share/zsh/site-functions}"
put "$work/medusa.fish" share/fish/vendor_completions.d
put "$work"/units/* lib/systemd/system
# "medusa-.service.d" holds for every medusa-….service.
put packaging/systemd/common.conf lib/systemd/system/medusa.service.d
put packaging/systemd/common.conf lib/systemd/system/medusa-.service.d
put README.md CONTRIBUTING.md CHANGELOG.md LICENSE medusa.example.ini share/doc/medusa
put packaging/README.md share/doc/medusa/packaging
put docs/*.md share/doc/medusa/docs
put docs/decisions/*.md share/doc/medusa/docs/decisions
put docs/storage/*.md share/doc/medusa/docs/storage
put docs/screens/* share/doc/medusa/docs/screens
put docs/schemas/* share/doc/medusa/docs/schemas
put packaging/grafana/medusa.json share/doc/medusa/grafana
put packaging/prometheus/medusa.rules.yml share/doc/medusa/prometheus
echo "installed to $root"

#!/bin/sh
# Installs medusa: program, man pages, completions, systemd units, the example configuration, dashboard and alerts.
#
#   packaging/install.sh [PROGRAM]      PROGRAM: default target/release/medusa
#
# PREFIX   default /usr/local
# DESTDIR  put before every path, for making packages
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

mkdir "$work/man"
"$program" man-pages "$work/man"
for shell in bash zsh fish; do
    "$program" completions "$shell" >"$work/$shell"
done
for unit in medusa.service medusa.timer; do
    sed "s|/usr/local/bin/|$prefix/bin/|" "packaging/$unit" >"$work/$unit"
done

install -D -m 0755 "$program" "$root/bin/medusa"
install -d "$root/share/man/man1"
install -m 0644 "$work"/man/*.1 "$root/share/man/man1"
install -D -m 0644 "$work/bash" "$root/share/bash-completion/completions/medusa"
install -D -m 0644 "$work/zsh" "$root/share/zsh/site-functions/_medusa"
install -D -m 0644 "$work/fish" "$root/share/fish/vendor_completions.d/medusa.fish"
install -D -m 0644 "$work/medusa.service" "$root/lib/systemd/system/medusa.service"
install -D -m 0644 "$work/medusa.timer" "$root/lib/systemd/system/medusa.timer"
install -D -m 0644 medusa.example.ini "$root/share/doc/medusa/medusa.example.ini"
install -D -m 0644 packaging/grafana/medusa.json "$root/share/doc/medusa/grafana/medusa.json"
install -D -m 0644 packaging/prometheus/medusa.rules.yml "$root/share/doc/medusa/prometheus/medusa.rules.yml"
echo "installed to $root"

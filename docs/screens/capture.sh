#!/bin/sh
# What a person sees, as text: each command in a terminal of tmux, 80 and 160 columns wide.
#
#   make screens          starts a small cluster, and runs this with the variables below
#   capture.sh FOLDER     MEDUSA, NODE_INI, CLUSTER_INI, DAMAGED_INI (configurations) and JOBS (a folder) must be set
#
# Addresses, times, sizes and folders are those of the run; look at what changed before it is handed over.
set -eu
command -v tmux >/dev/null || {
    echo "capture.sh: tmux is not there. On Debian: apt-get install tmux" >&2
    exit 1
}
folder=$1
socket=medusa-screens-$$
trap 'tmux -L "$socket" kill-server 2>/dev/null || true' EXIT

# capture NAME INI ARGUMENTS...
capture() {
    name=$1 ini=$2
    shift 2
    for width in 80 160; do
        file=$folder/$name.$width.txt
        words=
        for word; do words="$words '$(printf %s "$word" | sed "s/@/$width/g")'"; done
        shown=$(printf %s "$words" | tr -d "'")
        # Typed where a person would type it; `; tmux wait-for` says when it has ended.
        tmux -L "$socket" -f /dev/null new-session -d -x "$width" -y 200 \
            "env -u COLUMNS TERM=screen TZ=UTC '$MEDUSA' --config-file '$ini' $words; printf 'exit code %s\n' \$?; tmux -L '$socket' wait-for -S done; sleep 60"
        tmux -L "$socket" wait-for done
        # -J would join what the terminal broke; the picture is what is seen.
        {
            printf '$ medusa%s\n' "$shown"
            tmux -L "$socket" capture-pane -p -S -2000
        } | sed -e 's/[ ]*$//' | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$file"
        tmux -L "$socket" kill-server
    done
}

capture backup-node "$NODE_INI" backup-node --backup-name nightly-0414-@
capture list-backups "$NODE_INI" list-backups
capture status "$NODE_INI" status --backup-name nightly-0413
capture verify "$DAMAGED_INI" verify --backup-name nightly-0412 --read-data
capture restore-cluster "$CLUSTER_INI" restore-cluster --backup-name nightly-0412 --temp-dir "$JOBS" --dry-run
capture doctor "$NODE_INI" doctor

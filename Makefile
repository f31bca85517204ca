# make demo   the main job on a real Cassandra: back up, destroy, restore, compare
# make demo-cluster  the same with three nodes, by ssh
# make screens  what people see, as text: docs/screens
# make test   all tests
# make lint   format, clippy, documentation, licences
# make dist   deb and rpm, in target/dist
# make docs   the pages of docs/ that are made of the program: cli.md, configuration.md
# make bench  speed, side by side with cp -r, rclone and cassandra-medusa
# make schedules  a million random interleavings
# make large  a file of 200 GiB goes up in parts

CARGO ?= cargo
DENY := .cache/tools/bin/cargo-deny
# Tests boot Cassandra nodes of about 0.9 GiB each.
TEST_THREADS ?= 4

.PHONY: all setup demo demo-cluster screens test tests-built docs schedules large lint linted dist bench audit clean

all:
	$(CARGO) build --release --locked

setup:
	tests/lab/setup.sh

demo: setup
	$(CARGO) build --locked --bin medusa --example demo
	$(CARGO) run --quiet --locked --example demo

demo-cluster: setup
	$(CARGO) build --locked --bin medusa --example demo-cluster
	$(CARGO) run --quiet --locked --example demo-cluster

screens: setup
	$(CARGO) build --locked --bin medusa --example screens
	LAB_FOLDER=/tmp/lab $(CARGO) run --quiet --locked --example screens

# What needs the network and what needs the compiler, beside each other. Where there is no compiler, the lab brings one.
# The message of a failure says where and why; backtraces of dozens of frames hide it.
test: export RUST_BACKTRACE = 0
test:
	command -v cc >/dev/null || tests/lab/setup.sh
	$(MAKE) -j2 setup tests-built
	$(CARGO) test --locked --lib
	$(CARGO) test --locked --test it -- --show-output --test-threads=$(TEST_THREADS)

tests-built:
	$(CARGO) test --locked --lib --test it --no-run

docs:
	$(CARGO) run --quiet --locked --example docs

lint:
	$(CARGO) fmt --check
	$(MAKE) -j2 linted $(DENY)
	$(DENY) --locked check bans licenses sources

linted:
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

# The database of advisories lies on GitHub.
audit: $(DENY)
	$(DENY) --locked check advisories

$(DENY):
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --debug --locked --root .cache/tools cargo-deny --version 0.20.2

# Random interleavings of everything that writes to a bucket. SEED=n runs the same ones again.
schedules: SCHEDULES ?= 1000000
schedules:
	SCHEDULES=$(SCHEDULES) $(CARGO) test --release --locked --test it -- --nocapture simulation::

# A sparse file of LARGE_GIB gibibytes, uploaded to a store that counts what it gets.
large: LARGE_GIB ?= 200
large:
	LARGE_GIB=$(LARGE_GIB) $(CARGO) test --release --locked --test it -- --nocapture p6_a_file_of_any_size

dist: all
	packaging/package.sh

bench:
	tests/lab/setup.sh bench
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --bench speed
	$(CARGO) bench --locked --bench stores
	$(CARGO) bench --locked --bench repository
	$(CARGO) bench --locked --bench fleet

clean:
	$(CARGO) clean
	rm -rf .cache

# make demo   the main job on a real Cassandra: back up, destroy, restore, compare
# make test   all tests
# make lint   format, clippy, documentation, licences
# make bench  speed, side by side with cp -r, rclone and cassandra-medusa
# make schedules  a million random interleavings

CARGO ?= cargo
DENY := .cache/tools/bin/cargo-deny
# Tests boot Cassandra nodes of about 0.9 GiB each.
TEST_THREADS ?= 3

.PHONY: all setup demo test schedules lint bench audit clean

all:
	$(CARGO) build --release --locked

setup:
	tests/lab/setup.sh

demo: setup
	$(CARGO) build --locked --bin medusa --example demo
	$(CARGO) run --quiet --locked --example demo

test: setup
	$(CARGO) test --locked --lib
	$(CARGO) test --locked --test it -- --show-output --test-threads=$(TEST_THREADS)

lint: $(DENY)
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(DENY) --locked check bans licenses sources

# The database of advisories lies on GitHub.
audit: $(DENY)
	$(DENY) --locked check advisories

$(DENY):
	$(CARGO) install --locked --root .cache/tools cargo-deny --version 0.20.2

# Random interleavings of everything that writes to a bucket. SEED=n runs the same ones again.
schedules: SCHEDULES ?= 1000000
schedules:
	SCHEDULES=$(SCHEDULES) $(CARGO) test --release --locked --test it -- --nocapture simulation::

bench:
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --bench speed
	$(CARGO) bench --locked --bench stores
	$(CARGO) bench --locked --bench repository
	$(CARGO) bench --locked --bench fleet

clean:
	$(CARGO) clean
	rm -rf .cache

# The whole build interface. `make up` and `make test` do all set-up themselves.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# What the stack stands on: embedded (one process) or servers (Apache Kafka, Postgres, separate services).
ENGINES ?= embedded
# Extra arguments for the load generator, such as ARGS="--rate 50000".
ARGS ?=

.PHONY: up test check loadtest
.DEFAULT_GOAL := up

up:
	@scripts/require $(ENGINES)
	cargo build --release --locked --bins
	@exec target/release/standalone --engines $(ENGINES)

test:
	@scripts/require embedded
	cargo build --locked --workspace --bins
	cargo test --locked --workspace

# What CI checks besides the tests.
check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

loadtest:
	@scripts/require $(ENGINES)
	cargo build --release --locked --bins
	@scripts/loadtest $(ENGINES) $(ARGS)

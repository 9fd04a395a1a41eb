# The whole build interface. `make up` and `make test` do all set-up themselves.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# What the stack stands on: embedded (one process) or servers (Apache Kafka, Postgres, separate services).
ENGINES ?= embedded
# Extra arguments for the load generator, such as ARGS="--rate 50000".
ARGS ?=

# Fresh schedules of faults, on each set of engines, and how many are tried at the same time.
SEEDS ?= 5
PARALLEL ?= 1
# Seeds of the simulation of the consumer's core.
SIMULATIONS ?= 100000
# The first of them.
FROM ?= 0
# For each fuzz target.
FUZZ_SECONDS ?= 30

.PHONY: up test check loadtest reliability chaos points sabotage recovery simulate fuzz rig
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
	@# The fuzz targets are a workspace of their own; scripts/fuzz says how to bring its lock file up to date.
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

loadtest:
	@scripts/require $(ENGINES)
	cargo build --release --locked --bins
	@scripts/loadtest $(ENGINES) $(ARGS)

# Everything below proves that events are counted exactly once; docs/reliability.md says how.
reliability: chaos points sabotage

# Its programs are built with debug assertions: only they can be told to commit faults.
rig:
	@scripts/require servers
	cargo build --locked --workspace --bins

# Random schedules of faults on a loaded stack; prints the seeds, each of which can be repeated.
chaos: rig
	@target/debug/chaos run --seeds $(SEEDS) --parallel $(PARALLEL) --shrink $(ARGS)

# An end, a stall and a failure at every boundary between two steps.
points: rig
	@target/debug/chaos points $(ARGS)

# Known bugs, put in one at a time: each has to be found.
sabotage: rig
	@target/debug/chaos sabotage $(ARGS)

# How long it takes until things work again, measured on release programs.
recovery:
	@scripts/require servers
	cargo build --release --locked --bins
	@target/release/chaos recovery $(ARGS)

# The consumer's core in a simulated world, by seeds.
simulate:
	@scripts/require embedded
	@scripts/simulate $(SIMULATIONS) $(FROM)

# Whatever arrives from outside, made up by a fuzzer.
fuzz:
	@scripts/require embedded
	@scripts/fuzz $(FUZZ_SECONDS)

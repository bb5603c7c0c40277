# xswitch: `make` lists what there is.

SHELL := /bin/bash
# Tests and demo make network namespaces: they need root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$$PATH")
FUZZ_SECONDS ?= 60
# Of so many shares of the fuzz targets one runs.
FUZZ_SHARES ?= 1
# Where cargo puts programs. The workspaces beside the main one build there too, so that what they share is built once.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROFILE ?= dev

.PHONY: help setup qemu peers xsk build check test msrv miri fuzz demo bench clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Install what is missing (apt, by root or sudo)
	@scripts/setup.sh

qemu: ## Build a QEMU with af-xdp and a guest for it, and gather its fio, into a cache (once)
	@scripts/qemu.sh
	@scripts/fio.sh

peers: ## Unpack DPDK's testpmd and Open vSwitch into a cache (once): tests have them at ports
	@scripts/peers.sh

xsk: setup ## Build the programs on xsk-rs that tests and bench start (PROFILE=release: those of the bench)
	cargo build --manifest-path tests/xsk/Cargo.toml --target-dir $(TARGET) --profile $(PROFILE)

build: setup ## Build the daemon and the command line (release)
	cargo build --release -p xswitchd -p xswitch

test: setup qemu peers xsk ## Set up, build, and run every test
	cargo build --workspace --all-targets
	@if command -v cargo-nextest >/dev/null; then $(AS_ROOT) cargo nextest run --workspace; \
	else $(AS_ROOT) cargo test --workspace --no-fail-fast -- --test-threads 2; fi

demo: build ## Set up, build, and show three guests on one switch
	$(AS_ROOT) demo/demo.sh target/release

bench: build ## Measure xswitch beside the limits of the path and its peers; report in bench/results
	cargo build --release -p bench
	@$(MAKE) --no-print-directory xsk PROFILE=release
	$(AS_ROOT) target/release/xswitch-bench $(BENCH_ARGS)

fuzz: setup ## Run each fuzz target for FUZZ_SECONDS (60)
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_SHARES)

check: setup ## Formatting, lints, documentation, dependencies, prose
	@scripts/check.sh

msrv: setup ## Compile with the oldest rustc that is supported
	@scripts/msrv.sh

miri: setup ## Run tests of the pure rooms under Miri, on a nightly toolchain
	@scripts/miri.sh

clean: ## Remove build output
	cargo clean
	rm -rf fuzz/target

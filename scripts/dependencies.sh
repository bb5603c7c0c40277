#!/usr/bin/env bash
# Checks what the crates depend on: licences, sources and duplicates of all workspaces (deny.toml), and that no crate
# that only tests use is part of the two programs.
#
# Usage: dependencies.sh [advisories]. With the argument it also asks a database on GitHub for known vulnerabilities.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

workspaces=(. fuzz tests/xsk)
# Packages with the programs xswitchd and xswitch.
programs=(xswitchd xswitch)
# Lines of `cargo tree` that must not be below them: crates of these folders, and those of others that only tests use.
tests_only="\\($PWD/(tests|bench|fuzz)[)/]|^(aya|criterion|libfuzzer-sys|proptest|xsk-rs) "

command -v cargo-deny >/dev/null || cargo install --quiet --debug --locked cargo-deny
for workspace in "${workspaces[@]}"; do
	cargo deny --log-level error --manifest-path "$workspace/Cargo.toml" --config deny.toml --locked \
		check --hide-inclusion-graph licenses bans sources "$@"
done

for program in "${programs[@]}"; do
	found=$(cargo tree --quiet --locked --edges normal,build --prefix none --package "$program" |
		grep -E "$tests_only" | cut -d ' ' -f 1 | sort -u || true)
	[ -z "$found" ] || fail "$program is built with crates of tests: ${found//$'\n'/, }"
done

#!/usr/bin/env bash
# Checks everything that needs no kernel and no test run: formatting, lints, documentation, dependencies, prose.
# Every check runs, so that one run names all that is wrong.
set -uo pipefail
cd "$(dirname "$0")/.."

# The workspaces beside the main one build into its folder, so that what they share is built once.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
failed=()

check() {
	local name=$1
	shift
	echo "check: $name"
	"$@" || failed+=("$name")
}

for workspace in . fuzz tests/xsk; do
	manifest=(--manifest-path "$workspace/Cargo.toml")
	check "formatting of $workspace" cargo fmt --all "${manifest[@]}" --check
	check "lints of $workspace" cargo clippy --quiet "${manifest[@]}" --workspace --all-targets --locked -- -D warnings
done
check "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --locked
check "dependencies" scripts/dependencies.sh
check "prose" scripts/prose.sh

[ ${#failed[@]} -eq 0 ] || {
	printf 'check: failed: %s\n' "${failed[@]}" >&2
	exit 1
}

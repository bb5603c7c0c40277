#!/usr/bin/env bash
# Runs tests of the pure rooms under Miri, which finds undefined behaviour: rings on memory, packet memory, ledger, engine.
# Needs rustup's nightly toolchain with Miri. Ends with 3 where that is not to be had.
#
# Usage: miri.sh [FILTER…]; filters are parts of tests' names, as cargo test takes them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

rooms=(io::frame_rings io::ring io::umem engine)
[ $# -eq 0 ] || rooms=("$@")
toolchain=${MIRI_TOOLCHAIN:-nightly}
need_toolchain "$toolchain" miri rust-src

# Without debug assertions: what is sound must be so in release builds too.
export CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false
# A few cases of a property will do: Miri looks at every access of each.
export PROPTEST_CASES=${PROPTEST_CASES:-4}
# Properties read their regression files.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
if command -v cargo-nextest >/dev/null; then
	# A process a test, so that all cores are used.
	cargo "+$toolchain" miri nextest run --package switch --lib "${rooms[@]}"
else
	cargo "+$toolchain" miri test --package switch --lib -- "${rooms[@]}"
fi

#!/usr/bin/env bash
# Runs tests of the pure rooms (rings on memory, packet memory, ledger, engine) under Miri, which finds undefined
# behaviour. Needs rustup's nightly toolchain with Miri. Ends with 3 where that can't be fetched.
#
# Usage: miri.sh [FILTER…]. Filters are parts of tests' names, as for cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

rooms=(io::frame_rings io::ring io::umem engine)
[ $# -eq 0 ] || rooms=("$@")
toolchain=${MIRI_TOOLCHAIN:-nightly}
need_toolchain "$toolchain" miri rust-src

# Without debug assertions, because soundness must hold in release builds too.
export CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false
# A few cases of a property are enough, because Miri checks every access of each.
export PROPTEST_CASES=${PROPTEST_CASES:-4}
# Properties read their regression files.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
if command -v cargo-nextest >/dev/null; then
	# One process for each test, to use all cores.
	cargo "+$toolchain" miri nextest run --package switch --lib "${rooms[@]}"
else
	cargo "+$toolchain" miri test --package switch --lib -- "${rooms[@]}"
fi

#!/usr/bin/env bash
# Runs tests of the pure rooms under Miri, which finds undefined behaviour: rings on memory, packet memory with its
# ledger, and the engine's parsers. Needs rustup's nightly toolchain with Miri. Ends with 3 where that can't be
# fetched.
#
# Usage: miri.sh [FILTER…]. Filters are parts of tests' names, as for cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Each of these is a process of its own: Miri runs one thread at a time. The engine has no unsafe code, and most of its
# tests make tables that take Miri minutes. What reads foreign bytes is run all the same.
rooms=("io::frame_rings io::memory io::queue_rings io::ring io::umem" "engine::parse")
[ $# -eq 0 ] || rooms=("$*")
toolchain=${MIRI_TOOLCHAIN:-nightly}
need_toolchain "$toolchain" miri rust-src

# Without debug assertions, because soundness must hold in release builds too.
export CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false
# A few cases of a property are enough, because Miri checks every access of each.
export PROPTEST_CASES=${PROPTEST_CASES:-2}
# Properties read their regression files.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
miri=(cargo "+$toolchain" miri test --quiet --package switch --lib)
"${miri[@]}" --no-run
running=()
for filters in "${rooms[@]}"; do
	# shellcheck disable=SC2086 # a word a filter
	"${miri[@]}" -- $filters &
	running+=($!)
done
for process in "${running[@]}"; do
	wait "$process"
done

#!/usr/bin/env bash
# Runs fuzz targets for SECONDS (default 60), one after the other: all, or one of COUNT shares. The commit says which
# share it is, so that all have their turn.
#
# Usage: fuzz.sh [SECONDS [COUNT]]
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-60} shares=${2:-1}
share=$((0x$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0) % shares))
# It starts compilers and fuzz targets only, so it need not be fast itself.
command -v cargo-fuzz >/dev/null || cargo install --quiet --debug --locked cargo-fuzz
# cargo-fuzz wants unstable compiler flags. This lets a stable toolchain accept them.
export RUSTC_BOOTSTRAP=1
for target in $(cargo fuzz list | awk -v shares="$shares" -v share="$share" 'NR % shares == share'); do
	echo "fuzz: $target for $seconds s"
	mkdir -p "corpus/$target"
	cargo fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -timeout=10 -print_final_stats=1 2>"$target.log" || {
		tail -n 60 "$target.log"
		echo "fuzz: $target failed; its input is in fuzz/artifacts/$target" >&2
		exit 1
	}
	grep -E 'stat::(number_of_executed_units|average_exec_per_sec)' "$target.log"
	rm -f "$target.log"
done

#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (default 60), one after the other.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-60}
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
# cargo-fuzz wants unstable compiler flags. This lets a stable toolchain accept them.
export RUSTC_BOOTSTRAP=1
for target in $(cargo fuzz list); do
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

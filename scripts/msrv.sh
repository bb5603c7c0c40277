#!/usr/bin/env bash
# Compiles the product with the oldest rustc that it supports (rust-version in Cargo.toml). Ends with 3 where that can't
# be fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
need_toolchain "$oldest" rustfmt
cargo "+$oldest" check --quiet --locked --package xswitchd --package xswitch --target-dir "${CARGO_TARGET_DIR:-target}/msrv"
echo "msrv: the product compiles with rustc $oldest"

#!/usr/bin/env bash
# Installs with apt what building, testing and the demo need, on Debian 12. Does nothing when all is there.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

packages=(
	# the build: BPF programs, libbpf and libxdp from source
	clang llvm gcc g++ libc6-dev make m4 pkg-config libelf-dev zlib1g-dev linux-libc-dev
	autoconf automake autopoint gettext flex bison gawk
	# tests and demo
	iproute2 ethtool iperf3 iputils-ping procps curl tshark lz4 zstd prometheus bpftool openssl
	# the bench: instructions of the engine
	valgrind
	# another back end of vhost-user-blk, which the tests of disks compare with
	qemu-utils
	# a file system with reflinks, for snapshots of disks
	xfsprogs
	# a client of the DPU interface in Python
	python3 python3-venv
)
install_packages "${packages[@]}"

command -v cargo >/dev/null || fail "a Rust toolchain (1.90 or later) is needed: https://rustup.rs"

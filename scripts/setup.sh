#!/usr/bin/env bash
# Installs what building, testing and the demo need, with apt, on Debian 12; does nothing when it is all there.
set -euo pipefail

packages=(
	# the build: BPF programs, libbpf and libxdp from source
	clang llvm gcc g++ libc6-dev make m4 pkg-config libelf-dev zlib1g-dev linux-libc-dev
	autoconf automake autopoint gettext flex bison gawk
	# tests and demo
	iproute2 ethtool iperf3 iputils-ping procps tshark prometheus bpftool openssl
	# a client of the DPU interface in Python
	python3 python3-venv
)

missing=()
for package in "${packages[@]}"; do
	state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
	[ "$state" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
	sudo=()
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || { echo "setup: run as root, or install sudo" >&2; exit 1; }
		sudo=(sudo)
	fi
	echo "setup: installing ${missing[*]}"
	# Debian's prometheus package starts a service; only its programs are wanted here.
	policy=/usr/sbin/policy-rc.d
	had_policy=$([ -e "$policy" ] && echo yes || echo no)
	if [ "$had_policy" = no ]; then
		printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
		"${sudo[@]}" chmod +x "$policy"
		trap '"${sudo[@]}" rm -f "$policy"' EXIT
	fi
	"${sudo[@]}" apt-get update -q
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

command -v cargo >/dev/null || { echo "setup: a Rust toolchain (1.88 or later) is needed: https://rustup.rs" >&2; exit 1; }

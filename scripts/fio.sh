#!/usr/bin/env bash
# Makes an ext4 image with Debian's fio and the libraries that it needs, for guests in QEMU. A guest mounts it and runs
#   lib/ld-linux-x86-64.so.2 --library-path lib bin/fio …
# there. Keeps it in the cache of scripts/qemu.sh, and does nothing when it is there. Installs nothing of fio.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

packages=(dpkg-dev e2fsprogs debian-archive-keyring)
size=120M # of the image, which is sparse

build() {
	local root=$work/root tree=$work/tree deb paths
	unpack_packages "$root" fio
	# Libraries that the machine has are taken from there. It has the same Debian.
	step apt-get install -q --assume-yes --download-only --no-install-recommends --no-upgrade --no-remove \
		-o Debug::NoLocking=true fio
	for deb in "$work"/apt/archives/*.deb; do
		[ ! -e "$deb" ] || step dpkg-deb -x "$deb" "$root"
	done
	mkdir -p "$tree/bin" "$tree/lib" "$work/result"
	cp "$root/usr/bin/fio" "$tree/bin/"
	paths=$(find "$root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd :)
	LD_LIBRARY_PATH=$paths ldd "$tree/bin/fio" >"$work/libraries"
	! grep 'not found' "$work/libraries" || fail "fio lacks libraries"
	awk '$3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' "$work/libraries" | while read -r file; do
		cp -L "$file" "$tree/lib/"
	done
	truncate -s "$size" "$work/result/fio.img"
	step mkfs.ext4 -q -F -m 0 -O ^has_journal -d "$tree" "$work/result/fio.img"
	echo "$recipe" >"$work/result/stamp"
}

# A hash that changes with everything above that has an effect.
recipe=$(
	{
		declare -p size
		declare -f build
	} | sha256sum | cut -d ' ' -f 1
)

make_result fio "an image with fio for guests"

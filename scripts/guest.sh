#!/usr/bin/env bash
# Makes a small Linux guest to run in QEMU: Debian's cloud kernel, and an initramfs of busybox, iperf3 and ethtool. Its
# init is scripts/guest/init. Keeps it in the cache of scripts/qemu.sh, and does nothing when it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

packages=(dpkg-dev kmod lz4 xz-utils zstd debian-archive-keyring)

# Packages of the guest. Its programs come from these. None is installed on the machine.
parts=(busybox-static iperf3 libiperf0 libsctp1 libssl3 libc6 ethtool libmnl0)
programs=(usr/bin/iperf3 usr/sbin/ethtool sbin/ethtool)
libraries=(ld-linux-x86-64 libc libm libcrypto libssl libiperf libsctp libmnl)
# Modules. Each comes with those that it needs.
modules=(virtio_pci virtio_net virtio_blk virtio_rng 8021q ext4 ${XSWITCH_GUEST_MODULES:-})

# A bzImage contains the kernel's ELF image, compressed. QEMU starts the ELF image as well (by PVH). That spares the
# guest to uncompress it, which takes an emulated processor long.
extract_kernel() {
	local offset tool magic
	for tool in 'lz4 \x02!L\x18' 'xz \xfd7zXZ\x00' 'zstd \x28\xb5\x2f\xfd' 'gzip \x1f\x8b\x08'; do
		magic=${tool#* } tool=${tool%% *}
		for offset in $(LC_ALL=C grep -aboP "$magic" "$1" | cut -d : -f 1); do
			# The tool complains of bytes after the compressed image, but only once its work is done.
			tail -c +$((offset + 1)) "$1" | "$tool" -dc 2>/dev/null >"$2" || true
			if [ "$(head -c 4 "$2" | tail -c 3)" = ELF ]; then
				return
			fi
		done
	done
	fail "no ELF image in $1"
}

build() {
	local tree=$work/tree root=$work/root kernel file name
	kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
	[ -n "$kernel" ] || fail "Debian has no linux-image-cloud-amd64"
	unpack_packages "$tree" "$kernel" "${parts[@]}"
	mkdir -p "$work/result" "$root"/{bin,dev,etc,lib,proc,root,sys,tmp}
	ln -s bin "$root/sbin"
	ln -s lib "$root/lib64"
	extract_kernel "$tree/boot/vmlinuz-${kernel#linux-image-}" "$work/result/vmlinux"

	install -m 755 "$tree/bin/busybox" "$root/bin/busybox"
	for file in "${programs[@]}"; do
		[ ! -e "$tree/$file" ] || install -m 755 -t "$root/bin" "$tree/$file"
	done
	for name in "${libraries[@]}"; do
		file=$(find "$tree" -name "$name.so.[0-9]*" | sort | head -n 1)
		[ -n "$file" ] || fail "no library $name"
		cp -L "$file" "$root/lib/"
	done
	install -m 755 "$here/guest/init" "$root/init"
	install -m 755 "$here/guest/net-up" "$root/bin/net-up"

	local from=$tree to=lib/modules/${kernel#linux-image-}
	[ -d "$from/lib/modules" ] || from=$tree/usr
	step depmod -b "$from" "${to##*/}"
	step cp "$from/$to"/modules.{order,builtin,builtin.modinfo} "$work/"
	for name in "${modules[@]}"; do
		# `insmod` stands before each path. A built-in module has no path.
		modprobe -d "$from" -S "${to##*/}" --show-depends "$name" | awk '$1 == "insmod" { print $2 }'
	done | sort -u | while read -r file; do
		file=${file#"$from/"}
		install -D -m 644 "$from/$file" "$root/$file"
	done
	cp "$work"/modules.{order,builtin,builtin.modinfo} "$root/$to/"
	step depmod -b "$root" "${to##*/}"

	(cd "$root" && find . | LC_ALL=C sort | "$root/bin/busybox" cpio -o -H newc 2>>"$log") >"$work/result/initramfs"
	echo "$recipe" >"$work/result/stamp"
}

# A hash that changes with everything above that has an effect.
recipe=$(
	{
		declare -p parts programs libraries modules
		declare -f extract_kernel build
		cat "$here/guest/init" "$here/guest/net-up"
	} | sha256sum | cut -d ' ' -f 1
)

make_result guest "a Linux guest for QEMU"

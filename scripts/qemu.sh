#!/usr/bin/env bash
# Builds a QEMU with the af-xdp netdev from Debian's source, because no Debian package has it. Makes a small Linux guest
# for it (scripts/guest.sh). Keeps both in a cache outside of the checkout: XSWITCH_CACHE, or /var/cache/xswitch. Does
# nothing when both are there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

series=10.2    # the series of QEMU that is wanted,
at_least=10.1  # and the oldest that will do if Debian no longer has that one
libxdp=1.4     # the oldest libxdp that QEMU takes
suites=(trixie trixie-backports forky sid)

packages=(
	gcc libc6-dev make pkg-config dpkg-dev xz-utils patch ninja-build python3 python3-venv flex bison
	libglib2.0-dev libfdt-dev libbpf-dev libelf-dev zlib1g-dev libseccomp-dev debian-archive-keyring
)

devices=(
	I440FX Q35 PCIE_PORT VIRTIO_PCI VIRTIO_NET VIRTIO_BLK VIRTIO_RNG VHOST_USER_BLK SERIAL_ISA ISA_DEBUG E1000_PCI
	PXB CXL CXL_MEM_DEVICE # the tables of ACPI do not link without
)

options=(
	--target-list=x86_64-softmmu --without-default-features --without-default-devices --with-devices-x86_64=xswitch
	--enable-system --disable-user --disable-docs --disable-tools --disable-guest-agent --disable-werror
	--disable-install-blobs --disable-download --disable-debug-info --enable-tcg --enable-kvm --enable-seccomp
	--enable-bpf --enable-af-xdp --enable-vhost-user --enable-vhost-net
)

# Firmware. It comes from Debian's packages, because Debian's source of QEMU has none.
firmware=(bios-256k.bin kvmvapic.bin linuxboot_dma.bin multiboot_dma.bin pvh.bin vgabios-stdvga.bin)

# Usable versions in Debian, the best first: the newest of the series, then the newest of the others.
versions() {
	apt-cache showsrc --only-source qemu | awk '$1 == "Version:" { print $2 }' | sort -u | while read -r version; do
		upstream=${version#*:}
		dpkg --compare-versions "$upstream" ge "$at_least" || continue
		case $upstream in
		"$series"[.+]*) echo "1 $version" ;;
		*) echo "0 $version" ;;
		esac
	done | sort -k 1,1nr -k 2,2Vr | cut -d ' ' -f 2
}

# Unpacks the source of the best version and sets `version`. The mirror may be behind its own lists.
fetch() {
	mkdir "$work/source"
	cd "$work/source"
	for version in $(versions); do
		echo "qemu: building QEMU $version with af-xdp for $cache/qemu; this takes some minutes, once"
		if apt-get source -q --only-source "qemu=$version" >>"$log" 2>&1; then
			cd "$here"
			return
		fi
		echo "qemu: that one is not to be had"
	done
	tail -n 20 "$log" >&2
	fail "no source of QEMU $at_least or later to be had from ${suites[*]}"
}

# Makes a prefix with a static libxdp, and meson. Both are newer than the machine's.
make_prefix() {
	local lib found symbol
	lib=$prefix/usr/lib/$(gcc -print-multiarch)
	unpack_packages "$prefix" libxdp-dev/trixie meson/trixie
	found=$(sed -n 's/^Version: *//p' "$lib/pkgconfig/libxdp.pc")
	dpkg --compare-versions "$found" ge "$libxdp" || fail "libxdp is $found; QEMU takes $libxdp or later"
	rm -f "$lib"/libxdp.so*
	# It was compiled for a C library with new versions of these functions, for C23's binary numbers. The old ones do.
	for symbol in $(nm -u "$lib/libxdp.a" 2>/dev/null | grep -o '__isoc23_.*' | sort -u); do
		objcopy --redefine-sym "$symbol=${symbol#__isoc23_}" "$lib/libxdp.a"
	done
	cat >"$lib/pkgconfig/libxdp.pc" <<-EOF
		Name: libxdp
		Description: libxdp, static
		Version: $found
		Cflags: -I$prefix/usr/include
		Libs: -L$lib -lxdp -lbpf -lelf -lz
	EOF
	export PKG_CONFIG_PATH=$lib/pkgconfig
	step python3 -m venv "$prefix/venv"
	cp -a "$prefix"/usr/lib/python3/dist-packages/* "$prefix"/venv/lib/python3*/site-packages/
}

build() {
	local source
	source=$(echo "$work"/source/qemu-*/)
	printf 'CONFIG_%s=y\n' "${devices[@]}" >"$source/configs/devices/x86_64-softmmu/xswitch.mak"
	mkdir "$work/build"
	cd "$work/build"
	step "$source/configure" "${options[@]}" --python="$prefix/venv/bin/python3" --extra-cflags="-O2 -g0"
	step ninja qemu-system-x86_64
	cd "$here"
}

# Gathers what is kept, and checks it.
gather() {
	local file
	mkdir -p "$work/result/firmware"
	strip -o "$work/result/qemu-system-x86_64" "$work/build/qemu-system-x86_64"
	unpack_packages "$work/firmware" seabios/trixie qemu-system-data/trixie
	for file in "${firmware[@]}"; do
		cp -L "$(find "$work/firmware" -name "$file" | head -n 1)" "$work/result/firmware/" || fail "no firmware $file"
	done
	"$work/result/qemu-system-x86_64" -nodefaults -netdev help | grep -qx af-xdp || fail "the QEMU that was built has no af-xdp"
	"$work/result/qemu-system-x86_64" --version | head -n 1 >"$work/result/version"
	echo "$recipe" >"$work/result/stamp"
}

# A hash that changes with everything above that has an effect.
recipe=$(
	{
		declare -p series at_least libxdp suites devices options firmware
		declare -f versions fetch make_prefix build gather
	} | sha256sum | cut -d ' ' -f 1
)

# In a shell of its own: the lock, the work directory and the environment of the build end with it.
make_qemu() (
	[ "$(uname -m)" = x86_64 ] || fail "the recipe is for x86_64 machines"
	. /etc/os-release
	[ "${ID:-}" = debian ] || fail "the recipe is for Debian; docs/qemu.md tells what QEMU has to be built with"
	install_packages "${packages[@]}"
	lock_cache
	# Another process may have made it in the meantime.
	! up_to_date qemu || exit 0
	make_work
	prefix=$work/prefix
	private_apt "$VERSION_CODENAME" "${suites[@]}"
	fetch
	make_prefix
	build
	gather
	install_result "$work/result" qemu
	echo "qemu: $(cat "$cache/qemu/version") is in $cache/qemu"
)

up_to_date qemu || make_qemu
"$here/guest.sh"

#!/usr/bin/env bash
# Unpacks programs that the bench measures beside xswitch, and that tests have at the switch's ports: Open vSwitch and
# DPDK's testpmd, from Debian's packages, with the libraries that the machine lacks. Installs nothing.
#
# Usage: peers.sh        into the cache: XSWITCH_CACHE, or /var/cache/xswitch. Does nothing when they are there
#        peers.sh DIR    into DIR/root, and their versions into DIR/versions. The caller makes and removes DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

programs=(openvswitch-switch openvswitch-switch-dpdk openvswitch-common dpdk-dev) # testpmd is in dpdk-dev
plugins=(librte-net-af-xdp librte-net-virtio librte-net-vhost librte-net-null librte-mempool-ring librte-bus-vdev) # nothing depends on them: DPDK opens its drivers at run time

# Names of the plug-ins' newest packages. They end in the number of DPDK's ABI.
plugin_packages() {
	local plugin found
	for plugin in "${plugins[@]}"; do
		found=$(apt-cache pkgnames "$plugin" | grep -Ex "$plugin-?[0-9]+" | sort -V | tail -n 1 || true)
		[ -n "$found" ] || fail "Debian $VERSION_CODENAME has no $plugin"
		echo "$found"
	done
}

# Libraries that the programs' packages depend on. Their other dependencies are for services, scripts and compilers.
libraries() {
	apt-cache depends --important "${programs[@]}" | sed -n 's/^ *|\?Depends: \(lib[^ ]*\|ibverbs-providers\)$/\1/p' |
		grep -v -e '-dev$' | sort -u
}

# Downloads packages and their dependencies that the machine lacks, in versions that fit together. It takes no lock,
# because it writes nothing of the machine's.
download_missing() {
	step apt-get install -q --assume-yes --download-only --no-install-recommends --no-upgrade --no-remove \
		-o Debug::NoLocking=true "$@"
}

# In a shell of its own: the environment of the private apt ends with it.
unpack() (
	work=$1/work
	log=$work/log
	mkdir "$work"
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	private_apt "$VERSION_CODENAME"
	unpack_packages "$1/root" "${programs[@]}"
	needed=$(libraries)
	opened=$(plugin_packages)
	# shellcheck disable=SC2086 # a word a package
	download_missing $needed $opened
	for deb in "$work"/apt/archives/*.deb; do
		[ ! -e "$deb" ] || step dpkg-deb -x "$deb" "$1/root"
	done
	apt-cache policy "${programs[@]}" | awk '/^[^ ]/ { name = $1 } $1 == "Candidate:" { print name, $2 }' >"$1/versions"
)

# In a shell of its own: the lock and the work directory end with it.
fill_cache() (
	lock_cache
	# Another process may have done it in the meantime.
	! up_to_date peers || exit 0
	make_work
	mkdir "$work/result"
	unpack "$work/result"
	echo "$recipe" >"$work/result/stamp"
	install_result "$work/result" peers
	echo "peers: they are in $cache/peers"
)

. /etc/os-release
[ "${ID:-}" = debian ] || fail "the peers come from Debian's packages; this is ${PRETTY_NAME:-another system}"
# A hash that changes with everything above that has an effect.
recipe=$(
	{
		declare -p programs plugins VERSION_CODENAME
		declare -f plugin_packages libraries download_missing unpack
	} | sha256sum | cut -d ' ' -f 1
)
case $# in
0) up_to_date peers || fill_cache ;;
1)
	[ -d "$1" ] || fail "$1 is no directory"
	[ ! -e "$1/root" ] || fail "$1/root is there already"
	unpack "$(cd "$1" && pwd)"
	;;
*) fail "usage: peers.sh [DIR]" ;;
esac

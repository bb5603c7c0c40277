# Functions that the scripts share. They source this file. It needs bash with `set -euo pipefail`.

script=$(basename "$0" .sh)
PATH=$PATH:/usr/sbin:/sbin

# Ends the script with a reason.
fail() {
	echo "$script: $*" >&2
	exit 1
}

# Runs a command as root, by sudo if the caller is another user.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		command -v sudo >/dev/null || fail "this needs root: run it as root, or install sudo"
		sudo "$@"
	fi
}

# Installs missing packages with apt.
install_packages() {
	local package state missing=()
	for package in "$@"; do
		state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
		[ "$state" = "install ok installed" ] || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "$script: installing ${missing[*]}"
	# In a shell of its own, for its trap. Some packages, such as prometheus, would start a service. policy-rc.d forbids
	# it.
	(
		policy=/usr/sbin/policy-rc.d
		if [ ! -e "$policy" ]; then
			trap 'as_root rm -f "$policy"' EXIT
			printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
			as_root chmod +x "$policy"
		fi
		as_root apt-get update -qq
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			-o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
	)
}

# Ensures that rustup has a toolchain with these components, beside the one in use. If rustup can't fetch it, the script
# ends with 3.
need_toolchain() {
	local toolchain=$1 component args=(--profile minimal --no-self-update)
	shift
	if cargo "+$toolchain" --version >/dev/null 2>&1; then
		local missing=0
		for component in "$@"; do
			rustup component list --toolchain "$toolchain" 2>/dev/null | grep -q "^$component.*(installed)" || missing=1
		done
		[ "$missing" -eq 1 ] || return 0
	fi
	for component in "$@"; do
		args+=(--component "$component")
	done
	timeout 180 rustup toolchain install "$toolchain" "${args[@]}" >/dev/null 2>&1 </dev/null || {
		echo "$script: not run: rustup can't fetch the toolchain $toolchain${1:+ with $*}" >&2
		exit 3
	}
}

# Keeps what takes long to make and belongs to no checkout. It is one place for everybody, because root's tests start
# QEMU as nobody, who can't look into a home directory.
cache=${XSWITCH_CACHE:-/var/cache/xswitch}

# Makes the cache's directory, and locks it until the script ends.
lock_cache() {
	if [ ! -d "$cache" ]; then
		mkdir -p -m 755 "$cache" 2>/dev/null || as_root install -d -m 755 -o "$(id -u)" -g "$(id -g)" "$cache"
	fi
	[ -w "$cache" ] || fail "$cache is somebody else's: become that user, or set XSWITCH_CACHE to a directory of your own"
	exec 9>"$cache/lock"
	if ! flock -n 9; then
		echo "$script: waiting for another one that is at work in $cache"
		flock 9
	fi
}

# Makes `$work`, a directory beside the results, so that a rename puts them in place. It goes when the script ends
# in any way. One that a SIGKILL left behind goes in this call. Call it with the cache locked.
make_work() {
	rm -rf "$cache"/work.*
	work=$(mktemp -d "$cache/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	log=$work/log
}

# Runs one step of a build. Its output goes to `$log`, whose end is shown if it fails.
step() {
	"$@" >>"$log" 2>&1 </dev/null || {
		tail -n 40 "$log" >&2
		fail "failed: $*"
	}
}

# Puts a directory of `$work` into the cache, in place of what was there.
install_result() {
	local from=$1 to=$cache/$2
	chmod -R u=rwX,go=rX "$from"
	[ ! -e "$to" ] || mv -T "$to" "$work/old"
	mv -T "$from" "$to"
	rm -rf "$work/old"
}

# Whether the cache has a result that was made by the present `$recipe`.
up_to_date() {
	[ "$(cat "$cache/$1/stamp" 2>/dev/null || true)" = "$recipe" ]
}

# Has the script's `build` make a result for guests in `$work/result`, unless the cache has it: by packages of the
# machine's own Debian, after installing `packages`. The arguments are the result's name and what it is.
make_result() {
	! up_to_date "$1" || return 0
	. /etc/os-release
	install_packages "${packages[@]}"
	lock_cache
	# Another process may have made it in the meantime.
	! up_to_date "$1" || return 0
	make_work
	private_apt "$VERSION_CODENAME"
	build
	install_result "$work/result" "$1"
	echo "$1: $2 is in $cache/$1"
}

# Makes an apt of its own in `$work`. The machine's lists, sources and packages stay as they are. Mirror, key and
# proxies are the machine's. Arguments are suites. The first is the machine's own: it comes with its updates and
# security parts, as binary packages. The others come as source and binary packages.
private_apt() {
	local own=$1 suite uri release component mirror='' keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	shift
	[ -r "$keyring" ] || fail "$keyring is missing: install debian-archive-keyring"
	mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
	while read -r uri release component; do
		case $release in
		"$own") mirror=$uri ;;
		"$own"-*) ;;
		*) continue ;;
		esac
		[ "$component" = main ] || continue
		echo "deb [signed-by=$keyring] $uri $release main" >>"$work/apt/sources.list"
	done < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages')
	[ -n "$mirror" ] || fail "apt's sources have no mirror of Debian $own (main)"
	for suite in "$@"; do
		printf '%s [signed-by='"$keyring"'] '"$mirror $suite"' main\n' deb deb-src >>"$work/apt/sources.list"
	done
	{
		# Settings such as proxies, but no hooks, and none of the further index files that desktops fetch.
		apt-config dump | grep '^Acquire::' | grep -v '^Acquire::IndexTargets'
		cat <<-EOF
			Dir::Etc::Main "/dev/null";
			Dir::Etc::Parts "/dev/null";
			Dir::Etc::SourceList "$work/apt/sources.list";
			Dir::Etc::SourceParts "/dev/null";
			Dir::Etc::Preferences "/dev/null";
			Dir::Etc::PreferencesParts "/dev/null";
			Dir::State::Lists "$work/apt/lists";
			Dir::Cache "$work/apt";
			APT::Sandbox::User "";
			APT::Get::List-Cleanup "false";
			Acquire::Languages "none";
		EOF
	} >"$work/apt/apt.conf"
	export APT_CONFIG=$work/apt/apt.conf
	step apt-get update -qq
}

# Downloads packages by the private apt, and unpacks them into a directory. Nothing is installed.
unpack_packages() {
	local to=$1 debs
	shift
	debs=$(mktemp -d "$work/debs.XXXXXX")
	(cd "$debs" && step apt-get download -q "$@")
	mkdir -p "$to"
	for deb in "$debs"/*.deb; do
		step dpkg-deb -x "$deb" "$to"
	done
	rm -rf "$debs"
}

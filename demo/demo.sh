#!/usr/bin/env bash
# Three guests on one switch, as network namespaces: two in VLAN 10, the third in VLAN 20. Then two real guests, if
# there is a QEMU with af-xdp (`make qemu`).
#
# Usage: demo.sh DIRECTORY-OF-BINARIES. Needs root. Leaves nothing behind.
set -euo pipefail

bin=$(cd "${1:?the directory of xswitchd and xswitch}" && pwd)
id=$$
switch=xsdemo-$id-switch
guests=(xsdemo-$id-a xsdemo-$id-b xsdemo-$id-c)
dir=$(mktemp -d)
daemon=
server=
vms=()
cache=${XSWITCH_CACHE:-/var/cache/xswitch}

cleanup() {
	status=$?
	trap - EXIT INT TERM
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	for vm in "${vms[@]}"; do kill "$vm" 2>/dev/null || true; wait "$vm" 2>/dev/null || true; done
	if [ -n "$daemon" ]; then
		# Only deleting a port removes the pins of its guest's end.
		for vm in vm1 vm2; do xswitch port del "$vm" >/dev/null 2>&1 || true; done
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	for ns in "$switch" "${guests[@]}"; do ip netns del "$ns" 2>/dev/null || true; done
	[ "$status" -eq 0 ] || { echo; echo "demo: FAILED; the daemon's log:"; cat "$dir/log" 2>/dev/null || true; }
	rm -rf "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { echo "demo: $*" >&2; exit 1; }
xswitch() { "$bin/xswitch" --run-dir "$dir/run" "$@"; }
in_guest() { ip netns exec "${guests[$1]}" "${@:2}"; }

[ "$(id -u)" -eq 0 ] || fail "network namespaces need root"

say "A switch in a network namespace of its own, and three guests"
ip netns add "$switch"
ip netns exec "$switch" ip link set lo up
for ns in "${guests[@]}"; do ip netns add "$ns"; done
# `ip netns exec` would hide /sys/fs/bpf from the daemon.
start_daemon() {
	nsenter --net="/run/netns/$switch" "$bin/xswitchd" --run-dir "$dir/run" --state-dir "$dir/state" 2>>"$dir/log" &
	daemon=$!
	for _ in $(seq 100); do
		xswitch version 2>/dev/null | grep -q "^xswitchd [0-9]" && return
		kill -0 "$daemon" 2>/dev/null || fail "the daemon ended"
		sleep 0.1
	done
	fail "the daemon does not answer"
}
start_daemon
vlans=(10 10 20)
names=(web db other)
for n in 0 1 2; do
	xswitch port add "${names[$n]}" --netns "${guests[$n]}" --guest-ifname eth0 --vlan "access:${vlans[$n]}" >/dev/null
	in_guest "$n" ip address add "10.0.0.$((n + 1))/24" dev eth0
done
xswitch port list

say "web (10.0.0.1) pings db (10.0.0.2): both are in VLAN 10"
in_guest 0 ping -c 3 -i 0.2 -W 2 10.0.0.2 || fail "web does not reach db"

say "web pings other (10.0.0.3): it is in VLAN 20, so nothing may come back"
if in_guest 0 ping -c 2 -i 0.2 -W 1 10.0.0.3; then fail "web reaches other across VLANs"; fi
echo "-> isolated, as expected"

# Starts an iperf3 server for one client in db.
serve() {
	in_guest 1 iperf3 -s -1 >/dev/null &
	server=$!
	for _ in $(seq 50); do in_guest 1 ss -ltn 2>/dev/null | grep -q :5201 && break; sleep 0.1; done
}

say "iperf3 from web to db for 5 seconds, with live rates"
serve
in_guest 0 timeout 30 iperf3 -c 10.0.0.2 -t 5 >"$dir/iperf" &
client=$!
sleep 2
xswitch top --interval 1 --count 2
wait "$client" || fail "iperf3: $(cat "$dir/iperf")"
server=
tail -n 4 "$dir/iperf"

say "A meter of 20 Mbit/s on what web sends (web is vport 0, so meter 0 applies to it)"
xswitch meter add 0 20000
serve
in_guest 0 timeout 30 iperf3 -c 10.0.0.2 -t 5 -f m >"$dir/iperf" || fail "iperf3: $(cat "$dir/iperf")"
server=
tail -n 4 "$dir/iperf"
awk '/receiver/ { if ($7 > 22) exit 1 }' "$dir/iperf" || fail "web got more than its meter allows"
xswitch meter list
xswitch meter del 0

say "A rule drops web's pings and nothing else, and counts them"
xswitch rule add 10 --to drop --vid 0 --ipprotocol 1 >/dev/null
if in_guest 0 ping -c 2 -i 0.2 -W 1 10.0.0.2 >/dev/null; then fail "the rule does not apply"; fi
xswitch rule list
xswitch rule del 10

say "A redirect: what would go to db goes to other, until the redirect is deleted"
xswitch redirect set 1 2
if in_guest 0 ping -c 2 -i 0.2 -W 1 10.0.0.2 >/dev/null; then fail "the redirect does not apply"; fi
xswitch redirect list
xswitch redirect del 1
in_guest 0 ping -c 2 -i 0.2 -W 2 10.0.0.2 >/dev/null || fail "web does not reach db again"

say "other takes web's MAC address and asks for db: the switch holds each guest to its own address"
mac=$(in_guest 0 cat /sys/class/net/eth0/address)
in_guest 2 ip link set eth0 address "$mac"
in_guest 2 ping -c 1 -W 1 10.0.0.2 >/dev/null || true
xswitch stats other
xswitch stats other | grep -q mac_spoofed || fail "the spoofed frame was not refused"

say "Why it was refused, step by step"
xswitch trace --in other --src "$mac" --dst ff:ff:ff:ff:ff:ff --ethertype arp --ip-src 10.0.0.3 --ip-dst 10.0.0.2

say "Counters, learned addresses, and the place of every frame of packet memory"
xswitch stats
echo
xswitch fdb list
echo
xswitch audit

if [ ! -x "$cache/qemu/qemu-system-x86_64" ]; then
	say "Everything worked. For real guests too, \`make qemu\` builds a QEMU with af-xdp (some minutes, once)"
	exit
fi

say "Real guests: QEMU as user nobody, without privileges, on AF_XDP sockets that the switch made for it"
chmod 755 "$dir"
kernel='console=ttyS0 quiet loglevel=3 panic=-1 ipv6.disable=1 nokaslr mitigations=off tsc=reliable no_timer_check'
qemu=("$cache/qemu/qemu-system-x86_64" -nodefaults -no-user-config -display none -no-reboot -machine pc -accel tcg -cpu max
	-m 128 -L "$cache/qemu/firmware" -kernel "$cache/guest/vmlinux" -initrd "$cache/guest/initramfs"
	-global virtio-net-pci.romfile=)
declare -A to from

# Boots guest $1 with address $2 at a port of its name.
boot() {
	mkfifo -m 666 "$dir/$1.in" "$dir/$1.out"
	# The function `xswitch` is not used, because the started process must be QEMU itself.
	"$bin/xswitch" --run-dir "$dir/run" qemu run "$1" --create --user nobody -- "${qemu[@]}" -append "$kernel xswitch.ip=$2" \
		-chardev "pipe,id=console,path=$dir/$1" -serial chardev:console >"$dir/$1.log" 2>&1 &
	vms+=($!)
	local in out line
	exec {in}>"$dir/$1.in" {out}<"$dir/$1.out"
	to[$1]=$in from[$1]=$out
	while read -r -t 60 line <&"$out"; do
		[ "$line" != "xswitch-guest ready" ] || return 0
	done
	fail "$1 does not boot: $(cat "$dir/$1.log")"
}

# Runs a command in a guest.
in_vm() {
	local line
	echo "run @@ ${*:2}" >&"${to[$1]}"
	while IFS= read -r -t 60 line <&"${from[$1]}"; do
		case $line in "@@ "*) return "${line#@@ }" ;; *) echo "$line" ;; esac
	done
	fail "$1 does not answer"
}

boot vm1 10.9.0.1/24
boot vm2 10.9.0.2/24
xswitch port show vm1
in_vm vm1 ping -c 3 10.9.0.2 || fail "vm1 does not reach vm2"

say "iperf3 from guest to guest (their processors are emulated: the rate says nothing about the switch)"
in_vm vm2 iperf3 -s -D
in_vm vm1 iperf3 -c 10.9.0.2 -t 3 | tail -n 4

say "xswitchd is killed and started again while vm1 pings vm2: the guests keep their sockets"
in_vm vm1 'ping -i 0.1 10.9.0.2 >/tmp/ping & echo $! >/tmp/pid'
sleep 1
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
start_daemon
sleep 1
in_vm vm1 'kill -INT $(cat /tmp/pid); sleep 1; tail -n 3 /tmp/ping'
in_vm vm1 ping -c 2 10.9.0.2 >/dev/null || fail "vm1 does not reach vm2 after the restart"

say "vm2 is killed, and comes back"
kill -9 "${vms[1]}"
wait "${vms[1]}" 2>/dev/null || true
rm "$dir/vm2.in" "$dir/vm2.out"
boot vm2 10.9.0.2/24
in_vm vm1 ping -c 2 10.9.0.2 || fail "vm1 does not reach vm2 after it came back"

say "Everything worked"

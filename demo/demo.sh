#!/usr/bin/env bash
# Three guests, as network namespaces, on one switch: two in VLAN 10, the third in VLAN 20.
# Usage: demo.sh DIRECTORY-OF-BINARIES; needs root. Leaves nothing behind.
set -euo pipefail

bin=$(cd "${1:?the directory of xswitchd and xswitch}" && pwd)
id=$$
switch=xsdemo-$id-switch
guests=(xsdemo-$id-a xsdemo-$id-b xsdemo-$id-c)
dir=$(mktemp -d)
daemon=
server=

cleanup() {
	status=$?
	trap - EXIT INT TERM
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	if [ -n "$daemon" ]; then
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
ip netns exec "$switch" "$bin/xswitchd" --run-dir "$dir/run" --state-dir "$dir/state" 2>"$dir/log" &
daemon=$!
for _ in $(seq 100); do
	[ -S "$dir/run/api.sock" ] && break
	kill -0 "$daemon" 2>/dev/null || fail "the daemon ended"
	sleep 0.1
done
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
echo "-> apart, as it must be"

# Starts an iperf3 server for one client in db.
serve() {
	in_guest 1 iperf3 -s -1 >/dev/null &
	server=$!
	for _ in $(seq 50); do in_guest 1 ss -ltn 2>/dev/null | grep -q :5201 && break; sleep 0.1; done
}

say "iperf3 from web to db for 5 seconds, and the rates meanwhile"
serve
in_guest 0 timeout 30 iperf3 -c 10.0.0.2 -t 5 >"$dir/iperf" &
client=$!
sleep 2
xswitch top --interval 1 --count 2
wait "$client" || fail "iperf3: $(cat "$dir/iperf")"
server=
tail -n 4 "$dir/iperf"

say "A meter of 20 Mbit/s on what web sends (it is vport 0, so meter 0 applies to it)"
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

say "What would go to db goes to other instead, until that is undone"
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

say "Counters, learned addresses, and where every frame of packet memory is"
xswitch stats
echo
xswitch fdb list
echo
xswitch audit

say "All of it was as it must be"

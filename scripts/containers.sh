#!/usr/bin/env bash
# TCP of two network namespaces by iperf3, through a Linux bridge with its offloads, through the switch, and through the
# switch with a flow table in XDP, taking turns in one run. Prints Gbit/s for each MTU, and the share of the bridge at
# MTU 1,500.
#
# usage: scripts/containers.sh [SECONDS [ROUNDS]]; needs root, iproute2, iperf3, jq, and `make release`
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5} rounds=${2:-3}
programs=${XSWITCH_BIN_DIR:-target/release}
tag=xc$$
dir=$(mktemp -d)
daemons=

finish() {
	for daemon in $daemons; do kill "$daemon"; wait "$daemon" || :; done
	for ns in "$tag" "${tag}a" "${tag}b"; do ip netns del "$ns" 2>/dev/null || :; done
	rm -rf "$dir"
}
trap finish EXIT

for ns in "$tag" "${tag}a" "${tag}b"; do
	ip netns add "$ns"
	ip -n "$ns" link set lo up
done
for way in switch table; do
	mkdir -p "$dir/$way/run" "$dir/$way/state"
	offload=off
	[ "$way" = switch ] || offload=auto
	printf '[dataplane]\nflow_offload = "%s"\n[metrics]\nlisten = ""\n[spp]\nlisten = ""\n' "$offload" >"$dir/$way/xswitch.toml"
	ip netns exec "$tag" "$programs/xswitchd" --config "$dir/$way/xswitch.toml" --run-dir "$dir/$way/run" \
		--state-dir "$dir/$way/state" 2>"$dir/$way/log" &
	daemons="$daemons $!"
	while [ ! -S "$dir/$way/run/api.sock" ]; do sleep 0.1; done
done

# measure ADDRESS: Gbit/s from the one namespace to the other.
measure() {
	ip netns exec "${tag}b" iperf3 -s -1 >/dev/null &
	server=$!
	sleep 0.5
	ip netns exec "${tag}a" iperf3 -J -c "$1" -t "$seconds" | jq '.end.sum_received.bits_per_second / 1e9'
	wait "$server" || :
}

# bridge MTU
bridge() {
	ip -n "$tag" link add br0 mtu "$1" type bridge
	ip -n "$tag" link set br0 up
	for end in a b; do
		ip -n "$tag" link add "v$end" mtu "$1" type veth peer name e0 mtu "$1" netns "$tag$end"
		ip -n "$tag" link set "v$end" master br0 up
		ip -n "$tag$end" link set e0 up
	done
	ip -n "${tag}a" address add 10.9.0.1/24 dev e0
	ip -n "${tag}b" address add 10.9.0.2/24 dev e0
	measure 10.9.0.2
	for end in a b; do ip -n "$tag" link del "v$end"; done
	ip -n "$tag" link del br0
}

# call WAY METHOD PATH [BODY]
call() {
	curl -sf --unix-socket "$dir/$1/run/api.sock" -X "$2" "http://localhost/api/v1/$3" \
		-H 'content-type: application/json' -d "${4:-}" >/dev/null
}

# switch MTU WAY
switch() {
	for end in a b; do
		call "$2" POST ports "{\"name\":\"$end\",\"kind\":\"guest\",\"netns\":\"$tag$end\",\"guest_ifname\":\"e0\",\"mtu\":$1}"
	done
	ip -n "${tag}a" address add 10.9.0.1/24 dev e0
	ip -n "${tag}b" address add 10.9.0.2/24 dev e0
	measure 10.9.0.2
	for end in a b; do call "$2" DELETE "ports/$end"; done
}

mtus="1500 9000 65000"
for round in $(seq "$rounds"); do
	for mtu in $mtus; do
		printf 'bridge %s %s\n' "$mtu" "$(bridge "$mtu")"
		printf 'switch %s %s\n' "$mtu" "$(switch "$mtu" switch)"
		printf 'table %s %s\n' "$mtu" "$(switch "$mtu" table)"
	done
done | tee "$dir/all" >&2
jq -rRn '
	[inputs | split(" ") | { what: .[0], mtu: .[1], rate: (.[2] | tonumber) }]
	| group_by([.what, (.mtu | tonumber)])
	| map({ what: .[0].what, mtu: .[0].mtu, median: (map(.rate) | sort | .[length / 2 | floor]) })
	| (map(select(.what == "bridge" and .mtu == "1500"))[0].median) as $base
	| .[] | "\(.what) \(.mtu): \(.median * 100 | round / 100) Gbit/s, \(.median / $base * 100 | round / 100) x the bridge at 1500"
' "$dir/all"

#!/usr/bin/env bash
# Asks the Linux bonding driver which options it takes: each option and value, in each mode and state of a bond. Prints
# a table. It is kept as switch/bond/tests/linux-options.tsv, and the options of a bond are tested against it.
#
# The driver runs in the guest of scripts/guest.sh, which is made with that module in a cache of its own. BONDING_CACHE
# names it and keeps it. QEMU is the one of scripts/qemu.sh, or QEMU names another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
qemu=${QEMU:-${XSWITCH_CACHE:-/var/cache/xswitch}/qemu/qemu-system-x86_64}
cache=${BONDING_CACHE:-$work/cache}
XSWITCH_CACHE=$cache XSWITCH_GUEST_MODULES=bonding "$here/guest.sh" >&2

# What the guest does. Columns: mode, state, option, value, error (0: none), option and miimon afterwards.
cat >"$work/script" <<'SCRIPT'
modprobe bonding max_bonds=0
dir=/sys/class/net/bond0/bonding
number() {
	case $1 in
	*"Invalid argument") echo 22 ;; *"Permission denied") echo 13 ;; *"Device or resource busy") echo 16 ;;
	*"Directory not empty") echo 39 ;; *"Operation not permitted") echo 1 ;; '') echo 0 ;; *) echo "$1" ;;
	esac
}
try() {
	echo +bond0 >/sys/class/net/bonding_masters
	echo "$1" >$dir/mode
	[ "$4" != delay ] || echo 100 >$dir/miimon
	case $2 in
	up) ip link set bond0 up ;;
	members) ip link set eth0 down; echo +eth0 >$dir/slaves ;;
	esac
	error=$( (echo "$5" >"$dir/$3") 2>&1)
	printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$5" "$(number "$error")" "$(cat "$dir/$3")" "$(cat $dir/miimon)"
	echo -bond0 >/sys/class/net/bonding_masters
}
for mode in balance-rr active-backup balance-xor broadcast 802.3ad; do
	for state in down up members; do
		while read -r option kind values; do
			for value in $values; do try $mode $state $option "$kind" "$value"; done
		done <<'OPTIONS'
mode word balance-rr 1 balance-xor broadcast 802.3ad 7 nonsense
miimon number 0 30 off default maxval 2147483648 -1 x
updelay number 0 100
updelay delay 0 100 250 99 2147483648
downdelay delay 130 off
peer_notif_delay delay 250 300000 300100 300001
xmit_hash_policy word layer2 layer2+3 layer3+4 encap2+3 encap3+4 vlan+srcmac 1 2 5 6 Layer2
lacp_rate word slow fast 1 2 default
lacp_active word off on 0 2
ad_select word stable bandwidth count 2 3
ad_actor_sys_prio number 1 65535 0 65536
ad_actor_system raw 02:00:00:00:00:01 00:00:00:00:00:00 01:00:00:00:00:01 2:0
ad_user_port_key number 0 1023 1024
min_links number 0 1 2147483647 2147483648 off
primary raw eth0 eth9
primary_reselect word always better failure 1 3
fail_over_mac word none active follow 2 3
num_grat_arp number 0 255 256 default
num_unsol_na number 3 256
resend_igmp number 0 255 256 default
all_slaves_active word 0 1 on off 2
packets_per_slave number 0 1 65535 65536
lp_interval number 1 0 minval 2147483647
use_carrier word 1 on
tlb_dynamic_lb word 1
OPTIONS
	done
done
echo end of table
SCRIPT
truncate -s %512 "$work/script"
size=$(tr -d '\0' <"$work/script" | wc -c)

mkfifo "$work/in"
timeout 3600 "$qemu" -machine pc -accel tcg -cpu max -m 256 -L "${qemu%/*}/firmware" -nodefaults -no-user-config -display none \
	-no-reboot -kernel "$cache/guest/vmlinux" -initrd "$cache/guest/initramfs" -append "console=ttyS0 quiet" \
	-serial stdio -drive "file=$work/script,format=raw,if=none,id=d,readonly=on" -device virtio-blk-pci,drive=d \
	-netdev hubport,id=n,hubid=0 -device virtio-net-pci,netdev=n,romfile=,speed=10000,duplex=full \
	<"$work/in" >"$work/out" &
exec 3>"$work/in"
await() {
	until grep -q "$1" "$work/out"; do
		kill -0 $! || fail "the guest ended before it said \`$1\`"
		sleep 1
	done
}
await 'xswitch-guest ready'
echo "run TOKEN head -c $size /dev/vda >/tmp/script; sh /tmp/script" >&3
await 'end of table'
kill $!
uname=$(grep -aom 1 'Linux version [^ ]*' "$cache/guest/vmlinux" || true)
echo "# ${uname:-Linux}: made by scripts/bond-options.sh"
printf '# mode\tstate\toption\tvalue\terror\toption after\tmiimon after\n'
tr -d '\r' <"$work/out" | grep -E '^[a-z0-9.-]+	(down|up|members)	'

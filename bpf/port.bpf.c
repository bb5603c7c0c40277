// SPDX-License-Identifier: GPL-2.0-only
/* The XDP program on the netdev of every port: it decides which packets go to the switch.
 *
 * A packet for the switch goes to the AF_XDP socket of the queue that it came in on. There is no other choice, because
 * an AF_XDP socket receives from its own netdev and queue only (net/xdp/xsk.c, xsk_rcv_check). With steering `all`
 * every packet is for the switch. With `shared` a packet is for the switch if its destination address and outer VLAN
 * tag are in the steering set. So the host keeps its own traffic on the same NIC.
 *
 * Every packet is counted by outcome, per queue and CPU, without atomics. A redirect is counted before the socket takes
 * the packet. The socket's own XDP_STATISTICS count what a full ring loses afterwards.
 *
 * A packet may have several buffers, if the loader says so (BPF_F_XDP_HAS_FRAGS). Only the first one is read: it has at
 * least the Ethernet header and a tag.
 *
 * A packet of a flow that was decided before may go on in the kernel: `flows.h`.
 *
 * The program does not see a tag that a NIC strips into its descriptor. VLAN stripping must be off on a shared NIC that
 * has VLANs.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flows.h"
#include "queues.h"

#define MAX_STATIONS 16384

_Static_assert(XSW_OUTCOMES <= 16, "an outcome needs a place in struct xsw_counters");

/* The loader sets these before it loads the program. They are constant then, so the verifier drops dead branches. */
const volatile __u32 queue_count = 1;
const volatile _Bool steer_shared = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	/* Twice, so that a full set can be replaced by another one with the additions first. */
	__uint(max_entries, 2 * MAX_STATIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct xsw_steer_key);
	__type(value, __u8);
} stations SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

static __always_inline int verdict(struct xsw_counters *counts, enum xsw_outcome outcome, int action)
{
	if (counts)
		counts->outcomes[outcome]++;
	return action;
}

/* Whether a unicast frame is for a station behind the switch. */
static __always_inline int is_ours(const struct ethhdr *eth, const void *end)
{
	struct xsw_steer_key key = {};

	__builtin_memcpy(key.mac, eth->h_dest, ETH_ALEN);
	if (eth->h_proto == bpf_htons(ETH_P_8021Q) || eth->h_proto == bpf_htons(ETH_P_8021AD)) {
		const struct vlan_tag *tag = (const void *)(eth + 1);

		/* A truncated tag names no VLAN, least of all the untagged segment. */
		if ((const void *)(tag + 1) > end)
			return 0;
		key.vid = bpf_ntohs(tag->tci) & 0xfff;
	}
	if (bpf_map_lookup_elem(&stations, &key))
		return 1;
	key.vid = XSW_ANY_VID;
	return bpf_map_lookup_elem(&stations, &key) != NULL;
}

SEC("xdp")
int xswitch_port(struct xdp_md *ctx)
{
	const void *data = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *eth = data;
	__u32 queue = ctx->rx_queue_index;
	/* Packets from a queue that the port does not have count at its queue 0. */
	__u32 row = queue < queue_count ? queue : 0;
	struct xsw_counters *counts = bpf_map_lookup_elem(&counters, &row);
	int action = XDP_DROP;

	if ((const void *)(eth + 1) > end)
		return verdict(counts, XSW_DROP_SHORT, XDP_DROP);
	if (steer_shared) {
		if (eth->h_dest[0] & 1)
			return verdict(counts, XSW_PASS_GROUP, XDP_PASS);
		if (!is_ours(eth, end))
			return verdict(counts, XSW_PASS, XDP_PASS);
	}
	if (queue >= queue_count)
		return verdict(counts, XSW_DROP_QUEUE, XDP_DROP);
	switch (follow_flow(ctx, queue, &action)) {
	case FLOW_GONE:
		return verdict(counts, XSW_FLOW, action);
	case FLOW_WAIT:
		return verdict(counts, XSW_DROP_MOVING, XDP_DROP);
	}
	if (!bpf_map_lookup_elem(&sockets, &queue))
		return verdict(counts, XSW_DROP_NO_SOCKET, XDP_DROP);
	verdict(counts, XSW_REDIRECT, XDP_REDIRECT);
	return bpf_redirect_map(&sockets, queue, XDP_DROP);
}

char LICENSE[] SEC("license") = "GPL";

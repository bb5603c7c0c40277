/* SPDX-License-Identifier: GPL-2.0-only */
/* The flow table: packets whose flow was decided before go on in the kernel.
 *
 * User space writes the entries, and XDP follows them. A packet whose flow has no entry goes to the switch's socket, as
 * every packet does without a table.
 *
 * An entry is read by a sequence lock: the sequence first, then the key, then the rest, then the sequence again. It
 * holds while its epoch is not older than that of the table. So one store ends all decisions of an older policy. Loads
 * must stay in order, which x86 does by itself. The loader leaves the table out elsewhere.
 *
 * Packets of a flow stay in order when it moves here. A new entry has `sent` and `done` apart. As long as they differ,
 * a packet goes to the socket with the next number in its metadata. The switch writes the number to `done` when that
 * packet has left. Queues are first in, first out. So when both are equal, no earlier packet of the flow is on its way.
 *
 * Counters are plain additions. The queue is part of the key, and one CPU at a time polls a queue.
 */
#ifndef XSWITCH_FLOWS_H
#define XSWITCH_FLOWS_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "xswitch.h"

/* The loader sets these. Without a table `flow_buckets` is 0, and the verifier drops all of this. */
const volatile __u32 flow_buckets = 0; /* a power of two */
const volatile __u32 flow_port = 0;    /* number of the port */
const volatile __u32 flow_cookie = 0;
/* Random, odd, and secret: nobody can choose flows that collide. */
const volatile __u64 flow_seeds[8] = {};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xsw_flow_bucket);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xsw_flow_control);
} flow_control SEC(".maps");

/* The netdev of each port that packets can be sent out of. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, XSW_MAX_PORTS);
	__type(key, __u32);
	__type(value, __u32);
} flow_exits SEC(".maps");

#define READ(place) (*(const volatile __typeof__(place) *)&(place))

/* Key bits beside the bytes of the packet. They are those of the switch's own flow cache (`flow_key.rs`), but for word
 * 0: its upper half word has the queue and KEY_L2 in place of bytes that word 1 has too. */
#define KEY_QUEUE_SHIFT 48
#define KEY_L2 (1ULL << 63)
#define KEY_V6 (1ULL << 63)
#define KEY_TCP (1ULL << 62)
#define KEY_PORT_SHIFT 48

#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define TCP_HEADER 20
#define UDP_HEADER 8

struct flow_packet {
	__u64 key[7];
	__u32 len; /* of the whole packet, in bytes */
	_Bool is_long; /* of several buffers */
};

static __always_inline __u64 word(const void *at)
{
	return *(const __u64 *)at;
}

/* Reads the key of an IP packet. 0 if it has none. The switch's `l2_key` says the same. */
static __always_inline int key_l2(struct flow_packet *packet, const void *data, const void *end)
{
	__u64 port = (__u64)flow_port << KEY_PORT_SHIFT;
	__u16 type;

	if (data + ETH_HLEN + 4 > end)
		return 0;
	type = *(const __u16 *)(data + 12);
	if (type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD)) {
		type = *(const __u16 *)(data + 16);
		port |= *(const __u32 *)(data + 14);
	}
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6))
		return 0;
	packet->key[0] |= KEY_L2;
	packet->key[2] = port;
	return 1;
}

/* Reads the key of a whole TCP or UDP packet without options or extension headers. 0 if it is another. The switch's
 * `flow_key` says the same. */
static __always_inline int key_l4(struct flow_packet *packet, const void *data, const void *end)
{
	__u64 third = (__u64)flow_port << KEY_PORT_SHIFT;
	const __u8 *ip = data + ETH_HLEN;
	__u32 header, transport, total;
	__u16 type;
	__u8 protocol;

	if ((const void *)ip > end)
		return 0;
	type = *(const __u16 *)(data + 12);
	if (type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD)) {
		ip += 4;
		if ((const void *)ip > end)
			return 0;
		third |= (__u64)bpf_ntohs(*(const __u16 *)(data + 14)) << 32;
		type = *(const __u16 *)(data + 16);
	}
	if (type == bpf_htons(ETH_P_IP)) {
		if ((const void *)(ip + IPV4_HEADER + 8) > end)
			return 0;
		if (ip[0] != 0x45 || *(const __u16 *)(ip + 6) & bpf_htons(0x3fff))
			return 0;
		protocol = ip[9];
		header = IPV4_HEADER;
		total = bpf_ntohs(*(const __u16 *)(ip + 2));
		packet->key[3] = word(ip + 12);
		third |= *(const __u32 *)(ip + IPV4_HEADER);
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		if ((const void *)(ip + IPV6_HEADER + 8) > end)
			return 0;
		if (ip[0] >> 4 != 6)
			return 0;
		protocol = ip[6];
		header = IPV6_HEADER;
		total = IPV6_HEADER + bpf_ntohs(*(const __u16 *)(ip + 4));
		packet->key[3] = word(ip + 8);
		packet->key[4] = word(ip + 16);
		packet->key[5] = word(ip + 24);
		packet->key[6] = word(ip + 32);
		third |= KEY_V6 | *(const __u32 *)(ip + IPV6_HEADER);
	} else {
		return 0;
	}
	if (protocol == 6)
		transport = TCP_HEADER;
	else if (protocol == 17)
		transport = UDP_HEADER;
	else
		return 0;
	if (transport == TCP_HEADER)
		third |= KEY_TCP;
	if (header + transport > total || total > (__u32)(end - (const void *)ip))
		return 0;
	packet->key[2] = third;
	return 1;
}

static __always_inline __u64 flow_hash(const __u64 *key)
{
	__u64 hash = key[0] * flow_seeds[0] + key[1] * flow_seeds[1] + key[2] * flow_seeds[2] + key[3] * flow_seeds[3];

	if (key[2] & KEY_V6)
		hash += key[4] * flow_seeds[4] + key[5] * flow_seeds[5] + key[6] * flow_seeds[6];
	hash ^= hash >> 32;
	return hash * flow_seeds[7];
}

static __always_inline int is_key(const struct xsw_flow *flow, const __u64 *key)
{
	if (READ(flow->key[0]) != key[0] || READ(flow->key[1]) != key[1] || READ(flow->key[2]) != key[2] ||
	    READ(flow->key[3]) != key[3])
		return 0;
	return !(key[2] & KEY_V6) || (READ(flow->key[4]) == key[4] && READ(flow->key[5]) == key[5] &&
				      READ(flow->key[6]) == key[6]);
}

/* Carries out an action's edit. 0 if there is no room. */
static __always_inline int edit(struct xdp_md *ctx, __u32 op, __u16 tci)
{
	struct {
		__u64 head;
		__u32 tail;
	} addresses;
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	if (op == XSW_FLOW_SEND)
		return 1;
	if (data + ETH_HLEN + 4 > end)
		return 0;
	if (op == XSW_FLOW_SET_TCI) {
		*(__u16 *)(data + 14) = bpf_htons(tci);
		return 1;
	}
	addresses.head = word(data);
	addresses.tail = *(__u32 *)(data + 8);
	if (bpf_xdp_adjust_head(ctx, op == XSW_FLOW_POP ? 4 : -4))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + ETH_HLEN + 4 > end)
		return 0;
	*(__u64 *)data = addresses.head;
	*(__u32 *)(data + 8) = addresses.tail;
	if (op != XSW_FLOW_POP) {
		*(__u16 *)(data + 12) = op == XSW_FLOW_PUSH_C ? bpf_htons(ETH_P_8021Q) : bpf_htons(ETH_P_8021AD);
		*(__u16 *)(data + 14) = bpf_htons(tci);
	}
	return 1;
}

/* What becomes of a packet. */
enum flow_outcome {
	FLOW_SOCKET, /* it goes to the socket */
	FLOW_WAIT,   /* it is dropped, because the switch is busy with earlier ones */
	FLOW_GONE,   /* the entry says what is done with it: `action` */
};

/* Puts the packet's number in front of it. A packet without one only delays its flow. */
static __always_inline int numbered(struct xdp_md *ctx, struct xsw_flow *flow, __u32 slot)
{
	__u32 number = flow->sent + 1;
	struct xsw_flow_mark *mark;

	if (READ(flow->flags) & XSW_FLOW_LIMITED && (__s32)(number - READ(flow->limit)) > 0)
		return FLOW_WAIT;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*mark)))
		return FLOW_SOCKET;
	mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) > (void *)(long)ctx->data)
		return FLOW_SOCKET;
	*mark = (struct xsw_flow_mark){ .slot = slot, .number = number, .cookie = flow_cookie };
	*(volatile __u32 *)&flow->sent = number;
	return FLOW_SOCKET;
}

/* Does with a packet what the entry of its flow says, if `flow` is that. Negative if it is not. */
static __always_inline int follow(struct xdp_md *ctx, struct xsw_flow *flow, __u32 slot, __u32 epoch,
				  const struct flow_packet *packet, int *action)
{
	__u32 seq = READ(flow->seq);
	__u32 op, exit;
	__u64 what;

	if (!is_key(flow, packet->key))
		return -1;
	what = READ(flow->action);
	if ((__s32)(READ(flow->epoch) - epoch) < 0 || seq & 1 || READ(flow->seq) != seq)
		return FLOW_SOCKET;
	if (packet->len > what >> 48 || (packet->is_long && what & XSW_FLOW_ONE_BUFFER))
		return FLOW_SOCKET;
	if (READ(flow->sent) != READ(flow->done))
		return numbered(ctx, flow, slot);
	op = what >> 16 & 0xf;
	exit = what & 0xffff;
	if (op == XSW_FLOW_DROP)
		*action = XDP_DROP;
	else if (edit(ctx, op, what >> 32))
		*action = bpf_redirect_map(&flow_exits, exit, XDP_DROP);
	else
		return FLOW_SOCKET;
	flow->packets++;
	flow->bytes += packet->len;
	return FLOW_GONE;
}

/* Looks the packet's flow up, and does with it what is said there. */
static __always_inline int follow_flow(struct xdp_md *ctx, __u32 queue, int *action)
{
	const void *data = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	struct xsw_flow_control *control;
	struct flow_packet packet = {};
	__u32 depth, zero = 0;
	__u64 hash;

	if (!flow_buckets)
		return FLOW_SOCKET;
	control = bpf_map_lookup_elem(&flow_control, &zero);
	if (!control || flow_port >= XSW_MAX_PORTS || !READ(control->installed[flow_port]))
		return FLOW_SOCKET;
	if (data + ETH_HLEN > end)
		return FLOW_SOCKET;
	packet.len = bpf_xdp_get_buff_len(ctx);
	packet.is_long = packet.len != (__u32)(end - data);
	packet.key[0] = (word(data) & 0xffffffffffff) | (__u64)queue << KEY_QUEUE_SHIFT;
	packet.key[1] = word(data + 6);
	depth = READ(control->depth);
	if (depth == XSW_FLOW_L2 ? !key_l2(&packet, data, end) : !key_l4(&packet, data, end))
		return FLOW_SOCKET;
	hash = flow_hash(packet.key);
#pragma unroll
	for (int choice = 0; choice < 2; choice++) {
		__u32 place = (__u32)(choice ? hash : hash >> 32) & (flow_buckets - 1);
		struct xsw_flow_bucket *bucket = bpf_map_lookup_elem(&flows, &place);

#pragma unroll
		for (int way = 0; bucket && way < 2; way++) {
			int outcome = follow(ctx, &bucket->ways[way], 2 * place + way, READ(control->epoch), &packet, action);

			if (outcome >= 0)
				return outcome;
		}
	}
	return FLOW_SOCKET;
}

#endif

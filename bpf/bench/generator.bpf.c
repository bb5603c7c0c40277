/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bench's generator, run by BPF_PROG_RUN with live frames. It makes each frame the next packet of a load and sends
 * it out of a netdev. bench/src/generator.rs fills in the row and runs it.
 *
 * Five fields walk through sets of their own. Each packet takes the base plus an index. Then the index moves on by a
 * stride around the set. A stride without a common divisor with the size takes every member once, in scattered order.
 * No division is needed.
 *
 * Pages of live frames come back as the last receiver left them, for example with swapped addresses. So every field
 * that varies, and both addresses, are written into every frame.
 *
 * With an interval the program paces itself, and the caller runs it in batches of one. A frame that is not due yet is
 * dropped, which costs some tens of nanoseconds. After a pause the program does not catch up.
 */
#include "../tests/test_bpf.h"
#include <linux/if_ether.h>

/* A field that walks through a set. */
struct walk {
	__u32 base;
	__u32 at;	/* index of the next packet, below size */
	__u32 stride;	/* below size */
	__u32 size;	/* 1: does not move */
};

struct load {
	__u64 sent;
	__u64 limit;	/* number of packets to send */
	__u64 due;	/* time of the next packet, in 1/256 ns of bpf_ktime_get_ns */
	__u64 interval;	/* between packets, in 1/256 ns; 0: as fast as it goes */
	__u32 ifindex;	/* netdev that sends the frames */
	__u32 stamp;	/* whether the payload gets the time instead of the number */
	__u32 ip_sum;	/* sum of the IPv4 header's words, without checksum and addresses */
	__u16 dst_high;	/* first two bytes of the addresses, as in memory */
	__u16 src_high;
	struct walk dst_mac;	/* last four bytes */
	struct walk src_mac;
	struct walk src_ip;
	struct walk dst_ip;
	struct walk ports;	/* source in the upper half, destination in the lower */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct load);
} LOAD SEC(".maps");

struct packet {
	__u16 dst_high;
	__be32 dst_low;
	__u16 src_high;
	__be32 src_low;
	__be16 proto;
	__u8 ip[10];
	__u16 ip_check;
	__be32 src_ip;
	__be32 dst_ip;
	__be32 ports;
	__be16 udp_len;
	__be16 udp_check;
	struct stream_mark mark;
} __attribute__((packed));

/* Longest delay that a paced load catches up with: 100 us. */
#define LATE (100000ull << 8)

static ALWAYS_INLINE __be32 step(struct walk *walk)
{
	__u32 at = walk->at, value = walk->base + at;

	if (walk->size > 1) {
		at += walk->stride;
		walk->at = at >= walk->size ? at - walk->size : at;
	}
	return __builtin_bswap32(value);
}

static ALWAYS_INLINE __u32 words(__u32 value)
{
	return (value & 0xffff) + (value >> 16);
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct load *load = bpf_map_lookup_elem(&LOAD, &zero);
	struct packet *packet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 sum;

	if (!load || (void *)(packet + 1) > end)
		return XDP_ABORTED;
	if (load->sent >= load->limit)
		return XDP_DROP;
	if (load->interval) {
		__u64 now = bpf_ktime_get_ns() << 8;

		if (now < load->due)
			return XDP_DROP;
		if (now - load->due > LATE)
			load->due = now;
		load->due += load->interval;
	}
	packet->dst_high = load->dst_high;
	packet->dst_low = step(&load->dst_mac);
	packet->src_high = load->src_high;
	packet->src_low = step(&load->src_mac);
	packet->src_ip = step(&load->src_ip);
	packet->dst_ip = step(&load->dst_ip);
	packet->ports = step(&load->ports);
	sum = words(load->ip_sum + words(packet->src_ip) + words(packet->dst_ip));
	packet->ip_check = ~words(sum);
	packet->mark.seq = load->stamp ? bpf_ktime_get_ns() : load->sent;
	load->sent++;
	return bpf_redirect(load->ifindex, 0);
}

char LICENSE[] SEC("license") = "Apache-2.0";

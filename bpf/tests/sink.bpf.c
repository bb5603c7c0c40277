/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sink: counts the packets of numbered streams that reach a netdev, judges their order and drops them. Everything else
 * is counted and passed on to the stack.
 *
 * A stream is expected on one receive queue at a time, because a switch that keeps flows in order delivers it so. Rows
 * are therefore written without a lock. Duplicates are recognized among the last 64 sequence numbers. An older packet
 * counts as reordered.
 */
#include "test_bpf.h"
#include <linux/if_ether.h>

struct stream {
	__u64 received;
	__u64 bytes;
	__u64 next;		/* highest sequence number so far, plus one */
	__u64 gaps;		/* numbers skipped when `next` moved on. Late arrivals do not lower it */
	__u64 reordered;	/* came after a higher number, first time */
	__u64 duplicated;	/* came again */
	__u64 window;		/* bit i: sequence number next - 1 - i was seen */
	__u64 tagged;		/* came with a VLAN tag */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_STREAMS);
	__type(key, __u32);
	__type(value, struct stream);
} STREAMS SEC(".maps");

/* Row 0: frames that belong to no stream. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} OTHER SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 next;
};

struct ipv4 {
	__u8 version_ihl;
	__u8 skip[8];
	__u8 protocol;
	__u8 rest[10];
} __attribute__((packed));

static ALWAYS_INLINE void judge(struct stream *row, __u64 seq)
{
	__u64 ahead, age;

	if (seq >= row->next) {
		ahead = seq - row->next;
		row->gaps += ahead;
		row->window = ahead < 63 ? (row->window << (ahead + 1)) | 1 : 1;
		row->next = seq + 1;
		return;
	}
	age = row->next - 1 - seq;
	if (age < 64 && ((row->window >> age) & 1)) {
		row->duplicated++;
		return;
	}
	if (age < 64)
		row->window |= 1ull << age;
	row->reordered++;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct stream_mark *mark;
	struct stream *row;
	struct ipv4 *ip;
	__u64 *other;
	__be16 proto;
	__u32 key = 0;
	void *next = eth + 1;
	int tags = 0;

	if (next > end)
		goto not_ours;
	proto = eth->h_proto;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag = next;

		if (proto != __builtin_bswap16(ETH_P_8021Q) && proto != __builtin_bswap16(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			goto not_ours;
		proto = tag->next;
		next = tag + 1;
		tags++;
	}
	ip = next;
	if (proto != __builtin_bswap16(ETH_P_IP) || (void *)(ip + 1) > end)
		goto not_ours;
	if (ip->version_ihl != 0x45 || ip->protocol != 17)
		goto not_ours;
	mark = next + sizeof(*ip) + 8;
	if ((void *)(mark + 1) > end || mark->magic != STREAM_MAGIC)
		goto not_ours;
	key = mark->stream;
	row = bpf_map_lookup_elem(&STREAMS, &key);
	if (!row)
		goto not_ours;
	row->received++;
	row->bytes += end - data;
	row->tagged += tags > 0;
	judge(row, mark->seq);
	return XDP_DROP;

not_ours:
	key = 0;
	other = bpf_map_lookup_elem(&OTHER, &key);
	if (other)
		(*other)++;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Apache-2.0";

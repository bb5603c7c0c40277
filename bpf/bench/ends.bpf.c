/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs on the guests' ends during a measurement. The far one counts packets and drops them, or sends them back
 * if the generator has marked them so. The near one measures the round trip time of returned packets. Both touch only
 * packets of the bench's generator. Everything else goes on to the stack.
 */
#include "../tests/test_bpf.h"
#include <linux/if_ether.h>

/* Stream number of packets to send back. They carry the time when they were sent. */
#define RETURNS 2

/* Counters of an end. The reader sums them over CPUs. */
struct seen {
	__u64 packets;
	__u64 bytes;
	__u64 others;	/* not of the generator */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} SEEN SEC(".maps");

/*
 * Round trip times in nanoseconds, log-linear. Values below 128 have a bucket each. Then every octave has 128 buckets,
 * so a bucket is less than 1 % wide. The last bucket has everything from 2^32 on. bench/src/histogram.rs has the
 * inverse.
 */
#define STEPS 128
#define OCTAVES 26
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STEPS * OCTAVES);
	__type(key, __u32);
	__type(value, __u64);
} TIMES SEC(".maps");

/* Whether times are taken. They are not while a load begins. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} TIMING SEC(".maps");

struct packet {
	__u16 dst[3];
	__u16 src[3];
	__be16 proto;
	__u8 ip[20];
	__u8 udp[8];
	struct stream_mark mark;
} __attribute__((packed));

static ALWAYS_INLINE struct packet *ours(struct xdp_md *ctx)
{
	struct packet *packet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct seen *seen = bpf_map_lookup_elem(&SEEN, &zero);

	if (!seen)
		return 0;
	if ((void *)(packet + 1) > end || packet->proto != __builtin_bswap16(ETH_P_IP) ||
	    packet->mark.magic != STREAM_MAGIC) {
		seen->others++;
		return 0;
	}
	seen->packets++;
	seen->bytes += end - (void *)packet;
	return packet;
}

SEC("xdp")
int far(struct xdp_md *ctx)
{
	struct packet *packet = ours(ctx);

	if (!packet)
		return XDP_PASS;
	if (packet->mark.stream != RETURNS)
		return XDP_DROP;
#pragma unroll
	for (int i = 0; i < 3; i++) {
		__u16 word = packet->dst[i];

		packet->dst[i] = packet->src[i];
		packet->src[i] = word;
	}
	/* XDP_TX would not wake the NAPI of a peer that has GRO but no program (drivers/net/veth.c, veth_xdp_flush). */
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

static ALWAYS_INLINE __u32 bucket(__u64 ns)
{
	__u32 value = ns >> 32 ? 0xffffffff : ns, shift = 0;

	/* The largest shift that leaves at least STEPS. The result is below twice STEPS. */
#pragma unroll
	for (int i = 16; i; i /= 2) {
		if (value >> (shift + i) >= STEPS)
			shift += i;
	}
	return value < STEPS ? value : shift * STEPS + (value >> shift);
}

SEC("xdp")
int near(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns(), *count;
	struct packet *packet = ours(ctx);
	__u32 key = 0, *timing = bpf_map_lookup_elem(&TIMING, &key);

	if (!packet)
		return XDP_PASS;
	if (packet->mark.stream != RETURNS)
		return XDP_DROP;
	if (!timing || !*timing)
		return XDP_DROP;
	key = bucket(now - packet->mark.seq);
	count = bpf_map_lookup_elem(&TIMES, &key);
	if (count)
		(*count)++;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Apache-2.0";

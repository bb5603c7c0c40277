/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generator, run by BPF_PROG_RUN with live frames. It stamps the next sequence number into a copy of the template frame
 * and sends it out of a netdev.
 *
 * The kernel recycles the pages of live frames within one call without copying the template again. So the one field
 * that changes is written into every frame.
 */
#include "test_bpf.h"

struct generator {
	__u64 next;	/* sequence number of the next frame */
	__u32 ifindex;	/* netdev that sends the frames */
	__u32 seq_at;	/* offset of the sequence number in the frame */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct generator);
} GENERATOR SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct generator *gen = bpf_map_lookup_elem(&GENERATOR, &zero);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 at;
	__u64 *seq;

	if (!gen)
		return XDP_ABORTED;
	at = gen->seq_at;
	if (at > 256)
		return XDP_ABORTED;
	seq = data + at;
	if ((void *)(seq + 1) > end)
		return XDP_ABORTED;
	*seq = gen->next++;
	return bpf_redirect(gen->ifindex, 0);
}

char LICENSE[] SEC("license") = "Apache-2.0";

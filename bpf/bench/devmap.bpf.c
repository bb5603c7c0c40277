/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of the path in the kernel: what comes in on a netdev goes out of the one that a map names for it, nothing is
 * looked at.
 */
#include "../tests/test_bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 4);
} OTHER SEC(".maps");

SEC("xdp")
int forward(struct xdp_md *ctx)
{
	return bpf_redirect_map(&OTHER, ctx->ingress_ifindex, XDP_DROP);
}

char LICENSE[] SEC("license") = "Apache-2.0";

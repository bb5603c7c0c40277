/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lower bound of forwarding in the kernel. Frames from a netdev go out of the netdev that a map names for it,
 * without a look at the packet.
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

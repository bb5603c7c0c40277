/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program that QEMU's af-xdp netdev has on the guest's end of a port. Every packet of a queue goes to the AF_XDP
 * socket in that queue's slot. It goes to the stack while the slot is empty.
 */
#include "test_bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__uint(key_size, 4);
	__uint(value_size, 4);
} SOCKETS SEC(".maps");

SEC("xdp")
int to_socket(struct xdp_md *ctx)
{
	return bpf_redirect_map(&SOCKETS, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Apache-2.0";

// SPDX-License-Identifier: GPL-2.0-only
/* The XDP program on the guest's end of a port. Every packet goes to the AF_XDP socket of its queue, which belongs to a
 * guest (QEMU's `-netdev af-xdp`). None goes to the host's stack.
 *
 * The socket is put into its slot before it is bound. The guest's process can't do that itself, because BPF and raw
 * sockets are for privileged processes. So a slot may hold an unbound socket. The kernel drops packets for such a
 * socket without counting them. That is why the program looks at the socket first.
 *
 * The link and the maps are pinned, and outlive the daemon.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "queues.h"

/* `XSK_BOUND` of the anonymous enum in struct xdp_sock (include/net/xdp_sock.h). */
#define BOUND 1

/* The part of the kernel's struct that is read. The loader finds its offset in the kernel's type information (BTF). */
struct xdp_sock {
	enum { READY_STATE } state;
} __attribute__((preserve_access_index));

/* Kernel 6.2 and later. */
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

/* Whether the socket is bound. Every socket counts as bound on kernels before 6.2. Needs type information (BTF). */
static __always_inline int is_bound(const struct bpf_xdp_sock *socket)
{
	const struct xdp_sock *inside;

	if (!bpf_ksym_exists(bpf_rdonly_cast) || !bpf_core_field_exists(struct xdp_sock, state))
		return 1;
	inside = bpf_rdonly_cast(socket, bpf_core_type_id_kernel(struct xdp_sock));
	return inside->state == BOUND;
}

SEC("xdp")
int xswitch_guest(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	__u32 first = 0;
	struct xsw_counters *counts = bpf_map_lookup_elem(&counters, &queue);
	const struct bpf_xdp_sock *socket = bpf_map_lookup_elem(&sockets, &queue);
	enum xsw_outcome outcome = !socket ? XSW_DROP_NO_SOCKET : is_bound(socket) ? XSW_REDIRECT : XSW_DROP_UNBOUND;

	/* Packets from a queue that the port does not have count at its queue 0. */
	if (!counts)
		counts = bpf_map_lookup_elem(&counters, &first);
	if (counts)
		counts->outcomes[outcome]++;
	return outcome == XSW_REDIRECT ? bpf_redirect_map(&sockets, queue, XDP_DROP) : XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";

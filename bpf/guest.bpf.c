// SPDX-License-Identifier: GPL-2.0-only
/* The XDP program on the guest's end of a port: every packet goes to the AF_XDP socket of its queue, which is a guest's
 * (QEMU's `-netdev af-xdp`), and none to the host's stack.
 *
 * The socket is put into its slot before it is bound, because the guest's process may do neither (BPF and raw sockets are for
 * privileged ones), so a slot may hold a socket that nobody has bound yet. The kernel drops what is redirected to such a one
 * without counting it; here it is looked at first. The link and the maps are pinned, and outlive the daemon.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "queues.h"

/* `XSK_BOUND` of the anonymous enum in struct xdp_sock (include/net/xdp_sock.h). */
#define BOUND 1

/* The part of the kernel's struct that is read; where it is, the loader finds out from the kernel's type information. */
struct xdp_sock {
	enum { READY_STATE } state;
} __attribute__((preserve_access_index));

/* Kernel 6.2 and later. */
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

/* Whether the socket is bound; on kernels before 6.2 every socket is taken for bound. Type information the kernel must have. */
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
	__u32 row = queue < MAX_QUEUES ? queue : 0;
	struct xsw_counters *counts = bpf_map_lookup_elem(&counters, &row);
	const struct bpf_xdp_sock *socket = bpf_map_lookup_elem(&sockets, &queue);
	enum xsw_outcome outcome = !socket ? XSW_DROP_NO_SOCKET : is_bound(socket) ? XSW_REDIRECT : XSW_DROP_UNBOUND;

	if (counts)
		counts->outcomes[outcome]++;
	return outcome == XSW_REDIRECT ? bpf_redirect_map(&sockets, queue, XDP_DROP) : XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";

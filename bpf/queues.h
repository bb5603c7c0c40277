// SPDX-License-Identifier: GPL-2.0-only
/* The maps of each program: for each queue of its netdev a slot for an AF_XDP socket, and a row of counters. */
#ifndef XSWITCH_QUEUES_H
#define XSWITCH_QUEUES_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "xswitch.h"

/* The loader gives both maps the number of queues of the port. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xsw_counters);
} counters SEC(".maps");

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Definitions that the XDP programs share with their loader: outcomes, map shapes, the key of the steering set.
 *
 * The C side includes this file. The Rust side has the structs from the generated skeleton. No map's type has the order
 * of the outcomes, so the skeleton lacks it. `QueueCounters` in `xdp-prog/src/counters.rs` repeats the order. Plain C
 * types only.
 */
#ifndef XSWITCH_H
#define XSWITCH_H

/* Outcome of a packet. It is the index into a queue's counters. */
enum xsw_outcome {
	XSW_REDIRECT,       /* to the AF_XDP socket of its queue */
	XSW_PASS,           /* to the host's stack: not for the switch (shared steering) */
	XSW_PASS_GROUP,     /* group-addressed, to the host's stack. A packet socket gives the switch a copy */
	XSW_DROP_NO_SOCKET, /* for the switch, but its queue has no socket */
	XSW_DROP_SHORT,     /* shorter than an Ethernet header */
	XSW_DROP_QUEUE,     /* queue number beyond the port's queues */
	XSW_DROP_UNBOUND,   /* for a guest whose socket is not bound yet */
	XSW_OUTCOMES,
};

/* VID of a steering key that stands for any VLAN. */
#define XSW_ANY_VID 0xffff

/* A station behind the switch: its address, and the VID of the outer tag (0: untagged). Host byte order. */
struct xsw_steer_key {
	unsigned char mac[6];
	unsigned short vid;
};

/* Counters of one queue on one CPU. A row has 64 bytes, so that queues share no cache line. */
struct xsw_counters {
	unsigned long long outcomes[8];
};

#endif

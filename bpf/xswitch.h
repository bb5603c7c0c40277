/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the XDP programs and their loader share: outcomes, map shapes, the key of the steering set.
 *
 * The C side includes it; the Rust side has the structs from the generated skeleton. The order of the outcomes is in no map's
 * type and thus in no skeleton: `QueueCounters` in `xdp-prog/src/counters.rs` repeats it. Plain C types only.
 */
#ifndef XSWITCH_H
#define XSWITCH_H

/* What became of a packet; the index into a queue's counters. */
enum xsw_outcome {
	XSW_REDIRECT,       /* to the AF_XDP socket of its queue */
	XSW_PASS,           /* to the host's stack: not for the switch (shared steering) */
	XSW_PASS_GROUP,     /* group-addressed, to the host's stack; the switch gets a copy by a packet socket */
	XSW_DROP_NO_SOCKET, /* for the switch, but its queue has no socket */
	XSW_DROP_SHORT,     /* shorter than an Ethernet header */
	XSW_DROP_QUEUE,     /* queue number beyond the port's queues */
	XSW_DROP_UNBOUND,   /* for the guest, whose socket is not bound yet */
	XSW_OUTCOMES,
};

/* VLAN identifier of a steering key that stands for any VLAN. */
#define XSW_ANY_VID 0xffff

/* A station that is for the switch: its address, and the VLAN of its outer tag (0: untagged). Host byte order. */
struct xsw_steer_key {
	unsigned char mac[6];
	unsigned short vid;
};

/* Counters of one queue on one CPU. Rows of 64 bytes, so that no two queues share a cache line. */
struct xsw_counters {
	unsigned long long outcomes[8];
};

#endif

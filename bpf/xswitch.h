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
	XSW_FLOW,           /* done as the flow table says: sent out of another port, or dropped */
	XSW_DROP_MOVING,    /* dropped: earlier packets of its flow are on their way through a busy switch */
	XSW_OUTCOMES,
};

/* VID of a steering key that stands for any VLAN. */
#define XSW_ANY_VID 0xffff

/* A station behind the switch: its address, and the VID of the outer tag (0: untagged). Host byte order. */
struct xsw_steer_key {
	unsigned char mac[6];
	unsigned short vid;
};

/* Counters of one queue on one CPU. A row has whole cache lines, so that queues share none. */
struct xsw_counters {
	unsigned long long outcomes[16];
};

/* Ports that there can be (`MAX_PORTS` in the switch). */
#define XSW_MAX_PORTS 1024

/* What is done with a packet of a flow: bits 0 to 15 of `action` are the port that it goes out of, 16 to 19 one of
 * these, 32 to 47 the TCI, 48 to 63 the longest frame in bytes. XSW_FLOW_ONE_BUFFER stands beside it. */
enum xsw_flow_op {
	XSW_FLOW_SEND,
	XSW_FLOW_POP,      /* the tag is taken off */
	XSW_FLOW_SET_TCI,  /* the tag's TCI is replaced */
	XSW_FLOW_PUSH_C,   /* a tag of TPID 0x8100 is put on */
	XSW_FLOW_PUSH_S,   /* a tag of TPID 0x88a8 is put on */
	XSW_FLOW_DROP,
};

/* Flag of `action`: the egress netdev takes packets of one buffer only. */
#define XSW_FLOW_ONE_BUFFER (1 << 20)

/* An entry of the flow table: two cache lines. User space alone writes entries, by a sequence lock. */
struct xsw_flow {
	unsigned long long key[7];
	unsigned int seq;   /* odd while the entry is written */
	unsigned int epoch; /* the entry holds as long as this is not older than the table's */

	unsigned int sent;  /* number of the last packet that went to the socket. XDP writes it */
	unsigned int done;  /* number of the last one that has left the switch */
	unsigned int limit; /* with XSW_FLOW_LIMITED: no packet after this number goes to the socket */
	unsigned int flags;
	unsigned long long action;
	unsigned long long packets; /* done by XDP, and written by it */
	unsigned long long bytes;   /* of these, before a tag's edit */
	unsigned long long pad[3];
};

/* Flag of an entry: `limit` holds. */
#define XSW_FLOW_LIMITED 1

/* A flow has two buckets to be in. */
struct xsw_flow_bucket {
	struct xsw_flow ways[2];
};

/* What holds for the whole table. */
struct xsw_flow_control {
	unsigned int epoch;
	unsigned int depth; /* one of enum xsw_flow_depth */
	unsigned int pad[14];
	unsigned int installed[XSW_MAX_PORTS]; /* entries of each ingress port. Without any it looks up nothing */
};

/* How much of a packet is in a key. */
enum xsw_flow_depth {
	XSW_FLOW_OFF,
	XSW_FLOW_L2,
	XSW_FLOW_L4,
};

/* Metadata in front of a numbered packet. The cookie stands next to the packet. */
struct xsw_flow_mark {
	unsigned int slot;
	unsigned int number;
	unsigned int cookie;
};

#endif

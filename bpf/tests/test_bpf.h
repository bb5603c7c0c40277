/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Definitions that the BPF programs of the tests and of the bench share. The helper declarations use numbers of the
 * kernel's ABI (include/uapi/linux/bpf.h). The payload marks a packet of a numbered stream. tests/src/gensink.rs reads
 * and writes the same layouts.
 */
#ifndef XSWITCH_TEST_BPF_H
#define XSWITCH_TEST_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define ALWAYS_INLINE inline __attribute__((always_inline))

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;

/* Payload of a packet of a numbered stream, little endian, right behind the UDP header. */
struct stream_mark {
	__u32 magic;
	__u32 stream;
	__u64 seq;
} __attribute__((packed));

#define STREAM_MAGIC 0x54535358u /* "XSST" in memory */
#define MAX_STREAMS 64

#endif

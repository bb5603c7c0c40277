//! Names of the devices under test that the report looks for, in the order in which it shows them.
//!
//! Other devices are shown after these. In a cost curve a device keeps one name over all points, so the name leaves out
//! what `x` counts.

/// One worker, two ports, bridge with MAC learning. It may sleep, and decides by itself when.
pub const XSWITCH: &str = "xswitch";
/// The same, never asleep.
pub const XSWITCH_POLLING: &str = "xswitch, polling";
/// Awake while packets follow each other within 2 ms. Then it sleeps.
pub const XSWITCH_AWAKE: &str = "xswitch, awake for 2 ms";
/// Awake while packets follow each other within 50 µs. At 1,000 a second each packet wakes it.
pub const XSWITCH_SLEEPING: &str = "xswitch, awake for 50 µs";
/// Everything on: 10,000 rules, and a meter on each port.
pub const XSWITCH_FULL: &str = "xswitch, 10000 rules, meters";
/// A worker on each of two CPUs. The second shares the generator's.
pub const XSWITCH_2_WORKERS: &str = "xswitch, 2 workers";
/// 32 ports, traffic between two of them.
pub const XSWITCH_32_PORTS: &str = "xswitch, 32 ports";
/// Through a forward component instead of the bridge.
pub const FORWARD: &str = "xswitch, forward component";
/// Through a classifier.
pub const CLASSIFIER: &str = "xswitch, classifier component";
/// Through a merge component.
pub const MERGE: &str = "xswitch, merge component";
/// Through a classifier, a ring and a merge component on one worker.
pub const CHAIN: &str = "xswitch, classifier to ring to merge";
/// The lower bound in user space: two ports, shared UMEM, no look-ups. It never sleeps.
pub const FORWARDER: &str = "bare AF_XDP forwarder, polling";
/// The same, asleep in poll(2) without work.
pub const FORWARDER_SLEEPING: &str = "bare AF_XDP forwarder, sleeping";
/// The lower bound in the kernel, on the generator's CPU.
pub const DEVMAP: &str = "XDP devmap redirect";
/// On the generator's CPU, as bridges are.
pub const BRIDGE: &str = "Linux bridge, inline";
/// On kernel threads that are pinned to the device's CPU.
pub const BRIDGE_THREADED: &str = "Linux bridge, threaded NAPI";
/// Userspace datapath with ports of `type=afxdp` and normal learning. It polls.
pub const OVS: &str = "Open vSwitch afxdp";
/// The same with 10,000 rules.
pub const OVS_RULES: &str = "Open vSwitch afxdp, 10000 rules";
/// DPDK's `testpmd` in its `io` mode, which has no look-ups.
pub const TESTPMD: &str = "testpmd net_af_xdp";

/// Userspace datapath with DPDK's vhost ports and normal learning. It polls.
pub const OVS_DPDK: &str = "Open vSwitch DPDK";
/// DPDK's `testpmd` in its `io` mode between vhost ports. It polls.
pub const TESTPMD_VHOST: &str = "testpmd net_vhost";

/// `qemu-storage-daemon`, as a server of disks.
pub const STORAGE_DAEMON: &str = "qemu-storage-daemon";

/// All of them, in the order of the report.
pub const ALL: [&str; 21] = [
    XSWITCH,
    XSWITCH_FULL,
    XSWITCH_AWAKE,
    XSWITCH_SLEEPING,
    XSWITCH_POLLING,
    XSWITCH_2_WORKERS,
    XSWITCH_32_PORTS,
    FORWARD,
    CLASSIFIER,
    MERGE,
    CHAIN,
    FORWARDER,
    FORWARDER_SLEEPING,
    DEVMAP,
    BRIDGE,
    BRIDGE_THREADED,
    OVS,
    OVS_RULES,
    TESTPMD,
    OVS_DPDK,
    TESTPMD_VHOST,
];

/// Round trips at 1,000 packets a second.
pub const LOAD_LOW: &str = "1 kpps";
/// Round trips at half of what the device forwards under overload.
pub const LOAD_HALF: &str = "half load";

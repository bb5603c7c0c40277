//! Why a frame was dropped. Every drop in the data plane has one of these reasons.
//!
//! Counters are arrays indexed by it. Prometheus, the HTTP API and `xswitch trace` show its label. Labels are an
//! interface: never rename one.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $name:ident $label:literal $explain:literal;)+) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: [DropReason; Self::COUNT] = [$(DropReason::$name),+];
            /// How many reasons there are.
            pub const COUNT: usize = [$($label),+].len();

            /// Label in snake case, for counters and traces.
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label),+ }
            }

            /// One sentence for operators: what it means and what to do about it.
            pub const fn explain(self) -> &'static str {
                match self { $(DropReason::$name => $explain),+ }
            }
        }
    };
}

drop_reasons! {
    /// Fewer than the 14 bytes of an Ethernet header.
    FrameTooShort "frame_too_short"
        "The frame is shorter than an Ethernet header; its sender is broken, look at what the guest sends.";
    /// Longer than one frame of packet memory.
    FrameTooLong "frame_too_long"
        "The frame does not fit in one frame of the switch's packet memory; lower the sender's MTU or switch its \
         segmentation offload off.";
    /// The VLAN tag is announced but cut off.
    VlanMalformed "vlan_malformed"
        "The frame ends inside its VLAN tag; its sender is broken, look at what the guest sends.";
    /// The source is a group address or all zero.
    SourceMacInvalid "source_mac_invalid"
        "The source address is a group address or all zero, which no station may use; fix the sender.";
    /// The tag (or its absence) does not fit the VLAN mode of the port it came from.
    VlanNotAllowed "vlan_not_allowed"
        "The port does not accept frames with this VLAN tag (or without one); change the port's VLAN mode or the \
         sender's.";
    /// The source is not the port's MAC address and the port checks it.
    MacSpoofed "mac_spoofed"
        "The source address is not the one of the port; set the port's `mac` to the guest's, or its `mac_check` to \
         false if the guest is trusted with others.";
    /// The source is an address that the host has on a NIC which it shares with the switch.
    HostAddress "host_address"
        "The source is an address of the host itself, on a NIC that it shares with the switch: somebody forges it, or \
         the host's own frame came back by another port; `port show` of the NIC tells its address, and a second uplink \
         into the same network needs a bond or spanning tree.";
    /// The source is held at another port, because it was seen behind two ports in turn.
    MacFlap "mac_flap"
        "The source address was seen behind two ports in turn, faster than any guest moves, and is held at the first one \
         for some seconds; look for a loop outside of the switch, or for two stations with that address (`fdb list`).";
    /// ARP or RARP claims a hardware address that is not the port's.
    ArpSpoofed "arp_spoofed"
        "The sender hardware address inside the ARP packet is not the one of the port; the guest speaks for another \
         station, which only `mac_check` set to false allows.";
    /// Destination 01:80:c2:00:00:00–0f.
    ReservedMulticast "reserved_multicast"
        "The destination is one of 01:80:c2:00:00:00-0f (STP, LACP, pause, LLDP), which a bridge keeps to itself; set \
         `forward_reserved` if it should pass.";
    /// The destination is on the port that the frame came from.
    SamePort "same_port"
        "The destination is behind the port that the frame came from, so it has it already; usual behind an uplink, \
         else look for the same MAC address in two places.";
    /// A traffic rule says so.
    RuleDrop "rule_drop"
        "A traffic rule says to drop it; `trace` names the rule.";
    /// A traffic rule sends it to a port that does not exist.
    RuleNoPort "rule_no_port"
        "A traffic rule sends it to a port number without a port; add that port, or delete the rule that `trace` \
         names.";
    /// The meter of what the port sends has no tokens.
    MeterFrom "meter_from"
        "The port sends more than the meter on its sending direction allows; raise that meter's rate or burst, or \
         unbind it.";
    /// The meter of a rule has no tokens.
    MeterRule "meter_rule"
        "More frames match a traffic rule than its meter allows; raise that meter's rate or burst.";
    /// Both ports are isolated.
    Isolated "isolated"
        "Both ports are isolated from each other; clear `isolated` on one of them if they should talk.";
    /// Floods of the port make more copies than storm control lets it.
    Storm "storm"
        "Broadcast, multicast and unknown unicast of the port make more copies than `storm_control` in [bridge] lets one \
         port cause; look what its guest sends, or raise the setting.";
    /// It came in by a member of a bond that is not active.
    BondInactive "bond_inactive"
        "It came in by a member of a bond that does not take traffic now: a backup, or a link without LACP agreement; \
         `bond show` tells which. Some are usual, as what a switch floods comes in by each link.";
    /// A flood found no receiver.
    NoDestination "no_destination"
        "The frame was to be flooded and no other port takes it; check that a second port is in the same VLAN and not \
         isolated.";
    /// The destination's port is not in the frame's VLAN.
    EgressVlan "egress_vlan"
        "The destination's port is not in the frame's VLAN; change the port's VLAN mode, or remove the static MAC \
         entry that points there.";
    /// Longer than the MTU of the port it is for.
    EgressMtu "egress_mtu"
        "The packet is longer than the MTU of the port it is for; raise that port's MTU or lower the sender's.";
    /// The meter of what the port is sent has no tokens.
    MeterTo "meter_to"
        "More is sent to the port than the meter on its receiving direction allows; raise that meter's rate or burst, \
         or unbind it.";
    /// The port, the sender's or the receiver's, is being removed.
    PortGone "port_gone"
        "The port was removed, or opened anew for another ring depth, while the frame was on its way, or its netdev \
         was deleted; `doctor` tells which if the count keeps growing.";
    /// Nobody is at the other end of the port.
    LinkDown "link_down"
        "The port that it is for has no link: no guest is at the vhost-user socket, or no VMM has the tap open; start \
         the guest, `port show` tells what is missing.";
    /// The receiver does not empty its ring fast enough.
    TxRingFull "tx_ring_full"
        "The port's transmit ring is full: its receiver takes frames more slowly than they come; give it CPU time, \
         more queues or a deeper `queue_depth`.";
    /// The worker that serves the receiver does not keep up.
    WorkerRingFull "worker_ring_full"
        "The ring to the worker that serves the port is full; add workers or spread the ports over them.";
    /// A classifier (component) has no entry for it.
    ClassifierMiss "classifier_miss"
        "A classifier has no entry for the destination address and no default: add one to its table.";
    /// The ring that a component sends to is full.
    RingFull "ring_full"
        "A ring between components is full: what takes frames from it is slower than what fills it, or not there; \
         give it a worker of its own, or a deeper ring.";
    /// The outside end that a component sends to does not keep up.
    OutsideFull "outside_full"
        "What an outside end (a tap, a capture, a file) was sent waits for it already: it is slower than what comes.";
    /// Components were changed or a ring was removed while the frame was between them.
    RingGone "ring_gone"
        "The frame was in a ring that was removed, or between components that changed and did not treat it in time.";
    /// No component takes frames from the queue that it is for at a port with flow rules.
    FlowNobody "flow_nobody"
        "The port has flow rules, and no component takes frames from the queue that a rule sends this one to, or that \
         it came in by; attach that queue to a component, or change the rules.";
    /// The component that has the queue which a flow rule names does not keep up.
    FlowRingFull "flow_ring_full"
        "A flow rule sends it to another queue of the port, and the component that has that queue takes frames more \
         slowly than they come; give it a worker of its own.";
    /// No free UMEM frame.
    NoFrame "no_frame"
        "No frame of packet memory was free for a copy; raise `frames` in the settings of the data plane.";
}

impl DropReason {
    /// Whether the drop is on the way out, and counts at the port that the frame was for. Else it is on the way in,
    /// and counts at the port that the frame came from.
    pub const fn is_egress(self) -> bool {
        matches!(
            self,
            DropReason::EgressVlan
                | DropReason::EgressMtu
                | DropReason::MeterTo
                | DropReason::LinkDown
                | DropReason::TxRingFull
                | DropReason::WorkerRingFull
                | DropReason::NoFrame
        )
    }

    /// Whether the frame itself was broken, so that a NIC would call it an error rather than a drop.
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            DropReason::FrameTooShort
                | DropReason::FrameTooLong
                | DropReason::VlanMalformed
                | DropReason::SourceMacInvalid
        )
    }

    /// Place in [`DropReason::ALL`], below [`DropReason::COUNT`]. Counters are indexed by it.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_snake_case_and_every_reason_is_explained() {
        let mut labels = std::collections::BTreeSet::new();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(reason.label().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason:?}");
            assert!(reason.explain().ends_with('.') && !reason.explain().contains("  "), "{reason:?}");
            assert!(labels.insert(reason.label()));
        }
        assert_eq!(labels.len(), DropReason::COUNT);
    }
}

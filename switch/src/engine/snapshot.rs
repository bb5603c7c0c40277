//! The policy of the bridge as one immutable value: ports, VLANs, rules and redirects.
//!
//! Control builds a snapshot beside the one in use, and swaps it in. Workers pick it up between bursts, so they never
//! see half of a change.
//!
//! The receivers of a flood are computed ahead, a slice for each VLAN. VLANs with the same members share one. The
//! build looks at distinct VLAN modes instead of ports × VLANs. So 1,000 ports cost a millisecond or two. What a
//! change leaves alone is shared with the snapshot before. So one more rule costs the same with 1,000 ports.

use std::collections::HashMap;
use std::sync::Arc;

use super::PortNo;
use super::rule::Rules;
use crate::model::{MAX_PORTS, MAX_VID, MacAddr, VID_COUNT, Vid, VlanMode, VlanSet};

/// What a port may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    /// Address of the station behind the port, for `mac_check`.
    pub mac: Option<MacAddr>,
    /// Whether frames are dropped whose Ethernet source or ARP sender is not `mac`. Without a `mac` that is every
    /// frame.
    pub mac_check: bool,
    /// Whether it exchanges nothing with other isolated ports.
    pub isolated: bool,
    /// How it takes part in VLANs.
    pub vlan: VlanMode,
    /// MTU in bytes, without Ethernet header and VLAN tags.
    pub mtu: u32,
    /// Most addresses that are learned on it.
    pub fdb_limit: u32,
}

/// Policy of the bridge as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePolicy {
    /// Whether 01:80:c2:00:00:00–0f are forwarded.
    pub forward_reserved: bool,
}

/// The policy in force from one change to the next.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Number of this policy. What was cached under another one is void.
    pub epoch: u64,
    /// Policy of the bridge as a whole.
    pub bridge: BridgePolicy,
    /// Traffic rules.
    pub rules: Rules,
    topology: Arc<Topology>,
    /// By port number: the port where its redirects end. Empty if nothing is redirected.
    exits: Arc<[PortNo]>,
    /// Addresses of the host on NICs that it shares with the switch, ascending.
    host_addresses: Arc<[MacAddr]>,
    /// By port number: whether the redirects of several ports end there. Empty if nothing is redirected.
    shared_exits: Arc<[bool]>,
}

/// Ports and VLANs.
#[derive(Debug)]
struct Topology {
    /// By port number.
    ports: Box<[Option<PortPolicy>]>,
    /// Distinct receiver lists, each ascending; the first one is empty.
    lists: Vec<Box<[PortNo]>>,
    /// By VID: place in `lists`. There are at most 4,096 lists, the empty one and one for each VID.
    list_of: Box<[u16]>,
}

/// A VLAN mode, to find ports of the same mode while lists are built.
#[derive(PartialEq, Eq, Hash)]
enum ModeKey<'a> {
    Access(Vid),
    Trunk(Option<Vid>, &'a [u64]),
}

impl Snapshot {
    /// Builds the policy `epoch` of those ports. Of a number that comes twice, the last policy counts. Numbers of
    /// [`MAX_PORTS`] or more can't be used and are left out.
    pub fn build(epoch: u64, bridge: &BridgePolicy, ports: Vec<(PortNo, PortPolicy)>) -> Self {
        let usable = || ports.iter().map(|(no, _)| usize::from(*no)).filter(|no| *no < MAX_PORTS);
        let mut table: Box<[Option<PortPolicy>]> = vec![None; usable().max().map_or(0, |max| max + 1)].into();
        for (no, policy) in ports {
            if let Some(place) = table.get_mut(usize::from(no)) {
                *place = Some(policy);
            }
        }
        let (lists, list_of) = receiver_lists(&table);
        let topology = Arc::new(Topology { ports: table, lists, list_of });
        Self {
            epoch,
            bridge: *bridge,
            rules: Rules::default(),
            topology,
            host_addresses: Arc::default(),
            exits: Arc::default(),
            shared_exits: Arc::default(),
        }
    }

    /// The same policy with other rules, as the policy `epoch`.
    pub fn with_rules(&self, epoch: u64, rules: Rules) -> Self {
        Self { epoch, rules, ..self.clone() }
    }

    /// The same policy with those addresses of the host. No port may send from them.
    pub fn with_host_addresses(self, addresses: impl IntoIterator<Item = MacAddr>) -> Self {
        let mut host_addresses: Vec<_> = addresses.into_iter().collect();
        host_addresses.sort_unstable();
        Self { host_addresses: host_addresses.into(), ..self }
    }

    /// Whether it is an address of the host on a NIC that it shares with the switch.
    #[inline]
    pub fn is_host_address(&self, mac: MacAddr) -> bool {
        !self.host_addresses.is_empty() && self.host_addresses.binary_search(&mac).is_ok()
    }

    /// The same policy with other redirects: each source port with the port where its chain ends.
    pub fn with_redirects(mut self, redirects: impl IntoIterator<Item = (PortNo, PortNo)>) -> Self {
        let (mut exits, mut sources) = (Vec::new(), Vec::new());
        for (src, end) in redirects {
            if exits.is_empty() {
                exits = (0..=PortNo::MAX).take(MAX_PORTS).collect();
                sources = vec![0_usize; MAX_PORTS];
            }
            if let (Some(exit), Some(sources)) = (exits.get_mut(usize::from(src)), sources.get_mut(usize::from(end))) {
                *exit = end;
                *sources += 1;
            }
        }
        self.exits = exits.into();
        self.shared_exits = sources.into_iter().map(|sources| sources > 1).collect();
        self
    }

    /// Whether the redirects of several ports end at `no`.
    #[inline]
    pub fn is_shared_exit(&self, no: PortNo) -> bool {
        self.shared_exits.get(usize::from(no)).copied().unwrap_or(false)
    }

    /// The port that frames for `no` leave by: `no` itself, unless it is redirected.
    #[inline]
    pub fn exit(&self, no: PortNo) -> PortNo {
        self.exits.get(usize::from(no)).copied().unwrap_or(no)
    }

    /// Policy of a port; `None` if there is no such port.
    #[inline]
    pub fn port(&self, no: PortNo) -> Option<&PortPolicy> {
        self.topology.ports.get(usize::from(no))?.as_ref()
    }

    /// Every port, ascending.
    pub fn ports(&self) -> impl Iterator<Item = (PortNo, &PortPolicy)> {
        (0..).zip(self.topology.ports.iter()).filter_map(|(no, policy)| Some((no, policy.as_ref()?)))
    }

    /// Ports that are members of `vid`, ascending.
    #[inline]
    pub fn flood_ports(&self, vid: Vid) -> &[PortNo] {
        let list = self.topology.list_of.get(usize::from(vid)).map_or(0, |list| usize::from(*list));
        self.topology.lists.get(list).map_or(&[], |list| list)
    }
}

/// The distinct lists of receivers, and for each VID its place among them.
fn receiver_lists(ports: &[Option<PortPolicy>]) -> (Vec<Box<[PortNo]>>, Box<[u16]>) {
    let mut group_of: HashMap<ModeKey<'_>, usize> = HashMap::new();
    let mut groups: Vec<Vec<PortNo>> = Vec::new();
    let mut groups_of_vid: Vec<Vec<usize>> = vec![Vec::new(); VID_COUNT];
    for (no, policy) in (0..).zip(ports) {
        let Some(policy) = policy else { continue };
        let key = match &policy.vlan {
            VlanMode::Access { vid } => ModeKey::Access(*vid),
            VlanMode::Trunk { native, tagged } => ModeKey::Trunk(*native, tagged.words()),
        };
        let group = *group_of.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            for vid in vids(&policy.vlan) {
                groups_of_vid[usize::from(vid)].push(groups.len() - 1);
            }
            groups.len() - 1
        });
        groups[group].push(no);
    }
    let mut lists: Vec<Box<[PortNo]>> = vec![Box::default()];
    let mut place_of: HashMap<&[usize], u16> = HashMap::from([(&[][..], 0)]);
    let mut list_of = vec![0; VID_COUNT].into_boxed_slice();
    for (slot, members) in list_of.iter_mut().zip(&groups_of_vid) {
        *slot = *place_of.entry(members).or_insert_with(|| {
            let mut list: Vec<PortNo> = members.iter().flat_map(|group| &groups[*group]).copied().collect();
            list.sort_unstable();
            lists.push(list.into());
            // One list for each VID at most.
            u16::try_from(lists.len() - 1).unwrap_or_default()
        });
    }
    (lists, list_of)
}

/// VIDs of which ports of that mode are members, each once.
fn vids(mode: &VlanMode) -> Vec<Vid> {
    let (single, set) = match mode {
        VlanMode::Access { vid } => (Some(*vid), None),
        VlanMode::Trunk { native, tagged } => (native.filter(|vid| !tagged.contains(*vid)), Some(tagged)),
    };
    single.filter(|vid| *vid <= MAX_VID).into_iter().chain(set.into_iter().flat_map(VlanSet::iter)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::vlan::tests::any_mode;

    fn policy(vlan: VlanMode) -> PortPolicy {
        PortPolicy { mac: None, mac_check: false, isolated: false, vlan, mtu: 1500, fdb_limit: 4096 }
    }

    proptest! {
        #[test]
        fn flood_ports_are_exactly_the_members_in_order(
            ports in prop::collection::btree_map(0_u16..40, any_mode(), 0..12)
        ) {
            let list: Vec<_> = ports.iter().map(|(no, mode)| (*no, policy(mode.clone()))).collect();
            let snap = Snapshot::build(7, &BridgePolicy::default(), list);
            for vid in 0..=4096 {
                let expected: Vec<_> =
                    ports.iter().filter(|(_, mode)| mode.is_member(vid)).map(|(no, _)| *no).collect();
                prop_assert_eq!(snap.flood_ports(vid), &expected[..]);
            }
            let numbers: Vec<_> = snap.ports().map(|(no, _)| no).collect();
            prop_assert_eq!(numbers, ports.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_thousand_ports_share_their_lists() {
        let trunk = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
        let ports = (0..1000)
            .map(|no| (no, policy(if no < 10 { trunk.clone() } else { VlanMode::Access { vid: 1 + no % 100 } })));
        let snap = Snapshot::build(1, &BridgePolicy::default(), ports.collect());
        assert_eq!(snap.topology.lists.len(), 1 + 1 + 100, "empty, trunks only, one for each access VLAN");
        assert_eq!(snap.flood_ports(50).len(), 10 + 10);
        assert_eq!(snap.flood_ports(4094).len(), 10);
    }

    #[test]
    fn numbers_out_of_range_are_left_out() {
        let access = policy(VlanMode::Access { vid: 0 });
        let ports = vec![(2, access.clone()), (MAX_PORTS as PortNo, access.clone()), (PortNo::MAX, access)];
        let snap = Snapshot::build(1, &BridgePolicy::default(), ports);
        assert_eq!(snap.flood_ports(0), &[2]);
        assert!(snap.port(PortNo::MAX).is_none());
    }
}

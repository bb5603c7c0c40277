//! veth pairs between namespaces that the switch does not make: the network behind a `phy` port, and the tests' own
//! links.

use crate::netns::NetNs;

/// One end of a pair: its namespace and name.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its namespace.
    pub ns: &'a NetNs,
    /// Name of the netdev, at most 15 bytes.
    pub ifname: &'a str,
}

/// Properties of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Veth {
    /// Receive and transmit queues of both ends.
    pub queues: u32,
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

impl Default for Veth {
    fn default() -> Self {
        Self { queues: 1, mtu: 1500 }
    }
}

impl Veth {
    /// Makes the pair with both ends up. It goes with either namespace.
    pub fn connect(self, a: End<'_>, b: End<'_>) {
        let Self { queues, mtu } = self;
        let queue_args = format!("numrxqueues {queues} numtxqueues {queues} mtu {mtu}");
        a.ns.sh(&format!(
            "ip link add {} {queue_args} type veth peer name {} {queue_args} netns {}",
            a.ifname,
            b.ifname,
            b.ns.name()
        ));
        for end in [a, b] {
            end.ns.sh(&format!("ip link set {} up", end.ifname));
        }
    }
}

/// Gives `end` an IPv4 address with prefix length, such as `10.0.0.1/24`.
pub fn address(end: End<'_>, address: &str) {
    end.ns.sh(&format!("ip address add {address} dev {}", end.ifname));
}

/// Hardware address of `end`.
pub fn mac(end: End<'_>) -> crate::Mac {
    let links = end.ns.links();
    let link =
        links.iter().find(|link| link["ifname"] == end.ifname).unwrap_or_else(|| panic!("no netdev {}", end.ifname));
    link["address"].as_str().expect("a netdev has an address").parse().expect("ip prints addresses that parse")
}

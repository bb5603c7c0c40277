//! Which bucket a frame's flow belongs to, by the bond's `xmit_hash_policy`.
//!
//! The policies use the fields that the Linux bonding driver uses. The numbers differ: here each input bit reaches
//! each bit of the result, so that flows with neighbouring addresses or ports spread evenly.
//!
//! Frames of one flow always have one bucket. So have all fragments of a packet: a caller gives no ports for a packet
//! with a fragment offset, or with more fragments to come.

use std::net::IpAddr;

use model::MacAddr;

use crate::buckets::BUCKETS;
use crate::options::HashPolicy;

/// Addresses and ports of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpFlow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol, or the last next header of IPv6.
    pub protocol: u8,
    /// Source and destination port of TCP, UDP or SCTP. None for other protocols and for fragments.
    pub ports: Option<(u16, u16)>,
}

/// Fields of a frame that policies use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source MAC address.
    pub src: MacAddr,
    /// Destination MAC address.
    pub dst: MacAddr,
    /// EtherType behind all tags.
    pub ethertype: u16,
    /// VID of the outer tag. None without a tag.
    pub vid: Option<u16>,
    /// The IP packet in the frame.
    pub ip: Option<IpFlow>,
    /// The IP packet inside of `ip`, if that is a tunnel that was looked into.
    pub inner: Option<IpFlow>,
}

/// Number of the flow's bucket, below [`BUCKETS`].
pub fn bucket(policy: HashPolicy, flow: &Flow) -> usize {
    let hash = hash(policy, flow);
    // The low bits of a product depend on few bits of the input, so both halves are folded.
    let folded = hash ^ (hash >> 32);
    usize::from(u8::try_from((folded ^ (folded >> 16)) & BUCKET_MASK).unwrap_or(0))
}

const BUCKET_MASK: u64 = 0xff;
const _: () = assert!(BUCKETS == 256, "a bucket's number is one byte of the hash");

fn hash(policy: HashPolicy, flow: &Flow) -> u64 {
    let inside = flow.inner.or(flow.ip);
    match policy {
        HashPolicy::Layer2 => layer2(flow),
        HashPolicy::Layer23 => layer2(flow) ^ flow.ip.map_or(0, |ip| addresses(&ip)),
        HashPolicy::Encap23 => layer2(flow) ^ inside.map_or(0, |ip| addresses(&ip)),
        // What is not IP has MAC addresses only.
        HashPolicy::Layer34 => flow.ip.map_or_else(|| layer2(flow), |ip| layer3_4(&ip)),
        HashPolicy::Encap34 => inside.map_or_else(|| layer2(flow), |ip| layer3_4(&ip)),
        HashPolicy::VlanSrcMac => mix(flow.src.to_u64(), flow.vid.map_or(0, u64::from)),
    }
}

fn layer2(flow: &Flow) -> u64 {
    mix(mix(flow.src.to_u64(), flow.dst.to_u64()), flow.ethertype.into())
}

fn addresses(ip: &IpFlow) -> u64 {
    let [src, dst] = [ip.src, ip.dst].map(|address| match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let [upper, lower] = halves(address.to_bits());
            mix(upper, lower)
        }
    });
    mix(src, dst)
}

fn layer3_4(ip: &IpFlow) -> u64 {
    let ports = ip.ports.map_or(0, |(src, dst)| u64::from(src) << 16 | u64::from(dst));
    mix(addresses(ip), ports)
}

/// Folds the 128-bit product of both into 64 bits, after constants that keep zeros from swallowing the rest.
fn mix(state: u64, word: u64) -> u64 {
    let [upper, lower] = halves(u128::from(state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd1b5_4a32_d192_ed03));
    upper ^ lower
}

fn halves(word: u128) -> [u64; 2] {
    let bytes = word.to_be_bytes();
    let half = |at: usize| bytes[at..at + 8].iter().fold(0, |half, byte| half << 8 | u64::from(*byte));
    [half(0), half(8)]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::options::Word;

    fn flow(n: u32) -> Flow {
        let ip = |net: u8, ports| IpFlow {
            src: IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes([net, 0, 0, 0]) | n)),
            dst: IpAddr::V4(Ipv4Addr::new(net, 255, 0, 1)),
            protocol: 6,
            ports,
        };
        Flow {
            src: MacAddr::from_u64(0x0200_0000_0000 + u64::from(n)),
            dst: MacAddr::from_u64(0x0200_0001_0000),
            ethertype: 0x800,
            vid: Some(5),
            ip: Some(ip(10, Some((u16::try_from(n).unwrap(), 80)))),
            inner: Some(ip(11, Some((u16::try_from(n).unwrap(), 443)))),
        }
    }

    #[test]
    fn each_policy_spreads_neighbouring_flows_evenly() {
        for &(name, _, policy) in HashPolicy::ALL {
            let mut buckets = [0_u32; BUCKETS];
            (0..25_600).for_each(|n| buckets[bucket(policy, &flow(n))] += 1);
            // 100 each on average; a standard deviation is 10.
            assert!(buckets.iter().all(|&count| (50..160).contains(&count)), "{name}: {buckets:?}");
        }
    }

    #[test]
    fn a_policy_uses_its_own_fields_and_no_others() {
        // Which changes of a frame each policy must see.
        type Change = fn(&mut Flow);
        let changes: [(&str, Change); 8] = [
            ("src", |f| f.src = MacAddr::from_u64(1)),
            ("dst", |f| f.dst = MacAddr::from_u64(2)),
            ("ethertype", |f| f.ethertype = 0x86dd),
            ("vid", |f| f.vid = Some(6)),
            ("ip", |f| f.ip.as_mut().unwrap().dst = "10.9.9.9".parse().unwrap()),
            ("ports", |f| f.ip.as_mut().unwrap().ports = Some((7, 8))),
            ("inner ip", |f| f.inner.as_mut().unwrap().src = "10.9.9.9".parse().unwrap()),
            ("inner ports", |f| f.inner.as_mut().unwrap().ports = Some((7, 8))),
        ];
        let l2 = ["src", "dst", "ethertype"];
        for (policy, sees) in [
            (HashPolicy::Layer2, &l2[..]),
            (HashPolicy::Layer23, &["src", "dst", "ethertype", "ip"]),
            (HashPolicy::Layer34, &["ip", "ports"]),
            (HashPolicy::Encap23, &["src", "dst", "ethertype", "inner ip"]),
            (HashPolicy::Encap34, &["inner ip", "inner ports"]),
            (HashPolicy::VlanSrcMac, &["src", "vid"]),
        ] {
            for (name, change) in changes {
                let mut changed = flow(1);
                change(&mut changed);
                let differs = hash(policy, &changed) != hash(policy, &flow(1));
                assert_eq!(differs, sees.contains(&name), "{policy} sees {name}");
            }
        }
    }

    #[test]
    fn all_fragments_of_a_packet_and_what_is_no_tunnel_fall_back() {
        let mut fragment = flow(1);
        fragment.ip.as_mut().unwrap().ports = None;
        let mut other_flow_s = flow(2);
        other_flow_s.ip = fragment.ip;
        assert_eq!(bucket(HashPolicy::Layer34, &fragment), bucket(HashPolicy::Layer34, &other_flow_s));
        let plain = Flow { inner: None, ..flow(1) };
        assert_eq!(hash(HashPolicy::Encap34, &plain), hash(HashPolicy::Layer34, &plain));
        assert_eq!(hash(HashPolicy::Encap23, &plain), hash(HashPolicy::Layer23, &plain));
        let arp = Flow { ip: None, inner: None, ..flow(1) };
        assert_eq!(hash(HashPolicy::Layer34, &arp), hash(HashPolicy::Layer2, &arp));
    }
}

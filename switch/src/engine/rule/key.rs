//! Keys of the classifier: the fields of a frame as seven words, and rules' keys compiled to the same form.
//!
//! The names of fields in errors and traces are those of the DPU interface. There the ingress port is called `vid`.

use std::net::IpAddr;

use crate::engine::PortNo;
use crate::engine::bits::{halves, low_u32};
use crate::engine::parse::{Headers, L2, L3, L4, Plain, Tag, fold_product as mix, parse_upper};
use crate::model::{IpType, MAX_PORTS, MacAddr, Masked, MaskedIp, MaskedMac, RuleKey};

/// Words of a key.
pub const WORDS: usize = 7;

/// The frame is IPv4.
const V4: u64 = 1;
/// The frame is IPv6.
const V6: u64 = 1 << 1;
/// The frame is IP of any version.
const IP: u64 = 1 << 2;
/// The frame has TCP or UDP ports.
const PORTS: u64 = 1 << 3;

/// A frame's fields, or the values or the mask of a rule, each field at the same place.
///
/// | word | upper bits | lower bits |
/// | --- | --- | --- |
/// | 0 | destination MAC, 48 bits | ingress port, 16 bits |
/// | 1 | source MAC, 48 bits | VID of the outer tag, 16 bits |
/// | 2, 3 | destination IP; IPv4 has the first 32 bits | |
/// | 4, 5 | source IP, likewise | |
/// | 6 | destination port, source port, 16 bits each | protocol from bit 24 on; flags |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(pub [u64; WORDS]);

impl Key {
    /// All bits.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// The key of a frame that came in from `ingress`.
    #[inline]
    pub fn of(ingress: PortNo, headers: &Headers) -> Self {
        let vlan = headers.outer.map_or(0, Tag::vid);
        let (mut dip, mut sip) = ([0; 2], [0; 2]);
        let mut last = 0;
        match &headers.l3 {
            L3::V4(ip) => {
                (dip, sip) = (ip_words(IpAddr::V4(ip.dst)), ip_words(IpAddr::V4(ip.src)));
                last |= V4 | IP | u64::from(ip.protocol) << 24;
            }
            L3::V6(ip) => {
                (dip, sip) = (ip_words(IpAddr::V6(ip.dst)), ip_words(IpAddr::V6(ip.src)));
                last |= V6 | IP | u64::from(ip.protocol) << 24;
            }
            L3::Arp(_) | L3::Other => {}
        }
        if let L4::Tcp { src, dst, .. } | L4::Udp { src, dst } = headers.l4 {
            last |= PORTS | u64::from(dst) << 48 | u64::from(src) << 32;
        }
        Self([
            headers.dst.to_u64() << 16 | u64::from(ingress),
            headers.src.to_u64() << 16 | u64::from(vlan),
            dip[0],
            dip[1],
            sip[0],
            sip[1],
            last,
        ])
    }

    /// The key of a frame that came in from `ingress` and has that layer 2. It is the same as [`Key::of`] of all
    /// headers. Of a plain packet not all are read.
    #[inline]
    pub fn read(ingress: PortNo, frame: &[u8], l2: &L2) -> Self {
        let bytes = frame.get(l2.payload_offset()..).unwrap_or_default();
        Plain::check(l2.ethertype, bytes)
            .and_then(|plain| Self::of_plain(ingress, l2, plain, bytes))
            .unwrap_or_else(|| Self::read_all(ingress, frame, l2))
    }

    #[inline]
    fn of_plain(ingress: PortNo, l2: &L2, plain: Plain, bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().map(|word| u64::from_be_bytes(*word));
        let (dip, sip, version, ports) = if plain.v6 {
            ([word(24)?, word(32)?], [word(8)?, word(16)?], V6, word(40)?)
        } else {
            let both = word(12)?;
            ([both << 32, 0], [both & !0xffff_ffff, 0], V4, word(20)?)
        };
        // A frame has the source port first, a key the destination port.
        let ports = low_u32(ports >> 32);
        let last = u64::from(ports.rotate_left(16)) << 32 | u64::from(plain.protocol()) << 24 | PORTS | IP | version;
        Some(Self([
            l2.dst.to_u64() << 16 | u64::from(ingress),
            l2.src.to_u64() << 16 | u64::from(l2.tag.map_or(0, Tag::vid)),
            dip[0],
            dip[1],
            sip[0],
            sip[1],
            last,
        ]))
    }

    #[inline(never)]
    fn read_all(ingress: PortNo, frame: &[u8], l2: &L2) -> Self {
        Self::of(ingress, &parse_upper(frame, l2))
    }

    /// The bits of this key that `mask` has.
    #[inline]
    pub fn masked(&self, mask: &Key) -> Key {
        Key(std::array::from_fn(|word| self.0[word] & mask.0[word]))
    }

    /// The bits of both keys.
    pub fn with(&self, other: &Key) -> Key {
        Key(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// A hash of the bits that `mask` has. It is the same in every build of this version. Words that the mask has
    /// nothing of cost nothing, and most masks have few.
    #[inline]
    pub fn hash(&self, mask: &Key) -> u64 {
        let (w, m) = (&self.0, &mask.0);
        let pair = |at: usize, one: u64, two: u64| {
            if m[at] | m[at + 1] == 0 { 0 } else { mix(w[at] & m[at] ^ one, w[at + 1] & m[at + 1] ^ two) }
        };
        let one = pair(0, 0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03);
        let two = pair(2, 0x8bb8_4b93_962e_acc9, 0x2d35_8dcc_aa6c_78a5);
        let three = pair(4, 0x4b33_a62e_d433_d4a3, 0x4d5a_2da5_1de1_aa47);
        let four = w[6] & m[6] ^ 0xa076_1d64_78bd_642f;
        mix(one ^ three.rotate_left(29) ^ 0xe703_7ed1_a0b4_28db, two ^ four)
    }
}

/// A rule's key, compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// What the masked bits must be. Zero elsewhere.
    pub value: Key,
    /// Bits that count.
    pub mask: Key,
}

impl Match {
    fn set(&mut self, word: usize, shift: u32, value: u64, mask: u64) {
        self.value.0[word] |= value << shift;
        self.mask.0[word] |= mask << shift;
    }

    /// Compiles a rule's key.
    ///
    /// # Errors
    /// The field, what is wrong with it, and what would be right.
    pub fn compile(key: &RuleKey) -> Result<Self, String> {
        let mut rule = Self::default();
        // Whether the mask of a field asks for packets that have the field at all.
        let asks = |mask: Option<u32>| mask.is_some_and(|mask| mask != 0);
        number(&mut rule, "vid", key.ingress_port, 0, 0)?;
        mac(&mut rule, "dmac", key.dmac, 0)?;
        mac(&mut rule, "smac", key.smac, 1)?;
        number(&mut rule, "vlan", key.vlan, 1, 0)?;
        number(&mut rule, "ipprotocol", key.ipprotocol, 6, 24)?;
        number(&mut rule, "dl4port", key.dl4port, 6, 48)?;
        number(&mut rule, "sl4port", key.sl4port, 6, 32)?;
        if let Some(port) = key.ingress_port
            && port.value as usize >= MAX_PORTS
        {
            return Err(format!("vid: there is no port {}: 0 to {} are possible", port.value, MAX_PORTS - 1));
        }
        if asks(key.ipprotocol.map(|field| field.mask)) {
            rule.set(6, 0, IP, IP);
        }
        if asks(key.dl4port.map(|field| field.mask)) || asks(key.sl4port.map(|field| field.mask)) {
            rule.set(6, 0, PORTS, PORTS);
        }
        let mut version = key.ip_type.map(|version| ("ip_type", version));
        for (name, field, word) in [("dip", key.dip, 2), ("sip", key.sip, 4)] {
            let Some(field) = field else { continue };
            ip(&mut rule, name, field, word)?;
            let own = if field.addr.is_ipv4() { IpType::Ipv4 } else { IpType::Ipv6 };
            match version {
                // An empty mask asks for nothing, not even for a version of IP.
                _ if field.mask.is_unspecified() => {}
                Some((other, version)) if version != own => {
                    return Err(format!("{name}: it is {} and {other} {}", word_of(own), word_of(version)));
                }
                _ => version = Some((name, own)),
            }
        }
        match version {
            Some((_, IpType::Ipv4)) => rule.set(6, 0, V4, V4),
            Some((_, IpType::Ipv6)) => rule.set(6, 0, V6, V6),
            None => {}
        }
        Ok(rule)
    }
}

fn word_of(version: IpType) -> &'static str {
    match version {
        IpType::Ipv4 => "IPv4",
        IpType::Ipv6 => "IPv6",
    }
}

fn outside(name: &str, value: impl std::fmt::Display, mask: impl std::fmt::Display) -> String {
    format!("{name}: the value {value} has bits outside its mask {mask}: clear them, or widen the mask")
}

fn number<const BITS: u32>(
    rule: &mut Match,
    name: &str,
    field: Option<Masked<BITS>>,
    word: usize,
    shift: u32,
) -> Result<(), String> {
    let Some(Masked { value, mask }) = field else { return Ok(()) };
    let full = Masked::<BITS>::FULL;
    if value > full {
        return Err(format!("{name}: {value} is out of range, 0 to {full} are possible"));
    }
    if value & !mask != 0 {
        return Err(outside(name, value, format_args!("{mask:#x}")));
    }
    rule.set(word, shift, u64::from(value), u64::from(mask & full));
    Ok(())
}

fn mac(rule: &mut Match, name: &str, field: Option<MaskedMac>, word: usize) -> Result<(), String> {
    let Some(MaskedMac { value, mask }) = field else { return Ok(()) };
    if value.to_u64() & !mask != 0 {
        return Err(outside(name, value, MacAddr::from_u64(mask)));
    }
    rule.set(word, 16, value.to_u64(), mask & MaskedMac::FULL);
    Ok(())
}

fn ip(rule: &mut Match, name: &str, field: MaskedIp, word: usize) -> Result<(), String> {
    let (value, mask) = (ip_words(field.addr), ip_words(field.mask));
    for half in 0..2 {
        if value[half] & !mask[half] != 0 {
            return Err(outside(name, field.addr, field.mask));
        }
        rule.set(word + half, 0, value[half], mask[half]);
    }
    Ok(())
}

/// An address as two words. An IPv4 address is the upper half of the first.
#[inline]
fn ip_words(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(ip) => [u64::from(u32::from(ip)) << 32, 0],
        IpAddr::V6(ip) => halves(u128::from(ip)),
    }
}

/// The first field in which a frame differs from a rule: its name, what the frame has, and what the rule asks for.
/// `None` if the rule matches.
pub fn first_difference(rule: &Match, key: &Key) -> Option<(&'static str, String, String)> {
    /// A field: name, word, shift, bits, and how it is shown.
    type Field = (&'static str, usize, u32, u64, fn(u64) -> String);
    const FIELDS: [Field; 6] = [
        ("vid", 0, 0, 0xffff, |value| value.to_string()),
        ("dmac", 0, 16, MaskedMac::FULL, |value| MacAddr::from_u64(value).to_string()),
        ("smac", 1, 16, MaskedMac::FULL, |value| MacAddr::from_u64(value).to_string()),
        ("vlan", 1, 0, 0xfff, |value| value.to_string()),
        ("ip_type", 6, 0, V4 | V6 | IP, |value| {
            match value {
                flags if flags & V4 != 0 => "ipv4",
                flags if flags & V6 != 0 => "ipv6",
                flags if flags & IP != 0 => "ip",
                _ => "none",
            }
            .to_owned()
        }),
        ("ipprotocol", 6, 24, 0xff, |value| value.to_string()),
    ];
    for (name, word, shift, bits, show) in FIELDS {
        let (has, mask) = (key.0[word] >> shift & bits, rule.mask.0[word] >> shift & bits);
        let wanted = rule.value.0[word] >> shift & bits;
        if has & mask != wanted {
            return Some((name, show(has), with_mask(show(wanted), mask, bits & !(V4 | V6 | IP) == 0, bits)));
        }
    }
    for (name, word) in [("dip", 2), ("sip", 4)] {
        let differs = |half: usize| key.0[word + half] & rule.mask.0[word + half] != rule.value.0[word + half];
        if differs(0) || differs(1) {
            let v6 = rule.value.0[6] & V6 != 0;
            let show = |key: &Key| address(v6, key.0[word], key.0[word + 1]);
            let wanted = MaskedIp { addr: show(&rule.value), mask: show(&rule.mask) };
            return Some((name, show(key).to_string(), wanted.to_string()));
        }
    }
    let has_ports = key.0[6] & PORTS != 0;
    for (name, shift) in [("dl4port", 48), ("sl4port", 32)] {
        let (has, mask) = (key.0[6] >> shift & 0xffff, rule.mask.0[6] >> shift & 0xffff);
        let wanted = rule.value.0[6] >> shift & 0xffff;
        if mask != 0 && (has & mask != wanted || !has_ports) {
            let has = if has_ports { has.to_string() } else { "none".to_owned() };
            return Some((name, has, with_mask(wanted.to_string(), mask, false, 0xffff)));
        }
    }
    // A rule can ask for ports by a mask that has no bits of them.
    if rule.mask.0[6] & PORTS != 0 && !has_ports {
        return Some(("dl4port", "none".to_owned(), "any".to_owned()));
    }
    None
}

fn with_mask(value: String, mask: u64, is_flag: bool, full: u64) -> String {
    if is_flag || mask == full { value } else { format!("{value}/{mask:#x}") }
}

fn address(v6: bool, high: u64, low: u64) -> IpAddr {
    if v6 {
        IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into())
    } else {
        IpAddr::V4(low_u32(high >> 32).into())
    }
}

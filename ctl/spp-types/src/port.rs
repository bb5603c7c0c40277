//! Port names of the Soft Patch Panel: `phy:0`, `ring:3`, and `phy:0nq1` for one queue of a port.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Types of ports, as spp-ctl spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortType {
    /// A NIC.
    Phy,
    /// The port of a VM.
    Vhost,
    /// A ring between components.
    Ring,
    /// Files in pcap format: one is played, one is written.
    Pcap,
    /// A null device, as DPDK's: it gives frames of zeros, and discards what it gets.
    Nullpmd,
    /// A tap device of the host.
    Tap,
    /// A shared memory interface. SPP knows it, the switch refuses it.
    Memif,
    /// Two rings, one in each direction.
    Pipe,
}

impl PortType {
    /// All of them, in the order of spp-ctl's table.
    pub const ALL: [PortType; 8] = [
        PortType::Phy,
        PortType::Vhost,
        PortType::Ring,
        PortType::Pcap,
        PortType::Nullpmd,
        PortType::Tap,
        PortType::Memif,
        PortType::Pipe,
    ];

    /// The keyword in port names.
    pub const fn word(self) -> &'static str {
        match self {
            PortType::Phy => "phy",
            PortType::Vhost => "vhost",
            PortType::Ring => "ring",
            PortType::Pcap => "pcap",
            PortType::Nullpmd => "nullpmd",
            PortType::Tap => "tap",
            PortType::Memif => "memif",
            PortType::Pipe => "pipe",
        }
    }

    /// Largest number of a port of this type.
    pub const fn max_no(self) -> u32 {
        match self {
            PortType::Tap | PortType::Pcap => 255,
            _ => model::MAX_END_NO,
        }
    }
}

/// A port's SPP name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    /// Type.
    pub kind: PortType,
    /// Number.
    pub no: u32,
    /// Queue, if the name is that of one queue. Only `phy` and `vhost` have queues.
    pub queue: Option<u32>,
}

impl PortId {
    /// The port without the queue.
    #[must_use]
    pub fn whole(self) -> Self {
        Self { queue: None, ..self }
    }

    /// The name as SPP shows it: `phy:0 nq 1` for a queue. Commands have it without blanks.
    pub fn shown(self) -> ShownPort {
        ShownPort(self)
    }
}

/// A port's name as SPP shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownPort(PortId);

impl fmt::Display for ShownPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortId { kind, no, queue } = self.0;
        write!(f, "{}:{no}", kind.word())?;
        queue.map_or(Ok(()), |queue| write!(f, " nq {queue}"))
    }
}

impl Serialize for ShownPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.no)?;
        self.queue.map_or(Ok(()), |queue| write!(f, "nq{queue}"))
    }
}

/// A number of digits only. `parse` would also take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl FromStr for PortId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{}` is not a port: TYPE:NUMBER is, such as phy:0, ring:3 or phy:0nq1", text.escape_default());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let kind = PortType::ALL.into_iter().find(|known| known.word() == kind).ok_or_else(bad)?;
        // A status has blanks around `nq`, and clients send back what they read there.
        let (no, queue) = match rest.split_once(" nq ").or_else(|| rest.split_once("nq")) {
            Some((no, queue)) => (no, Some(number(queue).ok_or_else(bad)?)),
            None => (rest, None),
        };
        let no = number(no).ok_or_else(bad)?;
        if no > kind.max_no() {
            return Err(format!("{}:{no}: the largest number is {}", kind.word(), kind.max_no()));
        }
        if queue.is_some() && !matches!(kind, PortType::Phy | PortType::Vhost) {
            return Err(format!("{text}: only phy and vhost ports have queues"));
        }
        if queue.is_some_and(|queue| queue >= model::MAX_QUEUES) {
            return Err(format!("{text}: the largest queue is {}", model::MAX_QUEUES - 1));
        }
        Ok(Self { kind, no, queue })
    }
}

impl Serialize for PortId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for PortId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for PortId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_reads_as_it_is_written() {
        for text in
            ["phy:0", "vhost:12", "ring:1023", "phy:0nq1", "nullpmd:3", "tap:255", "pcap:0", "memif:1", "pipe:7"]
        {
            assert_eq!(text.parse::<PortId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_port_reads_as_it_is_shown() {
        for text in ["phy:0", "vhost:12 nq 3", "ring:1023", "phy:0 nq 1"] {
            assert_eq!(text.parse::<PortId>().unwrap().shown().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            "phy",
            "phy:",
            ":0",
            "phy:-1",
            "phy:+1",
            "phy:x",
            "nic:0",
            "ring:1024",
            "ring:0nq1",
            "phy:0nq1024",
            "phy:0nq",
            "phy:0 nq",
            "phy:0 nq1",
            "phy:0  nq 1",
            "phy:0 nq 1 ",
            "phy:0:1",
        ] {
            assert!(text.parse::<PortId>().is_err(), "{text}");
        }
    }
}

//! What the tests share.

use kit_host::FakeHost;
pub use kit_host::wait;
use switch::model::*;
use switch::{Error, ErrorKind, Switch};

/// A switch on a host that has everything.
pub struct Rig {
    pub host: FakeHost,
    pub switch: Switch,
}

impl Rig {
    pub fn new() -> Self {
        let host = FakeHost::with_everything();
        let switch = host.start();
        Self { host, switch }
    }

    /// A switch on a host without netdevs.
    pub fn bare() -> Self {
        let host = FakeHost::new();
        let switch = host.start();
        Self { host, switch }
    }

    pub fn add(&self, spec: PortSpec) -> PortInfo {
        self.switch.add_port(spec).expect("a port that comes up")
    }

    /// Waits until a port has sent as many frames by its first queue, and returns them.
    pub fn sent(&self, netdev: &str, count: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        wait("frames are sent", || {
            sent.extend(self.host.sent(netdev, 0));
            sent.len() >= count
        });
        sent
    }

    /// Checks that all frames are accounted for, and nothing is left of any port.
    pub fn assert_balanced(&self) {
        wait("the books balance", || {
            let stats = self.switch.stats();
            (stats.unaccounted_packets, stats.unaccounted_bytes) == (0, 0)
        });
        let audit = self.switch.audit();
        assert!(audit.consistent, "{audit:?}");
    }

    /// Checks that there is no port, and all frames are free again.
    pub fn assert_empty(&self) {
        assert_eq!(self.switch.ports(), []);
        let audit = self.switch.audit();
        assert!(audit.consistent && audit.free == audit.frames, "{audit:?}");
    }
}

pub fn guest(name: &str) -> PortSpec {
    PortSpec::new(name, PortKind::Guest)
}

pub fn phy(name: &str, ifname: &str) -> PortSpec {
    PortSpec { ifname: Some(ifname.into()), ..PortSpec::new(name, PortKind::Phy) }
}

pub fn mac(last: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, last])
}

/// A frame of 60 bytes.
pub fn frame(to: MacAddr, from: MacAddr, mark: u8) -> Vec<u8> {
    let mut frame = [to.octets(), from.octets()].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(60, mark);
    frame
}

pub fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.expect_err("a refusal").kind()
}

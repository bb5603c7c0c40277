//! Ports that QEMU reaches by itself: a tap that it opens by name, and a vhost-user socket that it connects to.
//!
//! The daemon hands nothing over for them. Whether QEMU may open a tap or connect to a socket is decided by whom they
//! belong to.

use std::ffi::OsString;
use std::path::Path;

use ctl_guest::protocol::Offer;
use ctl_types::PortEntry;
use model::{DEFAULT_MTU, MacAddr, Mode, PortKind, SocketRole};

use super::check::{Version, backends, version_of};
use super::options::{device_id, device_options, device_properties, netdev_id};

/// Memory of a QEMU that is told no size, in bytes.
const DEFAULT_MEMORY: u64 = 128 << 20;
/// First version that takes the time between two attempts to connect in milliseconds.
const RECONNECT_MS: Version = (9, 2, 0);
/// First version that was not seen to crash with vhost-user and MSI-X on an emulated processor.
const MSIX_UNDER_TCG: Version = (8, 0, 0);

/// How QEMU is connected to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// AF_XDP sockets on the guest's end of a `guest` port.
    AfXdp,
    /// The socket of a `vhost` port.
    Vhost,
    /// The tap of a `tap` port.
    Tap,
}

impl Net {
    /// Every way, the one with the fewest copies first.
    pub const ALL: [Net; 3] = [Net::AfXdp, Net::Vhost, Net::Tap];

    /// That of a port. `None`: QEMU is not connected to ports of this kind.
    pub const fn of(kind: PortKind) -> Option<Self> {
        match kind {
            PortKind::Guest => Some(Net::AfXdp),
            PortKind::Vhost => Some(Net::Vhost),
            PortKind::Tap => Some(Net::Tap),
            PortKind::Phy | PortKind::Bond => None,
        }
    }

    /// Its word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Net::AfXdp => "af-xdp",
            Net::Vhost => "vhost",
            Net::Tap => "tap",
        }
    }

    /// Kind of ports.
    pub const fn kind(self) -> PortKind {
        match self {
            Net::AfXdp => PortKind::Guest,
            Net::Vhost => PortKind::Vhost,
            Net::Tap => PortKind::Tap,
        }
    }

    /// QEMU's word for it.
    const fn backend(self) -> &'static str {
        match self {
            Net::AfXdp => "af-xdp",
            Net::Vhost => "vhost-user",
            Net::Tap => "tap",
        }
    }
}

/// What a program that is taken for QEMU can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    version: Option<Version>,
    /// `None`: it does not say.
    nets: Option<Vec<Net>>,
}

impl Abilities {
    /// Asks the program.
    pub fn of(program: &Path) -> Self {
        let has = |listed: &[String], net: &Net| listed.iter().any(|word| word == net.backend());
        let nets = |listed: Vec<String>| Net::ALL.into_iter().filter(|net| has(&listed, net)).collect();
        Self { version: version_of(program), nets: backends(program).map(nets) }
    }

    /// The way for a port that is to be made. A program that does not say what it can do is taken to have af-xdp.
    pub fn best(&self) -> Option<Net> {
        self.nets.as_ref().map_or(Some(Net::AfXdp), |nets| nets.first().copied())
    }

    /// Says that the program has no such backend.
    ///
    /// # Errors
    /// It has not; the text says what would do.
    pub fn check(&self, net: Net) -> Result<(), String> {
        let Some(nets) = self.nets.as_ref().filter(|nets| !nets.contains(&net)) else { return Ok(()) };
        let others: Vec<_> = nets.iter().map(|net| format!("--net {}", net.word())).collect();
        let advice = match others.as_slice() {
            [] => "build it with one of af-xdp, vhost-user and tap".to_owned(),
            others => format!("use another port ({}), or another QEMU", others.join(", ")),
        };
        Err(format!("--net {}: this QEMU has no `{}` (`-netdev help`): {advice}", net.word(), net.backend()))
    }
}

/// Where QEMU finds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A tap of that name, which a user may open.
    Tap {
        /// User, if the tap is for one.
        owner: Option<u32>,
    },
    /// A socket.
    Vhost {
        /// Its path.
        socket: String,
        /// The switch's side.
        role: SocketRole,
    },
}

/// A port that QEMU reaches by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectPort {
    /// Where it is.
    pub place: Place,
    /// Its card. Of the rest only name, number and namespace mean something.
    pub offer: Offer,
}

impl DirectPort {
    /// That of a port. `None`: the daemon hands over what QEMU needs, or the port is not for QEMU.
    pub fn of(port: &PortEntry) -> Option<Self> {
        let spec = &port.spec;
        let place = match spec.kind {
            PortKind::Tap => {
                Place::Tap { owner: port.info.as_ref().and_then(|info| info.tap.as_ref()).and_then(|tap| tap.owner) }
            }
            PortKind::Vhost => {
                let vhost = spec.vhost.as_ref()?;
                Place::Vhost { socket: vhost.socket.clone(), role: vhost.role }
            }
            PortKind::Guest | PortKind::Phy | PortKind::Bond => return None,
        };
        let offer = Offer {
            port: port.name.clone(),
            vport: spec.vport.unwrap_or_default(),
            ifname: spec.guest_ifname.clone().unwrap_or_default(),
            netns: spec.netns.clone(),
            mac: spec.mac.unwrap_or_else(|| MacAddr::derived_from(spec.uuid())),
            mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
            mode: Mode::Native,
            queues: spec.queues.unwrap_or(1),
            memlock: 0,
            map_path: None,
        };
        Some(Self { place, offer })
    }

    /// How QEMU is connected to it.
    pub fn net(&self) -> Net {
        match self.place {
            Place::Tap { .. } => Net::Tap,
            Place::Vhost { .. } => Net::Vhost,
        }
    }

    /// Properties of the netdev without type and id.
    pub fn netdev_properties(&self) -> String {
        let queues = self.offer.queues;
        let queues = if queues > 1 { format!(",queues={queues}") } else { String::new() };
        match &self.place {
            Place::Tap { .. } => {
                format!("ifname={},script=no,downscript=no{queues}", self.offer.ifname.replace(',', ",,"))
            }
            Place::Vhost { .. } => format!("chardev={}{queues}", self.chardev_id()),
        }
    }

    /// Options that the netdev needs beside it.
    pub fn further_options(&self, qemu: &Abilities) -> Vec<String> {
        let Place::Vhost { socket, role } = &self.place else { return Vec::new() };
        let way = match role {
            SocketRole::Client => "server=on,wait=off",
            SocketRole::Server if qemu.version.is_none_or(|version| version >= RECONNECT_MS) => "reconnect-ms=1000",
            SocketRole::Server => "reconnect=1",
        };
        let chardev = format!("socket,id={},path={},{way}", self.chardev_id(), socket.replace(',', ",,"));
        vec!["-chardev".to_owned(), chardev]
    }

    /// Netdev and card with ids of their own.
    pub fn command_line(&self, driver: &str, qemu: &Abilities, emulated: bool) -> [String; 4] {
        let id = netdev_id(&self.offer);
        let netdev = format!("{},id={id},{}", self.net().backend(), self.netdev_properties());
        let device = device_options(&self.offer, &id, &device_id(&self.offer), driver);
        let vectors = self.vectors(driver, qemu, emulated);
        ["-netdev".to_owned(), netdev, "-device".to_owned(), device + vectors]
    }

    /// Properties of the card without driver, netdev and id.
    pub fn device_properties(&self, driver: &str, qemu: &Abilities, emulated: bool) -> String {
        device_properties(&self.offer, driver) + self.vectors(driver, qemu, emulated)
    }

    /// What keeps an early QEMU from crashing: no MSI-X. The last one of equal properties counts.
    fn vectors(&self, driver: &str, qemu: &Abilities, emulated: bool) -> &'static str {
        let is_early = qemu.version.is_some_and(|version| version < MSIX_UNDER_TCG);
        let is_pci = driver.starts_with("virtio-net-pci");
        match self.place {
            Place::Vhost { .. } if is_early && emulated && is_pci => ",vectors=0",
            _ => "",
        }
    }

    fn chardev_id(&self) -> String {
        format!("{}-socket", netdev_id(&self.offer))
    }
}

/// Whether a command line of QEMU has the guest on an emulated processor.
pub fn is_emulated(arguments: &[OsString]) -> bool {
    !arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| argument.contains("kvm"))
}

/// Options that have the guest's memory shared with the switch, which vhost-user needs, unless there are such.
///
/// # Errors
/// The size of the memory can't be told from the arguments.
pub fn shared_memory(arguments: &[OsString]) -> Result<Vec<String>, String> {
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect();
    if words.iter().any(|word| word.contains("memory-backend=") || word.contains("memdev=")) {
        return Ok(Vec::new());
    }
    let asked = words.windows(2).rfind(|pair| matches!(pair[0], "-m" | "--m")).map(|pair| pair[1]);
    let size = asked.map_or(Some(DEFAULT_MEMORY), size).ok_or_else(|| {
        let asked = asked.unwrap_or_default();
        format!(
            "-m {asked}: how much memory that is can't be told: name a `-object memory-backend-memfd,share=on,…` and a \
             `-machine memory-backend=…` yourself"
        )
    })?;
    let object = format!("memory-backend-memfd,id=xsw-memory,size={size},share=on");
    let words = ["-object", object.as_str(), "-machine", "memory-backend=xsw-memory"];
    Ok(words.map(str::to_owned).to_vec())
}

/// Bytes of memory that `-m` asks for. QEMU counts in MiB where there is no letter.
fn size(asked: &str) -> Option<u64> {
    let size =
        asked.split(',').find_map(|part| part.strip_prefix("size=").or((!part.contains('=')).then_some(part)))?;
    let (number, unit) = match size.char_indices().find(|(_, c)| c.is_ascii_alphabetic()) {
        Some((at, _)) => size.split_at(at),
        None => (size, "M"),
    };
    let shift = match unit.to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use ctl_types::PortState;
    use model::{PortSpec, VhostSpec};

    use super::*;
    use crate::options::DEFAULT_DRIVER;

    fn port(spec: PortSpec) -> DirectPort {
        let spec = PortSpec { vport: Some(3), mac: Some(MacAddr::new([2, 0, 0, 0, 0, 1])), ..spec };
        let entry =
            PortEntry { name: spec.name.clone(), state: PortState::Up, error: None, spec, info: None, guest: None };
        DirectPort::of(&entry).unwrap()
    }

    fn tap(queues: u32) -> DirectPort {
        let (queues, guest_ifname) = (Some(queues), Some("xt3".to_owned()));
        port(PortSpec { queues, guest_ifname, ..PortSpec::new("vm1", PortKind::Tap) })
    }

    fn vhost(role: SocketRole) -> DirectPort {
        let vhost = Some(VhostSpec { role, ..VhostSpec::new("/run/a,b") });
        port(PortSpec { vhost, ..PortSpec::new("vm1", PortKind::Vhost) })
    }

    fn qemu(version: Version, nets: &[Net]) -> Abilities {
        Abilities { version: Some(version), nets: Some(nets.to_vec()) }
    }

    #[test]
    fn a_tap_is_opened_by_name() {
        let qemu = qemu((7, 2, 0), &Net::ALL);
        assert_eq!(
            tap(1).command_line(DEFAULT_DRIVER, &qemu, true).join(" "),
            "-netdev tap,id=xsw3,ifname=xt3,script=no,downscript=no \
             -device virtio-net-pci,netdev=xsw3,id=xsw3-nic,mac=02:00:00:00:00:01"
        );
        assert_eq!(tap(2).netdev_properties(), "ifname=xt3,script=no,downscript=no,queues=2");
        assert!(tap(2).device_properties(DEFAULT_DRIVER, &qemu, true).ends_with(",mq=on,vectors=6"));
        assert_eq!(tap(1).further_options(&qemu), [] as [&str; 0]);
    }

    #[test]
    fn a_vhost_port_has_a_socket_and_an_early_qemu_no_msi_x() {
        let (old, new) = (qemu((7, 2, 0), &Net::ALL), qemu((10, 2, 0), &Net::ALL));
        let server = vhost(SocketRole::Server);
        assert_eq!(
            server.further_options(&new),
            ["-chardev", "socket,id=xsw3-socket,path=/run/a,,b,reconnect-ms=1000"]
        );
        assert!(server.further_options(&old)[1].ends_with(",reconnect=1"));
        assert!(vhost(SocketRole::Client).further_options(&new)[1].ends_with(",server=on,wait=off"));
        assert_eq!(server.netdev_properties(), "chardev=xsw3-socket");
        let vectors =
            |qemu: &Abilities, emulated| server.command_line(DEFAULT_DRIVER, qemu, emulated)[3].contains("vectors=0");
        assert_eq!((vectors(&old, true), vectors(&old, false), vectors(&new, true)), (true, false, false));
    }

    #[test]
    fn the_way_is_the_first_that_qemu_has_and_one_that_it_lacks_is_told() {
        assert_eq!(qemu((10, 2, 0), &Net::ALL).best(), Some(Net::AfXdp));
        let debian = qemu((7, 2, 0), &[Net::Vhost, Net::Tap]);
        assert_eq!((debian.best(), Abilities::default().best()), (Some(Net::Vhost), Some(Net::AfXdp)));
        let error = debian.check(Net::AfXdp).unwrap_err();
        assert!(error.contains("no `af-xdp`") && error.contains("--net vhost, --net tap"), "{error}");
        assert_eq!((debian.check(Net::Tap), Abilities::default().check(Net::Vhost)), (Ok(()), Ok(())));
        assert!(qemu((7, 2, 0), &[]).check(Net::Tap).unwrap_err().contains("build it"));
    }

    #[test]
    fn memory_is_shared_in_the_size_that_is_asked_for() {
        let of = |line: &str| shared_memory(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let size = |line: &str| of(line).unwrap()[1].clone();
        for (line, bytes) in [
            ("qemu", 128 << 20),
            ("-m 512", 512 << 20),
            ("-m 1G -display none", 1 << 30),
            ("-m size=2g,slots=2,maxmem=4G", 2_u64 << 30),
            ("-m 1 -m 64m", 64 << 20),
            ("-m slots=1,size=131072k", 128 << 20),
        ] {
            assert_eq!(size(line), format!("memory-backend-memfd,id=xsw-memory,size={bytes},share=on"), "{line}");
        }
        assert!(of("-m much").is_err() && of("-m 0").is_err() && of("-m 99999999999999T").is_err());
        assert_eq!(of("-machine pc,memory-backend=m -m much"), Ok(Vec::new()));
        assert_eq!(of("-numa node,memdev=m"), Ok(Vec::new()));
    }

    #[test]
    fn a_processor_is_emulated_unless_kvm_is_named() {
        let is = |line: &str| is_emulated(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(is("-accel tcg") && !is("-enable-kvm") && !is("-machine q35,accel=kvm"));
    }
}

//! The bench's BPF objects, loaded by aya, and their programs attached to netdevs.

use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, include_bytes_aligned};
use tests::NetNs;

/// A BPF object that is built in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Object {
    /// `bpf/bench/generator.bpf.c`.
    Generator,
    /// `bpf/bench/ends.bpf.c`.
    Ends,
    /// `bpf/bench/devmap.bpf.c`.
    Devmap,
}

impl Object {
    /// Creates its maps and reads its programs. None is in the kernel yet.
    pub(crate) fn load(self) -> Ebpf {
        let bytes: &[u8] = match self {
            Self::Generator => include_bytes_aligned!(concat!(env!("OUT_DIR"), "/generator.bpf.o")),
            Self::Ends => include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ends.bpf.o")),
            Self::Devmap => include_bytes_aligned!(concat!(env!("OUT_DIR"), "/devmap.bpf.o")),
        };
        Ebpf::load(bytes).unwrap_or_else(|error| panic!("loading {self:?}: {error}"))
    }
}

/// Loads a program of an object and returns it.
pub(crate) fn program<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    let program: &mut Xdp = object.program_mut(name).expect("the program").try_into().expect("an XDP program");
    if program.fd().is_err() {
        program.load().expect("the kernel takes it");
    }
    program
}

/// Attaches a program of an object to a netdev in native mode, as long as the object lives.
pub(crate) fn attach(object: &mut Ebpf, name: &str, ns: &NetNs, ifname: &str) {
    let program = program(object, name);
    let attached = ns.run(|| program.attach(ifname, XdpMode::Driver).map(drop));
    attached.unwrap_or_else(|error| panic!("{name} on {ifname}: {error}"));
}

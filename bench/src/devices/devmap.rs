//! Lower bound 2: an XDP program on each port that redirects every packet to the other one (`bpf/bench/devmap.bpf.c`).
//! All of it runs in the sender's context.

use aya::Ebpf;
use aya::maps::xdp::DevMapHash;

use super::{Device, Running};
use crate::lab::Lab;
use crate::names;
use crate::object::{self, Object};

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Devmap;

impl Device for Devmap {
    fn name(&self) -> String {
        names::DEVMAP.to_owned()
    }

    fn kind(&self) -> &'static str {
        "devmap"
    }

    fn start<'a>(&'a self, lab: &'a Lab, _cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let ends = [0, 1].map(Lab::port);
        let [a, b] = ends.each_ref().map(|name| lab.switch.ifindex(name));
        let mut object = Object::Devmap.load();
        let mut map: DevMapHash<_> = object.map_mut("OTHER").expect("the map").try_into()?;
        // A netdev is looked up in the namespace of the calling thread.
        lab.switch.run(|| map.insert(a, b, None, 0).and_then(|()| map.insert(b, a, None, 0)))?;
        ends.iter().for_each(|name| object::attach(&mut object, "forward", &lab.switch, name));
        Ok(Box::new(Attached { _object: object }))
    }
}

#[derive(Debug)]
struct Attached {
    _object: Ebpf,
}

impl Running for Attached {}

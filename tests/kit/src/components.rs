//! Components of the fake data plane, with their rings, outside ends and flow rules.

use std::collections::{BTreeMap, BTreeSet};

use switch::model::*;
use switch::outside::check_directory;
use switch::{Error, ErrorKind};

/// What the fake was told. The counters of a component are fixed numbers.
#[derive(Debug, Default)]
pub(crate) struct FakeComponents {
    pub(crate) components: Vec<ComponentSpec>,
    rings: BTreeSet<u32>,
    outside: BTreeMap<u32, OutsideSpec>,
    /// By the names of ports.
    flow_rules: BTreeMap<String, Vec<FlowRule>>,
}

impl FakeComponents {
    pub(crate) fn components(&self) -> Vec<ComponentInfo> {
        let info = |spec: &ComponentSpec| ComponentInfo {
            name: spec.name.clone(),
            worker: spec.worker,
            kind: spec.kind,
            ready: true,
            from: spec.rx.iter().map(|end| end.port.clone()).collect(),
            to: spec.tx.iter().map(|end| end.port.clone()).collect(),
            rx: Count { packets: 3, bytes: 180 },
            tx: Count { packets: 2, bytes: 120 },
            dropped: Count { packets: 1, bytes: 60 },
            drops: [("ring_full".to_owned(), Count { packets: 1, bytes: 60 })].into(),
        };
        self.components.iter().map(info).collect()
    }

    pub(crate) fn add_ring(&mut self, no: u32) -> Result<(), Error> {
        if self.rings.insert(no) { Ok(()) } else { Err(Error::new(ErrorKind::Exists, "ring: it is there")) }
    }

    pub(crate) fn del_ring(&mut self, no: u32) -> Result<(), Error> {
        if self.rings.remove(&no) { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, "ring: it is not there")) }
    }

    pub(crate) fn add_outside(&mut self, no: u32, spec: OutsideSpec) -> Result<(), Error> {
        match &spec {
            OutsideSpec::Capture(files) => check_directory(&files.directory, files.within.as_deref())?,
            OutsideSpec::Pcap { tx: Some(file), .. } => {
                file.parent().map_or(Ok(()), |parent| check_directory(parent, None))?;
            }
            OutsideSpec::Pcap { .. } | OutsideSpec::Tap { .. } => {}
        }
        match self.outside.insert(no, spec) {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Exists, "outside end: it is there")),
        }
    }

    pub(crate) fn del_outside(&mut self, no: u32) -> Result<(), Error> {
        let gone = self.outside.remove(&no);
        gone.map(drop).ok_or_else(|| Error::new(ErrorKind::NotFound, "outside end: it is not there"))
    }

    pub(crate) fn outside(&self) -> Vec<OutsideInfo> {
        let info = |(&no, spec): (&u32, &OutsideSpec)| {
            let files = match spec {
                OutsideSpec::Capture(files) => vec![files.directory.join(format!("{}.1.pcap.lz4", files.stem))],
                OutsideSpec::Tap { .. } | OutsideSpec::Pcap { .. } => Vec::new(),
            };
            OutsideInfo { no, spec: spec.clone(), files, error: None }
        };
        self.outside.iter().map(info).collect()
    }

    /// Sets the rules of a port with so many queues.
    pub(crate) fn set_flow_rules(&mut self, port: &str, queues: usize, rules: Vec<FlowRule>) -> Result<(), Error> {
        if rules.iter().any(|rule| matches!(rule.target, FlowTarget::Queue(queue) if queue as usize >= queues)) {
            return Err(Error::new(ErrorKind::Invalid, "flow rules: there is no such queue"));
        }
        self.flow_rules.insert(port.to_owned(), rules);
        Ok(())
    }

    pub(crate) fn flow_rules(&self, port: &str) -> Vec<FlowRule> {
        self.flow_rules.get(port).cloned().unwrap_or_default()
    }

    pub(crate) fn forget_flow_rules(&mut self, port: &str) {
        self.flow_rules.remove(port);
    }

    pub(crate) fn flow_counts(&self) -> Vec<FlowCount> {
        let of_port = |(port, rules): (&String, &Vec<FlowRule>)| {
            let count = |rule: &FlowRule| FlowCount { port: port.clone(), rule: rule.id, matched: Count::default() };
            rules.iter().map(count).collect::<Vec<_>>()
        };
        self.flow_rules.iter().flat_map(of_port).collect()
    }

    pub(crate) fn ends(&self) -> Vec<EndInfo> {
        let end = |&no: &u32| EndInfo {
            end: EndPort::Ring(no),
            rx: Count::default(),
            tx: Count::default(),
            tx_dropped: Count::default(),
            rx_dropped: Count::default(),
            queued: 0,
        };
        self.rings.iter().map(end).collect()
    }
}

//! Checks of the Soft Patch Panel for `xswitch doctor`: who can reach its API, whether spp-ctl is connected, which
//! workers lcores are on, and what components wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::PoisonError;

use ctl_types::{Check, Status};

use super::compile::patch_core;
use super::{Instance, PortId, PortType, Proc, Setup, Spp, check_launch};

impl Spp {
    /// Notes whether an instance is connected to an outside spp-ctl: `None` if it is, else the reason why not.
    pub fn set_link(&self, proc: Proc, missing: Option<String>) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).insert(proc, missing);
    }

    /// Each instance's connection to an outside spp-ctl: `None` if it is connected, else the reason why not.
    pub fn links(&self) -> BTreeMap<Proc, Option<String>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All checks of the instances and their surroundings.
pub fn checks(spp: &Spp) -> Vec<Check> {
    let instances: BTreeMap<Proc, Instance> =
        spp.instances().into_iter().map(|instance| (instance.proc, instance)).collect();
    let mut checks = vec![api(&spp.config().listen)];
    if let Some(controller) = &spp.config().controller {
        let links = spp.links();
        checks.extend(instances.keys().map(|proc| link(*proc, links.get(proc), controller.address.to_string())));
    }
    checks.extend(cores(&instances, spp.workers, &spp.config().cores()));
    let broken = spp.broken_vhosts();
    checks.extend(ports(&instances, &spp.port_names(), &broken));
    let advice = "end the instance, or give it other cores in the configuration";
    checks.extend(clashes(&instances).into_iter().map(|clash| Check::bad(Status::Warn, "SPP cores", clash, advice)));
    let directory = &spp.config().directory;
    if !directory.is_dir() {
        let text = format!("{} is not there: pcap ports will be refused", directory.display());
        checks.push(Check::bad(
            Status::Warn,
            "SPP directory",
            text,
            "make it, or name another as `directory` in [spp]",
        ));
    }
    checks
}

fn api(listen: &str) -> Check {
    let name = "SPP REST API";
    match listen.parse::<SocketAddr>() {
        Err(_) => Check::ok(name, "off"),
        Ok(address) if address.ip().is_loopback() => Check::ok(name, format!("on {address}")),
        Ok(address) => {
            let text = format!("on {address}: whoever reaches it may change instances, without a password");
            Check::bad(Status::Warn, name, text, "`listen` in [spp] on the loopback address, or a firewall")
        }
    }
}

/// Whether an instance is connected to the outside spp-ctl.
fn link(proc: Proc, state: Option<&Option<String>>, address: String) -> Check {
    let name = format!("spp-ctl for {proc}");
    match state {
        Some(None) => Check::ok(name, "connected"),
        Some(Some(why)) => {
            let advice = "start spp-ctl there, or correct [spp.controller]; it is tried again at least every 10 s";
            Check::bad(Status::Warn, name, format!("not connected to {address}: {why}"), advice)
        }
        None => Check::ok(name, format!("connecting to {address}")),
    }
}

/// The workers of all lcores that run something. A warning if some share a worker while others are free.
fn cores(instances: &BTreeMap<Proc, Instance>, workers: usize, named: &BTreeMap<u32, usize>) -> Option<Check> {
    let mut of: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for instance in instances.values() {
        let components = instance.running.components.iter().map(|component| component.core);
        let forwards = !instance.running.patches.is_empty() || instance.capture.is_some();
        for core in components.chain(forwards.then(|| patch_core(instance))) {
            let worker = super::compile::worker_of(named, workers, core);
            of.entry(worker).or_default().insert(core);
        }
    }
    let list = |cores: &BTreeSet<u32>| cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let places: Vec<_> = of.iter().map(|(worker, cores)| format!("{} on worker {worker}", list(cores))).collect();
    let text = format!("lcores {}", places.join("; "));
    let crowded = of.values().any(|cores| cores.len() > 1);
    match of.len() {
        0 => None,
        used if crowded && used < workers => {
            let advice = "spread them by `cores` in [spp]";
            let text = format!("{text}; {} of {workers} workers have none", workers - used);
            Some(Check::bad(Status::Warn, "SPP cores", text, advice))
        }
        _ => Some(Check::ok("SPP cores", text)),
    }
}

/// Ports that instances name, but that no port of the switch has as its SPP name.
/// `broken` has reasons why ports can't be made for `vhost:N`.
fn ports(instances: &BTreeMap<Proc, Instance>, there: &[PortId], broken: &BTreeMap<u32, String>) -> Vec<Check> {
    let mut missing: BTreeMap<PortId, Proc> = BTreeMap::new();
    for (proc, instance) in instances {
        let capture = instance.capture.iter().map(|capture| capture.port);
        for port in named(&instance.running).chain(capture) {
            let of_switch = matches!(port.kind, PortType::Phy | PortType::Vhost);
            if of_switch && !there.contains(&port.whole()) {
                missing.entry(port.whole()).or_insert(*proc);
            }
        }
    }
    let check = |(port, proc): (PortId, Proc)| {
        if let Some(why) = broken.get(&port.no).filter(|_| port.kind == PortType::Vhost) {
            let text = format!("{proc} needs it, and it can't be made: {why}");
            let advice = "free its path, or name another directory in [spp.vhost]";
            return Check::bad(Status::Warn, format!("SPP port {port}"), text, advice);
        }
        let text = format!("no port of the switch has that name, and {proc} needs it");
        Check::bad(Status::Warn, format!("SPP port {port}"), text, format!("`xswitch port add … --spp {port}`"))
    };
    missing.into_iter().map(check).collect()
}

/// All ports that a setup names.
fn named(setup: &Setup) -> impl Iterator<Item = PortId> {
    let attached = setup.components.iter().flat_map(|component| component.rx.iter().chain(&component.tx));
    let patched = setup.patches.iter().flat_map(|patch| [patch.src, patch.dst]);
    attached.map(|attached| attached.port).chain(patched).chain(setup.ports.iter().copied())
}

/// Conflicts between the configuration and the state file, in words: numbers and cores that two instances have, and
/// components on cores that are not their instance's.
pub(super) fn clashes(instances: &BTreeMap<Proc, Instance>) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut clashes = Vec::new();
    for (proc, instance) in instances {
        if let Err(error) = check_launch(&seen, instance) {
            clashes.push(format!("{proc}: {error}"));
        }
        seen.insert(*proc, instance.clone());
        let own = |core: &u32| instance.cores.is_empty() || instance.cores[1..].contains(core);
        for component in instance.running.components.iter().filter(|component| !own(&component.core)) {
            clashes.push(format!(
                "{proc}: component {} is on core {}, which is not its own",
                component.name, component.core
            ));
        }
    }
    clashes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, ComponentType, ProcType};

    const VF: Proc = Proc { kind: ProcType::Vf, id: 1 };

    /// A vf instance on the cores 0, 1 and 2, with components on some of them.
    fn vf(components: &[(&str, u32)]) -> BTreeMap<Proc, Instance> {
        let mut instance = Instance::new(VF, vec![0, 1, 2], None);
        for &(name, core) in components {
            let mut setup = instance.running.clone();
            let start = Change::StartComponent { name: name.to_owned(), core, kind: ComponentType::Forward };
            start.make(&instance, &mut setup).unwrap();
            instance.running = setup;
        }
        BTreeMap::from([(VF, instance)])
    }

    #[test]
    fn lcores_that_crowd_on_a_worker_are_told() {
        let named = BTreeMap::from([(1, 0), (2, 0)]);
        let instances = vf(&[("a", 1), ("b", 2)]);
        let check = cores(&instances, 2, &named).unwrap();
        assert_eq!(
            (check.status, check.text.as_str()),
            (Status::Warn, "lcores 1, 2 on worker 0; 1 of 2 workers have none")
        );
        let check = cores(&instances, 2, &BTreeMap::new()).unwrap();
        assert_eq!((check.status, check.text.as_str()), (Status::Ok, "lcores 2 on worker 0; 1 on worker 1"));
    }

    #[test]
    fn cores_that_the_configuration_gave_away_are_told() {
        let mut instances = vf(&[("f", 2)]);
        assert_eq!(clashes(&instances), [""; 0]);
        instances.get_mut(&VF).unwrap().cores = vec![0, 7];
        assert_eq!(clashes(&instances), ["vf 1: component f is on core 2, which is not its own"]);
        let other = Proc { id: 9, ..VF };
        instances.insert(other, Instance::new(other, vec![0, 7], None));
        assert_eq!(clashes(&instances).pop().unwrap(), "vf 9: core 7 is busy: it belongs to vf 1");
    }
}

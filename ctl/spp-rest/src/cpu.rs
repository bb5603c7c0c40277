//! Routes about CPUs: the machine's layout, and the lcores of instances.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use ctl_spp::status::lcores;
use ctl_spp::{Instance, Proc, ProcType, Spp};
use serde::Serialize;

use super::instances::order;
use super::{blocking, shown};

/// Where the kernel describes CPUs.
const CPUS: &str = "/sys/devices/system/cpu";

pub(super) fn routes() -> Router<Arc<Spp>> {
    Router::new()
        .route(
            "/cpu_layout",
            get(|State(spp): State<Arc<Spp>>| async { shown(blocking(spp, |_| Ok(layout(Path::new(CPUS)))).await) }),
        )
        .route(
            "/cpu_usage",
            get(|State(spp): State<Arc<Spp>>| async {
                let usage = |spp: &Spp| {
                    let mut instances = spp.instances();
                    instances.sort_by_key(|instance| order(&instance.proc));
                    Ok(instances.iter().map(Usage::from).collect::<Vec<_>>())
                };
                shown(blocking(spp, usage).await) as Response
            }),
        )
}

/// A CPU socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// Its cores, by number.
    pub cores: Vec<Core>,
    /// Its number.
    pub socket_id: u32,
}

/// A CPU core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Core {
    /// Its number, unique in its socket.
    pub core_id: u32,
    /// The kernel's numbers of its CPUs (hardware threads), in order.
    pub lcores: Vec<u32>,
}

/// Reads the CPUs from a directory such as `/sys/devices/system/cpu`, and groups them by socket and core. A CPU that
/// is offline has no topology there, and is left out.
pub fn layout(directory: &Path) -> Vec<Socket> {
    let mut sockets: BTreeMap<u32, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(cpu) = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok()) else { continue };
        let read = |file: &str| -> Option<u32> {
            std::fs::read_to_string(entry.path().join("topology").join(file)).ok()?.trim().parse().ok()
        };
        if let (Some(core), Some(socket)) = (read("core_id"), read("physical_package_id")) {
            sockets.entry(socket).or_default().entry(core).or_default().push(cpu);
        }
    }
    let core = |(core_id, mut lcores): (u32, Vec<u32>)| {
        lcores.sort_unstable();
        Core { core_id, lcores }
    };
    let socket = |(socket_id, cores): (u32, BTreeMap<u32, Vec<u32>>)| {
        let cores = cores.into_iter().map(core).collect();
        Socket { cores, socket_id }
    };
    sockets.into_iter().map(socket).collect()
}

/// The lcores of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Usage {
    proc_type: ProcType,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<u32>,
    master_lcore: u32,
    lcores: Vec<u32>,
}

impl From<&Instance> for Usage {
    fn from(instance: &Instance) -> Self {
        let Proc { kind, id } = instance.proc;
        let client_id = (kind != ProcType::Primary).then_some(id);
        Self { proc_type: kind, client_id, master_lcore: instance.master(), lcores: lcores(instance) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_grouped_by_socket_and_core() {
        let dir = tempfile::tempdir().unwrap();
        // Two sockets with two cores of two threads each, numbered as Linux does. CPU 10 is offline.
        for (cpu, socket, core) in
            [(0, 0, 0), (1, 0, 8), (2, 1, 0), (3, 1, 8), (4, 0, 0), (5, 0, 8), (6, 1, 0), (7, 1, 8), (10, 9, 9)]
        {
            let topology = dir.path().join(format!("cpu{cpu}/topology"));
            if cpu == 10 {
                std::fs::create_dir_all(topology.parent().unwrap()).unwrap();
                continue;
            }
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("core_id"), format!("{core}\n")).unwrap();
            std::fs::write(topology.join("physical_package_id"), format!("{socket}\n")).unwrap();
        }
        for other in ["cpufreq", "cpuidle"] {
            std::fs::create_dir(dir.path().join(other)).unwrap();
        }
        let core = |core_id, lcores: [u32; 2]| Core { core_id, lcores: lcores.to_vec() };
        let sockets = [
            Socket { cores: vec![core(0, [0, 4]), core(8, [1, 5])], socket_id: 0 },
            Socket { cores: vec![core(0, [2, 6]), core(8, [3, 7])], socket_id: 1 },
        ];
        assert_eq!(layout(dir.path()), sockets);
        assert_eq!(layout(&dir.path().join("none")), []);
    }

    #[test]
    fn this_machine_has_the_cpu_that_it_runs_on() {
        let cpus: Vec<_> =
            layout(Path::new(CPUS)).into_iter().flat_map(|socket| socket.cores).flat_map(|core| core.lcores).collect();
        assert!(cpus.contains(&0) || !Path::new(CPUS).join("cpu0/topology").exists(), "{cpus:?}");
    }
}

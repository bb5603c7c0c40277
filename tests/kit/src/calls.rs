//! All methods of the DPU interface by name, with encoded messages, and the invariants that hold after each.

use ctl_grpc::Dpu;
use ctl_grpc::proto::elastic_nic_server::ElasticNic;
use ctl_grpc::proto::eth_mac_server::EthMac;
use ctl_grpc::proto::meter_server::Meter;
use ctl_grpc::proto::port_stats_server::PortStats;
use ctl_grpc::proto::traffic_control_server::TrafficControl;
use ctl_grpc::proto::vdisk_server::Vdisk;
use ctl_grpc::proto::*;
use ctl_service::{MeterRecord, Service};
use ctl_types::Page;
use prost::Message;
use tonic::Request;

use crate::Kept;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// 0, or an errno.
    pub status: u32,
    /// The reason.
    pub error: String,
    /// The encoded answer.
    pub bytes: Vec<u8>,
}

macro_rules! methods {
    ($($service:ident { $($name:literal $method:ident($request:ident);)+ })+) => {
        /// Names of all methods, as `Service/Method`.
        pub const METHODS: &[&str] = &[$($(concat!(stringify!($service), "/", $name),)+)+];

        /// Calls a method. `None` if it does not exist, or if the bytes can't be decoded.
        ///
        /// # Panics
        /// If the call panics.
        pub async fn call(dpu: &Dpu, method: &str, message: &[u8]) -> Option<Said> {
            match method {
                $($(concat!(stringify!($service), "/", $name) => {
                    let request = Request::new($request::decode(message).ok()?);
                    let answer = <Dpu as $service>::$method(dpu, request).await.expect("a call never ends early");
                    let answer = answer.into_inner();
                    let bytes = answer.encode_to_vec();
                    Some(Said { status: answer.status?, error: answer.error.unwrap_or_default(), bytes })
                })+)+
                _ => None,
            }
        }
    };
}

methods! {
    ElasticNic {
        "GetPortCapability" get_port_capability(GetPortCapabilityRequest);
        "NewPort" new_port(NewPortRequest);
        "DelPort" del_port(DelPortRequest);
        "SetPortCfg" set_port_cfg(SetPortCfgRequest);
        "GetPortCfg" get_port_cfg(GetPortCfgRequest);
        "QueryPort" query_port(QueryPortRequest);
    }
    Vdisk {
        "GetPvfCapability" get_pvf_capability(VdiskGetPvfCapabilityRequest);
        "Create" create(VdiskCreateRequest);
        "Destroy" destroy(VdiskDestroyRequest);
        "Update" update(VdiskUpdateRequest);
        "Pause" pause(VdiskPauseRequest);
        "GetPvfCfg" get_pvf_cfg(VdiskGetPvfCfgRequest);
        "GetAllPvfCfg" get_all_pvf_cfg(VdiskGetAllPvfCfgRequest);
        "Snapshot" snapshot(VdiskSnapshotRequest);
        "GetStats" get_stats(VdiskGetStatsRequest);
    }
    Meter {
        "Capability" capability(MeterCapabilityRequest);
        "Add" add(MeterAddRequest);
        "Del" del(MeterDelRequest);
        "Update" update(MeterUpdateRequest);
        "Get" get(MeterGetRequest);
        "Bind" bind(MeterBindRequest);
        "Query" query(MeterQueryRequest);
    }
    TrafficControl {
        "ClassfierWrite" classfier_write(ClassfierWriteRequest);
        "ClassfierDelete" classfier_delete(ClassfierDeleteRequest);
        "ClassfierRead" classfier_read(ClassfierReadRequest);
        "ProcSwitch" proc_switch(ProcSwitchRequest);
        "ClassfierBatch" classfier_batch(ClassfierBatchRequest);
        "ClassfierQuery" classfier_query(ClassfierQueryRequest);
        "ClassfierCapability" classfier_capability(ClassfierCapabilityRequest);
        "ProcSwitchQuery" proc_switch_query(ProcSwitchQueryRequest);
    }
    PortStats {
        "GetPortStats" get_port_stats(GetPortStatsRequest);
    }
    EthMac {
        "BondSet" bond_set(EthMacBondSetRequest);
        "GetStats" get_stats(EthMacGetStatsRequest);
        "GetLink" get_link(EthMacGetLinkRequest);
        "GetMtu" get_mtu(EthMacGetMtuRequest);
        "SetMtu" set_mtu(EthMacSetMtuRequest);
    }
}

/// The state that the state file should have, from the data plane's tables. Bridge settings and static FDB entries are
/// left out.
///
/// # Panics
/// If the tables are inconsistent.
pub fn state_of(service: &Service) -> Kept {
    let mut ports: Vec<_> = service.ports().into_iter().map(|port| port.spec).collect();
    ports.sort_by(|one, other| one.name.cmp(&other.name));
    let (meters, rules) = (service.meters(Page::default()), service.rules(Page::default()));
    let bindings = service.meter_bindings();
    for meter in &meters {
        let id = meter.spec.id;
        let named = rules.iter().filter(|rule| rule.spec.action.meter == Some(id)).count();
        assert_eq!(meter.rules as usize, named, "rules of meter {id}");
        let bound = bindings.iter().any(|binding| binding.meter == id);
        assert!(!meter.implicit || (named == 0 && !bound), "meter {id} is used and implied");
    }
    let known = |id: u32| meters.iter().any(|meter| meter.spec.id == id);
    assert!(bindings.iter().all(|binding| known(binding.meter)), "a binding names a meter that is gone");
    assert!(rules.iter().filter_map(|rule| rule.spec.action.meter).all(known), "a rule names a meter that is gone");
    let numbered = |no| ports.iter().any(|port| port.vport == Some(no));
    assert!(bindings.iter().all(|binding| numbered(binding.vport)), "a binding names a port that is gone");
    let redirects: Vec<_> = service.redirects().into_iter().map(|redirect| redirect.spec).collect();
    assert!(
        redirects.iter().all(|one| numbered(one.src) && numbered(one.dest)),
        "a redirect names a port that is gone"
    );
    let capability = service.capability();
    for (usage, used) in
        [(capability.ports, ports.len()), (capability.meters, meters.len()), (capability.rules, rules.len())]
    {
        assert_eq!((usage.total - usage.free) as usize, used);
    }
    Kept {
        ports,
        meters: meters.into_iter().map(|meter| MeterRecord { spec: meter.spec, implicit: meter.implicit }).collect(),
        bindings,
        rules: rules.into_iter().map(|rule| rule.spec).collect(),
        redirects,
        disks: service.disks().specs(),
        ..Kept::default()
    }
}

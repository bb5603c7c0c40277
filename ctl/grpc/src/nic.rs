//! Section 1 of the DPU interface document: elastic NICs.

use ctl_service::{Error, Service};
use ctl_types::PortEntry;
use switch::model::*;
use tonic::{Request, Response, Status};

use super::proto::elastic_nic_server::ElasticNic;
use super::proto::{
    DelPortRequest, GetPortCapabilityRequest, GetPortCapabilityResponse, GetPortCfgRequest, GetPortCfgResponse,
    NewPortRequest, PortCfg, PortOpsRep, QueryPortRequest, QueryPortResponse, SetPortCfgRequest,
};
use super::{Dpu, mac, number, renamed, required};

/// Fields of the service that have another name here.
const FIELDS: [(&str, &str); 8] = [
    ("queues: ", "max_qpair"),
    ("vhost.socket: ", "socket"),
    ("vhost.owner: ", "owner"),
    ("vhost.group: ", "group"),
    ("vhost.mode: ", "socket_mode"),
    ("vhost: ", "socket"),
    ("tap.owner: ", "owner"),
    ("tap.group: ", "group"),
];

/// A name for a port: its uuid if that is valid and free, otherwise one derived from it.
fn name_for(service: &Service, uuid: &str) -> String {
    if switch::check_name(uuid).is_ok() && service.name_of(uuid).is_err() {
        return uuid.to_owned();
    }
    format!("nic-{}", MacAddr::derived_from(uuid).to_string().replace(':', ""))
}

fn new_port(service: &Service, request: NewPortRequest) -> Result<PortOpsRep, Error> {
    let uuid = required("uuid", request.uuid)?;
    let kind = match request.kind.as_deref() {
        None => PortKind::Guest,
        Some(word) => PortKind::from_name(word).ok_or_else(|| {
            let known = PortKind::ALL.map(PortKind::name).join(", ");
            Error::invalid(format!("kind: `{}` is none of {known}", word.escape_default()))
        })?,
    };
    if kind == PortKind::Bond {
        return Err(Error::invalid("kind: a bond is made by EthMac.BondSet"));
    }
    // The uuid is checked before it becomes a name.
    let mut spec = PortSpec::new("nic", kind);
    spec.vport = request.vport.map(|vport| number(vport, service.capability().ports.total)).transpose()?;
    spec.queues = request.max_qpair;
    spec.mtu = request.mtu;
    spec.mac = request.mac.map(|bytes| mac("mac", &bytes)).transpose()?;
    spec.queue_depth = request.queue_depth;
    spec.shared_mac = request.shared_mac.unwrap_or(false);
    // 0 is what clients send that have no wish.
    spec.feature_list = request.feature_list.filter(|features| *features != 0);
    (spec.ifname, spec.guest_ifname, spec.netns) = (request.ifname, request.guest_ifname, request.netns);
    let role = if request.socket_client == Some(true) { SocketRole::Client } else { SocketRole::Server };
    let (owner, group, mode) = (request.owner, request.group, request.socket_mode);
    let has_owner = owner.is_some() || group.is_some();
    match request.socket {
        Some(socket) => spec.vhost = Some(VhostSpec { role, owner, group, mode, ..VhostSpec::new(socket) }),
        None if kind == PortKind::Vhost => {
            return Err(Error::invalid("socket: a vhost port needs the path of a socket"));
        }
        None if mode.is_some() => return Err(Error::invalid("socket_mode: no socket is named")),
        None if role == SocketRole::Client => return Err(Error::invalid("socket_client: no socket is named")),
        None if kind == PortKind::Tap => spec.tap = has_owner.then_some(TapSpec { owner, group }),
        None if has_owner => return Err(Error::invalid("owner: only sockets and taps have one")),
        None => {}
    }
    // A repeated uuid is refused before a name is derived from it, because `add_port` replaces a failed port of the
    // same name.
    if let Some(other) = service.ports_in_brief().iter().find(|port| port.spec.uuid() == uuid) {
        return Err(Error::exists(format!("uuid: `{}` belongs to port `{}`", uuid.escape_default(), other.name)));
    }
    spec.name = name_for(service, &uuid);
    spec.uuid = Some(uuid);
    let port = service.add_port(spec)?;
    Ok(PortOpsRep { status: Some(0), vport: port.spec.vport.map(u32::from), error: None })
}

fn set_port(service: &Service, request: SetPortCfgRequest) -> Result<PortOpsRep, Error> {
    let vport = required("vport", request.vport)?;
    service.name_numbered("vport", vport)?;
    if request.feature_list.is_some_and(|features| features != 0) {
        return super::unsupported("feature_list: virtio features on this kind of port");
    }
    let update = PortUpdate {
        mtu: request.mtu,
        mac: request.mac.map(|bytes| mac("mac", &bytes)).transpose()?,
        shared_mac: request.shared_mac,
        queue_depth: request.queue_depth,
        queues: request.max_qpair,
        ..PortUpdate::default()
    };
    service.update_port_numbered("vport", vport, update)?;
    Ok(PortOpsRep { status: Some(0), vport: Some(vport), error: None })
}

fn describe(port: &PortEntry) -> PortCfg {
    let spec = &port.spec;
    PortCfg {
        queue_depth: Some(spec.queue_depth.unwrap_or(DEFAULT_QUEUE_DEPTH)),
        enable: Some(true),
        max_qpair: Some(spec.queues.unwrap_or(1)),
        mtu: Some(spec.mtu.unwrap_or(DEFAULT_MTU)),
        mac: Some(spec.mac.map(|mac| mac.octets().to_vec()).unwrap_or_default()),
        uuid: Some(spec.uuid().to_owned()),
        vport: Some(u32::from(spec.vport.unwrap_or_default())),
        active_qpair: Some(port.info.as_ref().map_or(0, |info| info.active_queues)),
        error: port.error.clone(),
    }
}

#[tonic::async_trait]
impl ElasticNic for Dpu {
    async fn get_port_capability(
        &self,
        _: Request<GetPortCapabilityRequest>,
    ) -> Result<Response<GetPortCapabilityResponse>, Status> {
        self.answer(|service| {
            let Usage { total, free } = service.capability().ports;
            let (total_pvf_cnt, free_pvf_cnt) = (Some(total), Some(free));
            Ok(GetPortCapabilityResponse { status: Some(0), total_pvf_cnt, free_pvf_cnt, error: None })
        })
        .await
    }

    async fn new_port(&self, request: Request<NewPortRequest>) -> Result<Response<PortOpsRep>, Status> {
        let request = request.into_inner();
        let vport = request.vport.unwrap_or(0);
        self.answer_with(
            move |service| new_port(service, request).map_err(|error| renamed(error, &FIELDS)),
            |answer| PortOpsRep { vport: Some(vport), ..answer },
        )
        .await
    }

    async fn del_port(&self, request: Request<DelPortRequest>) -> Result<Response<PortOpsRep>, Status> {
        let vport = request.into_inner().vport;
        self.answer_with(
            move |service| {
                service.del_port_numbered("vport", required("vport", vport)?)?;
                Ok(PortOpsRep { status: Some(0), vport, error: None })
            },
            |answer| PortOpsRep { vport: vport.or(Some(0)), ..answer },
        )
        .await
    }

    async fn set_port_cfg(&self, request: Request<SetPortCfgRequest>) -> Result<Response<PortOpsRep>, Status> {
        let request = request.into_inner();
        let vport = request.vport.unwrap_or(0);
        self.answer_with(
            move |service| set_port(service, request).map_err(|error| renamed(error, &FIELDS)),
            |answer| PortOpsRep { vport: Some(vport), ..answer },
        )
        .await
    }

    async fn get_port_cfg(&self, request: Request<GetPortCfgRequest>) -> Result<Response<GetPortCfgResponse>, Status> {
        let vport = request.into_inner().vport;
        self.answer_with(
            move |service| {
                let port = describe(&service.port_numbered("vport", required("vport", vport)?)?);
                Ok(GetPortCfgResponse {
                    status: Some(0),
                    enable: port.enable,
                    max_qpair: port.max_qpair,
                    mtu: port.mtu,
                    mac: port.mac,
                    uuid: port.uuid,
                    vport: port.vport,
                    queue_depth: port.queue_depth,
                    active_qpair: port.active_qpair,
                    error: port.error,
                })
            },
            |answer| GetPortCfgResponse { vport: vport.or(Some(0)), ..answer },
        )
        .await
    }

    async fn query_port(&self, _: Request<QueryPortRequest>) -> Result<Response<QueryPortResponse>, Status> {
        self.answer(|service| {
            let mut ports: Vec<_> = service.ports().iter().map(describe).collect();
            ports.sort_by_key(|port| port.vport);
            Ok(QueryPortResponse { status: Some(0), ports, error: None })
        })
        .await
    }
}

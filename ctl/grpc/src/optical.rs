//! Section 6 of the DPU interface document: optical ports, which are the `phy` ports, and bonds.

use ctl_service::{Error, Service};
use ctl_types::LinkUpdate;
use switch::ErrorKind;
use switch::model::{Duplex, LinkInfo, LinkStats};
use tonic::{Request, Response, Status};

use super::proto::eth_mac_server::EthMac;
use super::proto::*;
use super::{Dpu, number, renamed, required};

/// `link_speed` of a link that is up at a speed which nobody knows (`RTE_ETH_SPEED_NUM_UNKNOWN` of DPDK, whose
/// structure `EthLink` follows).
const SPEED_UNKNOWN: u32 = u32::MAX;
/// `link_speed` of a link without a speed (`RTE_ETH_SPEED_NUM_NONE`).
const SPEED_NONE: u32 = 0;

/// Name of the bond that a request is about which names none.
const BOND: &str = "bond0";
/// Fields of the service that have another name here.
const BOND_FIELDS: [(&str, &str); 4] = [
    ("bond: ", "bond_opts"),
    ("bond.members: ", "bond_opts: slaves"),
    ("bond.add: ", "bond_opts: slaves"),
    ("queues: ", "bond_opts: slaves"),
];

fn bond_set(service: &Service, request: EthMacBondSetRequest) -> Result<EthMacBondSetResponse, Error> {
    let EthMacBondSetRequest { enable, bond_opts, name, vport } = request;
    let enable = required("enable", enable)?;
    let name = name.unwrap_or_else(|| BOND.to_owned());
    if !enable {
        delete(service, &name).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::not_found(format!("name: {error}")),
            _ => error,
        })?;
        return Ok(EthMacBondSetResponse { status: Some(0), error: None, vport: None });
    }
    let vport = vport.map(|vport| number(vport, service.capability().ports.total)).transpose()?;
    let option = |BondOpts { opt_name, value }| {
        Ok((required("bond_opts.opt_name", opt_name)?, required("bond_opts.value", value)?))
    };
    let options: Vec<_> = bond_opts.into_iter().map(option).collect::<Result<_, Error>>()?;
    let bond = service.set_bond(&name, vport, &options)?;
    Ok(EthMacBondSetResponse { status: Some(0), error: None, vport: bond.vport.map(u32::from) })
}

fn delete(service: &Service, name: &str) -> Result<(), Error> {
    // Elsewhere a number names a port too.
    match service.bond(name)? {
        bond if bond.name == name => service.del_bond(name),
        _ => Err(Error::not_found(format!("there is no bond `{name}`"))),
    }
}

/// Name of the port that a request is about.
fn subject(service: &Service, port_id: Option<u32>) -> Result<String, Error> {
    service.optical_port("port_id", required("port_id", port_id)?)
}

fn describe(link: &LinkInfo) -> EthLink {
    let unknown = if link.up { SPEED_UNKNOWN } else { SPEED_NONE };
    EthLink {
        link_speed: Some(link.mode.speed.unwrap_or(unknown)),
        link_duplex: Some(link.mode.duplex == Some(Duplex::Full)),
        link_autoneg: Some(link.mode.autoneg.unwrap_or_default()),
        link_status: Some(link.up),
    }
}

fn counters(stats: &LinkStats) -> EthMacGetStatsResponse {
    let queues = &stats.queues;
    EthMacGetStatsResponse {
        status: Some(0),
        ipackets: Some(stats.ipackets),
        opackets: Some(stats.opackets),
        ibytes: Some(stats.ibytes),
        obytes: Some(stats.obytes),
        imissed: Some(stats.imissed),
        ierrors: Some(stats.ierrors),
        oerrors: Some(stats.oerrors),
        rx_nombuf: Some(stats.rx_nombuf),
        q_ipackets: queues.iter().map(|queue| queue.ipackets).collect(),
        q_opackets: queues.iter().map(|queue| queue.opackets).collect(),
        q_ibytes: queues.iter().map(|queue| queue.ibytes).collect(),
        q_obytes: queues.iter().map(|queue| queue.obytes).collect(),
        q_errors: queues.iter().map(|queue| queue.errors).collect(),
        error: None,
    }
}

#[tonic::async_trait]
impl EthMac for Dpu {
    async fn bond_set(
        &self,
        request: Request<EthMacBondSetRequest>,
    ) -> Result<Response<EthMacBondSetResponse>, Status> {
        let request = request.into_inner();
        self.answer(move |service| bond_set(service, request).map_err(|error| renamed(error, &BOND_FIELDS))).await
    }

    async fn get_stats(
        &self,
        request: Request<EthMacGetStatsRequest>,
    ) -> Result<Response<EthMacGetStatsResponse>, Status> {
        let port_id = request.into_inner().port_id;
        self.answer(move |service| {
            let name = subject(service, port_id)?;
            let stats = service.link_stats(Some(&name))?;
            Ok(counters(stats.first().unwrap_or(&LinkStats::default())))
        })
        .await
    }

    async fn get_link(
        &self,
        request: Request<EthMacGetLinkRequest>,
    ) -> Result<Response<EthMacGetLinkResponse>, Status> {
        let port_id = request.into_inner().port_id;
        self.answer(move |service| {
            let link = service.link(&subject(service, port_id)?)?;
            Ok(EthMacGetLinkResponse { status: Some(0), link: Some(describe(&link)), error: None })
        })
        .await
    }

    async fn get_mtu(&self, request: Request<EthMacGetMtuRequest>) -> Result<Response<EthMacGetMtuResponse>, Status> {
        let port_id = request.into_inner().port_id;
        self.answer_with(
            move |service| {
                let link = service.link(&subject(service, port_id)?)?;
                Ok(EthMacGetMtuResponse { status: Some(0), mtu: Some(link.mtu), port_id, error: None })
            },
            |answer| EthMacGetMtuResponse { port_id: port_id.or(Some(0)), ..answer },
        )
        .await
    }

    async fn set_mtu(&self, request: Request<EthMacSetMtuRequest>) -> Result<Response<EthMacSetMtuResponse>, Status> {
        let EthMacSetMtuRequest { port_id, mtu } = request.into_inner();
        self.answer_with(
            move |service| {
                let update = LinkUpdate { mtu: Some(required("mtu", mtu)?) };
                service.update_link(&subject(service, port_id)?, update)?;
                Ok(EthMacSetMtuResponse { status: Some(0), port_id, error: None })
            },
            |answer| EthMacSetMtuResponse { port_id: port_id.or(Some(0)), ..answer },
        )
        .await
    }
}

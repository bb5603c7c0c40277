//! A bond as its users see it.

use bond::lacp::pdu::PortInfo;
use bond::lacp::{ChurnState, MuxState, PortStatus, ReceiveState};
use bond::options::{Mode, Word};
use bond::{Bond, Collect, LinkState, MemberId};

use super::Member;
use crate::counters::as_count;
use crate::model::{BondInfo, BondLacpInfo, BondMemberInfo, BondPartyInfo, BondPortInfo};

/// All that can be told of a bond.
pub fn describe(bond: &Bond, members: &[Member]) -> BondInfo {
    let infos = bond.members();
    let name_of = |id: MemberId| infos.iter().find(|info| info.id == id).map(|info| info.name.clone());
    let options = bond.options();
    let member = |info: &bond::MemberInfo| {
        let member = members.iter().find(|member| member.id == info.id);
        let queues = member.map(|member| member.queues.clone()).unwrap_or_default();
        BondMemberInfo {
            number: info.id.0,
            ifname: info.name.clone(),
            mac: info.mac,
            link_up: info.link.up,
            mii_status: mii_status(info.state).to_owned(),
            speed: info.link.speed,
            duplex: info.link.duplex.map(duplex),
            link_failures: info.failures,
            leaving: info.leaving,
            collecting: info.collect != Collect::Nothing,
            distributing: info.distributes,
            buckets: info.buckets,
            first_queue: queues.start,
            queues: as_count(queues.len()),
            inactive_drops: member.map(|member| member.gate.inactive()).unwrap_or_default(),
            lacp: info.lacp.as_ref().map(port),
        }
    };
    BondInfo {
        mode: options.mode.name().to_owned(),
        options: options.all().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        mac: bond.mac(),
        carrier: bond.carrier(),
        active: bond.active().and_then(name_of),
        lacp: (options.mode == Mode::Lacp).then(|| lacp(bond)),
        members: infos.iter().map(member).collect(),
    }
}

/// The driver's words (`bond_slave_link_status`).
fn mii_status(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::Fail(_) => "going down",
        LinkState::Down => "down",
        LinkState::Back(_) => "going back",
    }
}

fn duplex(duplex: bond::Duplex) -> String {
    match duplex {
        bond::Duplex::Half => "half",
        bond::Duplex::Full => "full",
    }
    .to_owned()
}

fn lacp(bond: &Bond) -> BondLacpInfo {
    let (system, system_priority) = bond.system();
    let active = bond.aggregator();
    BondLacpInfo {
        system_priority,
        system,
        aggregator: active.map(|active| active.id),
        ports: active.map_or(0, |active| active.ports),
        actor_key: active.map_or(0, |active| active.actor_key),
        partner_key: active.map_or(0, |active| active.partner_key),
        partner: active.map(|active| active.partner).unwrap_or_default(),
    }
}

fn port(status: &PortStatus) -> BondPortInfo {
    let receive = match status.receive {
        ReceiveState::Disabled => "disabled",
        ReceiveState::Expired => "expired",
        ReceiveState::Defaulted => "defaulted",
        ReceiveState::Current => "current",
    };
    let mux = match status.mux {
        MuxState::Detached => "detached",
        MuxState::Waiting => "waiting",
        MuxState::Attached => "attached",
        MuxState::Collecting => "collecting",
        MuxState::Distributing => "distributing",
    };
    BondPortInfo {
        aggregator: Some(status.aggregator).filter(|aggregator| *aggregator > 0),
        receive_state: receive.to_owned(),
        mux_state: mux.to_owned(),
        actor: party(&status.actor),
        partner: party(&status.partner),
        actor_churn: churn(status.actor_churn.0).to_owned(),
        partner_churn: churn(status.partner_churn.0).to_owned(),
        actor_churned: status.actor_churn.1,
        partner_churned: status.partner_churn.1,
        pdus_received: status.counters.lacpdus_in,
        pdus_sent: status.counters.lacpdus_out,
        pdus_bad: status.counters.illegal,
    }
}

/// The driver's words (`churn_description`).
fn churn(state: ChurnState) -> &'static str {
    match state {
        ChurnState::Monitoring => "monitoring",
        ChurnState::Churned => "churned",
        ChurnState::None => "none",
    }
}

fn party(info: &PortInfo) -> BondPartyInfo {
    BondPartyInfo {
        system_priority: info.system_priority,
        system: info.system,
        key: info.key,
        port_priority: info.port_priority,
        port: info.port,
        state: info.state.0,
        state_words: info.state.to_string().split_whitespace().map(str::to_owned).collect(),
    }
}

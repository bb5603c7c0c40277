//! Optical ports.

use ctl_grpc::proto::*;
use ctl_types::PortState;
use switch::model::{Duplex, LinkMode, NetdevCounters, PortKind, PortSpec};

use crate::rig::*;

const ENOENT: u32 = 2;
const EBUSY: u32 = 16;
const EINVAL: u32 = 22;

fn phy(name: &str, ifname: &str, vport: u16) -> PortSpec {
    PortSpec { ifname: Some(ifname.to_owned()), vport: Some(vport), ..PortSpec::new(name, PortKind::Phy) }
}

/// `east` and `west`, whose ports have the numbers 5 and 3, and a guest between them.
fn two_nics() -> Rig {
    let rig = Rig::new();
    rig.host.set_queues("eth1", 2);
    for spec in [phy("east", "eth1", 5), phy("west", "eth2", 3)] {
        rig.service.add_port(spec).unwrap();
    }
    rig.service.add_port(PortSpec { vport: Some(4), ..PortSpec::new("vm", PortKind::Guest) }).unwrap();
    rig
}

fn link_of(port_id: u32) -> EthMacGetLinkRequest {
    EthMacGetLinkRequest { port_id: Some(port_id) }
}

fn mtu_of(port_id: u32) -> EthMacGetMtuRequest {
    EthMacGetMtuRequest { port_id: Some(port_id) }
}

fn set_mtu(port_id: u32, mtu: u32) -> EthMacSetMtuRequest {
    EthMacSetMtuRequest { port_id: Some(port_id), mtu: Some(mtu) }
}

async fn link(rig: &Rig, port_id: u32) -> (u32, bool, bool, bool) {
    let answer: EthMacGetLinkResponse = rig.ask("EthMac/GetLink", &link_of(port_id)).await;
    let link = answer.link.unwrap();
    (link.link_speed(), link.link_duplex(), link.link_autoneg(), link.link_status())
}

async fn mtu(rig: &Rig, port_id: u32) -> u32 {
    let answer: EthMacGetMtuResponse = rig.ask("EthMac/GetMtu", &mtu_of(port_id)).await;
    assert_eq!(answer.port_id(), port_id);
    answer.mtu()
}

#[tokio::test]
async fn optical_ports_are_the_nics_by_their_port_numbers() {
    let rig = two_nics();
    let fast = LinkMode { speed: Some(100_000), duplex: Some(Duplex::Full), autoneg: Some(true) };
    let slow = LinkMode { speed: Some(10), duplex: Some(Duplex::Half), autoneg: Some(false) };
    rig.host.set_link("eth1", fast, NetdevCounters::default());
    rig.host.set_link("eth2", slow, NetdevCounters::default());
    assert_eq!(link(&rig, 0).await, (10, false, false, true));
    assert_eq!(link(&rig, 1).await, (100_000, true, true, true));
    for none in [2, u32::MAX] {
        rig.refused("EthMac/GetLink", &link_of(none), ENOENT, "port_id").await;
    }
    // A virtual NIC has a link of an unknown speed. One that is down has none.
    rig.host.set_link("eth1", LinkMode::default(), NetdevCounters::default());
    assert_eq!(link(&rig, 1).await, (u32::MAX, false, false, true));
    rig.host.set_up("eth1", false);
    assert_eq!(link(&rig, 1).await, (0, false, false, false));
}

#[tokio::test]
async fn the_mtu_is_that_of_the_netdev_whoever_set_it() {
    let rig = two_nics();
    assert_eq!(mtu(&rig, 1).await, 1500);
    rig.done("EthMac/SetMtu", &set_mtu(1, 1400)).await;
    assert_eq!(rig.host.link("eth1").unwrap().mtu, 1400);
    assert_eq!((mtu(&rig, 0).await, mtu(&rig, 1).await), (1500, 1400));
    rig.host.set_mtu("eth1", 1300);
    assert_eq!(mtu(&rig, 1).await, 1300);
    kit::wait("the port follows", || rig.service.port("east").is_ok_and(|port| port.spec.mtu == Some(1300)));
    for wrong in [0, 67, 65_536, u32::MAX] {
        rig.refused("EthMac/SetMtu", &set_mtu(0, wrong), EINVAL, "mtu").await;
    }
    rig.refused("EthMac/SetMtu", &set_mtu(2, 1500), ENOENT, "port_id").await;
    rig.refused("EthMac/SetMtu", &EthMacSetMtuRequest { port_id: Some(0), mtu: None }, EINVAL, "mtu").await;
    assert_eq!(mtu(&rig, 0).await, 1500);
}

#[tokio::test]
async fn counters_are_those_of_queues_and_kernel() {
    let rig = two_nics();
    let kernel =
        NetdevCounters { rx_missed: 7, rx_errors: 3, tx_errors: 2, tx_dropped: 1, ..NetdevCounters::default() };
    rig.host.set_link("eth1", LinkMode::default(), kernel);
    let frame = [0xff; 64];
    for (queue, frames) in [(0, 3), (1, 5)] {
        (0..frames).for_each(|_| assert!(rig.host.receive("eth1", queue, &frame)));
    }
    let stats = || async {
        let asked = EthMacGetStatsRequest { port_id: Some(1) };
        rig.ask::<EthMacGetStatsResponse>("EthMac/GetStats", &asked).await
    };
    for _ in 0..500 {
        if stats().await.ipackets() == 8 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let stats = stats().await;
    assert_eq!((stats.q_ipackets.clone(), stats.q_ibytes.clone()), (vec![3, 5], vec![3 * 64, 5 * 64]));
    assert_eq!((stats.ipackets(), stats.ibytes()), (8, 8 * 64));
    assert_eq!((stats.imissed(), stats.ierrors(), stats.oerrors(), stats.rx_nombuf()), (7, 3, 3, 0));
    assert_eq!((stats.q_opackets, stats.q_obytes, stats.q_errors), (vec![0; 2], vec![0; 2], vec![0; 2]));
}

#[tokio::test]
async fn one_that_is_gone_keeps_its_place() {
    let rig = two_nics();
    rig.host.delete_netdev("eth2");
    kit::wait("the loss is noticed", || rig.service.port("west").is_ok_and(|port| port.state == PortState::Failed));
    assert!(rig.service.link("west").unwrap().error.is_some());
    assert_eq!(link(&rig, 0).await, (0, false, false, false));
    assert!(link(&rig, 1).await.3);
    let stats = EthMacGetStatsRequest { port_id: Some(0) };
    for said in [rig.say("EthMac/SetMtu", &set_mtu(0, 1400)).await, rig.say("EthMac/GetStats", &stats).await] {
        assert_eq!(said.status, EBUSY, "{said:?}");
        assert!(said.error.starts_with("port `west` is not up"), "{said:?}");
    }
    rig.done("EthMac/SetMtu", &set_mtu(1, 1400)).await;
}

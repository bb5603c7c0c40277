//! The same address on two ports.

use ctl_grpc::proto::*;

use crate::rig::*;

const EEXIST: u32 = 17;

fn with_mac(uuid: &str, last: u8) -> NewPortRequest {
    NewPortRequest { mac: Some(vec![2, 0, 0, 0, 0, last]), ..nic(uuid) }
}

fn set(vport: u32) -> SetPortCfgRequest {
    SetPortCfgRequest { vport: Some(vport), ..SetPortCfgRequest::default() }
}

#[tokio::test]
async fn an_address_is_one_ports_unless_each_shares_it() {
    let rig = Rig::new();
    rig.done("ElasticNic/NewPort", &with_mac("nic-a", 1)).await;
    rig.done("ElasticNic/NewPort", &with_mac("nic-b", 2)).await;
    rig.refused("ElasticNic/NewPort", &with_mac("nic-c", 1), EEXIST, "mac").await;
    let same = SetPortCfgRequest { mac: Some(vec![2, 0, 0, 0, 0, 1]), ..set(1) };
    rig.refused("ElasticNic/SetPortCfg", &same, EEXIST, "mac").await;
    let sharing = |uuid| NewPortRequest { shared_mac: Some(true), ..with_mac(uuid, 1) };
    rig.refused("ElasticNic/NewPort", &sharing("nic-c"), EEXIST, "mac").await;
    rig.done("ElasticNic/SetPortCfg", &SetPortCfgRequest { shared_mac: Some(true), ..set(0) }).await;
    rig.done("ElasticNic/NewPort", &sharing("nic-c")).await;
    let alone = SetPortCfgRequest { shared_mac: Some(false), ..set(0) };
    rig.refused("ElasticNic/SetPortCfg", &alone, EEXIST, "mac").await;
}

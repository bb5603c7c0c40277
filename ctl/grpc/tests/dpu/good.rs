//! Requests that succeed, and how their effects are read back.

use ctl_grpc::proto::classfier_change::Change;
use ctl_grpc::proto::*;
use kit::{receive, wait};
use switch::model::{TapSpec, VhostSpec};

use crate::rig::*;

async fn two_ports() -> Rig {
    let rig = Rig::new();
    for uuid in ["nic-a", "nic-b"] {
        rig.done("ElasticNic/NewPort", &nic(uuid)).await;
    }
    rig
}

async fn read(rig: &Rig, key_index: i32) -> ClassfierReadResponse {
    rig.ask("TrafficControl/ClassfierRead", &ClassfierReadRequest { key_index: Some(key_index) }).await
}

async fn places(rig: &Rig, from: Option<u32>, limit: Option<u32>) -> Vec<i32> {
    let query = ClassfierQueryRequest { from, limit };
    let answer: ClassfierQueryResponse = rig.ask("TrafficControl/ClassfierQuery", &query).await;
    answer.rules.into_iter().map(|rule| rule.mask_rule_key.unwrap().key_index()).collect()
}

async fn get(rig: &Rig, id: u32) -> MeterGetResponse {
    rig.ask("Meter/Get", &MeterGetRequest { id: Some(id) }).await
}

#[tokio::test]
async fn a_port_is_read_back_as_it_was_asked_for() {
    let rig = Rig::new();
    let request = NewPortRequest {
        vport: Some(255),
        max_qpair: Some(4),
        mtu: Some(1400),
        mac: Some(vec![2, 0, 0, 0, 0, 7]),
        queue_depth: Some(64),
        feature_list: Some(0),
        ..nic("nic-a")
    };
    let answer: PortOpsRep = rig.ask("ElasticNic/NewPort", &request).await;
    assert_eq!(answer.vport, Some(255));
    let change = SetPortCfgRequest { vport: Some(255), mtu: Some(1450), ..SetPortCfgRequest::default() };
    rig.done("ElasticNic/SetPortCfg", &change).await;
    let port: GetPortCfgResponse = rig.ask("ElasticNic/GetPortCfg", &GetPortCfgRequest { vport: Some(255) }).await;
    let expected = GetPortCfgResponse {
        status: Some(0),
        enable: Some(true),
        max_qpair: Some(4),
        mtu: Some(1450),
        mac: request.mac,
        uuid: request.uuid,
        vport: Some(255),
        queue_depth: Some(64),
        active_qpair: Some(0),
        error: None,
    };
    assert_eq!(port, expected);
    let capability: GetPortCapabilityResponse =
        rig.ask("ElasticNic/GetPortCapability", &GetPortCapabilityRequest {}).await;
    assert_eq!((capability.total_pvf_cnt, capability.free_pvf_cnt), (Some(256), Some(255)));
    rig.done("ElasticNic/DelPort", &DelPortRequest { vport: Some(255) }).await;
    let ports: QueryPortResponse = rig.ask("ElasticNic/QueryPort", &QueryPortRequest {}).await;
    assert_eq!(ports.ports, []);
}

#[tokio::test]
async fn ports_of_other_kinds_are_made_by_extensions() {
    let rig = Rig::new();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock").display().to_string();
    let vhost = NewPortRequest { kind: Some("vhost".into()), socket: Some(socket.clone()), ..nic("a") };
    rig.done("ElasticNic/NewPort", &NewPortRequest { socket_mode: Some("600".into()), ..vhost }).await;
    let tap = NewPortRequest { kind: Some("tap".into()), guest_ifname: Some("xt-b".into()), ..nic("b") };
    rig.done("ElasticNic/NewPort", &NewPortRequest { owner: Some("root".into()), max_qpair: Some(2), ..tap }).await;
    let spec = |name: &str| rig.service.port(name).unwrap().spec;
    let expected = VhostSpec { mode: Some("600".into()), ..VhostSpec::new(socket) };
    assert_eq!(spec("a").vhost, Some(expected));
    assert_eq!(spec("b").tap, Some(TapSpec { owner: Some("root".into()), group: None }));
    assert_eq!((spec("b").guest_ifname.as_deref(), spec("b").queues), (Some("xt-b"), Some(2)));
}

#[tokio::test]
async fn a_port_that_names_only_its_uuid_gets_the_defaults() {
    let rig = Rig::new();
    let longest = "网".repeat(128);
    for (uuid, vport) in [("nic-a", 0), (longest.as_str(), 1), ("7", 2)] {
        let answer: PortOpsRep = rig.ask("ElasticNic/NewPort", &nic(uuid)).await;
        assert_eq!(answer.vport, Some(vport));
        let get = GetPortCfgRequest { vport: Some(vport) };
        let port: GetPortCfgResponse = rig.ask("ElasticNic/GetPortCfg", &get).await;
        assert_eq!((port.mtu(), port.max_qpair(), port.queue_depth(), port.uuid()), (1500, 1, 2048, uuid));
        // A unicast, locally administered address.
        assert_eq!((port.mac().len(), port.mac()[0] & 3), (6, 2));
    }
    rig.done("ElasticNic/DelPort", &DelPortRequest { vport: Some(1) }).await;
    let answer: PortOpsRep = rig.ask("ElasticNic/NewPort", &nic("nic-b")).await;
    assert_eq!(answer.vport, Some(1), "the lowest free number");
    let ports: QueryPortResponse = rig.ask("ElasticNic/QueryPort", &QueryPortRequest {}).await;
    assert_eq!(ports.ports.iter().map(PortCfg::vport).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn statistics_are_answered_for_each_port() {
    let rig = two_ports().await;
    let stats: GetPortStatsResponse = rig.ask("PortStats/GetPortStats", &GetPortStatsRequest { vid: Some(1) }).await;
    assert_eq!(stats.vid, Some(1));
    let second = rig.service.port_numbered("vport", 1).unwrap();
    receive(&rig.host, "xs1", second.spec.mac.unwrap(), 3);
    wait("the frames are counted", || rig.service.dataplane().stats().ports[1].rx.packets == 3);
    let stats: GetPortStatsResponse = rig.ask("PortStats/GetPortStats", &GetPortStatsRequest { vid: Some(1) }).await;
    // The guest has sent them.
    assert_eq!((stats.tx_packets, stats.tx_bytes, stats.rx_packets), (Some(3), Some(180), Some(0)));
}

#[tokio::test]
async fn a_meter_of_the_document_takes_rate_alone() {
    let rig = Rig::new();
    rig.done("Meter/Add", &meter(u32::MAX, 2000)).await;
    let seen = get(&rig, u32::MAX).await;
    assert_eq!((seen.rate(), seen.r#type(), seen.burst(), seen.mode()), (2000, 0, 200, MeterMode::Single));
    let update = MeterUpdateRequest { id: Some(u32::MAX), rate: Some(5000), ..MeterUpdateRequest::default() };
    rig.done("Meter/Update", &update).await;
    let seen = get(&rig, u32::MAX).await;
    assert_eq!((seen.rate(), seen.burst()), (5000, 500), "a default burst follows the rate");
    let capability: MeterCapabilityResponse = rig.ask("Meter/Capability", &MeterCapabilityRequest {}).await;
    assert_eq!((capability.total, capability.free), (Some(65_536), Some(65_535)));
    rig.done("Meter/Del", &MeterDelRequest { id: Some(u32::MAX) }).await;
}

#[tokio::test]
async fn a_meter_of_two_rates_is_read_back_as_it_was_written() {
    let rig = Rig::new();
    let request = MeterAddRequest {
        r#type: Some(1),
        burst: Some(20),
        mode: Some(MeterMode::Rfc4115.into()),
        peak_rate: Some(30),
        peak_burst: Some(40),
        color_aware: Some(true),
        yellow_dscp: Some(63),
        ..meter(1, 10)
    };
    rig.done("Meter/Add", &request).await;
    let update =
        MeterUpdateRequest { id: Some(1), rate: Some(11), yellow_dscp: Some(0), ..MeterUpdateRequest::default() };
    rig.done("Meter/Update", &update).await;
    let seen = get(&rig, 1).await;
    let expected = MeterGetResponse {
        status: Some(0),
        id: Some(1),
        rate: Some(11),
        r#type: Some(1),
        burst: Some(20),
        mode: request.mode,
        peak_rate: Some(30),
        peak_burst: Some(40),
        color_aware: Some(true),
        yellow_dscp: Some(0),
        rules: Some(0),
        green_packets: Some(0),
        green_bytes: Some(0),
        yellow_packets: Some(0),
        yellow_bytes: Some(0),
        red_packets: Some(0),
        red_bytes: Some(0),
        ..MeterGetResponse::default()
    };
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_meter_is_implied_for_the_port_of_its_number_until_it_is_bound() {
    let rig = two_ports().await;
    rig.done("Meter/Add", &meter(1, 1000)).await;
    let place =
        |vport, direction: MeterDirection| MeterBinding { vport: Some(vport), direction: Some(direction.into()) };
    assert_eq!(get(&rig, 1).await.bindings, [place(1, MeterDirection::FromVport)]);
    rig.done("Meter/Bind", &bind(1, 0, MeterDirection::ToVport)).await;
    assert_eq!(get(&rig, 1).await.bindings, [place(0, MeterDirection::ToVport)]);
    rig.done("Meter/Add", &meter(2, 1000)).await;
    rig.done("Meter/Bind", &bind(2, 0, MeterDirection::ToVport)).await;
    assert_eq!(get(&rig, 1).await.bindings, [], "another one takes its place");
    let unbind = MeterBindRequest { unbind: Some(true), ..bind(2, 0, MeterDirection::ToVport) };
    rig.done("Meter/Bind", &unbind).await;
    assert_eq!(get(&rig, 2).await.bindings, []);
}

#[tokio::test]
async fn meters_are_listed_in_pieces() {
    let rig = Rig::new();
    for id in [9, 3, u32::MAX, 5] {
        rig.done("Meter/Add", &meter(id, 1000)).await;
    }
    for (from, limit, expected) in [
        (None, None, &[3, 5, 9, u32::MAX][..]),
        (Some(4), Some(2), &[5, 9]),
        (Some(9), Some(u32::MAX), &[9, u32::MAX]),
        (Some(u32::MAX), None, &[u32::MAX]),
        (None, Some(0), &[]),
    ] {
        let answer: MeterQueryResponse = rig.ask("Meter/Query", &MeterQueryRequest { from, limit }).await;
        assert_eq!(answer.meters.iter().map(MeterGetResponse::id).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn a_rule_is_read_back_as_it_was_written() {
    let rig = two_ports().await;
    rig.done("Meter/Add", &meter(7, 1000)).await;
    let v6 = MaskRuleKey {
        dmac: Some(vec![2, 0, 0, 0, 0, 1]),
        dmac_mask: Some(-1),
        smac: Some(vec![2, 0, 0, 0, 0, 0]),
        smac_mask: Some(0xffff_ff00_0000),
        dip: vec![0x2001_0db8, 0, 0, 1],
        dip_mask: vec![u32::MAX; 4],
        sip: vec![0; 4],
        sip_mask: vec![0; 4],
        dl4port: Some(80),
        dl4port_mask: Some(0xfff0),
        sl4port_mask: Some(-1),
        vlan: Some(4095),
        vlan_mask: Some(-1),
        vid: Some(1023),
        vid_mask: Some(0xffff),
        ip_type: Some("ipv6".into()),
        ipprotocol: Some(17),
        ipprotocol_mask: Some(0xff),
        ..any(65_535)
    };
    let v4 =
        MaskRuleKey { sip: vec![0x0a00_0000], sip_mask: vec![0xff00_00ff], ip_type: Some("ipv4".into()), ..any(0) };
    let full = RuleAction { meter: Some(7), mirror: Some(1), qid: Some(0), ..to(0) };
    let normal = RuleAction { normal: Some(true), meter: Some(7), ..to(-1) };
    for (place, key, action) in [(65_535, v6, full), (0, v4, normal), (1, any(1), to(-1))] {
        rig.done("TrafficControl/ClassfierWrite", &rule(place, key.clone(), action)).await;
        let seen = read(&rig, place).await;
        assert_eq!((seen.mask_rule_key, seen.action), (Some(key), Some(action)));
        assert_eq!((seen.packets, seen.bytes), (Some(0), Some(0)));
    }
    assert_eq!(get(&rig, 7).await.rules, Some(2));
    let capability: ClassfierCapabilityResponse =
        rig.ask("TrafficControl/ClassfierCapability", &ClassfierCapabilityRequest {}).await;
    assert_eq!((capability.total, capability.free, capability.masks), (Some(65_536), Some(65_533), Some(3)));
    // Another rule at the same index releases the meter.
    rig.done("TrafficControl/ClassfierWrite", &rule(0, any(0), to(1))).await;
    assert_eq!(get(&rig, 7).await.rules, Some(1));
}

#[tokio::test]
async fn the_place_in_the_key_may_be_left_zero() {
    let rig = two_ports().await;
    rig.done("TrafficControl/ClassfierWrite", &rule(5, any(0), to(1))).await;
    assert_eq!(read(&rig, 5).await.mask_rule_key.unwrap().key_index, Some(5));
}

#[tokio::test]
async fn a_rule_without_a_place_takes_the_lowest_free_one() {
    let rig = two_ports().await;
    for place in [0, 1, 3] {
        rig.done("TrafficControl/ClassfierWrite", &rule(place, any(place), to(1))).await;
    }
    for (inner, place) in [(0, 2), (-1, 4)] {
        let answer: ClassfierOpsRsp = rig.ask("TrafficControl/ClassfierWrite", &rule(-1, any(inner), to(1))).await;
        assert_eq!(answer.key_index, Some(place));
    }
}

#[tokio::test]
async fn a_batch_is_carried_out_in_its_order() {
    let rig = two_ports().await;
    let batch = |changes: Vec<Change>| ClassfierBatchRequest {
        changes: changes.into_iter().map(|change| ClassfierChange { change: Some(change) }).collect(),
    };
    let write = |place| Change::Write(rule(place, any(0), to(1)));
    for (changes, expected) in [
        (vec![write(1), write(2), write(1)], &[1, 2][..]),
        (vec![Change::DeleteIndex(1), write(1), Change::DeleteIndex(2)], &[1]),
        (vec![write(8), Change::Clear(true), write(9), write(4)], &[4, 9]),
        (vec![], &[4, 9]),
        (vec![write(7), Change::Clear(true)], &[]),
    ] {
        rig.done("TrafficControl/ClassfierBatch", &batch(changes)).await;
        assert_eq!(places(&rig, None, None).await, expected);
    }
    rig.assert_kept();
}

#[tokio::test]
async fn rules_are_listed_in_pieces() {
    let rig = two_ports().await;
    for place in [9, 3, 65_535, 5] {
        rig.done("TrafficControl/ClassfierWrite", &rule(place, any(0), to(1))).await;
    }
    assert_eq!(places(&rig, None, None).await, [3, 5, 9, 65_535]);
    assert_eq!(places(&rig, Some(4), Some(2)).await, [5, 9]);
    assert_eq!(places(&rig, Some(65_535), Some(u32::MAX)).await, [65_535]);
    assert!(places(&rig, Some(u32::MAX), None).await.is_empty());
    assert!(places(&rig, None, Some(0)).await.is_empty());
}

#[tokio::test]
async fn rules_outlive_the_port_that_they_name() {
    let rig = two_ports().await;
    rig.done("TrafficControl/ClassfierWrite", &rule(0, any(0), RuleAction { mirror: Some(1), ..to(1) })).await;
    rig.done("ElasticNic/DelPort", &DelPortRequest { vport: Some(1) }).await;
    assert_eq!(read(&rig, 0).await.action.unwrap().vid, Some(1));
    rig.assert_kept();
}

#[tokio::test]
async fn redirects_are_set_chained_replaced_and_undone() {
    let rig = two_ports().await;
    rig.done("ElasticNic/NewPort", &nic("nic-c")).await;
    for (set, expected) in [
        ((0, 1), &[(0, 1, 1)][..]),
        ((1, 2), &[(0, 1, 2), (1, 2, 2)]),
        ((0, 2), &[(0, 2, 2), (1, 2, 2)]),
        ((1, 1), &[(0, 2, 2)]),
        ((1, 1), &[(0, 2, 2)]),
    ] {
        rig.done("TrafficControl/ProcSwitch", &switch_to(set.0, set.1)).await;
        let answer: ProcSwitchQueryResponse =
            rig.ask("TrafficControl/ProcSwitchQuery", &ProcSwitchQueryRequest {}).await;
        let row = |entry: &ProcSwitchEntry| (entry.src_pfid(), entry.dest_pfid(), entry.end_pfid());
        assert_eq!(answer.entries.iter().map(row).collect::<Vec<_>>(), expected);
    }
    // The redirect of a port goes with the port.
    rig.done("ElasticNic/DelPort", &DelPortRequest { vport: Some(0) }).await;
    rig.done("ElasticNic/DelPort", &DelPortRequest { vport: Some(2) }).await;
    rig.assert_kept();
}

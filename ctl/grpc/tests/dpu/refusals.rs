//! Requests that are refused: their status, the field in the error, and that they change nothing.

use ctl_grpc::proto::classfier_change::Change;
use ctl_grpc::proto::*;
use kit::MISSING_NETDEV;
use prost::Message;
use switch::model::Capacity;

use crate::rig::*;

const ENOENT: u32 = 2;
const EBUSY: u32 = 16;
const EEXIST: u32 = 17;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ELOOP: u32 = 40;
const EOPNOTSUPP: u32 = 95;

/// Ports 0 (of two queues) and 1, meters 7 (bound, named by a rule) and 8 (two rates), rule 10, redirect 0 -> 1.
async fn furnished() -> Rig {
    let rig = Rig::new();
    rig.done("ElasticNic/NewPort", &NewPortRequest { max_qpair: Some(2), ..nic("nic-a") }).await;
    rig.done("ElasticNic/NewPort", &nic("nic-b")).await;
    rig.done("Meter/Add", &meter(7, 1000)).await;
    rig.done("Meter/Add", &two_rates()).await;
    rig.done("Meter/Bind", &bind(7, 0, MeterDirection::FromVport)).await;
    let action = RuleAction { meter: Some(7), ..to(1) };
    rig.done("TrafficControl/ClassfierWrite", &rule(10, any(0), action)).await;
    rig.done("TrafficControl/ProcSwitch", &switch_to(0, 1)).await;
    rig
}

fn two_rates() -> MeterAddRequest {
    MeterAddRequest { mode: Some(MeterMode::Rfc2698.into()), peak_rate: Some(2000), ..meter(8, 1000) }
}

#[tokio::test]
async fn a_new_port_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut NewPortRequest);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "uuid", |r| r.uuid = None),
        (EINVAL, "uuid", |r| r.uuid = Some(String::new())),
        (EINVAL, "uuid", |r| r.uuid = Some("x".repeat(129))),
        (EINVAL, "uuid", |r| r.uuid = Some("a\nb".into())),
        (EEXIST, "uuid", |r| r.uuid = Some("nic-a".into())),
        (EINVAL, "vport", |r| r.vport = Some(256)),
        (EINVAL, "vport", |r| r.vport = Some(65_536)),
        (EINVAL, "vport", |r| r.vport = Some(u32::MAX)),
        (EEXIST, "vport", |r| r.vport = Some(1)),
        (EINVAL, "max_qpair", |r| r.max_qpair = Some(0)),
        (EINVAL, "max_qpair", |r| r.max_qpair = Some(1025)),
        (EINVAL, "mtu", |r| r.mtu = Some(0)),
        (EINVAL, "mtu", |r| r.mtu = Some(67)),
        (EINVAL, "mtu", |r| r.mtu = Some(65_536)),
        (EINVAL, "mac", |r| r.mac = Some(vec![])),
        (EINVAL, "mac", |r| r.mac = Some(vec![2; 5])),
        (EINVAL, "mac", |r| r.mac = Some(vec![2; 7])),
        (EINVAL, "mac", |r| r.mac = Some(vec![0; 6])),
        (EINVAL, "mac", |r| r.mac = Some(vec![1; 6])),
        (EINVAL, "queue_depth", |r| r.queue_depth = Some(0)),
        (EINVAL, "queue_depth", |r| r.queue_depth = Some(32)),
        (EINVAL, "queue_depth", |r| r.queue_depth = Some(1000)),
        (EINVAL, "queue_depth", |r| r.queue_depth = Some(65_536)),
        (EINVAL, "feature_list", |r| r.feature_list = Some(1 << 5)),
        (EINVAL, "feature_list", |r| r.feature_list = Some(1 << 63)),
        (EINVAL, "kind", |r| r.kind = Some("memif".into())),
        (EINVAL, "socket", |r| r.kind = Some("vhost".into())),
        (EINVAL, "socket", |r| (r.kind, r.socket) = (Some("vhost".into()), Some("relative".into()))),
        (EINVAL, "socket", |r| r.socket = Some("/s".into())),
        (ENOENT, "socket", |r| (r.kind, r.socket) = (Some("vhost".into()), Some("/no/such/place".into()))),
        (EINVAL, "socket_mode", |r| r.socket_mode = Some("660".into())),
        (EINVAL, "socket_client", |r| r.socket_client = Some(true)),
        (EINVAL, "owner", |r| r.owner = Some("root".into())),
        (EINVAL, "owner", |r| (r.kind, r.owner) = (Some("tap".into()), Some("no such user".into()))),
        (EINVAL, "group", |r| (r.kind, r.group) = (Some("tap".into()), Some("no such group".into()))),
        (EINVAL, "max_qpair", |r| (r.kind, r.max_qpair) = (Some("tap".into()), Some(257))),
        (EINVAL, "ifname", |r| r.kind = Some("phy".into())),
        (EINVAL, "ifname", |r| r.ifname = Some("a b".into())),
        (ENOENT, "ifname", |r| r.ifname = Some(MISSING_NETDEV.into())),
        (EINVAL, "guest_ifname", |r| r.guest_ifname = Some("x".repeat(16))),
        (EINVAL, "netns", |r| (r.kind, r.ifname, r.netns) = (Some("phy".into()), Some("e".into()), Some("n".into()))),
    ];
    for (status, field, change) in cases {
        let mut request = nic("nic-x");
        change(&mut request);
        rig.refused("ElasticNic/NewPort", &request, *status, field).await;
    }
}

#[tokio::test]
async fn a_uuid_that_cannot_be_a_name_is_unique_too() {
    let rig = Rig::new();
    for uuid in ["42", "a b", "网卡"] {
        rig.done("ElasticNic/NewPort", &nic(uuid)).await;
        rig.refused("ElasticNic/NewPort", &nic(uuid), EEXIST, "uuid").await;
    }
}

#[tokio::test]
async fn a_change_of_a_port_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut SetPortCfgRequest);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "vport", |r| r.vport = None),
        (EINVAL, "vport", |r| r.vport = Some(256)),
        (EINVAL, "vport", |r| r.vport = Some(65_537)),
        (ENOENT, "vport", |r| r.vport = Some(5)),
        (EINVAL, "mtu", |r| r.mtu = Some(67)),
        (EINVAL, "mtu", |r| r.mtu = Some(65_536)),
        (EOPNOTSUPP, "max_qpair", |r| r.max_qpair = Some(2)),
        (EOPNOTSUPP, "max_qpair", |r| r.max_qpair = Some(0)),
        (EINVAL, "queue_depth", |r| r.queue_depth = Some(63)),
        (EINVAL, "mac", |r| r.mac = Some(vec![2; 4])),
        (EINVAL, "mac", |r| r.mac = Some(vec![3; 6])),
        (EOPNOTSUPP, "feature_list", |r| r.feature_list = Some(1)),
        // Either all of several changes are made or none.
        (EINVAL, "queue_depth", |r| (r.mtu, r.queue_depth) = (Some(1400), Some(7))),
        (EINVAL, "mac", |r| (r.mtu, r.queue_depth, r.mac) = (Some(1400), Some(64), Some(vec![]))),
    ];
    for (status, field, change) in cases {
        let mut request = SetPortCfgRequest { vport: Some(1), ..SetPortCfgRequest::default() };
        change(&mut request);
        rig.refused("ElasticNic/SetPortCfg", &request, *status, field).await;
    }
}

#[tokio::test]
async fn a_port_that_is_not_there_is_refused() {
    let rig = furnished().await;
    for (vport, status) in
        [(None, EINVAL), (Some(256), EINVAL), (Some(65_536), EINVAL), (Some(u32::MAX), EINVAL), (Some(5), ENOENT)]
    {
        rig.refused("ElasticNic/DelPort", &DelPortRequest { vport }, status, "vport").await;
        let said = rig.refused("ElasticNic/GetPortCfg", &GetPortCfgRequest { vport }, status, "vport").await;
        assert_eq!(GetPortCfgResponse::decode(&*said.bytes).unwrap().vport, vport.or(Some(0)));
        let said = rig.refused("PortStats/GetPortStats", &GetPortStatsRequest { vid: vport }, status, "vid").await;
        assert_eq!(GetPortStatsResponse::decode(&*said.bytes).unwrap().vid, vport.or(Some(0)));
    }
    rig.refused("ElasticNic/DelPort", &DelPortRequest { vport: Some(1) }, EBUSY, "vport").await;
}

#[tokio::test]
async fn a_meter_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut MeterAddRequest);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "id", |r| r.id = None),
        (EINVAL, "rate", |r| r.rate = None),
        (EINVAL, "rate", |r| r.rate = Some(0)),
        (EEXIST, "id", |r| r.id = Some(7)),
        (EINVAL, "type", |r| r.r#type = Some(2)),
        (EINVAL, "burst", |r| r.burst = Some(0)),
        (EINVAL, "burst", |r| r.burst = Some(32)),
        (EINVAL, "burst", |r| (r.r#type, r.burst) = (Some(1), Some(0))),
        (EINVAL, "mode", |r| r.mode = Some(3)),
        (EINVAL, "mode", |r| r.mode = Some(-1)),
        (EINVAL, "peak_rate", |r| r.mode = Some(1)),
        (EINVAL, "peak_rate", |r| r.mode = Some(2)),
        (EINVAL, "peak_rate", |r| r.peak_rate = Some(1)),
        (EINVAL, "peak_rate", |r| (r.mode, r.peak_rate) = (Some(1), Some(999))),
        (EINVAL, "peak_rate", |r| (r.mode, r.peak_rate) = (Some(2), Some(0))),
        (EINVAL, "peak_burst", |r| r.peak_burst = Some(99)),
        (EINVAL, "peak_burst", |r| (r.mode, r.peak_rate, r.peak_burst) = (Some(2), Some(9), Some(32))),
        (EINVAL, "color_aware", |r| r.color_aware = Some(true)),
        (EINVAL, "yellow_dscp", |r| r.yellow_dscp = Some(8)),
        (EINVAL, "yellow_dscp", |r| (r.mode, r.peak_rate, r.yellow_dscp) = (Some(2), Some(9), Some(64))),
        (EINVAL, "yellow_dscp", |r| (r.mode, r.peak_rate, r.yellow_dscp) = (Some(2), Some(9), Some(256))),
    ];
    for (status, field, change) in cases {
        let mut request = meter(9, 1000);
        change(&mut request);
        let said = rig.refused("Meter/Add", &request, *status, field).await;
        assert_eq!(MeterOpsRsp::decode(&*said.bytes).unwrap().id, request.id.or(Some(0)));
    }
}

#[tokio::test]
async fn a_change_of_a_meter_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut MeterUpdateRequest);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "id", |r| r.id = None),
        (ENOENT, "id", |r| r.id = Some(9)),
        (EINVAL, "rate", |r| r.rate = None),
        (EINVAL, "rate", |r| r.rate = Some(0)),
        (EINVAL, "peak_rate", |r| r.rate = Some(2001)),
        (EINVAL, "burst", |r| r.burst = Some(32)),
        (EINVAL, "peak_rate", |r| r.peak_rate = Some(999)),
        (EINVAL, "peak_rate", |r| (r.id, r.peak_rate) = (Some(7), Some(2000))),
        (EINVAL, "peak_burst", |r| r.peak_burst = Some(0)),
        (EINVAL, "color_aware", |r| (r.id, r.color_aware) = (Some(7), Some(true))),
        (EINVAL, "yellow_dscp", |r| r.yellow_dscp = Some(64)),
        (EINVAL, "yellow_dscp", |r| r.yellow_dscp = Some(256)),
        (EINVAL, "yellow_dscp", |r| (r.id, r.yellow_dscp) = (Some(7), Some(1))),
    ];
    for (status, field, change) in cases {
        let mut request = MeterUpdateRequest { id: Some(8), rate: Some(1000), ..MeterUpdateRequest::default() };
        change(&mut request);
        rig.refused("Meter/Update", &request, *status, field).await;
    }
}

#[tokio::test]
async fn a_meter_that_is_not_there_or_in_use_is_refused() {
    let rig = furnished().await;
    for (id, status) in [(None, EINVAL), (Some(9), ENOENT), (Some(u32::MAX), ENOENT)] {
        rig.refused("Meter/Del", &MeterDelRequest { id }, status, "id").await;
        let said = rig.refused("Meter/Get", &MeterGetRequest { id }, status, "id").await;
        assert_eq!(MeterGetResponse::decode(&*said.bytes).unwrap().id, id.or(Some(0)));
    }
    rig.refused("Meter/Del", &MeterDelRequest { id: Some(7) }, EBUSY, "id").await;
    rig.done("TrafficControl/ClassfierDelete", &ClassfierDeleteRequest { key_index: Some(10) }).await;
    rig.refused("Meter/Del", &MeterDelRequest { id: Some(7) }, EBUSY, "id").await;
    let unbind = MeterBindRequest { unbind: Some(true), ..bind(7, 0, MeterDirection::FromVport) };
    rig.done("Meter/Bind", &unbind).await;
    rig.done("Meter/Del", &MeterDelRequest { id: Some(7) }).await;
}

#[tokio::test]
async fn a_binding_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut MeterBindRequest);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "id", |r| r.id = None),
        (EINVAL, "vport", |r| r.vport = None),
        (EINVAL, "direction", |r| r.direction = None),
        (EINVAL, "direction", |r| r.direction = Some(2)),
        (EINVAL, "direction", |r| r.direction = Some(-1)),
        (ENOENT, "id", |r| r.id = Some(9)),
        (ENOENT, "vport", |r| r.vport = Some(5)),
        (ENOENT, "vport", |r| r.vport = Some(65_536)),
        (ENOENT, "id", |r| (r.id, r.unbind) = (Some(9), Some(true))),
        (ENOENT, "id", |r| (r.id, r.unbind) = (Some(8), Some(true))),
        (ENOENT, "id", |r| (r.vport, r.unbind) = (Some(1), Some(true))),
        (ENOENT, "id", |r| (r.direction, r.unbind) = (Some(1), Some(true))),
    ];
    for (status, field, change) in cases {
        let mut request = bind(7, 0, MeterDirection::FromVport);
        change(&mut request);
        rig.refused("Meter/Bind", &request, *status, field).await;
    }
}

#[tokio::test]
async fn a_rule_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut ClassfierWriteRequest);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "key_index", |r| r.key_index = None),
        (EINVAL, "key_index", |r| r.key_index = Some(-2)),
        (EINVAL, "key_index", |r| r.key_index = Some(65_536)),
        (EINVAL, "key_index", |r| r.key_index = Some(i32::MAX)),
        (EINVAL, "mask_rule_key", |r| r.mask_rule_key = None),
        (EINVAL, "action", |r| r.action = None),
    ];
    for (status, field, change) in cases {
        let mut request = rule(3, any(0), to(1));
        change(&mut request);
        rig.refused("TrafficControl/ClassfierWrite", &request, *status, field).await;
    }
}

#[tokio::test]
async fn an_action_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut RuleAction);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "qid", |a| a.qid = None),
        (EINVAL, "action.vid", |a| a.vid = None),
        (EINVAL, "action.vid", |a| a.vid = Some(-2)),
        (EINVAL, "action.vid", |a| a.vid = Some(i32::MIN)),
        (ENOENT, "action.vid", |a| a.vid = Some(5)),
        (ENOENT, "action.vid", |a| a.vid = Some(65_536)),
        (EINVAL, "qid", |a| a.qid = Some(-2)),
        (EINVAL, "qid", |a| a.qid = Some(2)),
        (EINVAL, "qid", |a| (a.vid, a.qid) = (Some(-1), Some(0))),
        (EINVAL, "normal", |a| a.normal = Some(true)),
        (EINVAL, "qid", |a| (a.vid, a.qid, a.normal) = (Some(-1), Some(0), Some(true))),
        (ENOENT, "meter", |a| a.meter = Some(9)),
        (ENOENT, "mirror", |a| a.mirror = Some(5)),
        (ENOENT, "mirror", |a| a.mirror = Some(65_536)),
    ];
    for (status, field, change) in cases {
        let mut action = to(0);
        change(&mut action);
        rig.refused("TrafficControl/ClassfierWrite", &rule(3, any(3), action), *status, field).await;
    }
}

#[tokio::test]
async fn a_key_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    type Change = fn(&mut MaskRuleKey);
    let cases: &[(&str, Change)] = &[
        ("mask_rule_key.key_index", |k| k.key_index = None),
        ("mask_rule_key.key_index", |k| k.key_index = Some(4)),
        ("mask_rule_key.key_index", |k| k.key_index = Some(-1)),
        ("dmac", |k| k.dmac = None),
        ("smac", |k| k.smac = None),
        ("dmac_mask", |k| k.dmac_mask = None),
        ("smac_mask", |k| k.smac_mask = None),
        ("dl4port", |k| k.dl4port = None),
        ("dl4port_mask", |k| k.dl4port_mask = None),
        ("sl4port", |k| k.sl4port = None),
        ("sl4port_mask", |k| k.sl4port_mask = None),
        ("vlan", |k| k.vlan = None),
        ("vlan_mask", |k| k.vlan_mask = None),
        ("vid", |k| k.vid = None),
        ("vid_mask", |k| k.vid_mask = None),
        ("ip_type", |k| k.ip_type = None),
        ("ipprotocol", |k| k.ipprotocol = None),
        ("ipprotocol_mask", |k| k.ipprotocol_mask = None),
        ("dmac", |k| k.dmac = Some(vec![2; 5])),
        ("smac", |k| k.smac = Some(vec![2; 7])),
        ("dmac", |k| (k.dmac, k.dmac_mask) = (Some(vec![]), Some(-1))),
        ("dmac", |k| k.dmac = Some(vec![2; 6])),
        ("smac", |k| (k.smac, k.smac_mask) = (Some(vec![2; 6]), Some(0xff))),
        ("dl4port", |k| (k.dl4port, k.dl4port_mask) = (Some(-1), Some(-1))),
        ("dl4port", |k| (k.dl4port, k.dl4port_mask) = (Some(65_536), Some(-1))),
        ("dl4port", |k| (k.dl4port, k.dl4port_mask) = (Some(80), Some(0xf))),
        ("sl4port", |k| (k.sl4port, k.sl4port_mask) = (Some(65_536), Some(-1))),
        ("sl4port", |k| k.sl4port = Some(1)),
        ("vlan", |k| (k.vlan, k.vlan_mask) = (Some(4096), Some(-1))),
        ("vlan", |k| (k.vlan, k.vlan_mask) = (Some(-5), Some(-1))),
        ("vlan", |k| k.vlan = Some(1)),
        ("vid", |k| (k.vid, k.vid_mask) = (Some(1024), Some(-1))),
        ("vid", |k| (k.vid, k.vid_mask) = (Some(65_536), Some(-1))),
        ("vid", |k| (k.vid, k.vid_mask) = (Some(-1), Some(-1))),
        ("vid", |k| k.vid = Some(1)),
        ("ipprotocol", |k| (k.ipprotocol, k.ipprotocol_mask) = (Some(256), Some(-1))),
        ("ipprotocol", |k| k.ipprotocol = Some(6)),
        ("ip_type", |k| k.ip_type = Some("IPv4".into())),
        ("dip", |k| (k.dip, k.dip_mask) = (vec![1, 2], vec![3, 4])),
        ("sip", |k| (k.sip, k.sip_mask) = (vec![0; 5], vec![0; 5])),
        ("dip", |k| k.dip_mask = vec![0]),
        ("dip_mask", |k| k.dip = vec![1]),
        ("sip_mask", |k| (k.sip, k.sip_mask) = (vec![1], vec![0; 4])),
        ("sip", |k| (k.sip, k.sip_mask) = (vec![0x0a00_0001], vec![0xff00_0000])),
        ("dip", |k| {
            (k.ip_type, k.dip, k.dip_mask) = (Some("ipv4".into()), vec![0x2001_0db8, 0, 0, 1], vec![u32::MAX; 4]);
        }),
        ("sip", |k| {
            (k.dip, k.dip_mask) = (vec![0x2001_0db8, 0, 0, 1], vec![u32::MAX; 4]);
            (k.sip, k.sip_mask) = (vec![1], vec![u32::MAX]);
        }),
    ];
    for (field, change) in cases {
        let mut key = any(0);
        change(&mut key);
        rig.refused("TrafficControl/ClassfierWrite", &rule(3, key, to(1)), EINVAL, field).await;
    }
}

#[tokio::test]
async fn a_rule_that_is_not_there_is_refused() {
    let rig = furnished().await;
    for (key_index, status) in
        [(None, EINVAL), (Some(-1), EINVAL), (Some(i32::MIN), EINVAL), (Some(9), ENOENT), (Some(i32::MAX), ENOENT)]
    {
        let delete = ClassfierDeleteRequest { key_index };
        let said = rig.refused("TrafficControl/ClassfierDelete", &delete, status, "key_index").await;
        assert_eq!(ClassfierOpsRsp::decode(&*said.bytes).unwrap().key_index, key_index.or(Some(0)));
        rig.refused("TrafficControl/ClassfierRead", &ClassfierReadRequest { key_index }, status, "key_index").await;
    }
}

#[tokio::test]
async fn a_redirect_is_refused_for_the_field_that_is_wrong() {
    let rig = furnished().await;
    for (src, dest, status, field) in [
        (None, Some(0), EINVAL, "src_pfid"),
        (Some(0), None, EINVAL, "dest_pfid"),
        (Some(5), Some(0), ENOENT, "src_pfid"),
        (Some(0), Some(5), ENOENT, "dest_pfid"),
        (Some(5), Some(5), ENOENT, "src_pfid"),
        (Some(65_536), Some(0), ENOENT, "src_pfid"),
        (Some(0), Some(u32::MAX), ENOENT, "dest_pfid"),
        (Some(1), Some(0), ELOOP, "dest_pfid"),
    ] {
        let request = ProcSwitchRequest { src_pfid: src, dest_pfid: dest };
        rig.refused("TrafficControl/ProcSwitch", &request, status, field).await;
    }
}

#[tokio::test]
async fn a_batch_is_refused_whole_and_names_the_change() {
    let rig = furnished().await;
    let good = || Some(Change::Write(rule(20, any(20), to(1))));
    for (bad, status, field) in [
        (None, EINVAL, "change"),
        (Some(Change::Clear(false)), EINVAL, "change"),
        (Some(Change::DeleteIndex(-1)), EINVAL, "key_index"),
        (Some(Change::DeleteIndex(9)), ENOENT, "key_index"),
        (Some(Change::Write(rule(-1, any(0), to(1)))), EINVAL, "key_index"),
        (Some(Change::Write(rule(65_536, any(0), to(1)))), EINVAL, "key_index"),
        (Some(Change::Write(rule(3, any(4), to(1)))), EINVAL, "mask_rule_key.key_index"),
        (Some(Change::Write(rule(3, any(3), to(5)))), ENOENT, "action.vid"),
        (Some(Change::Write(ClassfierWriteRequest::default())), EINVAL, "key_index"),
    ] {
        for (before, after) in [(0, 0), (0, 1), (1, 0), (2, 1)] {
            let changes =
                std::iter::repeat_n(good(), before).chain([bad.clone()]).chain(std::iter::repeat_n(good(), after));
            let changes = changes.map(|change| ClassfierChange { change }).collect();
            let field = format!("change {before}: {field}");
            rig.refused("TrafficControl/ClassfierBatch", &ClassfierBatchRequest { changes }, status, &field).await;
        }
    }
}

#[tokio::test]
async fn a_full_table_says_so() {
    let rig = Rig::sized(Capacity { ports: 2, meters: 2, rules: 2, ..Capacity::default() });
    for (uuid, id) in [("nic-a", 100), ("nic-b", 200)] {
        rig.done("ElasticNic/NewPort", &nic(uuid)).await;
        rig.done("Meter/Add", &meter(id, 1000)).await;
        rig.done("TrafficControl/ClassfierWrite", &rule(-1, any(-1), to(-1))).await;
    }
    rig.refused("ElasticNic/NewPort", &nic("nic-c"), ENOSPC, "vport").await;
    rig.refused("Meter/Add", &meter(300, 1000), ENOSPC, "id").await;
    let said = rig.refused("TrafficControl/ClassfierWrite", &rule(-1, any(0), to(-1)), ENOSPC, "key_index").await;
    assert_eq!(ClassfierOpsRsp::decode(&*said.bytes).unwrap().key_index, Some(-1));
    rig.refused("TrafficControl/ClassfierWrite", &rule(2, any(0), to(-1)), EINVAL, "key_index").await;
    rig.refused("ElasticNic/NewPort", &NewPortRequest { vport: Some(2), ..nic("nic-c") }, EINVAL, "vport").await;
    // Existing objects may still be replaced, and deleting one makes room.
    rig.done("TrafficControl/ClassfierWrite", &rule(1, any(1), to(0))).await;
    rig.done("ElasticNic/DelPort", &DelPortRequest { vport: Some(0) }).await;
    rig.done("Meter/Del", &MeterDelRequest { id: Some(100) }).await;
    rig.done("TrafficControl/ClassfierDelete", &ClassfierDeleteRequest { key_index: Some(0) }).await;
    rig.done("ElasticNic/NewPort", &nic("nic-c")).await;
    rig.done("Meter/Add", &meter(300, 1000)).await;
    rig.done("TrafficControl/ClassfierWrite", &rule(-1, any(0), to(-1))).await;
    rig.assert_kept();
}

#[tokio::test]
async fn a_change_that_cannot_be_kept_is_undone() {
    let rig = furnished().await;
    rig.done("Meter/Add", &meter(9, 1000)).await;
    let before = rig.dump().await;
    rig.storage.set_full(true);
    let batch = [Change::Clear(true), Change::Write(rule(1, any(1), RuleAction { meter: Some(9), ..to(0) }))];
    let changes = batch.map(|change| ClassfierChange { change: Some(change) }).to_vec();
    for (method, message) in [
        ("ElasticNic/NewPort", nic("nic-c").encode_to_vec()),
        ("ElasticNic/DelPort", DelPortRequest { vport: Some(0) }.encode_to_vec()),
        (
            "ElasticNic/SetPortCfg",
            SetPortCfgRequest {
                vport: Some(0),
                mtu: Some(1400),
                queue_depth: Some(64),
                ..SetPortCfgRequest::default()
            }
            .encode_to_vec(),
        ),
        ("Meter/Add", meter(10, 1000).encode_to_vec()),
        ("Meter/Del", MeterDelRequest { id: Some(9) }.encode_to_vec()),
        (
            "Meter/Update",
            MeterUpdateRequest { id: Some(8), rate: Some(1500), yellow_dscp: Some(8), ..MeterUpdateRequest::default() }
                .encode_to_vec(),
        ),
        ("Meter/Bind", bind(9, 1, MeterDirection::ToVport).encode_to_vec()),
        ("Meter/Bind", bind(9, 0, MeterDirection::FromVport).encode_to_vec()),
        (
            "Meter/Bind",
            MeterBindRequest { unbind: Some(true), ..bind(7, 0, MeterDirection::FromVport) }.encode_to_vec(),
        ),
        ("TrafficControl/ClassfierWrite", rule(11, any(0), RuleAction { meter: Some(9), ..to(0) }).encode_to_vec()),
        ("TrafficControl/ClassfierWrite", rule(10, any(0), to(0)).encode_to_vec()),
        ("TrafficControl/ClassfierDelete", ClassfierDeleteRequest { key_index: Some(10) }.encode_to_vec()),
        ("TrafficControl/ClassfierBatch", ClassfierBatchRequest { changes }.encode_to_vec()),
        ("TrafficControl/ProcSwitch", switch_to(0, 0).encode_to_vec()),
    ] {
        let said = rig.say_bytes(method, &message).await;
        assert_eq!(said.status, 5, "{method}: {}", said.error);
        assert!(said.error.contains("undone"), "{method}: {}", said.error);
        assert!(rig.dump().await == before, "{method} was not undone");
    }
    rig.storage.set_full(false);
    rig.done("Meter/Bind", &bind(9, 1, MeterDirection::ToVport)).await;
    rig.assert_kept();
}

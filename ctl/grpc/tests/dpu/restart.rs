//! State that outlives the daemon.

use ctl_grpc::proto::*;

use crate::rig::*;

#[tokio::test]
async fn a_new_daemon_has_everything_that_was_acknowledged() {
    let rig = Rig::new();
    for (uuid, vport) in [("nic-a", 4), ("42", 2), ("网卡", 3)] {
        rig.done("ElasticNic/NewPort", &NewPortRequest { vport: Some(vport), max_qpair: Some(2), ..nic(uuid) }).await;
    }
    let change =
        SetPortCfgRequest { vport: Some(2), mtu: Some(1400), queue_depth: Some(64), ..SetPortCfgRequest::default() };
    rig.done("ElasticNic/SetPortCfg", &change).await;
    for id in [2, 3, 4, u32::MAX] {
        rig.done("Meter/Add", &meter(id, 1000)).await;
    }
    let two = MeterAddRequest {
        mode: Some(MeterMode::Rfc4115.into()),
        peak_rate: Some(9),
        yellow_dscp: Some(8),
        ..meter(5, 7)
    };
    rig.done("Meter/Add", &two).await;
    rig.done("Meter/Update", &MeterUpdateRequest { id: Some(4), rate: Some(77), ..MeterUpdateRequest::default() })
        .await;
    rig.done("Meter/Bind", &bind(2, 4, MeterDirection::ToVport)).await;
    rig.done("Meter/Bind", &bind(5, 4, MeterDirection::FromVport)).await;
    let action = RuleAction { meter: Some(u32::MAX), mirror: Some(2), qid: Some(1), ..to(4) };
    let key = MaskRuleKey { dip: vec![0xfe80_0000, 0, 0, 0], dip_mask: vec![0xffc0_0000, 0, 0, 0], ..any(0) };
    rig.done("TrafficControl/ClassfierWrite", &rule(65_535, key, action)).await;
    rig.done("TrafficControl/ClassfierWrite", &rule(0, any(0), RuleAction { normal: Some(true), ..to(-1) })).await;
    rig.done("TrafficControl/ProcSwitch", &switch_to(4, 2)).await;
    rig.done("TrafficControl/ProcSwitch", &switch_to(2, 3)).await;
    let before = rig.dump().await;
    let rig = rig.assert_kept().restart();
    assert!(rig.dump().await.same_lists(&before));
}

#[tokio::test]
async fn a_meter_that_was_used_once_is_not_implied_after_a_restart() {
    let rig = Rig::new();
    for uuid in ["nic-a", "nic-b", "nic-c", "nic-d"] {
        rig.done("ElasticNic/NewPort", &nic(uuid)).await;
    }
    for id in 0..4 {
        rig.done("Meter/Add", &meter(id, 1000)).await;
    }
    // Meter 0 is bound and unbound. Meter 1 is named by a rule that the same batch deletes. Meter 2 loses its binding
    // with the port.
    rig.done("Meter/Bind", &bind(0, 1, MeterDirection::ToVport)).await;
    rig.done("Meter/Bind", &MeterBindRequest { unbind: Some(true), ..bind(0, 1, MeterDirection::ToVport) }).await;
    let write = classfier_change::Change::Write(rule(1, any(1), RuleAction { meter: Some(1), ..to(1) }));
    let changes =
        [write, classfier_change::Change::DeleteIndex(1)].map(|change| ClassfierChange { change: Some(change) });
    rig.done("TrafficControl/ClassfierBatch", &ClassfierBatchRequest { changes: changes.to_vec() }).await;
    rig.done("Meter/Bind", &bind(2, 3, MeterDirection::ToVport)).await;
    rig.done("ElasticNic/DelPort", &DelPortRequest { vport: Some(3) }).await;
    let rig = rig.assert_kept();
    for (id, implied) in [(0, 0), (1, 0), (2, 0)] {
        let meter: MeterGetResponse = rig.ask("Meter/Get", &MeterGetRequest { id: Some(id) }).await;
        assert_eq!(meter.bindings.len(), implied, "meter {id}");
    }
    rig.done("ElasticNic/NewPort", &nic("nic-d")).await;
    let meter: MeterGetResponse = rig.ask("Meter/Get", &MeterGetRequest { id: Some(3) }).await;
    assert_eq!(meter.bindings.len(), 1, "never used");
}

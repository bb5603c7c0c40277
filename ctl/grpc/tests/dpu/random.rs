//! Random requests on storage that is full at times. Refused ones change nothing, and successful ones are saved.

use kit::{METHODS, call, state_of};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use switch::model::Capacity;

use crate::messages::{Entropy, request};
use crate::rig::Rig;

/// All possible statuses. In addition there is 5 when the state can't be written.
pub const STATUSES: [u32; 11] = [0, 1, 2, 13, 16, 17, 22, 28, 39, 40, 95];
const EIO: u32 = 5;

/// Small tables, so that requests meet the results of earlier ones.
const SMALL: Capacity = Capacity { ports: 6, meters: 6, rules: 7, rule_masks: 5 };

/// A method, the bytes that its request is generated from, and whether the storage is full meanwhile.
fn calls() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>, bool)>> {
    let method = prop_oneof![
        8 => proptest::sample::select(METHODS),
        // Methods that change something.
        4 => Just("ElasticNic/NewPort"),
        4 => Just("Meter/Add"),
        2 => Just("Meter/Bind"),
        2 => Just("TrafficControl/ProcSwitch"),
        4 => Just("TrafficControl/ClassfierWrite"),
        4 => Just("TrafficControl/ClassfierBatch"),
        2 => Just("Vdisk/Create"),
    ];
    vec((method, vec(any::<u8>(), 0..300), proptest::bool::weighted(0.1)), 0..60)
}

/// Makes the calls, and checks the invariants after each.
async fn make(rig: &Rig, calls: &[(&str, Vec<u8>, bool)]) {
    for (method, entropy, full) in calls {
        let before = state_of(&rig.service);
        rig.storage.set_full(*full);
        let said = rig.say_bytes(method, &request(method, &mut Entropy(entropy))).await;
        rig.storage.set_full(false);
        assert!(STATUSES.contains(&said.status) || (*full && said.status == EIO), "{method}: {said:?}");
        let after = state_of(&rig.service);
        assert!(said.status == 0 || after == before, "{method} was refused and has changed something: {said:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_requests_leave_tables_that_agree_with_what_is_kept(calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::sized(SMALL);
            make(&rig, &calls).await;
            let before = rig.dump().await;
            prop_assert!(rig.assert_kept().dump().await.same_lists(&before));
            Ok(())
        })?;
    }

    #[test]
    fn any_bytes_are_a_message_or_none(method in 0..METHODS.len(), bytes in vec(any::<u8>(), 0..64)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let rig = Rig::sized(SMALL);
        if let Some(said) = runtime.block_on(call(&rig.dpu, METHODS[method], &bytes)) {
            prop_assert!(STATUSES.contains(&said.status), "{said:?}");
        }
    }
}

#[test]
fn requests_made_at_random_are_often_carried_out() {
    // Otherwise the tests above would prove little.
    let mut runner = TestRunner::deterministic();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut done = std::collections::BTreeMap::<_, (u32, u32)>::new();
    for _ in 0..200 {
        let rig = Rig::sized(SMALL);
        for (method, entropy, _) in calls().new_tree(&mut runner).unwrap().current() {
            let said = runtime.block_on(rig.say_bytes(method, &request(method, &mut Entropy(&entropy))));
            let (all, good) = done.entry(method).or_default();
            (*all, *good) = (*all + 1, *good + u32::from(said.status == 0));
        }
    }
    // Few disks are made, so few numbers can be destroyed. Copies need a file system with reflinks. NICs are named
    // rarely, so there are no optical ports.
    let rare = ["Vdisk/Destroy", "Vdisk/Snapshot"];
    for method in METHODS.iter().filter(|method| !rare.contains(method) && !method.starts_with("EthMac/")) {
        let (all, good) = done[method];
        assert!(good > 0 && good * 25 >= all, "{method}: {good} of {all}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_no_call() {
    let rig = Rig::new();
    let answer = call(&rig.dpu, "Meter/Add", &[0xff]).await;
    assert_eq!(answer, None);
}

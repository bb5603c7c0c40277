//! Fuzzes the DPU interface: several arbitrary messages to arbitrary methods, over a switch on a made-up host. Each
//! gets an answer with a known status, never a panic. A refused message changes nothing. What is done is what is kept.
#![no_main]

use std::sync::{Arc, LazyLock};

use ctl_grpc::Dpu;
use ctl_service::{Declared, Service};
use kit::{FakeHost, FakeStorage, Kept, METHODS, call, machine_for, start_sized, state_of};
use libfuzzer_sys::fuzz_target;
use switch::model::Capacity;
use tokio::runtime::Runtime;

const STATUSES: [u32; 11] = [0, 1, 2, 13, 16, 17, 22, 28, 39, 40, 95];

/// Low limits, so that messages meet what earlier ones have made.
const CAPACITY: Capacity = Capacity { ports: 8, meters: 8, rules: 8, rule_masks: 6 };

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

fn service(host: &FakeHost, storage: &FakeStorage) -> Arc<Service> {
    Service::start(start_sized(host, CAPACITY), storage.store(), &Declared::default()).expect("a service")
}

fuzz_target!(|data: &[u8]| {
    let storage = FakeStorage::default();
    let host = machine_for(&[]);
    let service = service(&host, &storage);
    let dpu = Dpu::new(Arc::clone(&service));
    let mut before = state_of(&service);
    // The input repeats: method, length of the message, message.
    let mut rest = data;
    while let [method, len, tail @ ..] = rest {
        let (message, next) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = next;
        let method = METHODS[usize::from(*method) % METHODS.len()];
        let Some(said) = RUNTIME.block_on(call(&dpu, method, message)) else { continue };
        assert!(STATUSES.contains(&said.status), "{method}: {said:?}");
        assert_eq!(said.status == 0, said.error.is_empty(), "{method}: {said:?}");
        let after = state_of(&service);
        assert!(said.status == 0 || after == before, "{method} was refused and has changed something: {said:?}");
        before = after;
    }
    drop((dpu, service));
    assert_eq!(Kept { fdb: Vec::new(), ..Kept::load(&storage.store()).expect("a state") }, before);
    assert_eq!(state_of(&self::service(&host, &storage)), before);
});

//! Fuzzes the hand-over socket: arbitrary requests of arbitrary users, over a switch on a made-up host. Each gets an
//! answer or an error, never a panic. A user without rights gets nothing.
#![no_main]

use std::sync::{Arc, LazyLock};

use ctl_companion::{Access, Peer, carry_out};
use ctl_guest::protocol::{Answer, decode, encode};
use ctl_service::state::Store;
use ctl_service::{Declared, Service};
use ctl_types::ErrorBody;
use kit::{machine_for, start, tables};
use libfuzzer_sys::fuzz_target;
use switch::ErrorKind;
use switch::model::{PortKind, PortSpec};

const STRANGER: u32 = 4_000_000;
const KNOWN: u32 = 4_000_001;
const OF_ONE_PORT: u32 = 4_000_002;

struct Rig {
    service: Arc<Service>,
    access: Access,
    _dir: tempfile::TempDir,
}

static RIG: LazyLock<Rig> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), tables()).expect("a store");
    let service = Service::start(start(&machine_for(&[])), store, &Declared::default()).expect("a service");
    service.look_after_guests(&dir.path().join("guests")).expect("leases");
    for name in ["vm1", "vm2"] {
        service.add_port(PortSpec::new(name, PortKind::Guest)).expect("a port");
    }
    let ports = [("vm1".to_owned(), vec![OF_ONE_PORT])].into();
    Rig { service, access: Access { everywhere: vec![KNOWN], ports }, _dir: dir }
});

fuzz_target!(|data: &[u8]| {
    let [user, message @ ..] = data else { return };
    let uid = [0, STRANGER, KNOWN, OF_ONE_PORT][usize::from(user % 4)];
    let peer = Peer { pid: std::process::id().cast_signed(), uid };
    match carry_out(&RIG.service, &RIG.access, peer, message) {
        Ok((offer, _)) => {
            assert!(uid != STRANGER && (uid != OF_ONE_PORT || offer.port == "vm1"));
            let answer = Answer::Done(offer);
            assert_eq!(decode::<Answer>(&encode(&answer)).expect("an answer"), answer);
        }
        Err(error) => {
            let told = uid == STRANGER && !matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid);
            assert!(!told, "{error}");
            let refused = Answer::Refused(ErrorBody::new(error.kind(), error.to_string()));
            assert_eq!(decode::<Answer>(&encode(&refused)).expect("an answer"), refused);
        }
    }
});

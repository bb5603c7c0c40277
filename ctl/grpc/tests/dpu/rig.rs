//! A service per test, called as a client calls it.

use std::path::PathBuf;
use std::sync::Arc;

use ctl_disks::{DiskSettings, DisksConfig};
use ctl_grpc::Dpu;
use ctl_grpc::proto::*;
use ctl_service::{Declared, Service};
use ctl_types::{DiskEntry, DiskState};
use kit::{FakeHost, FakeStorage, Kept, METHODS, Said, call, machine_for, start_sized, state_of, wait};
use prost::Message;
use switch::model::Capacity;
use tempfile::TempDir;

use crate::messages::{assert_whole, described};

/// Methods that list everything.
const LISTS: [&str; 8] = [
    "Vdisk/GetPvfCapability",
    "ElasticNic/GetPortCapability",
    "ElasticNic/QueryPort",
    "Meter/Capability",
    "Meter/Query",
    "TrafficControl/ClassfierCapability",
    "TrafficControl/ClassfierQuery",
    "TrafficControl/ProcSwitchQuery",
];

pub struct Rig {
    pub host: FakeHost,
    pub service: Arc<Service>,
    pub dpu: Dpu,
    pub storage: FakeStorage,
    pub disks: DiskPlace,
    capacity: Capacity,
}

/// Directories for disks, which outlive the daemon.
pub struct DiskPlace {
    pub settings: DiskSettings,
    _dir: TempDir,
}

impl DiskPlace {
    fn new(config: DisksConfig) -> Self {
        // Paths of sockets are short.
        let dir = tempfile::tempdir().unwrap();
        let settings = config.settings(&dir.path().join("run"), &dir.path().join("state"));
        Self { settings, _dir: dir }
    }

    /// A file of the first directory for images.
    pub fn image(&self, name: &str) -> PathBuf {
        self.settings.directories[0].join(name)
    }
}

/// Everything visible from outside, and the saved state.
#[derive(Debug, PartialEq)]
pub struct Dump(Vec<Said>, Kept, Vec<u8>);

impl Dump {
    /// Whether the lists are equal, regardless of the storage's bytes.
    pub fn same_lists(&self, other: &Self) -> bool {
        (&self.0, &self.1) == (&other.0, &other.1)
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::sized(Capacity::default())
    }

    pub fn sized(capacity: Capacity) -> Self {
        let disks = DiskPlace::new(DisksConfig::default());
        Self::over(machine_for(&[]), FakeStorage::default(), disks, capacity)
    }

    /// With these settings for disks.
    pub fn with_disks(config: DisksConfig) -> Self {
        Self::over(machine_for(&[]), FakeStorage::default(), DiskPlace::new(config), Capacity::default())
    }

    fn over(host: FakeHost, storage: FakeStorage, disks: DiskPlace, capacity: Capacity) -> Self {
        let switch = start_sized(&host, capacity);
        let declared = Declared { disks: disks.settings.clone(), ..Declared::default() };
        let service = Service::start(switch, storage.store(), &declared).unwrap();
        let starting = |disk: &DiskEntry| disk.state == DiskState::Starting;
        wait("disks come up, or don't", || !service.disks().entries().iter().any(starting));
        Self { host, dpu: Dpu::new(Arc::clone(&service)), service, storage, disks, capacity }
    }

    fn end(self) -> (FakeHost, FakeStorage, DiskPlace, Capacity) {
        let Self { host, service, dpu, storage, disks, capacity } = self;
        drop((service, dpu));
        (host, storage, disks, capacity)
    }

    /// A new daemon with the same state.
    pub fn restart(self) -> Self {
        let (host, storage, disks, capacity) = self.end();
        Self::over(host, storage, disks, capacity)
    }

    /// Checks that the saved state equals the tables, and that a new daemon restores it. Returns that daemon.
    pub fn assert_kept(self) -> Self {
        let state = state_of(&self.service);
        let (host, storage, disks, capacity) = self.end();
        assert_eq!(Kept { fdb: Vec::new(), ..Kept::load(&storage.store()).unwrap() }, state);
        let rig = Self::over(host, storage, disks, capacity);
        assert_eq!(state_of(&rig.service), state);
        rig
    }

    pub async fn say_bytes(&self, method: &str, message: &[u8]) -> Said {
        let said = call(&self.dpu, method, message).await.unwrap();
        assert_whole(method, &said.bytes);
        assert_eq!(said.status == 0, said.error.is_empty(), "{method}: {said:?}");
        said
    }

    pub async fn say(&self, method: &str, message: &(impl Message + std::fmt::Debug)) -> Said {
        self.say_bytes(method, &message.encode_to_vec()).await
    }

    /// The answer to a request that must succeed.
    pub async fn ask<T: Message + Default>(&self, method: &str, message: &(impl Message + std::fmt::Debug)) -> T {
        let said = self.say(method, message).await;
        assert_eq!(said.status, 0, "{method} {message:?}: {}", said.error);
        T::decode(&*said.bytes).unwrap()
    }

    pub async fn done(&self, method: &str, message: &(impl Message + std::fmt::Debug)) {
        let said = self.say(method, message).await;
        assert_eq!(said.status, 0, "{method} {message:?}: {}", said.error);
    }

    pub async fn dump(&self) -> Dump {
        let mut lists = Vec::new();
        for method in LISTS {
            lists.push(self.say_bytes(method, &[]).await);
        }
        let disks = VdiskGetAllPvfCfgRequest { get_from_hard: Some(false) };
        lists.push(self.say("Vdisk/GetAllPvfCfg", &disks).await);
        Dump(lists, state_of(&self.service), self.storage.bytes())
    }

    /// Checks that a request is refused for that field, and that nothing has changed.
    pub async fn refused(
        &self,
        method: &str,
        message: &(impl Message + std::fmt::Debug),
        status: u32,
        field: &str,
    ) -> Said {
        let before = self.dump().await;
        let said = self.say(method, message).await;
        assert_eq!(said.status, status, "{method} {message:?}: {}", said.error);
        assert!(said.error.starts_with(&format!("{field}: ")), "{method} {message:?}: {field}: {}", said.error);
        assert!(self.dump().await == before, "{method} {message:?} has changed something");
        said
    }
}

pub fn nic(uuid: &str) -> NewPortRequest {
    NewPortRequest { uuid: Some(uuid.to_owned()), ..NewPortRequest::default() }
}

pub fn disk(name: &str) -> VdiskCreateRequest {
    VdiskCreateRequest { name: Some(name.to_owned()), ..VdiskCreateRequest::default() }
}

pub fn meter(id: u32, rate: u32) -> MeterAddRequest {
    MeterAddRequest { id: Some(id), rate: Some(rate), ..MeterAddRequest::default() }
}

pub fn bind(id: u32, vport: u32, direction: MeterDirection) -> MeterBindRequest {
    MeterBindRequest { id: Some(id), vport: Some(vport), direction: Some(direction.into()), unbind: None }
}

/// A key that matches every frame.
pub fn any(key_index: i32) -> MaskRuleKey {
    MaskRuleKey {
        key_index: Some(key_index),
        dmac: Some(vec![0; 6]),
        smac: Some(vec![0; 6]),
        dmac_mask: Some(0),
        smac_mask: Some(0),
        dl4port: Some(0),
        dl4port_mask: Some(0),
        sl4port: Some(0),
        sl4port_mask: Some(0),
        vlan: Some(0),
        vlan_mask: Some(0),
        vid: Some(0),
        vid_mask: Some(0),
        ip_type: Some(String::new()),
        ipprotocol: Some(0),
        ipprotocol_mask: Some(0),
        ..MaskRuleKey::default()
    }
}

/// An action that sends to a vport, or drops if `vid` is -1.
pub fn to(vid: i32) -> RuleAction {
    RuleAction { vid: Some(vid), qid: Some(-1), ..RuleAction::default() }
}

pub fn rule(key_index: i32, key: MaskRuleKey, action: RuleAction) -> ClassfierWriteRequest {
    ClassfierWriteRequest { key_index: Some(key_index), mask_rule_key: Some(key), action: Some(action) }
}

pub fn switch_to(src: u32, dest: u32) -> ProcSwitchRequest {
    ProcSwitchRequest { src_pfid: Some(src), dest_pfid: Some(dest) }
}

#[test]
fn every_method_of_the_description_is_called() {
    assert_eq!(described(), METHODS);
}

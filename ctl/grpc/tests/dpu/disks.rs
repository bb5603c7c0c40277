//! Cloud disks: every message with each field missing, wrong, and at its limits, and disks that guests use.

use std::time::Duration;

use ctl_disks::DisksConfig;
use ctl_grpc::proto::*;
use disk::client::{Guest, GuestSpec, Task};
use kit::{call, state_of, wait};
use prost::Message;

use crate::rig::*;

const ENOENT: u32 = 2;
const EIO: u32 = 5;
const EBUSY: u32 = 16;
const EEXIST: u32 = 17;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOPNOTSUPP: u32 = 95;

/// Sectors of a new disk that says nothing else.
const SECTORS: u64 = 2048;

async fn cfg(rig: &Rig, pvf_id: u32) -> VdiskGetPvfCfgResponse {
    let answer = call(&rig.dpu, "Vdisk/GetPvfCfg", &number(pvf_id).encode_to_vec()).await.unwrap();
    VdiskGetPvfCfgResponse::decode(&*answer.bytes).unwrap()
}

async fn all(rig: &Rig, get_from_hard: bool) -> Vec<VdiskGetPvfCfg> {
    let request = VdiskGetAllPvfCfgRequest { get_from_hard: Some(get_from_hard) };
    rig.ask::<VdiskGetAllPvfCfgResponse>("Vdisk/GetAllPvfCfg", &request).await.cfgs
}

async fn free(rig: &Rig) -> (u32, u32) {
    let answer: VdiskGetPvfCapabilityResponse =
        rig.ask("Vdisk/GetPvfCapability", &VdiskGetPvfCapabilityRequest {}).await;
    (answer.total_pvf_cnt(), answer.free_pvf_cnt())
}

fn number(pvf_id: u32) -> VdiskGetPvfCfgRequest {
    VdiskGetPvfCfgRequest { pvf_id: Some(pvf_id) }
}

fn pause(pvf_id: u32, pause: bool) -> VdiskPauseRequest {
    VdiskPauseRequest { pvf_id: Some(pvf_id), pause: Some(pause) }
}

fn grow(pvf_id: u32, sectors: u64) -> VdiskUpdateRequest {
    VdiskUpdateRequest { pvf_id: Some(pvf_id), number_secotrs: Some(sectors), ..VdiskUpdateRequest::default() }
}

fn destroy(pvf_id: u32) -> VdiskDestroyRequest {
    VdiskDestroyRequest { pvf_id: Some(pvf_id), ..VdiskDestroyRequest::default() }
}

/// A guest at a disk's socket.
async fn guest(rig: &Rig, pvf_id: u32) -> Guest {
    let socket = cfg(rig, pvf_id).await.details.unwrap().socket.unwrap();
    let mut guest = Guest::new(GuestSpec::default());
    guest.connect(socket.as_ref());
    guest
}

#[tokio::test]
async fn a_disk_is_read_back_as_it_was_asked_for() {
    let rig = Rig::new();
    assert_eq!(free(&rig).await, (256, 256));
    let request = VdiskCreateRequest {
        pvf_id: Some(255),
        max_queue: Some(4),
        queue_depth: Some(128),
        msix: Some(9),
        size: Some(8 << 20),
        serial: Some("S 1".into()),
        block_size: Some(4096),
        threads: Some(2),
        cpus: vec![0],
        paused: Some(true),
        port_type: Some(PvfType::VfType.into()),
        limits: Some(VdiskLimits {
            read_ops: Some(VdiskRate { per_second: Some(100), burst: Some(7) }),
            ..VdiskLimits::default()
        }),
        ..disk("云盘 1")
    };
    let made: VdiskOpsRsp = rig.ask("Vdisk/Create", &request).await;
    assert_eq!(made.pvf_id, Some(255));
    let got = cfg(&rig, 255).await;
    let details = got.details.clone().unwrap();
    assert_eq!(
        VdiskGetPvfCfgResponse { details: None, ..got },
        VdiskGetPvfCfgResponse {
            status: Some(0),
            pvf_id: Some(255),
            enable: Some(true),
            max_queue: Some(4),
            msix_num: Some(9),
            queue_depth: Some(128),
            sector_num: Some(16_384),
            nr_active_queue: Some(0),
            trans_status: Some(3),
            name: Some("云盘 1".into()),
            port_type: Some(PvfType::VfType.into()),
            error: None,
            details: None,
        }
    );
    assert_eq!((details.limits, details.threads, details.cpus), (request.limits, Some(2), vec![0]));
    assert_eq!((details.serial.as_deref(), details.block_size), (Some("S 1"), Some(4096)));
    assert_eq!(details.path.as_deref(), rig.disks.image("云盘 1.img").to_str());
    assert_eq!(std::fs::metadata(rig.disks.image("云盘 1.img")).unwrap().len(), 8 << 20);
    assert_eq!(free(&rig).await, (256, 255));
    rig.done("Vdisk/Destroy", &destroy(255)).await;
    assert_eq!((free(&rig).await, all(&rig, true).await), ((256, 256), vec![]));
    assert!(rig.disks.image("云盘 1.img").exists(), "the image stays");
    assert!(!std::path::Path::new(&details.socket.unwrap()).exists(), "the socket goes");
}

#[tokio::test]
async fn a_client_that_knows_only_the_document_has_a_disk() {
    let rig = Rig::new();
    let made: VdiskOpsRsp = rig.ask("Vdisk/Create", &disk("vol-1")).await;
    assert_eq!(made.pvf_id, Some(0));
    let before = cfg(&rig, 0).await;
    assert_eq!((before.max_queue, before.queue_depth, before.msix_num), (Some(1), Some(1024), Some(2)));
    assert_eq!((before.sector_num, before.trans_status), (Some(SECTORS), Some(0)));
    rig.done("Vdisk/Update", &grow(0, 1 << 20)).await;
    rig.done("Vdisk/Update", &grow(0, 1 << 20)).await;
    rig.done("Vdisk/Update", &VdiskUpdateRequest { number_secotrs: None, ..grow(0, 0) }).await;
    rig.done("Vdisk/Pause", &pause(0, true)).await;
    rig.done("Vdisk/Pause", &pause(0, true)).await;
    assert_eq!(cfg(&rig, 0).await.trans_status, Some(3));
    rig.done("Vdisk/Pause", &pause(0, false)).await;
    let after = cfg(&rig, 0).await;
    assert_eq!((after.sector_num, after.trans_status), (Some(1 << 20), Some(0)));
    // The next one has the lowest free number, and one that goes gives its number back.
    rig.done("Vdisk/Create", &disk("vol-2")).await;
    rig.done("Vdisk/Destroy", &destroy(0)).await;
    let third: VdiskOpsRsp = rig.ask("Vdisk/Create", &disk("vol-3")).await;
    assert_eq!(third.pvf_id, Some(0));
    // A disk of the same name has the image again that stayed.
    let again: VdiskOpsRsp = rig.ask("Vdisk/Create", &disk("vol-1")).await;
    assert_eq!(cfg(&rig, again.pvf_id()).await.sector_num, Some(1 << 20));
    rig.assert_kept();
}

#[tokio::test]
async fn a_new_disk_is_refused_for_the_field_that_is_wrong() {
    let rig = Rig::new();
    rig.done("Vdisk/Create", &disk("there")).await;
    let there = rig.disks.image("there.img").display().to_string();
    let link = rig.disks.image("link.img");
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    let hard = rig.disks.image("hard.img");
    std::fs::hard_link(&there, &hard).unwrap();
    let paths = [there, link.display().to_string(), hard.display().to_string()];
    let socket = cfg(&rig, 0).await.details.unwrap().socket.unwrap();
    type Change = fn(&mut VdiskCreateRequest, &[String; 3], &str);
    let cases: &[(u32, &str, Change)] = &[
        (EINVAL, "name", |r, _, _| r.name = None),
        (EINVAL, "name", |r, _, _| r.name = Some(String::new())),
        (EINVAL, "name", |r, _, _| r.name = Some("x".repeat(129))),
        (EINVAL, "name", |r, _, _| r.name = Some("a/b".into())),
        (EINVAL, "name", |r, _, _| r.name = Some("..".into())),
        (EINVAL, "name", |r, _, _| r.name = Some("a\nb".into())),
        (EINVAL, "name", |r, _, _| r.name = Some("a*".into())),
        (EEXIST, "name", |r, _, _| r.name = Some("there".into())),
        (EINVAL, "pvf_id", |r, _, _| r.pvf_id = Some(256)),
        (EINVAL, "pvf_id", |r, _, _| r.pvf_id = Some(u32::MAX)),
        (EEXIST, "pvf_id", |r, _, _| r.pvf_id = Some(0)),
        (EINVAL, "max_queue", |r, _, _| r.max_queue = Some(0)),
        (EINVAL, "max_queue", |r, _, _| r.max_queue = Some(257)),
        (EINVAL, "max_queue", |r, _, _| r.max_queue = Some(65_537)),
        (EINVAL, "queue_depth", |r, _, _| r.queue_depth = Some(0)),
        (EINVAL, "queue_depth", |r, _, _| r.queue_depth = Some(1)),
        (EINVAL, "queue_depth", |r, _, _| r.queue_depth = Some(1000)),
        (EINVAL, "queue_depth", |r, _, _| r.queue_depth = Some(65_536)),
        (EINVAL, "msix", |r, _, _| r.msix = Some(2049)),
        (EINVAL, "path", |r, _, _| r.path = Some("relative".into())),
        (EINVAL, "path", |r, _, _| r.path = Some("/etc/hostname".into())),
        (EINVAL, "path", |r, _, _| r.path = Some("/dev/null".into())),
        (EBUSY, "path", |r, paths, _| r.path = Some(paths[0].clone())),
        (EINVAL, "path", |r, paths, _| r.path = Some(paths[0].replace("there.img", "../x"))),
        (EINVAL, "path", |r, paths, _| r.path = Some(paths[1].clone())),
        (EBUSY, "path", |r, paths, _| r.path = Some(paths[2].clone())),
        (ENOENT, "path", |r, paths, _| r.path = Some(paths[0].replace("there.img", "no/such"))),
        (ENOENT, "path", |r, _, _| r.read_only = Some(true)),
        (EINVAL, "size", |r, _, _| r.size = Some(0)),
        (EINVAL, "size", |r, _, _| r.size = Some(1000)),
        (EINVAL, "size", |r, _, _| (r.size, r.block_size) = (Some(512), Some(4096))),
        (EINVAL, "size", |r, _, _| r.size = Some(u64::MAX - 511)),
        (EINVAL, "block_size", |r, _, _| r.block_size = Some(1024)),
        (EINVAL, "socket", |r, _, _| r.socket = Some("relative".into())),
        (EINVAL, "socket", |r, _, _| r.socket = Some(format!("/{}", "x".repeat(107)))),
        (ENOENT, "socket", |r, _, _| r.socket = Some("/no/such/place".into())),
        (EBUSY, "socket", |r, paths, _| r.socket = Some(paths[1].clone())),
        (EEXIST, "socket", |r, _, socket| r.socket = Some(socket.to_owned())),
        (EINVAL, "socket", |r, _, _| r.socket_client = Some(true)),
        (EINVAL, "owner", |r, _, _| {
            (r.socket_client, r.socket, r.owner) = (Some(true), Some("/s".into()), Some("root".into()));
        }),
        (EINVAL, "owner", |r, _, _| r.owner = Some("no such user".into())),
        (EINVAL, "group", |r, _, _| r.group = Some("no such group".into())),
        (EINVAL, "socket_mode", |r, _, _| r.socket_mode = Some("rw".into())),
        (EINVAL, "socket_mode", |r, _, _| r.socket_mode = Some("1777".into())),
        (EINVAL, "threads", |r, _, _| r.threads = Some(0)),
        (EINVAL, "threads", |r, _, _| (r.max_queue, r.threads) = (Some(2), Some(3))),
        (EINVAL, "cpus", |r, _, _| r.cpus = vec![0, 100_000]),
        (EINVAL, "serial", |r, _, _| r.serial = Some(String::new())),
        (EINVAL, "serial", |r, _, _| r.serial = Some("x".repeat(21))),
        (EINVAL, "serial", |r, _, _| r.serial = Some("é".into())),
        (EINVAL, "port_type", |r, _, _| r.port_type = Some(2)),
        (EINVAL, "limits.read_ops.per_second", |r, _, _| {
            r.limits = Some(VdiskLimits { read_ops: Some(VdiskRate::default()), ..VdiskLimits::default() });
        }),
        (EINVAL, "limits.write_bytes", |r, _, _| {
            let rate = VdiskRate { per_second: Some(0), burst: Some(1) };
            r.limits = Some(VdiskLimits { write_bytes: Some(rate), ..VdiskLimits::default() });
        }),
    ];
    for (status, field, change) in cases {
        let mut request = disk("new");
        change(&mut request, &paths, &socket);
        rig.refused("Vdisk/Create", &request, *status, field).await;
        assert!(!rig.disks.image("new.img").exists(), "{field}: an image is left");
    }
    assert_eq!(std::fs::read_dir(rig.disks.settings.socket_directory.clone()).unwrap().count(), 1, "sockets are left");
    // At the limits.
    let most = VdiskCreateRequest {
        max_queue: Some(256),
        queue_depth: Some(32_768),
        msix: Some(2048),
        threads: Some(1),
        size: Some(512),
        serial: Some("x".repeat(20)),
        limits: Some(VdiskLimits {
            read_bytes: Some(VdiskRate { per_second: Some(u64::MAX), burst: Some(u64::MAX) }),
            ..VdiskLimits::default()
        }),
        ..disk(&"n".repeat(20))
    };
    rig.done("Vdisk/Create", &most).await;
    rig.done("Vdisk/Create", &VdiskCreateRequest { queue_depth: Some(2), msix: Some(0), ..disk("least") }).await;
}

#[tokio::test]
async fn other_messages_are_refused_for_the_field_that_is_wrong() {
    let rig = Rig::new();
    rig.done("Vdisk/Create", &VdiskCreateRequest { block_size: Some(4096), ..disk("a") }).await;
    for wrong in [None, Some(1), Some(256), Some(u32::MAX)] {
        let (status, field) = (if wrong.is_none() { EINVAL } else { ENOENT }, "pvf_id");
        rig.refused("Vdisk/Destroy", &VdiskDestroyRequest { pvf_id: wrong, ..destroy(0) }, status, field).await;
        rig.refused("Vdisk/Update", &VdiskUpdateRequest { pvf_id: wrong, ..grow(0, 4096) }, status, field).await;
        rig.refused("Vdisk/Pause", &VdiskPauseRequest { pvf_id: wrong, pause: Some(true) }, status, field).await;
        rig.refused("Vdisk/GetPvfCfg", &VdiskGetPvfCfgRequest { pvf_id: wrong }, status, field).await;
        rig.refused("Vdisk/GetStats", &VdiskGetStatsRequest { pvf_id: wrong }, status, field).await;
        let snapshot = VdiskSnapshotRequest { pvf_id: wrong, path: Some("copy.img".into()) };
        rig.refused("Vdisk/Snapshot", &snapshot, status, field).await;
    }
    rig.refused("Vdisk/Pause", &VdiskPauseRequest { pvf_id: Some(0), pause: None }, EINVAL, "pause").await;
    rig.refused("Vdisk/GetAllPvfCfg", &VdiskGetAllPvfCfgRequest { get_from_hard: None }, EINVAL, "get_from_hard").await;
    rig.refused("Vdisk/Snapshot", &VdiskSnapshotRequest { pvf_id: Some(0), path: None }, EINVAL, "path").await;
    for path in ["", "/etc/copy.img", "../copy.img", "."] {
        let snapshot = VdiskSnapshotRequest { pvf_id: Some(0), path: Some(path.into()) };
        rig.refused("Vdisk/Snapshot", &snapshot, EINVAL, "path").await;
    }
    for sectors in [0, 1, SECTORS - 8, SECTORS + 1, (1 << 55) + 8, 1 << 60, u64::MAX] {
        rig.refused("Vdisk/Update", &grow(0, sectors), EINVAL, "number_secotrs").await;
    }
    let rate = VdiskRate { per_second: None, burst: Some(1) };
    let limits = Some(VdiskLimits { write_ops: Some(rate), ..VdiskLimits::default() });
    let update = VdiskUpdateRequest { limits, ..grow(0, 2 * SECTORS) };
    rig.refused("Vdisk/Update", &update, EINVAL, "limits.write_ops.per_second").await;
    assert_eq!(cfg(&rig, 0).await.sector_num, Some(SECTORS), "nothing of a refused change is made");
}

#[tokio::test]
async fn a_file_system_without_reflinks_has_no_snapshots_and_no_file_is_left() {
    let rig = Rig::new();
    rig.done("Vdisk/Create", &disk("a")).await;
    let snapshot = VdiskSnapshotRequest { pvf_id: Some(0), path: Some("copy.img".into()) };
    let said = rig.say("Vdisk/Snapshot", &snapshot).await;
    // The directory of temporary files may be on one that has them.
    assert_eq!(said.status == 0, rig.disks.image("copy.img").exists());
    if said.status != 0 {
        assert_eq!(said.status, EOPNOTSUPP, "{}", said.error);
        assert!(said.error.contains("reflink"), "{}", said.error);
    }
}

#[tokio::test]
async fn all_numbers_can_be_used_and_no_more() {
    let rig = Rig::with_disks(DisksConfig { capacity: 2, ..DisksConfig::default() });
    rig.done("Vdisk/Create", &VdiskCreateRequest { pvf_id: Some(1), ..disk("a") }).await;
    rig.done("Vdisk/Create", &disk("b")).await;
    assert_eq!(free(&rig).await, (2, 0));
    rig.refused("Vdisk/Create", &disk("c"), ENOSPC, "pvf_id").await;
    rig.refused("Vdisk/Create", &VdiskCreateRequest { pvf_id: Some(2), ..disk("c") }, EINVAL, "pvf_id").await;
    rig.done("Vdisk/Destroy", &destroy(1)).await;
    rig.done("Vdisk/Create", &disk("c")).await;
    rig.assert_kept();
}

#[tokio::test]
async fn a_change_that_cannot_be_kept_is_not_made() {
    let rig = Rig::new();
    rig.done("Vdisk/Create", &disk("a")).await;
    let before = rig.dump().await;
    rig.storage.set_full(true);
    for (method, message) in [
        ("Vdisk/Create", disk("b").encode_to_vec()),
        ("Vdisk/Destroy", destroy(0).encode_to_vec()),
        ("Vdisk/Update", grow(0, 2 * SECTORS).encode_to_vec()),
        ("Vdisk/Pause", pause(0, true).encode_to_vec()),
    ] {
        let said = rig.say_bytes(method, &message).await;
        assert_eq!(said.status, EIO, "{method}: {}", said.error);
        assert!(rig.dump().await == before, "{method} has changed something");
    }
    rig.storage.set_full(false);
    assert!(!rig.disks.image("b.img").exists(), "an image is left");
    assert_eq!(std::fs::metadata(rig.disks.image("a.img")).unwrap().len(), SECTORS * 512);
    rig.assert_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_uses_a_disk_that_grows_pauses_and_can_not_be_deleted() {
    let rig = Rig::new();
    rig.done("Vdisk/Create", &disk("a")).await;
    let mut guest = guest(&rig, 0).await;
    assert_eq!(guest.sectors(), SECTORS);
    wait("the ring runs", || rig.service.disks().entry("0").unwrap().info.unwrap().active_queues == 1);
    let live = cfg(&rig, 0).await;
    assert_eq!((live.trans_status, live.nr_active_queue), (Some(2), Some(1)));
    // What is configured is told without a look at the device.
    let [configured, live] = [all(&rig, false).await.remove(0), all(&rig, true).await.remove(0)];
    assert_eq!((configured.trans_status, configured.nr_active_queue), (Some(0), Some(0)));
    assert_eq!((live.trans_status, live.nr_active_queue), (Some(2), Some(1)));
    rig.refused("Vdisk/Destroy", &destroy(0), EBUSY, "pvf_id").await;

    rig.done("Vdisk/Update", &grow(0, 2 * SECTORS)).await;
    assert!(guest.config_changes(Duration::from_secs(10)), "the guest is told");
    assert_eq!(guest.sectors(), 2 * SECTORS);
    assert_eq!(guest.queues[0].run(&Task::write(2 * SECTORS - 1, vec![7; 512])).0, 0);

    rig.done("Vdisk/Pause", &pause(0, true)).await;
    assert_eq!(cfg(&rig, 0).await.trans_status, Some(3));
    let read = Task::read(2 * SECTORS - 1, 512);
    let taken = guest.queues[0].add(&read).unwrap();
    guest.queues[0].publish();
    assert!(guest.queues[0].wait(Duration::from_millis(300)).is_none(), "a paused disk takes nothing");
    rig.done("Vdisk/Pause", &pause(0, false)).await;
    let done = guest.queues[0].wait(Duration::from_secs(10));
    assert_eq!(done, Some((taken, 0)), "it goes on without a kick");
    assert_eq!(guest.queues[0].data(taken, &read), vec![7; 512]);

    let stats: VdiskGetStatsResponse = rig.ask("Vdisk/GetStats", &VdiskGetStatsRequest { pvf_id: Some(0) }).await;
    let queue = &stats.queues[0];
    assert_eq!((queue.read.as_ref().unwrap().bytes, queue.write.as_ref().unwrap().bytes), (Some(512), Some(512)));
    assert!(queue.read.as_ref().unwrap().nanoseconds > Some(0));
    rig.done("Vdisk/Destroy", &VdiskDestroyRequest { force: Some(true), delete_image: Some(true), ..destroy(0) }).await;
    assert!(!rig.disks.image("a.img").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_at_once_get_one_disk_each_or_a_refusal() {
    let rig = Rig::with_disks(DisksConfig { capacity: 8, ..DisksConfig::default() });
    for round in 0..4 {
        let name = format!("disk-{round}");
        let (same, number) = (disk(&name), VdiskCreateRequest { pvf_id: Some(round), ..disk(&format!("{name}-n")) });
        let (one, two) = tokio::join!(rig.say("Vdisk/Create", &same), rig.say("Vdisk/Create", &same));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [0, EEXIST], "{one:?} {two:?}");
        let id = all(&rig, true).await[0].pvfid();
        let (grown, grown_more) = (grow(id, 2 * SECTORS), grow(id, 4 * SECTORS));
        let (one, two) = tokio::join!(rig.say("Vdisk/Update", &grown), rig.say("Vdisk/Update", &grown_more));
        assert!([0, EINVAL].contains(&one.status) && two.status == 0, "{one:?} {two:?}");
        let (pauses, resumes) = (pause(id, true), pause(id, false));
        let (one, two) = tokio::join!(rig.say("Vdisk/Pause", &pauses), rig.say("Vdisk/Pause", &resumes));
        assert_eq!((one.status, two.status), (0, 0), "{one:?} {two:?}");
        let (gone, gone_too) = (destroy(id), destroy(id));
        let (one, two) = tokio::join!(rig.say("Vdisk/Destroy", &gone), rig.say("Vdisk/Destroy", &gone_too));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [0, ENOENT], "{one:?} {two:?}");
        rig.done("Vdisk/Create", &number).await;
        rig.done("Vdisk/Destroy", &destroy(round)).await;
    }
    assert_eq!(free(&rig).await, (8, 8));
    rig.assert_kept();
}

#[tokio::test]
async fn a_new_daemon_has_the_disks_and_paused_ones_stay_paused() {
    let rig = Rig::new();
    rig.done("Vdisk/Create", &VdiskCreateRequest { pvf_id: Some(7), ..disk("a") }).await;
    rig.done("Vdisk/Create", &disk("gone")).await;
    rig.done("Vdisk/Update", &grow(7, 4 * SECTORS)).await;
    let limits =
        VdiskLimits { write_ops: Some(VdiskRate { per_second: Some(5), burst: None }), ..VdiskLimits::default() };
    rig.done("Vdisk/Update", &VdiskUpdateRequest { pvf_id: Some(7), number_secotrs: None, limits: Some(limits) }).await;
    rig.done("Vdisk/Pause", &pause(7, true)).await;
    let before = rig.dump().await;
    let rig = rig.assert_kept().restart();
    assert!(rig.dump().await.same_lists(&before));
    assert_eq!(cfg(&rig, 7).await.trans_status, Some(3));

    // An image that is gone ends nothing. The disk is shown with the reason, and comes back.
    let (image, aside) = (rig.disks.image("gone.img"), rig.disks.image("aside.img"));
    std::fs::rename(&image, &aside).unwrap();
    let rig = rig.restart();
    let gone = cfg(&rig, 0).await;
    assert_eq!((gone.status, gone.sector_num, gone.trans_status), (Some(0), Some(SECTORS), Some(0)));
    assert!(gone.error().starts_with("path: "), "{gone:?}");
    assert_eq!(gone.details.unwrap().state(), "failed");
    assert!(!image.exists(), "no image is made for a disk that had one");
    let said = rig.say("Vdisk/Update", &grow(0, 2 * SECTORS)).await;
    assert_eq!(said.status, EIO, "{}", said.error);
    assert!(said.error.contains("not up"), "{}", said.error);
    std::fs::rename(&aside, &image).unwrap();
    rig.service.disks().retry();
    wait("the disk is back", || rig.service.disks().entry("gone").unwrap().info.is_some());
    assert_eq!(cfg(&rig, 0).await.error, None);
    let state = state_of(&rig.service);
    assert_eq!(state.disks.len(), 2);
}

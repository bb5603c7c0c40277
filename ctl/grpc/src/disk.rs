//! Section 2 of the DPU interface document: elastic cloud disks.

use ctl_disks::{Deletion, SECTOR};
use ctl_service::{Error, Service};
use ctl_types::*;
use switch::model::{SocketRole, Usage};
use tonic::{Request, Response, Status};

use super::proto::vdisk_server::Vdisk;
use super::proto::{
    self, VdiskCreateRequest, VdiskDestroyRequest, VdiskDetails, VdiskGetAllPvfCfgRequest, VdiskGetAllPvfCfgResponse,
    VdiskGetPvfCapabilityRequest, VdiskGetPvfCapabilityResponse, VdiskGetPvfCfg, VdiskGetPvfCfgRequest,
    VdiskGetPvfCfgResponse, VdiskGetStatsRequest, VdiskGetStatsResponse, VdiskLimits, VdiskOpsRsp, VdiskPauseRequest,
    VdiskQueueStats, VdiskRate, VdiskSnapshotRequest, VdiskSnapshotResponse, VdiskUpdateRequest,
};
use super::{Dpu, required};

/// Fields of the service that have another name here.
const FIELDS: [(&str, &str); 2] = [("queues: ", "max_queue"), ("mode: ", "socket_mode")];

/// Renames fields in an error of the service to those of the document and its extensions.
fn in_its_words(error: Error) -> Error {
    let Error::Disk(inner) = &error else { return error };
    let text = inner.to_string();
    let renamed = FIELDS.iter().find_map(|(field, name)| Some((name, text.strip_prefix(field)?)));
    match renamed {
        Some((name, rest)) => Error::Disk(ctl_disks::Error::new(inner.kind(), format!("{name}: {rest}"))),
        None => error,
    }
}

/// The same of an update, whose size is a number of sectors.
fn of_update(error: Error) -> Error {
    let Error::Disk(inner) = &error else { return error };
    match inner.to_string().strip_prefix("size: ") {
        Some(rest) => Error::Disk(ctl_disks::Error::new(inner.kind(), format!("number_secotrs: {rest}"))),
        None => error,
    }
}

fn rate(field: &str, rate: Option<VdiskRate>) -> Result<Option<DiskRate>, Error> {
    let Some(VdiskRate { per_second, burst }) = rate else { return Ok(None) };
    let per_second = required(&format!("limits.{field}.per_second"), per_second)?;
    Ok(Some(DiskRate { per_second, burst: burst.unwrap_or(0) }))
}

fn limits(limits: Option<VdiskLimits>) -> Result<DiskLimits, Error> {
    let VdiskLimits { read_ops, read_bytes, write_ops, write_bytes } = limits.unwrap_or_default();
    Ok(DiskLimits {
        read_ops: rate("read_ops", read_ops)?,
        read_bytes: rate("read_bytes", read_bytes)?,
        write_ops: rate("write_ops", write_ops)?,
        write_bytes: rate("write_bytes", write_bytes)?,
    })
}

fn create(service: &Service, request: VdiskCreateRequest) -> Result<VdiskOpsRsp, Error> {
    let port_type = match request.port_type.map(proto::PvfType::try_from) {
        None | Some(Ok(proto::PvfType::PfType)) => PvfType::Pf,
        Some(Ok(proto::PvfType::VfType)) => PvfType::Vf,
        Some(Err(_)) => return Err(Error::invalid("port_type: it is neither PF_TYPE (0) nor VF_TYPE (1)")),
    };
    let spec = DiskSpec {
        name: required("name", request.name)?,
        pvf_id: request.pvf_id,
        path: request.path,
        size: request.size,
        allocate: request.allocate.unwrap_or(false),
        queues: request.max_queue,
        queue_depth: request.queue_depth,
        msix: request.msix,
        port_type,
        block_size: request.block_size,
        read_only: request.read_only.unwrap_or(false),
        socket: request.socket,
        role: if request.socket_client == Some(true) { SocketRole::Client } else { SocketRole::Server },
        owner: request.owner,
        group: request.group,
        mode: request.socket_mode,
        threads: request.threads,
        cpus: request.cpus.into_iter().map(|cpu| usize::try_from(cpu).unwrap_or(usize::MAX)).collect(),
        limits: limits(request.limits)?,
        serial: request.serial,
        buffered: request.buffered.unwrap_or(false),
        shared_storage: request.shared_storage.unwrap_or(false),
        paused: request.paused,
    };
    let disk = service.create_disk(&spec)?;
    Ok(done(disk.pvf_id))
}

fn done(pvf_id: u32) -> VdiskOpsRsp {
    VdiskOpsRsp { status: Some(0), pvf_id: Some(pvf_id), error: None }
}

fn update(service: &Service, request: &VdiskUpdateRequest) -> Result<VdiskOpsRsp, Error> {
    let pvf_id = required("pvf_id", request.pvf_id)?;
    service.disks().entry(&pvf_id.to_string())?;
    let bytes = |sectors: u64| {
        let bytes = sectors.checked_mul(SECTOR);
        bytes.ok_or_else(|| Error::invalid(format!("number_secotrs: {sectors} sectors are more than a file can have")))
    };
    let size = request.number_secotrs.map(bytes).transpose()?;
    let change = DiskUpdate { size, limits: limits(request.limits)? };
    service.update_disk(&pvf_id.to_string(), &change).map_err(of_update)?;
    Ok(done(pvf_id))
}

fn limits_of(limits: &DiskLimits) -> VdiskLimits {
    let rate = |rate: Option<DiskRate>| {
        rate.map(|DiskRate { per_second, burst }| VdiskRate {
            per_second: Some(per_second),
            burst: (burst > 0).then_some(burst),
        })
    };
    VdiskLimits {
        read_ops: rate(limits.read_ops),
        read_bytes: rate(limits.read_bytes),
        write_ops: rate(limits.write_ops),
        write_bytes: rate(limits.write_bytes),
    }
}

fn details(disk: &DiskEntry) -> VdiskDetails {
    let spec = &disk.spec;
    let state = match disk.state {
        DiskState::Starting => "starting",
        DiskState::Up => "up",
        DiskState::Degraded => "degraded",
        DiskState::Failed => "failed",
    };
    VdiskDetails {
        state: Some(state.to_owned()),
        path: spec.path.clone(),
        socket: spec.socket.clone(),
        read_only: Some(spec.read_only),
        paused: Some(spec.is_paused()),
        connected: Some(disk.info.as_ref().is_some_and(|info| info.connected)),
        limits: Some(limits_of(&spec.limits)),
        serial: spec.serial.clone(),
        buffered: Some(spec.buffered),
        threads: spec.threads,
        cpus: spec.cpus.iter().map(|cpu| u32::try_from(*cpu).unwrap_or(u32::MAX)).collect(),
        shared_storage: Some(spec.shared_storage),
        block_size: spec.block_size,
        socket_client: Some(spec.role == SocketRole::Client),
        owner: spec.owner.clone(),
        group: spec.group.clone(),
        socket_mode: spec.mode.clone(),
    }
}

/// A disk as the document has it. `live` asks the device, and not only the configuration.
fn describe(disk: &DiskEntry, live: bool) -> VdiskGetPvfCfg {
    let spec = &disk.spec;
    let info = disk.info.as_ref().filter(|_| live);
    let bytes = info.map_or(spec.size.unwrap_or_default(), |info| info.bytes);
    let configured = if spec.is_paused() { DiskTransport::Paused } else { DiskTransport::Disconnected };
    let transport = info.map_or(configured, |info| info.transport);
    let port_type = match spec.port_type {
        PvfType::Pf => proto::PvfType::PfType,
        PvfType::Vf => proto::PvfType::VfType,
    };
    VdiskGetPvfCfg {
        pvfid: Some(disk.pvf_id),
        enable: Some(true),
        max_queue: Some(spec.queues.unwrap_or_default()),
        msix_num: Some(spec.msix.unwrap_or_default()),
        queue_depth: Some(spec.queue_depth.unwrap_or_default()),
        sector_num: Some(bytes / SECTOR),
        nr_active_queue: Some(info.map_or(0, |info| info.active_queues)),
        trans_status: Some(number_of(transport)),
        name: Some(disk.name.clone()),
        port_type: Some(port_type.into()),
        error: disk.error.clone(),
        details: Some(details(disk)),
    }
}

/// `trans_status`.
fn number_of(transport: DiskTransport) -> u32 {
    match transport {
        DiskTransport::Disconnected => 0,
        DiskTransport::Negotiated => 1,
        DiskTransport::Running => 2,
        DiskTransport::Paused => 3,
    }
}

fn get(service: &Service, pvf_id: Option<u32>) -> Result<VdiskGetPvfCfgResponse, Error> {
    let pvf_id = required("pvf_id", pvf_id)?;
    let disk = describe(&service.disks().entry(&pvf_id.to_string())?, true);
    Ok(VdiskGetPvfCfgResponse {
        status: Some(0),
        pvf_id: disk.pvfid,
        enable: disk.enable,
        max_queue: disk.max_queue,
        msix_num: disk.msix_num,
        queue_depth: disk.queue_depth,
        sector_num: disk.sector_num,
        nr_active_queue: disk.nr_active_queue,
        trans_status: disk.trans_status,
        name: disk.name,
        port_type: disk.port_type,
        error: disk.error,
        details: disk.details,
    })
}

fn queue_stats(queue: &DiskQueueStats) -> VdiskQueueStats {
    let count = |count: &DiskCount| {
        let (operations, bytes, nanoseconds) = (Some(count.operations), Some(count.bytes), Some(count.nanoseconds));
        Some(proto::VdiskCount { operations, bytes, nanoseconds })
    };
    VdiskQueueStats {
        queue: Some(queue.queue),
        read: count(&queue.read),
        write: count(&queue.write),
        flush: count(&queue.flush),
        discard: count(&queue.discard),
        zero: count(&queue.zero),
        errors: Some(queue.errors),
        no_space: Some(queue.no_space),
        refused: Some(queue.refused),
        limited: Some(queue.limited),
        copied: Some(queue.copied),
        replayed: Some(queue.replayed),
        in_flight: Some(queue.in_flight),
    }
}

#[tonic::async_trait]
impl Vdisk for Dpu {
    async fn get_pvf_capability(
        &self,
        _: Request<VdiskGetPvfCapabilityRequest>,
    ) -> Result<Response<VdiskGetPvfCapabilityResponse>, Status> {
        self.answer(|service| {
            let Usage { total, free } = service.disks().usage();
            let (total_pvf_cnt, free_pvf_cnt) = (Some(total), Some(free));
            Ok(VdiskGetPvfCapabilityResponse { status: Some(0), total_pvf_cnt, free_pvf_cnt, error: None })
        })
        .await
    }

    async fn create(&self, request: Request<VdiskCreateRequest>) -> Result<Response<VdiskOpsRsp>, Status> {
        let request = request.into_inner();
        let pvf_id = request.pvf_id.unwrap_or(0);
        self.answer_with(
            move |service| create(service, request).map_err(in_its_words),
            |answer| VdiskOpsRsp { pvf_id: Some(pvf_id), ..answer },
        )
        .await
    }

    async fn destroy(&self, request: Request<VdiskDestroyRequest>) -> Result<Response<VdiskOpsRsp>, Status> {
        let VdiskDestroyRequest { pvf_id, force, delete_image } = request.into_inner();
        self.answer_with(
            move |service| {
                let number = required("pvf_id", pvf_id)?;
                let how = Deletion { force: force == Some(true), image: delete_image == Some(true) };
                service.delete_disk(&number.to_string(), how)?;
                Ok(done(number))
            },
            |answer| VdiskOpsRsp { pvf_id: pvf_id.or(Some(0)), ..answer },
        )
        .await
    }

    async fn update(&self, request: Request<VdiskUpdateRequest>) -> Result<Response<VdiskOpsRsp>, Status> {
        let request = request.into_inner();
        let pvf_id = request.pvf_id.unwrap_or(0);
        self.answer_with(
            move |service| update(service, &request),
            |answer| VdiskOpsRsp { pvf_id: Some(pvf_id), ..answer },
        )
        .await
    }

    async fn pause(&self, request: Request<VdiskPauseRequest>) -> Result<Response<VdiskOpsRsp>, Status> {
        let VdiskPauseRequest { pvf_id, pause } = request.into_inner();
        self.answer_with(
            move |service| {
                let (number, pause) = (required("pvf_id", pvf_id)?, required("pause", pause)?);
                service.pause_disk(&number.to_string(), pause)?;
                Ok(done(number))
            },
            |answer| VdiskOpsRsp { pvf_id: pvf_id.or(Some(0)), ..answer },
        )
        .await
    }

    async fn get_pvf_cfg(
        &self,
        request: Request<VdiskGetPvfCfgRequest>,
    ) -> Result<Response<VdiskGetPvfCfgResponse>, Status> {
        let pvf_id = request.into_inner().pvf_id;
        // `answer_with` takes any `error` of the answer as it is: a disk that is not up has one, and status 0.
        self.answer_with(
            move |service| get(service, pvf_id),
            |answer| VdiskGetPvfCfgResponse { pvf_id: pvf_id.or(Some(0)), ..answer },
        )
        .await
    }

    async fn get_all_pvf_cfg(
        &self,
        request: Request<VdiskGetAllPvfCfgRequest>,
    ) -> Result<Response<VdiskGetAllPvfCfgResponse>, Status> {
        let live = request.into_inner().get_from_hard;
        self.answer(move |service| {
            let live = required("get_from_hard", live)?;
            let cfgs = service.disks().entries().iter().map(|disk| describe(disk, live)).collect();
            Ok(VdiskGetAllPvfCfgResponse { status: Some(0), cfgs, error: None })
        })
        .await
    }

    async fn snapshot(
        &self,
        request: Request<VdiskSnapshotRequest>,
    ) -> Result<Response<VdiskSnapshotResponse>, Status> {
        let VdiskSnapshotRequest { pvf_id, path } = request.into_inner();
        self.answer_with(
            move |service| {
                let (number, path) = (required("pvf_id", pvf_id)?, required("path", path)?);
                let path = Some(service.snapshot_disk(&number.to_string(), &path)?);
                Ok(VdiskSnapshotResponse { status: Some(0), pvf_id, path, error: None })
            },
            |answer| VdiskSnapshotResponse { pvf_id: pvf_id.or(Some(0)), ..answer },
        )
        .await
    }

    async fn get_stats(
        &self,
        request: Request<VdiskGetStatsRequest>,
    ) -> Result<Response<VdiskGetStatsResponse>, Status> {
        let pvf_id = request.into_inner().pvf_id;
        self.answer_with(
            move |service| {
                let stats = service.disks().stats_of(&required("pvf_id", pvf_id)?.to_string())?;
                let queues = stats.queues.iter().map(queue_stats).collect();
                Ok(VdiskGetStatsResponse { status: Some(0), pvf_id, queues, error: None })
            },
            |answer| VdiskGetStatsResponse { pvf_id: pvf_id.or(Some(0)), ..answer },
        )
        .await
    }
}

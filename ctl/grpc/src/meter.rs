//! Section 3 of the DPU interface document: meters.

use ctl_service::{Error, Service};
use ctl_types::Page;
use switch::model::{MeterBinding, MeterDirection, MeterInfo, MeterMode, MeterSpec, MeterType, MeterUpdate};
use tonic::{Request, Response, Status};

use super::proto::meter_server::Meter;
use super::proto::{
    self, MeterAddRequest, MeterBindRequest, MeterCapabilityRequest, MeterCapabilityResponse, MeterDelRequest,
    MeterGetRequest, MeterGetResponse, MeterOpsRsp, MeterQueryRequest, MeterQueryResponse, MeterUpdateRequest,
};
use super::{Dpu, required};

/// Limit of entries in an answer.
pub(super) const MOST: u32 = 65_536;

fn done(id: u32) -> MeterOpsRsp {
    MeterOpsRsp { status: Some(0), id: Some(id), error: None }
}

/// A DSCP. The service checks that it is below 64.
fn dscp(yellow_dscp: Option<u32>) -> Result<Option<u8>, Error> {
    yellow_dscp
        .map(u8::try_from)
        .transpose()
        .map_err(|_| Error::invalid("yellow_dscp: it is out of range, 0 to 63 are possible"))
}

fn add(service: &Service, request: &MeterAddRequest) -> Result<MeterOpsRsp, Error> {
    let (id, rate) = (required("id", request.id)?, required("rate", request.rate)?);
    let kind = match request.r#type {
        None | Some(0) => MeterType::Kbps,
        Some(1) => MeterType::Pps,
        Some(other) => {
            return Err(Error::invalid(format!("type: {other} is neither 0 (kbit/s) nor 1 (frames/s)")));
        }
    };
    let mode = request.mode.map_or(Ok(proto::MeterMode::Single), proto::MeterMode::try_from);
    let mode = match mode.map_err(|_| Error::invalid("mode: it is none of SINGLE, RFC2698 and RFC4115"))? {
        proto::MeterMode::Single => MeterMode::Single,
        proto::MeterMode::Rfc2698 => MeterMode::Rfc2698,
        proto::MeterMode::Rfc4115 => MeterMode::Rfc4115,
    };
    service.add_meter(MeterSpec {
        kind,
        burst: request.burst,
        mode,
        peak_rate: request.peak_rate,
        peak_burst: request.peak_burst,
        color_aware: request.color_aware.unwrap_or(false),
        yellow_dscp: dscp(request.yellow_dscp)?,
        ..MeterSpec::new(id, rate)
    })?;
    Ok(done(id))
}

fn update(service: &Service, request: &MeterUpdateRequest) -> Result<MeterOpsRsp, Error> {
    let id = required("id", request.id)?;
    let update = MeterUpdate {
        rate: Some(required("rate", request.rate)?),
        burst: request.burst,
        peak_rate: request.peak_rate,
        peak_burst: request.peak_burst,
        color_aware: request.color_aware,
        yellow_dscp: dscp(request.yellow_dscp)?,
    };
    service.update_meter(id, &update)?;
    Ok(done(id))
}

fn bind(service: &Service, request: &MeterBindRequest) -> Result<MeterOpsRsp, Error> {
    let meter = required("id", request.id)?;
    let vport = required("vport", request.vport)?;
    let direction = proto::MeterDirection::try_from(required("direction", request.direction)?)
        .map_err(|_| Error::invalid("direction: it is neither FROM_VPORT nor TO_VPORT"))?;
    let direction = match direction {
        proto::MeterDirection::FromVport => MeterDirection::From,
        proto::MeterDirection::ToVport => MeterDirection::To,
    };
    let no_port = |_| Error::not_found(format!("vport: there is no vport {vport}"));
    let vport = u16::try_from(vport).map_err(no_port)?;
    if request.unbind == Some(true) {
        service.unbind_meter(vport, direction, Some(meter))?;
    } else {
        service.bind_meter(&MeterBinding { vport, direction, meter })?;
    }
    Ok(done(meter))
}

fn describe(meter: MeterInfo) -> MeterGetResponse {
    let MeterInfo { spec, burst, peak_burst, bindings, rules, green, yellow, red, .. } = meter;
    let two = spec.mode != MeterMode::Single;
    let mode = match spec.mode {
        MeterMode::Single => proto::MeterMode::Single,
        MeterMode::Rfc2698 => proto::MeterMode::Rfc2698,
        MeterMode::Rfc4115 => proto::MeterMode::Rfc4115,
    };
    let binding = |binding: MeterBinding| {
        let direction = match binding.direction {
            MeterDirection::From => proto::MeterDirection::FromVport,
            MeterDirection::To => proto::MeterDirection::ToVport,
        };
        proto::MeterBinding { vport: Some(u32::from(binding.vport)), direction: Some(direction.into()) }
    };
    MeterGetResponse {
        status: Some(0),
        id: Some(spec.id),
        rate: Some(spec.rate),
        r#type: Some(u32::from(spec.kind == MeterType::Pps)),
        error: None,
        burst: Some(burst),
        mode: Some(mode.into()),
        peak_rate: spec.peak_rate,
        peak_burst: two.then_some(peak_burst),
        color_aware: two.then_some(spec.color_aware),
        yellow_dscp: spec.yellow_dscp.map(u32::from),
        bindings: bindings.into_iter().map(binding).collect(),
        rules: Some(rules),
        green_packets: Some(green.packets),
        green_bytes: Some(green.bytes),
        yellow_packets: Some(yellow.packets),
        yellow_bytes: Some(yellow.bytes),
        red_packets: Some(red.packets),
        red_bytes: Some(red.bytes),
    }
}

#[tonic::async_trait]
impl Meter for Dpu {
    async fn capability(
        &self,
        _: Request<MeterCapabilityRequest>,
    ) -> Result<Response<MeterCapabilityResponse>, Status> {
        self.answer(|service| {
            let usage = service.capability().meters;
            Ok(MeterCapabilityResponse {
                status: Some(0),
                total: Some(usage.total),
                free: Some(usage.free),
                error: None,
            })
        })
        .await
    }

    async fn add(&self, request: Request<MeterAddRequest>) -> Result<Response<MeterOpsRsp>, Status> {
        let request = request.into_inner();
        let id = request.id.or(Some(0));
        self.answer_with(move |service| add(service, &request), |answer| MeterOpsRsp { id, ..answer }).await
    }

    async fn del(&self, request: Request<MeterDelRequest>) -> Result<Response<MeterOpsRsp>, Status> {
        let id = request.into_inner().id;
        self.answer_with(
            move |service| {
                let id = required("id", id)?;
                service.del_meter(id).map(|()| done(id))
            },
            |answer| MeterOpsRsp { id: id.or(Some(0)), ..answer },
        )
        .await
    }

    async fn update(&self, request: Request<MeterUpdateRequest>) -> Result<Response<MeterOpsRsp>, Status> {
        let request = request.into_inner();
        let id = request.id.or(Some(0));
        self.answer_with(move |service| update(service, &request), |answer| MeterOpsRsp { id, ..answer }).await
    }

    async fn get(&self, request: Request<MeterGetRequest>) -> Result<Response<MeterGetResponse>, Status> {
        let id = request.into_inner().id;
        self.answer_with(
            move |service| service.meter(required("id", id)?).map(describe),
            |answer| MeterGetResponse { id: id.or(Some(0)), ..answer },
        )
        .await
    }

    async fn bind(&self, request: Request<MeterBindRequest>) -> Result<Response<MeterOpsRsp>, Status> {
        let request = request.into_inner();
        let id = request.id.or(Some(0));
        self.answer_with(move |service| bind(service, &request), |answer| MeterOpsRsp { id, ..answer }).await
    }

    async fn query(&self, request: Request<MeterQueryRequest>) -> Result<Response<MeterQueryResponse>, Status> {
        let MeterQueryRequest { from, limit } = request.into_inner();
        self.answer(move |service| {
            let page = Page { from: from.unwrap_or(0), limit: Some(limit.unwrap_or(MOST).min(MOST)) };
            let meters = service.meters(page).into_iter().map(describe).collect();
            Ok(MeterQueryResponse { status: Some(0), meters, error: None })
        })
        .await
    }
}

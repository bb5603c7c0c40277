//! Section 4 of the DPU interface document: methods for traffic rules and port switching.

use ctl_types::{Capability, Page};
use tonic::{Request, Response, Status};

use super::meter::MOST;
use super::proto::traffic_control_server::TrafficControl;
use super::proto::{
    ClassfierBatchRequest, ClassfierBatchResponse, ClassfierCapabilityRequest, ClassfierCapabilityResponse,
    ClassfierDeleteRequest, ClassfierOpsRsp, ClassfierQueryRequest, ClassfierQueryResponse, ClassfierReadRequest,
    ClassfierReadResponse, ClassfierWriteRequest, ProcSwitchQueryRequest, ProcSwitchQueryResponse, ProcSwitchRequest,
    ProcSwitchResponse,
};
use super::{Dpu, redirect, required, rule};

#[tonic::async_trait]
impl TrafficControl for Dpu {
    async fn classfier_write(
        &self,
        request: Request<ClassfierWriteRequest>,
    ) -> Result<Response<ClassfierOpsRsp>, Status> {
        let request = request.into_inner();
        let key_index = request.key_index.or(Some(0));
        self.answer_with(
            move |service| {
                let written = service.write_rule(rule::rule(&request)?)?;
                let key_index = Some(written.spec.key_index.cast_signed());
                Ok(ClassfierOpsRsp { status: Some(0), key_index, error: None })
            },
            |answer| ClassfierOpsRsp { key_index, ..answer },
        )
        .await
    }

    async fn classfier_delete(
        &self,
        request: Request<ClassfierDeleteRequest>,
    ) -> Result<Response<ClassfierOpsRsp>, Status> {
        let key_index = request.into_inner().key_index;
        self.answer_with(
            move |service| {
                service.del_rule(rule::index(required("key_index", key_index)?)?)?;
                Ok(ClassfierOpsRsp { status: Some(0), key_index, error: None })
            },
            |answer| ClassfierOpsRsp { key_index: key_index.or(Some(0)), ..answer },
        )
        .await
    }

    async fn classfier_read(
        &self,
        request: Request<ClassfierReadRequest>,
    ) -> Result<Response<ClassfierReadResponse>, Status> {
        let place = request.into_inner().key_index;
        self.answer(move |service| {
            service.rule(rule::index(required("key_index", place)?)?).map(|rule| rule::describe(&rule))
        })
        .await
    }

    async fn proc_switch(&self, request: Request<ProcSwitchRequest>) -> Result<Response<ProcSwitchResponse>, Status> {
        let request = request.into_inner();
        self.answer(move |service| redirect::set(service, &request)).await
    }

    async fn classfier_batch(
        &self,
        request: Request<ClassfierBatchRequest>,
    ) -> Result<Response<ClassfierBatchResponse>, Status> {
        let request = request.into_inner();
        self.answer(move |service| rule::batch(service, &request)).await
    }

    async fn classfier_query(
        &self,
        request: Request<ClassfierQueryRequest>,
    ) -> Result<Response<ClassfierQueryResponse>, Status> {
        let ClassfierQueryRequest { from, limit } = request.into_inner();
        self.answer(move |service| {
            let page = Page { from: from.unwrap_or(0), limit: Some(limit.unwrap_or(MOST).min(MOST)) };
            let rules = service.rules(page).iter().map(rule::describe).collect();
            Ok(ClassfierQueryResponse { status: Some(0), rules, error: None })
        })
        .await
    }

    async fn classfier_capability(
        &self,
        _: Request<ClassfierCapabilityRequest>,
    ) -> Result<Response<ClassfierCapabilityResponse>, Status> {
        self.answer(|service| {
            let Capability { rules, rule_masks, .. } = service.capability();
            let (total, free, masks) = (Some(rules.total), Some(rules.free), u32::try_from(rule_masks).ok());
            Ok(ClassfierCapabilityResponse { status: Some(0), total, free, masks, error: None })
        })
        .await
    }

    async fn proc_switch_query(
        &self,
        _: Request<ProcSwitchQueryRequest>,
    ) -> Result<Response<ProcSwitchQueryResponse>, Status> {
        self.answer(|service| Ok(redirect::list(service))).await
    }
}

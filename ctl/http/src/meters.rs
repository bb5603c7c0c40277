//! Routes for meters and their bindings to ports.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use ctl_service::Service;
use ctl_types::{ErrorBody, Page};
use serde::{Deserialize, Serialize};
use switch::model::{MeterBinding, MeterDirection, MeterInfo, MeterSpec, MeterUpdate};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Failure;
use crate::extract::{Json, Path, Query};
use crate::routes::{Answer, Shared, blocking};

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_meters, add_meter))
        .routes(routes!(show_meter, update_meter, del_meter))
        .routes(routes!(list_bindings))
        .routes(routes!(bind_meter, unbind_meter))
}

/// List meters, ordered by number.
#[utoipa::path(get, path = "/meters", params(Page), responses((status = 200, body = [MeterInfo])))]
async fn list_meters(State(service): Shared, Query(page): Query<Page>) -> Answer<Vec<MeterInfo>> {
    blocking(service, move |service| Ok(service.meters(page))).await.map(Json)
}

/// Add a meter.
#[utoipa::path(post, path = "/meters", request_body = MeterSpec, responses(
    (status = 201, body = MeterInfo),
    (status = 400, body = ErrorBody), (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn add_meter(
    State(service): Shared,
    Json(spec): Json<MeterSpec>,
) -> Result<(StatusCode, Json<MeterInfo>), Failure> {
    let meter = blocking(service, move |service| service.add_meter(spec)).await?;
    Ok((StatusCode::CREATED, Json(meter)))
}

/// Show a meter, its bindings and counters.
#[utoipa::path(get, path = "/meters/{id}", params(("id" = u32, Path)),
    responses((status = 200, body = MeterInfo), (status = 404, body = ErrorBody)))]
async fn show_meter(State(service): Shared, Path(id): Path<u32>) -> Answer<MeterInfo> {
    blocking(service, move |service| service.meter(id)).await.map(Json)
}

/// Change a meter while frames pass it. Absent fields keep their value.
#[utoipa::path(patch, path = "/meters/{id}", params(("id" = u32, Path)), request_body = MeterUpdate,
    responses((status = 200, body = MeterInfo), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn update_meter(
    State(service): Shared,
    Path(id): Path<u32>,
    Json(update): Json<MeterUpdate>,
) -> Answer<MeterInfo> {
    blocking(service, move |service| service.update_meter(id, &update)).await.map(Json)
}

/// Delete a meter that neither a port nor a rule uses.
#[utoipa::path(delete, path = "/meters/{id}", params(("id" = u32, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn del_meter(State(service): Shared, Path(id): Path<u32>) -> Result<StatusCode, Failure> {
    blocking(service, move |service| service.del_meter(id)).await.map(|()| StatusCode::NO_CONTENT)
}

/// List explicit bindings of meters to ports.
#[utoipa::path(get, path = "/meter-bindings", responses((status = 200, body = [MeterBinding])))]
async fn list_bindings(State(service): Shared) -> Answer<Vec<MeterBinding>> {
    blocking(service, |service| Ok(service.meter_bindings())).await.map(Json)
}

/// Selects a meter.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Bind {
    /// Its number.
    meter: u32,
}

/// Bind a meter to the frames from a port (`from`) or to it (`to`). Replaces the binding that is there.
#[utoipa::path(put, path = "/meter-bindings/{vport}/{direction}", request_body = Bind,
    params(("vport" = u16, Path), ("direction" = MeterDirection, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn bind_meter(
    State(service): Shared,
    Path((vport, direction)): Path<(u16, MeterDirection)>,
    Json(Bind { meter }): Json<Bind>,
) -> Result<StatusCode, Failure> {
    let binding = MeterBinding { vport, direction, meter };
    blocking(service, move |service| service.bind_meter(&binding)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Remove a binding.
#[utoipa::path(delete, path = "/meter-bindings/{vport}/{direction}",
    params(("vport" = u16, Path), ("direction" = MeterDirection, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn unbind_meter(
    State(service): Shared,
    Path((vport, direction)): Path<(u16, MeterDirection)>,
) -> Result<StatusCode, Failure> {
    let done = blocking(service, move |service| service.unbind_meter(vport, direction, None)).await;
    done.map(|()| StatusCode::NO_CONTENT)
}

//! Routes for meters, traffic rules and redirects.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use switch::model::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Path, Query};
use super::routes::{Answer, Shared, blocking};
use crate::error::{Error, ErrorBody};
use crate::service::{Capability, Page, RuleWrite, Service};

/// Longest batch of rules, in bytes. 65,536 rules with all fields fit.
const MAX_BATCH: usize = 64 << 20;

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(capability))
        .routes(routes!(list_meters, add_meter))
        .routes(routes!(show_meter, update_meter, del_meter))
        .routes(routes!(list_bindings))
        .routes(routes!(bind_meter, unbind_meter))
        .routes(routes!(list_rules, add_rule))
        .routes(routes!(show_rule, put_rule, del_rule))
        .merge(OpenApiRouter::new().routes(routes!(batch)).layer(DefaultBodyLimit::max(MAX_BATCH)))
        .routes(routes!(list_redirects))
        .routes(routes!(put_redirect, del_redirect))
}

/// Show limits for ports, meters and rules, and how many are free.
#[utoipa::path(get, path = "/capability", responses((status = 200, body = Capability)))]
async fn capability(State(service): Shared) -> Answer<Capability> {
    blocking(service, |service| Ok(service.capability())).await.map(Json)
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
) -> Result<(StatusCode, Json<MeterInfo>), Error> {
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
async fn del_meter(State(service): Shared, Path(id): Path<u32>) -> Result<StatusCode, Error> {
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
) -> Result<StatusCode, Error> {
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
) -> Result<StatusCode, Error> {
    let done = blocking(service, move |service| service.unbind_meter(vport, direction, None)).await;
    done.map(|()| StatusCode::NO_CONTENT)
}

/// List traffic rules, ordered by index.
#[utoipa::path(get, path = "/rules", params(Page), responses((status = 200, body = [RuleInfo])))]
async fn list_rules(State(service): Shared, Query(page): Query<Page>) -> Answer<Vec<RuleInfo>> {
    blocking(service, move |service| Ok(service.rules(page))).await.map(Json)
}

/// Write a rule at its index, or at the lowest free one.
#[utoipa::path(post, path = "/rules", request_body = RuleWrite, responses(
    (status = 201, body = RuleInfo),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn add_rule(State(service): Shared, Json(rule): Json<RuleWrite>) -> Result<(StatusCode, Json<RuleInfo>), Error> {
    let rule = blocking(service, move |service| service.write_rule(rule)).await?;
    Ok((StatusCode::CREATED, Json(rule)))
}

/// Show a rule and its counters.
#[utoipa::path(get, path = "/rules/{key_index}", params(("key_index" = u32, Path)),
    responses((status = 200, body = RuleInfo), (status = 404, body = ErrorBody)))]
async fn show_rule(State(service): Shared, Path(index): Path<u32>) -> Answer<RuleInfo> {
    blocking(service, move |service| service.rule(index)).await.map(Json)
}

/// Write a rule at this index.
#[utoipa::path(put, path = "/rules/{key_index}", params(("key_index" = u32, Path)), request_body = RuleWrite,
    responses((status = 200, body = RuleInfo), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn put_rule(State(service): Shared, Path(index): Path<u32>, Json(rule): Json<RuleWrite>) -> Answer<RuleInfo> {
    if let Some(other) = rule.key_index.filter(|other| *other != index) {
        return Err(Error::invalid(format!("key_index: the path says {index} and the rule {other}")));
    }
    let rule = RuleWrite { key_index: Some(index), ..rule };
    blocking(service, move |service| service.write_rule(rule)).await.map(Json)
}

/// Delete a rule.
#[utoipa::path(delete, path = "/rules/{key_index}", params(("key_index" = u32, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn del_rule(State(service): Shared, Path(index): Path<u32>) -> Result<StatusCode, Error> {
    blocking(service, move |service| service.del_rule(index)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Change any number of rules at once. No packet sees only a part of the changes.
#[utoipa::path(post, path = "/rules/batch", request_body = Vec<RuleChange>,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn batch(State(service): Shared, Json(changes): Json<Vec<RuleChange>>) -> Result<StatusCode, Error> {
    blocking(service, move |service| service.change_rules(changes)).await.map(|()| StatusCode::NO_CONTENT)
}

/// List redirects, ordered by their source port.
#[utoipa::path(get, path = "/redirects", responses((status = 200, body = [RedirectInfo])))]
async fn list_redirects(State(service): Shared) -> Answer<Vec<RedirectInfo>> {
    blocking(service, |service| Ok(service.redirects())).await.map(Json)
}

/// Target of a redirect.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Redirect {
    /// Number of the port that gets the frames.
    dest: u16,
}

/// Redirect frames for port `src` to another port.
#[utoipa::path(put, path = "/redirects/{src}", params(("src" = u16, Path)), request_body = Redirect,
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn put_redirect(
    State(service): Shared,
    Path(src): Path<u16>,
    Json(Redirect { dest }): Json<Redirect>,
) -> Result<StatusCode, Error> {
    let spec = RedirectSpec { src, dest };
    blocking(service, move |service| service.redirect(spec)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Remove a redirect.
#[utoipa::path(delete, path = "/redirects/{src}", params(("src" = u16, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn del_redirect(State(service): Shared, Path(src): Path<u16>) -> Result<StatusCode, Error> {
    let undo = move |service: &Service| {
        if service.redirects().iter().all(|redirect| redirect.spec.src != src) {
            return Err(Error::not_found(format!("src: what would go to vport {src} is not redirected")));
        }
        service.redirect(RedirectSpec { src, dest: src })
    };
    blocking(service, undo).await.map(|()| StatusCode::NO_CONTENT)
}

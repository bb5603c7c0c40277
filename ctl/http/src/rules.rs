//! Routes for traffic rules.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use ctl_service::{Error, Service};
use ctl_types::{ErrorBody, Page, RuleWrite};
use switch::model::{RuleChange, RuleInfo};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Failure;
use crate::extract::{Json, Path, Query};
use crate::routes::{Answer, Shared, blocking};

/// Longest batch of rules, in bytes. 65,536 rules with all fields fit.
const MAX_BATCH: usize = 64 << 20;

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_rules, add_rule))
        .routes(routes!(show_rule, put_rule, del_rule))
        .merge(OpenApiRouter::new().routes(routes!(batch)).layer(DefaultBodyLimit::max(MAX_BATCH)))
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
async fn add_rule(
    State(service): Shared,
    Json(rule): Json<RuleWrite>,
) -> Result<(StatusCode, Json<RuleInfo>), Failure> {
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
        return Err(Error::invalid(format!("key_index: the path says {index} and the rule {other}")).into());
    }
    let rule = RuleWrite { key_index: Some(index), ..rule };
    blocking(service, move |service| service.write_rule(rule)).await.map(Json)
}

/// Delete a rule.
#[utoipa::path(delete, path = "/rules/{key_index}", params(("key_index" = u32, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn del_rule(State(service): Shared, Path(index): Path<u32>) -> Result<StatusCode, Failure> {
    blocking(service, move |service| service.del_rule(index)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Change any number of rules at once. No packet sees only a part of the changes.
#[utoipa::path(post, path = "/rules/batch", request_body = Vec<RuleChange>,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn batch(State(service): Shared, Json(changes): Json<Vec<RuleChange>>) -> Result<StatusCode, Failure> {
    blocking(service, move |service| service.change_rules(changes)).await.map(|()| StatusCode::NO_CONTENT)
}

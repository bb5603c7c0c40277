//! Routes for the configuration as a whole: export, compare, apply.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use ctl_service::Service;
use ctl_types::{ConfigChanges, ConfigRequest, ErrorBody, SwitchConfig};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::Json;
use crate::routes::{Answer, Shared, blocking};

/// Longest configuration, in bytes. 65,536 rules with all fields fit.
const MAX_CONFIG: usize = 64 << 20;

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    let large = OpenApiRouter::new().routes(routes!(diff)).routes(routes!(apply));
    OpenApiRouter::new().routes(routes!(show)).merge(large.layer(DefaultBodyLimit::max(MAX_CONFIG)))
}

/// Show ports and tables as a configuration that makes the same switch.
#[utoipa::path(get, path = "/config", responses((status = 200, body = SwitchConfig)))]
async fn show(State(service): Shared) -> Answer<SwitchConfig> {
    blocking(service, |service| Ok(service.config())).await.map(Json)
}

/// Show what a configuration would change. Changes nothing.
#[utoipa::path(post, path = "/config/diff", request_body = ConfigRequest, responses(
    (status = 200, body = ConfigChanges),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn diff(State(service): Shared, Json(request): Json<ConfigRequest>) -> Answer<ConfigChanges> {
    blocking(service, move |service| service.diff_config(&request)).await.map(Json)
}

/// Make the switch what a configuration says, in full or not at all.
#[utoipa::path(post, path = "/config/apply", request_body = ConfigRequest, responses(
    (status = 200, body = ConfigChanges),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn apply(State(service): Shared, Json(request): Json<ConfigRequest>) -> Answer<ConfigChanges> {
    blocking(service, move |service| service.apply_config(&request)).await.map(Json)
}

//! Routes for optical ports.

use std::sync::Arc;

use axum::extract::State;
use ctl_service::Service;
use ctl_types::{ErrorBody, LinkUpdate};
use switch::model::{LinkInfo, LinkStats};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::{Json, Path};
use crate::routes::{Answer, Shared, blocking};

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_links))
        .routes(routes!(show_link, update_link))
        .routes(routes!(all_link_stats))
        .routes(routes!(link_stats))
}

/// List optical ports, by number: all configured `phy` ports.
#[utoipa::path(get, path = "/links", responses((status = 200, body = [LinkInfo])))]
async fn list_links(State(service): Shared) -> Answer<Vec<LinkInfo>> {
    blocking(service, Service::links).await.map(Json)
}

/// Show an optical port, by the name or number of its port.
#[utoipa::path(get, path = "/links/{port}", params(("port" = String, Path)),
    responses((status = 200, body = LinkInfo), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn show_link(State(service): Shared, Path(port): Path<String>) -> Answer<LinkInfo> {
    blocking(service, move |service| service.link(&port)).await.map(Json)
}

/// Change an optical port. Absent fields keep their value.
#[utoipa::path(patch, path = "/links/{port}", params(("port" = String, Path)), request_body = LinkUpdate,
    responses((status = 200, body = LinkInfo), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn update_link(
    State(service): Shared,
    Path(port): Path<String>,
    Json(update): Json<LinkUpdate>,
) -> Answer<LinkInfo> {
    blocking(service, move |service| service.update_link(&port, update)).await.map(Json)
}

/// Counters of all optical ports that are up.
#[utoipa::path(get, path = "/link-stats", responses((status = 200, body = [LinkStats])))]
async fn all_link_stats(State(service): Shared) -> Answer<Vec<LinkStats>> {
    blocking(service, |service| service.link_stats(None)).await.map(Json)
}

/// Counters of an optical port, by the name or number of its port.
#[utoipa::path(get, path = "/link-stats/{port}", params(("port" = String, Path)),
    responses((status = 200, body = [LinkStats]), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn link_stats(State(service): Shared, Path(port): Path<String>) -> Answer<Vec<LinkStats>> {
    blocking(service, move |service| service.link_stats(Some(&port))).await.map(Json)
}

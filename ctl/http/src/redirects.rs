//! Routes for redirects.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use ctl_service::{Error, Service};
use ctl_types::ErrorBody;
use serde::{Deserialize, Serialize};
use switch::model::{RedirectInfo, RedirectSpec};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Failure;
use crate::extract::{Json, Path};
use crate::routes::{Answer, Shared, blocking};

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(list_redirects)).routes(routes!(put_redirect, del_redirect))
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
) -> Result<StatusCode, Failure> {
    let spec = RedirectSpec { src, dest };
    blocking(service, move |service| service.redirect(spec)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Remove a redirect.
#[utoipa::path(delete, path = "/redirects/{src}", params(("src" = u16, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn del_redirect(State(service): Shared, Path(src): Path<u16>) -> Result<StatusCode, Failure> {
    let undo = move |service: &Service| {
        if service.redirects().iter().all(|redirect| redirect.spec.src != src) {
            return Err(Error::not_found(format!("src: what would go to vport {src} is not redirected")));
        }
        service.redirect(RedirectSpec { src, dest: src })
    };
    blocking(service, undo).await.map(|()| StatusCode::NO_CONTENT)
}

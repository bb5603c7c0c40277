//! The HTTP API: JSON on a Unix socket, with the service's methods under `/api/v1`.
//!
//! A handler parses the request, calls the service on a thread that may block, and builds the answer. A request that
//! can't be parsed gets a 400 that says where. An error of the service gets the HTTP status of its kind. The body of an
//! error is an [`ErrorBody`]. The OpenAPI document is generated from the handlers.
//!
//! Each table has a module with its routes. The daemon serves the API, and nothing else depends on this crate.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]
#![forbid(unsafe_code)]

mod bonds;
mod capture;
mod config;
mod configuration;
mod disks;
mod extract;
mod links;
mod meters;
mod pcapng;
mod redirects;
mod routes;
mod rules;
mod spp;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ctl_service::{Error, Service};
use ctl_spp::Spp;
use ctl_types::ErrorBody;
use switch::ErrorKind;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use self::config::ApiConfig;

/// Longest request body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// General information in the OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "xswitch",
        description = "Management of an AF_XDP switch for virtual machines. Served on the Unix socket \
                                           `api.sock` in the daemon's run directory."
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// All routes, without the API's prefix.
fn all(spp: Arc<Spp>) -> OpenApiRouter<Arc<Service>> {
    let tables = meters::all().merge(rules::all()).merge(redirects::all()).merge(disks::all()).merge(links::all());
    let tables = tables.merge(bonds::all());
    routes::all().merge(tables).merge(configuration::all()).merge(spp::all().with_state(spp))
}

/// All routes.
pub fn router(service: Arc<Service>, spp: Arc<Spp>) -> Router {
    let (router, document) =
        OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", all(spp)).split_for_parts();
    let document = Arc::new(document);
    router
        .route("/api/v1/openapi.json", get(move || async move { axum::Json((*document).clone()) }))
        .fallback(|| async { error_response(StatusCode::NOT_FOUND, ErrorKind::NotFound, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            error_response(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorKind::Unsupported,
                "this path does not take that method",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(service)
}

fn error_response(status: StatusCode, kind: ErrorKind, text: impl Into<String>) -> Response {
    (status, axum::Json(ErrorBody::new(kind, text))).into_response()
}

/// An error of the service, as an answer.
#[derive(Debug)]
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Exists
            | ErrorKind::Busy
            | ErrorKind::Loop
            | ErrorKind::WrongMode
            | ErrorKind::NotEmpty
            | ErrorKind::NotReady => StatusCode::CONFLICT,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        error_response(status, error.kind(), error.to_string())
    }
}

//! JSON over HTTP on a Unix socket: the service's methods under `/api/v1`.
//!
//! Handlers do three things: take the request apart, call the service on a thread that may block, put the answer together.
//! What can't be taken apart is a 400 whose text says where; an error of the service has the HTTP status of its kind, and its
//! body is an [`ErrorBody`]. The OpenAPI document is made from the same handlers.

mod capture;
mod extract;
mod routes;
mod serve;
mod spp;
mod tables;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use self::extract::BODY_TIMEOUT;
pub use self::serve::{ApiSocket, SocketFile, serve, serve_tcp};
use crate::error::{Error, ErrorBody};
use crate::service::Service;
use crate::spp::Spp;
use switch::ErrorKind;

/// Longest request body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// The document's head.
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

/// All routes.
pub fn router(service: Arc<Service>, spp: Arc<Spp>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .nest("/api/v1", routes::all().merge(tables::all()).merge(spp::all().with_state(spp)))
        .split_for_parts();
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

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Exists | ErrorKind::Busy | ErrorKind::Loop => StatusCode::CONFLICT,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        error_response(status, self.kind(), self.to_string())
    }
}

//! spp-ctl's REST API: paths, bodies, codes and answers as its clients know them. The form is that of 2020. Paths and
//! bodies of 2018 are taken too.
//!
//! - GET answers 200 with JSON.
//! - A change answers 204 without a body. A change of flow rules answers 200 with JSON that has the result.
//! - A refusal is `text/plain`: 400 for a request that can't be read or carried out, 404 for an unknown path or
//!   process, 500 if the switch failed.
//!
//! A body is read as JSON, whatever its content type. Calls to [`Spp`] run on blocking threads.
//!
//! Only the daemon depends on this crate.
#![forbid(unsafe_code)]

mod body;
pub mod cpu;
mod flow;
mod instances;
mod launch;
mod origin;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, OriginalUri, Request};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use ctl_listen::{BODY_TIMEOUT, serve_tcp};
use ctl_spp::{Spp, SppError};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::body::Body;
use self::origin::Names;

/// Longest request body, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// Requests that are worked on at once. The others wait here, and leave threads to the rest of the daemon.
static WORK: Semaphore = Semaphore::const_new(4);

/// All routes.
pub fn router(spp: Arc<Spp>) -> Router {
    let names = Names::new(&spp.config().hosts);
    let v1 = instances::routes().merge(flow::routes()).merge(cpu::routes());
    Router::new()
        .nest("/v1", v1)
        .fallback(|OriginalUri(uri): OriginalUri| async move { Refusal::unknown(uri.path()) })
        .method_not_allowed_fallback(|| async { Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(names, origin::check))
        .with_state(spp)
}

/// Serves the API until `stop` is true.
pub async fn serve(listener: TcpListener, spp: Arc<Spp>, stop: watch::Receiver<bool>) {
    serve_tcp(listener, router(spp), stop).await;
}

/// A refusal: the code, and the reason as text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    fn too_long() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {MAX_BODY} bytes"))
    }

    fn unknown(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("Not found: '{}'", path.escape_default()))
    }
}

impl From<SppError> for Refusal {
    fn from(error: SppError) -> Self {
        match error {
            SppError::NotFound(text) => Self::new(StatusCode::NOT_FOUND, text),
            // spp-ctl answers this when the process that it asked refuses.
            SppError::Absent(text) | SppError::Refused(text) => {
                Self::new(StatusCode::BAD_REQUEST, format!("command error: {text}"))
            }
            SppError::System(text) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_long(),
            status => Self::new(status, rejection.body_text()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, [(header::CONTENT_TYPE, "text/plain")], self.text).into_response()
    }
}

/// The body of a request, not yet read as JSON.
#[derive(Debug)]
struct Raw(Bytes);

impl Raw {
    /// Reads the JSON.
    fn read(&self) -> Result<Body, Refusal> {
        Body::read(&self.0)
    }
}

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let declared =
            request.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|len| len > MAX_BODY as u64) {
            return Err(Refusal::too_long());
        }
        match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(bytes) => Ok(Self(bytes?)),
            Err(_) => {
                let text = format!("the body did not come within {} seconds", BODY_TIMEOUT.as_secs());
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, text))
            }
        }
    }
}

/// Runs a call on a thread that may block.
async fn blocking<T: Send + 'static>(
    spp: Arc<Spp>,
    call: impl FnOnce(&Spp) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    let permit = WORK.acquire().await.map_err(|_| failed())?;
    // A client that goes away ends the wait, not the work. So the work holds the permit.
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        call(&spp)
    });
    work.await.unwrap_or_else(|_| Err(failed()))
}

/// The answer to a change: 204, or the refusal.
fn done(result: Result<(), Refusal>) -> Response {
    result.map_or_else(IntoResponse::into_response, |()| StatusCode::NO_CONTENT.into_response())
}

/// The answer to a GET: JSON, or the refusal.
fn shown<T: Serialize>(result: Result<T, Refusal>) -> Response {
    result.map_or_else(IntoResponse::into_response, |value| axum::Json(value).into_response())
}

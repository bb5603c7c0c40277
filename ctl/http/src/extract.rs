//! Extractors of requests, with errors in the form of this API.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ctl_listen::BODY_TIMEOUT;
use serde::de::DeserializeOwned;
use switch::ErrorKind;

use super::error_response;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let body = axum::Json::from_request(request, state);
        match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(body) => Ok(Self(body?.0)),
            Err(_) => Err(Rejection {
                status: StatusCode::REQUEST_TIMEOUT,
                text: format!("the body did not come within {} seconds", BODY_TIMEOUT.as_secs()),
            }),
        }
    }
}

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A query string.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Rejection))]
pub(super) struct Query<T>(pub T);

/// A segment of the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Rejection))]
pub(super) struct Path<T>(pub T);

/// A request that could not be parsed.
#[derive(Debug)]
pub(super) struct Rejection {
    status: StatusCode,
    text: String,
}

impl From<JsonRejection> for Rejection {
    fn from(rejection: JsonRejection) -> Self {
        // axum answers a wrong type by 422 and a syntax error by 400. In this API both are 400.
        let status = match rejection.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        let hint = match &rejection {
            JsonRejection::MissingJsonContentType(_) => " (send it with `Content-Type: application/json`)",
            _ => "",
        };
        Self { status, text: format!("{}{hint}", rejection.body_text()) }
    }
}

impl From<PathRejection> for Rejection {
    fn from(rejection: PathRejection) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: rejection.body_text() }
    }
}

impl From<QueryRejection> for Rejection {
    fn from(rejection: QueryRejection) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: rejection.body_text() }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        error_response(self.status, ErrorKind::Invalid, self.text)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_not_waited_for() {
        let first = tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from_static(b"{")));
        let body = Body::from_stream(first.chain(tokio_stream::pending()));
        let request = Request::builder().header("content-type", "application/json").body(body).unwrap();
        let refused = Json::<serde_json::Value>::from_request(request, &()).await.unwrap_err();
        assert_eq!(refused.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }
}

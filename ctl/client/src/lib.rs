//! A client of the daemon: HTTP over its Unix socket, JSON in and out.
//!
//! Each request opens a connection, and runs on the caller's tokio runtime. Programs that talk to the daemon may depend
//! on this crate. The daemon does not.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ctl_types::ErrorBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::UnixStream;

/// A failure of the connection, or a refusal by the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no daemon answers at {path}: start xswitchd, or name its directory by --run-dir")]
    NoDaemon {
        /// Socket.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// This user may not use the socket.
    #[error("{path} may not be used by this user: run as root or as a member of its group")]
    Forbidden {
        /// Socket.
        path: PathBuf,
    },
    /// The connection broke, or the answer is not HTTP.
    #[error("the connection to the daemon broke")]
    Connection(#[from] hyper::Error),
    /// The answer is not JSON.
    #[error("the daemon's answer can't be read")]
    Answer(#[from] serde_json::Error),
    /// The daemon rejected the request.
    #[error("{}", .0.error)]
    Refused(ErrorBody),
}

impl ClientError {
    /// Whether no daemon is running.
    pub fn is_absent(&self) -> bool {
        matches!(self, ClientError::NoDaemon { .. })
    }
}

/// A daemon, identified by its socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon with that run directory.
    pub fn new(run_dir: &Path) -> Self {
        Self { socket: run_dir.join("api.sock") }
    }

    /// Sends a request and returns the head of the answer. An HTTP error is returned as [`ClientError::Refused`].
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            ErrorKind::PermissionDenied => ClientError::Forbidden { path: self.socket.clone() },
            _ => ClientError::NoDaemon { path: self.socket.clone(), source },
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request =
            Request::builder().method(method).uri(format!("/api/v1/{path}")).header(header::HOST, "xswitch");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        // The builder can't fail: the path consists of encoded segments, method and headers are fixed.
        let request = request.body(Full::new(body.unwrap_or_default())).unwrap_or_default();
        let response = sender.send_request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Err(ClientError::Refused(serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
            error: format!("the daemon answered {status}"),
            code: "EIO".to_owned(),
            status: libc::EIO,
        })))
    }

    async fn json(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Value, ClientError> {
        let bytes = self.request(method, path, body).await?.into_body().collect().await?.to_bytes();
        if bytes.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&bytes)?) }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::GET, path, None).await
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, ClientError> {
        self.json(Method::POST, path, Some(serde_json::to_vec(body)?.into())).await
    }

    /// PUT of a JSON body.
    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, ClientError> {
        self.json(Method::PUT, path, Some(serde_json::to_vec(body)?.into())).await
    }

    /// PATCH of a JSON body.
    pub async fn patch(&self, path: &str, body: &impl Serialize) -> Result<Value, ClientError> {
        self.json(Method::PATCH, path, Some(serde_json::to_vec(body)?.into())).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::DELETE, path, None).await
    }

    /// GET of a body that is streamed.
    pub async fn stream(&self, path: &str) -> Result<Incoming, ClientError> {
        Ok(self.request(Method::GET, path, None).await?.into_body())
    }
}

/// Percent-encodes a path segment or query value.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Builds a query string from the pairs that have a value.
pub fn query(pairs: &[(&str, Option<String>)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?)))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_path_cannot_leave_their_place() {
        assert_eq!(encode("a/b?c=d&e #%"), "a%2Fb%3Fc%3Dd%26e%20%23%25");
        assert_eq!(query(&[("port", Some("phy:0".into())), ("vlan", None)]), "?port=phy%3A0");
        assert_eq!(query(&[("vlan", None)]), "");
    }

    #[tokio::test]
    async fn a_missing_daemon_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Client::new(dir.path()).get("ports").await.unwrap_err();
        assert!(error.is_absent() && error.to_string().contains("--run-dir"), "{error}");
    }
}

//! A capture as a stream in pcapng format. Each capture has a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use ctl_service::{Error, Service};
use ctl_types::ErrorBody;
use serde::Deserialize;
use switch::model::Direction;
use switch::{CaptureRequest, CaptureStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Failure;
use super::extract::Query;
use crate::pcapng::PcapngWriter;

/// Time within which the end of the capture, or of its reader, is noticed.
const TURN: Duration = Duration::from_millis(100);
/// Chunks that wait for a slow reader. Beyond that the capture waits, and its own backlog fills.
const BACKLOG: usize = 16;

/// Query of a capture.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct CaptureQuery {
    /// Names of ports, separated by commas. Default: all.
    ports: Option<String>,
    /// `rx` or `tx`, as seen by the switch. Default: both.
    direction: Option<Direction>,
    /// Bytes to keep of each frame, 14–65535. Default: 65535.
    snaplen: Option<u32>,
    /// Number of frames after which the capture ends. Default: never.
    count: Option<u64>,
    /// Seconds after which the capture ends. Default: never.
    duration: Option<f64>,
}

/// Capture frames of ports as a stream in pcapng format. Closing the connection ends the capture.
#[utoipa::path(get, path = "/capture", params(CaptureQuery), responses(
    (status = 200, content_type = "application/x-pcapng", body = Vec<u8>),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn capture(
    State(service): State<Arc<Service>>,
    Query(query): Query<CaptureQuery>,
) -> Result<Response, Failure> {
    let ports = query.ports.iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
    let request = CaptureRequest {
        ports: ports.map(str::to_owned).collect(),
        direction: query.direction,
        snaplen: query.snaplen.unwrap_or(65_535),
    };
    let seconds = query.duration.map(Duration::try_from_secs_f64).transpose();
    let duration = seconds.map_err(|_| Error::invalid("duration: seconds, 0 or more, are expected"))?;
    let snaplen = request.snaplen;
    let keeper = Arc::clone(&service);
    let stream = super::routes::blocking(service, move |service| service.capture(request)).await?;
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(BACKLOG);
    let limits = Limits {
        count: query.count.unwrap_or(u64::MAX),
        end: duration.and_then(|duration| Instant::now().checked_add(duration)),
    };
    // A capture may run for days, so it must not occupy a thread of the pool.
    std::thread::Builder::new()
        .name("xs-capture".to_owned())
        .spawn(move || {
            if let Err(error) = pump(stream, &keeper, snaplen, limits, &sender) {
                tracing::debug!(%error, "a capture ended");
            }
        })
        .map_err(|error| Error::io("starting a capture", error))?;
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-pcapng")], body).into_response())
}

struct Limits {
    count: u64,
    end: Option<Instant>,
}

/// Moves frames to the reader until the reader, the number of frames or the time ends it.
fn pump(
    mut stream: CaptureStream,
    service: &Service,
    snaplen: u32,
    limits: Limits,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let send = |bytes: Vec<u8>| sender.blocking_send(Ok(Bytes::from(bytes))).map_err(|_| gone());
    let (mut writer, head) = PcapngWriter::new(snaplen)?;
    send(head)?;
    let mut left = limits.count;
    while left > 0 && limits.end.is_none_or(|end| Instant::now() < end) {
        if sender.is_closed() {
            return Err(gone());
        }
        let wait = limits.end.map_or(TURN, |end| TURN.min(end.saturating_duration_since(Instant::now())));
        let mut piece = Vec::new();
        // Names are looked up for each chunk, because a number may have passed to another port.
        let mut names: HashMap<u16, String> = HashMap::new();
        for frame in stream.recv(wait) {
            if left == 0 {
                break;
            }
            left -= 1;
            if names.is_empty() {
                names.extend(service.dataplane().port_names());
            }
            let name = names.entry(frame.vport).or_insert_with(|| format!("vport {}", frame.vport));
            piece.extend(writer.frame(name, &frame)?);
        }
        if !piece.is_empty() {
            send(piece)?;
        }
    }
    send(writer.finish(stream.missed())?)
}

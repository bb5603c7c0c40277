//! The DPU interface over gRPC: translates the document's messages to calls of the service and back.
//!
//! Every call succeeds for gRPC. Its outcome is in `status`, as 0 or a Linux errno, with the reason in `error`. Only a
//! message that can't be decoded is an error of gRPC.
//!
//! The document's required fields are optional here, so that an error can name a missing one. Answers always contain
//! all required fields, because strict clients reject messages without them. In a refusal they are zero.
//!
//! The daemon serves it, and nothing else depends on this crate. Calls run on threads that may block.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]
#![forbid(unsafe_code)]

mod authority;
pub mod codec;
mod config;
mod nic;
mod optical;
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod proto {
    //! The generated messages and services.
    tonic::include_proto!("dpu");

    /// Their descriptors, for reflection.
    pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dpu.bin"));
}
mod disk;
mod meter;
mod redirect;
mod rule;
mod secured;
mod stats;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ctl_listen::{ApiSocket, Deadlines, accept_tcp, accept_unix};
use ctl_service::{Error, Service};
use ctl_types::ErrorBody;
use switch::ErrorKind;
use switch::model::MacAddr;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Response, Status};

use self::authority::Tolerant;
pub use self::config::DpuConfig;
use self::proto::elastic_nic_server::ElasticNicServer;
use self::proto::eth_mac_server::EthMacServer;
use self::proto::meter_server::MeterServer;
use self::proto::port_stats_server::PortStatsServer;
use self::proto::traffic_control_server::TrafficControlServer;
use self::proto::vdisk_server::VdiskServer;
use self::secured::Secured;

/// Longest message, in bytes. A batch of 65,536 rules with all fields fits.
const MAX_MESSAGE: usize = 64 << 20;
/// Limit of simultaneous calls per connection.
const MAX_CALLS: usize = 64;
/// Time limit for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Period of HTTP/2 pings to an idle client.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Deadlines of a connection. A client that lives answers the pings, so it is never silent for so long.
const DEADLINES: Deadlines =
    Deadlines { silence: Some(Duration::from_secs(60)), stall: Duration::from_secs(30), least: 16 << 10 };

/// All six services of the interface.
#[derive(Clone, Debug)]
pub struct Dpu(Arc<Service>);

/// An answer with fields for status and reason.
pub trait Answer: Sized + Send + 'static {
    /// The answer to a refused request.
    fn refused(status: u32, error: String) -> Self;
}

macro_rules! answers {
    ($($name:ident { $($field:ident: $value:expr),* };)+) => {$(
        // Some answers have no other fields.
        #[allow(clippy::needless_update)]
        impl Answer for proto::$name {
            fn refused(status: u32, error: String) -> Self {
                Self { status: Some(status), error: Some(error), $($field: $value,)* ..Self::default() }
            }
        }
    )+};
}

answers! {
    GetPortCapabilityResponse { total_pvf_cnt: Some(0), free_pvf_cnt: Some(0) };
    PortOpsRep { vport: Some(0) };
    GetPortCfgResponse {
        enable: Some(false), max_qpair: Some(0), mtu: Some(0), mac: Some(Vec::new()), uuid: Some(String::new()),
        vport: Some(0), queue_depth: Some(0), active_qpair: Some(0)
    };
    QueryPortResponse {};
    VdiskGetPvfCapabilityResponse { total_pvf_cnt: Some(0), free_pvf_cnt: Some(0) };
    VdiskOpsRsp { pvf_id: Some(0) };
    VdiskGetPvfCfgResponse {
        pvf_id: Some(0), enable: Some(false), max_queue: Some(0), msix_num: Some(0), queue_depth: Some(0),
        sector_num: Some(0), nr_active_queue: Some(0), trans_status: Some(0), name: Some(String::new()),
        port_type: Some(0)
    };
    VdiskGetAllPvfCfgResponse {};
    VdiskSnapshotResponse { pvf_id: Some(0) };
    VdiskGetStatsResponse { pvf_id: Some(0) };
    MeterCapabilityResponse { total: Some(0), free: Some(0) };
    MeterOpsRsp { id: Some(0) };
    MeterGetResponse { id: Some(0), rate: Some(0), r#type: Some(0) };
    MeterQueryResponse {};
    ClassfierOpsRsp { key_index: Some(0) };
    ClassfierReadResponse { action: Some(rule::no_action()), mask_rule_key: Some(rule::no_key()) };
    ClassfierBatchResponse {};
    ClassfierQueryResponse {};
    ClassfierCapabilityResponse { total: Some(0), free: Some(0), masks: Some(0) };
    ProcSwitchResponse {};
    ProcSwitchQueryResponse {};
    GetPortStatsResponse {
        rx_packets: Some(0), tx_packets: Some(0), rx_bytes: Some(0), tx_bytes: Some(0), rx_drop: Some(0),
        tx_drop: Some(0), rx_error: Some(0), tx_error: Some(0), vid: Some(0)
    };
    EthMacBondSetResponse {};
    EthMacGetStatsResponse {
        ipackets: Some(0), opackets: Some(0), ibytes: Some(0), obytes: Some(0), imissed: Some(0), ierrors: Some(0),
        oerrors: Some(0), rx_nombuf: Some(0)
    };
    EthMacGetLinkResponse {
        link: Some(proto::EthLink {
            link_speed: Some(0), link_duplex: Some(false), link_autoneg: Some(false), link_status: Some(false)
        })
    };
    EthMacGetMtuResponse { mtu: Some(0), port_id: Some(0) };
    EthMacSetMtuResponse { port_id: Some(0) };
}

impl Dpu {
    /// The interface to a service.
    pub fn new(service: Arc<Service>) -> Self {
        Self(service)
    }

    /// Calls the service on a thread that may block. Turns its error into an answer.
    async fn answer<T: Answer>(
        &self,
        call: impl FnOnce(&Service) -> Result<T, Error> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        self.answer_with(call, |answer| answer).await
    }

    /// As [`Dpu::answer`]. `mark` adds the subject of the request to a refusal.
    async fn answer_with<T: Answer>(
        &self,
        call: impl FnOnce(&Service) -> Result<T, Error> + Send + 'static,
        mark: impl FnOnce(T) -> T,
    ) -> Result<Response<T>, Status> {
        let service = Arc::clone(&self.0);
        let result = tokio::task::spawn_blocking(move || call(&service))
            .await
            .map_err(|error| Status::internal(format!("a call ended early: {error}")))?;
        Ok(Response::new(result.unwrap_or_else(|error| {
            let status = ErrorBody::new(error.kind(), "").status.unsigned_abs();
            mark(T::refused(status, error.to_string()))
        })))
    }
}

/// A required field.
fn required<T>(name: &str, field: Option<T>) -> Result<T, Error> {
    field.ok_or_else(|| Error::invalid(format!("{name}: it is required and missing")))
}

/// A MAC address, which has six bytes.
fn mac(name: &str, bytes: &[u8]) -> Result<MacAddr, Error> {
    let bytes = <[u8; 6]>::try_from(bytes)
        .map_err(|_| Error::invalid(format!("{name}: it has {} bytes, a MAC address has 6", bytes.len())))?;
    Ok(MacAddr::new(bytes))
}

/// A port by its number. `name` is the field that gives the number.
fn port(name: &str, no: u32) -> Result<u16, Error> {
    u16::try_from(no).map_err(|_| Error::not_found(format!("{name}: there is no vport {no}")))
}

/// Renames fields in an error of the service to those of the document and its extensions.
fn renamed(error: Error, fields: &[(&str, &str)]) -> Error {
    let Error::Switch(inner) = &error else { return error };
    let text = inner.to_string();
    let renamed = fields.iter().find_map(|(field, name)| Some((name, text.strip_prefix(field)?)));
    match renamed {
        Some((name, rest)) => Error::Switch(switch::Error::new(inner.kind(), format!("{name}: {rest}"))),
        None => error,
    }
}

/// A port number that the switch has room for.
fn number(vport: u32, slots: u32) -> Result<u16, Error> {
    u16::try_from(vport)
        .ok()
        .filter(|_| vport < slots)
        .ok_or_else(|| Error::invalid(format!("vport: {vport} is out of range, 0 to {} are possible", slots - 1)))
}

fn unsupported<T>(what: &str) -> Result<T, Error> {
    let text = format!("{what} are not offered by this version");
    Err(Error::Switch(switch::Error::new(ErrorKind::Unsupported, text)))
}

/// Adds the services to a server.
fn router(server: &mut Server, service: &Arc<Service>) -> Result<Router, Error> {
    let failed =
        |error: tonic_reflection::server::Error| Error::io("describing the services", std::io::Error::other(error));
    let builder =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(proto::DESCRIPTOR);
    let dpu = Dpu::new(Arc::clone(service));
    macro_rules! sized {
        ($server:ident) => {
            $server::new(dpu.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
        };
    }
    Ok(server
        .add_service(builder().build_v1().map_err(failed)?)
        .add_service(builder().build_v1alpha().map_err(failed)?)
        .add_service(sized!(ElasticNicServer))
        .add_service(sized!(VdiskServer))
        .add_service(sized!(MeterServer))
        .add_service(sized!(TrafficControlServer))
        .add_service(sized!(PortStatsServer))
        .add_service(sized!(EthMacServer)))
}

fn server() -> Server {
    Server::builder().http2_keepalive_interval(Some(KEEPALIVE)).concurrency_limit_per_connection(MAX_CALLS)
}

async fn until(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn ended(result: Result<(), tonic::transport::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "a gRPC server ended");
    }
}

/// Serves on a Unix socket until `stop` says true.
///
/// # Errors
/// None in practice, because the descriptors are part of the program.
pub fn serve_unix(
    socket: ApiSocket,
    service: &Arc<Service>,
    stop: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<()>, Error> {
    let router = router(&mut server(), service)?;
    let accepted = accept_unix(socket, DEADLINES, stop.clone());
    Ok(tokio::spawn(async move {
        let incoming = ReceiverStream::new(accepted).map(|stream| std::io::Result::Ok(Tolerant::new(stream)));
        ended(router.serve_with_incoming_shutdown(incoming, until(stop)).await);
    }))
}

/// Serves on TCP until `stop` says true. Clients need a certificate signed by the configured authority.
///
/// # Errors
/// If certificates can't be read or used, or the address can't be listened on.
pub async fn serve_tcp(
    config: &DpuConfig,
    service: &Arc<Service>,
    stop: watch::Receiver<bool>,
) -> Result<Option<tokio::task::JoinHandle<()>>, Error> {
    let Some(listen) = config.listen.as_deref() else { return Ok(None) };
    let read = |name: &str, path: Option<&Path>| {
        let path = path.ok_or_else(|| Error::invalid(format!("dpu.{name}: it is needed with dpu.listen")))?;
        std::fs::read(path).map_err(|error| Error::io(format!("dpu.{name}: reading {}", path.display()), error))
    };
    let identity =
        Identity::from_pem(read("certificate", config.certificate.as_deref())?, read("key", config.key.as_deref())?);
    let authority = Certificate::from_pem(read("client_ca", config.client_ca.as_deref())?);
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority).timeout(HANDSHAKE);
    let unusable = |error: tonic::transport::Error| {
        // The error itself says "transport error" only. Its source has the reason.
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Error::invalid(format!("dpu.certificate, dpu.key, dpu.client_ca: they can't be used: {why}"))
    };
    let router = router(&mut server().tls_config(tls).map_err(unusable)?, service)?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| Error::io(format!("dpu.listen: listening on {listen}"), error))?;
    let accepted = accept_tcp(listener, DEADLINES, stop.clone());
    Ok(Some(tokio::spawn(async move {
        let incoming = ReceiverStream::new(accepted).map(|stream| std::io::Result::Ok(Secured(stream)));
        ended(router.serve_with_incoming_shutdown(incoming, until(stop)).await);
    })))
}

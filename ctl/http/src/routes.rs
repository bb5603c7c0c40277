//! Routes for ports, counters, FDB, bridge, workers, audit, doctor and version.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use ctl_qemu::check::check_port;
use ctl_service::doctor::local_checks;
use ctl_service::{Error, Service, bond_checks, vhost_checks};
use ctl_types::{BridgeUpdate, Capability, Check, ErrorBody, FdbFilter, PortEntry, PortState, Status};
use serde::{Deserialize, Serialize};
use switch::NetdevFinding;
use switch::model::*;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Failure;
use super::capture;
use super::extract::{Json, Path, Query};

pub(super) type Shared = State<Arc<Service>>;
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// All routes of the API, without its prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_ports, add_port))
        .routes(routes!(show_port, update_port, del_port))
        .routes(routes!(stats))
        .routes(routes!(list_fdb, add_fdb))
        .routes(routes!(del_fdb))
        .routes(routes!(flush_fdb))
        .routes(routes!(show_bridge, update_bridge))
        .routes(routes!(capture::capture))
        .routes(routes!(workers))
        .routes(routes!(flows))
        .routes(routes!(audit))
        .routes(routes!(doctor))
        .routes(routes!(capability))
        .routes(routes!(version))
}

/// Runs a call on a thread that may block.
pub(super) async fn blocking<S: Send + Sync + 'static, T: Send + 'static>(
    service: Arc<S>,
    call: impl FnOnce(&S) -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(move || call(&service))
        .await
        .unwrap_or_else(|error| Err(Error::io("a request ended early", std::io::Error::other(error))));
    Ok(done?)
}

/// List all configured ports.
#[utoipa::path(get, path = "/ports", responses((status = 200, body = [PortEntry])))]
async fn list_ports(State(service): Shared) -> Answer<Vec<PortEntry>> {
    blocking(service, |service| Ok(service.ports())).await.map(Json)
}

/// Add a port.
#[utoipa::path(post, path = "/ports", request_body = PortSpec, responses(
    (status = 201, body = PortEntry),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 422, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn add_port(
    State(service): Shared,
    Json(spec): Json<PortSpec>,
) -> Result<(StatusCode, Json<PortEntry>), Failure> {
    let port = blocking(service, |service| service.add_port(spec)).await?;
    Ok((StatusCode::CREATED, Json(port)))
}

/// Show a port, by name or number.
#[utoipa::path(get, path = "/ports/{port}", params(("port" = String, Path)),
    responses((status = 200, body = PortEntry), (status = 404, body = ErrorBody)))]
async fn show_port(State(service): Shared, Path(port): Path<String>) -> Answer<PortEntry> {
    blocking(service, move |service| service.port(&port)).await.map(Json)
}

/// Change a port. Absent fields keep their value.
#[utoipa::path(patch, path = "/ports/{port}", params(("port" = String, Path)), request_body = PortUpdate,
    responses((status = 200, body = PortEntry), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn update_port(
    State(service): Shared,
    Path(port): Path<String>,
    Json(update): Json<PortUpdate>,
) -> Answer<PortEntry> {
    blocking(service, move |service| service.update_port(&port, update)).await.map(Json)
}

/// Delete a port with its static FDB entries.
#[utoipa::path(delete, path = "/ports/{port}", params(("port" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn del_port(State(service): Shared, Path(port): Path<String>) -> Result<StatusCode, Failure> {
    blocking(service, move |service| service.del_port(&port)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Selects a port.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct PortQuery {
    /// Name or number. Default: all ports.
    port: Option<String>,
}

/// Show counters.
#[utoipa::path(get, path = "/stats", params(PortQuery), responses((status = 200, body = StatsReport)))]
async fn stats(State(service): Shared, Query(query): Query<PortQuery>) -> Answer<StatsReport> {
    blocking(service, move |service| service.stats(query.port.as_deref())).await.map(Json)
}

/// List FDB entries.
#[utoipa::path(get, path = "/fdb", params(FdbFilter), responses((status = 200, body = [FdbEntry])))]
async fn list_fdb(State(service): Shared, Query(filter): Query<FdbFilter>) -> Answer<Vec<FdbEntry>> {
    blocking(service, move |service| service.fdb(&filter)).await.map(Json)
}

/// Add a static FDB entry.
#[utoipa::path(post, path = "/fdb", request_body = FdbSpec,
    responses((status = 201, body = FdbSpec), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn add_fdb(State(service): Shared, Json(row): Json<FdbSpec>) -> Result<(StatusCode, Json<FdbSpec>), Failure> {
    let added = blocking(service, move |service| service.fdb_add(row)).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

/// Selects a VLAN.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct VlanQuery {
    /// VID, 0–4094. Default: 0, the untagged segment.
    vlan: u16,
}

/// Delete an FDB entry, static or learned.
#[utoipa::path(delete, path = "/fdb/{mac}", params(("mac" = String, Path), VlanQuery),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn del_fdb(
    State(service): Shared,
    Path(mac): Path<String>,
    Query(query): Query<VlanQuery>,
) -> Result<StatusCode, Failure> {
    let mac = mac.parse::<MacAddr>().map_err(|why| Error::invalid(format!("mac: {why}")))?;
    blocking(service, move |service| service.fdb_del(mac, query.vlan)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Selects what to flush.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Flush {
    /// Port, by name or number. Default: all.
    port: Option<String>,
}

/// Result of a flush.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Flushed {
    /// Number of learned entries that were flushed.
    flushed: usize,
}

/// Flush learned FDB entries.
#[utoipa::path(post, path = "/fdb/flush", request_body = Flush, responses((status = 200, body = Flushed)))]
async fn flush_fdb(State(service): Shared, Json(flush): Json<Flush>) -> Answer<Flushed> {
    let flushed = blocking(service, move |service| service.fdb_flush(flush.port.as_deref())).await?;
    Ok(Json(Flushed { flushed }))
}

/// Show the bridge settings.
#[utoipa::path(get, path = "/bridge", responses((status = 200, body = BridgeSettings)))]
async fn show_bridge(State(service): Shared) -> Answer<BridgeSettings> {
    blocking(service, |service| Ok(service.dataplane().bridge())).await.map(Json)
}

/// Change bridge settings. Absent fields keep their value.
#[utoipa::path(patch, path = "/bridge", request_body = BridgeUpdate,
    responses((status = 200, body = BridgeSettings), (status = 400, body = ErrorBody)))]
async fn update_bridge(State(service): Shared, Json(update): Json<BridgeUpdate>) -> Answer<BridgeSettings> {
    blocking(service, move |service| service.update_bridge(&update)).await.map(Json)
}

/// List the workers.
#[utoipa::path(get, path = "/workers", responses((status = 200, body = [WorkerInfo])))]
async fn workers(State(service): Shared) -> Answer<Vec<WorkerInfo>> {
    blocking(service, |service| Ok(service.dataplane().workers())).await.map(Json)
}

/// Selects flows of the flow table.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct FlowsQuery {
    /// Name of a port: only flows that come in from it, or go out of it.
    port: Option<String>,
    /// Flows to show at most. Default: 100.
    limit: Option<usize>,
}

/// Show the flow table in XDP, and the flows in it.
#[utoipa::path(get, path = "/flows", params(FlowsQuery), responses((status = 200, body = FlowTableReport)))]
async fn flows(State(service): Shared, Query(query): Query<FlowsQuery>) -> Answer<FlowTableReport> {
    blocking(service, move |service| {
        let (table, mut flows) = (service.dataplane().flow_offload(), service.dataplane().offloaded_flows());
        if let Some(port) = &query.port {
            flows.retain(|flow| flow.port == *port || flow.egress.as_ref() == Some(port));
        }
        flows.truncate(query.limit.unwrap_or(100));
        Ok(FlowTableReport { table, flows })
    })
    .await
    .map(Json)
}

/// Count the frames of packet memory by their owners.
#[utoipa::path(get, path = "/audit", responses((status = 200, body = FrameAudit)))]
async fn audit(State(service): Shared) -> Answer<FrameAudit> {
    blocking(service, |service| Ok(service.dataplane().audit())).await.map(Json)
}

/// Number of distinct rule masks above which the first packet of a flow gets noticeably expensive.
const MANY_MASKS: usize = 64;

/// Selects netdevs.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct DoctorQuery {
    /// Names of netdevs to check besides those of ports, separated by commas.
    ifnames: Option<String>,
}

/// Check the machine and the ports.
#[utoipa::path(get, path = "/doctor", params(DoctorQuery), responses((status = 200, body = [Check])))]
async fn doctor(State(service): Shared, Query(query): Query<DoctorQuery>) -> Answer<Vec<Check>> {
    blocking(service, move |service| {
        let ifnames: Vec<_> = query
            .ifnames
            .iter()
            .flat_map(|names| names.split(','))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let mut checks = local_checks(service.dataplane().settings(), &ifnames, service.disks().threads());
        checks.extend(service.disks().checks());
        checks.extend(service.upkeep().checks());
        let mut told = Vec::new();
        let stats = service.dataplane().stats();
        for port in service.ports() {
            let guest_end = check_port(&port);
            let counted = stats.ports.iter().find(|counted| counted.name == port.name);
            let vhost = vhost_checks::checks(&port, counted);
            let bond = bond_checks::checks(&port);
            let name = format!("port {}", port.name);
            told.extend(port.info.iter().flat_map(|info| info.problems.clone()).map(|text| (port.name.clone(), text)));
            match (port.error, port.info.and_then(|info| info.mode_reason)) {
                (Some(error), _) if port.state == PortState::Degraded => {
                    checks.push(Check::bad(Status::Warn, name, error, "it works again once that is mended"));
                }
                (Some(error), _) => {
                    let advice = "it is tried again when something changes, and every few seconds";
                    checks.push(Check::bad(Status::Fail, name, error, advice));
                }
                (None, Some(reason)) => checks.push(Check::bad(Status::Warn, name, "generic XDP mode", reason)),
                (None, None) => checks.push(Check::ok(name, "up")),
            }
            checks.extend(guest_end);
            checks.extend(vhost);
            checks.extend(bond);
        }
        let masks = service.dataplane().rule_masks();
        if masks > MANY_MASKS {
            let advice = "rules that mask the same bits cost one probe together: give alike rules alike masks";
            let text = format!("they have {masks} distinct masks: a new flow may cost as many probes");
            checks.push(Check::bad(Status::Warn, "traffic rules".to_owned(), text, advice));
        }
        let findings = service.dataplane().check_netdevs();
        let is_new = |finding: &NetdevFinding| !told.contains(&(finding.port.clone(), finding.message.clone()));
        checks.extend(findings.into_iter().filter(is_new).map(|finding| Check {
            name: format!("port {}", finding.port),
            status: Status::Warn,
            text: finding.message,
            advice: None,
        }));
        Ok(checks)
    })
    .await
    .map(Json)
}

/// Show limits for ports, meters, rules and disks, and how many are free.
#[utoipa::path(get, path = "/capability", responses((status = 200, body = Capability)))]
async fn capability(State(service): Shared) -> Answer<Capability> {
    blocking(service, |service| Ok(service.capability())).await.map(Json)
}

/// Show the daemon's version.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Version {
    /// Name of the program.
    name: &'static str,
    /// Its version.
    version: &'static str,
}

/// Show the daemon's version.
#[utoipa::path(get, path = "/version", responses((status = 200, body = Version)))]
async fn version() -> Json<Version> {
    Json(Version { name: "xswitchd", version: env!("CARGO_PKG_VERSION") })
}

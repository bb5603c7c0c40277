//! Routes for the Soft Patch Panel: command words, the whole state, and traces through components. spp-ctl's own REST
//! API has a server of its own.

use std::sync::Arc;

use axum::extract::State;
use ctl_spp::{Spp, shell};
use ctl_spp_types::SppState;
use ctl_types::{Check, ErrorBody, TraceRequest};
use serde::{Deserialize, Serialize};
use switch::model::TraceReport;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Json;
use super::routes::{Answer, blocking};

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Spp>> {
    OpenApiRouter::new().routes(routes!(state)).routes(routes!(command)).routes(routes!(trace)).routes(routes!(doctor))
}

/// Show instances, their configuration in force and after the next flush, components, ends and files.
#[utoipa::path(get, path = "/spp", responses((status = 200, body = SppState)))]
async fn state(State(spp): State<Arc<Spp>>) -> Answer<SppState> {
    blocking(spp, |spp| Ok(spp.state())).await.map(Json)
}

/// Check the REST API, an external spp-ctl, lcores and ports.
#[utoipa::path(get, path = "/spp/doctor", operation_id = "spp_doctor", responses((status = 200, body = [Check])))]
async fn doctor(State(spp): State<Arc<Spp>>) -> Answer<Vec<Check>> {
    blocking(spp, |spp| Ok(ctl_spp::doctor::checks(spp))).await.map(Json)
}

/// A command.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CommandLine {
    /// One line in the command words of SPP, such as `vf 1; component start fwd1 2 forward`.
    #[schema(example = "vf 1; status")]
    line: String,
}

/// Execute one line of SPP's command words.
#[utoipa::path(post, path = "/spp/commands", request_body = CommandLine, responses(
    (status = 200, body = ctl_spp_types::Answer), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn command(
    State(spp): State<Arc<Spp>>,
    Json(CommandLine { line }): Json<CommandLine>,
) -> Answer<ctl_spp_types::Answer> {
    blocking(spp, move |spp| Ok(shell::execute(spp, &line)?)).await.map(Json)
}

/// Explain what would happen to a packet.
#[utoipa::path(post, path = "/trace", request_body = TraceRequest,
    responses((status = 200, body = TraceReport), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn trace(State(spp): State<Arc<Spp>>, Json(request): Json<TraceRequest>) -> Answer<TraceReport> {
    blocking(spp, move |spp| spp.trace(&request)).await.map(Json)
}

//! Routes for bonds: the ports of kind `bond`, by themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use ctl_service::Service;
use ctl_types::{BondEntry, ErrorBody, NewBond};
use switch::model::BondUpdate;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Failure;
use crate::extract::{Json, Path};
use crate::routes::{Answer, Shared, blocking};

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new().routes(routes!(list_bonds, add_bond)).routes(routes!(show_bond, update_bond, del_bond))
}

/// List all configured bonds.
#[utoipa::path(get, path = "/bonds", responses((status = 200, body = [BondEntry])))]
async fn list_bonds(State(service): Shared) -> Answer<Vec<BondEntry>> {
    blocking(service, |service| Ok(service.bonds())).await.map(Json)
}

/// Make a bond.
#[utoipa::path(post, path = "/bonds", request_body = NewBond, responses(
    (status = 201, body = BondEntry),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 422, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn add_bond(State(service): Shared, Json(bond): Json<NewBond>) -> Result<(StatusCode, Json<BondEntry>), Failure> {
    let bond = blocking(service, |service| service.add_bond(bond)).await?;
    Ok((StatusCode::CREATED, Json(bond)))
}

/// Show a bond, by name or number of its port.
#[utoipa::path(get, path = "/bonds/{bond}", params(("bond" = String, Path)),
    responses((status = 200, body = BondEntry), (status = 404, body = ErrorBody)))]
async fn show_bond(State(service): Shared, Path(bond): Path<String>) -> Answer<BondEntry> {
    blocking(service, move |service| service.bond(&bond)).await.map(Json)
}

/// Change options and members of a bond. Absent ones stay.
#[utoipa::path(patch, path = "/bonds/{bond}", params(("bond" = String, Path)), request_body = BondUpdate,
    responses((status = 200, body = BondEntry), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 422, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn update_bond(
    State(service): Shared,
    Path(bond): Path<String>,
    Json(update): Json<BondUpdate>,
) -> Answer<BondEntry> {
    blocking(service, move |service| service.update_bond(&bond, update)).await.map(Json)
}

/// Delete a bond. Its members are the host's again.
#[utoipa::path(delete, path = "/bonds/{bond}", params(("bond" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn del_bond(State(service): Shared, Path(bond): Path<String>) -> Result<StatusCode, Failure> {
    blocking(service, move |service| service.del_bond(&bond)).await.map(|()| StatusCode::NO_CONTENT)
}

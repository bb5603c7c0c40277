//! Routes for disks.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use ctl_disks::Deletion;
use ctl_service::{Error, Service};
use ctl_types::{DiskEntry, DiskSpec, DiskStats, DiskUpdate, ErrorBody};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Failure;
use crate::extract::{Json, Path, Query};
use crate::routes::{Answer, Shared, blocking};

/// All routes, without the API's prefix.
pub(super) fn all() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(list_disks, create_disk))
        .routes(routes!(show_disk, update_disk, delete_disk))
        .routes(routes!(pause_disk))
        .routes(routes!(resume_disk))
        .routes(routes!(snapshot_disk))
        .routes(routes!(all_stats))
        .routes(routes!(stats))
}

/// List all disks, by number.
#[utoipa::path(get, path = "/disks", responses((status = 200, body = [DiskEntry])))]
async fn list_disks(State(service): Shared) -> Answer<Vec<DiskEntry>> {
    blocking(service, |service| Ok(service.disks().entries())).await.map(Json)
}

/// Make a disk. Its image is made if it is not there.
#[utoipa::path(post, path = "/disks", request_body = DiskSpec, responses(
    (status = 201, body = DiskEntry),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 507, body = ErrorBody)))]
async fn create_disk(
    State(service): Shared,
    Json(spec): Json<DiskSpec>,
) -> Result<(StatusCode, Json<DiskEntry>), Failure> {
    let disk = blocking(service, move |service| service.create_disk(&spec)).await?;
    Ok((StatusCode::CREATED, Json(disk)))
}

/// Show a disk, by name or number.
#[utoipa::path(get, path = "/disks/{disk}", params(("disk" = String, Path)),
    responses((status = 200, body = DiskEntry), (status = 404, body = ErrorBody)))]
async fn show_disk(State(service): Shared, Path(disk): Path<String>) -> Answer<DiskEntry> {
    blocking(service, move |service| service.disks().entry(&disk).map_err(Error::from)).await.map(Json)
}

/// Change a disk in operation: grow it, limit it. Absent fields keep their value.
#[utoipa::path(patch, path = "/disks/{disk}", params(("disk" = String, Path)), request_body = DiskUpdate,
    responses((status = 200, body = DiskEntry), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn update_disk(
    State(service): Shared,
    Path(disk): Path<String>,
    Json(update): Json<DiskUpdate>,
) -> Answer<DiskEntry> {
    blocking(service, move |service| service.update_disk(&disk, &update)).await.map(Json)
}

/// How a disk is deleted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct DeletionQuery {
    /// Also if a guest uses it. Default: false.
    force: bool,
    /// Its image file is deleted too. Default: false.
    delete_image: bool,
}

/// Delete a disk. Its image stays, unless `delete_image` says otherwise.
#[utoipa::path(delete, path = "/disks/{disk}", params(("disk" = String, Path), DeletionQuery),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn delete_disk(
    State(service): Shared,
    Path(disk): Path<String>,
    Query(DeletionQuery { force, delete_image }): Query<DeletionQuery>,
) -> Result<StatusCode, Failure> {
    let how = Deletion { force, image: delete_image };
    blocking(service, move |service| service.delete_disk(&disk, how)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Pause a disk. Answers when none of its requests is in work. Later ones wait, and never fail.
#[utoipa::path(post, path = "/disks/{disk}/pause", params(("disk" = String, Path)),
    responses((status = 200, body = DiskEntry), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn pause_disk(State(service): Shared, Path(disk): Path<String>) -> Answer<DiskEntry> {
    blocking(service, move |service| service.pause_disk(&disk, true)).await.map(Json)
}

/// Resume a disk.
#[utoipa::path(post, path = "/disks/{disk}/resume", params(("disk" = String, Path)),
    responses((status = 200, body = DiskEntry), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn resume_disk(State(service): Shared, Path(disk): Path<String>) -> Answer<DiskEntry> {
    blocking(service, move |service| service.pause_disk(&disk, false)).await.map(Json)
}

/// A copy of a disk.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    /// Path of the new file, in a directory for images. A name without `/` is one beside the disk's image.
    path: String,
}

/// Copy a disk as it is now to a new file, which shares its blocks. XFS and Btrfs have that.
#[utoipa::path(post, path = "/disks/{disk}/snapshot", params(("disk" = String, Path)), request_body = Snapshot,
    responses((status = 201, body = Snapshot), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 422, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn snapshot_disk(
    State(service): Shared,
    Path(disk): Path<String>,
    Json(Snapshot { path }): Json<Snapshot>,
) -> Result<(StatusCode, Json<Snapshot>), Failure> {
    let path = blocking(service, move |service| service.snapshot_disk(&disk, &path)).await?;
    Ok((StatusCode::CREATED, Json(Snapshot { path })))
}

/// Show counters of all disks, by number.
#[utoipa::path(get, path = "/disk-stats", responses((status = 200, body = [DiskStats])))]
async fn all_stats(State(service): Shared) -> Answer<Vec<DiskStats>> {
    blocking(service, |service| Ok(service.disks().stats())).await.map(Json)
}

/// Show counters of a disk, by name or number.
#[utoipa::path(get, path = "/disk-stats/{disk}", params(("disk" = String, Path)),
    responses((status = 200, body = DiskStats), (status = 404, body = ErrorBody)))]
async fn stats(State(service): Shared, Path(disk): Path<String>) -> Answer<DiskStats> {
    blocking(service, move |service| service.disks().stats_of(&disk).map_err(Error::from)).await.map(Json)
}

//! Routes of processes: status, components, ports, patches, flush and launch.

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, delete, get, on, put};
use ctl_spp::run::status;
use ctl_spp::status::{Answer, Process, Shape};
use ctl_spp::{Change, Proc, ProcType, Spp};

use super::body::{self, Body};
use super::{Raw, Refusal, blocking, done, launch, shown};

type Routes = Router<Arc<Spp>>;
/// Variables of the path: the client id, and perhaps the name of a component.
type Parts = Path<Vec<(String, String)>>;

/// All routes of processes, below `/v1`.
pub(super) fn routes() -> Routes {
    Router::new()
        .route("/processes", get(processes))
        .nest("/vfs", components(ProcType::Vf))
        .nest("/mirrors", components(ProcType::Mirror))
        .nest("/nfvs", nfvs())
        .nest("/pcaps", pcaps())
        .merge(primary())
}

async fn processes(State(spp): State<Arc<Spp>>) -> Response {
    let list = |spp: &Spp| {
        let mut procs = spp.processes();
        procs.sort_by_key(order);
        Ok(procs.iter().map(Process::from).collect::<Vec<_>>())
    };
    shown(blocking(spp, list).await)
}

/// Sort key of processes in lists: the primary, then by number. spp-ctl lists them as they came, but its documents
/// show them by number.
pub(super) fn order(proc: &Proc) -> (bool, u32) {
    (proc.kind != ProcType::Primary, proc.id)
}

/// Routes below `/vfs` and `/mirrors`.
fn components(kind: ProcType) -> Routes {
    let start = change(MethodFilter::POST, kind, move |_, body| body::start_component(kind, body));
    let stop = change(MethodFilter::DELETE, kind, |name, _| Ok(Change::StopComponent { name: name.to_owned() }));
    let port = || change(MethodFilter::PUT, kind, move |name, body| body::component_port(kind, name, body));
    let routes = instance(kind)
        .route("/{id}/components", start)
        // In 2018 the ports were at the path of the component itself.
        .route("/{id}/components/{name}", stop.merge(port()))
        .route("/{id}/components/{name}/ports", port())
        .route("/{id}/flush", flush(kind));
    match kind {
        ProcType::Vf => routes
            .route("/{id}/classifier_table", change(MethodFilter::PUT, kind, |_, body| body::classifier_table(body))),
        _ => routes,
    }
}

/// Routes below `/nfvs`.
fn nfvs() -> Routes {
    let kind = ProcType::Nfv;
    instance(kind)
        .route("/{id}/forward", change(MethodFilter::PUT, kind, |_, body| body::run(body)))
        .route("/{id}/ports", change(MethodFilter::PUT, kind, move |_, body| body::port(kind, body)))
        .route("/{id}/patches", patches(kind))
        .route("/{id}/flush", flush(kind))
}

/// Routes below `/pcaps`.
fn pcaps() -> Routes {
    let capture = change(MethodFilter::PUT, ProcType::Pcap, |_, body| body::run(body));
    instance(ProcType::Pcap).route("/{id}/capture", capture)
}

/// Routes of the primary, which has no client id. `/primary/` is taken as `/primary`.
fn primary() -> Routes {
    let kind = ProcType::Primary;
    let end =
        || delete(|State(spp): State<Arc<Spp>>| async { done(blocking(spp, |spp| Ok(spp.end(Proc::PRIMARY)?)).await) });
    let clear = |State(spp): State<Arc<Spp>>| async { done(blocking(spp, |spp| Ok(spp.clear_status()?)).await) };
    let show = |State(spp): State<Arc<Spp>>| async { shown(blocking(spp, |spp| answer(spp, Proc::PRIMARY)).await) };
    let start = |State(spp): State<Arc<Spp>>, raw: Raw| async {
        done(blocking(spp, move |spp| Ok(spp.launch_confined(&launch::read(&raw.read()?)?)?)).await)
    };
    Router::new()
        .route("/primary", end())
        .route("/primary/", end())
        .route("/primary/status", get(show).delete(clear))
        .route("/primary/launch", put(start))
        .route("/primary/forward", change(MethodFilter::PUT, kind, |_, body| body::run(body)))
        .route("/primary/ports", change(MethodFilter::PUT, kind, move |_, body| body::port(kind, body)))
        .route("/primary/patches", patches(kind))
        .route("/primary/flush", flush(kind))
}

/// PUT adds a patch, DELETE removes all.
fn patches(kind: ProcType) -> MethodRouter<Arc<Spp>> {
    let add = change(MethodFilter::PUT, kind, |_, body| body::patch(body));
    add.merge(change(MethodFilter::DELETE, kind, |_, _| Ok(Change::ResetPatches)))
}

/// GET and DELETE of an instance: its status, and its end.
fn instance(kind: ProcType) -> Routes {
    let show = move |State(spp): State<Arc<Spp>>, parts: Parts, OriginalUri(uri): OriginalUri| async move {
        shown(blocking(spp, move |spp| answer(spp, find(spp, kind, &parts, &uri)?)).await)
    };
    let end = move |State(spp): State<Arc<Spp>>, parts: Parts, OriginalUri(uri): OriginalUri| async move {
        done(blocking(spp, move |spp| Ok(spp.end(find(spp, kind, &parts, &uri)?)?)).await)
    };
    Router::new().route("/{id}", get(show).delete(end))
}

/// The status of an instance.
fn answer(spp: &Spp, proc: Proc) -> Result<Answer, Refusal> {
    Ok(Answer::of(&status(spp, proc)?, Shape::default()))
}

/// The instance that a path names. Without a client id it is the primary. It must exist.
fn find(spp: &Spp, kind: ProcType, parts: &Parts, uri: &Uri) -> Result<Proc, Refusal> {
    let Some((_, text)) = parts.first() else { return Ok(Proc::PRIMARY) };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::unknown(uri.path()));
    }
    let proc = text.parse().ok().map(|id| Proc { kind, id });
    match proc.map(|proc| spp.instance(proc)) {
        Some(instance) => Ok(instance?.proc),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, format!("sec_id {text} not found."))),
    }
}

/// A route that changes an instance. `parse` makes the change from the last variable of the path and the body.
fn change(
    method: MethodFilter,
    kind: ProcType,
    parse: impl Fn(&str, &Body) -> Result<Change, Refusal> + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<Spp>> {
    act(method, kind, move |spp, proc, name, body| Ok(spp.change(proc, &parse(name, body)?)?))
}

/// The route of `flush`: flush mode on and off, flush, and discard.
fn flush(kind: ProcType) -> MethodRouter<Arc<Spp>> {
    type Act = fn(&Spp, Proc) -> Result<(), ctl_spp::SppError>;
    const ACTIONS: [(&str, Act); 4] = [
        ("on", |spp, proc| spp.set_flush_mode(proc, true)),
        ("off", |spp, proc| spp.set_flush_mode(proc, false)),
        ("flush", Spp::flush),
        ("discard", Spp::discard),
    ];
    act(MethodFilter::PUT, kind, |spp, proc, _, body| Ok(body.word("action", &ACTIONS)?(spp, proc)?))
}

/// A route that does something to an instance. The body of a DELETE is ignored.
fn act(
    method: MethodFilter,
    kind: ProcType,
    act: impl Fn(&Spp, Proc, &str, &Body) -> Result<(), Refusal> + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<Spp>> {
    let reads = method != MethodFilter::DELETE;
    on(method, move |State(spp): State<Arc<Spp>>, parts: Parts, OriginalUri(uri): OriginalUri, raw: Raw| async move {
        let call = move |spp: &Spp| {
            let proc = find(spp, kind, &parts, &uri)?;
            let body = if reads { raw.read()? } else { Body::default() };
            act(spp, proc, parts.last().map_or("", |(_, last)| last), &body)
        };
        done(blocking(spp, call).await)
    })
}

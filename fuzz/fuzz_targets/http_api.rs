//! Fuzzes the HTTP API: arbitrary requests, over a switch on a made-up host. Each gets an answer in the API's form,
//! never a panic or a 500.
#![no_main]

use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use ctl_http::router;
use ctl_service::state::Store;
use ctl_service::{Declared, Service};
use ctl_spp::{Spp, SppConfig, VhostConfig};
use http_body_util::BodyExt;
use kit::{machine_for, start, tables};
use libfuzzer_sys::fuzz_target;
use tower::ServiceExt;

const METHODS: [&str; 5] = ["GET", "POST", "PATCH", "DELETE", "PUT"];
const PATHS: [&str; 18] = [
    "ports",
    "ports/vm1",
    "stats",
    "fdb",
    "fdb/02:00:00:00:00:01",
    "fdb/flush",
    "bridge",
    "config",
    "config/apply",
    "config/diff",
    "trace",
    "workers",
    "audit",
    "version",
    "openapi.json",
    "spp",
    "spp/commands",
    "",
];

struct Api {
    runtime: tokio::runtime::Runtime,
    router: Router,
    /// Requests so far. Configuration piles up, so everything starts anew from time to time.
    requests: u32,
    _dir: tempfile::TempDir,
}

impl Api {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path(), tables()).expect("a store");
        let service = Service::start(start(&machine_for(&[])), store, &Declared::default()).expect("a service");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let vhost = VhostConfig { directory: dir.path().to_owned(), ..VhostConfig::default() };
        let spp = SppConfig { directory: dir.path().to_owned(), vhost, ..SppConfig::default() };
        let spp = Spp::start(Arc::clone(&service), &spp);
        Self { runtime, router: router(service, spp), requests: 0, _dir: dir }
    }
}

static API: LazyLock<Mutex<Api>> = LazyLock::new(|| Mutex::new(Api::new()));

fuzz_target!(|data: &[u8]| {
    // The input is: method, path, rest of the path up to a zero byte, body.
    let [method, path, rest @ ..] = data else { return };
    let (more, body) = rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(0));
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let path = PATHS[usize::from(*path) % PATHS.len()];
    let uri = format!("/api/v1/{path}{}", String::from_utf8_lossy(more));
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    let Ok(request) = request.body(Body::from(body.strip_prefix(&[0]).unwrap_or(body).to_vec())) else { return };
    let mut api = API.lock().expect("no request panicked");
    api.requests += 1;
    if api.requests > 2000 {
        *api = Api::new();
    }
    let router = api.router.clone();
    let (status, bytes) = api.runtime.block_on(async move {
        let response = router.oneshot(request).await.expect("the router always answers");
        (response.status().as_u16(), response.into_body().collect().await.expect("a body").to_bytes())
    });
    assert!(status < 500, "{status}: {}", String::from_utf8_lossy(&bytes));
    if status >= 400 {
        let error: serde_json::Value = serde_json::from_slice(&bytes).expect("an error is JSON");
        assert!(error["error"].is_string() && error["status"].is_number(), "{error}");
    }
});

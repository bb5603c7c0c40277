//! Fuzzes spp-ctl's REST API: several arbitrary requests, over a switch on a made-up host. Each gets an answer with a
//! code, in the form that its clients know, never a panic or a 500. A refused request changes nothing.
#![no_main]

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use ctl_spp::Spp;
use http_body_util::BodyExt;
use kit::{ALL_TYPES, FakeStorage, own_directory, panel, with_queues};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tower::ServiceExt;

const METHODS: [&str; 4] = ["PUT", "POST", "DELETE", "GET"];
const PATHS: [&str; 24] = [
    "processes",
    "cpu_usage",
    "vfs/1",
    "vfs/1/components",
    "vfs/1/components/a",
    "vfs/1/components/a/ports",
    "vfs/1/classifier_table",
    "vfs/1/flush",
    "nfvs/2",
    "nfvs/2/forward",
    "nfvs/2/ports",
    "nfvs/2/patches",
    "mirrors/3/components",
    "mirrors/3/components/a/ports",
    "pcaps/4/capture",
    "primary",
    "primary/status",
    "primary/launch",
    "primary/ports",
    "primary/patches",
    "primary/flow_rules/port_id/0",
    "primary/flow_rules/port_id/0/validate",
    "primary/flow_rules/0/port_id/0",
    "",
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

fn spp() -> Arc<Spp> {
    panel(&format!("{}{}", with_queues(ALL_TYPES, 4), own_directory()), FakeStorage::default().store()).2
}

async fn call(router: &Router, method: &str, path: &str, body: &[u8]) -> Option<(u16, String, Vec<u8>)> {
    let request = Request::builder().method(method).uri(format!("/v1/{path}"));
    let response = router.clone().oneshot(request.body(Body::from(body.to_vec())).ok()?).await.expect("an answer");
    let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().expect("text").to_owned());
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes().to_vec();
    Some((status, kind.unwrap_or_default(), body))
}

fuzz_target!(|data: &[u8]| {
    let spp = spp();
    let router = ctl_spp_rest::router(Arc::clone(&spp));
    let mut before = spp.instances();
    // The input repeats: method, path, length of the body, body. The first path is free and ends with a zero byte.
    let mut rest = data;
    while let [method, path, len, tail @ ..] = rest {
        let (body, next) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = next;
        let method = METHODS[usize::from(*method) % METHODS.len()];
        let (path, body) = match PATHS[usize::from(*path) % PATHS.len()] {
            "" => {
                let (path, body) = body.split_at(body.iter().position(|byte| *byte == 0).unwrap_or(body.len()));
                (String::from_utf8_lossy(path).into_owned(), body)
            }
            path => (path.to_owned(), body),
        };
        let Some((status, kind, said)) = RUNTIME.block_on(call(&router, method, &path, body)) else { continue };
        match status {
            200 => assert!(kind == "application/json" && serde_json::from_slice::<serde_json::Value>(&said).is_ok()),
            204 => assert!(said.is_empty()),
            400 | 404 | 405 => {
                assert!(kind.starts_with("text/plain") && !said.is_empty(), "{method} {path}: {kind}");
                assert_eq!(spp.instances(), before, "{method} {path}: {}", String::from_utf8_lossy(&said));
            }
            status => panic!("{status}: {method} {path}: {}", String::from_utf8_lossy(&said)),
        }
        before = spp.instances();
    }
});

//! Instances behind the API on a made-up host, and a client.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use ctl_service::Service;
use ctl_spp::Spp;
use http_body_util::BodyExt;
pub use kit::reference::process;
use kit::reference::{self, ports};
use kit::{Config, FakeHost, FakeStorage, machine_for, start};
use serde_json::Value;
use tower::ServiceExt;

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub struct Rig {
    pub spp: Arc<Spp>,
    pub router: Router,
    host: FakeHost,
    storage: FakeStorage,
    config: String,
}

impl Rig {
    /// A rig with the ports of the references, and these instances.
    pub fn new(instances: &str) -> Self {
        Self::configured(&format!("{instances}{}", ports(1)))
    }

    /// The same with NICs of four queues.
    pub fn with_queues(instances: &str) -> Self {
        Self::configured(&format!("{instances}{}", ports(4)))
    }

    /// A rig with a whole configuration.
    pub fn configured(config: &str) -> Self {
        let ports = Config::parse(config).unwrap().port;
        Self::over(machine_for(&ports), FakeStorage::default(), config.to_owned())
    }

    fn over(host: FakeHost, storage: FakeStorage, config: String) -> Self {
        let parsed = Config::parse(&config).unwrap();
        let service = Service::start(start(&host), storage.store(), &parsed.declared()).unwrap();
        let spp = Spp::start(service, &parsed.spp);
        Self { router: ctl_spp_rest::router(Arc::clone(&spp)), spp, host, storage, config }
    }

    /// A new daemon on the same state file.
    pub fn restart(self) -> Self {
        let Self { spp, router, host, storage, config } = self;
        drop((spp, router));
        Self::over(host, storage, config)
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.with_type(None, method, path, body.as_bytes().to_vec()).await
    }

    pub async fn with_type(&self, content_type: Option<&str>, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status, content_type: content_type.unwrap_or_default(), text }
    }

    /// A GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, "").await;
        assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"), "GET {path}: {answer:?}");
        answer.json()
    }

    /// A change that must succeed. `line` is method, path and body.
    pub async fn ok(&self, line: &str) {
        let (method, path, body) = reference::parts(line);
        let answer = self.call(method, path, body).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{line}: {answer:?}");
    }

    /// A refusal with this code and text. `line` is method, path and body.
    pub async fn refused(&self, line: &str, status: u16, text: &str) {
        let (method, path, body) = reference::parts(line);
        let answer = self.call(method, path, body).await;
        assert_eq!((answer.status, answer.content_type.as_str()), (status, "text/plain"), "{line}: {answer:?}");
        assert_eq!(answer.text, text, "{line}");
    }

    /// The answers to all GETs, by path.
    pub async fn all(&self) -> Vec<(String, Answer)> {
        let mut all = Vec::new();
        for process in self.get("/v1/processes").await.as_array().unwrap() {
            let path = match process["type"].as_str().unwrap() {
                "primary" => "/v1/primary/status".to_owned(),
                kind => format!("/v1/{kind}s/{}", process["client-id"]),
            };
            let answer = self.call("GET", &path, "").await;
            all.push((path, answer));
        }
        all
    }
}

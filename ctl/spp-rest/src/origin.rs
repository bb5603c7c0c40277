//! Keeps web pages from using the API through a browser that can reach it. The API has no passwords.
//!
//! With a request that changes something, a browser sends `Origin`: the server of the page. It must be this server,
//! which has no pages. DNS rebinding gets around that: somebody makes a name point here, and the origins agree. Such
//! requests have the foreign name in `Host`, so that is checked too.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Refusal;

/// Names of this server. IP addresses and `localhost` need not be listed.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<[String]>);

impl Names {
    /// The configured names, and the machine's.
    pub(super) fn new(configured: &[String]) -> Self {
        let own = nix::sys::utsname::uname().ok().and_then(|uname| Some(uname.nodename().to_str()?.to_owned()));
        Self(configured.iter().cloned().chain(own).collect())
    }

    fn has(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        address.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// Whether a request may be answered. One without a host is allowed: it is HTTP/1.0, which no browser speaks.
    fn allow(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), String> {
        let mut hosts: Vec<&str> = uri.authority().map(Authority::as_str).into_iter().collect();
        for host in headers.get_all(HOST) {
            hosts.push(host.to_str().map_err(|_| "the host is no name".to_owned())?);
        }
        for host in hosts.iter().filter(|host| !host.is_empty()) {
            let name = host.parse::<Authority>().map_err(|_| "the host is no name".to_owned())?;
            if !self.has(name.host()) {
                let name = name.host();
                return Err(format!(
                    "`{name}` is not known as a name of this server: hosts in [spp] of its configuration has them"
                ));
            }
        }
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.as_bytes().strip_prefix(b"http://");
            if !origin.is_some_and(|origin| hosts.iter().any(|host| origin.eq_ignore_ascii_case(host.as_bytes()))) {
                return Err("a page of another server asks".to_owned());
            }
        }
        Ok(())
    }
}

/// Answers 403 to requests that a browser makes for a foreign page.
pub(super) async fn check(State(names): State<Names>, request: Request, next: Next) -> Response {
    match names.allow(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(why) => Refusal::new(StatusCode::FORBIDDEN, format!("Forbidden: {why}.")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(uri: &str, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Names(Arc::from(["Switch.example".to_owned()])).allow(&map, &uri.parse().unwrap()).is_ok()
    }

    #[test]
    fn clients_call_the_server_by_its_names_and_addresses() {
        assert!(allow("/", &[]));
        for host in [
            "",
            "127.0.0.1:7777",
            "localhost",
            "LocalHost:7777",
            "localhost.",
            "192.0.2.7:80",
            "[::1]:7777",
            "switch.example",
        ] {
            assert!(allow("/", &[("host", host)]), "{host}");
            assert!(allow("/", &[("host", host), ("user-agent", "curl/8.0"), ("accept", "*/*")]), "{host}");
        }
        assert!(allow("http://localhost:7777/v1/processes", &[("host", "localhost:7777")]));
    }

    #[test]
    fn a_name_that_somebody_else_made_point_here_is_none_of_its_own() {
        for host in [
            "evil.example",
            "evil.example:7777",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "0x7f.1",
            "user@evil.example",
        ] {
            assert!(!allow("/", &[("host", host)]), "{host}");
            assert!(!allow("/", &[("host", "localhost"), ("host", host)]), "{host}");
            assert!(!allow(&format!("http://{host}/"), &[("host", "localhost")]), "{host}");
        }
        assert!(!allow("/", &[("host", "a b")]));
    }

    #[test]
    fn pages_of_other_servers_are_refused() {
        let asks = |host, origin| allow("/", &[("host", host), ("origin", origin)]);
        assert!(asks("localhost:7777", "http://localhost:7777"));
        for origin in [
            "null",
            "",
            "http://evil.example",
            "https://localhost:7777",
            "http://localhost:80",
            "http://localhost",
            "file://",
        ] {
            assert!(!asks("localhost:7777", origin), "{origin}");
        }
        assert!(!asks("evil.example", "http://evil.example"));
    }
}

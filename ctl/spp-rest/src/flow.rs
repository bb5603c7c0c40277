//! Routes of the primary's flow rules.
//!
//! As with spp-ctl, a rule that can't be made is answered with 200, and `result` says so. A malformed body is a 400.

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Path, State};
use axum::http::Uri;
use axum::routing::{MethodRouter, delete, post};
use ctl_spp::flow::line::Told;
use ctl_spp::flow::{Rule, parse};
use ctl_spp::{Proc, Spp, SppError};
use model::FlowDirection;
use serde_json::Value;

use super::body::{Body, invalid, required};
use super::{Raw, Refusal, blocking, shown};

pub(super) fn routes() -> Router<Arc<Spp>> {
    let mut routes = Router::new();
    // SPP's documents have both paths.
    for prefix in ["/primary/flow_rules", "/primary/flow_rule"] {
        routes = routes
            .route(&format!("{prefix}/port_id/{{port}}/validate"), validate())
            .route(&format!("{prefix}/port_id/{{port}}"), create().merge(destroy()))
            .route(&format!("{prefix}/{{rule}}/port_id/{{port}}"), destroy());
    }
    routes
}

/// Turns a refusal into an answer. Other errors keep their codes: there is no primary, or the switch failed.
fn told(result: Result<Told, SppError>, verb: &str) -> Result<Told, Refusal> {
    match result {
        Err(SppError::Refused(why)) => Ok(Told::error(verb, &why)),
        result => Ok(result?),
    }
}

/// Variables of the path: the rule, if there is one, and the port. Both are numbers.
type Numbers = Path<Vec<(String, String)>>;

fn numbers(parts: &Numbers, uri: &Uri) -> Result<Vec<u32>, Refusal> {
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let numbers: Option<_> = parts.iter().map(|(_, text)| number(text)).collect();
    numbers.ok_or_else(|| Refusal::unknown(uri.path()))
}

/// The port is the last variable of each path.
fn port(parts: &Numbers, uri: &Uri) -> Result<u32, Refusal> {
    numbers(parts, uri)?.last().copied().ok_or_else(|| Refusal::unknown(uri.path()))
}

/// POST: checks a rule without making it.
fn validate() -> MethodRouter<Arc<Spp>> {
    post(|State(spp): State<Arc<Spp>>, parts: Numbers, OriginalUri(uri): OriginalUri, raw: Raw| async move {
        let call = move |spp: &Spp| {
            let (port, request) = (port(&parts, &uri)?, Request::read(&raw.read()?)?);
            spp.instance(Proc::PRIMARY)?;
            let checked = request.rule().and_then(|rule| spp.check_flow_rule(port, &rule));
            told(checked.map(|()| Told::validated()), "validate")
        };
        shown(blocking(spp, call).await)
    })
}

/// POST: makes a rule.
fn create() -> MethodRouter<Arc<Spp>> {
    post(|State(spp): State<Arc<Spp>>, parts: Numbers, OriginalUri(uri): OriginalUri, raw: Raw| async move {
        let call = move |spp: &Spp| {
            let (port, request) = (port(&parts, &uri)?, Request::read(&raw.read()?)?);
            spp.instance(Proc::PRIMARY)?;
            let made = request.rule().and_then(|rule| spp.add_flow_rule(port, rule));
            told(made.map(Told::created), "create")
        };
        shown(blocking(spp, call).await)
    })
}

/// DELETE: deletes the rule that the path names, or all rules of the port.
fn destroy() -> MethodRouter<Arc<Spp>> {
    delete(|State(spp): State<Arc<Spp>>, parts: Numbers, OriginalUri(uri): OriginalUri| async move {
        let call = move |spp: &Spp| -> Result<Told, Refusal> {
            let port = port(&parts, &uri)?;
            let rule = numbers(&parts, &uri)?.first().copied().filter(|_| parts.len() > 1);
            told(spp.del_flow_rules(port, rule).map(|()| Told::destroyed(rule)), "destroy")
        };
        shown(blocking(spp, call).await)
    })
}

/// The rule of a request, before its pattern and actions are read.
#[derive(Debug)]
struct Request {
    direction: FlowDirection,
    group: u32,
    priority: u32,
    transfer: bool,
    pattern: Vec<String>,
    actions: Vec<String>,
}

impl Request {
    /// Reads a body. Attributes may be missing, except for the direction.
    fn read(body: &Body) -> Result<Self, Refusal> {
        let rule = body.need("rule")?;
        let rule = Body::of(rule.as_object().ok_or_else(|| invalid("rule", rule))?);
        let optional = |key: &str| match rule.get(key) {
            Some(value) => {
                value.as_u64().and_then(|number| u32::try_from(number).ok()).ok_or_else(|| invalid(key, value))
            }
            None => Ok(0),
        };
        let (group, priority) = (optional("group")?, optional("priority")?);
        let directions = [("ingress", FlowDirection::Ingress), ("egress", FlowDirection::Egress)];
        let direction = rule.word("direction", &directions)?;
        let transfer = match rule.get("transfer") {
            Some(value) => value.as_bool().ok_or_else(|| invalid("transfer", value))?,
            None => false,
        };
        let texts = |key: &str| {
            let value = rule.get(key).ok_or_else(|| required(key))?;
            let text = |text: &Value| text.as_str().map(str::to_owned);
            let texts = value.as_array().and_then(|list| list.iter().map(text).collect::<Option<Vec<_>>>());
            texts.ok_or_else(|| invalid(key, value))
        };
        Ok(Self { direction, group, priority, transfer, pattern: texts("pattern")?, actions: texts("actions")? })
    }

    /// Reads pattern and actions.
    fn rule(&self) -> Result<Rule, SppError> {
        let Self { direction, group, priority, transfer, .. } = *self;
        let pattern = parse::pattern(&self.pattern).map_err(SppError::Refused)?;
        let actions = parse::actions(&self.actions).map_err(SppError::Refused)?;
        Ok(Rule { direction, group, priority, transfer, pattern, actions })
    }
}

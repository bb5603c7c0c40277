//! spp-ctl's REST API on a made-up host: the examples of its documents, whole configurations, refusals, flow
//! rules and arbitrary bodies.
#![allow(clippy::unwrap_used, reason = "a test")]

mod any_body;
mod errors;
mod examples;
mod flow_rules;
mod rig;
mod workflows;

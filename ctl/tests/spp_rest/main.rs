//! spp-ctl's REST API over a data plane of maps: every example of its documents as written, whole configurations, every error,
//! and any body.

mod any_body;
mod errors;
mod examples;
mod flow_rules;
mod rig;
mod workflows;

//! The Soft Patch Panel on a data plane of maps.

mod doctor;
mod instances;
mod shell;
mod topo;

//! The bench: devices under test beside each other on the same veths, what they forward, and the report.

pub mod names;
pub mod plot;
pub mod report;
pub mod results;

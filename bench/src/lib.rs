//! The bench: devices under test beside each other on the same veths, what they forward, and the report.

pub mod peers;
pub mod results;

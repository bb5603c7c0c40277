//! The bench: devices under test on the same veths, what they forward, and the report.

pub mod contest;
pub mod cpu;
pub mod devices;
pub mod disk;
pub mod experiments;
pub mod generator;
mod histogram;
pub mod lab;
pub mod load;
pub mod measure;
pub mod micro;
pub mod names;
mod number;
mod object;
pub mod peers;
pub mod plot;
pub mod report;
pub mod results;
pub mod rules;
pub mod run;
pub mod setting;
pub mod stop;
pub mod storm;
pub mod vhost;

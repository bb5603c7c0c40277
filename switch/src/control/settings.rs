//! Checks of settings: those that are fixed at start, and those of the bridge.

use crate::Error;
use crate::engine::tables::check_capacity;
use crate::model::{BridgeSettings, DataplaneSettings, MAX_FLOW_SLOTS, MAX_FRAMES};

/// Checks the settings that are fixed at start.
pub fn check_settings(settings: &DataplaneSettings) -> Result<(), Error> {
    let DataplaneSettings { workers, cpus, frames, frame_size, spin_us, spin_max_us, flow_slots, .. } = settings;
    if !(1..=64).contains(workers) {
        return Err(Error::invalid(format!("workers: {workers} is out of range, 1 to 64 are possible")));
    }
    check_capacity(&settings.capacity)?;
    if !cpus.is_empty() && cpus.len() != *workers {
        return Err(Error::invalid(format!(
            "cpus: {} given for {workers} workers: name one for each worker, or none to let them run anywhere",
            cpus.len()
        )));
    }
    if !frames.is_power_of_two() || !(1024..=MAX_FRAMES).contains(frames) {
        return Err(Error::invalid(format!("frames: {frames} is not a power of two from 1024 to {MAX_FRAMES}")));
    }
    if ![2048, 4096].contains(frame_size) {
        return Err(Error::invalid(format!("frame_size: {frame_size} is neither 2048 nor 4096")));
    }
    if !(64..=MAX_FLOW_SLOTS).contains(flow_slots) {
        return Err(Error::invalid(format!(
            "flow_slots: {flow_slots} is out of range, 64 to {MAX_FLOW_SLOTS} are possible"
        )));
    }
    for (field, us) in [("spin_us", spin_us), ("spin_max_us", spin_max_us)] {
        if *us > 1_000_000 {
            return Err(Error::invalid(format!("{field}: {us} is out of range, 0 to 1000000 are possible")));
        }
    }
    Ok(())
}

/// Checks the settings of the bridge.
pub fn check_bridge(bridge: &BridgeSettings) -> Result<(), Error> {
    if !(16..=1_000_000).contains(&bridge.fdb_limit) {
        return Err(Error::invalid(format!(
            "fdb_limit: {} is out of range, 16 to 1000000 are possible",
            bridge.fdb_limit
        )));
    }
    if !(1..=1_000_000).contains(&bridge.fdb_ageing_seconds) {
        return Err(Error::invalid(format!(
            "fdb_ageing_seconds: {} is out of range, 1 to 1000000 are possible",
            bridge.fdb_ageing_seconds
        )));
    }
    if bridge.flap_limit > 1_000_000 {
        return Err(Error::invalid(format!(
            "flap_limit: {} is out of range, 0 (off) to 1000000 are possible",
            bridge.flap_limit
        )));
    }
    if bridge.storm_control > 1_000_000_000 {
        return Err(Error::invalid(format!(
            "storm_control: {} is out of range, 1 to 1000000000 are possible, and 0 for none",
            bridge.storm_control
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_and_the_field_is_named() {
        type Change = fn(&mut DataplaneSettings);
        let cases: [(&str, Change); 8] = [
            ("workers", |s| s.workers = 0),
            ("workers", |s| s.workers = 65),
            ("cpus", |s| s.cpus = vec![0, 1]),
            ("frames", |s| s.frames = 512),
            ("frames", |s| s.frames = 3000),
            ("frame_size", |s| s.frame_size = 1024),
            ("spin_us", |s| s.spin_us = 1_000_001),
            ("spin_max_us", |s| s.spin_max_us = 1_000_001),
        ];
        for (field, change) in cases {
            let mut settings = DataplaneSettings::default();
            assert!(check_settings(&settings).is_ok());
            change(&mut settings);
            let error = check_settings(&settings).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{field}: {error}");
        }
    }
}

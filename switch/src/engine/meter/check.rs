//! Whether a meter can be configured so.

use super::MIN_BURST_KBIT;
use crate::Error;
use crate::model::{MeterMode, MeterSpec, MeterType};

/// Checks a meter's configuration.
///
/// # Errors
/// The field, what is wrong with it, and what would be right.
pub(crate) fn check(spec: &MeterSpec) -> Result<(), Error> {
    let two = spec.mode != MeterMode::Single;
    let least = match spec.kind {
        MeterType::Kbps => MIN_BURST_KBIT,
        MeterType::Pps => 1,
    };
    if spec.rate == 0 {
        return Err(Error::invalid("rate: 0 lets nothing pass: at least 1 is needed (a rule can drop)"));
    }
    for (name, burst) in [("burst", spec.burst), ("peak_burst", spec.peak_burst)] {
        if let Some(burst) = burst.filter(|burst| *burst < least) {
            return Err(Error::invalid(format!(
                "{name}: {burst} is too small, at least {least} is needed, or the largest frame never passes"
            )));
        }
    }
    match (two, spec.peak_rate) {
        (true, None) => return Err(Error::invalid("peak_rate: a two-rate mode needs one")),
        (true, Some(0)) => return Err(Error::invalid("peak_rate: 0 is out of range, at least 1 is needed")),
        (true, Some(peak)) if spec.mode == MeterMode::Rfc2698 && peak < spec.rate => {
            return Err(Error::invalid(format!("peak_rate: {peak} is below rate {} (RFC 2698)", spec.rate)));
        }
        _ => {}
    }
    let only_two = [
        ("peak_rate", spec.peak_rate.is_some()),
        ("peak_burst", spec.peak_burst.is_some()),
        ("color_aware", spec.color_aware),
        ("yellow_dscp", spec.yellow_dscp.is_some()),
    ];
    if let Some((name, _)) = only_two.iter().find(|(_, given)| *given && !two) {
        return Err(Error::invalid(format!("{name}: a single-rate meter has none: set mode to rfc2698 or rfc4115")));
    }
    match spec.yellow_dscp {
        Some(dscp) if dscp > 63 => {
            Err(Error::invalid(format!("yellow_dscp: {dscp} is out of range, 0 to 63 are possible")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_are_refused_with_the_field_that_is_wrong() {
        let good = MeterSpec::new(1, 1000);
        let two = MeterSpec { mode: MeterMode::Rfc2698, peak_rate: Some(2000), ..good.clone() };
        for (field, spec) in [
            ("rate", MeterSpec { rate: 0, ..good.clone() }),
            ("burst", MeterSpec { burst: Some(32), ..good.clone() }),
            ("burst", MeterSpec { burst: Some(0), kind: MeterType::Pps, ..good.clone() }),
            ("peak_rate", MeterSpec { peak_rate: Some(9), ..good.clone() }),
            ("peak_burst", MeterSpec { peak_burst: Some(99), ..good.clone() }),
            ("color_aware", MeterSpec { color_aware: true, ..good.clone() }),
            ("yellow_dscp", MeterSpec { yellow_dscp: Some(1), ..good.clone() }),
            ("peak_rate", MeterSpec { peak_rate: None, ..two.clone() }),
            ("peak_rate", MeterSpec { peak_rate: Some(999), ..two.clone() }),
            ("peak_rate", MeterSpec { peak_rate: Some(0), mode: MeterMode::Rfc4115, ..two.clone() }),
            ("peak_burst", MeterSpec { peak_burst: Some(1), ..two.clone() }),
            ("yellow_dscp", MeterSpec { yellow_dscp: Some(64), ..two.clone() }),
        ] {
            let error = check(&spec).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: ")), "{field}: {error}");
        }
        check(&good).unwrap();
        check(&MeterSpec { rate: u32::MAX, burst: Some(u32::MAX), ..good }).unwrap();
        check(&MeterSpec { mode: MeterMode::Rfc4115, peak_rate: Some(1), ..two }).unwrap();
    }
}

//! `PUT /v1/primary/launch`: an instance of the options that an SPP process would be started with.
//!
//! Cores are taken from EAL's `-l`, `--lcores` or `-c` and `--master-lcore`, the captured port, directory and size of files from
//! spp_pcap's own. Other options mean nothing here and are taken as they are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Refusal;
use super::body::{Body, invalid, port_of, whole};
use crate::spp::{CaptureOptions, DEFAULT_CAPTURE_LIMIT, Instance, Proc, ProcType};

/// Largest number of an lcore.
const MAX_LCORE: u32 = 1023;

/// The instance that a body asks for.
pub(super) fn instance(body: &Body, directory: &Path) -> Result<Instance, Refusal> {
    body.need_all(&["client_id", "proc_name", "eal", "app"])?;
    let kind = body.word(
        "proc_name",
        &[
            ("spp_nfv", ProcType::Nfv),
            ("spp_vf", ProcType::Vf),
            ("spp_mirror", ProcType::Mirror),
            ("spp_pcap", ProcType::Pcap),
        ],
    )?;
    let id = number(body, "client_id")?;
    let (eal, app) = (object(body, "eal")?, object(body, "app")?);
    let own = if kind == ProcType::Nfv { "-n" } else { "--client-id" };
    if let Some(other) = app.get(own).filter(|other| whole(other) != Some(u64::from(id))) {
        // The process would register by that number.
        return Err(invalid(own, other));
    }
    let capture = if kind == ProcType::Pcap { Some(capture(&app, directory)?) } else { None };
    Ok(Instance::new(Proc { kind, id }, cores(&eal)?, capture))
}

fn number(body: &Body, key: &str) -> Result<u32, Refusal> {
    let value = body.need(key)?;
    whole(value).and_then(|number| u32::try_from(number).ok()).ok_or_else(|| invalid(key, value))
}

fn object(body: &Body, key: &str) -> Result<Body, Refusal> {
    let value = body.need(key)?;
    value.as_object().map(Body::of).ok_or_else(|| invalid(key, value))
}

fn capture(app: &Body, directory: &Path) -> Result<CaptureOptions, Refusal> {
    let port = port_of("-c", app.need("-c")?)?;
    let directory = match app.get("--out-dir") {
        Some(value) => match value.as_str().map(PathBuf::from) {
            Some(path) if path.is_absolute() && path.is_dir() => path,
            _ => return Err(invalid("--out-dir", value)),
        },
        None => directory.to_owned(),
    };
    let limit = match app.get("--fsize") {
        Some(value) => whole(value).ok_or_else(|| invalid("--fsize", value))?,
        None => DEFAULT_CAPTURE_LIMIT,
    };
    Ok(CaptureOptions { port, directory, limit, compression: Default::default() })
}

/// The lcores, the master first: the lowest unless another one is named.
fn cores(eal: &Body) -> Result<Vec<u32>, Refusal> {
    let mut cores = BTreeSet::new();
    for (key, read) in [("-l", list as fn(&str) -> _), ("--lcores", list), ("-c", mask)] {
        if let Some(value) = eal.get(key) {
            cores.extend(text(value).and_then(|text| read(&text)).ok_or_else(|| invalid(key, value))?);
        }
    }
    let mut cores: Vec<_> = cores.into_iter().collect();
    if let Some(value) = eal.get("--master-lcore") {
        let at = whole(value).and_then(|master| cores.iter().position(|core| u64::from(*core) == master));
        cores[..=at.ok_or_else(|| invalid("--master-lcore", value))?].rotate_right(1);
    }
    Ok(cores)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn core(text: &str) -> Option<u32> {
    let digits = text.trim();
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|core| plain && *core <= MAX_LCORE)
}

/// `1,3-5`, or `(1,3-5)@0,6@2`, of which the CPUs behind `@` are left out: workers are bound to CPUs by the configuration.
fn list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cores = BTreeSet::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (part, tail) = match rest.strip_prefix('(') {
            Some(group) => group.split_once(')')?,
            None => rest.split_at(rest.find([',', '@']).unwrap_or(rest.len())),
        };
        for range in part.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            cores.extend(core(first)?..=core(last)?);
        }
        let tail = match tail.strip_prefix('@') {
            Some(cpus) => match cpus.strip_prefix('(') {
                Some(group) => group.split_once(')')?.1,
                None => &cpus[cpus.find(',').unwrap_or(cpus.len())..],
            },
            None => tail,
        };
        rest = match tail.strip_prefix(',') {
            Some("") => return None,
            Some(next) => next,
            None if tail.is_empty() => tail,
            None => return None,
        };
    }
    Some(cores).filter(|cores| !cores.is_empty())
}

/// A mask in hexadecimal.
fn mask(text: &str) -> Option<BTreeSet<u32>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let digits: Vec<_> = digits.chars().rev().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let bits = (0..)
        .step_by(4)
        .zip(digits)
        .flat_map(|(first, digit)| (0..4).filter(move |bit| digit >> bit & 1 == 1).map(move |bit| first + bit));
    let cores: BTreeSet<u32> = bits.collect();
    Some(cores).filter(|cores| cores.last().is_some_and(|last| *last <= MAX_LCORE))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn cores_of(eal: &Value) -> Option<Vec<u32>> {
        cores(&Body::of(eal.as_object().unwrap())).ok()
    }

    #[test]
    fn cores_are_taken_from_lists_maps_and_masks() {
        for (eal, expected) in [
            (json!({ "-l": "1,2" }), &[1, 2][..]),
            (json!({ "-l": "1,4-7" }), &[1, 4, 5, 6, 7]),
            (json!({ "-l": "4,1" }), &[1, 4]),
            (json!({ "-l": 3 }), &[3]),
            (json!({ "--lcores": "1-3" }), &[1, 2, 3]),
            (json!({ "--lcores": "0@1,(2,4-5)@0,7@(1-2),9" }), &[0, 2, 4, 5, 7, 9]),
            (json!({ "-c": "0x3fe" }), &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
            (json!({ "-c": "30" }), &[4, 5]),
            (json!({ "-l": "1,2,3", "--master-lcore": "2" }), &[2, 1, 3]),
            (json!({}), &[]),
        ] {
            assert_eq!(cores_of(&eal).as_deref(), Some(expected), "{eal}");
        }
        for eal in [
            json!({ "-l": "" }),
            json!({ "-l": "," }),
            json!({ "-l": "1," }),
            json!({ "-l": "x" }),
            json!({ "-l": "1-" }),
            json!({ "-l": "+1" }),
            json!({ "-l": "1024" }),
            json!({ "-l": "0-4294967295" }),
            json!({ "-l": ["1"] }),
            json!({ "-l": null }),
            json!({ "--lcores": "(1" }),
            json!({ "--lcores": "(1)2" }),
            json!({ "--lcores": "1@(0" }),
            json!({ "-c": "0x" }),
            json!({ "-c": "0" }),
            json!({ "-c": "g" }),
            json!({ "-l": "1,2", "--master-lcore": 3 }),
        ] {
            assert_eq!(cores_of(&eal), None, "{eal}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_understood_or_refused(text in "[0-9,()@ \\-]{0,16}") {
            if let Some(cores) = list(&text) {
                prop_assert!(!cores.is_empty() && cores.into_iter().all(|core| core <= MAX_LCORE));
            }
        }
    }
}

//! Translation of traffic rules from messages and back.
//!
//! The document requires a value and a mask for each field of a key. If both are zero, the field matches anything. IP
//! addresses are lists of 32-bit words, most significant first.

use std::net::{IpAddr, Ipv6Addr};

use ctl_service::{Error, Service};
use ctl_types::RuleWrite;
use switch::model::*;

use super::proto::{
    self, ClassfierBatchRequest, ClassfierBatchResponse, ClassfierReadResponse, ClassfierWriteRequest, MaskRuleKey,
    classfier_change,
};
use super::{mac, port, required};

/// An action of zeros.
pub(super) fn no_action() -> proto::RuleAction {
    proto::RuleAction { qid: Some(0), vid: Some(0), ..proto::RuleAction::default() }
}

/// A key of zeros.
pub(super) fn no_key() -> MaskRuleKey {
    describe_key(0, &RuleKey::default())
}

/// A number with its mask. `None` if both are 0.
fn field<const BITS: u32>(name: &str, value: Option<i32>, mask: Option<i32>) -> Result<Option<Masked<BITS>>, Error> {
    let (value, mask) = (required(name, value)?, required(&format!("{name}_mask"), mask)?);
    let value = u32::try_from(value).map_err(|_| {
        Error::invalid(format!("{name}: {value} is out of range, 0 to {} are possible", Masked::<BITS>::FULL))
    })?;
    let field = Masked { value, mask: mask.cast_unsigned() };
    Ok(Some(field).filter(|field| (field.value, field.mask) != (0, 0)))
}

/// A MAC address with its mask. `None` if it is empty or all zeros, with mask 0.
fn mac_field(name: &str, value: Option<&[u8]>, mask: Option<i64>) -> Result<Option<MaskedMac>, Error> {
    let (value, mask) = (required(name, value)?, required(&format!("{name}_mask"), mask)?.cast_unsigned());
    if value.is_empty() && mask == 0 {
        return Ok(None);
    }
    let value = mac(name, value)?;
    Ok(Some(MaskedMac { value, mask }).filter(|field| (field.value, field.mask) != (MacAddr::ZERO, 0)))
}

/// An IP address with its mask: one word for IPv4, four for IPv6. `None` without words.
fn ip_field(name: &str, words: &[u32], mask: &[u32]) -> Result<Option<MaskedIp>, Error> {
    let address = |words: &[u32]| match *words {
        [word] => Some(IpAddr::V4(word.into())),
        [a, b, c, d] => {
            let high = u128::from(a) << 96 | u128::from(b) << 64;
            Some(IpAddr::V6(Ipv6Addr::from(high | u128::from(c) << 32 | u128::from(d))))
        }
        _ => None,
    };
    match (address(words), address(mask)) {
        (None, None) if words.is_empty() && mask.is_empty() => Ok(None),
        (None, _) => Err(Error::invalid(format!(
            "{name}: it has {} words, 1 (IPv4) or 4 (IPv6, most significant first) are expected, or none",
            words.len()
        ))),
        (Some(addr), Some(mask)) if addr.is_ipv4() == mask.is_ipv4() => Ok(Some(MaskedIp { addr, mask })),
        (Some(_), _) => Err(Error::invalid(format!(
            "{name}_mask: it has {} words, as many as {name}, {}, are expected",
            mask.len(),
            words.len()
        ))),
    }
}

fn key(key: &MaskRuleKey) -> Result<RuleKey, Error> {
    let ip_type = match required("ip_type", key.ip_type.as_deref())? {
        "" => None,
        "ipv4" => Some(IpType::Ipv4),
        "ipv6" => Some(IpType::Ipv6),
        other => {
            return Err(Error::invalid(format!(
                "ip_type: `{}` is neither `ipv4` nor `ipv6` nor empty",
                other.escape_default()
            )));
        }
    };
    Ok(RuleKey {
        ingress_port: field("vid", key.vid, key.vid_mask)?,
        dmac: mac_field("dmac", key.dmac.as_deref(), key.dmac_mask)?,
        smac: mac_field("smac", key.smac.as_deref(), key.smac_mask)?,
        vlan: field("vlan", key.vlan, key.vlan_mask)?,
        ip_type,
        ipprotocol: field("ipprotocol", key.ipprotocol, key.ipprotocol_mask)?,
        dip: ip_field("dip", &key.dip, &key.dip_mask)?,
        sip: ip_field("sip", &key.sip, &key.sip_mask)?,
        dl4port: field("dl4port", key.dl4port, key.dl4port_mask)?,
        sl4port: field("sl4port", key.sl4port, key.sl4port_mask)?,
    })
}

fn describe_key(index: i32, key: &RuleKey) -> MaskRuleKey {
    fn pair<const BITS: u32>(field: Option<Masked<BITS>>) -> (Option<i32>, Option<i32>) {
        let Masked { value, mask } = field.unwrap_or(Masked { value: 0, mask: 0 });
        (Some(value.cast_signed()), Some(mask.cast_signed()))
    }
    fn mac_pair(field: Option<MaskedMac>) -> (Option<Vec<u8>>, Option<i64>) {
        let MaskedMac { value, mask } = field.unwrap_or(MaskedMac { value: MacAddr::ZERO, mask: 0 });
        (Some(value.octets().to_vec()), Some(mask.cast_signed()))
    }
    fn words(ip: IpAddr) -> Vec<u32> {
        match ip {
            IpAddr::V4(ip) => vec![ip.into()],
            IpAddr::V6(ip) => {
                let word = |pair: &[u16]| pair.iter().fold(0, |word, half| word << 16 | u32::from(*half));
                ip.segments().chunks_exact(2).map(word).collect()
            }
        }
    }
    fn ip_pair(field: Option<MaskedIp>) -> (Vec<u32>, Vec<u32>) {
        field.map(|field| (words(field.addr), words(field.mask))).unwrap_or_default()
    }
    let ((dmac, dmac_mask), (smac, smac_mask)) = (mac_pair(key.dmac), mac_pair(key.smac));
    let ((dip, dip_mask), (sip, sip_mask)) = (ip_pair(key.dip), ip_pair(key.sip));
    let ((dl4port, dl4port_mask), (sl4port, sl4port_mask)) = (pair(key.dl4port), pair(key.sl4port));
    let ((vlan, vlan_mask), (vid, vid_mask)) = (pair(key.vlan), pair(key.ingress_port));
    let (ipprotocol, ipprotocol_mask) = pair(key.ipprotocol);
    let ip_type = match key.ip_type {
        None => "",
        Some(IpType::Ipv4) => "ipv4",
        Some(IpType::Ipv6) => "ipv6",
    };
    MaskRuleKey {
        key_index: Some(index),
        dmac,
        smac,
        dmac_mask,
        smac_mask,
        dip,
        dip_mask,
        sip,
        sip_mask,
        dl4port,
        dl4port_mask,
        sl4port,
        sl4port_mask,
        vlan,
        vlan_mask,
        vid,
        vid_mask,
        ip_type: Some(ip_type.to_owned()),
        ipprotocol,
        ipprotocol_mask,
    }
}

/// An action. In the document −1 stands for dropping (`vid`) and for the flow hash (`qid`).
fn action(action: &proto::RuleAction) -> Result<RuleAction, Error> {
    let (qid, vid) = (required("qid", action.qid)?, required("action.vid", action.vid)?);
    let target = match vid {
        -1 if action.normal == Some(true) => RuleTarget::Normal,
        -1 => RuleTarget::Drop,
        _ if action.normal == Some(true) => {
            return Err(Error::invalid("normal: a rule that sends on by the MAC table has vid -1"));
        }
        vid if vid < -1 => {
            return Err(Error::invalid(format!("action.vid: {vid} is out of range: a vport, or -1 to drop")));
        }
        vid => RuleTarget::Port(port("action.vid", vid.cast_unsigned())?),
    };
    let queue = match qid {
        -1 => None,
        qid => Some(u32::try_from(qid).map_err(|_| {
            Error::invalid(format!("qid: {qid} is out of range: a queue of the vport, or -1 for the flow hash"))
        })?),
    };
    let mirror = action.mirror.map(|mirror| port("mirror", mirror)).transpose()?;
    Ok(RuleAction { target, queue, meter: action.meter, mirror })
}

pub(super) fn index(index: i32) -> Result<u32, Error> {
    u32::try_from(index).map_err(|_| Error::invalid(format!("key_index: {index} is out of range, it begins with 0")))
}

pub(super) fn rule(request: &ClassfierWriteRequest) -> Result<RuleWrite, Error> {
    let place = required("key_index", request.key_index)?;
    let mask_rule_key = required("mask_rule_key", request.mask_rule_key.as_ref())?;
    let inner = required("mask_rule_key.key_index", mask_rule_key.key_index)?;
    if inner != place && inner != 0 {
        return Err(Error::invalid(format!(
            "mask_rule_key.key_index: it is {inner} and key_index {place}: give it as 0 or alike"
        )));
    }
    let key_index = if place == -1 { None } else { Some(index(place)?) };
    let action = action(required("action", request.action.as_ref())?)?;
    Ok(RuleWrite { key_index, key: key(mask_rule_key)?, action })
}

pub(super) fn describe(rule: &RuleInfo) -> ClassfierReadResponse {
    let RuleInfo { spec: RuleSpec { key_index, key, action }, matched } = rule;
    let action = proto::RuleAction {
        qid: Some(action.queue.map_or(-1, u32::cast_signed)),
        vid: Some(match action.target {
            RuleTarget::Port(no) => i32::from(no),
            RuleTarget::Drop | RuleTarget::Normal => -1,
        }),
        meter: action.meter,
        mirror: action.mirror.map(u32::from),
        normal: (action.target == RuleTarget::Normal).then_some(true),
    };
    ClassfierReadResponse {
        status: Some(0),
        action: Some(action),
        mask_rule_key: Some(describe_key(key_index.cast_signed(), key)),
        error: None,
        packets: Some(matched.packets),
        bytes: Some(matched.bytes),
    }
}

pub(super) fn batch(service: &Service, request: &ClassfierBatchRequest) -> Result<ClassfierBatchResponse, Error> {
    let change = |change: &proto::ClassfierChange| match &change.change {
        Some(classfier_change::Change::Write(request)) => {
            let RuleWrite { key_index, key, action } = rule(request)?;
            let place = || Error::invalid("key_index: a batch needs to be told the place of each rule");
            Ok(RuleChange::Write(RuleSpec { key_index: key_index.ok_or_else(place)?, key, action }))
        }
        Some(classfier_change::Change::DeleteIndex(place)) => Ok(RuleChange::Delete(index(*place)?)),
        Some(classfier_change::Change::Clear(true)) => Ok(RuleChange::Clear),
        _ => Err(Error::invalid("change: one of write, delete_index and clear is needed")),
    };
    let numbered = |(at, one)| change(one).map_err(|error| place(at, &error));
    let changes = request.changes.iter().enumerate().map(numbered).collect::<Result<Vec<_>, _>>()?;
    let alone = changes.len() == 1;
    service.change_rules(changes).map_err(|error| match error {
        // The tables give the position of the failed change only if there are several changes.
        Error::Switch(_) if alone => place(0, &error),
        error => error,
    })?;
    Ok(ClassfierBatchResponse { status: Some(0), error: None })
}

/// Adds the position of a change in its batch to an error.
fn place(at: usize, error: &Error) -> Error {
    Error::Switch(switch::Error::new(error.kind(), format!("change {at}: {error}")))
}

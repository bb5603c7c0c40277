//! Filters that have all that comes in by a netdev leave by another one.
//!
//! That is a `u32` filter at the ingress hook that matches every packet, with the action `mirred`. What leaves so goes
//! the kernel's way of sending. There checksums, segments and VLAN tags are completed that the receiver can't.

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
    TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};

use super::links::{ask_kernel, failed};
use crate::{Error, ErrorKind};

/// `ETH_P_ALL`, in network order.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
/// Place of the filter among others.
const PRIORITY: u32 = 1;
/// The hook of received packets, in either kind of the qdisc.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

fn message(index: u32) -> TcMessage {
    TcMessage::with_index(index.cast_signed())
}

/// The qdisc that has the hook.
fn hook(index: u32) -> TcMessage {
    let mut qdisc = message(index);
    qdisc.header.parent = TcHandle::CLSACT;
    qdisc.header.handle = TcHandle { major: 0xffff, minor: 0 };
    qdisc.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    qdisc
}

/// Has all that comes in by netdev `from` leave by netdev `to`, of the same namespace. Other filters there go.
///
/// # Errors
/// `Unsupported`: the kernel lacks a part.
pub fn redirect_all(from: u32, to: u32) -> Result<(), Error> {
    if target(from)? == Some(to) {
        return Ok(());
    }
    // Mostly there is none. If it can't be deleted, it can't be made either.
    let _ = ask_kernel(RouteNetlinkMessage::DelQueueDiscipline(hook(from)), NLM_F_ACK);
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    for message in
        [RouteNetlinkMessage::NewQueueDiscipline(hook(from)), RouteNetlinkMessage::NewTrafficFilter(filter(from, to))]
    {
        ask_kernel(message, flags).map_err(|errno| {
            let what = format!("redirecting what comes in by netdev #{from} to netdev #{to}");
            match errno {
                // The kernel has no such kind of qdisc, filter or action.
                Errno::ENOENT | Errno::EOPNOTSUPP => Error::new(
                    ErrorKind::Unsupported,
                    format!("{what}: {errno}: the kernel must have `clsact`, `cls_u32` and `act_mirred` for tap ports"),
                ),
                errno => failed(&what, errno),
            }
        })?;
    }
    Ok(())
}

/// The filter.
fn filter(from: u32, to: u32) -> TcMessage {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let mut all = TcU32Selector::default();
    all.flags = TcU32SelectorFlags::Terminal;
    all.nkeys = 1;
    all.keys = vec![TcU32Key::default()];
    let options = [TcFilterU32Option::Selector(all), TcFilterU32Option::Action(vec![action])];
    let mut filter = message(from);
    filter.header.parent = INGRESS;
    filter.header.info = PRIORITY << 16 | ALL_PROTOCOLS;
    filter.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::U32).collect()),
    ];
    filter
}

/// The netdev that all leaves by that comes in by netdev `from`, if there is one.
pub fn target(from: u32) -> Result<Option<u32>, Error> {
    let mut question = message(from);
    question.header.parent = INGRESS;
    let answers = match ask_kernel(RouteNetlinkMessage::GetTrafficFilter(question), NLM_F_DUMP) {
        Ok(answers) => answers,
        Err(Errno::ENODEV) => return Err(failed(&format!("listing the filters of netdev #{from}"), Errno::ENODEV)),
        // There is no hook.
        Err(_) => return Ok(None),
    };
    Ok(answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) => filter.attributes.iter().find_map(target_of),
        _ => None,
    }))
}

fn target_of(attribute: &TcAttribute) -> Option<u32> {
    let TcAttribute::Options(options) = attribute else { return None };
    let actions = options.iter().filter_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let attributes = actions.flatten().flat_map(|action| &action.attributes);
    let options = attributes.filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
        _ => None,
    })
}

//! Virtio features of a port: which ones its guest may be offered.

use vhost_user::message::features::LOG_ALL;
use vhost_user::net::net_header::{F_MRG_RXBUF, F_VERSION_1};
use vhost_user::net::{
    F_CSUM, F_GUEST_CSUM, F_GUEST_ECN, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6,
};
use vhost_user::ring::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, F_PACKED};

use crate::Error;
use crate::model::*;

/// `VIRTIO_NET_F_MTU`: the guest may be told its MTU.
const F_MTU: u64 = 1 << 3;
/// `VIRTIO_NET_F_CTRL_VQ`. The front end serves that queue. Linux has several queues only with it.
const F_CTRL_VQ: u64 = 1 << 17;
/// `VIRTIO_NET_F_GUEST_ANNOUNCE`: a migrated guest tells the network by itself.
const F_GUEST_ANNOUNCE: u64 = 1 << 21;
/// `VIRTIO_NET_F_MQ`.
const F_MQ: u64 = 1 << 22;

/// All features that a vhost port has.
///
/// `CTRL_GUEST_OFFLOADS` is not among them: the front end does not tell us when a guest switches them.
pub(super) const VHOST_FEATURES: u64 = F_VERSION_1
    | F_MRG_RXBUF
    | F_MTU
    | F_CTRL_VQ
    | F_GUEST_ANNOUNCE
    | F_MQ
    | F_INDIRECT
    | F_EVENT_IDX
    | F_IN_ORDER
    | F_PACKED
    | LOG_ALL
    | F_CSUM
    | F_HOST_TSO4
    | F_HOST_TSO6
    | F_HOST_ECN
    | F_GUEST_CSUM
    | F_GUEST_TSO4
    | F_GUEST_TSO6
    | F_GUEST_ECN;

/// Features that are offered only with one of others (virtio 1.3, section 5.1.3.1).
const NEEDS: [(u64, u64); 7] = [
    (F_HOST_TSO4, F_CSUM),
    (F_HOST_TSO6, F_CSUM),
    (F_HOST_ECN, F_HOST_TSO4 | F_HOST_TSO6),
    (F_GUEST_TSO4, F_GUEST_CSUM),
    (F_GUEST_TSO6, F_GUEST_CSUM),
    (F_GUEST_ECN, F_GUEST_TSO4 | F_GUEST_TSO6),
    (F_MQ, F_CTRL_VQ),
];

/// What a vhost port with so many queue pairs offers its guest, by the list of its user.
pub(super) fn offered(list: Option<u64>, pairs: u16) -> u64 {
    let mut features = VHOST_FEATURES & list.unwrap_or(u64::MAX);
    if pairs == 1 {
        features &= !F_MQ;
    }
    for (feature, needs) in NEEDS {
        if features & needs == 0 {
            features &= !feature;
        }
    }
    features
}

/// Checks that a port of that kind has the features that its list names.
pub(super) fn check(spec: &PortSpec) -> Result<(), Error> {
    let possible = if spec.kind == PortKind::Vhost { VHOST_FEATURES } else { 0 };
    let odd = spec.feature_list.unwrap_or(0) & !possible;
    if odd == 0 {
        return Ok(());
    }
    let bit = odd.trailing_zeros();
    let name = virtio_net_features(1 << bit).next().map(|name| format!(" ({name})"));
    let why = match possible {
        0 => format!("a {} port offers no virtio features", spec.kind.name()),
        _ => format!("a {} port has {possible:#x}", spec.kind.name()),
    };
    Err(Error::invalid(format!("feature_list: bit {bit}{} can't be honoured: {why}", name.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: PortKind, list: Option<u64>) -> PortSpec {
        PortSpec { feature_list: list, ..PortSpec::new("p", kind) }
    }

    #[test]
    fn a_vhost_port_takes_any_part_of_what_it_has() {
        for list in [None, Some(0), Some(VHOST_FEATURES), Some(1 << 32 | 1)] {
            assert!(check(&spec(PortKind::Vhost, list)).is_ok(), "{list:?}");
        }
    }

    #[test]
    fn what_needs_another_feature_is_offered_only_with_it() {
        assert_eq!(offered(None, 2), VHOST_FEATURES);
        assert_eq!(offered(None, 1), VHOST_FEATURES & !F_MQ);
        let sends = F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN;
        assert_eq!(offered(Some(!F_CSUM), 2), VHOST_FEATURES & !sends);
        let takes = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN;
        assert_eq!(offered(Some(!F_GUEST_CSUM), 2), VHOST_FEATURES & !takes);
        assert_eq!(offered(Some(F_CSUM | F_HOST_ECN | F_MQ), 2), F_CSUM);
        assert_eq!(offered(Some(0), 2), 0);
    }

    #[test]
    fn a_bit_that_a_kind_has_not_is_named() {
        let text = |kind, list| check(&spec(kind, Some(list))).unwrap_err().to_string();
        let mac = text(PortKind::Vhost, 1 << 5 | 1);
        assert!(
            mac.starts_with("feature_list: bit 5 (VIRTIO_NET_F_MAC) can't be honoured: a vhost port has 0x"),
            "{mac}"
        );
        assert!(text(PortKind::Vhost, 1 << 63).starts_with("feature_list: bit 63 can't be honoured"));
        let guest = text(PortKind::Guest, 1);
        assert!(guest.ends_with("bit 0 (VIRTIO_NET_F_CSUM) can't be honoured: a guest port offers no virtio features"));
        assert!(check(&spec(PortKind::Guest, Some(0))).is_ok());
    }
}

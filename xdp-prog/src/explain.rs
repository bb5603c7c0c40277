//! Turns a bare errno into what is wrong and what to do. Pure functions of the error and of the caller's facts.

use nix::errno::Errno;

use crate::attach::Mode;

/// Largest MTU in bytes of a veth's other end that allows a native program without multi-buffer support.
///
/// `veth_xdp_set`: a page without headroom, `skb_shared_info` and the Ethernet header. With 4 KiB pages and 64-byte
/// cache lines that is 4,096 − 256 − 320 − 14 = 3,506. Measured on kernel 6.18 (`tests/programs.rs`).
pub const VETH_NATIVE_MAX_MTU: u32 = 3506;

/// Facts about a failed attachment.
#[derive(Clone, Debug)]
pub struct AttachFacts {
    /// Netdev.
    pub ifname: String,
    /// Mode tried.
    pub mode: Mode,
    /// The kernel's own words, if it had some.
    pub kernel_words: Option<String>,
}

/// Says why a program can't be attached, and what to do.
pub fn explain_attach_error(errno: Errno, facts: &AttachFacts) -> String {
    let AttachFacts { ifname, mode, kernel_words } = facts;
    let words =
        kernel_words.as_deref().map_or_else(|| errno.desc().to_owned(), |words| format!("the kernel says \"{words}\""));
    let lower = words.to_lowercase();
    let advice = match errno {
        Errno::EPERM => "CAP_NET_ADMIN and CAP_BPF (or CAP_SYS_ADMIN) are needed".to_owned(),
        Errno::EBUSY | Errno::EEXIST => "another XDP program is on it: stop what attached it".to_owned(),
        Errno::ENODEV => "the netdev is gone".to_owned(),
        Errno::EOPNOTSUPP if *mode == Mode::Native => {
            "its driver has no native XDP: use mode auto or generic".to_owned()
        }
        _ if lower.contains("mtu") => format!(
            "an MTU is too large for native XDP without multi-buffer support: on a NIC its own, on a veth that of the other end, \
             which may be {VETH_NATIVE_MAX_MTU} at most; lower it, or use mode auto or generic"
        ),
        _ if lower.contains("queue") => {
            "it needs at least as many receive queues as the other end has transmit queues: `ethtool -L`".to_owned()
        }
        _ if lower.contains("lro") || lower.contains("gro") => {
            format!("an offload that joins packets is on: `ethtool -K {ifname} lro off gro-hw off`")
        }
        _ if *mode == Mode::Native => {
            "use mode auto or generic, or look at the driver's conditions for XDP (MTU, queues, \
                                       offloads)"
                .to_owned()
        }
        _ => "look at the kernel's log".to_owned(),
    };
    format!("{ifname}: {mode} XDP can't be had: {words}; {advice}")
}

/// Facts about an AF_XDP socket that can't be opened or bound.
#[derive(Clone, Debug)]
pub struct BindFacts {
    /// Netdev.
    pub ifname: String,
    /// Queue.
    pub queue: u32,
    /// Number of the netdev's receive queues, if known.
    pub channels: Option<u32>,
    /// Whether zero-copy mode was required.
    pub zero_copy_forced: bool,
    /// `RLIMIT_MEMLOCK` in bytes; `None` if there is no limit.
    pub memlock: Option<u64>,
    /// Bytes of UMEM that the socket registers.
    pub umem_bytes: u64,
}

/// Says why an AF_XDP socket can't be opened or bound, and what to do.
pub fn explain_bind_error(errno: Errno, facts: &BindFacts) -> String {
    let BindFacts { ifname, queue, channels, zero_copy_forced, memlock, umem_bytes } = facts;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let why = match errno {
        Errno::EBUSY => {
            "another AF_XDP socket is bound to this queue: end the program that has it (a queue that was let go is \
                         free within seconds)"
                .to_owned()
        }
        Errno::EINVAL if channels.is_some_and(|channels| *queue >= channels) => format!(
            "it has {} queues, numbered from 0: ask for fewer, or give it more (`ethtool -L {ifname} combined N`)",
            channels.unwrap_or_default()
        ),
        Errno::EINVAL if *zero_copy_forced => {
            "its driver does not take zero-copy with these settings: leave zero_copy at auto".to_owned()
        }
        Errno::EINVAL => "the kernel takes neither this queue nor this frame layout: check the number of queues \
                          (`ethtool -l`), frame_size and the MTU"
            .to_owned(),
        Errno::EOPNOTSUPP if *zero_copy_forced => {
            "its driver has no zero-copy, or only with a native program: leave zero_copy at auto".to_owned()
        }
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => {
            "this kernel has no AF_XDP for it: 5.10 or later with CONFIG_XDP_SOCKETS is needed".to_owned()
        }
        Errno::ENOBUFS | Errno::ENOMEM => match memlock {
            Some(limit) if limit < umem_bytes => format!(
                "{} MiB of packet memory must be locked and the limit is {} MiB: give CAP_IPC_LOCK, raise it \
                 (`LimitMEMLOCK=infinity`, `ulimit -l`), or lower `frames`",
                mib(*umem_bytes),
                mib(*limit)
            ),
            // Other sockets have locked some (`xdp_umem_account_pages` in `net/xdp/xdp_umem.c`).
            Some(limit) if errno == Errno::ENOBUFS => format!(
                "{} MiB more of packet memory must be locked than the limit of {} MiB leaves: give CAP_IPC_LOCK, or raise it \
                 (`LimitMEMLOCK=infinity`, `ulimit -l`)",
                mib(*umem_bytes),
                mib(*limit)
            ),
            _ => format!("memory is short for {} MiB of packet memory and the rings: lower `frames`", mib(*umem_bytes)),
        },
        Errno::ENETDOWN => format!("it is down: `ip link set {ifname} up`"),
        Errno::EPERM | Errno::EACCES => "CAP_NET_RAW is needed".to_owned(),
        Errno::ENODEV => "the netdev is gone".to_owned(),
        _ => "look at the kernel's log".to_owned(),
    };
    format!("AF_XDP socket on {ifname} queue {queue}: {}: {why}", errno.desc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(errno: Errno, change: fn(&mut BindFacts)) -> String {
        let mut facts = BindFacts {
            ifname: "eth7".into(),
            queue: 3,
            channels: Some(4),
            zero_copy_forced: false,
            memlock: None,
            umem_bytes: 256 << 20,
        };
        change(&mut facts);
        explain_bind_error(errno, &facts)
    }

    #[test]
    fn a_bind_error_names_queue_and_cure() {
        type Change = fn(&mut BindFacts);
        let cases: [(Errno, Change, &str); 9] = [
            (Errno::EBUSY, |_| {}, "another AF_XDP socket"),
            (Errno::EINVAL, |f| f.channels = Some(2), "it has 2 queues"),
            (Errno::EINVAL, |f| f.zero_copy_forced = true, "zero_copy at auto"),
            (Errno::EOPNOTSUPP, |f| f.zero_copy_forced = true, "zero_copy at auto"),
            (
                Errno::ENOBUFS,
                |f| f.memlock = Some(8 << 20),
                "256 MiB of packet memory must be locked and the limit is 8 MiB",
            ),
            (
                Errno::ENOBUFS,
                |f| f.memlock = Some(300 << 20),
                "256 MiB more of packet memory must be locked than the limit of 300 MiB leaves",
            ),
            (Errno::ENOMEM, |_| {}, "lower `frames`"),
            (Errno::ENETDOWN, |_| {}, "ip link set eth7 up"),
            (Errno::EPERM, |_| {}, "CAP_NET_RAW"),
        ];
        for (errno, change, expected) in cases {
            let text = bind(errno, change);
            assert!(text.contains("eth7 queue 3") && text.contains(expected), "{errno}: {text}");
        }
    }

    #[test]
    fn an_attach_error_quotes_the_kernel_and_names_the_cure() {
        let text = |errno, mode, words: Option<&str>| {
            let facts = AttachFacts { ifname: "eth7".into(), mode, kernel_words: words.map(str::to_owned) };
            explain_attach_error(errno, &facts)
        };
        let mtu = text(Errno::ERANGE, Mode::Native, Some("Peer MTU is too large to set XDP"));
        assert!(mtu.contains("\"Peer MTU is too large to set XDP\"") && mtu.contains("3506"), "{mtu}");
        assert!(text(Errno::EOPNOTSUPP, Mode::Native, None).contains("no native XDP"));
        assert!(text(Errno::EPERM, Mode::Generic, None).contains("CAP_NET_ADMIN"));
        let queues =
            text(Errno::ENOSPC, Mode::Native, Some("XDP expects number of rx queues not less than peer tx queues"));
        assert!(queues.contains("ethtool -L"), "{queues}");
    }
}

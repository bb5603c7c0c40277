//! Checks whether the machine suits an AF_XDP switch, and gives advice. The checks read `/proc`, `/sys`, netlink and
//! BPF, and change nothing. Most work on text or numbers that are read beforehand, so they can be tested.

use std::path::Path;

use ctl_guest::limits::{CAP_IPC_LOCK, effective_capabilities};
use ctl_types::{Check, Status};
use switch::host::Link;
use switch::host::kernel::{ethtool, knows_multi_buffer, links, why_no_flow_table};
use switch::model::{DataplaneSettings, FlowOffload, HugePages, MAX_FRAMES, MIN_FILL, OWN_UMEM_FRAMES};
use vhost_user::event::CONTEXT_EVENTS;

/// Capabilities that the daemon needs: number (`linux/capability.h`), name and purpose.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (12, "CAP_NET_ADMIN", "netdevs, XDP programs"),
    (13, "CAP_NET_RAW", "AF_XDP and packet sockets"),
    (39, "CAP_BPF", "BPF programs and maps (CAP_SYS_ADMIN serves too)"),
    (21, "CAP_SYS_ADMIN", "guests in named network namespaces"),
    (19, "CAP_SYS_PTRACE", "counters of guests' sockets after a restart, and seeing that a guest has closed them"),
];
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const MIN_KERNEL: (u32, u32) = (5, 10);
/// The device by which taps are made.
const TUN: &str = "/dev/net/tun";

/// Checks that need no daemon: kernel, privileges, memory, CPUs, and the named netdevs. `disk_threads` are those that
/// serve disks.
pub fn local_checks(settings: &DataplaneSettings, ifnames: &[String], disk_threads: u32) -> Vec<Check> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut checks = vec![check_kernel_version(read("/proc/sys/kernel/osrelease").trim())];
    checks.extend(xdp_prog::check_kernel().into_iter().map(|finding| Check {
        name: finding.name,
        status: match finding.status {
            xdp_prog::Status::Ok => Status::Ok,
            xdp_prog::Status::Warn => Status::Warn,
            xdp_prog::Status::Fail => Status::Fail,
        },
        text: finding.text,
        advice: finding.advice,
    }));
    checks.push(check_jumbo(knows_multi_buffer(), settings.frame_size));
    checks.push(check_flow_table(settings.flow_offload, why_no_flow_table));
    let effective = effective_capabilities(&read("/proc/self/status"));
    checks.extend(check_capabilities(effective));
    let umem = settings.umem_bytes();
    let (memlock, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).unwrap_or_default();
    checks.push(check_memlock(memlock, umem, own_umems(settings), effective >> CAP_IPC_LOCK & 1 != 0));
    checks.push(check_memory(&read("/proc/meminfo"), umem, settings.huge_pages));
    checks.push(check_frames(settings));
    checks.push(check_memory_of_ports(&read("/proc/meminfo"), settings));
    checks.push(check_jit(read("/proc/sys/net/core/bpf_jit_enable").trim()));
    checks.extend(check_guests(Path::new("/sys/kernel/btf/vmlinux").exists(), private_mounts()));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    checks.push(check_cpus(cpus, settings.workers));
    checks.push(check_tun(Path::new(TUN).exists()));
    let signalling = settings.workers as u64 + u64::from(disk_threads);
    let (taken, most) = (read("/proc/sys/fs/aio-nr"), read("/proc/sys/fs/aio-max-nr"));
    checks.push(check_events(&taken, &most, &read("/proc/self/maps"), signalling));
    checks.extend(ctl_disks::check_machine());
    checks.extend(ifnames.iter().flat_map(|ifname| check_netdev(ifname, settings)));
    checks
}

/// Checks that decided flows can go on in the kernel, if they are to.
fn check_flow_table(offload: FlowOffload, why_not: impl FnOnce() -> Option<String>) -> Check {
    let name = "flow table";
    if offload == FlowOffload::Off {
        return Check::ok(name, "off: all packets go through the switch (`flow_offload` in [dataplane])".to_owned());
    }
    match why_not() {
        None => Check::ok(name, "flows with many packets go on in the kernel between ports that can".to_owned()),
        Some(why) => Check::bad(
            Status::Warn,
            name,
            format!("all packets go through the switch: the flow table {why}"),
            "set flow_offload to off, or use another kernel",
        ),
    }
}

/// Whether this process has its own mount namespace. `None` if it can't be told.
fn private_mounts() -> Option<bool> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    Some(namespace("self")? != namespace("1")?)
}

/// Checks what guests with their own AF_XDP sockets need of the machine.
fn check_guests(has_btf: bool, private_mounts: Option<bool>) -> Vec<Check> {
    let name = "guests' sockets";
    let mut checks = Vec::new();
    if !has_btf {
        let advice = "a kernel with CONFIG_DEBUG_INFO_BTF is needed for guests in QEMU; others work";
        checks.push(Check::bad(Status::Warn, name, "the kernel has no type information", advice));
    }
    if private_mounts == Some(true) {
        let advice = "bind-mount the host's /sys/fs/bpf there, or run it in the host's mount namespace (`nsenter --net=` instead of \
                      `ip netns exec`)";
        let text = "this process has mounts of its own: what it pins may be lost when it ends, and guests with it";
        checks.push(Check::bad(Status::Warn, name, text, advice));
    }
    if checks.is_empty() {
        checks.push(Check::ok(name, "type information is there, and pins last"));
    }
    checks
}

/// Checks whether the kernel takes packets of several frames.
fn check_jumbo(is_known: bool, frame_size: u32) -> Check {
    let name = "jumbo frames";
    if is_known {
        let limit = switch::jumbo_mtu(frame_size);
        return Check::ok(
            name,
            format!("the kernel has XDP multi-buffer: MTU up to {limit} where the driver has it too"),
        );
    }
    let text = format!("the kernel has no XDP multi-buffer for AF_XDP: MTU up to {}", switch::frame_mtu(frame_size));
    Check::bad(Status::Warn, name, text, "jumbo frames need kernel 6.6 or later")
}

/// Checks the MTU of a netdev. `is_known`: the kernel takes packets of several frames. `has_jumbo`: its driver does
/// too.
fn check_mtu(name: String, link: &Link, frame_size: u32, is_known: bool, has_jumbo: bool) -> Check {
    let (mtu, ifname) = (link.mtu, &link.name);
    let frame = switch::frame_mtu(frame_size);
    let limit = if is_known { switch::jumbo_mtu(frame_size) } else { frame };
    let native = match link.is_veth {
        true => xdp_prog::VETH_NATIVE_MAX_MTU.min(frame),
        false => frame,
    };
    if mtu > limit {
        let text = format!("{mtu}, and packet memory carries {limit}");
        Check::bad(Status::Fail, name, text, format!("`ip link set {ifname} mtu {limit}` or less"))
    } else if mtu > native && !(is_known && has_jumbo) {
        let text = format!("{mtu}: native mode without XDP multi-buffer ends at {native}");
        let advice = "generic mode will be used, which is slower; lower the MTU for native mode";
        Check::bad(Status::Warn, name, text, advice)
    } else {
        Check::ok(name, mtu.to_string())
    }
}

fn check_kernel_version(release: &str) -> Check {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let name = "kernel";
    if version < MIN_KERNEL {
        let advice = "5.10 or later is needed (AF_XDP with need-wakeup and shared packet memory, XDP links)";
        return Check::bad(Status::Fail, name, release, advice);
    }
    let note = if version >= (6, 17) { "" } else { "; from 6.17 on one send call handles more than 32 frames" };
    Check::ok(name, format!("{release}{note}"))
}

/// Checks the capabilities in `effective`, a bit set as in `CapEff`. CAP_SYS_ADMIN and CAP_SYS_PTRACE are optional.
fn check_capabilities(effective: u64) -> Vec<Check> {
    let has = |number: u32| effective >> number & 1 != 0;
    let check = |(number, name, what): (u32, &str, &str)| {
        if has(number) || (name == "CAP_BPF" && has(CAP_SYS_ADMIN)) {
            return Check::ok(name, "this process has it");
        }
        let status = if [CAP_SYS_ADMIN, CAP_SYS_PTRACE].contains(&number) { Status::Warn } else { Status::Fail };
        let advice = format!("needed for {what}: run as root, or give it to the daemon (`AmbientCapabilities={name}`)");
        Check::bad(status, name, "this process does not have it", advice)
    };
    CAPABILITIES.into_iter().map(check).collect()
}

/// Guests that have a UMEM of their own if there are as many ports as there can be, each with one queue.
fn owners(settings: &DataplaneSettings) -> u64 {
    u64::from(settings.capacity.ports - settings.sharing_ports())
}

/// Bytes of these UMEMs.
fn own_umems(settings: &DataplaneSettings) -> u64 {
    owners(settings) * settings.own_umem_bytes().0
}

/// Checks the limit of locked memory against UMEM, and the UMEMs of queues that there can be, all in bytes.
fn check_memlock(limit: u64, umem: u64, own: u64, exempt: bool) -> Check {
    let name = "locked memory";
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let queues = if own > 0 { format!(", and up to {} for queues' own", mib(own)) } else { String::new() };
    let text = format!("{} MiB of packet memory{queues}", mib(umem));
    if exempt || limit >= umem + own {
        let why = if exempt { "CAP_IPC_LOCK exempts this process" } else { "the limit is high enough" };
        return Check::ok(name, format!("{text}; {why}"));
    }
    let status = if limit < umem { Status::Fail } else { Status::Warn };
    let advice = "raise it (`LimitMEMLOCK=infinity`, `ulimit -l`), give CAP_IPC_LOCK, or lower `frames`";
    Check::bad(status, name, format!("{text}; the limit is {} MiB", mib(limit)), advice)
}

/// A number of `/proc/meminfo`, in its unit. 0 if it is not there.
fn meminfo_field(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Checks that all ports that there can be leave a quarter of all memory. They take packet memory, and the kernel takes
/// some for each queue's part of it.
fn check_memory_of_ports(meminfo: &str, settings: &DataplaneSettings) -> Check {
    let (name, total) = ("memory of ports", meminfo_field(meminfo, "MemTotal") << 10);
    let (sharing, owners) = (settings.sharing_ports(), owners(settings));
    let (shared, (own, kernel)) = (settings.kernel_bytes(), settings.own_umem_bytes());
    let (kernel_in_all, own_in_all) = (shared * u64::from(sharing) + kernel * owners, own * owners);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let of_own = match owners {
        0 => String::new(),
        _ => format!(
            "; further guests copy to packet memory of their own, {} KiB and {} of the kernel for each queue",
            own >> 10,
            kernel >> 10
        ),
    };
    let text = format!(
        "the kernel takes {} KiB for each queue of a NIC or of the first {sharing} guests{of_own}: {} MiB of the kernel and {} of \
         packet memory for {} ports; there are {} MiB in all",
        shared >> 10,
        mib(kernel_in_all),
        mib(settings.umem_bytes() + own_in_all),
        settings.capacity.ports,
        mib(total)
    );
    if kernel_in_all + own_in_all + settings.umem_bytes() > total / 4 * 3 {
        let advice = "lower `dataplane.frames` or `dataplane.shared_queues`, or `dataplane.capacity.ports` if there are never so many";
        return Check::bad(Status::Warn, name, text, advice);
    }
    Check::ok(name, text)
}

/// Checks that packet memory fits into free huge pages of 2 MiB, or into available memory with a quarter to spare.
fn check_memory(meminfo: &str, umem: u64, huge_pages: HugePages) -> Check {
    let field = |name: &str| meminfo_field(meminfo, name);
    let name = "memory";
    let (free, wanted) = (field("HugePages_Free"), umem.div_ceil(2 << 20));
    let available = field("MemAvailable") << 10;
    if huge_pages != HugePages::Off && free >= wanted {
        return Check::ok(name, format!("{free} huge pages are free, {wanted} are wanted"));
    }
    if huge_pages == HugePages::On {
        let text = format!("huge_pages is `on`: {wanted} are wanted, {free} are free");
        return Check::bad(
            Status::Fail,
            name,
            text,
            format!("`sysctl vm.nr_hugepages={wanted}`, or set huge_pages to auto"),
        );
    }
    if available < umem + umem / 4 {
        let text = format!("{} MiB are available, packet memory takes {}", available >> 20, umem >> 20);
        return Check::bad(Status::Fail, name, text, "lower `frames` in [dataplane]");
    }
    Check::ok(
        name,
        format!("{} MiB are available, packet memory takes {} on ordinary pages", available >> 20, umem >> 20),
    )
}

/// Checks that frames are enough for all ports that there can be and share UMEM, and says what each may hold.
fn check_frames(settings: &DataplaneSettings) -> Check {
    let DataplaneSettings { frames, .. } = settings;
    let (ports, least, most) = (settings.sharing_ports(), settings.least_fill(), settings.most_queues());
    let name = "frames";
    let kept =
        format!("{frames} frames, of which {} are kept for frames on their way and copies", settings.reserved_frames());
    if most >= ports {
        let further = match owners(settings) {
            0 => String::new(),
            further => format!("; each of {further} further guests has {} of its own", OWN_UMEM_FRAMES / 2),
        };
        let text =
            format!("{kept}; each of {ports} ports may hold {least} or more to receive, early ones hold more{further}");
        return Check::ok(name, text);
    }
    let text =
        format!("{kept}; the rest is enough for {most} ports with one queue of {MIN_FILL}, and there can be {ports}");
    let enough = (u64::from(ports * MIN_FILL).div_ceil(3) * 4).next_power_of_two().min(MAX_FRAMES.into());
    let advice = format!("set `dataplane.frames` to {enough}, or lower `dataplane.capacity.ports`");
    Check::bad(Status::Warn, name, text, advice)
}

fn check_jit(enabled: &str) -> Check {
    match enabled {
        "0" => Check::bad(
            Status::Warn,
            "BPF JIT",
            "off: XDP programs are interpreted",
            "`sysctl net.core.bpf_jit_enable=1`",
        ),
        _ => Check::ok("BPF JIT", "on"),
    }
}

fn check_tun(is_there: bool) -> Check {
    if is_there {
        return Check::ok("tap ports", format!("{TUN} is there"));
    }
    let advice = "load the module `tun`, or let the container have the device";
    Check::bad(Status::Warn, "tap ports", format!("{TUN} is not there: no tap ports"), advice)
}

/// Checks that `threads` threads, and all others together, can have what they call guests by: a context of asynchronous
/// I/O each. `taken` and `most` are requests on the host (`fs.aio-nr`, `fs.aio-max-nr`). `maps` is this process's
/// memory map, which shows the contexts that it has (`[aio]`).
fn check_events(taken: &str, most: &str, maps: &str, threads: u64) -> Check {
    let name = "guests' events";
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let Some((taken, most)) = number(taken).zip(number(most)) else {
        let advice = "a kernel with CONFIG_AIO is needed for vhost-user ports and disks; other ports work";
        return Check::bad(Status::Warn, name, "the kernel has no asynchronous I/O: guests can't be called", advice);
    };
    let has = maps.lines().filter(|line| line.contains("[aio]")).count() as u64;
    let (each, left) = (u64::from(CONTEXT_EVENTS), most.saturating_sub(taken));
    let wanted = (threads + 1).saturating_sub(has) * each;
    let text =
        format!("{left} of {most} asynchronous requests of the host are left (`fs.aio-max-nr`), {wanted} are wanted");
    if left >= wanted {
        return Check::ok(name, text);
    }
    let advice = format!(
        "`sysctl fs.aio-max-nr={}`: each worker with vhost-user ports and each thread of a disk takes {each}, or its guests \
         can't be called",
        taken.saturating_add(wanted).max(most.saturating_mul(2))
    );
    Check::bad(Status::Warn, name, text, advice)
}

fn check_cpus(cpus: usize, workers: usize) -> Check {
    if workers > cpus {
        let text = format!("{workers} workers on {cpus} CPUs");
        return Check::bad(Status::Warn, "CPUs", text, "workers that share a CPU wait for each other: lower `workers`");
    }
    Check::ok("CPUs", format!("{cpus} for {workers} workers"))
}

/// Checks a netdev for its use as a port.
fn check_netdev(ifname: &str, settings: &DataplaneSettings) -> Vec<Check> {
    let name = |what: &str| format!("{ifname}: {what}");
    let link = match links::find(ifname) {
        Ok(Some(link)) => link,
        Ok(None) => {
            return vec![Check::bad(
                Status::Fail,
                ifname,
                "there is no such netdev here",
                "check the name and the network namespace",
            )];
        }
        Err(error) => {
            return vec![Check {
                name: ifname.to_owned(),
                status: Status::Fail,
                text: error.to_string(),
                advice: None,
            }];
        }
    };
    let mut checks = Vec::new();
    let driver = ethtool::driver(link.index).unwrap_or_else(|_| "unknown".to_owned());
    let queues = ethtool::rx_channels(link.index).ok().flatten().unwrap_or(link.rx_queues);
    checks.push(if link.up {
        Check::ok(name("state"), format!("up, driver {driver}, {queues} receive queues"))
    } else {
        Check::bad(Status::Warn, name("state"), format!("down, driver {driver}"), format!("`ip link set {ifname} up`"))
    });
    let features = xdp_prog::driver_features(link.index);
    let has_jumbo = features.as_ref().is_ok_and(|features| features.multi_buffer);
    checks.push(check_mtu(name("MTU"), &link, settings.frame_size, knows_multi_buffer(), has_jumbo));
    checks.push(match features {
        Ok(features) if features.native => {
            let copy = if features.zero_copy { "with zero-copy" } else { "with a copy" };
            Check::ok(name("XDP modes"), format!("native and generic; AF_XDP {copy}"))
        }
        Ok(_) => Check::bad(
            Status::Warn,
            name("XDP modes"),
            "generic only, as its driver says (before kernel 6.3 no driver says anything)",
            "generic mode works and is slower; on a veth, native mode needs as many receive queues as the other end has \
             transmit queues",
        ),
        Err(error) => Check::bad(Status::Warn, name("XDP modes"), error.to_string(), "can't be read"),
    });
    match ethtool::hidden_bytes(link.index) {
        Ok(features) if link.is_veth && !features.is_empty() => checks.push(Check::bad(
            Status::Warn,
            name("offloads"),
            format!("on: {}", features.join(", ")),
            format!("if a kernel stack sends to the switch from here: `ethtool -K {ifname} tx off txvlan off`"),
        )),
        Ok(_) => checks.push(Check::ok(name("offloads"), "none that matters")),
        Err(errno) => checks.push(Check::bad(Status::Warn, name("offloads"), errno.to_string(), "can't be read")),
    }
    if link.tap.is_some() {
        checks.push(Check::bad(
            Status::Warn,
            name("tap"),
            "as a phy port it takes packets as the VMM writes them, without checksums and uncut if the guest may leave these",
            "add a port of kind tap instead, or turn these offloads off in the guest (`ethtool -K IF tx off tso off`)",
        ));
    }
    match xdp_prog::attached_programs(link.index) {
        Ok(programs) if programs.is_empty() => checks.push(Check::ok(name("XDP programs"), "none")),
        Ok(programs) => checks.extend(programs.iter().map(|program| {
            if program.name == "xswitch_port" {
                Check::ok(name("XDP programs"), format!("{program}, of an xswitch"))
            } else {
                let advice = format!("stop what attached it, or detach it (`ip link set dev {ifname} xdp off`)");
                Check::bad(Status::Fail, name("XDP programs"), program.to_string(), advice)
            }
        })),
        Err(error) => checks.push(Check::bad(Status::Warn, name("XDP programs"), error.to_string(), "can't be read")),
    }
    checks
}

#[cfg(test)]
mod tests {
    use switch::model::Capacity;

    use super::*;

    #[test]
    fn a_flow_table_is_looked_for_if_it_is_wanted() {
        let ask = |offload, why: Option<&str>| check_flow_table(offload, || why.map(str::to_owned));
        assert_eq!(ask(FlowOffload::Off, Some("needs more")).status, Status::Ok);
        assert_eq!(ask(FlowOffload::Auto, None).status, Status::Ok);
        let without = ask(FlowOffload::Auto, Some("needs more"));
        assert_eq!(without.status, Status::Warn);
        assert!(without.text.ends_with("needs more"), "{}", without.text);
    }

    #[test]
    fn old_and_new_kernels_are_told_apart() {
        for (release, status) in
            [("5.9.1", Status::Fail), ("5.10.0-28-amd64", Status::Ok), ("6.18.44-x", Status::Ok), ("x", Status::Fail)]
        {
            assert_eq!(check_kernel_version(release).status, status, "{release}");
        }
    }

    #[test]
    fn a_machine_without_taps_is_told() {
        assert_eq!([true, false].map(|is_there| check_tun(is_there).status), [Status::Ok, Status::Warn]);
    }

    #[test]
    fn too_few_asynchronous_requests_for_events_are_told() {
        let context = "7f8a6b1f2000-7f8a6b1f3000 rw-s 00000000 00:10 4711      /[aio] (deleted)\n";
        // Four threads and those that share take 5 × 32.
        for (taken, contexts, status) in [
            (0, 0, Status::Ok),
            (840, 0, Status::Ok),
            (841, 0, Status::Warn),
            (1000, 0, Status::Warn),
            (1000, 4, Status::Warn),
            (1000, 5, Status::Ok),
            (968, 4, Status::Ok),
            (2000, 0, Status::Warn),
        ] {
            let check = check_events(&format!("{taken}\n"), "1000\n", &context.repeat(contexts), 4);
            assert_eq!(check.status, status, "{taken}, {contexts}: {check:?}");
        }
        let check = check_events("65530", "65536", "", 1);
        assert!(check.text.contains("6 of 65536") && check.text.contains("64 are wanted"), "{check:?}");
        assert!(check.advice.is_some_and(|advice| advice.contains("fs.aio-max-nr=131072")));
        assert!(check_events("", "", "", 1).text.contains("no asynchronous I/O"));
    }

    #[test]
    fn contexts_of_this_process_are_seen() {
        let event = nix::sys::eventfd::EventFd::new().unwrap();
        let event = vhost_user::event::Event::try_from(std::sync::Arc::new(event.into())).unwrap();
        event.signal().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let most = u64::MAX.to_string();
        let wanted = |maps: &str| check_events("0", &most, maps, 9).text;
        assert!(wanted("").contains("320 are wanted"));
        assert!(!wanted(&maps).contains("320 are wanted"), "{maps}");
    }

    #[test]
    fn lacking_capabilities_are_named() {
        let all = effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n");
        assert!(check_capabilities(all).iter().all(|check| check.status == Status::Ok));
        let none = check_capabilities(effective_capabilities("CapEff:\t0000000000000000"));
        assert_eq!(none.iter().filter(|check| check.status == Status::Fail).count(), 3);
        // CAP_SYS_ADMIN includes CAP_BPF.
        assert_eq!(check_capabilities(1 << 21)[2].status, Status::Ok);
    }

    #[test]
    fn what_guests_sockets_need_is_told() {
        assert_eq!(check_guests(true, Some(false))[0].status, Status::Ok);
        assert_eq!(check_guests(true, None)[0].status, Status::Ok);
        assert_eq!(check_guests(false, Some(true)).iter().filter(|check| check.status == Status::Warn).count(), 2);
    }

    #[test]
    fn memory_of_all_ports_is_measured_against_all_memory() {
        let meminfo = "MemTotal:       33554432 kB\n";
        let settings = DataplaneSettings::default();
        let check = check_memory_of_ports(meminfo, &settings);
        assert_eq!(check.status, Status::Ok);
        // 32 × 8 MiB and 224 × 64 KiB; 256 MiB and 224 × 2 MiB.
        let (each, all) = ("8192 KiB for each queue", "270 MiB of the kernel and 704 of packet memory for 256 ports");
        assert!(check.text.contains(each) && check.text.contains(all), "{check:?}");
        let many = DataplaneSettings { capacity: Capacity { ports: 1000, ..settings.capacity }, ..settings };
        assert_eq!(check_memory_of_ports(meminfo, &many).status, Status::Ok, "1,000 guests fit");
        let sharing = DataplaneSettings { shared_queues: 1000, frames: 262_144, ..many };
        assert_eq!(check_memory_of_ports(meminfo, &sharing).status, Status::Warn);
    }

    #[test]
    fn what_each_port_may_hold_is_told_and_too_few_frames_are() {
        let settings = DataplaneSettings::default();
        let check = check_frames(&settings);
        assert_eq!(check.status, Status::Ok);
        assert!(
            check.text.contains("16384 are kept")
                && check.text.contains("32 ports may hold 96")
                && check.text.contains("224 further guests has 256"),
            "{}",
            check.text
        );
        let check = check_frames(&DataplaneSettings { frames: 8192, ..settings });
        assert_eq!(check.status, Status::Warn);
        assert!(check.text.contains("enough for 96 ports"), "{}", check.text);
        assert!(check.advice.as_deref().is_some_and(|advice| advice.contains("`dataplane.frames` to 32768")));
    }

    #[test]
    fn memory_is_measured_against_packet_memory() {
        let mib = |n: u64| n << 20;
        assert_eq!(check_memlock(mib(8), mib(256), 0, false).status, Status::Fail);
        assert_eq!(check_memlock(mib(8), mib(256), mib(448), true).status, Status::Ok);
        assert_eq!(check_memlock(mib(256), mib(256), 0, false).status, Status::Ok);
        assert_eq!(check_memlock(mib(256), mib(256), mib(448), false).status, Status::Warn);
        let meminfo = "MemAvailable:    1048576 kB\nHugePages_Free:      4\n";
        assert_eq!(check_memory(meminfo, mib(256), HugePages::Auto).status, Status::Ok);
        assert_eq!(check_memory(meminfo, mib(1000), HugePages::Auto).status, Status::Fail);
        assert_eq!(check_memory(meminfo, mib(256), HugePages::On).status, Status::Fail);
        assert_eq!(check_memory(meminfo, mib(8), HugePages::On).status, Status::Ok);
    }
}

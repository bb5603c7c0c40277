//! Answers of the daemon as tables.

use ctl_types::table::Table;
use ctl_types::{Check, GuestHolder, GuestSocket, PortEntry, PortState, Status};
use model::*;

/// A serialized word in the spelling of the API.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn vlan(mode: Option<&VlanMode>) -> String {
    match mode {
        None => String::new(),
        Some(VlanMode::Access { vid }) => format!("access:{vid}"),
        Some(VlanMode::Trunk { native, tagged }) => {
            format!("trunk:{tagged},native={}", native.map_or("none".to_owned(), |vid| vid.to_string()))
        }
    }
}

/// `port list`.
pub(crate) fn ports(ports: &[PortEntry]) -> String {
    let mut table = Table::new(&[
        "VPORT",
        "PORT",
        "KIND",
        "STATE",
        "LINK",
        "MODE",
        "NETDEV",
        "GUEST END",
        "MAC",
        "MTU",
        "VLAN",
        "MACS",
        "SPP",
    ]);
    for port in ports {
        let info = port.info.as_ref();
        let guest = match (&port.spec.guest_ifname, &port.spec.netns) {
            (Some(ifname), Some(netns)) => format!("{ifname} in {netns}"),
            (ifname, _) => ifname.clone().unwrap_or_default(),
        };
        table.row([
            port.spec.vport.map(|vport| vport.to_string()).unwrap_or_default(),
            port.name.clone(),
            word(&port.spec.kind),
            word(&port.state),
            info.map(|info| if info.link_up { "up" } else { "down" }.to_owned()).unwrap_or_default(),
            info.and_then(|info| info.mode).map(|mode| word(&mode)).unwrap_or_default(),
            netdev(&port.spec),
            guest,
            port.spec.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            port.spec.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            vlan(port.spec.vlan.as_ref()),
            info.map(|info| info.fdb_entries.to_string()).unwrap_or_default(),
            port.spec.spp.clone().unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    for port in ports.iter().filter(|port| port.state != PortState::Up) {
        text += &format!("{}: {}\n", port.name, port.error.as_deref().unwrap_or_default());
    }
    text
}

/// The switch's netdev, or the members of a bond.
fn netdev(spec: &PortSpec) -> String {
    let members = spec.bond.iter().flat_map(|bond| &bond.members);
    spec.ifname.iter().chain(members).cloned().collect::<Vec<_>>().join(",")
}

/// What there is to say of a bond. `bond show` says more.
fn bond(port: &PortEntry) -> Vec<(&'static str, String)> {
    let Some(spec) = &port.spec.bond else { return Vec::new() };
    let Some(info) = port.info.as_ref().and_then(|info| info.bond.as_ref()) else {
        return vec![("members", spec.members.join(", "))];
    };
    let describe = |name: &String| match info.members.iter().find(|member| member.ifname == *name) {
        None => format!("{name} (missing)"),
        Some(member) if member.distributing => format!("{name} ({}, sends)", member.mii_status),
        Some(member) => format!("{name} ({})", member.mii_status),
    };
    let members: Vec<_> = spec.members.iter().map(describe).collect();
    vec![("bond mode", info.mode.clone()), ("members", members.join(", ")), ("bond's MAC", info.mac.to_string())]
}

/// What there is to say of a tap.
fn tap(tap: &TapInfo) -> [(&'static str, String); 4] {
    let TapInfo { open_queues, vnet_hdr, owner, group, dropped } = tap;
    let vmm = match (open_queues, vnet_hdr) {
        (0, _) => "has not opened it",
        (_, true) => "has it, with virtio-net headers: checksums and segments are the kernel's",
        (_, false) => "has it",
    };
    let who = match (owner, group) {
        (Some(owner), Some(group)) => format!("user {owner}, in group {group}"),
        (Some(owner), None) => format!("user {owner}"),
        (None, Some(group)) => format!("group {group}"),
        (None, None) => "any user".to_owned(),
    };
    [
        ("VMM", vmm.to_owned()),
        ("tap's queues", format!("{open_queues} open")),
        ("tap is for", who),
        ("not taken", format!("{dropped} frames")),
    ]
}

/// What there is to say of a vhost-user port's guest.
fn vhost(info: &VhostInfo) -> Vec<(&'static str, String)> {
    let bits = |bits: u64| {
        let names: Vec<_> = virtio_net_features(bits).map(short).collect();
        format!("{bits:#x} ({})", names.join(" "))
    };
    let mut lines = vec![("front end", if info.connected { "connected" } else { "none" }.to_owned())];
    lines.push(("offered", bits(info.offered)));
    lines.extend(info.features.map(|features| ("features", bits(features))));
    if info.connected {
        lines.push(("protocol", format!("{:#x}", info.protocol_features)));
        lines.push(("guest memory", format!("{} regions", info.memory_regions)));
    }
    lines.push(("queue pairs", format!("{} active", info.active_pairs)));
    lines.push((
        "offloads",
        format!(
            "{} packets taken to be cut; {} sent whole, {} in segments, {} with a checksum filled",
            info.long_received, info.long_sent, info.segmented, info.checksums_filled
        ),
    ));
    lines.push((
        "lost at rings",
        format!("{} malformed, {} without room, {} not enabled", info.malformed, info.no_room, info.disabled),
    ));
    lines.push(("sessions", info.sessions.to_string()));
    lines.extend(info.last_error.iter().map(|error| ("last error", error.clone())));
    lines
}

/// A feature's name without what all of them begin with.
fn short(name: &'static str) -> &'static str {
    ["VIRTIO_NET_F_", "VIRTIO_F_", "VHOST_USER_F_", "VHOST_F_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// `port show`.
pub(crate) fn port(port: &PortEntry) -> String {
    let spec = &port.spec;
    let mut lines = vec![
        ("port", port.name.clone()),
        ("number", spec.vport.map(|vport| vport.to_string()).unwrap_or_default()),
        ("uuid", spec.uuid().to_owned()),
        ("kind", word(&spec.kind)),
        ("state", word(&port.state)),
    ];
    lines.extend(port.error.iter().map(|error| ("error", error.clone())));
    if let Some(info) = &port.info {
        lines.push(("link", if info.link_up { "up" } else { "down" }.to_owned()));
        let reason = info.mode_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        lines.extend(info.mode.map(|mode| ("XDP mode", word(&mode) + &reason)));
        if let (Some(ifname), Some(ifindex)) = (&spec.ifname, info.ifindex) {
            lines.push(("netdev", format!("{ifname} (#{ifindex})")));
        }
    }
    lines.extend(bond(port));
    if let Some(vhost) = &spec.vhost {
        let fields = [("owner", &vhost.owner), ("group", &vhost.group), ("mode", &vhost.mode)];
        let access: String =
            fields.iter().filter_map(|(name, value)| Some(format!(", {name} {}", (*value).as_ref()?))).collect();
        lines.push(("socket", format!("{} ({}{access})", vhost.socket, word(&vhost.role))));
    }
    if let Some(vhost) = port.info.as_ref().and_then(|info| info.vhost.as_ref()) {
        lines.extend(self::vhost(vhost));
    }
    lines.extend(spec.spp.iter().map(|name| ("SPP", name.clone())));
    if let Some(ifname) = &spec.guest_ifname {
        let netns = spec.netns.as_ref().map(|netns| format!(" in namespace {netns}")).unwrap_or_default();
        let end = if spec.kind == PortKind::Tap { "tap" } else { "guest end" };
        lines.push((end, format!("{ifname}{netns}")));
    }
    lines.extend(port.info.as_ref().and_then(|info| info.tap.as_ref()).into_iter().flat_map(tap));
    let shared = if spec.shared_mac { " (shared)" } else { "" };
    lines.extend(spec.mac.map(|mac| ("MAC", format!("{mac}{shared}"))));
    let max = port.info.as_ref().map(|info| format!(" (at most {})", info.max_mtu)).unwrap_or_default();
    lines.extend(spec.mtu.map(|mtu| ("MTU", format!("{mtu}{max}"))));
    lines.push(("VLAN", vlan(spec.vlan.as_ref())));
    lines.push(("steering", word(&spec.steering)));
    lines.push(("isolated", spec.isolated.to_string()));
    lines.push(("MAC check", spec.mac_check.unwrap_or(false).to_string()));
    if let Some(info) = &port.info {
        let limit = spec.fdb_limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
        lines.push(("MACs learned", format!("{}{limit}", info.fdb_entries)));
        lines.push(("bound queues", format!("{} of {}", info.active_queues, info.queues.len())));
        for queue in &info.queues {
            let copy = if queue.zero_copy { "zero-copy" } else { "copy" };
            let memory = if queue.own_umem { ", packet memory of its own" } else { "" };
            lines.push(("queue", format!("{}: worker {}, {copy}{memory}", queue.queue, queue.worker)));
        }
    }
    if let Some(end) = port.info.as_ref().and_then(|info| info.guest_end.as_ref()) {
        let reason = end.mode_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        lines.push(("guest's XDP", format!("{}{reason}, sockets in {}", word(&end.mode), end.map_path)));
        for GuestQueue { queue, redirect, drop_no_socket, drop_unbound } in &end.queues {
            lines.push((
                "for the guest",
                format!(
                    "queue {queue}: {redirect} packets to its socket, {drop_unbound} dropped before it was bound, \
                     {drop_no_socket} dropped without one"
                ),
            ));
        }
        lines.push(("guest", port.guest.as_ref().map_or("none".to_owned(), holder)));
    }
    for GuestSocket { queue, bound, xsk } in port.guest.iter().flat_map(|guest| &guest.sockets) {
        let lost: Vec<_> = xsk.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let bound = if *bound { "bound" } else { "not bound" };
        lines.push(("guest socket", format!("queue {queue}: {bound}, {}", lost.join(", "))));
    }
    lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}

/// A time in seconds since 1970, as date and time in UTC.
fn time(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds));
    time.map(|time| humantime::format_rfc3339_seconds(time).to_string()).unwrap_or_default()
}

fn holder(guest: &GuestHolder) -> String {
    let user = guest.uid.map(|uid| format!(" of user {uid}")).unwrap_or_default();
    let state = match guest.bound_since {
        Some(bound) => format!("bound since {}", time(bound)),
        None => format!("has its sockets since {} and has not bound them", time(guest.since)),
    };
    format!("process {} ({}){user}, {state}", guest.pid, guest.command)
}

/// `stats`.
pub(crate) fn stats(report: &StatsReport, with_queues: bool) -> String {
    let mut table = Table::new(&[
        "PORT",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
        "FLOOD COPIES",
        "MIRRORED",
        "REDIRECTED",
        "DROPPED",
    ]);
    let mut drops = Table::new(&["DROPPED AT", "REASON", "PACKETS", "BYTES"]);
    let running = report
        .running
        .iter()
        .flat_map(|component| component.drops.iter().map(|(reason, count)| (component.name.clone(), reason, count)));
    let retired = (report.retired.rx.packets > 0 || !report.retired.drops.is_empty()) && !with_queues;
    let gone = PortStats { name: "(ports that are gone)".to_owned(), ..report.retired.clone() };
    for port in report.ports.iter().chain(retired.then_some(&gone)) {
        let dropped: u64 = port.drops.values().map(|count| count.packets).sum();
        table.row([
            port.name.clone(),
            port.rx.packets.to_string(),
            port.rx.bytes.to_string(),
            port.tx.packets.to_string(),
            port.tx.bytes.to_string(),
            port.flood_copies.packets.to_string(),
            port.mirror_copies.packets.to_string(),
            port.redirected.packets.to_string(),
            dropped.to_string(),
        ]);
        for (reason, count) in &port.drops {
            drops.row([port.name.clone(), reason.clone(), count.packets.to_string(), count.bytes.to_string()]);
        }
    }
    let mut text = table.render();
    for (name, reason, count) in running {
        drops.row([name, reason.clone(), count.packets.to_string(), count.bytes.to_string()]);
    }
    text += &panel(report);
    if !drops.is_empty() {
        text += &format!("\n{}", drops.render());
    }
    if with_queues {
        for NicStats { rx_packets, tx_packets, rx_bytes, tx_bytes, rx_drop, tx_drop, rx_error, tx_error } in
            report.ports.iter().map(|port| port.nic)
        {
            let mut table = Table::new(&["AS ITS NIC COUNTS", "PACKETS", "BYTES", "DROPPED", "ERRORS"]);
            for (name, numbers) in [
                ("received", [rx_packets, rx_bytes, rx_drop, rx_error]),
                ("sent", [tx_packets, tx_bytes, tx_drop, tx_error]),
            ] {
                table.row(std::iter::once(name.to_owned()).chain(numbers.iter().map(u64::to_string)));
            }
            text += &format!("\n{}", table.render());
        }
        for queue in report.ports.iter().flat_map(|port| &port.queues) {
            text += &format!("\nqueue {}: rx {}, tx {} packets\n", queue.queue, queue.rx.packets, queue.tx.packets);
            for (source, counters) in [("XDP program", &queue.xdp), ("AF_XDP socket", &queue.xsk)] {
                for (name, value) in counters {
                    text += &format!("  {source}: {name} {value}\n");
                }
            }
        }
    }
    text
}

/// Counters of the Soft Patch Panel: components, ends and flow rules, if there are any.
pub(crate) fn panel(report: &StatsReport) -> String {
    let tables = [components(&report.running), ends(&report.ends), flow_rules(&report.flow_rules)];
    tables.iter().filter(|table| !table.is_empty()).map(|table| format!("\n{}", table.render())).collect()
}

fn components(components: &[ComponentInfo]) -> Table {
    let mut table = Table::new(&[
        "COMPONENT",
        "TYPE",
        "WORKER",
        "FROM",
        "TO",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
        "DROPPED",
    ]);
    let list = |ends: &[EndPort]| ends.iter().map(EndPort::to_string).collect::<Vec<_>>().join(", ");
    for ComponentInfo { name, worker, kind, ready, from, to, rx, tx, dropped, .. } in components {
        let waits = if *ready { "" } else { " (lacks ends)" };
        table.row([
            name.clone(),
            word(kind) + waits,
            worker.to_string(),
            list(from),
            list(to),
            rx.packets.to_string(),
            rx.bytes.to_string(),
            tx.packets.to_string(),
            tx.bytes.to_string(),
            dropped.packets.to_string(),
        ]);
    }
    table
}

fn ends(ends: &[EndInfo]) -> Table {
    let mut table = Table::new(&["END", "PUT IN", "TAKEN OUT", "DROPPED", "WAITING"]);
    for EndInfo { end, rx, tx, tx_dropped, rx_dropped, queued } in ends {
        let dropped = tx_dropped.packets + rx_dropped.packets;
        let numbers = [tx.packets, rx.packets, dropped, u64::from(*queued)];
        table.row(std::iter::once(end.to_string()).chain(numbers.iter().map(u64::to_string)));
    }
    table
}

fn flow_rules(rules: &[FlowCount]) -> Table {
    let mut table = Table::new(&["PORT", "FLOW RULE", "PACKETS", "BYTES"]);
    for FlowCount { port, rule, matched } in rules {
        table.row([port.clone(), rule.to_string(), matched.packets.to_string(), matched.bytes.to_string()]);
    }
    table
}

/// `fdb list`.
pub(crate) fn fdb(rows: &[FdbEntry]) -> String {
    let mut table = Table::new(&["MAC", "VLAN", "PORT", "KIND", "AGE"]);
    for row in rows {
        let age = if row.kind == FdbKind::Static { String::new() } else { format!("{} s", row.age_seconds) };
        let kind = if row.held { format!("{}, held", word(&row.kind)) } else { word(&row.kind) };
        table.row([row.mac.to_string(), row.vlan.to_string(), row.port.clone(), kind, age]);
    }
    table.render()
}

/// `bridge show`.
pub(crate) fn bridge(bridge: &BridgeSettings) -> String {
    format!(
        "MAC table limit       {}\nMAC ageing            {} s\nforward reserved MACs {}\nmoves of a MAC        {} a second, at most\nstorm control         {}\n",
        bridge.fdb_limit,
        bridge.fdb_ageing_seconds,
        bridge.forward_reserved,
        bridge.flap_limit,
        match bridge.storm_control {
            0 => "none".to_owned(),
            copies => format!("{copies} copies/s of a port's floods"),
        }
    )
}

/// `trace`.
pub(crate) fn trace(report: &TraceReport) -> String {
    let steps: String = report.steps.iter().map(|step| format!("{:<11} {}\n", step.stage, step.detail)).collect();
    let outputs = if report.outputs.is_empty() { String::new() } else { format!(" to {}", report.outputs.join(", ")) };
    let reason = report.drop_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{steps}=> {}{outputs}{reason}\n", report.verdict)
}

/// `flows`.
pub(crate) fn flows(report: &FlowTableReport) -> String {
    let FlowTableReport { table, flows } = report;
    if !table.on {
        return match &table.reason {
            Some(reason) => format!("there is no flow table: {reason}\n"),
            None => "there is no flow table: flow_offload is off in [dataplane]\n".to_owned(),
        };
    }
    let mut text = format!(
        "{} flows of {} slots, {} of them moving; {} packets went on in the kernel\n",
        table.flows, table.slots, table.moving, table.count.packets
    );
    if flows.is_empty() {
        return text;
    }
    let mut rows =
        Table::new(&["FROM", "QUEUE", "TO", "FLOW", "VERDICT", "RULE", "STATE", "PACKETS/S", "PACKETS", "AGE"]);
    for flow in flows {
        let state = match flow.state {
            OffloadState::Moving => "moving",
            OffloadState::Kernel => "kernel",
        };
        rows.row([
            flow.port.clone(),
            flow.queue.to_string(),
            flow.egress.clone().unwrap_or_default(),
            flow.flow.clone(),
            flow.verdict.clone(),
            flow.rule.map(|rule| rule.to_string()).unwrap_or_default(),
            state.to_owned(),
            flow.rate.to_string(),
            flow.count.packets.to_string(),
            format!("{:.1}s", flow.age_ms as f64 / 1e3),
        ]);
    }
    text += &rows.render();
    if table.flows as usize > flows.len() {
        text += &format!("{} of {} flows are shown: --limit\n", flows.len(), table.flows);
    }
    text
}

/// `workers`.
pub(crate) fn workers(workers: &[WorkerInfo]) -> String {
    let mut table = Table::new(&["WORKER", "CPU", "QUEUES", "PACKETS", "BURSTS", "PACKETS/BURST", "SLEEPS"]);
    for worker in workers {
        let mean = worker.packets as f64 / worker.bursts.max(1) as f64;
        table.row([
            worker.worker.to_string(),
            worker.cpu.map(|cpu| cpu.to_string()).unwrap_or_default(),
            worker.queues.to_string(),
            worker.packets.to_string(),
            worker.bursts.to_string(),
            format!("{mean:.1}"),
            worker.sleeps.to_string(),
        ]);
    }
    table.render()
}

/// `audit`.
pub(crate) fn audit(audit: &FrameAudit) -> String {
    let pages = if audit.huge_pages { "huge" } else { "ordinary" };
    let mut text = format!(
        "frames      {} (on {pages} pages)\nfree        {}\nto be filled {}\nto be sent  {}\nin transit  {}\nconsistent  {}\n",
        audit.frames, audit.free, audit.rx, audit.tx, audit.in_transit, audit.consistent
    );
    if audit.own > 0 {
        text += &format!("of queues   {} more\n", audit.own);
    }
    for problem in &audit.problems {
        text += &format!("problem: {problem}\n");
    }
    text
}

/// `doctor`.
pub(crate) fn doctor(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mark = match check.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        let advice = check.advice.as_ref().map(|advice| format!("\n       -> {advice}")).unwrap_or_default();
        format!("{mark}  {}: {}{advice}\n", check.name, check.text)
    };
    checks.iter().map(line).collect()
}

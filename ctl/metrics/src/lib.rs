//! The Prometheus endpoint: all counters of the switch, read at the time of a scrape.
//!
//! Names follow the conventions of Prometheus: base units, and `_total` for counters. The series of a port end when it
//! is deleted. Its counts are added to the `xswitch_retired_…` sums, so totals over all ports never decrease.
//!
//! The daemon serves it, and nothing else depends on this crate. A scrape runs on a thread that may block.
#![forbid(unsafe_code)]

mod bonds;
mod config;
mod disks;
mod endpoint;
mod text;

use ctl_service::Service;
use ctl_types::{GuestSocket, PortEntry, PortState};
use model::*;

pub use self::config::MetricsConfig;
pub use self::endpoint::router;
use self::text::Families;

/// The text of a scrape.
pub fn scrape(service: &Service) -> String {
    let dataplane = service.dataplane();
    let mut families = Families::default();
    let ports = service.ports_in_brief();
    let infos: Vec<_> = ports.iter().filter_map(|port| port.info.as_ref()).collect();
    for port in &ports {
        let up = port.state != PortState::Failed && port.info.as_ref().is_some_and(|info| info.link_up);
        families.gauge(
            "xswitch_port_up",
            "Whether the port works and its netdev has carrier.",
            &[("port", &port.name)],
            f64::from(u8::from(up)),
        );
        families.gauge(
            "xswitch_port_degraded",
            "Whether something outside of the switch keeps the port from its work.",
            &[("port", &port.name)],
            f64::from(u8::from(port.state == PortState::Degraded)),
        );
    }
    infos.iter().for_each(|info| families.port_info(info));
    ports.iter().for_each(|port| families.guest(port));
    let stats = dataplane.stats();
    stats.ports.iter().for_each(|port| families.port(port));
    families.retired(&stats.retired);
    families.gauge(
        "xswitch_unaccounted_packets",
        "Packets that went in and neither came out nor were dropped yet.",
        &[],
        stats.unaccounted_packets as f64,
    );
    let help = "MAC addresses that flapped between ports and are held at the first one.";
    families.gauge("xswitch_fdb_held_addresses", help, &[], dataplane.held_addresses().len() as f64);
    let help = "Times that a MAC address was held because it flapped between ports.";
    families.counter("xswitch_fdb_holds_total", help, &[], dataplane.address_holds());
    families.tables(service);
    families.flow_table(&dataplane.flow_offload());
    dataplane.workers().iter().for_each(|worker| families.worker(worker));
    stats.running.iter().for_each(|component| families.component(component));
    stats.ends.iter().for_each(|end| families.end(end));
    for FlowCount { port, rule, matched } in &stats.flow_rules {
        let spp = ports.iter().find(|entry| entry.name == *port).and_then(|entry| entry.spec.spp.as_ref());
        families.flow_rule(spp.unwrap_or(port), *rule, *matched);
    }
    service.disks().entries().iter().for_each(|disk| families.disk(disk));
    service.disks().stats().iter().for_each(|stats| families.disk_stats(stats));
    families.frames(dataplane.frames());
    families.gauge("xswitch_build_info", "Version of the daemon.", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    families.daemon(service);
    families.finish()
}

impl Families {
    /// What concerns the daemon as a process.
    fn daemon(&mut self, service: &Service) {
        let lost = "Lines of the log that were lost, because standard error was full, slow or gone.";
        self.counter("xswitch_log_lines_lost_total", lost, &[], ctl_stdio::lost_lines());
        for (file, part) in service.upkeep().parts() {
            let missing = f64::from(u8::from(part.missing.is_some()));
            let help = "Whether a file or socket of the daemon is gone or can't be written.";
            self.gauge("xswitch_file_lost", help, &[("file", file)], missing);
            let help = "Times that a file or socket of the daemon was removed or replaced, and made again.";
            self.counter("xswitch_file_repairs_total", help, &[("file", file)], part.repairs);
        }
    }

    fn port_info(&mut self, info: &PortInfo) {
        let kind = info.spec.kind.name();
        let mode = match info.mode {
            Some(Mode::Native) => "native",
            Some(Mode::Generic) => "generic",
            // No XDP program has to do with its packets.
            None => "none",
        };
        let (name, vport) = (info.spec.name.as_str(), info.vport.to_string());
        let ifname = info.spec.ifname.as_deref().unwrap_or_default();
        let labels = [("port", name), ("vport", &vport), ("kind", kind), ("mode", mode), ("ifname", ifname)];
        self.gauge("xswitch_port_info", "What the port is; always 1.", &labels, 1.0);
        let mtu = f64::from(info.spec.mtu.unwrap_or(DEFAULT_MTU));
        self.gauge("xswitch_port_mtu_bytes", "Layer 3 MTU of the port.", &[("port", name)], mtu);
        if let Some(tap) = &info.tap {
            let help = "Queues of the port's tap that a VMM has open; 0 without a VMM.";
            self.gauge("xswitch_tap_open_queues", help, &[("port", name)], f64::from(tap.open_queues));
        }
        if let Some(vhost) = &info.vhost {
            self.vhost(name, vhost);
        }
        if let Some((spec, bond)) = info.spec.bond.as_ref().zip(info.bond.as_ref()) {
            self.bond(name, spec, bond);
        }
        let entries = f64::from(info.fdb_entries);
        self.gauge("xswitch_fdb_entries", "MAC addresses learned on the port.", &[("port", name)], entries);
    }

    /// The guest of a vhost-user port.
    fn vhost(&mut self, name: &str, info: &VhostInfo) {
        let here = [("port", name)];
        let help = "Whether a front end is connected to the vhost-user port.";
        self.gauge("xswitch_vhost_connected", help, &here, f64::from(u8::from(info.connected)));
        let help = "Queue pairs of the vhost-user port of which both rings run and are enabled.";
        self.gauge("xswitch_vhost_active_pairs", help, &here, f64::from(info.active_pairs));
        let help = "Front ends that have connected to the vhost-user port since it was added.";
        self.counter("xswitch_vhost_sessions_total", help, &here, info.sessions);
        for (outcome, packets) in [
            ("long_received", info.long_received),
            ("long_sent", info.long_sent),
            ("segmented", info.segmented),
            ("checksum_filled", info.checksums_filled),
        ] {
            let help = "Packets of a vhost-user port with offloads, by what was done: taken to be cut, sent whole, sent \
                        in segments, checksum filled.";
            let labels = [("port", name), ("outcome", outcome)];
            self.counter("xswitch_vhost_offload_packets_total", help, &labels, packets);
        }
        for (reason, packets) in [("malformed", info.malformed), ("no_room", info.no_room), ("disabled", info.disabled)]
        {
            let help = "Packets that were lost at the rings of a vhost-user port: the guest's that were none, those \
                        that its buffers had no room for, those of a ring that it had not enabled.";
            self.counter("xswitch_vhost_lost_packets_total", help, &[("port", name), ("reason", reason)], packets);
        }
    }

    /// The guest's end of a port, if it is open.
    fn guest(&mut self, port: &PortEntry) {
        let Some(end) = port.info.as_ref().and_then(|info| info.guest_end.as_ref()) else { return };
        let name = port.name.as_str();
        let bound = port.guest.as_ref().is_some_and(|guest| guest.bound_since.is_some());
        self.gauge(
            "xswitch_guest_bound",
            "Whether a process has bound the sockets that it was given of the port's guest's end.",
            &[("port", name)],
            f64::from(u8::from(bound)),
        );
        for GuestQueue { queue, redirect, drop_no_socket, drop_unbound } in &end.queues {
            let queue = queue.to_string();
            for (outcome, packets) in
                [("redirect", redirect), ("drop_no_socket", drop_no_socket), ("drop_unbound", drop_unbound)]
            {
                let labels = [("port", name), ("queue", queue.as_str()), ("outcome", outcome)];
                let help = "Packets for the guest by what the XDP program on the guest's end did with them.";
                self.counter("xswitch_guest_xdp_packets_total", help, &labels, *packets);
            }
        }
        for GuestSocket { queue, xsk, .. } in port.guest.iter().flat_map(|guest| &guest.sockets) {
            let queue = queue.to_string();
            for (counter, value) in xsk {
                let labels = [("port", name), ("queue", queue.as_str()), ("event", counter.as_str())];
                let help = "Counters of the guest's AF_XDP socket (XDP_STATISTICS); they start anew with each guest.";
                self.counter("xswitch_guest_xsk_events_total", help, &labels, *value);
            }
        }
    }

    fn port(&mut self, port: &PortStats) {
        let name = port.name.as_str();
        let here = [("port", name)];
        let rx = "Frames that came in from the port.";
        self.counter("xswitch_port_receive_packets_total", rx, &here, port.rx.packets);
        let rx = "Bytes of frames that came in from the port, without FCS.";
        self.counter("xswitch_port_receive_bytes_total", rx, &here, port.rx.bytes);
        let tx = "Frames that went out to the port.";
        self.counter("xswitch_port_transmit_packets_total", tx, &here, port.tx.packets);
        let tx = "Bytes of frames that went out to the port, without FCS.";
        self.counter("xswitch_port_transmit_bytes_total", tx, &here, port.tx.bytes);
        let copies = "Further copies made to flood frames that came in from the port.";
        self.counter("xswitch_port_flood_copies_total", copies, &here, port.flood_copies.packets);
        let copies = "Copies of frames that came in from the port, made by the mirrors of traffic rules.";
        self.counter("xswitch_port_mirror_copies_total", copies, &here, port.mirror_copies.packets);
        let help = "Frames that were for the port and went elsewhere by a redirect.";
        self.counter("xswitch_port_redirected_packets_total", help, &here, port.redirected.packets);
        let help = "Bytes of frames that were for the port and went elsewhere by a redirect.";
        self.counter("xswitch_port_redirected_bytes_total", help, &here, port.redirected.bytes);
        self.nic(name, &port.nic);
        let tags = "VLAN tags pushed on frames that came in from the port.";
        self.counter("xswitch_port_vlan_pushes_total", tags, &here, port.vlan_pushes);
        let tags = "VLAN tags popped from frames that came in from the port.";
        self.counter("xswitch_port_vlan_pops_total", tags, &here, port.vlan_pops);
        for (reason, count) in &port.drops {
            let labels = [("port", name), ("reason", reason.as_str())];
            self.counter(
                "xswitch_port_dropped_packets_total",
                "Frames dropped at the port, by reason.",
                &labels,
                count.packets,
            );
            let help = "Bytes of frames dropped at the port, by reason.";
            self.counter("xswitch_port_dropped_bytes_total", help, &labels, count.bytes);
        }
        for queue in &port.queues {
            self.queue(name, queue);
        }
    }

    fn queue(&mut self, port: &str, queue: &QueueStats) {
        let number = queue.queue.to_string();
        let labels = [("port", port), ("queue", number.as_str())];
        let rx = "Frames that the switch took from the queue.";
        self.counter("xswitch_queue_receive_packets_total", rx, &labels, queue.rx.packets);
        let tx = "Frames that the switch gave to the queue.";
        self.counter("xswitch_queue_transmit_packets_total", tx, &labels, queue.tx.packets);
        for (outcome, packets) in &queue.xdp {
            let labels = [labels[0], labels[1], ("outcome", outcome.as_str())];
            let help = "Packets that the queue's XDP program saw, by what it did with them.";
            self.counter("xswitch_xdp_packets_total", help, &labels, *packets);
        }
        for (event, count) in &queue.xsk {
            let labels = [labels[0], labels[1], ("event", event.as_str())];
            let help = "Events of the queue's AF_XDP socket, by their name in the kernel's XDP_STATISTICS.";
            self.counter("xswitch_xsk_events_total", help, &labels, *count);
        }
    }

    /// A port's counters as seen by the NIC at its other end.
    fn nic(&mut self, port: &str, nic: &NicStats) {
        let here = [("port", port)];
        for (name, help, value) in [
            ("xswitch_nic_receive_packets_total", "Frames delivered to the port's other end.", nic.rx_packets),
            ("xswitch_nic_receive_bytes_total", "Bytes delivered to the port's other end.", nic.rx_bytes),
            ("xswitch_nic_receive_drop_total", "Frames for the port's other end that were dropped.", nic.rx_drop),
            (
                "xswitch_nic_receive_errors_total",
                "Frames for the port's other end that the kernel refused.",
                nic.rx_error,
            ),
            ("xswitch_nic_transmit_packets_total", "Frames sent by the port's other end.", nic.tx_packets),
            ("xswitch_nic_transmit_bytes_total", "Bytes sent by the port's other end.", nic.tx_bytes),
            ("xswitch_nic_transmit_drop_total", "Frames sent by the port's other end that were dropped.", nic.tx_drop),
            (
                "xswitch_nic_transmit_errors_total",
                "Frames sent by the port's other end that were broken.",
                nic.tx_error,
            ),
        ] {
            self.counter(name, help, &here, value);
        }
    }

    /// Meters, rules and redirects. Only rules that have matched get series of their own.
    fn tables(&mut self, service: &Service) {
        let dataplane = service.dataplane();
        for (table, Usage { total, free }) in
            [("meters", dataplane.meter_usage()), ("rules", dataplane.rule_usage()), ("disks", service.disks().usage())]
        {
            let here = [("table", table)];
            self.gauge("xswitch_table_entries", "Entries of the table.", &here, f64::from(total - free));
            self.gauge("xswitch_table_capacity", "Entries that the table can have.", &here, f64::from(total));
        }
        let masks = dataplane.rule_masks() as f64;
        self.gauge("xswitch_rule_masks", "Distinct masks of the traffic rules.", &[], masks);
        for meter in dataplane.meters(0, usize::MAX) {
            let id = meter.spec.id.to_string();
            for (color, count) in [("green", meter.green), ("yellow", meter.yellow), ("red", meter.red)] {
                let here = [("meter", id.as_str()), ("color", color)];
                let help =
                    "Frames that the meter was asked for, by the colour that it gave them; red ones were dropped.";
                self.counter("xswitch_meter_packets_total", help, &here, count.packets);
                let help = "Bytes of frames that the meter was asked for, by the colour that it gave them.";
                self.counter("xswitch_meter_bytes_total", help, &here, count.bytes);
            }
        }
        for (index, matched) in dataplane.rules_applied() {
            let index = index.to_string();
            let here = [("key_index", index.as_str())];
            let help = "Frames that the traffic rule was applied to.";
            self.counter("xswitch_rule_packets_total", help, &here, matched.packets);
            let help = "Bytes of frames that the traffic rule was applied to.";
            self.counter("xswitch_rule_bytes_total", help, &here, matched.bytes);
        }
        for redirect in dataplane.redirects() {
            let (src, dest) = (redirect.spec.src.to_string(), redirect.spec.dest.to_string());
            let here = [("src", src.as_str()), ("dest", dest.as_str())];
            self.gauge("xswitch_redirect_info", "A redirect between vports; always 1.", &here, 1.0);
        }
    }

    fn retired(&mut self, retired: &PortStats) {
        let rx = "Frames that had come in from ports that are gone.";
        self.counter("xswitch_retired_receive_packets_total", rx, &[], retired.rx.packets);
        let tx = "Frames that had gone out to ports that are gone.";
        self.counter("xswitch_retired_transmit_packets_total", tx, &[], retired.tx.packets);
        for (reason, count) in &retired.drops {
            let help = "Frames dropped at ports that are gone, by reason.";
            self.counter("xswitch_retired_dropped_packets_total", help, &[("reason", reason)], count.packets);
        }
    }

    fn flow_table(&mut self, table: &FlowOffloadInfo) {
        if !table.on {
            return;
        }
        let name = "xswitch_flow_table_flows";
        let in_kernel = table.flows.saturating_sub(table.moving);
        for (state, flows) in [("kernel", in_kernel), ("moving", table.moving)] {
            self.gauge(name, "Flows in the flow table of XDP.", &[("state", state)], flows.into());
        }
        self.gauge("xswitch_flow_table_slots", "Slots of the flow table.", &[], table.slots.into());
        let help = "Flows that came into the flow table.";
        self.counter("xswitch_flow_table_installed_total", help, &[], table.installed);
        let help = "Flows that found no place in the flow table, or whose port had its share.";
        self.counter("xswitch_flow_table_refused_total", help, &[], table.refused);
        for (why, ended) in [
            ("policy", table.ended_by_policy),
            ("fdb", table.ended_by_fdb),
            ("idle", table.ended_by_idleness),
            ("port", table.ended_by_port),
            ("stuck", table.stuck),
        ] {
            let help = "Flows that left the flow table, by why.";
            self.counter("xswitch_flow_table_ended_total", help, &[("why", why)], ended);
        }
        let help = "Packets that went on in the kernel by the flow table, or were dropped there by a rule.";
        self.counter("xswitch_flow_table_packets_total", help, &[], table.count.packets);
        let help = "Bytes of these packets.";
        self.counter("xswitch_flow_table_bytes_total", help, &[], table.count.bytes);
    }

    fn worker(&mut self, worker: &WorkerInfo) {
        let number = worker.worker.to_string();
        let labels = [("worker", number.as_str())];
        self.gauge("xswitch_worker_queues", "Port queues that the worker polls.", &labels, worker.queues as f64);
        self.counter("xswitch_worker_bursts_total", "Bursts with at least one frame.", &labels, worker.bursts);
        self.counter("xswitch_worker_packets_total", "Frames that the worker took in.", &labels, worker.packets);
        self.counter(
            "xswitch_worker_idle_polls_total",
            "Turns of the worker that found nothing.",
            &labels,
            worker.idle_polls,
        );
        self.counter("xswitch_worker_sleeps_total", "Times that the worker went to sleep.", &labels, worker.sleeps);
        let LookupCounts { flow_cache, exact_match, classifier } = worker.lookups;
        for (by, count) in [("memory", flow_cache), ("cache", exact_match), ("tables", classifier)] {
            let help = "Frames whose traffic rule was looked up, by what knew it: memory of decisions, cache, tables of all masks.";
            let labels = [("worker", number.as_str()), ("by", by)];
            self.counter("xswitch_worker_rule_lookups_total", help, &labels, count);
        }
    }

    /// A component of the Soft Patch Panel.
    fn component(&mut self, component: &ComponentInfo) {
        let ComponentInfo { name, worker, rx, tx, drops, .. } = component;
        let worker = worker.to_string();
        let labels = [("component", name.as_str()), ("worker", &worker)];
        self.gauge("xswitch_component_info", "A component and the worker that runs it; always 1.", &labels, 1.0);
        let here = [("component", name.as_str())];
        let taken = "Frames that the component took from its receiving ends.";
        self.counter("xswitch_component_rx_packets_total", taken, &here, rx.packets);
        let taken = "Bytes of frames that the component took from its receiving ends.";
        self.counter("xswitch_component_rx_bytes_total", taken, &here, rx.bytes);
        let given = "Frames that the component gave to its sending ends, copies too.";
        self.counter("xswitch_component_tx_packets_total", given, &here, tx.packets);
        let given = "Bytes of frames that the component gave to its sending ends, copies too.";
        self.counter("xswitch_component_tx_bytes_total", given, &here, tx.bytes);
        for (reason, count) in drops {
            let here = [("component", name.as_str()), ("reason", reason.as_str())];
            let lost = "Frames that the component dropped, by reason.";
            self.counter("xswitch_component_dropped_packets_total", lost, &here, count.packets);
            let lost = "Bytes of frames that the component dropped, by reason.";
            self.counter("xswitch_component_dropped_bytes_total", lost, &here, count.bytes);
        }
    }

    /// A flow rule. `port` is the SPP name of its port.
    fn flow_rule(&mut self, port: &str, rule: u32, matched: Count) {
        let rule = rule.to_string();
        let here = [("port", port), ("rule", rule.as_str())];
        let met = "Frames that met the flow rule.";
        self.counter("xswitch_flow_rule_packets_total", met, &here, matched.packets);
        let met = "Bytes of frames that met the flow rule, as long as they were then.";
        self.counter("xswitch_flow_rule_bytes_total", met, &here, matched.bytes);
    }

    /// A ring between components. The traffic of other ends shows in the counters of their components.
    fn end(&mut self, end: &EndInfo) {
        let EndPort::Ring(no) = end.end else { return };
        let no = no.to_string();
        let here = [("ring", no.as_str())];
        let taken = "Frames that components took from the ring.";
        self.counter("xswitch_ring_rx_packets_total", taken, &here, end.rx.packets);
        let put = "Frames that components put into the ring.";
        self.counter("xswitch_ring_tx_packets_total", put, &here, end.tx.packets);
        let lost = "Frames that did not fit into the ring, and were dropped.";
        self.counter("xswitch_ring_tx_dropped_packets_total", lost, &here, end.tx_dropped.packets);
        self.gauge("xswitch_ring_frames", "Frames in the ring now.", &here, f64::from(end.queued));
    }

    fn frames(&mut self, FramePlaces { free, rx, tx, in_transit }: FramePlaces) {
        for (place, frames) in [("free", free), ("rx", rx), ("tx", tx), ("in_transit", in_transit)] {
            let help = "Frames of packet memory, by where they are.";
            self.gauge("xswitch_umem_frames", help, &[("place", place)], f64::from(frames));
        }
    }
}

//! Series of bonds.

use model::{BondInfo, BondLacpInfo, BondMemberInfo, BondSpec};

use crate::text::Families;

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn number(value: usize) -> f64 {
    value as f64
}

impl Families {
    /// A bond and its members. `spec` has the configured ones, which need not be there.
    pub(crate) fn bond(&mut self, port: &str, spec: &BondSpec, info: &BondInfo) {
        let here = [("port", port)];
        let labels = [("port", port), ("mode", info.mode.as_str())];
        self.gauge("xswitch_bond_info", "What the bond is; always 1.", &labels, 1.0);
        let help = "Whether frames can be sent by the bond.";
        self.gauge("xswitch_bond_carrier", help, &here, flag(info.carrier));
        let help = "Configured members of the bond.";
        self.gauge("xswitch_bond_members", help, &here, number(spec.members.len()));
        let help = "Members of the bond that frames go out by now.";
        let sending = info.members.iter().filter(|member| member.distributing).count();
        self.gauge("xswitch_bond_active_members", help, &here, number(sending));
        if let Some(lacp) = &info.lacp {
            self.bond_lacp(port, lacp);
        }
        for name in &spec.members {
            let labels = [("port", port), ("member", name.as_str())];
            let is_there = info.members.iter().any(|member| member.ifname == *name);
            let help = "Whether a configured member of the bond is missing.";
            self.gauge("xswitch_bond_member_missing", help, &labels, flag(!is_there));
        }
        info.members.iter().for_each(|member| self.bond_member(port, info, member));
    }

    /// The active aggregator.
    fn bond_lacp(&mut self, port: &str, lacp: &BondLacpInfo) {
        let BondLacpInfo { aggregator, ports, actor_key, partner_key, partner, .. } = lacp;
        let help = "Links in the active aggregator of the bond.";
        self.gauge("xswitch_bond_aggregator_ports", help, &[("port", port)], number(*ports));
        let Some(aggregator) = aggregator else { return };
        let text = (aggregator.to_string(), actor_key.to_string(), partner_key.to_string(), partner.to_string());
        let labels = [
            ("port", port),
            ("aggregator", text.0.as_str()),
            ("actor_key", text.1.as_str()),
            ("partner_key", text.2.as_str()),
            ("partner", text.3.as_str()),
        ];
        let help = "The active aggregator of the bond and its LACP partner; always 1.";
        self.gauge("xswitch_bond_lacp_info", help, &labels, 1.0);
    }

    fn bond_member(&mut self, port: &str, info: &BondInfo, member: &BondMemberInfo) {
        let here = [("port", port), ("member", member.ifname.as_str())];
        for (name, help, value) in [
            ("xswitch_bond_member_up", "Whether the member's link counts as up, delays included.", {
                member.mii_status == "up" || member.mii_status == "going down"
            }),
            (
                "xswitch_bond_member_collecting",
                "Whether frames that come in by the member are taken.",
                member.collecting,
            ),
            ("xswitch_bond_member_distributing", "Whether frames go out by the member.", member.distributing),
        ] {
            self.gauge(name, help, &here, flag(value));
        }
        if let Some(speed) = member.speed {
            let help = "Speed of the member's link, if its driver tells.";
            self.gauge("xswitch_bond_member_speed_bits_per_second", help, &here, f64::from(speed) * 1e6);
        }
        let help = "Times that the member's link went down.";
        self.counter("xswitch_bond_member_link_failures_total", help, &here, member.link_failures);
        let help = "Frames that came in by the member while it was inactive, and were dropped.";
        self.counter("xswitch_bond_member_inactive_dropped_packets_total", help, &here, member.inactive_drops);
        // Other modes have no table of flows.
        if ["balance-xor", "802.3ad"].contains(&info.mode.as_str()) {
            let help = "Of 256 groups of flows of the bond, those that go out by the member.";
            self.gauge("xswitch_bond_member_buckets", help, &here, number(member.buckets));
        }
        let Some(lacp) = &member.lacp else { return };
        for (direction, count) in [("in", lacp.pdus_received), ("out", lacp.pdus_sent)] {
            let labels = [here[0], here[1], ("direction", direction)];
            self.counter("xswitch_bond_member_lacpdus_total", "LACPDUs of the member.", &labels, count);
        }
        let help = "Frames of the Slow Protocols that came in by the member and were badly formed.";
        self.counter("xswitch_bond_member_lacpdus_bad_total", help, &here, lacp.pdus_bad);
        let help = "Times that one side of the member's link did not come into sync for 60 seconds.";
        for (side, count) in [("actor", lacp.actor_churned), ("partner", lacp.partner_churned)] {
            let labels = [here[0], here[1], ("side", side)];
            self.counter("xswitch_bond_member_churns_total", help, &labels, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::BondPortInfo;

    use super::*;

    #[test]
    fn a_bond_has_series_of_its_own_and_of_its_members() {
        let lacp = BondPortInfo { pdus_received: 5, pdus_sent: 6, partner_churned: 2, ..BondPortInfo::default() };
        let member = BondMemberInfo {
            ifname: "eth1".into(),
            mii_status: "up".into(),
            speed: Some(10_000),
            link_failures: 3,
            distributing: true,
            buckets: 256,
            lacp: Some(lacp),
            ..BondMemberInfo::default()
        };
        let aggregator = BondLacpInfo { aggregator: Some(1), ports: 1, partner_key: 8, ..BondLacpInfo::default() };
        let info = BondInfo {
            mode: "802.3ad".into(),
            carrier: true,
            lacp: Some(aggregator),
            members: vec![member],
            ..BondInfo::default()
        };
        let spec = BondSpec { members: vec!["eth1".into(), "eth2".into()], ..BondSpec::default() };
        let mut families = Families::default();
        families.bond("bond0", &spec, &info);
        let text = families.finish();
        for line in [
            "xswitch_bond_info{port=\"bond0\",mode=\"802.3ad\"} 1",
            "xswitch_bond_carrier{port=\"bond0\"} 1",
            "xswitch_bond_members{port=\"bond0\"} 2",
            "xswitch_bond_active_members{port=\"bond0\"} 1",
            "xswitch_bond_aggregator_ports{port=\"bond0\"} 1",
            "xswitch_bond_lacp_info{port=\"bond0\",aggregator=\"1\",actor_key=\"0\",partner_key=\"8\",\
             partner=\"00:00:00:00:00:00\"} 1",
            "xswitch_bond_member_missing{port=\"bond0\",member=\"eth1\"} 0",
            "xswitch_bond_member_missing{port=\"bond0\",member=\"eth2\"} 1",
            "xswitch_bond_member_up{port=\"bond0\",member=\"eth1\"} 1",
            "xswitch_bond_member_collecting{port=\"bond0\",member=\"eth1\"} 0",
            "xswitch_bond_member_distributing{port=\"bond0\",member=\"eth1\"} 1",
            "xswitch_bond_member_speed_bits_per_second{port=\"bond0\",member=\"eth1\"} 10000000000",
            "xswitch_bond_member_link_failures_total{port=\"bond0\",member=\"eth1\"} 3",
            "xswitch_bond_member_buckets{port=\"bond0\",member=\"eth1\"} 256",
            "xswitch_bond_member_lacpdus_total{port=\"bond0\",member=\"eth1\",direction=\"out\"} 6",
            "xswitch_bond_member_churns_total{port=\"bond0\",member=\"eth1\",side=\"partner\"} 2",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} in\n{text}");
        }
    }
}

//! Random configurations one after the other on a running switch: each becomes true, and a failure leads back.

use ctl_types::*;
use kit::{Call, Fate};
use nix::errno::Errno;
use proptest::collection::vec;
use proptest::prelude::*;
use switch::model::*;

use crate::Rig;

/// Ports that there may be. Each has its name's number, or the next one's.
const PORTS: u16 = 5;

fn port(name: u16) -> impl Strategy<Value = Option<PortSpec>> {
    let vlan = prop::option::of((0..3_u16).prop_map(|vid| VlanMode::Access { vid }));
    let fields = (any::<(bool, bool, bool, bool)>(), vlan, prop::option::of(prop::sample::select(vec![64_u32, 128])));
    fields.prop_map(move |((is_there, is_phy, isolated, is_generic), vlan, queue_depth)| {
        let kind = if is_phy { PortKind::Phy } else { PortKind::Guest };
        is_there.then(|| PortSpec {
            vport: Some(name),
            ifname: is_phy.then(|| format!("eth{name}")),
            mode: if is_generic { ModeRequest::Generic } else { ModeRequest::Auto },
            vlan,
            isolated,
            queue_depth,
            ..PortSpec::new(format!("p{name}"), kind)
        })
    })
}

fn config() -> impl Strategy<Value = SwitchConfig> {
    let ports = (0..PORTS).map(port).collect::<Vec<_>>();
    let meters = vec((0..3_u32, 100..103_u32, any::<bool>()), 0..3);
    let number = 0..PORTS;
    let bindings = vec((number.clone(), any::<bool>(), 0..3_u32), 0..4);
    let rules = vec((0..6_u32, prop::option::of(number.clone()), prop::option::of(0..3_u32)), 0..4);
    let redirects = vec((number.clone(), number.clone()), 0..3);
    let fdb = vec((1..4_u8, 0..2_u16, number), 0..3);
    (ports, meters, bindings, rules, redirects, fdb, 16..20_u32).prop_map(
        |(ports, meters, bindings, rules, redirects, fdb, fdb_limit)| {
            let mut config = SwitchConfig {
                bridge: Some(BridgeSettings { fdb_limit: fdb_limit * 1000, ..BridgeSettings::default() }),
                ports: ports.into_iter().flatten().collect(),
                ..SwitchConfig::default()
            };
            for (id, rate, is_pps) in meters {
                let kind = if is_pps { MeterType::Pps } else { MeterType::Kbps };
                let spec = MeterSpec { kind, ..MeterSpec::new(id, rate) };
                config.meters.push(MeterConfig { spec, implicit: true });
            }
            for (vport, is_from, meter) in bindings {
                let direction = if is_from { MeterDirection::From } else { MeterDirection::To };
                config.bindings.push(MeterBinding { vport, direction, meter });
            }
            for (key_index, port, meter) in rules {
                let action = RuleAction { meter, ..RuleAction::to(port.map_or(RuleTarget::Drop, RuleTarget::Port)) };
                config.rules.push(RuleSpec { key_index, key: RuleKey::default(), action });
            }
            let redirects = redirects.into_iter().filter(|(src, dest)| src < dest);
            config.redirects.extend(redirects.map(|(src, dest)| RedirectSpec { src, dest }));
            for (last, vlan, port) in fdb {
                let mac = MacAddr::new([2, 0, 0, 0, 1, last]);
                config.fdb.push(FdbSpec { mac, vlan, port: format!("p{port}") });
            }
            sound(config)
        },
    )
}

/// Only rows that name what there is, each once.
fn sound(mut config: SwitchConfig) -> SwitchConfig {
    config.meters.sort_by_key(|meter| meter.spec.id);
    config.meters.dedup_by_key(|meter| meter.spec.id);
    config.bindings.sort_by_key(|binding| (binding.vport, binding.direction));
    config.bindings.dedup_by_key(|binding| (binding.vport, binding.direction));
    config.rules.sort_by_key(|rule| rule.key_index);
    config.rules.dedup_by_key(|rule| rule.key_index);
    config.redirects.sort_by_key(|redirect| redirect.src);
    config.redirects.dedup_by_key(|redirect| redirect.src);
    config.fdb.sort_by_key(|row| (row.vlan, row.mac));
    config.fdb.dedup_by_key(|row| (row.vlan, row.mac));
    let (ports, meters) = (&config.ports, &config.meters);
    let is_port = |no: u16| ports.iter().any(|port| port.vport == Some(no));
    let is_meter = |id: u32| meters.iter().any(|meter| meter.spec.id == id);
    config.bindings.retain(|binding| is_port(binding.vport) && is_meter(binding.meter));
    config.redirects.retain(|redirect| is_port(redirect.src) && is_port(redirect.dest));
    config.fdb.retain(|row| ports.iter().any(|port| port.name == row.port));
    config.rules.retain(|rule| {
        let target = !matches!(rule.action.target, RuleTarget::Port(no) if !is_port(no));
        target && rule.action.meter.is_none_or(is_meter)
    });
    config
}

/// What a switch is like with that configuration, as far as the configuration says.
fn holds(is: &SwitchConfig, config: &SwitchConfig) {
    let of = |port: &PortSpec| (port.name.clone(), port.vport, port.kind, port.mode, port.isolated);
    assert_eq!(is.ports.iter().map(of).collect::<Vec<_>>(), config.ports.iter().map(of).collect::<Vec<_>>());
    for (is, port) in is.ports.iter().zip(&config.ports) {
        assert_eq!(is.vlan, port.vlan.clone().or(Some(port.kind.default_vlan())), "{}", port.name);
    }
    let specs = |config: &SwitchConfig| config.meters.iter().map(|meter| meter.spec.clone()).collect::<Vec<_>>();
    assert_eq!(specs(is), specs(config));
    assert_eq!((&is.fdb, &is.bindings), (&config.fdb, &config.bindings));
    assert_eq!((&is.rules, &is.redirects, &is.bridge), (&config.rules, &config.redirects, &config.bridge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_configuration_becomes_true_and_a_failure_leads_back(
        configs in vec((config(), 0..4_u32, any::<bool>()), 2..5),
    ) {
        let mut rig = Rig::start("");
        let fates = [None, Some(Call::Attach), Some(Call::OpenQueue), Some(Call::MakePair)];
        for (config, fate, restarts) in &configs {
            let before = rig.service.config();
            if let Some(call) = fates[*fate as usize] {
                rig.host.set_fate(call, Fate::FailsOnce(Errno::EIO));
                if rig.service.reload_config(config).is_err() {
                    prop_assert_eq!(rig.service.config(), before);
                    prop_assert!(rig.service.ports().iter().all(|port| port.state == PortState::Up));
                }
                rig.host.set_fate(call, Fate::Works);
            }
            if *restarts {
                rig = rig.restart_with(config);
            } else {
                rig.service.reload_config(config).unwrap();
            }
            let is = rig.service.config();
            holds(&is, config);
            prop_assert_eq!(rig.service.reload_config(config).unwrap(), ConfigChanges::default());
            // An empty switch becomes the same by its export.
            let other = Rig::start("");
            other.service.apply_config(&ConfigRequest { config: is.clone(), ..ConfigRequest::default() }).unwrap();
            prop_assert_eq!(other.service.config(), is);
        }
    }
}

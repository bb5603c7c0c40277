use super::*;

const DOWN: BondState = BondState { up: false, has_members: false };
const UP: BondState = BondState { up: true, has_members: false };
const WITH_MEMBERS: BondState = BondState { up: false, has_members: true };

fn in_mode(mode: &str) -> Options {
    let mut options = Options::default();
    options.set("mode", mode, DOWN).unwrap();
    options
}

fn shown(options: &Options, name: &str) -> String {
    options.all().into_iter().find(|(option, _)| *option == name).unwrap().1
}

/// The errno of setting it in that state, 0 if it was set. Checks that a refusal changes nothing.
fn errno(options: &mut Options, name: &str, value: &str, state: BondState) -> i32 {
    let before = options.clone();
    match options.set(name, value, state) {
        Ok(_) => 0,
        Err(error) => {
            assert_eq!(*options, before, "{name} {value}");
            assert!(error.to_string().contains(name), "{error}");
            error.errno()
        }
    }
}

#[test]
fn defaults_are_those_of_the_driver() {
    let expected = [
        ("mode", "balance-rr 0"),
        ("miimon", "0"),
        ("updelay", "0"),
        ("downdelay", "0"),
        ("peer_notif_delay", "0"),
        ("xmit_hash_policy", "layer2 0"),
        ("lacp_rate", "slow 0"),
        ("lacp_active", "on 1"),
        ("ad_select", "stable 0"),
        ("ad_actor_sys_prio", "65535"),
        ("ad_actor_system", "00:00:00:00:00:00"),
        ("ad_user_port_key", "0"),
        ("min_links", "0"),
        ("primary", ""),
        ("primary_reselect", "always 0"),
        ("fail_over_mac", "none 0"),
        ("num_grat_arp", "1"),
        ("num_unsol_na", "1"),
        ("resend_igmp", "1"),
        ("all_slaves_active", "0"),
        ("packets_per_slave", "1"),
        ("use_carrier", "1"),
        ("arp_interval", "0"),
        ("arp_ip_target", ""),
        ("arp_validate", "none 0"),
        ("arp_all_targets", "any 0"),
        ("arp_missed_max", "2"),
        ("lp_interval", "1"),
        ("tlb_dynamic_lb", "1"),
    ];
    let all = Options::default().all();
    assert_eq!(all.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn words_are_taken_by_name_and_by_number() {
    fn each<T: Word>(option: &str, mode: &str) {
        for &(name, number, value) in T::ALL {
            if matches!(name, "balance-tlb" | "balance-alb") {
                continue;
            }
            for text in [name.to_owned(), number.to_string(), format!(" {name}\n")] {
                let mut options = in_mode(mode);
                options.set(option, &text, DOWN).unwrap();
                let shown = shown(&options, option);
                assert!(shown == format!("{name} {number}") || shown == number.to_string(), "{option}: {shown}");
                assert_eq!(T::read(&text), Some(value));
            }
        }
        for bad in ["", "99", "fast slow", "+1", "-1", "1.0", "Layer2", "0x1"] {
            assert_eq!(errno(&mut in_mode(mode), option, bad, DOWN), 22, "{option} `{bad}`");
        }
    }
    each::<Mode>("mode", "balance-rr");
    each::<HashPolicy>("xmit_hash_policy", "balance-xor");
    each::<LacpRate>("lacp_rate", "802.3ad");
    each::<OnOff>("lacp_active", "802.3ad");
    each::<AdSelect>("ad_select", "802.3ad");
    each::<PrimaryReselect>("primary_reselect", "active-backup");
    each::<FailOverMac>("fail_over_mac", "active-backup");
    each::<OnOff>("all_slaves_active", "active-backup");
}

#[test]
fn numbers_have_the_driver_s_ranges_and_words() {
    for (option, mode, good, bad) in [
        ("miimon", "0", &["0", "100", "2147483647", "off", "maxval"][..], &["-1", "2147483648", "x", ""][..]),
        ("min_links", "0", &["0", "2147483647"], &["2147483648", "1 2"]),
        ("num_grat_arp", "0", &["0", "255", "default"], &["256", "99999999999"]),
        ("num_unsol_na", "0", &["0", "255"], &["256"]),
        ("resend_igmp", "0", &["0", "255"], &["256"]),
        ("packets_per_slave", "0", &["0", "65535"], &["65536"]),
        ("ad_actor_sys_prio", "802.3ad", &["1", "65535"], &["0", "65536"]),
        ("ad_user_port_key", "802.3ad", &["0", "1023"], &["1024"]),
        ("ad_actor_system", "802.3ad", &["02:00:00:00:00:01", "00:00:00:00:00:00"], &["01:00:00:00:00:01", "2:0"]),
        ("lp_interval", "0", &["1", "2147483647"], &["0"]),
    ] {
        for value in good {
            assert_eq!(errno(&mut in_mode(mode), option, value, DOWN), 0, "{option} {value}");
        }
        for value in bad {
            assert_eq!(errno(&mut in_mode(mode), option, value, DOWN), 22, "{option} `{value}`");
        }
    }
}

#[test]
fn options_belong_to_modes() {
    let modes = ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad"];
    for (option, value, belongs) in [
        ("lacp_rate", "fast", &["802.3ad"][..]),
        ("lacp_active", "off", &["802.3ad"]),
        ("ad_actor_sys_prio", "1", &["802.3ad"]),
        ("ad_user_port_key", "1", &["802.3ad"]),
        ("ad_actor_system", "02:00:00:00:00:01", &["802.3ad"]),
        ("primary", "eth0", &["active-backup"]),
        ("active_slave", "eth0", &["active-backup"]),
        ("packets_per_slave", "2", &["balance-rr"]),
        ("tlb_dynamic_lb", "1", &[]),
        ("ad_select", "count", &modes),
        ("xmit_hash_policy", "layer3+4", &modes),
        ("primary_reselect", "better", &modes),
        ("arp_interval", "0", &modes[..4]),
    ] {
        for mode in modes {
            let expected = if belongs.contains(&mode) { 0 } else { 13 };
            assert_eq!(errno(&mut in_mode(mode), option, value, DOWN), expected, "{option} in {mode}");
        }
    }
}

#[test]
fn some_options_change_only_while_the_bond_is_down_or_empty() {
    for (option, value) in [
        ("lacp_rate", "fast"),
        ("lacp_active", "off"),
        ("ad_select", "count"),
        ("ad_user_port_key", "1"),
        ("mode", "balance-xor"),
    ] {
        assert_eq!(errno(&mut in_mode("802.3ad"), option, value, UP), 16, "{option}");
    }
    for (option, value) in [
        ("miimon", "50"),
        ("updelay", "100"),
        ("xmit_hash_policy", "1"),
        ("min_links", "1"),
        ("all_slaves_active", "1"),
    ] {
        assert_eq!(errno(&mut in_mode("802.3ad"), option, value, UP), 0, "{option}");
    }
    for (option, value) in [("mode", "802.3ad"), ("fail_over_mac", "active")] {
        assert_eq!(errno(&mut in_mode("active-backup"), option, value, WITH_MEMBERS), 39, "{option}");
    }
    // The driver looks at the state before the value.
    assert_eq!(errno(&mut in_mode("802.3ad"), "lacp_rate", "nonsense", UP), 16);
}

#[test]
fn delays_are_multiples_of_miimon_and_follow_it() {
    let mut options = Options::default();
    assert_eq!(errno(&mut options, "updelay", "100", DOWN), 1, "without miimon");
    options.set("miimon", "100", DOWN).unwrap();
    let Setting::Rounded(text) = options.set("updelay", "250", DOWN).unwrap() else { panic!("not rounded") };
    assert!(text.contains("200 ms"), "{text}");
    assert_eq!(options.set("downdelay", "100", DOWN), Ok(Setting::Done));
    options.set("peer_notif_delay", "399", DOWN).unwrap();
    let delays = |options: &Options| ["updelay", "downdelay", "peer_notif_delay"].map(|name| shown(options, name));
    assert_eq!(delays(&options), ["200", "100", "300"]);
    assert_eq!(
        (options.up_delay(), options.announce_delay()),
        (Duration::from_millis(200), Duration::from_millis(300))
    );
    options.set("miimon", "50", DOWN).unwrap();
    assert_eq!(delays(&options), ["100", "50", "150"]);
    options.set("miimon", "0", DOWN).unwrap();
    assert_eq!((options.up_delay(), options.announce_delay()), (Duration::ZERO, Duration::from_millis(100)));
    options.set("miimon", "2147483647", DOWN).unwrap();
    options.set("updelay", "2147483647", DOWN).unwrap();
    assert_eq!(options.up_delay(), Duration::from_millis(2_147_483_647));
}

#[test]
fn lacp_has_link_monitoring_by_default() {
    assert_eq!(shown(&in_mode("802.3ad"), "miimon"), "100");
    let mut options = Options::default();
    options.set("miimon", "30", DOWN).unwrap();
    options.set("mode", "4", DOWN).unwrap();
    assert_eq!(options.miimon, 30);
}

#[test]
fn what_a_switch_can_t_do_is_refused_with_the_reason() {
    for (option, value, why) in [
        ("mode", "balance-tlb", "802.3ad"),
        ("mode", "6", "ARP"),
        ("arp_interval", "100", "address of the host"),
        ("arp_ip_target", "+10.0.0.1", "address of the host"),
        ("arp_validate", "all", "address of the host"),
        ("use_carrier", "0", "carrier"),
    ] {
        let error = Options::default().set(option, value, DOWN).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.errno(), 95);
    }
    for (option, value) in
        [("arp_interval", "0"), ("arp_validate", "none"), ("use_carrier", "on"), ("arp_ip_target", "")]
    {
        assert_eq!(errno(&mut Options::default(), option, value, DOWN), 0, "{option}");
    }
}

#[test]
fn members_are_added_and_removed_by_name() {
    let mut options = in_mode("active-backup");
    let mut set = |option, value: &str| options.set(option, value, WITH_MEMBERS);
    assert_eq!(set("slaves", "+eth0"), Ok(Setting::AddMember("eth0".to_owned())));
    assert_eq!(set("slaves", "-eth0\n"), Ok(Setting::RemoveMember("eth0".to_owned())));
    assert_eq!(set("active_slave", "eth1"), Ok(Setting::Activate(Some("eth1".to_owned()))));
    assert_eq!(set("active_slave", ""), Ok(Setting::Activate(None)));
    for bad in ["", "eth0", "+", "-", "+a/b", "+averyverylongname", "é"] {
        assert_eq!(set("slaves", bad).unwrap_err().errno(), 22, "{bad}");
    }
    assert_eq!(set("primary", "eth9"), Ok(Setting::Done), "it need not be a member yet");
    assert_eq!(set("primary", ""), Ok(Setting::Done));
    assert_eq!(options.primary, None);
}

#[test]
fn an_unknown_option_is_named_with_those_that_there_are() {
    let error = Options::default().set("lacprate", "fast", DOWN).unwrap_err();
    assert!(error.to_string().contains("`lacprate`") && error.to_string().contains("lacp_rate"), "{error}");
    assert_eq!(error.errno(), 22);
}

//! Flow rules: words, what they compile to, and how they are shown.

use proptest::prelude::*;
use serde_json::json;
use switch::model::*;

use super::*;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn rule(direction: FlowDirection, group: u32, pattern: &[&str], actions: &[&str]) -> Result<Rule, String> {
    let (pattern, actions) = (parse::pattern(&texts(pattern))?, parse::actions(&texts(actions))?);
    Ok(Rule { direction, group, priority: 0, transfer: false, pattern, actions })
}

fn ingress(pattern: &[&str], actions: &[&str]) -> Result<FlowRule, String> {
    rule(FlowDirection::Ingress, 0, pattern, actions)?.compile(0)
}

fn key(pattern: &[&str]) -> FlowKey {
    ingress(pattern, &["queue index 0"]).unwrap().key
}

const MAC: &str = "10:22:33:44:55:66";

#[test]
fn the_rules_of_the_hardware_offload_use_case_mean_what_it_says() {
    let pattern = ["eth dst is 10:22:33:44:55:66", "vlan vid is 100"];
    let tagged = rule(FlowDirection::Ingress, 1, &pattern, &["queue index 1", "of_pop_vlan"]).unwrap();
    let dmac = Some(MaskedMac { value: MAC.parse().unwrap(), mask: MaskedMac::FULL });
    let expected = FlowRule {
        id: 0,
        direction: FlowDirection::Ingress,
        group: 1,
        priority: 0,
        key: FlowKey { dmac, tci: Some(Masked { value: 100, mask: 0xfff }), ..FlowKey::default() },
        edits: vec![FlowEdit::Pop],
        target: FlowTarget::Queue(1),
    };
    assert_eq!(tagged.compile(0).unwrap(), expected);
    let jump = ingress(&["eth"], &["jump group 1"]).unwrap();
    assert_eq!((jump.key, jump.target), (FlowKey::default(), FlowTarget::Group(1)));
    let push = ["of_push_vlan ethertype 0x8100", "of_set_vlan_vid vlan_vid 100", "of_set_vlan_pcp vlan_pcp 3"];
    let push = rule(FlowDirection::Egress, 1, &["eth src is 10:22:33:44:55:66"], &push).unwrap().compile(0).unwrap();
    assert_eq!(push.edits, [FlowEdit::Push(0x8100), FlowEdit::Vid(100), FlowEdit::Pcp(3)]);
    assert_eq!((push.target, push.key.smac), (FlowTarget::Normal, dmac));
}

#[test]
fn a_list_may_be_one_text_and_a_text_several_items() {
    let together = key(&["eth dst is 10:22:33:44:55:66 / vlan vid is 100"]);
    assert_eq!(together, key(&["eth dst is 10:22:33:44:55:66", "vlan vid is 100"]));
}

#[test]
fn masks_and_prefixes_say_which_bits_count() {
    let mac = |mask| Some(MaskedMac { value: MacAddr::from_u64(0x1022_3344_5566 & mask), mask });
    assert_eq!(key(&["eth dst spec 10:22:33:44:55:66"]).dmac, mac(MaskedMac::FULL));
    assert_eq!(key(&["eth dst spec 10:22:33:44:55:66 dst prefix 24"]).dmac, mac(0xffff_ff00_0000));
    assert_eq!(key(&["eth dst is 10:22:33:44:55:66 dst mask ff:ff:00:00:00:00"]).dmac, mac(0xffff_0000_0000));
    assert_eq!(key(&["eth dst spec 10:22:33:44:55:66 dst prefix 0"]).dmac, None);
    assert_eq!(key(&["eth dst spec 10:22:33:44:55:66 dst prefix 48"]).dmac, mac(MaskedMac::FULL));
    let tci = |value, mask| Some(Masked::<16> { value, mask });
    assert_eq!(key(&["vlan"]).tci, tci(0, 0));
    assert_eq!(key(&["vlan pcp is 5 vid is 0x64"]).tci, tci(0xa064, 0xefff));
    assert_eq!(key(&["vlan dei is 1"]).tci, tci(0x1000, 0x1000));
    assert_eq!(key(&["vlan tci spec 0xffff tci mask 0xf000"]).tci, tci(0xf000, 0xf000));
    assert_eq!(key(&["vlan vid spec 0x123 vid prefix 4"]).tci, tci(0x100, 0xf00));
    assert_eq!(key(&["vlan vid is 0144"]).tci, tci(100, 0xfff));
    let typed = key(&["eth type is 0x8100", "vlan inner_type is 0x0800"]);
    assert_eq!((typed.ethertype, typed.inner_type), (tci(0x8100, 0xffff), tci(0x800, 0xffff)));
    // A mask without a value, as in SPP's API reference.
    let bare = key(&["eth dst is 10:22:33:44:55:66 type mask 0xffff"]);
    assert_eq!((bare.dmac, bare.ethertype), (mac(MaskedMac::FULL), None));
}

#[test]
fn what_is_wrong_is_named() {
    for (pattern, word) in [
        (&["ipv4"][..], "eth or vlan"),
        (&[], "no item"),
        (&[""], "eth or vlan"),
        (&["eth / "], "eth or vlan"),
        (&["eth dst"], "`dst` needs"),
        (&["eth dst is"], "`dst` needs"),
        (&["eth vid is 1"], "`vid` is no field of eth: src, dst, type are"),
        (&["eth dst has 10:22:33:44:55:66"], "`has`"),
        (&["eth dst is 10:22:33:44:55"], "`10:22:33:44:55` is not an address"),
        (&["eth type is 0x10000"], "65535 is the largest"),
        (&["eth type is x"], "`x` is not a number"),
        (&["eth type is 0x"], "`0x` is not a number"),
        (&["eth type is +1"], "`+1` is not a number"),
        (&["eth type is 09"], "`09` is not a number"),
        (&["vlan vid is 4096"], "4095 is the largest"),
        (&["vlan pcp is 8"], "7 is the largest"),
        (&["vlan dei is 2"], "1 is the largest"),
        (&["eth dst prefix 49"], "48 is the largest"),
        (&["eth dst is 10:22:33:44:55:66 dst last 10:22:33:44:55:77"], "ranges"),
        (&["vlan", "eth"], "eth and then vlan"),
        (&["eth", "vlan", "vlan"], "eth and then vlan"),
    ] {
        let why = ingress(pattern, &["queue index 0"]).unwrap_err();
        assert!(why.starts_with("pattern: ") && why.contains(word), "{pattern:?}: {why}");
    }
    for (actions, word) in [
        (&["drop"][..], "an action is"),
        (&[], "there are none"),
        (&["queue"], "an action is"),
        (&["queue index"], "an action is"),
        (&["queue index 65536"], "65535 is the largest"),
        (&["queue index 1 index 2"], "an action is"),
        (&["queue index 1", "queue index 2"], "at most one"),
        (&["queue index 1", "jump group 2"], "at most one"),
        (&["jump group 0"], "behind the rule's own"),
        (&["of_push_vlan ethertype 0x0800"], "0x8100 or 0x88a8"),
        (&["of_set_vlan_vid vlan_vid 4095"], "0 to 4094"),
        (&["of_set_vlan_vid vlan_vid 4096"], "4095 is the largest"),
        (&["of_set_vlan_pcp vlan_pcp 8"], "7 is the largest"),
    ] {
        let why = ingress(&["eth"], actions).unwrap_err();
        assert!(why.starts_with("actions: ") && why.contains(word), "{actions:?}: {why}");
    }
    let why = rule(FlowDirection::Egress, 0, &["eth"], &["queue index 0"]).unwrap().compile(0).unwrap_err();
    assert!(why.contains("queue is for ingress"), "{why}");
}

#[test]
fn a_rule_is_shown_as_spp_shows_it() {
    let pattern = ["eth dst is 10:22:33:44:55:66", "vlan vid is 100"];
    let rule = rule(FlowDirection::Ingress, 1, &pattern, &["queue index 0", "of_pop_vlan"]).unwrap();
    let shown = show::Shown::from(&NumberedRule { rule_id: 4, rule });
    let expected = json!({
        "rule_id": 4,
        "attr": { "group": 1, "priority": 0, "ingress": 1, "egress": 0, "transfer": 0 },
        "patterns": [
            {
                "type": "eth",
                "spec": { "dst": "10:22:33:44:55:66", "src": "00:00:00:00:00:00", "type": "0x0000" },
                "last": null,
                "mask": { "dst": "ff:ff:ff:ff:ff:ff", "src": "00:00:00:00:00:00", "type": "0x0000" },
            },
            {
                "type": "vlan",
                "spec": { "tci": "0x0064", "inner_type": "0x0000" },
                "last": null,
                "mask": { "tci": "0x0fff", "inner_type": "0x0000" },
            },
        ],
        "actions": [{ "type": "queue", "conf": { "index": 0 } }, { "type": "of_pop_vlan", "conf": null }],
    });
    assert_eq!(serde_json::to_value(shown).unwrap(), expected);
}

#[test]
fn a_rule_is_written_in_words_that_mean_it() {
    let pattern =
        ["eth dst is 10:22:33:44:55:66 type mask 0xffff", "vlan pcp is 5 vid spec 7 vid prefix 4 inner_type is 0x800"];
    let actions = [
        "queue index 3",
        "of_push_vlan ethertype 0x8100",
        "of_set_vlan_vid vlan_vid 0144",
        "of_set_vlan_pcp vlan_pcp 3",
    ];
    let made = rule(FlowDirection::Ingress, 0, &pattern, &actions).unwrap();
    assert_eq!(
        write::line(&Rule { priority: 2, transfer: true, ..made }),
        "priority 2 ingress transfer pattern eth dst is 10:22:33:44:55:66 type mask 0xffff / vlan pcp is 5 vid spec 7 vid mask 3840 \
         inner_type is 0x0800 / end actions queue index 3 / of_push_vlan ethertype 0x8100 / of_set_vlan_vid vlan_vid 100 / \
         of_set_vlan_pcp vlan_pcp 3 / end"
    );
}

fn words() -> impl Strategy<Value = Vec<String>> {
    let word = prop_oneof![
        Just("eth"),
        Just("vlan"),
        Just("dst"),
        Just("type"),
        Just("vid"),
        Just("tci"),
        Just("is"),
        Just("spec"),
        Just("mask"),
        Just("prefix"),
        Just("/"),
        Just("7"),
        Just("0xfff"),
        Just(MAC),
        Just("queue"),
        Just("index"),
        Just("jump"),
        Just("group"),
        Just("of_pop_vlan"),
        Just("\u{e9}"),
    ];
    let text = prop::collection::vec(word, 0..8).prop_map(|words| words.join(" "));
    prop::collection::vec(text, 0..4)
}

/// An item with any of its fields given in any way, perhaps more than once.
fn item() -> impl Strategy<Value = String> {
    let number = |most: u64| prop_oneof![Just(0), Just(most), 0..=most].prop_map(|value: u64| value.to_string());
    let mac = prop_oneof![Just(MAC), Just("ff:ff:ff:00:00:00"), Just("00:00:00:00:00:00")].prop_map(str::to_owned);
    let named = |word: &'static str, bits: u32, value: BoxedStrategy<String>| {
        let set = (prop::sample::select(vec!["is", "spec", "last", "mask"]), value);
        let set = set.prop_map(move |(how, value)| format!(" {word} {how} {value}"));
        prop_oneof![set, (0..=bits).prop_map(move |length| format!(" {word} prefix {length}"))]
    };
    let eth = prop_oneof![
        named("dst", 48, mac.clone().boxed()),
        named("src", 48, mac.boxed()),
        named("type", 16, number(0xffff).boxed())
    ];
    let vlan = prop_oneof![
        named("tci", 16, number(0xffff).boxed()),
        named("pcp", 3, number(7).boxed()),
        named("dei", 1, number(1).boxed()),
        named("vid", 12, number(0xfff).boxed()),
        named("inner_type", 16, number(0xffff).boxed()),
    ];
    let of = |kind: &'static str, fields: BoxedStrategy<String>| {
        prop::collection::vec(fields, 0..6).prop_map(move |fields| format!("{kind}{}", fields.concat()))
    };
    prop_oneof![of("eth", eth.boxed()), of("vlan", vlan.boxed())]
}

fn action() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u32>().prop_map(|group| format!("jump group {group}")),
        any::<u16>().prop_map(|index| format!("queue index {index}")),
        Just("of_pop_vlan".to_owned()),
        any::<u16>().prop_map(|ethertype| format!("of_push_vlan ethertype {ethertype:#x}")),
        (0..4096).prop_map(|vid| format!("of_set_vlan_vid vlan_vid {vid}")),
        (0..8).prop_map(|pcp| format!("of_set_vlan_pcp vlan_pcp {pcp}")),
    ]
}

proptest! {
    #[test]
    fn any_rule_is_written_in_words_that_mean_it(
        items in prop::collection::vec(item(), 1..4), actions in prop::collection::vec(action(), 1..4),
        ingress in any::<bool>(), group in any::<u32>(), priority in any::<u32>(), transfer in any::<bool>(),
    ) {
        let direction = if ingress { FlowDirection::Ingress } else { FlowDirection::Egress };
        let (pattern, actions) = (parse::pattern(&items).unwrap(), parse::actions(&actions).unwrap());
        let rule = Rule { direction, group, priority, transfer, pattern, actions };
        let written = write::line(&rule);
        prop_assert_eq!(line::rule(&written.split(' ').collect::<Vec<_>>()).unwrap(), rule, "{}", written);
    }

    #[test]
    fn any_words_are_understood_or_refused(pattern in words(), actions in words(), group in 0_u32..3) {
        let (Ok(pattern), Ok(actions)) = (parse::pattern(&pattern), parse::actions(&actions)) else { return Ok(()) };
        let rule = Rule { direction: FlowDirection::Ingress, group, priority: 0, transfer: false, pattern, actions };
        let again: Rule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
        prop_assert_eq!(&again, &rule);
        if let Ok(FlowRule { key, target, .. }) = rule.compile(0) {
            let macs = [key.dmac, key.smac].into_iter().flatten();
            prop_assert!(macs.into_iter().all(|mac| mac.value.to_u64() & !mac.mask == 0 && mac.mask != 0));
            let words = [key.ethertype, key.tci, key.inner_type].into_iter().flatten();
            prop_assert!(words.into_iter().all(|word| word.value & !word.mask == 0));
            prop_assert!(!matches!(target, FlowTarget::Group(to) if to <= group));
        }
    }
}

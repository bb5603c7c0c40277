//! The graph in its three forms.

use ctl_spp_types::topo::{Graph, dot, svg, text};
use ctl_spp_types::{
    Attached, CaptureOptions, Component, ComponentType, Instance, NamedPort, Patch, Pipe, PortId, Proc, ProcType,
    Setup, SppState,
};
use layout::gv::DotParser;
use proptest::prelude::*;
use switch::model::{Compression, VlanEdit};

use crate::shell::{say_all, spp};

fn graph() -> Graph {
    let spp = spp();
    say_all(
        &spp,
        &[
            "vf 1; component start cls 1 classifier",
            "vf 1; port add phy:0 rx cls",
            "vf 1; port add ring:0 tx cls",
            "vf 1; port add ring:1 tx cls add_vlantag 101 3",
            "vf 1; component start old 2 forward",
            "nfv 2; add ring:0",
            "nfv 2; add vhost:0",
            "nfv 2; add ring:9",
            "nfv 2; patch ring:0 vhost:0",
            "nfv 2; forward",
            "pri; launch pcap 3 -- -c ring:1",
            "vf 1; flush on",
            "vf 1; component stop old",
            "vf 1; component start new 2 forward",
            "vf 1; port del ring:1 tx cls",
            "vf 1; port add ring:4 tx cls",
        ],
    );
    Graph::of(&spp.state())
}

#[test]
fn the_table_tells_what_runs_from_what_is_held() {
    let expected = "\
INSTANCE  COMPONENT  TYPE        CORE  FROM    TO                                              STATE
vf 1      cls        classifier     1  phy:0   ring:0, -ring:1 (add VLAN 101 PCP 3), +ring:4  running
vf 1      old        forward        2                                                          until the next flush
vf 1      new        forward        2                                                          from the next flush on
nfv 2                patch             ring:0  vhost:0                                         running
pcap 3               capture           ring:1  no file                                         idle
phy:0 is port east
vhost:0 is port vm
ring:9, unused
";
    let squeezed = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(squeezed(&text(&graph())), squeezed(expected));
}

#[test]
fn what_waits_for_a_port_that_is_not_there_is_idle() {
    let spp = spp();
    say_all(&spp, &["nfv 2; patch phy:0 phy:0", "nfv 2; forward", "vf 1; component start f 1 forward"]);
    say_all(&spp, &["vf 1; port add vhost:0 rx f", "vf 1; port add ring:0 tx f"]);
    let mut state = spp.state();
    let now = text(&Graph::of(&state));
    assert_eq!((now.matches("running").count(), now.matches("idle").count()), (2, 0), "{now}");
    state.ports.clear();
    let gone = text(&Graph::of(&state));
    assert_eq!((gone.matches("running").count(), gone.matches("idle").count()), (0, 2), "{gone}");
    assert!(gone.contains("phy:0 is not there\n") && gone.contains("vhost:0 is not there\n"), "{gone}");
}

#[test]
fn dot_has_clusters_and_styles() {
    let dot = dot(&graph());
    for line in [
        r#"  "phy:0" [label="phy:0\neast", style="filled,solid", color=black, fillcolor=lightyellow];"#,
        r#"    label="vf 1";"#,
        r#"    "vf 1/cls" [label="cls\nclassifier, core 1", style="filled,solid", color=black, fillcolor=lightblue];"#,
        r#"  "phy:0" -> "vf 1/cls" [label="", style=solid, color=black];"#,
        r#"  "vf 1/cls" -> "ring:1" [label="add VLAN 101 PCP 3", style=dashed, color=firebrick];"#,
        r#"  "vf 1/cls" -> "ring:4" [label="", style=dashed, color=forestgreen];"#,
        r#"  "ring:0" -> "vhost:0" [label="nfv 2", style=solid, color=black];"#,
        r#"  "ring:1" -> "pcap 3/capture" [label="", style=dashed, color=gray];"#,
    ] {
        assert!(dot.lines().any(|other| other == line), "{line}\nin\n{dot}");
    }
    DotParser::new(&dot).process().unwrap();
}

#[test]
fn a_picture_has_every_box_and_arrow() {
    let graph = graph();
    let picture = svg(&graph);
    let document = roxmltree::Document::parse(&picture).unwrap();
    let count = |tag: &str| document.descendants().filter(|node| node.has_tag_name(tag)).count();
    assert_eq!((count("rect"), count("path")), (graph.nodes.len() + 1, graph.edges.len()));
    assert_eq!(document.descendants().filter(|node| node.attribute("stroke-dasharray").is_some()).count(), 7);
    for text in ["vf 1: cls", "classifier, core 1", "east", "nfv 2", "add VLAN 101 PCP 3"] {
        assert!(document.descendants().any(|node| node.text() == Some(text)), "{text} in {picture}");
    }
}

#[test]
fn an_empty_graph_can_be_shown() {
    let graph = Graph::default();
    assert!(DotParser::new(&dot(&graph)).process().is_ok() && text(&graph).starts_with("INSTANCE"));
    roxmltree::Document::parse(&svg(&graph)).unwrap();
}

fn port() -> impl Strategy<Value = PortId> {
    prop::sample::select(vec!["phy:0", "phy:0nq1", "ring:0", "ring:1", "vhost:0", "tap:1"])
        .prop_map(|text| text.parse().unwrap())
}

fn setup() -> impl Strategy<Value = Setup> {
    let vlan = prop_oneof![Just(VlanEdit::None), Just(VlanEdit::Del), Just(VlanEdit::Add { vid: 5, pcp: 1 })];
    let attached = (port(), vlan).prop_map(|(port, vlan)| Attached { port, vlan }).boxed();
    let side = || prop::collection::vec(attached.clone(), 0..4);
    // A name may have any visible character.
    let component = ("[!-~]{1,12}", 0..4u32, side(), side()).prop_map(|(name, core, rx, tx)| Component {
        name,
        core,
        kind: ComponentType::Merge,
        rx,
        tx,
    });
    let patch = (port(), port()).prop_map(|(src, dst)| Patch { src, dst });
    let pipe = (port(), port(), port()).prop_map(|(port, rx, tx)| Pipe { port, rx, tx });
    (
        prop::collection::vec(component, 0..4),
        prop::collection::vec(port(), 0..4),
        prop::collection::vec(patch, 0..4),
        prop::collection::vec(pipe, 0..2),
        any::<bool>(),
    )
        .prop_map(|(components, ports, patches, pipes, running)| Setup {
            components,
            table: vec![],
            ports,
            patches,
            pipes,
            running,
        })
}

fn state() -> impl Strategy<Value = SppState> {
    let instance = (setup(), prop::option::of(setup()), prop::option::of(port()));
    let instances = prop::collection::vec(instance, 0..3).prop_map(|all| {
        let instance = |(id, (running, staged, port)): (u32, (Setup, Option<Setup>, Option<PortId>))| {
            let compression = Compression::None;
            let capture = port.map(|port| CaptureOptions {
                port,
                directory: "/tmp".into(),
                limit: 1 << 20,
                compression,
                confined: false,
            });
            let new = Instance::new(Proc { kind: ProcType::Vf, id }, vec![], capture);
            Instance { running, staged, ..new }
        };
        (1..).zip(all).map(instance).collect()
    });
    let name = "[ -~]{0,12}".prop_map(|name| vec![NamedPort { port: "phy:0".parse().unwrap(), name }]);
    (instances, name).prop_map(|(instances, ports)| SppState { instances, ports, ..SppState::default() })
}

proptest! {
    #[test]
    fn any_state_can_be_shown_whatever_its_names(state in state()) {
        let graph = Graph::of(&state);
        text(&graph);
        let dot = dot(&graph);
        prop_assert!(DotParser::new(&dot).process().is_ok(), "{}", dot);
        let svg = svg(&graph);
        let document = roxmltree::Document::parse(&svg);
        prop_assert!(document.is_ok(), "{:?}\n{}", document.err(), svg);
    }
}

//! What QEMU is told of a port: options of its command line, arguments of its QMP commands, libvirt's XML.
//!
//! All of them are made from the same properties, so that a guest that is started with its card and one that gets it later
//! have the same. The mode is always named: without it QEMU up to 10.0 looks for the program as a driver would run it, and
//! doesn't find one that is attached in generic mode.

use model::{DEFAULT_MTU, Mode};
use serde_json::{Map, Value, json};

use ctl_guest::protocol::Offer;

/// The card that a guest gets unless another is named.
pub const DEFAULT_DRIVER: &str = "virtio-net-pci";
/// Namespace of the elements that libvirt hands to QEMU as they are.
const LIBVIRT_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// How QEMU comes by the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// It inherits them: their descriptors' numbers in its process, in queue order; 0 can't be one.
    Numbers(Vec<i32>),
    /// It was given them over QMP (`getfd`): their names there, in queue order; none has a colon or begins with a digit.
    Names(Vec<String>),
    /// It makes them itself and puts them in the port's map: it needs the privileges for that, and to be of 10.1 or later.
    Map,
}

/// Properties in the order in which they are told.
type Properties = Vec<(&'static str, Value)>;

/// Name of the port's netdev in QEMU.
pub fn netdev_id(offer: &Offer) -> String {
    format!("xsw{}", offer.vport)
}

/// Name of the port's card in QEMU.
pub fn device_id(offer: &Offer) -> String {
    format!("{}-nic", netdev_id(offer))
}

fn backend(offer: &Offer, sockets: &Sockets) -> Properties {
    let mode = match offer.mode {
        Mode::Native => "native",
        Mode::Generic => "skb",
    };
    let mut properties = vec![
        ("ifname", json!(offer.ifname)),
        ("mode", json!(mode)),
        ("queues", json!(offer.queues)),
        ("inhibit", json!(true)),
    ];
    match sockets {
        Sockets::Numbers(numbers) => {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            properties.push(("sock-fds", json!(numbers.join(":"))));
        }
        Sockets::Names(names) => properties.push(("sock-fds", json!(names.join(":")))),
        Sockets::Map => {
            properties.push(("map-path", json!(offer.map_path.as_deref().unwrap_or_default())));
            properties.push(("map-start-index", json!(0)));
        }
    }
    properties
}

fn card(offer: &Offer, driver: &str) -> Properties {
    let mut properties = vec![("mac", json!(offer.mac.to_string()))];
    // Other cards know neither of these.
    let (driver, _) = split(driver);
    let virtio = driver.starts_with("virtio-net");
    if virtio && offer.mtu != DEFAULT_MTU {
        properties.push(("host_mtu", json!(offer.mtu)));
    }
    if virtio && offer.queues > 1 {
        properties.push(("mq", json!(true)));
        if driver.contains("-pci") {
            // An interrupt for each of a queue's two directions, one for the control queue and one for the configuration.
            properties.push(("vectors", json!(2 * offer.queues + 2)));
        }
    }
    properties
}

/// A driver and the properties that are named with it: `DRIVER[,NAME=VALUE…]`.
fn split(driver: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let mut parts = driver.split(',');
    let name = parts.next().unwrap_or_default();
    (name, parts.filter_map(|part| part.split_once('=')))
}

/// A value of the command line as QMP has it, which tells words from numbers.
fn typed(name: &str, value: &str) -> Value {
    match (name, value) {
        (_, "on" | "off") => json!(value == "on"),
        // As a word it is a slot, as a number something else.
        ("addr", _) => json!(value),
        _ => value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number)),
    }
}

/// Properties as the command line has them. QEMU reads a comma in a value as the value's end unless it is doubled.
fn list(properties: &Properties) -> String {
    let text = |value: &Value| match value {
        Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        Value::String(text) => text.replace(',', ",,"),
        other => other.to_string(),
    };
    let pairs: Vec<_> = properties.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    pairs.join(",")
}

fn object(first: Properties, rest: Properties) -> Value {
    let pairs = first.into_iter().chain(rest).map(|(name, value)| (name.to_owned(), value));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// `ifname=…,mode=…,queues=…,inhibit=on,…`: the netdev without its type and name.
pub fn netdev_properties(offer: &Offer, sockets: &Sockets) -> String {
    list(&backend(offer, sockets))
}

/// The argument of `-netdev`.
pub fn netdev_options(offer: &Offer, id: &str, sockets: &Sockets) -> String {
    format!("af-xdp,{},{}", list(&vec![("id", json!(id))]), netdev_properties(offer, sockets))
}

/// The argument object of QMP's `netdev_add`.
pub fn netdev_arguments(offer: &Offer, id: &str, sockets: &Sockets) -> Value {
    object(vec![("type", json!("af-xdp")), ("id", json!(id))], backend(offer, sockets))
}

/// `mac=…[,host_mtu=…][,mq=on,vectors=…]`: the card without its driver, netdev and name.
pub fn device_properties(offer: &Offer, driver: &str) -> String {
    list(&card(offer, driver))
}

/// The argument of `-device`; further properties of the card may stand behind the driver (`virtio-net-pci,romfile=`).
pub fn device_options(offer: &Offer, netdev_id: &str, id: &str, driver: &str) -> String {
    let names = vec![("netdev", json!(netdev_id)), ("id", json!(id))];
    format!("{},{},{}", driver, list(&names), device_properties(offer, driver))
}

/// The argument object of QMP's `device_add`, with the driver as in [`device_options`]; without a bus QEMU takes the first with room.
pub fn device_arguments(offer: &Offer, netdev_id: &str, id: &str, driver: &str, bus: Option<&str>) -> Value {
    let (name, further) = split(driver);
    let mut names = vec![("driver", json!(name)), ("netdev", json!(netdev_id)), ("id", json!(id))];
    names.extend(bus.map(|bus| ("bus", json!(bus))));
    let mut arguments = object(names, card(offer, driver));
    further.for_each(|(name, value)| arguments[name] = typed(name, value));
    arguments
}

/// The words of a command line that give QEMU the port's card, with the ids of [`netdev_id`] and [`device_id`].
pub fn command_line(offer: &Offer, sockets: &Sockets, driver: &str) -> [String; 4] {
    let netdev = netdev_id(offer);
    [
        "-netdev".to_owned(),
        netdev_options(offer, &netdev, sockets),
        "-device".to_owned(),
        device_options(offer, &netdev, &device_id(offer), driver),
    ]
}

/// The element that gives a libvirt domain the port's card. It names the map: libvirt's QEMU inherits no descriptors of ours.
pub fn libvirt_xml(offer: &Offer, driver: &str) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('\'', "&apos;")
            .replace('"', "&quot;")
    };
    let words = command_line(offer, &Sockets::Map, driver);
    let lines: String = words.iter().map(|word| format!("  <qemu:arg value='{}'/>\n", escape(word))).collect();
    format!("<qemu:commandline xmlns:qemu='{LIBVIRT_NAMESPACE}'>\n{lines}</qemu:commandline>\n")
}

#[cfg(test)]
mod tests {
    use model::MacAddr;

    use super::*;

    fn offer() -> Offer {
        Offer {
            port: "vm1".to_owned(),
            vport: 7,
            ifname: "xsg-vm1".to_owned(),
            netns: None,
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            mtu: DEFAULT_MTU,
            mode: Mode::Native,
            queues: 1,
            memlock: 40 << 20,
            map_path: Some("/sys/fs/bpf/xswitch/a/7/sockets".to_owned()),
        }
    }

    #[test]
    fn a_plain_port_has_the_fewest_words() {
        let words = command_line(&offer(), &Sockets::Numbers(vec![10]), DEFAULT_DRIVER);
        assert_eq!(
            words.join(" "),
            "-netdev af-xdp,id=xsw7,ifname=xsg-vm1,mode=native,queues=1,inhibit=on,sock-fds=10 \
             -device virtio-net-pci,netdev=xsw7,id=xsw7-nic,mac=02:00:00:00:00:01"
        );
    }

    #[test]
    fn queues_mtu_and_generic_mode_are_told() {
        let offer = Offer { mode: Mode::Generic, queues: 2, mtu: 3000, ..offer() };
        let sockets = Sockets::Names(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(netdev_properties(&offer, &sockets), "ifname=xsg-vm1,mode=skb,queues=2,inhibit=on,sock-fds=a:b");
        assert_eq!(device_properties(&offer, DEFAULT_DRIVER), "mac=02:00:00:00:00:01,host_mtu=3000,mq=on,vectors=6");
        assert_eq!(device_properties(&offer, "virtio-net-ccw"), "mac=02:00:00:00:00:01,host_mtu=3000,mq=on");
        assert_eq!(device_properties(&offer, "e1000"), "mac=02:00:00:00:00:01");
    }

    #[test]
    fn a_comma_in_a_value_is_doubled_on_the_command_line_only() {
        let offer = Offer { ifname: "a,b".to_owned(), map_path: Some("/m,n".to_owned()), ..offer() };
        assert_eq!(
            netdev_options(&offer, "x", &Sockets::Map),
            "af-xdp,id=x,ifname=a,,b,mode=native,queues=1,inhibit=on,map-path=/m,,n,map-start-index=0"
        );
        let arguments = netdev_arguments(&offer, "x", &Sockets::Map);
        assert_eq!((&arguments["ifname"], &arguments["map-path"]), (&json!("a,b"), &json!("/m,n")));
    }

    #[test]
    fn qmp_gets_the_same_with_types() {
        let offer = Offer { queues: 2, mtu: 9000, ..offer() };
        assert_eq!(
            netdev_arguments(&offer, "n", &Sockets::Numbers(vec![3, 4])),
            json!({ "type": "af-xdp", "id": "n", "ifname": "xsg-vm1", "mode": "native", "queues": 2, "inhibit": true,
                    "sock-fds": "3:4" })
        );
        assert_eq!(
            device_arguments(&offer, "n", "d", DEFAULT_DRIVER, Some("rp1")),
            json!({ "driver": "virtio-net-pci", "netdev": "n", "id": "d", "bus": "rp1", "mac": "02:00:00:00:00:01",
                    "host_mtu": 9000, "mq": true, "vectors": 6 })
        );
        assert_eq!(device_arguments(&offer, "n", "d", "e1000", None).get("bus"), None);
    }

    #[test]
    fn further_properties_may_stand_behind_the_driver() {
        let driver = "virtio-net-pci,romfile=,addr=5,bootindex=1,packed=on";
        assert_eq!(device_options(&offer(), "n", "d", driver), format!("{driver},netdev=n,id=d,mac=02:00:00:00:00:01"));
        assert_eq!(
            device_arguments(&offer(), "n", "d", driver, None),
            json!({ "driver": "virtio-net-pci", "netdev": "n", "id": "d", "mac": "02:00:00:00:00:01", "romfile": "",
                    "addr": "5", "bootindex": 1, "packed": true })
        );
    }

    #[test]
    fn libvirt_gets_xml_whatever_the_names() {
        let offer = Offer { map_path: Some("/m<'&\">".to_owned()), ..offer() };
        let xml = libvirt_xml(&offer, DEFAULT_DRIVER);
        assert!(xml.starts_with("<qemu:commandline xmlns:qemu='http://libvirt.org/"), "{xml}");
        assert!(xml.contains("map-path=/m&lt;&apos;&amp;&quot;&gt;,map-start-index=0'/>\n"), "{xml}");
        assert_eq!(xml.matches("<qemu:arg ").count(), 4);
    }
}

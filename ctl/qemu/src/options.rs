//! How QEMU is told about a port: options of its command line, arguments of its QMP commands, and libvirt's XML.
//!
//! All forms come from the same properties, so a guest gets the same card at its start and by hot plug. The XDP mode is
//! always named. Without it QEMU up to 10.0 looks for the program in native mode only, and misses one that is attached
//! in generic mode.

use ctl_guest::protocol::Offer;
use model::{DEFAULT_MTU, Mode};
use serde_json::{Map, Value, json};

/// The default driver of a guest's card.
pub const DEFAULT_DRIVER: &str = "virtio-net-pci";
/// XML namespace of the elements that libvirt passes through to QEMU.
const LIBVIRT_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// How QEMU gets the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// QEMU inherits them. These are their descriptor numbers, in queue order. 0 is not possible.
    Numbers(Vec<i32>),
    /// QEMU received them over QMP (`getfd`). These are their names, in queue order. A name has no colon and no leading
    /// digit.
    Names(Vec<String>),
    /// QEMU creates them and puts them into the port's map. It needs the privileges for that, and version 10.1.
    Map,
}

/// Properties in the order in which they are written.
type Properties = Vec<(&'static str, Value)>;

/// Id of the port's netdev in QEMU.
pub fn netdev_id(offer: &Offer) -> String {
    format!("xsw{}", offer.vport)
}

/// Id of the port's card in QEMU.
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
    // The properties below exist for virtio cards only.
    let (driver, _) = split(driver);
    let virtio = driver.starts_with("virtio-net");
    if virtio && offer.mtu != DEFAULT_MTU {
        properties.push(("host_mtu", json!(offer.mtu)));
    }
    if virtio && offer.queues > 1 {
        properties.push(("mq", json!(true)));
        if driver.contains("-pci") {
            // One interrupt vector per queue and direction, one for the control queue, one for configuration changes.
            properties.push(("vectors", json!(2 * offer.queues + 2)));
        }
    }
    properties
}

/// Splits `DRIVER[,NAME=VALUE…]` into the driver and its properties.
fn split(driver: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let mut parts = driver.split(',');
    let name = parts.next().unwrap_or_default();
    (name, parts.filter_map(|part| part.split_once('=')))
}

/// A value of the command line in the JSON type that QMP expects.
fn typed(name: &str, value: &str) -> Value {
    match (name, value) {
        (_, "on" | "off") => json!(value == "on"),
        // QEMU reads a string as a slot (`5.0`), and a number as slot and function in one.
        ("addr", _) => json!(value),
        _ => value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number)),
    }
}

/// Properties in the form of the command line. A comma within a value is doubled.
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

/// Properties of the netdev without type and id: `ifname=…,mode=…,queues=…,inhibit=on,…`.
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

/// Properties of the card without driver, netdev and id: `mac=…[,host_mtu=…][,mq=on,vectors=…]`.
pub fn device_properties(offer: &Offer, driver: &str) -> String {
    list(&card(offer, driver))
}

/// The argument of `-device`. More properties may follow the driver, as in `virtio-net-pci,romfile=`.
pub fn device_options(offer: &Offer, netdev_id: &str, id: &str, driver: &str) -> String {
    let names = vec![("netdev", json!(netdev_id)), ("id", json!(id))];
    format!("{},{},{}", driver, list(&names), device_properties(offer, driver))
}

/// The argument object of QMP's `device_add`, with `driver` as in [`device_options`]. Without a bus QEMU takes the
/// first one with room.
pub fn device_arguments(offer: &Offer, netdev_id: &str, id: &str, driver: &str, bus: Option<&str>) -> Value {
    let (name, further) = split(driver);
    let mut names = vec![("driver", json!(name)), ("netdev", json!(netdev_id)), ("id", json!(id))];
    names.extend(bus.map(|bus| ("bus", json!(bus))));
    let mut arguments = object(names, card(offer, driver));
    further.for_each(|(name, value)| arguments[name] = typed(name, value));
    arguments
}

/// Words of a command line that give QEMU the port's card, with the ids of [`netdev_id`] and [`device_id`].
pub fn command_line(offer: &Offer, sockets: &Sockets, driver: &str) -> [String; 4] {
    let netdev = netdev_id(offer);
    [
        "-netdev".to_owned(),
        netdev_options(offer, &netdev, sockets),
        "-device".to_owned(),
        device_options(offer, &netdev, &device_id(offer), driver),
    ]
}

/// The element that gives a libvirt domain the port's card. It names the map, because QEMU under libvirt inherits no
/// descriptors from here.
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

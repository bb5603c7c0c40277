//! Checks of vhost-user ports for `doctor`: their sockets, and what their guests do without.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use ctl_types::{Check, PortEntry, Status};
use nix::unistd::{Group, User};
use switch::model::*;

/// Permission bits of a socket that names none.
const MODE: u32 = 0o660;
/// Features that cost speed if the guest does without: the bit, and what is slower.
const FAST: [(u64, &str); 2] = [
    (VIRTIO_NET_MRG_RXBUF, "a long packet is cut unless one buffer of the guest takes it"),
    (VIRTIO_EVENT_IDX, "guest and switch wake each other more often than they need"),
];

/// The checks of a port. None if it is of another kind, or not up.
pub fn checks(port: &PortEntry, stats: Option<&PortStats>) -> Vec<Check> {
    let info = port.info.as_ref().and_then(|info| info.vhost.as_ref());
    let (Some(spec), Some(info)) = (&port.spec.vhost, info) else { return Vec::new() };
    let name = format!("port {}: guest", port.name);
    let mut checks: Vec<_> = socket(spec)
        .into_iter()
        .map(|text| {
            let advice = "somebody else has changed it: put it back, or add the port again with what is wanted";
            Check::bad(Status::Warn, format!("port {}: socket", port.name), text, advice)
        })
        .collect();
    if !info.connected {
        checks.push(absent(&name, spec, info));
        return checks;
    }
    checks.extend(without(&name, &port.spec, info));
    let is_quiet = stats.is_some_and(|stats| stats.rx.packets == 0 && stats.tx.packets == 0);
    if info.active_pairs > 0 && is_quiet {
        let text = "its rings run, and it has neither sent a packet nor taken one since the port was added";
        let advice = "a guest that boots sends soon. If it does not: its memory must be shared (`share=on` of QEMU's \
                      memory backend, `<access mode='shared'/>` of libvirt)";
        checks.push(Check::bad(Status::Warn, &name, text, advice));
    }
    if checks.is_empty() {
        checks.push(Check::ok(name, format!("connected, {} queue pairs active", info.active_pairs)));
    }
    checks
}

/// Nobody is there.
fn absent(name: &str, spec: &VhostSpec, info: &VhostInfo) -> Check {
    let waits = match spec.role {
        SocketRole::Server => "no front end is connected: it may connect at any time",
        SocketRole::Client => "no front end is there: its socket is tried five times a second",
    };
    match &info.last_error {
        None => Check::ok(name, waits),
        Some(why) => {
            let advice = match spec.role {
                SocketRole::Server => "look into the guest's log. QEMU connects again with `reconnect-ms=500`",
                SocketRole::Client => {
                    "start the guest, and let its front end listen there (`server=on,wait=off` of QEMU)"
                }
            };
            Check::bad(Status::Warn, name, format!("{waits}. The last one: {why}"), advice)
        }
    }
}

/// What a guest does without.
fn without(name: &str, spec: &PortSpec, info: &VhostInfo) -> Vec<Check> {
    let Some(features) = info.features else { return Vec::new() };
    let lacks = FAST.into_iter().filter(|(bit, _)| features & bit == 0);
    let check = |(bit, slower): (u64, &str)| {
        let feature = virtio_net_features(bit).next().unwrap_or_default();
        let advice = match (info.offered & bit == 0, spec.feature_list) {
            (true, Some(_)) => "`feature_list` of the port leaves it out",
            _ => "let front end and driver have it (`-device virtio-net-pci,…` has it unless it was switched off)",
        };
        Check::bad(Status::Warn, name, format!("it does without {feature}: {slower}"), advice)
    };
    lacks.map(check).collect()
}

/// What is not with the socket of a server as its user has said. The port itself makes it again if it is gone.
fn socket(spec: &VhostSpec) -> Vec<String> {
    if spec.role == SocketRole::Client {
        return Vec::new();
    }
    let path = &spec.socket;
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => meta,
        Ok(_) => return vec![format!("{path} is no socket")],
        Err(error) => return vec![format!("{path}: {error}")],
    };
    let mut wrong = Vec::new();
    let mode = spec.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(MODE);
    if meta.mode() & 0o7777 != mode {
        wrong.push(format!("{path} has mode {:o}, and the port's is {mode:o}", meta.mode() & 0o7777));
    }
    let user = |name: &str| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    let group = |name: &str| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    let differs = |wish: &Option<String>, is: u32, by_name: &dyn Fn(&str) -> Option<u32>| {
        let wish = wish.as_deref()?;
        (by_name(wish).or_else(|| wish.parse().ok()) != Some(is)).then(|| wish.to_owned())
    };
    for (what, wish, is) in [
        ("user", differs(&spec.owner, meta.uid(), &user), meta.uid()),
        ("group", differs(&spec.group, meta.gid(), &group), meta.gid()),
    ] {
        wrong.extend(wish.map(|wish| format!("{path} belongs to {what} {is}, and the port names {wish}")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn info(change: impl FnOnce(&mut VhostInfo)) -> VhostInfo {
        let all = VIRTIO_NET_MRG_RXBUF | VIRTIO_EVENT_IDX;
        let mut info =
            VhostInfo { connected: true, offered: all, features: Some(all), active_pairs: 1, ..VhostInfo::default() };
        change(&mut info);
        info
    }

    fn texts(checks: &[Check]) -> Vec<&str> {
        checks.iter().filter(|check| check.status != Status::Ok).map(|check| check.text.as_str()).collect()
    }

    #[test]
    fn a_socket_is_as_its_port_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let spec = |mode: &str| VhostSpec { mode: Some(mode.into()), ..VhostSpec::new(path.display().to_string()) };
        assert!(socket(&spec("600"))[0].contains("No such file"), "it is gone");
        std::fs::write(&path, "").unwrap();
        assert!(socket(&spec("600"))[0].contains("is no socket"));
        std::fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(socket(&spec("666")), [] as [&str; 0]);
        assert!(socket(&spec("600"))[0].contains("has mode 666, and the port's is 600"));
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let owned = |owner: u32, group: u32| VhostSpec {
            owner: Some(owner.to_string()),
            group: Some(group.to_string()),
            ..spec("666")
        };
        assert_eq!(socket(&owned(uid, gid)), [] as [&str; 0]);
        let wrong = socket(&owned(uid + 1, gid + 1));
        assert!(wrong.len() == 2 && wrong[0].contains("belongs to user") && wrong[1].contains("group"), "{wrong:?}");
        let client = VhostSpec { role: SocketRole::Client, ..spec("600") };
        assert_eq!(socket(&client), [] as [&str; 0], "the front end's is the front end's");
    }

    #[test]
    fn what_a_guest_does_without_is_told() {
        let spec = PortSpec::new("vm", PortKind::Vhost);
        assert!(without("vm", &spec, &info(|_| {})).is_empty());
        assert!(without("vm", &spec, &info(|info| info.features = None)).is_empty(), "it has not said yet");
        let checks = without("vm", &spec, &info(|info| info.features = Some(VIRTIO_EVENT_IDX)));
        assert!(texts(&checks)[0].contains("VIRTIO_NET_F_MRG_RXBUF"), "{checks:?}");
        let listed = PortSpec { feature_list: Some(0), ..spec };
        let checks = without("vm", &listed, &info(|info| (info.offered, info.features) = (0, Some(0))));
        assert_eq!(checks.len(), 2);
        assert!(checks.iter().all(|check| check.advice.as_deref().is_some_and(|text| text.contains("feature_list"))));
    }

    #[test]
    fn why_nobody_is_there_is_told() {
        let server = VhostSpec::new("/run/vm");
        let gone = |why: &str| info(|info| (info.connected, info.last_error) = (false, Some(why.into())));
        assert_eq!(absent("vm", &server, &info(|info| info.connected = false)).status, Status::Ok);
        let check = absent("vm", &server, &gone("the guest has broken ring 1"));
        assert!(check.status == Status::Warn && check.text.ends_with("the guest has broken ring 1"), "{check:?}");
    }
}

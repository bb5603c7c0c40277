//! Attaching and detaching with a double of QEMU, against a double of the daemon and against the daemon's own server.

use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use ctl_guest::protocol::{Answer, SOCKET, decode, encode, receive, send};
use ctl_types::ErrorBody;
use model::ErrorKind;
use model::{MacAddr, Mode};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, recv, socket_with,
};
use tempfile::TempDir;

use super::*;
use crate::double::{Guest, QemuDouble};
use crate::options::DEFAULT_DRIVER;

/// State of the daemon's double.
#[derive(Debug, Default)]
struct Said {
    /// Requests in the order they came.
    requests: Vec<Request>,
    /// Peers of the sockets that were handed out. They see the end of file once all copies are closed.
    others: Vec<UnixStream>,
    /// Refusals for the next release requests.
    refusals: VecDeque<ErrorBody>,
}

#[derive(Debug)]
struct Daemon {
    dir: TempDir,
    said: Arc<Mutex<Said>>,
}

fn offer() -> Offer {
    Offer {
        port: "vm1".to_owned(),
        vport: 7,
        ifname: "xsg-vm1".to_owned(),
        netns: None,
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        mode: Mode::Native,
        queues: 2,
        memlock: 1 << 10,
        map_path: Some("/sys/fs/bpf/m".to_owned()),
    }
}

impl Daemon {
    /// Hands out sockets for two queues, followed by the network namespace `netns`.
    fn start(netns: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let said = Arc::<Mutex<Said>>::default();
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(dir.path().join(SOCKET)).unwrap()).unwrap();
        listen(&listener, 8).unwrap();
        let (shared, netns) = (Arc::clone(&said), netns.to_owned());
        std::thread::spawn(move || {
            loop {
                let stream = accept(&listener).unwrap();
                loop {
                    let (bytes, _) = receive(stream.as_fd()).unwrap();
                    if bytes.is_empty() {
                        break;
                    }
                    let request: Request = decode(&bytes).unwrap();
                    let mut said = shared.lock().unwrap();
                    said.requests.push(request.clone());
                    let mut fds: Vec<OwnedFd> = Vec::new();
                    let mut answer = Answer::Done(offer());
                    match request {
                        Request::Sockets { .. } => {
                            for _ in 0..2 {
                                let (one, other) = UnixStream::pair().unwrap();
                                fds.push(one.into());
                                said.others.push(other);
                            }
                            fds.push(File::open(&netns).unwrap().into());
                        }
                        Request::Release { .. } => {
                            if let Some(refusal) = said.refusals.pop_front() {
                                answer = Answer::Refused(refusal);
                            }
                        }
                        Request::Describe { .. } => {}
                    }
                    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                    send(stream.as_fd(), &encode(&answer), &borrowed).unwrap();
                }
            }
        });
        Self { dir, said }
    }

    fn refuse(&self, kind: ErrorKind, times: usize) {
        self.said.lock().unwrap().refusals = vec![ErrorBody::new(kind, "still there"); times].into();
    }

    fn released(&self) -> usize {
        let said = self.said.lock().unwrap();
        said.requests.iter().filter(|request| matches!(request, Request::Release { .. })).count()
    }

    /// Whether all copies of all sockets are closed.
    fn is_bare(&self) -> bool {
        let said = self.said.lock().unwrap();
        said.others.iter().all(|other| recv(other, &mut [0; 1], RecvFlags::DONTWAIT).is_ok())
    }
}

struct Rig {
    qemu: QemuDouble,
    daemon: Daemon,
}

impl Rig {
    fn new() -> Self {
        Self { qemu: QemuDouble::start(), daemon: Daemon::start("/proc/self/ns/net") }
    }

    fn attach(&self) -> Result<Attached, AttachError> {
        attach(self.daemon.dir.path(), &self.options())
    }

    fn options(&self) -> AttachOptions {
        AttachOptions {
            port: "vm1".to_owned(),
            qmp: self.qemu.path().to_owned(),
            bus: Some("rp1".to_owned()),
            driver: DEFAULT_DRIVER.to_owned(),
            pid: None,
        }
    }

    fn detach(&self) -> Result<Detached, HotplugError> {
        let options = DetachOptions {
            port: "vm1".to_owned(),
            qmp: self.qemu.path().to_owned(),
            timeout: Duration::from_millis(300),
        };
        detach(self.daemon.dir.path(), &options)
    }

    /// Whether neither QEMU nor the daemon has anything left of the port.
    fn is_bare(&self) -> bool {
        self.qemu.is_bare() && self.daemon.is_bare()
    }
}

fn child() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_card_comes_and_goes() {
    let rig = Rig::new();
    let attached = rig.attach().unwrap();
    assert_eq!((attached.netdev.as_str(), attached.device.as_str()), ("xsw7", "xsw7-nic"));
    assert_eq!(attached.pid, std::process::id().cast_signed());
    let wanted = Request::Sockets { port: "vm1".to_owned(), pid: Some(attached.pid), netns: true };
    assert_eq!(rig.daemon.said.lock().unwrap().requests, [wanted]);
    {
        let state = rig.qemu.state();
        let arguments = |command: &str| &state.log.iter().find(|(name, _)| name == command).unwrap().1;
        assert_eq!(arguments("netdev_add")["sock-fds"], "xsw7-q0:xsw7-q1");
        assert_eq!((&arguments("device_add")["bus"], &arguments("device_add")["mq"]), (&json!("rp1"), &json!(true)));
        assert_eq!((state.netdevs["xsw7"].len(), state.fds.len()), (2, 0));
        // QEMU's sockets are those that the daemon handed out, in the same order.
        for (fd, other) in state.netdevs["xsw7"].iter().zip(&rig.daemon.said.lock().unwrap().others) {
            rustix::io::write(fd, b"x").unwrap();
            assert_eq!((&*other).read(&mut [0; 2]).unwrap(), 1);
        }
    }
    assert_eq!(rig.qemu.commands(), ["getfd", "getfd", "netdev_add", "device_add", "qom-list"]);
    rig.daemon.refuse(ErrorKind::Busy, 2);
    let detached = rig.detach().unwrap();
    assert_eq!((detached.device.as_deref(), detached.netdev.as_deref()), (Some("xsw7-nic"), Some("xsw7")));
    assert_eq!(rig.qemu.commands(), ["device_del", "netdev_del", "closefd", "closefd"]);
    assert!(rig.is_bare() && rig.daemon.released() == 3);
}

#[test]
fn what_fails_is_undone_in_reverse_order() {
    for (failing, sent) in [
        ("getfd", vec!["getfd"]),
        ("netdev_add", vec!["getfd", "getfd", "netdev_add", "closefd", "closefd"]),
        ("device_add", vec!["getfd", "getfd", "netdev_add", "device_add", "netdev_del"]),
        ("qom-list", vec!["getfd", "getfd", "netdev_add", "device_add", "qom-list", "device_del", "netdev_del"]),
    ] {
        let rig = Rig::new();
        rig.qemu.state().refused.insert(failing, "no such luck");
        let error = rig.attach().unwrap_err();
        assert!(error.left.is_empty(), "{failing}: {error}");
        assert_eq!(error.to_string(), format!("QEMU refuses {failing}: no such luck"));
        assert_eq!(rig.qemu.commands(), sent);
        assert!(rig.is_bare() && rig.daemon.released() == 1, "{failing}");
        // A second attempt succeeds.
        rig.qemu.state().refused.clear();
        rig.attach().unwrap();
    }
}

#[test]
fn what_cannot_be_undone_is_told() {
    let rig = Rig::new();
    rig.qemu
        .state()
        .refused
        .extend([("device_add", "Bus 'pcie.0' does not support hotplugging"), ("netdev_del", "no")]);
    rig.daemon.refuse(ErrorKind::Busy, 1000);
    let error = rig.attach().unwrap_err();
    assert_eq!(error.left.len(), 2, "{error}");
    let text = error.to_string();
    for part in
        ["does not support hotplugging; name a bus", "not be undone: netdev xsw7 (", "lease of port vm1 (still there)"]
    {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_card_that_the_guest_keeps_does_not_keep_the_rest() {
    let rig = Rig::new();
    rig.qemu.state().refused.insert("qom-list", "no");
    rig.qemu.state().guest = Guest::Ignores;
    let error = rig.attach().unwrap_err();
    assert!(error.left.len() == 1 && error.left[0].starts_with("card xsw7-nic ("), "{error}");
    assert!(rig.daemon.is_bare() && rig.daemon.released() == 1);
}

#[test]
fn a_card_that_vanishes_at_once_is_no_success() {
    let rig = Rig::new();
    rig.qemu.state().vanishing = true;
    let error = rig.attach().unwrap_err();
    assert!(matches!(error.cause, HotplugError::Vanished(_)) && error.left.is_empty(), "{error}");
    assert!(rig.is_bare());
}

#[test]
fn the_lease_is_given_back_when_qemu_goes_away() {
    for deadly in ["getfd", "netdev_add", "device_add"] {
        let rig = Rig::new();
        rig.qemu.state().deadly.insert(deadly);
        let error = rig.attach().unwrap_err();
        assert!(matches!(error.cause, HotplugError::Qmp { error: QmpError::Closed, .. }), "{deadly}: {error:?}");
        assert_eq!(error.left.len(), 1, "{error}");
        assert_eq!(rig.daemon.released(), 1);
    }
}

#[test]
fn a_qemu_in_another_namespace_gets_nothing() {
    let rig = Rig { daemon: Daemon::start("/dev/null"), qemu: QemuDouble::start() };
    let error = rig.attach().unwrap_err();
    assert!(matches!(error.cause, HotplugError::Namespace { .. }), "{error}");
    assert!(error.to_string().contains("xsg-vm1 (that of the daemon)"), "{error}");
    assert!(rig.qemu.commands().is_empty() && rig.is_bare() && rig.daemon.released() == 1);
}

#[test]
fn a_netdev_without_backend_is_told_with_what_to_do() {
    let rig = Rig::new();
    rig.qemu.state().refused.insert("netdev_add", "Parameter 'type' does not accept value 'af-xdp'");
    assert!(rig.attach().unwrap_err().to_string().contains("--enable-af-xdp"));
}

#[test]
fn a_guest_that_keeps_its_card_can_be_asked_again() {
    let rig = Rig::new();
    rig.attach().unwrap();
    rig.qemu.state().guest = Guest::Ignores;
    rig.qemu.commands();
    // The second time QEMU says that the card is being unplugged already.
    for _ in 0..2 {
        let error = rig.detach().unwrap_err();
        assert!(matches!(error, HotplugError::GuestSilent { .. }), "{error}");
        let sent = rig.qemu.commands();
        assert!(!sent.contains(&"netdev_del".to_owned()), "{sent:?}");
    }
    assert_eq!(rig.daemon.released(), 0);
    rig.qemu.state().devices.clear();
    let detached = rig.detach().unwrap();
    assert_eq!((detached.device, detached.netdev.as_deref()), (None, Some("xsw7")));
    assert!(rig.is_bare() && rig.daemon.released() == 1);
    // Detaching once more finds nothing left.
    let detached = rig.detach().unwrap();
    assert_eq!((detached.device, detached.netdev), (None, None));
}

#[test]
fn a_guest_that_refuses_is_heard_and_a_lost_event_is_not_needed() {
    let rig = Rig::new();
    rig.attach().unwrap();
    rig.qemu.state().guest = Guest::Refuses;
    assert!(matches!(rig.detach().unwrap_err(), HotplugError::GuestRefuses(_)));
    rig.qemu.state().guest = Guest::YieldsSilently;
    rig.detach().unwrap();
    assert!(rig.is_bare());
}

#[test]
fn a_daemon_that_refuses_for_good_is_not_asked_for_ever() {
    let rig = Rig::new();
    rig.attach().unwrap();
    rig.daemon.refuse(ErrorKind::Denied, 1);
    assert!(matches!(rig.detach().unwrap_err(), HotplugError::HandOver(HandOverError::Refused(_))));
    assert_eq!(rig.daemon.released(), 1);
}

/// Whether a process may lock memory without limit.
fn is_exempt(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    effective_capabilities(&status) >> CAP_IPC_LOCK & 1 != 0
}

#[test]
fn limits_are_read_and_only_raised() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max processes             1000                 1000                 processes \n\
                  Max locked memory         8388608              unlimited            bytes     \n";
    assert_eq!(memlock_limits(limits), Some((8 << 20, u64::MAX)));
    assert_eq!(memlock_limits("Max processes 1 1 x\n"), None);
    let mut child = child();
    let pid = child.id().cast_signed();
    let limits = || memlock_limits(&fs::read_to_string(format!("/proc/{pid}/limits")).unwrap()).unwrap();
    // Anybody may lower the limits, and raise the soft one up to the hard one.
    let low = Rlimit { current: Some(1 << 20), maximum: Some(4 << 20) };
    prlimit(Pid::from_raw(pid), Resource::Memlock, low).unwrap();
    raise_memlock(pid, 1 << 10).unwrap();
    assert_eq!(limits(), (1 << 20, 4 << 20));
    raise_memlock(pid, 2 << 20).unwrap();
    assert_eq!(limits(), (2 << 20, 4 << 20));
    // Going beyond the hard limit takes a privilege, or a child that is exempt.
    match raise_memlock(pid, 64 << 20) {
        Ok(()) => assert!(limits() == (64 << 20, 64 << 20) || is_exempt(pid), "{:?}", limits()),
        Err(error) => assert!(error.to_string().contains("ulimit -l 65536"), "{error}"),
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn the_daemon_itself_gives_and_takes_back() {
    use model::{PortKind, PortSpec};

    use ctl_companion::{Access, FdsSocket, serve};
    use ctl_service::{Declared, Service};
    use kit::{FakeStorage, machine_for, start};

    let dir = tempfile::tempdir().unwrap();
    let store = FakeStorage::default().store();
    let service = Service::start(start(&machine_for(&[])), store, &Declared::default()).unwrap();
    service.look_after_guests(&dir.path().join("guests")).unwrap();
    let spec = PortSpec { guest_ifname: Some("xg0".to_owned()), ..PortSpec::new("vm1", PortKind::Guest) };
    service.add_port(spec).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let _entered = runtime.enter();
    let _server = serve(FdsSocket::bind(dir.path(), &Access::default()).unwrap(), &service, Access::default(), stopped);
    // This process holds the daemon's copies too, so another process stands in for QEMU.
    let mut child = child();
    let qemu = QemuDouble::start();
    let attach_it = |driver: &str| {
        let options = AttachOptions {
            port: "vm1".to_owned(),
            qmp: qemu.path().to_owned(),
            bus: None,
            driver: driver.to_owned(),
            pid: Some(child.id().cast_signed()),
        };
        attach(dir.path(), &options)
    };
    let holder = || service.port("vm1").unwrap().guest.map(|guest| guest.pid);
    qemu.state().refused.insert("device_add", "no");
    assert_eq!(attach_it("e1000").unwrap_err().to_string(), "QEMU refuses device_add: no");
    assert_eq!(holder(), None);
    qemu.state().refused.clear();
    let attached = attach_it(DEFAULT_DRIVER).unwrap();
    assert_eq!((attached.offer.vport, holder()), (0, Some(child.id().cast_signed())));
    assert_eq!(qemu.state().netdevs["xsw0"].len(), 1);
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let may = memlock_limits(&limits).unwrap().0;
    assert!(may >= attached.offer.memlock || is_exempt(child.id().cast_signed()), "{may}");
    let options =
        DetachOptions { port: "vm1".to_owned(), qmp: qemu.path().to_owned(), timeout: Duration::from_secs(1) };
    detach(dir.path(), &options).unwrap();
    assert!(qemu.is_bare() && holder().is_none());
    drop(child.stdin.take());
    child.wait().unwrap();
}

//! A double of QEMU for tests: a QMP server that keeps netdevs, cards and descriptors as QEMU does, and fails on
//! demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ctl_guest::protocol::receive;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The message that greets a client.
pub const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 1, \"major\": 10}, \"package\": \"\"}, \
                            \"capabilities\": [\"oob\"]}}\r\n";

/// How the guest reacts to the request to release a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guest {
    /// It releases the card.
    #[default]
    Yields,
    /// It does nothing.
    Ignores,
    /// It rejects the request.
    Refuses,
    /// It releases the card, but the event is lost.
    YieldsSilently,
}

#[derive(Debug, Default)]
pub struct State {
    /// Commands with their arguments, in the order received.
    pub log: Vec<(String, Value)>,
    /// Descriptors by name, from `getfd`.
    pub fds: BTreeMap<String, OwnedFd>,
    /// Netdevs with their sockets.
    pub netdevs: BTreeMap<String, Vec<OwnedFd>>,
    /// Cards.
    pub devices: BTreeSet<String>,
    /// Cards that the guest was asked to release.
    pub going: BTreeSet<String>,
    /// Commands to refuse, with the description of the error.
    pub refused: BTreeMap<&'static str, &'static str>,
    /// Commands that end the connection.
    pub deadly: BTreeSet<&'static str>,
    /// Whether cards vanish right after they are added.
    pub vanishing: bool,
    pub guest: Guest,
}

/// The server, with its socket in a temporary directory.
#[derive(Debug)]
pub struct QemuDouble {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    _dir: TempDir,
}

impl QemuDouble {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&stream.unwrap(), &shared);
            }
        });
        Self { path, state, _dir: dir }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Names of the commands received since the last call.
    pub fn commands(&self) -> Vec<String> {
        let log = std::mem::take(&mut self.state().log);
        log.into_iter().map(|(name, _)| name).filter(|name| name != "qmp_capabilities").collect()
    }

    /// Names of the descriptors that it holds.
    pub fn held(&self) -> Vec<String> {
        self.state().fds.keys().cloned().collect()
    }

    /// Whether nothing of any port is left.
    pub fn is_bare(&self) -> bool {
        let state = self.state();
        state.fds.is_empty() && state.netdevs.is_empty() && state.devices.is_empty()
    }
}

fn serve(mut stream: &UnixStream, state: &Mutex<State>) {
    let _ = stream.write_all(GREETING.as_bytes());
    loop {
        let Ok((bytes, mut fds)) = receive(stream.as_fd()) else { return };
        // The client sends one command at a time, and each in one piece.
        let Ok(message) = serde_json::from_slice::<Value>(&bytes) else { return };
        let command = message["execute"].as_str().unwrap().to_owned();
        let mut state = state.lock().unwrap();
        state.log.push((command.clone(), message["arguments"].clone()));
        if state.deadly.contains(command.as_str()) {
            return;
        }
        let outcome = match state.refused.get(command.as_str()) {
            Some(desc) => Err(("GenericError", (*desc).to_owned())),
            None => state.execute(&command, &message["arguments"], fds.pop()),
        };
        let answer = match outcome {
            Ok(value) => json!({ "return": value, "id": message["id"] }),
            Err((class, desc)) => json!({ "error": { "class": class, "desc": desc }, "id": message["id"] }),
        };
        let mut text = format!("{answer}\r\n");
        for (event, data) in state.events(&command, &message["arguments"]) {
            text += &format!("{}\r\n", json!({ "event": event, "data": data, "timestamp": { "seconds": 0 } }));
        }
        drop(state);
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

impl State {
    fn execute(
        &mut self,
        command: &str,
        arguments: &Value,
        fd: Option<OwnedFd>,
    ) -> Result<Value, (&'static str, String)> {
        let generic = |desc: String| ("GenericError", desc);
        let missing = |id: &str| ("DeviceNotFound", format!("Device '{id}' not found"));
        let text = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
        let id = text("id");
        match command {
            "qmp_capabilities" => {}
            "getfd" => {
                let fd = fd.ok_or_else(|| generic("No file descriptor supplied via SCM_RIGHTS".to_owned()))?;
                self.fds.insert(text("fdname"), fd);
            }
            "closefd" => {
                let name = text("fdname");
                let closed = self.fds.remove(&name);
                closed.ok_or_else(|| generic(format!("File descriptor named '{name}' not found")))?;
            }
            "netdev_add" => {
                if self.netdevs.contains_key(&id) {
                    return Err(generic(format!("Duplicate ID '{id}' for netdev")));
                }
                let mut take = |name: &str| {
                    let fd = self.fds.remove(name);
                    fd.ok_or_else(|| generic(format!("File descriptor named '{name}' has not been found")))
                };
                let fds = text("sock-fds").split(':').map(&mut take).collect::<Result<_, _>>()?;
                self.netdevs.insert(id, fds);
            }
            "netdev_del" => drop(self.netdevs.remove(&id).ok_or_else(|| missing(&id))?),
            "device_add" => {
                let netdev = text("netdev");
                if !self.netdevs.contains_key(&netdev) {
                    return Err(generic(format!("Property '{}.netdev' can't find value '{netdev}'", text("driver"))));
                }
                if !self.vanishing {
                    self.devices.insert(id);
                }
            }
            "device_del" => {
                if !self.devices.contains(&id) {
                    return Err(missing(&id));
                }
                if !self.going.insert(id.clone()) {
                    return Err(generic(format!("Device {id} is already in the process of unplug")));
                }
                match self.guest {
                    Guest::Yields | Guest::YieldsSilently => {
                        self.devices.remove(&id);
                        self.going.remove(&id);
                    }
                    Guest::Refuses => drop(self.going.remove(&id)),
                    Guest::Ignores => {}
                }
            }
            "qom-list" => {
                let child = |id: &String| json!({ "name": id, "type": "child<virtio-net-pci>" });
                return Ok(Value::Array(self.devices.iter().map(child).collect()));
            }
            other => return Err(("CommandNotFound", format!("The command {other} has not been found"))),
        }
        Ok(json!({}))
    }

    /// Events that follow a command.
    fn events(&self, command: &str, arguments: &Value) -> Vec<(&'static str, Value)> {
        let device = &arguments["id"];
        let known = device.as_str().is_some_and(|id| self.devices.contains(id));
        match (command, self.guest) {
            ("device_del", Guest::Yields) if !self.refused.contains_key(command) => vec![
                ("DEVICE_DELETED", json!({ "path": "/machine/peripheral/x/virtio-backend" })),
                ("DEVICE_DELETED", json!({ "device": device, "path": "/machine/peripheral/x" })),
            ],
            ("device_del", Guest::Refuses) if known => {
                vec![("DEVICE_UNPLUG_GUEST_ERROR", json!({ "device": device, "path": "/machine/peripheral/x" }))]
            }
            _ => Vec::new(),
        }
    }
}

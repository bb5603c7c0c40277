//! A QMP monitor on a Unix socket: one client at a time, descriptors by `SCM_RIGHTS`.

use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Map, Value, json};

use super::machine::{Failure, Machine, NamedFds};
use super::options::Params;

/// A monitor.
#[derive(Debug)]
pub struct Monitor {
    listener: UnixListener,
    path: PathBuf,
    client: Option<Client>,
    /// Descriptors that `getfd` named. They outlive the client that sent them.
    named: NamedFds,
    version: String,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    negotiated: bool,
    /// Descriptors of the last message that carried some.
    fds: Vec<OwnedFd>,
}

/// What the machine does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    Run,
    /// It ends.
    Quit,
}

fn not_a_command(desc: String) -> Failure {
    Failure { class: "CommandNotFound", desc }
}

impl Client {
    fn say(&mut self, message: &Value) -> std::io::Result<()> {
        self.stream.write_all(format!("{message}\r\n").as_bytes())
    }

    /// Reads what is there. False at the end of the connection.
    fn read(&mut self) -> bool {
        let mut part = vec![0; 65_536];
        let mut space = nix::cmsg_space!([RawFd; 16]);
        let mut parts = [IoSliceMut::new(&mut part)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (len, fds) = match recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return true,
            Err(_) => return false,
            Ok(message) => {
                let rights = message.cmsgs().into_iter().flatten().filter_map(|control| match control {
                    ControlMessageOwned::ScmRights(fds) => Some(fds),
                    _ => None,
                });
                (message.bytes, rights.flatten().collect::<Vec<_>>())
            }
        };
        if !fds.is_empty() {
            // SAFETY: the kernel made these descriptors for this message, and nobody else has them.
            self.fds = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        }
        self.input.extend(&part[..len]);
        len > 0
    }
}

impl Monitor {
    /// Listens as `unix:PATH,server=on,wait=off` says. With `wait=on` it also waits for a client.
    pub fn open(text: &str, version: &str) -> Result<Self, String> {
        let (path, more) = text.split_once(',').unwrap_or((text, ""));
        let path = path.strip_prefix("unix:").ok_or_else(|| format!("'{path}' is not a valid char driver"))?;
        let more = Params::parse(&format!("path,{}", more.replace("nowait", "wait=off")), "path")?;
        if !more.flag("server")?.unwrap_or(false) {
            return Err("the double is a server only: it needs 'server=on'".to_owned());
        }
        let path = PathBuf::from(path);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .map_err(|error| format!("Failed to bind socket to {}: {}", path.display(), super::xsk::text(&error)))?;
        let mut monitor = Self { listener, path, client: None, named: Vec::new(), version: version.to_owned() };
        if more.flag("wait")?.unwrap_or(true) {
            monitor.accept();
        }
        Ok(monitor)
    }

    /// The descriptor to wait for.
    pub fn fd(&self) -> RawFd {
        self.client.as_ref().map_or(self.listener.as_raw_fd(), |client| client.stream.as_raw_fd())
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let mut client = Client { stream, input: Vec::new(), negotiated: false, fds: Vec::new() };
        let greeting = json!({ "QMP": { "version": self.version(), "capabilities": ["oob"] } });
        if client.say(&greeting).is_ok() {
            self.client = Some(client);
        }
    }

    fn version(&self) -> Value {
        let digits = self.version.split(' ').next().unwrap_or_default();
        let mut parts = digits.split('.').map(|part| part.parse().unwrap_or(0_u32));
        let mut part = || parts.next().unwrap_or(0);
        let (major, minor, micro) = (part(), part(), part());
        json!({ "qemu": { "major": major, "minor": minor, "micro": micro }, "package": "" })
    }

    /// Serves the readable descriptor.
    pub fn readable(&mut self, machine: &mut Machine) -> Next {
        let Some(client) = &mut self.client else {
            self.accept();
            return Next::Run;
        };
        if !client.read() {
            self.client = None;
            return Next::Run;
        }
        let mut next = Next::Run;
        while next == Next::Run
            && let Some(request) = self.request()
        {
            let id = request.as_ref().ok().and_then(|request| request.get("id").cloned());
            let done = request.and_then(|request| self.answer(machine, &request));
            let mut answer = match done {
                Ok((value, then)) => {
                    next = then;
                    json!({ "return": value })
                }
                Err(failure) => json!({ "error": { "class": failure.class, "desc": failure.desc } }),
            };
            if let Some(id) = id {
                answer["id"] = id;
            }
            if self.client.as_mut().is_some_and(|client| client.say(&answer).is_err()) {
                self.client = None;
            }
        }
        next
    }

    /// Takes the next complete request from what was read.
    fn request(&mut self) -> Option<Result<Value, Failure>> {
        let client = self.client.as_mut()?;
        let mut values = serde_json::Deserializer::from_slice(&client.input).into_iter::<Value>();
        match values.next()? {
            Ok(value) => {
                let end = values.byte_offset();
                client.input.drain(..end);
                Some(Ok(value))
            }
            Err(error) if error.is_eof() => None,
            Err(error) => {
                client.input.clear();
                Some(Err(format!("JSON parse error, {error}").into()))
            }
        }
    }

    fn answer(&mut self, machine: &mut Machine, request: &Value) -> Result<(Value, Next), Failure> {
        let client = self.client.as_mut().expect("a request has a client");
        let command = request.get("execute").and_then(Value::as_str);
        let command = command.ok_or_else(|| "QMP input lacks member 'execute'".to_owned())?;
        let arguments = match request.get("arguments") {
            None => Map::new(),
            Some(Value::Object(arguments)) => arguments.clone(),
            Some(_) => return Err("QMP input member 'arguments' must be an object".to_owned().into()),
        };
        if command == "qmp_capabilities" {
            let again = "Capabilities negotiation is already complete, command ignored";
            return match std::mem::replace(&mut client.negotiated, true) {
                true => Err(not_a_command(again.to_owned())),
                false => Ok((json!({}), Next::Run)),
            };
        }
        if !client.negotiated {
            return Err(not_a_command("Expecting capabilities negotiation with 'qmp_capabilities'".to_owned()));
        }
        let injected = std::env::var("QEMU_DOUBLE_FAIL").unwrap_or_default();
        if injected.split(',').any(|name| name == command) {
            client.fds.clear();
            return Err(format!("{command} fails because QEMU_DOUBLE_FAIL says so").into());
        }
        let params = Params::json(arguments);
        match command {
            "getfd" => {
                let mut fds = std::mem::take(&mut client.fds).into_iter();
                let fd = fds.next().ok_or_else(|| "No file descriptor supplied via SCM_RIGHTS".to_owned())?;
                let name = params.required("fdname")?;
                if name.starts_with(|c: char| c.is_ascii_digit()) {
                    return Err("Parameter 'fdname' expects a name not starting with a digit".to_owned().into());
                }
                self.named.retain(|(known, _)| known != name);
                self.named.push((name.to_owned(), fd));
            }
            "closefd" => {
                let name = params.required("fdname")?;
                let place = self.named.iter().position(|(known, _)| known == name);
                let place = place.ok_or_else(|| format!("File descriptor named '{name}' not found"))?;
                self.named.remove(place);
            }
            "netdev_add" => machine.netdev_add(&params, Some(&mut self.named))?,
            "netdev_del" => machine.netdev_del(params.required("id")?)?,
            "device_add" => machine.device_add(&params)?,
            "device_del" => machine.device_del(params.required("id")?)?,
            "qom-list" => match params.required("path")? {
                "/machine/peripheral" => return Ok((machine.peripherals(), Next::Run)),
                path => return Err(Failure::not_found(path)),
            },
            "query-status" => return Ok((json!({ "status": "running", "running": true }), Next::Run)),
            "query-version" => return Ok((self.version(), Next::Run)),
            "quit" => return Ok((json!({}), Next::Quit)),
            _ => return Err(not_a_command(format!("The command {command} has not been found"))),
        }
        Ok((json!({}), Next::Run))
    }

    /// Sends an event to the client.
    pub fn tell(&mut self, event: &Value) {
        if let Some(client) = self.client.as_mut().filter(|client| client.negotiated) {
            let _ = client.say(event);
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

//! A fake spp-ctl. It listens, asks each connection who it is, and reads answers as the code of its versions does.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ctl_spp::{Proc, ProcType};
use serde_json::Value;

/// Bytes that spp-ctl reads at once.
const MSG_SIZE: usize = 4096;
/// A test fails after this time.
const LONG: Duration = Duration::from_secs(60);

/// Versions of spp-ctl that read client ids differently.
#[derive(Clone, Copy, PartialEq)]
pub enum Version {
    /// The first version: an answer with a client id is a vf, and a number is an nfv.
    First,
    /// By the answer's type of process, but an nfv answers a number.
    Number,
    /// By the answer's type of process.
    Types,
}

/// A connection that spp-ctl has accepted.
pub struct Link(TcpStream);

impl Link {
    pub fn send(&mut self, bytes: &[u8]) -> String {
        self.0.write_all(bytes).unwrap();
        let mut chunk = [0; MSG_SIZE];
        let read = self.0.read(&mut chunk).unwrap();
        let mut data = chunk[..read].to_vec();
        if read == MSG_SIZE {
            // spp-ctl is no faster than that. It does not wait for more.
            sleep(Duration::from_millis(100));
            self.0.set_nonblocking(true).unwrap();
            loop {
                match self.0.read(&mut chunk) {
                    Ok(read) => {
                        data.extend(&chunk[..read]);
                        if read < MSG_SIZE {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            self.0.set_nonblocking(false).unwrap();
        }
        String::from_utf8(data).unwrap()
    }

    /// Sends a command to a vf, mirror or pcap, and reads the answer as spp-ctl does.
    pub fn ask(&mut self, command: &str) -> Result<Value, String> {
        let data: Value = serde_json::from_str(&self.send(command.as_bytes())).unwrap();
        let result = &data["results"][0];
        match result["result"].as_str() {
            Some("success") => Ok(data),
            Some("error") => Err(result["error_details"]["message"].as_str().unwrap().to_owned()),
            _ => panic!("{data}"),
        }
    }

    /// Sends a command to an nfv or the primary, and reads the answer as spp-ctl of 2020 does.
    pub fn ask_nfv(&mut self, command: &str) -> Result<Value, String> {
        let data: Value = serde_json::from_str(&self.send(command.as_bytes()).replace('\0', "")).unwrap();
        match data["results"][0]["result"].as_str() {
            Some("error") => Err(data["results"][0]["error_details"]["message"].as_str().unwrap().to_owned()),
            _ => Ok(data),
        }
    }

    /// The TCP connection.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    /// Whether the agent closes the connection.
    pub fn closes(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]), Ok(0))
    }
}

fn client_id(version: Version, data: &str) -> Option<Proc> {
    let json: Value = serde_json::from_str(data).ok()?;
    let number = || Some(Proc { kind: ProcType::Nfv, id: data.trim_matches('\0').parse().ok()? });
    let id = json["results"][0]["result"].as_str().and_then(|_| json["client_id"].as_u64());
    let typed = || {
        let kind: ProcType = serde_json::from_value(json["process_type"].clone()).ok()?;
        Some(Proc { kind, id: id? as u32 })
    };
    match version {
        Version::First => id.map(|id| Proc { kind: ProcType::Vf, id: id as u32 }).or_else(number),
        Version::Number => typed().filter(|proc| proc.kind != ProcType::Nfv).or_else(number),
        Version::Types => typed(),
    }
}

/// A loopback address of this test alone. So its ports stay free while nobody listens.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = n.to_be_bytes();
    Ipv4Addr::new(127, a | 128, b, c).into()
}

pub struct FakeCtl {
    pub address: IpAddr,
    primary: TcpListener,
    secondary: TcpListener,
    version: Version,
    /// Connections that were closed because their client id could not be read.
    pub refused: Cell<u32>,
}

impl FakeCtl {
    pub fn on(address: IpAddr, ports: [u16; 2], version: Version) -> Self {
        let [primary, secondary] = ports.map(|port| {
            let listener = TcpListener::bind((address, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        Self { address, primary, secondary, version, refused: Cell::new(0) }
    }

    pub fn ports(&self) -> [u16; 2] {
        [&self.primary, &self.secondary].map(|listener| listener.local_addr().unwrap().port())
    }

    fn accept(listener: &TcpListener) -> Link {
        let until = Instant::now() + LONG;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(LONG)).unwrap();
                    return Link(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => {
                    sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("nobody comes: {error}"),
            }
        }
    }

    pub fn accept_primary(&self) -> Link {
        Self::accept(&self.primary)
    }

    /// The next connection whose client id can be read. The others are closed.
    pub fn accept_secondary(&self) -> (Proc, Link) {
        loop {
            let mut link = Self::accept(&self.secondary);
            let data = link.send(b"_get_client_id");
            if let Some(proc) = client_id(self.version, &data) {
                return (proc, link);
            }
            self.refused.set(self.refused.get() + 1);
        }
    }

    pub fn accept_secondaries(&self, count: usize) -> BTreeMap<Proc, Link> {
        (0..count).map(|_| self.accept_secondary()).collect()
    }
}

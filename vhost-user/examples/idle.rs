//! A device with nothing behind it. It shows what a front end negotiates, and how a device uses this crate.
//!
//! ```text
//! cargo run -p vhost-user --example idle -- net server /tmp/vm1.sock
//! ```

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost_user::connection::{Ended, FrontEnd};
use vhost_user::message::features as bit;
use vhost_user::message::{InflightLayout, InflightRegion};
use vhost_user::session::{Action, Offer, Outcome};
use vhost_user::socket::{Access, ConnectError, Listener, connect};

/// Time between two tries of a client.
const RETRY: Duration = Duration::from_millis(200);

/// Virtio 1.0, event index, indirect descriptors (virtio 1.2, 6).
const RINGS: u64 = 1 << 32 | 1 << 29 | 1 << 28;

/// What nearly every device has.
const PROTOCOL: u64 = bit::MQ
    | bit::LOG_SHMFD
    | bit::REPLY_ACK
    | bit::BACKEND_REQ
    | bit::INFLIGHT_SHMFD
    | bit::RESET_DEVICE
    | bit::CONFIGURE_MEM_SLOTS;

/// A net device with two pairs: checksums, segments, mergeable buffers, control queue, announcements, MQ, packed rings.
const NET: Offer = Offer {
    features: RINGS | 0b11 | 0x7f << 7 | 1 << 15 | 1 << 17 | 1 << 21 | 1 << 22 | bit::LOG_ALL | bit::RING_PACKED,
    protocol_features: PROTOCOL | bit::RARP | bit::MTU | bit::STATUS,
    rings: 4,
    queue_num: 2,
    enabled_at_first: 2,
    mem_slots: 32,
    max_mtu: 9000,
};

/// A block device with two queues: block size, flush, write-back switch, MQ.
const BLK: Offer = Offer {
    features: RINGS | 1 << 6 | 1 << 9 | 1 << 11 | 1 << 12 | bit::LOG_ALL,
    protocol_features: PROTOCOL | bit::CONFIG,
    rings: 2,
    queue_num: 2,
    enabled_at_first: 0,
    mem_slots: 32,
    max_mtu: 0,
};

/// `struct virtio_blk_config`: 2,048 sectors of 512 bytes, two queues (virtio 1.2, 5.2.4).
fn blk_config() -> [u8; 60] {
    let mut config = [0; 60];
    config[..8].copy_from_slice(&2048_u64.to_le_bytes());
    config[20..24].copy_from_slice(&512_u32.to_le_bytes());
    config[34..36].copy_from_slice(&2_u16.to_le_bytes());
    config
}

/// A net device as of 2015, when protocol features were new and there was one.
const OLD: Offer = Offer { features: RINGS | 1 << 15 | 1 << 17 | 1 << 22, protocol_features: bit::MQ, ..NET };

fn carry_out(front_end: &mut FrontEnd, actions: &[Action]) -> Outcome {
    let mut outcome = Outcome::Done;
    for action in actions {
        println!("  {action:?}");
        match *action {
            Action::StopRing(ring) => {
                // Nothing was ever taken from it.
                let session = front_end.session();
                let base = session.ring(ring).map(|state| state.start_base(session.is_packed()));
                front_end.ring_stopped(ring, base.unwrap_or_default());
            }
            Action::ReadConfig { offset, size } => {
                let piece = || {
                    let (offset, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
                    let mut config = blk_config().to_vec();
                    config.resize(offset.checked_add(size)?.max(config.len()), 0);
                    Some(Outcome::Config(config.get(offset..)?.get(..size)?.to_vec()))
                };
                outcome = piece().unwrap_or(Outcome::Refused);
            }
            Action::MakeInflight { rings, ring_size } => {
                let size = u64::from(rings) * 4096;
                let layout = InflightLayout { size, offset: 0, rings, ring_size };
                let made = memfd_create("inflight", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from);
                let made = made.map(File::from).and_then(|file| file.set_len(size).map(|()| file.into()));
                outcome = match made {
                    Ok(fd) => Outcome::Inflight(InflightRegion { layout, fd }),
                    Err(_) => Outcome::Refused,
                };
            }
            _ => {}
        }
    }
    outcome
}

/// Serves a front end until the connection is over. `listener` turns others away meanwhile.
fn serve(mut front_end: FrontEnd, listener: Option<&Listener>) -> Result<(), Box<dyn Error>> {
    let ended = loop {
        let mut sockets = vec![PollFd::new(front_end.as_fd(), front_end.events())];
        sockets.extend(listener.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        poll(&mut sockets, PollTimeout::NONE)?;
        if !front_end.is_hung_up()
            && let Some(listener) = listener
        {
            listener.turn_away()?;
        }
        match turn(&mut front_end) {
            Ok(()) => {}
            Err(ended) => break ended,
        }
    };
    println!("over: {ended}");
    let actions = front_end.hang_up();
    carry_out(&mut front_end, &actions);
    Ok(())
}

fn turn(front_end: &mut FrontEnd) -> Result<(), Ended> {
    let Some(turn) = front_end.next_turn()? else { return Ok(()) };
    println!("{turn}");
    let actions = turn.actions.clone();
    let outcome = carry_out(front_end, &actions);
    if let Some(refusal) = front_end.finish(turn, outcome)? {
        println!("  refused: {refusal}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, side, path] = arguments.as_slice() else {
        return Err("usage: idle net|old|blk server|client PATH".into());
    };
    let offer = match device.as_str() {
        "blk" => BLK,
        "old" => OLD,
        _ => NET,
    };
    let path = Path::new(path);
    if side == "client" {
        loop {
            match connect(path) {
                Ok(connection) => serve(FrontEnd::new(connection, offer), None)?,
                Err(ConnectError::Absent(_)) => std::thread::sleep(RETRY),
                Err(error) => return Err(error.into()),
            }
        }
    }
    let listener = Listener::bind(path, Access { owner: None, group: None, mode: 0o600 })?;
    loop {
        poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        if let Some(connection) = listener.accept()? {
            serve(FrontEnd::new(connection, offer), Some(&listener))?;
        }
    }
}

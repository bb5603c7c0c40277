//! The record of requests in work, which outlives the daemon, and what goes with it.
//!
//! The front end keeps the record's file while the guest runs. The last bytes of it are this device's own: whether the
//! driver has switched the cache off. A daemon that is started anew must know, because a driver without a cache sends
//! no FLUSH. Front ends pass the bytes on as they are.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vhost_user::message::{InflightLayout, InflightRegion as Message};
use vhost_user::ring::inflight::InflightRegion;

/// Bytes of this device's own at the end: a mark, then whether the cache is used.
const TRAILER: u64 = 16;
const MARK: [u8; 8] = *b"xsw-disk";

/// The record.
#[derive(Debug)]
pub struct Record {
    region: InflightRegion,
    /// The file, as the front end has given it back, and where the trailer begins.
    message: Arc<Message>,
    trailer: u64,
}

fn file(message: &Message) -> std::io::Result<File> {
    message.fd.try_clone().map(File::from)
}

impl Record {
    /// Makes a record for so many rings of that size. The front end gets it, and gives it back.
    pub fn create(rings: u16, ring_size: u16, packed: bool, write_back: bool) -> Result<Message, String> {
        let (region, fd) = InflightRegion::create(rings, ring_size, packed).map_err(|error| error.to_string())?;
        let InflightLayout { size, offset, .. } = region.layout();
        let message = Message { layout: InflightLayout { size: size + TRAILER, offset, rings, ring_size }, fd };
        let written = file(&message).and_then(|file| {
            file.set_len(offset + size + TRAILER)?;
            write(&file, offset + size, write_back)
        });
        written.map_err(|error| format!("a file in memory: {error}"))?;
        Ok(message)
    }

    /// Maps the record that a front end has kept.
    pub fn open(message: &Arc<Message>, packed: bool) -> Result<Self, String> {
        let InflightLayout { size, offset, .. } = message.layout;
        let region = InflightRegion::open(message.fd.as_fd(), message.layout, packed);
        let region = region.map_err(|error| format!("the record of requests in flight: {error}"))?;
        let trailer = offset.saturating_add(size).saturating_sub(TRAILER);
        Ok(Self { region, message: Arc::clone(message), trailer })
    }

    /// The part of the protocol.
    pub fn region(&self) -> &InflightRegion {
        &self.region
    }

    /// Whether the driver uses the cache, if an earlier daemon has noted it.
    pub fn cache(&self) -> Option<bool> {
        let mut bytes = [0; 9];
        file(&self.message).ok()?.read_exact_at(&mut bytes, self.trailer).ok()?;
        let [mark @ .., cache] = bytes;
        (mark == MARK).then_some(cache != 0)
    }

    /// Notes whether the driver uses the cache.
    pub fn note_cache(&self, write_back: bool) {
        // Another back end's record has no place for it.
        if self.cache().is_some() {
            let _ = file(&self.message).and_then(|file| write(&file, self.trailer, write_back));
        }
    }
}

fn write(file: &File, at: u64, write_back: bool) -> std::io::Result<()> {
    let [a, b, c, d, e, f, g, h] = MARK;
    file.write_all_at(&[a, b, c, d, e, f, g, h, u8::from(write_back)], at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daemon_knows_the_cache_and_the_requests_place() {
        for packed in [false, true] {
            let message = Arc::new(Record::create(2, 64, packed, true).unwrap());
            let record = Record::open(&message, packed).unwrap();
            assert_eq!(record.cache(), Some(true));
            record.note_cache(false);
            drop(record);
            assert_eq!(Record::open(&message, packed).unwrap().cache(), Some(false));
        }
    }

    #[test]
    fn a_record_of_another_back_end_has_no_such_bytes_and_gets_none() {
        let (region, fd) = InflightRegion::create(1, 64, false).unwrap();
        let layout = region.layout();
        let record = Record::open(&Arc::new(Message { layout, fd }), false).unwrap();
        record.note_cache(false);
        assert_eq!(record.cache(), None);
        let mut bytes = vec![0; usize::try_from(layout.size).unwrap()];
        file(&record.message).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}

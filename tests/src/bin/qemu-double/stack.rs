//! The guest: a NIC with an IPv4 address. It answers ARP and ping, sends pings, and keeps all other frames for the
//! test.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ::tests::packet::checksum;
use ::tests::{Frame, Mac};

/// Most frames that are kept. Further ones are counted and lost.
const INBOX: usize = 4096;
/// Longest time for an ARP answer, and time between requests.
const RESOLVE: Duration = Duration::from_millis(250);
const RESOLVE_TRIES: u32 = 8;
/// Longest time for the answer to the last echo request.
const GRACE: Duration = Duration::from_secs(1);
/// Identifier of the echo requests from [`Frame::ping4`].
const IDENTIFIER: [u8; 2] = [0x12, 0x34];

/// A NIC with its stack.
#[derive(Debug)]
pub struct Nic {
    /// Its MAC address.
    pub mac: Mac,
    /// IPv4 address. Without one it answers nothing.
    pub ip: Option<Ipv4Addr>,
    /// Frames to be sent.
    pub outbox: VecDeque<Vec<u8>>,
    /// Frames for the test.
    pub inbox: VecDeque<Vec<u8>>,
    /// Frames that the inbox had no room for.
    pub overflow: u64,
    neighbours: HashMap<Ipv4Addr, Mac>,
    replies: HashSet<u16>,
    sequence: u16,
}

fn ipv4(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

impl Nic {
    /// A NIC without an IPv4 address.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            ip: None,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            overflow: 0,
            neighbours: HashMap::new(),
            replies: HashSet::new(),
            sequence: 0,
        }
    }

    /// Takes a frame that has come.
    pub fn receive(&mut self, frame: Vec<u8>) {
        if self.answered(&frame).is_some() {
            return;
        }
        if self.inbox.len() < INBOX {
            self.inbox.push_back(frame);
        } else {
            self.overflow += 1;
        }
    }

    /// Answers a frame as a stack does. `None` if the stack has no use for it.
    fn answered(&mut self, frame: &[u8]) -> Option<()> {
        let own = self.ip?;
        let head: &[u8; 14] = frame.first_chunk()?;
        let (dst, src) = (Mac(*head.first_chunk()?), Mac(*head[6..].first_chunk()?));
        if dst != self.mac && dst != Mac::BROADCAST {
            return None;
        }
        let body = &frame[14..];
        match head[12..] {
            [0x08, 0x06] => self.arp(own, body.get(..28)?),
            [0x08, 0x00] => self.icmp(own, src, body),
            _ => None,
        }
    }

    fn arp(&mut self, own: Ipv4Addr, body: &[u8]) -> Option<()> {
        let (sender, sender_ip) = (Mac(*body[8..].first_chunk()?), ipv4(&body[14..]));
        if ipv4(&body[24..]) != own {
            return None;
        }
        match body[..8] {
            [0, 1, 8, 0, 6, 4, 0, 1] => {
                let answer = Frame::ethernet(self.mac, sender);
                self.outbox.push_back(answer.arp(2, (self.mac, own), (sender, sender_ip)).0);
            }
            [0, 1, 8, 0, 6, 4, 0, 2] => {}
            _ => return None,
        }
        self.neighbours.insert(sender_ip, sender);
        Some(())
    }

    fn icmp(&mut self, own: Ipv4Addr, src: Mac, packet: &[u8]) -> Option<()> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes(*packet.get(2..4)?.first_chunk()?));
        let packet = packet.get(..total)?;
        let icmp = packet.get(header..).filter(|icmp| header >= 20 && icmp.len() >= 8)?;
        let whole = packet[6] & 0x3f == 0 && packet[7] == 0;
        if packet[9] != 1 || ipv4(&packet[16..]) != own || !whole || checksum(&[&packet[..header]]) != 0 {
            return None;
        }
        if checksum(&[icmp]) != 0 {
            return None;
        }
        match (icmp[0], &icmp[4..6]) {
            (8, _) => {
                let mut answer = icmp.to_vec();
                answer[0] = 0;
                answer[2..4].fill(0);
                let sum = checksum(&[&answer]);
                answer[2..4].copy_from_slice(&sum.to_be_bytes());
                let frame = Frame::ethernet(self.mac, src).ipv4(1, own, ipv4(&packet[12..]), &answer);
                self.outbox.push_back(frame.0);
            }
            (0, id) if id == IDENTIFIER => {
                self.replies.insert(u16::from_be_bytes([icmp[6], icmp[7]]));
            }
            _ => return None,
        }
        Some(())
    }
}

/// A series of echo requests.
#[derive(Debug)]
pub struct Ping {
    target: Ipv4Addr,
    count: u32,
    interval: Duration,
    asked: u32,
    sent: Vec<u16>,
    next: Instant,
}

impl Ping {
    /// A series that starts at once.
    pub fn new(target: Ipv4Addr, count: u32, interval: Duration) -> Self {
        Self { target, count, interval, asked: 0, sent: Vec::new(), next: Instant::now() }
    }

    /// Time of the next work, if no frame comes before.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Goes on. Returns the answer to the command once it is done.
    pub fn advance(&mut self, nic: &mut Nic) -> Option<String> {
        let Some(own) = nic.ip else { return Some("error: no address".to_owned()) };
        let received = self.sent.iter().filter(|sequence| nic.replies.contains(sequence)).count();
        let (now, all) = (Instant::now(), self.sent.len() == self.count as usize);
        if all && (received == self.sent.len() || now >= self.next) {
            return Some(format!("received {received} of {}", self.count));
        }
        let Some(&neighbour) = nic.neighbours.get(&self.target) else {
            if now < self.next {
                return None;
            }
            if self.asked == RESOLVE_TRIES {
                return Some(format!("received 0 of {}", self.count));
            }
            let question = Frame::ethernet(nic.mac, Mac::BROADCAST);
            nic.outbox.push_back(question.arp(1, (nic.mac, own), (Mac([0; 6]), self.target)).0);
            self.asked += 1;
            self.next = now + RESOLVE;
            return None;
        };
        if !all && (now >= self.next || self.sent.is_empty()) {
            let frame = Frame::ethernet(nic.mac, neighbour).ping4(own, self.target, nic.sequence);
            nic.outbox.push_back(frame.0);
            nic.replies.remove(&nic.sequence);
            self.sent.push(nic.sequence);
            nic.sequence = nic.sequence.wrapping_add(1);
            self.next = now + if self.sent.len() == self.count as usize { GRACE } else { self.interval };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 1));
    const B: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 0, 0, 2));

    fn nic((mac, ip): (Mac, Ipv4Addr)) -> Nic {
        Nic { ip: Some(ip), ..Nic::new(mac) }
    }

    #[test]
    fn two_guests_on_a_wire_ping_each_other() {
        let (mut a, mut b) = (nic(A), nic(B));
        let mut ping = Ping::new(B.1, 3, Duration::ZERO);
        let done = (0..20).find_map(|_| {
            let done = ping.advance(&mut a);
            a.outbox.drain(..).for_each(|frame| b.receive(frame));
            b.outbox.drain(..).for_each(|frame| a.receive(frame));
            done
        });
        assert_eq!(done.as_deref(), Some("received 3 of 3"));
        assert!(a.inbox.is_empty() && b.inbox.is_empty());
    }

    #[test]
    fn what_is_not_for_the_stack_is_kept() {
        let mut a = nic(A);
        let mut broken = Frame::ethernet(B.0, A.0).ping4(B.1, A.1, 1);
        broken.0[50] ^= 1;
        for frame in [Frame::ethernet(B.0, Mac::stranger(1)).ping4(B.1, A.1, 1), broken, Frame(vec![0; 14])] {
            a.receive(frame.0);
        }
        assert_eq!((a.inbox.len(), a.outbox.len()), (3, 0));
    }
}

//! From bytes to headers.

use std::hint::black_box;

use switch::engine::parse::{flow_hash, parse, parse_l2};

use super::{BURSTS, Case, nothing};
use crate::micro::fixtures::{BURST, stacked, udp4, udp6};

const GROUP: &str = "parse";

type Frames = Vec<Vec<u8>>;

fn each<T>(frames: &mut Frames, read: impl Fn(&[u8]) -> T) {
    for _ in 0..BURSTS {
        for frame in frames.iter() {
            black_box(read(black_box(frame)));
        }
    }
}

fn case<T>(name: &str, frame: fn(u32) -> Vec<u8>, read: impl Fn(&[u8]) -> T + Copy + 'static) -> Case {
    let make = move || (0..BURST as u32).map(frame).collect::<Frames>();
    Case::new(GROUP, name, BURSTS * BURST, make, nothing, move |frames| each(frames, read))
}

pub(super) fn cases() -> Vec<Case> {
    let v4 = |n| udp4(n + 1, n);
    vec![
        case("layer 2", v4, parse_l2),
        case("UDP in IPv4", v4, parse),
        case("UDP in IPv6", |n| udp6(n + 1, n), parse),
        case("QinQ, UDP in IPv4", |n| stacked(&udp4(n + 1, n)), parse),
        case("flow hash", v4, flow_hash),
    ]
}

//! Messages against bytes that were written by hand from the specification, and streams in any pieces.

mod mistakes;
mod replies;
mod requests;
mod streams;

use std::fs::File;
use std::os::fd::OwnedFd;

use super::*;

/// Bytes of hex digits. Blanks are for the reader. Numbers are little-endian.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| u8::try_from(digit).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Some descriptors.
fn fds(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| File::open("/dev/null").expect("/dev/null").into()).collect()
}

/// A request in words, with `FD` for each descriptor.
fn words(request: &Request) -> String {
    let mut text = format!("{request:?}");
    while let Some(at) = text.find("OwnedFd {") {
        let end = text[at..].find('}').expect("a brace") + at;
        text.replace_range(at..=end, "FD");
    }
    text
}

/// The messages of these bytes. Descriptors come with the first byte.
fn all_of(assembler: &mut Assembler, mut bytes: &[u8], mut came: Vec<OwnedFd>) -> Vec<Message> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let room = assembler.room();
        let length = room.len().min(bytes.len());
        room[..length].copy_from_slice(&bytes[..length]);
        bytes = &bytes[length..];
        messages.extend(assembler.advance(length, std::mem::take(&mut came)).expect("a message"));
    }
    messages
}

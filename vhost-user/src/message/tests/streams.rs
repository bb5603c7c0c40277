//! Streams in any pieces.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A message of a stream: header and payload, and its descriptors.
type Sent = (Vec<u8>, usize);

/// Gives it to an assembler in pieces of these lengths, over and over. Descriptors come with a message's first byte.
/// The kernel ends a piece before bytes that descriptors come with.
fn pieces(sent: &[Sent], lengths: &[usize]) -> Vec<(u32, bool, Result<String, Invalid>)> {
    let mut assembler = Assembler::default();
    let mut lengths = lengths.iter().cycle();
    let mut got = Vec::new();
    for (bytes, count) in sent {
        let mut rest = bytes.as_slice();
        let mut came = fds(*count);
        while !rest.is_empty() {
            let room = assembler.room();
            let length = room.len().min(rest.len()).min(*lengths.next().expect("lengths"));
            room[..length].copy_from_slice(&rest[..length]);
            rest = &rest[length..];
            if let Some(message) = assembler.advance(length, std::mem::take(&mut came)).expect("a message") {
                let request = message.request.map(|request| words(&request));
                got.push((message.code, message.need_reply, request));
            }
        }
    }
    assert!(assembler.is_between_messages());
    got
}

/// Some valid, most not. Lengths are often those of requests.
fn message() -> impl Strategy<Value = Sent> {
    let length = prop_oneof![Just(0), Just(8), Just(16), Just(20), Just(24), Just(40), 0_usize..400];
    let payload = length.prop_flat_map(|length| {
        let byte = prop_oneof![3 => Just(0_u8), 1 => Just(1), 1 => any::<u8>()];
        vec(byte, length)
    });
    (0_u32..45, any::<bool>(), payload, 0_usize..=8).prop_map(|(code, need_reply, payload, fds)| {
        let flags = if need_reply { 9_u32 } else { 1 };
        let size = u32::try_from(payload.len()).unwrap();
        let mut bytes = [code, flags, size].map(u32::to_ne_bytes).concat();
        bytes.extend(payload);
        (bytes, fds)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However a stream is cut, the requests are those of its messages.
    #[test]
    fn requests_do_not_depend_on_the_pieces(sent in vec(message(), 1..8), lengths in vec(1_usize..50, 1..8)) {
        let whole: Vec<_> = sent.iter().map(|(bytes, count)| {
            let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            let request = decode(word(0), &bytes[HEADER_LEN..], fds(*count)).map(|request| words(&request));
            (word(0), word(4) & 8 != 0, request)
        }).collect();
        prop_assert_eq!(pieces(&sent, &lengths), whole);
    }

    /// Whatever comes, there is room for more, and no more than a message is kept.
    #[test]
    fn any_bytes_are_messages_or_the_end(bytes in vec(any::<u8>(), 0..2000), lengths in vec(1_usize..50, 1..8)) {
        let mut assembler = Assembler::default();
        let mut lengths = lengths.iter().cycle();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let room = assembler.room();
            prop_assert!(!room.is_empty() && room.len() <= MAX_PAYLOAD);
            let length = room.len().min(rest.len()).min(*lengths.next().unwrap());
            room[..length].copy_from_slice(&rest[..length]);
            rest = &rest[length..];
            if assembler.advance(length, vec![]).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_longest_message_is_read_and_the_next_one_too() {
    let mut bytes = hex("63000000 09000000 00100000");
    bytes.resize(HEADER_LEN + MAX_PAYLOAD, 0xff);
    let longest = (bytes, 8);
    let next = (hex("03000000 01000000 00000000"), 0);
    let got = pieces(&[longest, next], &[1000]);
    assert_eq!(got, [(99, true, Err(Invalid::Unknown(99))), (3, false, Ok("SetOwner".to_owned()))]);
}

//! VLAN rules against tables, edits against a frame made of parts.

use proptest::prelude::*;

use super::*;
use crate::engine::parse::{TPID_STAG, VLAN_TAG, parse_l2};
use crate::model::VlanSet;

fn set(text: &str) -> VlanSet {
    text.parse().unwrap()
}

fn access(vid: Vid) -> VlanMode {
    VlanMode::Access { vid }
}

fn trunk(native: Option<Vid>, tagged: &str) -> VlanMode {
    VlanMode::Trunk { native, tagged: set(tagged) }
}

/// Modes around a few VIDs that overlap often.
pub(crate) fn any_mode() -> impl Strategy<Value = VlanMode> {
    let vid = prop_oneof![8 => 0_u16..6, 1 => 4090_u16..4097, 1 => any::<u16>()];
    prop_oneof![
        vid.clone().prop_map(access),
        (prop::option::of(vid.clone()), prop::collection::vec(vid, 0..5)).prop_map(|(native, vids)| {
            let mut tagged = VlanSet::none();
            vids.into_iter().for_each(|vid| tagged.insert(vid));
            VlanMode::Trunk { native, tagged }
        }),
        prop::option::of(0_u16..6).prop_map(|native| VlanMode::Trunk { native, tagged: VlanSet::all() }),
    ]
}

pub(crate) fn any_tag() -> impl Strategy<Value = Option<Tag>> {
    let vid = prop_oneof![8 => 0_u16..6, 1 => 4093_u16..4096, 1 => 0_u16..4096];
    let tag = (any::<bool>(), 0_u16..16, vid, prop::bool::weighted(0.3)).prop_map(|(service, bits, vid, stacked)| {
        Tag { tpid: if service { TPID_STAG } else { TPID_CTAG }, tci: bits << 12 | vid, stacked }
    });
    prop::option::of(tag)
}

#[test]
fn every_tag_meets_every_mode_as_the_table_says() {
    use TagEdit::{None as Keep, Pop, SetTci};
    let ctag = |vid: u16| Some(Tag::new(TPID_CTAG, 5 << 13 | vid));
    let push = |vid| TagEdit::Push { tpid: TPID_CTAG, tci: vid };
    // Tags: none, priority, VID 10, VID 20, VID 99, VID 4095, each with PCP 5. Below each tag: the VLAN on the way in.
    let tags = [None, ctag(0), ctag(10), ctag(20), ctag(99), ctag(4095)];
    let no = None;
    let ways_in: [(VlanMode, [Option<Vid>; 6]); 7] = [
        (access(0), [Some(0), Some(0), no, no, no, no]),
        (access(10), [Some(10), Some(10), no, no, no, no]),
        (trunk(Some(0), "10,20"), [Some(0), Some(0), Some(10), Some(20), no, no]),
        (trunk(Some(10), "20"), [Some(10), Some(10), Some(10), Some(20), no, no]),
        (trunk(Some(10), "10,20"), [Some(10), Some(10), Some(10), Some(20), no, no]),
        (trunk(None, "10,20"), [no, no, Some(10), Some(20), no, no]),
        (trunk(None, "all"), [no, no, Some(10), Some(20), Some(99), no]),
    ];
    for (mode, expected) in &ways_in {
        for (tag, vid) in tags.iter().zip(expected) {
            assert_eq!(ingress(mode, *tag).ok(), *vid, "{mode:?} {tag:?}");
        }
    }
    // The tag on the way out, by the frame's VLAN and the tag that it came in with.
    let ways_out: [(VlanMode, [Option<TagEdit>; 7]); 7] = [
        // VLAN and tag: 0 none, 0 priority, 10 none, 10 priority, 10 tagged, 20 priority, 20 tagged.
        (access(0), [Some(Keep), Some(Pop), no_edit(), no_edit(), no_edit(), no_edit(), no_edit()]),
        (access(10), [no_edit(), no_edit(), Some(Keep), Some(Pop), Some(Pop), no_edit(), no_edit()]),
        (
            trunk(Some(0), "10,20"),
            [
                Some(Keep),
                Some(Pop),
                Some(push(10)),
                Some(SetTci(5 << 13 | 10)),
                Some(Keep),
                Some(SetTci(5 << 13 | 20)),
                Some(Keep),
            ],
        ),
        (
            trunk(Some(10), "20"),
            [no_edit(), no_edit(), Some(Keep), Some(Pop), Some(Pop), Some(SetTci(5 << 13 | 20)), Some(Keep)],
        ),
        (
            trunk(Some(10), "10,20"),
            [no_edit(), no_edit(), Some(Keep), Some(Pop), Some(Pop), Some(SetTci(5 << 13 | 20)), Some(Keep)],
        ),
        (
            trunk(None, "10"),
            [no_edit(), no_edit(), Some(push(10)), Some(SetTci(5 << 13 | 10)), Some(Keep), no_edit(), no_edit()],
        ),
        (trunk(Some(4095), "none"), [no_edit(); 7]),
    ];
    let cases = [(0, None), (0, ctag(0)), (10, None), (10, ctag(0)), (10, ctag(10)), (20, ctag(0)), (20, ctag(20))];
    for (mode, expected) in &ways_out {
        for ((vid, tag), edit) in cases.iter().zip(expected) {
            assert_eq!(egress(mode, *vid, *tag), *edit, "{mode:?} {vid} {tag:?}");
        }
    }
}

fn no_edit() -> Option<TagEdit> {
    None
}

#[test]
fn double_tags_do_not_hop_vlans() {
    let stacked = |vid| Some(Tag { tpid: TPID_CTAG, tci: vid, stacked: true });
    assert_eq!(ingress(&access(0), stacked(0)), Err(DropReason::VlanNotAllowed));
    assert_eq!(egress(&trunk(Some(10), "all"), 10, stacked(10)), Some(TagEdit::None));
    assert_eq!(egress(&trunk(Some(0), "all"), 0, stacked(0)), Some(TagEdit::None));
    assert_eq!(egress(&trunk(Some(0), "all"), 10, stacked(0)), Some(TagEdit::SetTci(10)));
    assert_eq!(egress(&access(10), 10, stacked(10)), Some(TagEdit::Pop), "the far end of a tunnel");
}

/// A frame in a chunk with headroom, with start and length.
fn chunk(headroom: usize, tag: Option<Tag>, payload: &[u8]) -> (Vec<u8>, usize, usize) {
    let mut frame = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    if let Some(tag) = tag {
        frame.extend(tag.tpid.to_be_bytes());
        frame.extend(tag.tci.to_be_bytes());
    }
    frame.extend(if tag.is_some_and(|tag| tag.stacked) { TPID_CTAG } else { 0x0800 }.to_be_bytes());
    frame.extend(payload);
    let mut buf = vec![0xaa; headroom];
    buf.extend(&frame);
    buf.extend([0xbb; 16]);
    (buf, headroom, frame.len())
}

proptest! {
    #[test]
    fn vlan_set_text_form_round_trips(vids in prop::collection::btree_set(1_u16..=MAX_VID, 0..60)) {
        let mut set = VlanSet::none();
        vids.iter().for_each(|vid| set.insert(*vid));
        prop_assert_eq!(set.to_string().parse::<VlanSet>().unwrap(), set.clone());
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), vids.iter().copied().collect::<Vec<_>>());
        prop_assert!((0..=u16::MAX).all(|vid| set.contains(vid) == vids.contains(&vid)));
    }

    #[test]
    fn push_then_pop_is_the_identity(
        tag in any_tag(), payload in prop::collection::vec(any::<u8>(), 0..64), tci: u16, headroom in VLAN_TAG..40
    ) {
        let (mut buf, start, len) = chunk(headroom, tag, &payload);
        let before = buf.clone();
        let (pushed, longer) = apply(TagEdit::Push { tpid: TPID_CTAG, tci }, &mut buf, start, len);
        prop_assert_eq!((pushed, longer), (start - VLAN_TAG, len + VLAN_TAG));
        let l2 = parse_l2(&buf[pushed..pushed + longer]).unwrap();
        prop_assert_eq!(l2.tag, Some(Tag { tpid: TPID_CTAG, tci, stacked: tag.is_some() }));
        prop_assert_eq!(apply(TagEdit::Pop, &mut buf, pushed, longer), (start, len));
        prop_assert_eq!(&buf[start..], &before[start..]);
    }

    /// The tag of a frame after any way in and any way out.
    #[test]
    fn frames_leave_as_their_vlan_and_port_say(
        from in any_mode(), to in any_mode(), tag in any_tag(), payload in prop::collection::vec(any::<u8>(), 8..64)
    ) {
        let Ok(vid) = ingress(&from, tag) else { return Ok(()) };
        prop_assert!(from.is_member(vid));
        let edit = egress(&to, vid, tag);
        prop_assert_eq!(edit.is_some(), to.is_member(vid));
        let Some(edit) = edit else { return Ok(()) };
        let (mut buf, start, len) = chunk(VLAN_TAG, tag, &payload);
        let (start, new_len) = apply(edit, &mut buf, start, len);
        prop_assert_eq!(new_len as i64 - len as i64, i64::from(edit.grows_by()));
        let frame = &buf[start..start + new_len];
        prop_assert_eq!(&frame[..12], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        prop_assert!(frame.ends_with(&payload));
        let out = parse_l2(frame).unwrap().tag;
        let stacked = tag.is_some_and(|tag| tag.stacked);
        match &to {
            VlanMode::Access { .. } => prop_assert_eq!(out.is_some(), stacked),
            VlanMode::Trunk { native, .. } => {
                // A trunk with the same settings at the other end must find the frame in the same VLAN.
                prop_assert_eq!(ingress(&to, out), Ok(vid));
                prop_assert!(stacked || out.is_none() == (*native == Some(vid)));
                if let (Some(tag), Some(out)) = (tag, out) {
                    prop_assert_eq!((tag.tpid, tag.pcp(), tag.dei()), (out.tpid, out.pcp(), out.dei()));
                }
            }
        }
    }
}

//! Requests at random. The rig checks what the device is told, the invariants are checked after each request.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What is asked. Rings are 0 to 5, of which there are four. Places are few, so that they meet.
fn any_message() -> impl Strategy<Value = (&'static str, Message)> {
    let code = prop::sample::select(Code::ALL.to_vec());
    let ring = 0_u8..6;
    let place = prop::sample::select(vec![0, 0x1_0000, 0x2_0000, 0x8_0000, MEMORY_SIZE - 0x100, u64::MAX]);
    let size = prop::sample::select(vec![0, 0x1000, 0x8_0000, MEMORY_SIZE, u64::MAX]);
    let value = prop_oneof![4 => 0_u32..3, 4 => Just(256), 1 => any::<u32>()];
    let features = prop_oneof![
        6 => Just(FEATURES),
        2 => Just(FEATURES | bit::LOG_ALL),
        2 => Just(FEATURES | bit::RING_PACKED),
        1 => Just(VERSION_1),
        1 => any::<u64>(),
    ];
    let fields = (ring, place, size, value, features);
    (code, fields, any::<bool>(), any::<bool>()).prop_map(|(code, fields, flag, wish)| {
        let message = of(code, fields, flag);
        (code.name(), Message { need_reply: wish, ..message })
    })
}

fn of(code: Code, (ring, place, size, value, features): (u8, u64, u64, u32, u64), flag: bool) -> Message {
    let region = (place, size, place.wrapping_add(MEMORY), 0);
    match code {
        Code::SetFeatures => number(code, features),
        Code::SetProtocolFeatures => number(code, if flag { ALL_PROTOCOL } else { features }),
        Code::SetVringNum | Code::SetVringBase | Code::GetVringBase => state(code, ring, value),
        Code::SetVringEnable => state(code, ring, u32::from(flag)),
        Code::SetVringAddr => {
            let parts = ring_at(ring).map(|at| if place > MEMORY_SIZE { place } else { at + place });
            addresses(ring, parts, if flag { size } else { 0 })
        }
        Code::SetVringKick | Code::SetVringCall | Code::SetVringErr => event(code, ring, flag),
        Code::SetMemTable if flag => table(&[(0, MEMORY_SIZE, MEMORY, 0)]),
        Code::SetMemTable => table(&[region, (MEMORY_SIZE * 2, 0x1000, MEMORY * 2, 0)]),
        Code::AddMemReg | Code::RemMemReg if flag => slot(code, (0, MEMORY_SIZE, MEMORY, 0)),
        Code::AddMemReg | Code::RemMemReg => slot(code, region),
        Code::SetLogBase => message(code, &[size, place].map(u64::to_ne_bytes).concat(), usize::from(flag)),
        Code::NetSetMtu => number(code, value.into()),
        // Resets are rare, or nothing else would ever be seen.
        Code::SetStatus => number(code, value.max(1).into()),
        Code::SendRarp => number(code, features),
        Code::GetInflightFd | Code::SetInflightFd => inflight(code, size, 0, ring.into(), 128),
        Code::SetLogFd | Code::SetBackendReqFd => message(code, &[], usize::from(flag)),
        Code::GetConfig | Code::SetConfig => message(code, &[0, 0, 0, 0, 1, 0, 0, 0, u8::from(flag), 0, 0, 0, 7], 0),
        _ => empty(code),
    }
}

/// Most of what a session needs, so that what follows meets rings that run.
fn prologue(rig: &mut Rig, rings: u8) {
    rig.ok(number(Code::SetFeatures, FEATURES));
    rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0)]));
    (0..rings).for_each(|ring| drop(rig.start(ring)));
}

fn check(rig: &Rig) {
    let session = &rig.session;
    let started: BTreeSet<u8> =
        (0..).zip(session.rings()).filter(|(_, ring)| ring.is_started()).map(|(ring, _)| ring).collect();
    assert_eq!(started, rig.running, "the device has the rings that the session says");
    assert_eq!(session.rings().len(), 4);
    for ring in session.rings().iter().filter(|ring| ring.is_started()) {
        assert!(ring.num.is_some_and(|num| (1..=32_768).contains(&num)));
        assert!(ring.addresses.is_some() && !matches!(ring.kick, Kick::Unset));
        assert_eq!(ring.lacks(session.memory(), session.is_packed()), None);
        assert!(session.features().is_some());
    }
    let foreign = session.features().unwrap_or(0) & !(OFFER.features | bit::PROTOCOL_FEATURES);
    assert_eq!((foreign, session.protocol_features() & !ALL_PROTOCOL), (0, 0), "nothing but what was offered");
    assert!(session.memory().regions().len() <= 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_asked_the_session_stays_sound(
        rings in 0_u8..=4, asked in vec((any_message(), 0_u8..8), 1..60)
    ) {
        let mut rig = Rig::new();
        prologue(&mut rig, rings);
        for ((name, message), outcome) in asked {
            let before = format!("{:?}", rig.session);
            let wish = message.need_reply;
            rig.outcome = match outcome {
                0 => Outcome::Refused,
                1 => Outcome::Config(vec![0]),
                _ => Outcome::Done,
            };
            let took = rig.take(message);
            prop_assert!(!wish || took.reply.is_some() || took.close, "{} waits for ever", name);
            prop_assert!(took.refusal.is_some() || !took.close, "{} ends for no reason", name);
            // What the device itself refuses it has been told.
            if took.refusal.is_some() && took.actions.is_empty() {
                prop_assert_eq!(format!("{:?}", rig.session), before, "{} was refused and changed something", name);
            }
            check(&rig);
        }
        let actions = rig.session.hang_up();
        rig.carry_out(&actions);
        prop_assert!(rig.running.is_empty());
    }
}

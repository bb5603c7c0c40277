//! Partners that send what they like.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::pdu::{FRAME_LEN, Lacpdu, Marker};
use super::super::*;
use super::net::{A, B, Net, config, ms, s};

#[derive(Clone, Debug)]
enum Attack {
    Raw(Vec<u8>),
    Lacp(Lacpdu),
    /// As the last but one, with what we are told to be true.
    Echo(PortInfo),
    Marker(u32),
}

fn info() -> impl Strategy<Value = PortInfo> {
    (0u16..3, 0u64..4, 0u16..3, 0u16..3, any::<u8>()).prop_map(|(system_priority, system, key, port, state)| PortInfo {
        system_priority,
        system: MacAddr::from_u64(system),
        key,
        port_priority: 0,
        port,
        state: PortState(state),
    })
}

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        vec(any::<u8>(), 0..FRAME_LEN + 8).prop_map(Attack::Raw),
        (1u8.., info(), info()).prop_map(|(version, actor, partner)| Attack::Lacp(Lacpdu {
            version,
            actor,
            partner,
            collector_max_delay: 1
        })),
        info().prop_map(Attack::Echo),
        any::<u32>().prop_map(Attack::Marker),
    ]
}

impl Attack {
    fn frame(&self, lacp: &Lacp, port: MemberId) -> Vec<u8> {
        let source = MacAddr::from_u64(9);
        match self {
            Self::Raw(bytes) => bytes.clone(),
            Self::Lacp(pdu) => Pdu::Lacp(*pdu).encode(source).to_vec(),
            Self::Echo(actor) => {
                let partner = lacp.port(port).unwrap().actor;
                let pdu = Lacpdu { version: 1, actor: *actor, partner, collector_max_delay: 0 };
                Pdu::Lacp(pdu).encode(source).to_vec()
            }
            Self::Marker(transaction) => {
                Pdu::Marker(Marker { port: 1, system: source, transaction: *transaction }).encode(source).to_vec()
            }
        }
    }
}

/// At most `most` of the times are in any second.
fn limited(times: &[Time], most: usize) -> bool {
    times.windows(most + 1).all(|window| window[most] - window[0] >= s(1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// No partner makes a port send more than the standard allows, spin, or be unable to work with an honest one.
    #[test]
    fn a_hostile_partner_never_floods_or_wedges(
        rate in any::<bool>(),
        attacks in vec((0u64..400, 1u16..4, attack()), 1..200),
    ) {
        let rate = if rate { LacpRate::Fast } else { LacpRate::Slow };
        let mut net = Net::new(&[LacpConfig { rate, ..config(0) }, config(1)], 3);
        // The cables are those of the attacker first.
        let cables = std::mem::take(&mut net.cables);
        let (mut now, mut lacpdus, mut responses) = (ms(0), vec![Vec::new(); 4], vec![Vec::new(); 4]);
        let mut take = |lacp: &mut Lacp, now: Time| {
            let frames = lacp.take_frames();
            assert!(frames.len() <= 3 * 2, "{} frames at once", frames.len());
            for (port, pdu) in frames {
                let times = if matches!(pdu, Pdu::Lacp(_)) { &mut lacpdus } else { &mut responses };
                times[usize::from(port.0)].push(now);
            }
        };
        take(&mut net.systems[A], now);
        for (wait, port, attack) in attacks {
            let end = now + ms(wait);
            while let Some(due) = net.systems[A].deadline(now).filter(|due| *due <= end) {
                assert!(due > now, "a thread would spin");
                now = due;
                net.systems[A].run(now);
                take(&mut net.systems[A], now);
            }
            now = end;
            let frame = attack.frame(&net.systems[A], MemberId(port));
            let _ = net.systems[A].receive(now, MemberId(port), &frame);
            take(&mut net.systems[A], now);
        }
        for port in 1..4 {
            prop_assert!(limited(&lacpdus[port], 3), "LACPDUs at {:?}", lacpdus[port]);
            prop_assert!(limited(&responses[port], 5), "marker responses at {:?}", responses[port]);
        }
        // Then an honest partner is there.
        net.now = now;
        net.cables = cables;
        net.systems[B].run(now);
        net.run_well(now + s(130));
        prop_assert_eq!(net.distributing(A), [1, 2, 3]);
        prop_assert_eq!(net.distributing(B), [1, 2, 3]);
    }
}

#[test]
fn an_endless_stream_of_lacpdus_takes_no_memory_and_is_answered_three_times_a_second() {
    let mut net = Net::new(&[config(0), config(1)], 1);
    let mut sent = Vec::new();
    for n in 0..20_000_u64 {
        let now = Time::from_micros(n * 500);
        // Each one differs from the last, so that each asks for an answer.
        let info = PortInfo {
            system: MacAddr::from_u64(7 + n % 2),
            key: u16::try_from(n).unwrap(),
            state: PortState(u8::try_from(n % 256).unwrap()),
            ..PortInfo::default()
        };
        let pdu = Lacpdu { version: 1, actor: info, partner: info, collector_max_delay: 0 };
        net.systems[A].receive(now, MemberId(1), &Pdu::Lacp(pdu).encode(MacAddr::ZERO)).unwrap();
        sent.extend(net.systems[A].take_frames().iter().map(|_| now));
    }
    assert!(limited(&sent, 3));
    assert!((29..=31).contains(&sent.len()), "{} in ten seconds", sent.len());
}

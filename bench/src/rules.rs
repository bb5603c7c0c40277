//! Sets of traffic rules that every device with rules gets alike, and that the generator's packets hit.
//!
//! Rule `n` is for UDP to the far guest's address number `n` and lets it pass as if there were no rule, so the address that
//! a packet goes to says which rule applies. The rules are spread over a number of distinct masks, which differ in the
//! upper bits of the source port that they look at; those bits are 0 in rules and packets.

use crate::load::FAR_IP;

/// Masks that there can be at most.
pub const MOST_MASKS: u32 = 64;

/// A set of rules: so many, under so many distinct masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Rules.
    pub rules: u32,
    /// Distinct masks, 1 to 64; rules take them in turn.
    pub masks: u32,
}

/// What a rule looks at; the protocol is UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Number of the rule.
    pub number: u32,
    /// Destination address, all bits.
    pub dst_ip: u32,
    /// Bits of the source port that must be 0.
    pub src_port_mask: u16,
}

impl RuleSet {
    /// What each rule looks at, in order of their numbers.
    pub fn keys(self) -> impl Iterator<Item = Key> {
        let masks = self.masks.clamp(1, MOST_MASKS);
        (0..self.rules).map(move |number| {
            let src_port_mask = ((number % masks) as u16) << 10;
            Key { number, dst_ip: FAR_IP + number, src_port_mask }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_as_many_masks_as_asked_for_and_a_rule_for_each_address() {
        for masks in [1, 8, 33, 64] {
            let keys: Vec<Key> = RuleSet { rules: 1000, masks }.keys().collect();
            let seen: BTreeSet<_> = keys.iter().map(|key| key.src_port_mask).collect();
            assert_eq!(seen.len(), masks as usize);
            assert!(
                seen.iter().all(|mask| mask.trailing_zeros() >= 10),
                "{seen:?}: of ports below 1,024 no bit is looked at"
            );
            assert!(keys.iter().map(|key| key.dst_ip).eq(FAR_IP..FAR_IP + 1000));
        }
    }
}

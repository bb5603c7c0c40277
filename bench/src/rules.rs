//! Sets of traffic rules. Every device with rules gets the same, and the generator's packets match them.
//!
//! Rule `n` is for UDP to address number `n` of the far guest. It lets packets pass as if there were no rule. So the
//! address of a packet says which rule applies. The rules are spread over a number of distinct masks, which differ in
//! the upper bits of the source port. These bits are 0 in rules and packets.

use crate::load::FAR_IP;

/// Highest number of masks.
pub const MOST_MASKS: u32 = 64;

/// A number of rules under a number of distinct masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Rules.
    pub rules: u32,
    /// Distinct masks, 1 to 64. Rules take them in turn.
    pub masks: u32,
}

/// The key of a rule. The protocol is UDP.
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
    /// The keys of all rules, in order of their numbers.
    pub fn keys(self) -> impl Iterator<Item = Key> {
        let masks = self.masks.clamp(1, MOST_MASKS);
        (0..self.rules).map(move |number| {
            let src_port_mask = u16::try_from(number % masks).expect("below 64") << 10;
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

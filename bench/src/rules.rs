//! Sets of traffic rules that every device with rules gets alike, and that the generator's packets hit.
//!
//! Rule `n` is for the far guest's address number `n` and lets it pass as if there were no rule, so the number of the
//! address that a packet goes to says which rule applies. The rules are spread over a number of distinct masks, which
//! differ in how many leading bits of the source address they look at, and in whether they look at the protocol.

use crate::load::{FAR_IP, NEAR_IP};

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

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Number of the rule.
    pub number: u32,
    /// Destination address, all bits.
    pub dst_ip: u32,
    /// Source address, bits outside the prefix 0.
    pub src_ip: u32,
    /// Length of its prefix, 0 (not looked at) to 31.
    pub src_len: u32,
    /// Whether the protocol must be UDP.
    pub udp: bool,
}

impl RuleSet {
    /// What each rule looks at, in order of their numbers.
    pub fn keys(self) -> impl Iterator<Item = Key> {
        let masks = self.masks.clamp(1, MOST_MASKS);
        (0..self.rules).map(move |number| {
            let mask = number % masks;
            let src_len = mask % 32;
            let bits = u32::MAX.checked_shl(32 - src_len).unwrap_or(0);
            Key { number, dst_ip: FAR_IP + number, src_ip: NEAR_IP & bits, src_len, udp: mask >= 32 }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_as_many_masks_as_asked_for_and_each_key_fits_its_mask() {
        for masks in [1, 8, 32, 33, 64] {
            let keys: Vec<Key> = RuleSet { rules: 1000, masks }.keys().collect();
            let seen: BTreeSet<_> = keys.iter().map(|key| (key.src_len, key.udp)).collect();
            assert_eq!(seen.len(), masks as usize);
            assert!(
                keys.iter()
                    .all(|key| key.src_len == 0 || key.src_ip >> (32 - key.src_len) == NEAR_IP >> (32 - key.src_len))
            );
            assert!(keys.iter().all(|key| key.src_len > 0 || key.src_ip == 0));
        }
    }
}

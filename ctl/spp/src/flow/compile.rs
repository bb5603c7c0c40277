//! Turns rules into rules of the data plane, and refuses what it does not support.

use switch::model::*;

use super::{Action, Field, Item, ItemKind, Part, Rule};

/// EtherTypes that a tag can have.
const VLAN_TYPES: [u16; 2] = [0x8100, 0x88a8];

impl Rule {
    /// The data plane's form of the rule, with number `id`.
    ///
    /// # Errors
    /// What is not supported, and why.
    pub fn compile(&self, id: u32) -> Result<FlowRule, String> {
        let (edits, target) = self.fate()?;
        let (direction, group, priority) = (self.direction, self.group, self.priority);
        Ok(FlowRule { id, direction, group, priority, key: self.key()?, edits, target })
    }

    fn key(&self) -> Result<FlowKey, String> {
        let mut key = FlowKey::default();
        if self.pattern.iter().any(|item| !item.last.is_empty()) {
            return Err("pattern: ranges (`last`) are not supported".to_owned());
        }
        let (eth, vlan) = match self.pattern.as_slice() {
            [one] if one.kind == ItemKind::Eth => (Some(one), None),
            [one] => (None, Some(one)),
            [eth, vlan] if (eth.kind, vlan.kind) == (ItemKind::Eth, ItemKind::Vlan) => (Some(eth), Some(vlan)),
            _ => return Err("pattern: it is eth, vlan, or eth and then vlan, each of them once".to_owned()),
        };
        if let Some(eth) = eth {
            (key.dmac, key.smac) = (mac(eth, Field::Dst), mac(eth, Field::Src));
            key.ethertype = word(eth, Field::Type).filter(|word| word.mask != 0);
        }
        if let Some(vlan) = vlan {
            // A `vlan` item without a TCI matches every tag.
            key.tci = Some(word(vlan, Field::Tci).unwrap_or(Masked { value: 0, mask: 0 }));
            key.inner_type = word(vlan, Field::InnerType).filter(|word| word.mask != 0);
        }
        Ok(key)
    }

    /// The edits in order, and the one target. Without a target the frame goes its normal way.
    fn fate(&self) -> Result<(Vec<FlowEdit>, FlowTarget), String> {
        let (mut edits, mut target) = (Vec::new(), None);
        for action in &self.actions {
            match self.step(*action)? {
                Step::Edit(edit) => edits.push(edit),
                Step::To(to) if target.is_none() => target = Some(to),
                Step::To(_) => return Err("actions: at most one queue or jump is possible".to_owned()),
            }
        }
        Ok((edits, target.unwrap_or(FlowTarget::Normal)))
    }

    fn step(&self, action: Action) -> Result<Step, String> {
        match action {
            Action::Queue { .. } if self.direction == FlowDirection::Egress => {
                Err("actions: queue is for ingress: frames that go out are in a queue already".to_owned())
            }
            Action::Queue { index } => Ok(Step::To(FlowTarget::Queue(u32::from(index)))),
            Action::Jump { group } if group <= self.group => {
                let own = self.group;
                Err(format!("actions: jump group {group}: only to groups behind the rule's own, {own}"))
            }
            Action::Jump { group } => Ok(Step::To(FlowTarget::Group(group))),
            Action::OfPopVlan => Ok(Step::Edit(FlowEdit::Pop)),
            Action::OfPushVlan { ethertype } if VLAN_TYPES.contains(&ethertype) => {
                Ok(Step::Edit(FlowEdit::Push(ethertype)))
            }
            Action::OfPushVlan { ethertype } => {
                Err(format!("actions: of_push_vlan ethertype {ethertype:#06x}: 0x8100 or 0x88a8 is possible"))
            }
            Action::OfSetVlanVid { vlan_vid: 4095 } => {
                Err("actions: of_set_vlan_vid vlan_vid 4095: 0 to 4094 are possible".to_owned())
            }
            Action::OfSetVlanVid { vlan_vid } => Ok(Step::Edit(FlowEdit::Vid(vlan_vid))),
            Action::OfSetVlanPcp { vlan_pcp } => Ok(Step::Edit(FlowEdit::Pcp(vlan_pcp))),
        }
    }
}

/// An action is an edit or a target.
enum Step {
    Edit(FlowEdit),
    To(FlowTarget),
}

/// Value and mask of a field, if a value is given. The mask counts only for bits with a value. A bit with a value and
/// no mask counts.
fn masked(item: &Item, field: Field) -> Option<(u64, u64)> {
    let of = |part: &Part| part.get(&field).copied().unwrap_or_default();
    let (spec, mask) = (of(&item.spec), of(&item.mask));
    let mask = (mask.value | !mask.given) & spec.given;
    (spec.given != 0).then_some((spec.value & mask, mask))
}

fn mac(item: &Item, field: Field) -> Option<MaskedMac> {
    let (value, mask) = masked(item, field).filter(|(_, mask)| *mask != 0)?;
    Some(MaskedMac { value: MacAddr::from_u64(value), mask })
}

fn word(item: &Item, field: Field) -> Option<Masked<16>> {
    let (value, mask) = masked(item, field)?;
    // The parser gives these fields 16 bits at most.
    Some(Masked { value: u32::try_from(value).ok()?, mask: u32::try_from(mask).ok()? })
}

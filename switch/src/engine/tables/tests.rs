//! Batches of rules: whole or not at all, bounded, and checked against the other tables.

use super::*;
use crate::model::{Masked, RuleAction, RuleKey, RuleTarget};

fn three(no: PortNo) -> Option<u32> {
    (no < 3).then_some(2)
}

fn tables() -> Tables {
    Tables::new(Capacity { ports: 8, meters: 4, rules: 16, rule_masks: 3 }, 1)
}

fn write(index: u32, target: RuleTarget) -> RuleChange {
    RuleChange::Write(RuleSpec { key_index: index, key: RuleKey::default(), action: RuleAction::to(target) })
}

fn indices(tables: &Tables) -> Vec<u32> {
    tables.rules.current().iter_from(0).map(|rule| rule.index).collect()
}

#[test]
fn a_batch_is_done_whole_or_not_at_all_and_can_be_undone() {
    let mut tables = tables();
    let undo = tables.change_rules(vec![write(1, RuleTarget::Drop), write(2, RuleTarget::Port(1))], &three);
    tables.undo_rules(undo.unwrap());
    assert!(indices(&tables).is_empty());
    tables.change_rules(vec![write(1, RuleTarget::Drop), write(5, RuleTarget::Drop)], &three).unwrap();
    let version = tables.rules.current().version();
    for (bad, kind) in [
        (write(16, RuleTarget::Drop), ErrorKind::Invalid),
        (write(7, RuleTarget::Port(3)), ErrorKind::NotFound),
        (RuleChange::Delete(7), ErrorKind::NotFound),
        (RuleChange::Delete(1), ErrorKind::NotFound),
    ] {
        let batch = vec![RuleChange::Delete(1), write(2, RuleTarget::Drop), bad];
        let error = tables.change_rules(batch, &three).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().starts_with("change 2: "), "{error}");
        assert_eq!((indices(&tables), tables.rules.current().version()), (vec![1, 5], version), "nothing is changed");
    }
    let batch =
        vec![RuleChange::Clear, write(1, RuleTarget::Normal), RuleChange::Delete(1), write(3, RuleTarget::Drop)];
    let undo = tables.change_rules(batch, &three).unwrap();
    assert_eq!(indices(&tables), [3]);
    tables.undo_rules(undo);
    assert_eq!(indices(&tables), [1, 5]);
    assert_eq!(tables.rules.current().get(1).unwrap().action.target, RuleTarget::Drop);
    let delete_after_clear = vec![RuleChange::Clear, RuleChange::Delete(1)];
    assert_eq!(tables.change_rules(delete_after_clear, &three).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn masks_are_bounded_and_a_batch_that_ends_within_the_bound_is_fine() {
    let mut tables = tables();
    let masked = |n: u32| {
        let key = RuleKey { vlan: Some(Masked { value: 0, mask: 1 << n }), ..RuleKey::default() };
        RuleChange::Write(RuleSpec { key_index: n, key, action: RuleAction::to(RuleTarget::Drop) })
    };
    tables.change_rules((0..3).map(masked).collect(), &three).unwrap();
    assert_eq!(tables.change_rules(vec![masked(3)], &three).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(indices(&tables), [0, 1, 2]);
    tables.change_rules(vec![masked(3), RuleChange::Delete(0)], &three).unwrap();
    assert_eq!(indices(&tables), [1, 2, 3]);
}

#[test]
fn actions_are_checked_against_ports_queues_and_meters() {
    let mut tables = tables();
    let with = |target, queue, meter, mirror| {
        let action = RuleAction { target, queue, meter, mirror };
        vec![RuleChange::Write(RuleSpec { key_index: 0, key: RuleKey::default(), action })]
    };
    let port = RuleTarget::Port(1);
    for (field, batch) in [
        ("action.vid", with(RuleTarget::Port(3), None, None, None)),
        ("qid", with(port, Some(2), None, None)),
        ("qid", with(RuleTarget::Drop, Some(0), None, None)),
        ("meter", with(port, None, Some(9), None)),
        ("mirror", with(port, None, None, Some(7))),
    ] {
        let error = tables.change_rules(batch, &three).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field}: ")), "{field}: {error}");
    }
    tables.meters.add(MeterSpec::new(9, 1000), true, 0).unwrap();
    let undo = tables.change_rules(with(port, Some(1), Some(9), Some(2)), &three).unwrap();
    assert_eq!(tables.meters.delete(9).unwrap_err().kind(), ErrorKind::Busy);
    assert!(!tables.meters.is_implicit(9), "a rule names it");
    tables.undo_rules(undo);
    tables.meters.delete(9).unwrap();
}

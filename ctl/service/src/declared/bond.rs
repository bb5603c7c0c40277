//! Bonds of a configuration: what a bond becomes that is declared, and which of it changes in operation. Pure.
//!
//! Options are compared by what they mean: `4` is `802.3ad`, a delay is rounded, and an option that is left out has its
//! default. A bond follows its members when they are renamed, and members come and go at run time. So members are
//! compared with the file only if they were edited there.

use std::collections::BTreeMap;

use bond::options::{BondState, Options, names};
use switch::model::{BondSpec, BondUpdate};

use crate::bonds::read;

/// The state in which a bond of a running switch takes changes.
const LIVE: BondState = BondState { up: true, has_members: true };

/// The bond that `wish` means. `is` is the bond of that name that there is, and `before` what the file declared before.
/// It is written as the switch will write it. So what means the same is the same.
pub(super) fn complete(wish: &BondSpec, is: Option<&BondSpec>, before: Option<&BondSpec>) -> BondSpec {
    let Some(is) = is else { return wish.clone() };
    let is_edited = before.is_none_or(|before| !have_same_members(before, wish));
    let members = if is_edited { members(is, wish) } else { is.members.clone() };
    let options = match (read(&is.options), read(&wish.options)) {
        (Some(from), Some(to)) if from == to && members == is.members => is.options.clone(),
        (Some(from), Some(to)) => match live_changes(&from, &to) {
            Some(changes) => noted(&is.options, &changes, &to),
            // The bond is made anew.
            None => wish.options.clone(),
        },
        // A mistake, of which the checks tell.
        _ => wish.options.clone(),
    };
    BondSpec { members, options }
}

/// The change of a live bond from `is` to `to`. `None`: it has to be made anew, or there is none.
pub(super) fn update(is: &BondSpec, to: &BondSpec) -> Option<BondUpdate> {
    let options = live_changes(&read(&is.options)?, &read(&to.options)?)?;
    let missing = |from: &BondSpec, of: &BondSpec| -> Vec<String> {
        from.members.iter().filter(|name| !of.members.contains(name)).cloned().collect()
    };
    let update = BondUpdate { options, add: missing(to, is), remove: missing(is, to), active: None };
    (update != BondUpdate::default()).then_some(update)
}

/// A bond after a change, as the switch notes it.
pub(super) fn updated(is: &BondSpec, update: &BondUpdate) -> BondSpec {
    let options = is.options.clone().into_iter().chain(update.options.clone()).collect();
    let options = match read(&options) {
        Some(to) => noted(&is.options, &update.options, &to),
        None => options,
    };
    let stays = is.members.iter().filter(|name| !update.remove.contains(name));
    BondSpec { members: stays.chain(&update.add).cloned().collect(), options }
}

/// Whether both mean the same.
pub(super) fn is_same(one: &BondSpec, other: &BondSpec) -> bool {
    have_same_members(one, other) && (one.options == other.options || read(&one.options) == read(&other.options))
}

fn have_same_members(one: &BondSpec, other: &BondSpec) -> bool {
    let has_all = |one: &BondSpec, other: &BondSpec| other.members.iter().all(|name| one.members.contains(name));
    has_all(one, other) && has_all(other, one)
}

/// Members of `wish`: first those that there are, then new ones.
fn members(is: &BondSpec, wish: &BondSpec) -> Vec<String> {
    let stays = is.members.iter().filter(|name| wish.members.contains(name));
    stays.chain(wish.members.iter().filter(|name| !is.members.contains(name))).cloned().collect()
}

/// Options that a live bond changes, so that `from` becomes `to`. `None`: it can't.
fn live_changes(from: &Options, to: &Options) -> Option<BTreeMap<String, String>> {
    let mut now = from.clone();
    let mut changes = BTreeMap::new();
    for name in names() {
        // A delay is compared after its unit was set.
        let (is, wish) = (now.value_of(name), to.value_of(name));
        if let Some(wish) = wish.filter(|wish| is.as_ref() != Some(wish)) {
            now.set(name, &wish, LIVE).ok()?;
            changes.insert(name.to_owned(), wish);
        }
    }
    (now == *to).then_some(changes)
}

/// Options after a change, with their values in force.
fn noted(is: &BTreeMap<String, String>, changes: &BTreeMap<String, String>, to: &Options) -> BTreeMap<String, String> {
    let names = is.keys().chain(changes.keys());
    names.filter_map(|name| Some((name.clone(), to.value_of(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(members: &[&str], options: &[(&str, &str)]) -> BondSpec {
        BondSpec {
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn options_are_compared_by_what_they_mean() {
        let is = spec(&["eth1", "eth2"], &[("mode", "802.3ad"), ("miimon", "100"), ("updelay", "200")]);
        for options in [
            &[("mode", "4"), ("updelay", "250")][..],
            &[("mode", "802.3ad"), ("miimon", "100"), ("updelay", "200"), ("lacp_rate", "slow")],
        ] {
            let wish = spec(&["eth2", "eth1"], options);
            assert_eq!(complete(&wish, Some(&is), Some(&wish)), is, "{options:?}");
            assert_eq!(complete(&wish, Some(&is), None), is, "{options:?}");
        }
        assert_eq!(update(&is, &is), None);
    }

    #[test]
    fn what_a_live_bond_takes_is_changed_in_operation() {
        let is = spec(&["eth1", "eth2"], &[("mode", "4"), ("updelay", "200")]);
        for (members, options, changed) in [
            (&["eth1", "eth2"][..], &[("mode", "4"), ("updelay", "300")][..], &[("updelay", "300")][..]),
            (&["eth1", "eth2"], &[("mode", "4")], &[("updelay", "0")]),
            (
                &["eth1", "eth2"],
                &[("mode", "4"), ("miimon", "50"), ("updelay", "200")],
                &[("miimon", "50"), ("updelay", "200")],
            ),
            (&["eth3", "eth2"], &[("mode", "4"), ("updelay", "200")], &[]),
            (&["eth2"], &[("mode", "4"), ("updelay", "200"), ("min_links", "1")], &[("min_links", "1")]),
        ] {
            let wish = spec(members, options);
            let to = complete(&wish, Some(&is), Some(&is));
            let update = update(&is, &to).unwrap();
            assert_eq!(update.options, spec(&[], changed).options);
            assert_eq!(updated(&is, &update), to, "as the switch notes it");
            assert!(is_same(&to, &wish), "{to:?}");
            assert_eq!(complete(&wish, Some(&to), Some(&wish)), to, "a second time changes nothing");
        }
        let moved = complete(&spec(&["eth3", "eth2"], &[("mode", "4")]), Some(&is), Some(&is));
        let update = update(&is, &moved).unwrap();
        assert_eq!((update.add, update.remove), (vec!["eth3".to_owned()], vec!["eth1".to_owned()]));
    }

    #[test]
    fn other_options_make_it_anew() {
        let is = spec(&["eth1"], &[("mode", "4"), ("lacp_rate", "fast")]);
        for options in
            [&[("mode", "1")][..], &[("mode", "4")], &[("mode", "4"), ("lacp_rate", "1"), ("ad_select", "2")]]
        {
            let wish = spec(&["eth1"], options);
            let to = complete(&wish, Some(&is), Some(&is));
            assert_eq!((&to, update(&is, &to)), (&wish, None), "{options:?}");
        }
        let wrong = spec(&["eth1"], &[("mode", "nonsense")]);
        assert_eq!(complete(&wrong, Some(&is), Some(&is)), wrong);
    }

    #[test]
    fn members_that_were_renamed_stay_until_the_file_is_edited() {
        let (wish, is) = (spec(&["eth1", "eth2"], &[]), spec(&["lan1", "eth2"], &[]));
        assert_eq!(complete(&wish, Some(&is), Some(&wish)), is);
        assert_eq!(complete(&wish, Some(&is), None).members, ["eth2", "eth1"]);
        let edited = spec(&["lan1", "eth2", "eth3"], &[]);
        assert_eq!(complete(&edited, Some(&is), Some(&wish)), edited);
    }
}

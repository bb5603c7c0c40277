//! Bonds: the ports of kind `bond`, by themselves, and as options of the Linux bonding driver.

use std::collections::BTreeMap;

use bond::options::{BondState, OptionError, Options, names};
use ctl_types::{BondEntry, NewBond, PortEntry, PortState};
use switch::ErrorKind::{Invalid, WrongMode};
use switch::model::*;

use crate::Service;
use crate::error::Error;

/// The driver's name for what adds and removes members.
const SLAVES: &str = "slaves";
/// The driver's name for what makes a member the active one.
const ACTIVE_SLAVE: &str = "active_slave";

impl Service {
    /// All configured bonds. Those that are not up come last.
    pub fn bonds(&self) -> Vec<BondEntry> {
        self.ports_in_brief().into_iter().filter_map(BondEntry::of).collect()
    }

    /// A bond, by name or number of its port.
    ///
    /// # Errors
    /// `NotFound`: there is no such port, or it is no bond.
    pub fn bond(&self, key: &str) -> Result<BondEntry, Error> {
        let name = self.bond_name(key)?;
        entry(self.port(&name)?)
    }

    /// Makes a bond.
    pub fn add_bond(&self, bond: NewBond) -> Result<BondEntry, Error> {
        entry(self.add_port(bond.into())?)
    }

    /// Changes options and members of a bond.
    pub fn update_bond(&self, key: &str, update: BondUpdate) -> Result<BondEntry, Error> {
        let name = self.bond_name(key)?;
        entry(self.update_port(&name, PortUpdate { bond: Some(update), ..PortUpdate::default() })?)
    }

    /// Deletes a bond. Its members are the host's again.
    pub fn del_bond(&self, key: &str) -> Result<(), Error> {
        let name = self.bond_name(key)?;
        self.del_port(&name)
    }

    /// Makes the bond of that name what options of the Linux bonding driver say, in whatever order they come. There
    /// need not be one yet. Of several values of an option the last one holds. A value that is in force already
    /// changes nothing, so the same call may come again.
    ///
    /// `slaves` adds members (`+eth1`), removes them (`-eth1`), or names all of them (`eth1 eth2`). `vport` is the
    /// number of a port that is new.
    ///
    /// # Errors
    /// Those of adding and changing a port; nothing has changed then.
    pub fn set_bond(&self, name: &str, vport: Option<u16>, wishes: &[(String, String)]) -> Result<BondEntry, Error> {
        let is = match self.port(name) {
            Ok(port) if port.name == name => Some(port),
            _ => None,
        };
        let before = match &is {
            None => BondSpec::default(),
            Some(port) => port.spec.bond.clone().ok_or_else(|| {
                let kind = port.spec.kind.name();
                Error::exists(format!("name: there is a `{kind}` port `{name}`, which is no bond"))
            })?,
        };
        let Wish { mut options, members, active } = Wish::read(wishes, &before.members)?;
        match is {
            Some(port) if port.state != PortState::Failed => {
                if vport.is_some() && vport != port.spec.vport {
                    return Err(Error::invalid("vport: the bond is there and keeps its number: leave it out"));
                }
                let in_force =
                    port.info.as_ref().and_then(|info| info.bond.as_ref()).map(|bond| in_force(&bond.options));
                let in_force = in_force.or_else(|| read(&before.options)).unwrap_or_default();
                check_active(&active, &in_force, &members)?;
                leave_out_unchanged(&mut options, in_force);
                let missing = |of: &[String], from: &[String]| -> Vec<String> {
                    from.iter().filter(|name| !of.contains(name)).cloned().collect()
                };
                let (add, remove) = (missing(&before.members, &members), missing(&members, &before.members));
                let update = BondUpdate { options, add, remove, active };
                match update == BondUpdate::default() {
                    true => entry(port),
                    false => self.update_bond(name, update),
                }
            }
            // One that failed is made again as a new one is, of all that it was.
            is => {
                let options = before.options.into_iter().chain(options).collect();
                // What can't be read is refused when the port is added.
                read(&options).map_or(Ok(()), |options| check_active(&active, &options, &members))?;
                let mut spec = is.map_or_else(|| PortSpec::new(name, PortKind::Bond), |port| port.spec);
                (spec.bond, spec.vport) = (Some(BondSpec { members, options }), vport.or(spec.vport));
                let added = self.add_port(spec)?;
                let Some(active) = active else { return entry(added) };
                let update = BondUpdate { active: Some(active), ..BondUpdate::default() };
                self.update_bond(name, update).inspect_err(|_| {
                    if let Err(error) = self.del_port(name) {
                        tracing::error!(port = name, %error, "a bond that could not be made in full stays");
                    }
                })
            }
        }
    }

    /// Name of a bond, by name or number of its port.
    fn bond_name(&self, key: &str) -> Result<String, Error> {
        let inner = self.lock();
        let bonds = || {
            let bonds = inner.ports.iter().filter(|port| port.kind == PortKind::Bond);
            let names: Vec<_> = bonds.map(|port| format!("`{}`", port.name)).collect();
            if names.is_empty() { "there are none".to_owned() } else { format!("there are {}", names.join(", ")) }
        };
        match self.find(&inner, key) {
            Ok(spec) if spec.kind == PortKind::Bond => Ok(spec.name.clone()),
            Ok(spec) => {
                let (name, kind) = (&spec.name, spec.kind.name());
                Err(Error::not_found(format!("port `{name}` is a `{kind}` port and no bond: {}", bonds())))
            }
            Err(_) => Err(Error::not_found(format!("there is no bond `{key}`: {}", bonds()))),
        }
    }
}

fn entry(port: PortEntry) -> Result<BondEntry, Error> {
    let name = port.name.clone();
    BondEntry::of(port).ok_or_else(|| Error::not_found(format!("there is no bond `{name}` any more")))
}

/// What options of the driver ask for.
#[derive(Debug, PartialEq)]
struct Wish {
    options: BTreeMap<String, String>,
    members: Vec<String>,
    active: Option<String>,
}

impl Wish {
    /// Reads options of a bond that has these members.
    fn read(wishes: &[(String, String)], members: &[String]) -> Result<Self, Error> {
        let mut wish = Self { options: BTreeMap::new(), members: members.to_vec(), active: None };
        for (name, value) in wishes {
            match name.as_str() {
                SLAVES => wish.read_members(value)?,
                ACTIVE_SLAVE => wish.active = Some(value.trim().to_owned()),
                _ => drop(wish.options.insert(name.clone(), value.clone())),
            }
        }
        Ok(wish)
    }

    fn read_members(&mut self, value: &str) -> Result<(), Error> {
        let words: Vec<_> = value.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty()).collect();
        let is_change = |word: &&str| word.starts_with(['+', '-']);
        match words.iter().filter(|word| is_change(word)).count() {
            0 => {
                let mut members: Vec<String> = Vec::new();
                for word in words {
                    if !members.iter().any(|name| name == word) {
                        members.push(word.to_owned());
                    }
                }
                self.members = members;
            }
            changes if changes == words.len() => words.into_iter().try_for_each(|word| self.change_member(word))?,
            _ => {
                return Err(Error::invalid(format!(
                    "bond: slaves: `{}` has names with and without a sign: +NAME adds a member, -NAME removes one, \
                     names alone are all members",
                    value.escape_default()
                )));
            }
        }
        Ok(())
    }

    /// Takes `+NAME` or `-NAME`. A member that is added again changes nothing.
    fn change_member(&mut self, word: &str) -> Result<(), Error> {
        let (sign, name) = word.split_at(1);
        let place = self.members.iter().position(|member| member == name);
        match (sign, place) {
            ("+", None) => self.members.push(name.to_owned()),
            ("+", Some(_)) => {}
            (_, Some(at)) => drop(self.members.remove(at)),
            (_, None) => {
                let has = if self.members.is_empty() { "none".to_owned() } else { self.members.join(", ") };
                let name = name.escape_default();
                return Err(Error::not_found(format!("bond: slaves: `{name}` is no member: it has {has}")));
            }
        }
        Ok(())
    }
}

/// Checks the member that is to be active, as far as that does not depend on links.
fn check_active(active: &Option<String>, options: &Options, members: &[String]) -> Result<(), Error> {
    let Some(name) = active else { return Ok(()) };
    let refused = |error: OptionError| {
        let kind = if matches!(error, OptionError::ModeDependency { .. }) { WrongMode } else { Invalid };
        Error::Switch(switch::Error::new(kind, format!("bond: {error}")))
    };
    options.clone().set(ACTIVE_SLAVE, name, BondState::default()).map_err(refused)?;
    match name.is_empty() || members.contains(name) {
        true => Ok(()),
        false => Err(Error::invalid(format!("bond: active_slave: `{name}` is no member of the bond: add it first"))),
    }
}

/// Options of a bond that is not up yet, set in the order in which they depend on each other. None if one is refused.
pub(crate) fn read(options: &BTreeMap<String, String>) -> Option<Options> {
    let known = names();
    if options.keys().any(|name| !known.contains(&name.as_str())) {
        return None;
    }
    let mut read = Options::default();
    for name in known {
        if let Some(value) = options.get(name) {
            read.set(name, value, BondState::default()).ok()?;
        }
    }
    Some(read)
}

/// Options as a live bond shows them.
fn in_force(shown: &BTreeMap<String, String>) -> Options {
    let mut options = Options::default();
    for name in names() {
        // Those that the mode has not are shown too, with their defaults, and can't be set.
        if let Some(value) = shown.get(name).and_then(|value| value.split_whitespace().next()) {
            let _ = options.set(name, value, BondState::default());
        }
    }
    options
}

/// Leaves out options that have their values already. Those that are refused stay.
fn leave_out_unchanged(options: &mut BTreeMap<String, String>, mut is: Options) {
    for name in names() {
        let Some(value) = options.get(name) else { continue };
        let before = is.clone();
        // A delay is compared after its unit was set.
        if is.set(name, value, BondState::default()).is_ok() && is == before {
            options.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(values: &[(&str, &str)], members: &[&str]) -> Result<Wish, Error> {
        let values: Vec<_> = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let members: Vec<_> = members.iter().map(|name| (*name).to_owned()).collect();
        Wish::read(&values, &members)
    }

    #[test]
    fn members_are_added_removed_or_named_all() {
        let members = |value: &str| wish(&[("slaves", value)], &["eth1", "eth2"]).unwrap().members;
        assert_eq!(members("+eth3"), ["eth1", "eth2", "eth3"]);
        assert_eq!(members("-eth1"), ["eth2"]);
        assert_eq!(members("+eth1"), ["eth1", "eth2"], "it is one already");
        assert_eq!(members("-eth1 +eth4,-eth2"), ["eth4"]);
        assert_eq!(members("eth5, eth6 eth5"), ["eth5", "eth6"]);
        assert_eq!(members(" "), [""; 0]);
        let kind = |value: &str| wish(&[("slaves", value)], &["eth1"]).unwrap_err().to_string();
        assert!(kind("eth1 +eth2").contains("with and without a sign"));
        assert!(kind("-eth2").contains("`eth2` is no member: it has eth1"));
        let both = wish(&[("slaves", "eth3"), ("mode", "1"), ("slaves", "+eth4"), ("mode", "4")], &["eth1"]).unwrap();
        assert_eq!((both.members, both.options["mode"].as_str()), (vec!["eth3".to_owned(), "eth4".to_owned()], "4"));
    }

    #[test]
    fn a_value_in_force_is_no_change_by_whatever_name() {
        let options = [("mode", "4"), ("miimon", "100"), ("updelay", "250"), ("lacp_rate", "fast")];
        let options = read(&options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()).unwrap();
        let shown = options.all().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(in_force(&shown), options);
        for (wishes, left) in [
            (&[("mode", "802.3ad"), ("lacp_rate", "1"), ("updelay", "299")][..], &[][..]),
            (&[("updelay", "300")], &["updelay"]),
            (&[("mode", "1")], &["mode"]),
            (&[("primary", "eth1"), ("nonsense", "1")], &["nonsense", "primary"]),
            // With another unit the same time is another number of units.
            (&[("miimon", "50"), ("updelay", "200")], &["miimon", "updelay"]),
        ] {
            let mut wishes = wishes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            leave_out_unchanged(&mut wishes, options.clone());
            assert!(wishes.keys().eq(left), "{wishes:?}");
        }
    }
}

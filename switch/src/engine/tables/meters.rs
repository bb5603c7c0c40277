//! Meters, and the ports that they are bound to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ports::{Ports, expect_port};
use super::{not_found, usage};
use crate::engine::PortNo;
use crate::engine::meter::{self, Meter};
use crate::model::{MeterBinding, MeterDirection, MeterInfo, MeterSpec, MeterUpdate, Usage};
use crate::{Error, ErrorKind};

/// Ports that an error about a meter in use names at most.
const SHOWN: usize = 5;

/// What workers get: meters by port number, of what a port sends and of what it is sent.
#[derive(Clone, Debug, Default)]
pub struct PortMeters {
    from: Box<[Option<Arc<Meter>>]>,
    to: Box<[Option<Arc<Meter>>]>,
}

impl PortMeters {
    /// The meter of what the port sends.
    #[inline]
    pub fn from(&self, no: PortNo) -> Option<&Arc<Meter>> {
        self.from.get(usize::from(no))?.as_ref()
    }

    /// The meter of what the port is sent.
    #[inline]
    pub fn to(&self, no: PortNo) -> Option<&Arc<Meter>> {
        self.to.get(usize::from(no))?.as_ref()
    }
}

#[derive(Debug)]
struct MeterEntry {
    spec: MeterSpec,
    meter: Arc<Meter>,
    /// Whether it was never bound and never named by a rule. Then it applies to what the port of its number sends.
    implicit: bool,
    /// Number of rules that name it.
    rules: u32,
}

/// All meters.
#[derive(Debug)]
pub struct Meters {
    capacity: u32,
    workers: usize,
    by_id: BTreeMap<u32, MeterEntry>,
    bindings: BTreeMap<(PortNo, MeterDirection), u32>,
}

impl Meters {
    pub(super) fn new(capacity: u32, workers: usize) -> Self {
        Self { capacity, workers, by_id: BTreeMap::new(), bindings: BTreeMap::new() }
    }

    /// Meters there can be, and meters that could still be added.
    pub fn usage(&self) -> Usage {
        usage(self.capacity, u32::try_from(self.by_id.len()).unwrap_or(u32::MAX))
    }

    /// Adds a meter whose buckets are full at `now`, in nanoseconds. If it is `implicit`, it applies to what the
    /// vport of its number sends, as long as it is not bound.
    ///
    /// # Errors
    /// `Invalid` for its configuration, `Exists` or `Full`.
    pub fn add(&mut self, spec: MeterSpec, implicit: bool, now: u64) -> Result<(), Error> {
        meter::check(&spec)?;
        if self.by_id.contains_key(&spec.id) {
            return Err(Error::new(ErrorKind::Exists, format!("id: there is a meter {} already", spec.id)));
        }
        if self.by_id.len() >= self.capacity as usize {
            return Err(Error::new(
                ErrorKind::Full,
                format!("id: all {} meters are in use: delete one first", self.capacity),
            ));
        }
        let meter = Arc::new(Meter::new(&spec, self.workers, now));
        self.by_id.insert(spec.id, MeterEntry { spec, meter, implicit, rules: 0 });
        Ok(())
    }

    fn entry(&self, id: u32) -> Result<&MeterEntry, Error> {
        self.by_id.get(&id).ok_or_else(|| not_found(format!("id: there is no meter {id}")))
    }

    /// Deletes a meter.
    ///
    /// # Errors
    /// `NotFound`, or `Busy` while a port or a rule uses it.
    pub fn delete(&mut self, id: u32) -> Result<(), Error> {
        let entry = self.entry(id)?;
        let ports: Vec<_> = self.bindings.iter().filter(|(_, meter)| **meter == id).collect();
        if entry.rules > 0 || !ports.is_empty() {
            let ports: Vec<_> = ports.iter().take(SHOWN).map(|((no, _), _)| format!("vport {no}")).collect();
            let rules = (entry.rules > 0).then(|| format!("{} rules", entry.rules));
            let users: Vec<_> = ports.into_iter().chain(rules).collect();
            return Err(Error::new(
                ErrorKind::Busy,
                format!("id: meter {id} is in use by {}: unbind it or delete them first", users.join(", ")),
            ));
        }
        self.by_id.remove(&id);
        Ok(())
    }

    /// Changes a meter at `now`, in nanoseconds, while frames pass it. Returns its configuration before.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for the configuration that it would have.
    pub fn update(&mut self, id: u32, update: &MeterUpdate, now: u64) -> Result<MeterSpec, Error> {
        let before = self.entry(id)?.spec.clone();
        let spec = MeterSpec {
            rate: update.rate.unwrap_or(before.rate),
            burst: update.burst.or(before.burst),
            peak_rate: update.peak_rate.or(before.peak_rate),
            peak_burst: update.peak_burst.or(before.peak_burst),
            color_aware: update.color_aware.unwrap_or(before.color_aware),
            yellow_dscp: update.yellow_dscp.or(before.yellow_dscp),
            ..before.clone()
        };
        self.configure(spec, now)?;
        Ok(before)
    }

    /// Gives a meter a whole configuration of the same type and mode.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for its configuration.
    pub fn configure(&mut self, spec: MeterSpec, now: u64) -> Result<(), Error> {
        meter::check(&spec)?;
        let id = spec.id;
        let entry = self.by_id.get_mut(&id).ok_or_else(|| not_found(format!("id: there is no meter {id}")))?;
        entry.meter.configure(&spec, now);
        entry.spec = spec;
        Ok(())
    }

    /// A meter with its bindings and counters.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn info(&self, id: u32, ports: &dyn Ports) -> Result<MeterInfo, Error> {
        let entry = self.entry(id)?;
        let bindings = self.bindings.iter().filter(|(_, meter)| **meter == id);
        Ok(describe(entry, bindings.map(binding).collect(), ports))
    }

    /// All meters from number `from` on, ascending, at most `limit`.
    pub fn list(&self, from: u32, limit: usize, ports: &dyn Ports) -> Vec<MeterInfo> {
        let mut bindings: BTreeMap<u32, Vec<MeterBinding>> = BTreeMap::new();
        self.bindings.iter().for_each(|row| bindings.entry(*row.1).or_default().push(binding(row)));
        let meters = self.by_id.range(from..).take(limit);
        meters.map(|(id, entry)| describe(entry, bindings.remove(id).unwrap_or_default(), ports)).collect()
    }

    /// Binds a meter to a direction of a port. Returns the meter that was bound there before.
    ///
    /// # Errors
    /// `NotFound` for meter or port.
    pub fn bind(&mut self, binding: &MeterBinding, ports: &dyn Ports) -> Result<Option<u32>, Error> {
        let MeterBinding { vport, direction, meter } = *binding;
        self.entry(meter)?;
        expect_port("vport", vport, ports)?;
        Ok(self.set_binding(vport, direction, meter))
    }

    fn set_binding(&mut self, vport: PortNo, direction: MeterDirection, meter: u32) -> Option<u32> {
        if let Some(entry) = self.by_id.get_mut(&meter) {
            entry.implicit = false;
        }
        self.bindings.insert((vport, direction), meter)
    }

    /// Undoes a binding. Returns the meter.
    ///
    /// # Errors
    /// `NotFound` if no meter is bound there.
    pub fn unbind(&mut self, vport: PortNo, direction: MeterDirection) -> Result<u32, Error> {
        self.bindings.remove(&(vport, direction)).ok_or_else(|| {
            let what = match direction {
                MeterDirection::From => "sends",
                MeterDirection::To => "is sent",
            };
            not_found(format!("no meter is bound to what vport {vport} {what}"))
        })
    }

    /// Sets whether a meter is implicit, to undo a binding.
    pub fn set_implicit(&mut self, id: u32, implicit: bool) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.implicit = implicit;
        }
    }

    /// Whether a meter is implicit: never bound, and never named by a rule.
    pub fn is_implicit(&self, id: u32) -> bool {
        self.by_id.get(&id).is_some_and(|entry| entry.implicit)
    }

    /// All bindings.
    pub fn bindings(&self) -> Vec<MeterBinding> {
        self.bindings.iter().map(binding).collect()
    }

    /// What workers get, for port numbers below `slots`.
    pub fn by_port(&self, slots: usize) -> PortMeters {
        if self.by_id.is_empty() {
            return PortMeters::default();
        }
        let find = |no: PortNo, direction| {
            let explicit = self.bindings.get(&(no, direction)).and_then(|id| self.by_id.get(id));
            let implied = || self.by_id.get(&u32::from(no)).filter(|entry| entry.implicit);
            let entry = match direction {
                MeterDirection::From => explicit.or_else(implied),
                MeterDirection::To => explicit,
            };
            entry.map(|entry| Arc::clone(&entry.meter))
        };
        PortMeters {
            from: (0..=PortNo::MAX).take(slots).map(|no| find(no, MeterDirection::From)).collect(),
            to: (0..=PortNo::MAX).take(slots).map(|no| find(no, MeterDirection::To)).collect(),
        }
    }

    /// Whether there is any meter. Workers read the clock only then.
    pub fn any(&self) -> bool {
        !self.by_id.is_empty()
    }

    /// Fills an empty table with what was kept. Returns what does not fit, in words.
    pub(super) fn restore(
        &mut self,
        meters: Vec<(MeterSpec, bool)>,
        bindings: Vec<MeterBinding>,
        now: u64,
    ) -> Vec<String> {
        let mut refused = Vec::new();
        for (spec, implicit) in meters {
            let id = spec.id;
            if let Err(error) = self.add(spec, implicit, now) {
                refused.push(format!("meter {id}: {error}"));
            }
        }
        for MeterBinding { vport, direction, meter } in bindings {
            if self.by_id.contains_key(&meter) {
                self.set_binding(vport, direction, meter);
            } else {
                refused.push(format!("binding of vport {vport}: there is no meter {meter}"));
            }
        }
        refused
    }

    /// The meter of that number, for a rule that names it.
    pub(super) fn get(&self, id: u32) -> Option<Arc<Meter>> {
        self.by_id.get(&id).map(|entry| Arc::clone(&entry.meter))
    }

    /// A rule that names that meter is in force from now on. The meter no longer applies by its number.
    pub(super) fn hold(&mut self, id: u32) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.rules += 1;
            entry.implicit = false;
        }
    }

    /// A rule that names that meter is gone.
    pub(super) fn release(&mut self, id: u32) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.rules -= 1;
        }
    }

    /// A port is gone, and its bindings with it.
    pub(super) fn forget_port(&mut self, no: PortNo) {
        self.bindings.retain(|(port, _), _| *port != no);
    }
}

fn binding((&(vport, direction), &meter): (&(PortNo, MeterDirection), &u32)) -> MeterBinding {
    MeterBinding { vport, direction, meter }
}

fn describe(entry: &MeterEntry, mut bindings: Vec<MeterBinding>, ports: &dyn Ports) -> MeterInfo {
    let id = entry.spec.id;
    if let Some(vport) = PortNo::try_from(id).ok().filter(|no| entry.implicit && ports.queues(*no).is_some()) {
        bindings.push(MeterBinding { vport, direction: MeterDirection::From, meter: id });
    }
    let (burst, peak_burst) = meter::bursts(&entry.spec);
    let [green, yellow, red] = entry.meter.counts();
    MeterInfo {
        spec: entry.spec.clone(),
        burst,
        peak_burst,
        implicit: entry.implicit,
        bindings,
        rules: entry.rules,
        green,
        yellow,
        red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(no: PortNo) -> Option<u32> {
        (no < 3).then_some(2)
    }

    #[test]
    fn a_full_meter_table_says_so() {
        let mut meters = Meters::new(4, 1);
        (0..4).for_each(|n| meters.add(MeterSpec::new(n * 1000, 64), true, 0).unwrap());
        assert_eq!(meters.usage(), Usage { total: 4, free: 0 });
        assert_eq!(meters.add(MeterSpec::new(1, 64), true, 0).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(meters.add(MeterSpec::new(0, 64), true, 0).unwrap_err().kind(), ErrorKind::Exists);
        meters.delete(0).unwrap();
        meters.add(MeterSpec::new(1, 64), true, 0).unwrap();
        assert_eq!(meters.delete(0).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_meter_applies_to_its_vport_until_it_is_bound() {
        let mut meters = Meters::new(4, 1);
        meters.add(MeterSpec::new(1, 1000), true, 0).unwrap();
        let on = |meters: &Meters, no| {
            let meters = meters.by_port(3);
            (meters.from(no).map(|meter| meter.id()), meters.to(no).map(|meter| meter.id()))
        };
        assert_eq!((on(&meters, 0), on(&meters, 1)), ((None, None), (Some(1), None)));
        let to = MeterBinding { vport: 0, direction: MeterDirection::To, meter: 1 };
        assert_eq!(meters.bind(&to, &three).unwrap(), None);
        assert_eq!((on(&meters, 0), on(&meters, 1)), ((None, Some(1)), (None, None)));
        assert_eq!(meters.delete(1).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(meters.unbind(0, MeterDirection::To).unwrap(), 1);
        assert_eq!(on(&meters, 1), (None, None), "bound once, it is never implied again");
        assert_eq!(meters.unbind(0, MeterDirection::To).unwrap_err().kind(), ErrorKind::NotFound);
        for bad in [MeterBinding { vport: 3, ..to.clone() }, MeterBinding { meter: 2, ..to }] {
            assert_eq!(meters.bind(&bad, &three).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}

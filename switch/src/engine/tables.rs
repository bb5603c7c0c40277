//! Meters, rules and redirects as control has them: what may be changed to what, and what workers get of it.
//!
//! Every change is checked whole before anything of it is done, so that it is done or not done. Nothing here knows of the
//! kernel; which ports there are is handed in ([`Ports`]). What crosses to the workers is a [`Rules`], a [`PortMeters`] and
//! the map of redirects; meters and rules bring their counters along.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PortNo;
use super::meter::{self, MIN_BURST_KBIT, Meter};
use super::rule::{Rule, RuleTable, Rules};
use crate::model::*;
use crate::{Error, ErrorKind};

/// How many ports stand in an error's list of what is in the way.
const SHOWN: usize = 5;

/// The ports that there are, live or configured to come back.
pub trait Ports {
    /// Queues of that port; `None` if there is no such port.
    fn queues(&self, no: PortNo) -> Option<u32>;
}

impl<F: Fn(PortNo) -> Option<u32>> Ports for F {
    fn queues(&self, no: PortNo) -> Option<u32> {
        self(no)
    }
}

/// Meters by port number, for what a port sends and for what it is sent.
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
    /// Never bound and never named by a rule.
    implicit: bool,
    /// Rules that name it.
    rules: u32,
}

/// Rules that a batch took away or replaced, to put them back.
#[derive(Debug)]
pub struct RuleUndo(Vec<(u32, Option<Arc<Rule>>)>);

/// The tables.
#[derive(Debug)]
pub struct Tables {
    capacity: Capacity,
    workers: usize,
    meters: BTreeMap<u32, MeterEntry>,
    bindings: BTreeMap<(PortNo, MeterDirection), u32>,
    rules: RuleTable,
    redirects: BTreeMap<PortNo, PortNo>,
}

fn not_found(message: String) -> Error {
    Error::new(ErrorKind::NotFound, message)
}

/// Checks the sizes of the tables.
///
/// # Errors
/// The field, its range.
pub fn check_capacity(capacity: &Capacity) -> Result<(), Error> {
    for (name, value, max) in [
        ("ports", capacity.ports, MAX_PORTS as u32),
        ("meters", capacity.meters, MAX_TABLE_SIZE),
        ("rules", capacity.rules, MAX_TABLE_SIZE),
        ("rule_masks", capacity.rule_masks, 65_536),
    ] {
        if !(1..=max).contains(&value) {
            return Err(Error::invalid(format!("{name}: {value} is out of range, 1 to {max} are possible")));
        }
    }
    Ok(())
}

/// Checks a meter's configuration.
///
/// # Errors
/// The field, what is wrong with it, and what would be right.
pub fn check_meter(spec: &MeterSpec) -> Result<(), Error> {
    let two = spec.mode != MeterMode::Single;
    let least = match spec.kind {
        MeterType::Kbps => MIN_BURST_KBIT,
        MeterType::Pps => 1,
    };
    if spec.rate == 0 {
        return Err(Error::invalid("rate: 0 lets nothing pass: at least 1 is needed (a rule can drop)"));
    }
    for (name, burst) in [("burst", spec.burst), ("peak_burst", spec.peak_burst)] {
        if let Some(burst) = burst.filter(|burst| *burst < least) {
            return Err(Error::invalid(format!(
                "{name}: {burst} is too small, at least {least} is needed, or the largest frame never passes"
            )));
        }
    }
    match (two, spec.peak_rate) {
        (true, None) => return Err(Error::invalid("peak_rate: a two-rate mode needs one")),
        (true, Some(0)) => return Err(Error::invalid("peak_rate: 0 is out of range, at least 1 is needed")),
        (true, Some(peak)) if spec.mode == MeterMode::Rfc2698 && peak < spec.rate => {
            return Err(Error::invalid(format!("peak_rate: {peak} is below rate {} (RFC 2698)", spec.rate)));
        }
        _ => {}
    }
    let only_two = [
        ("peak_rate", spec.peak_rate.is_some()),
        ("peak_burst", spec.peak_burst.is_some()),
        ("color_aware", spec.color_aware),
        ("yellow_dscp", spec.yellow_dscp.is_some()),
    ];
    if let Some((name, _)) = only_two.iter().find(|(_, given)| *given && !two) {
        return Err(Error::invalid(format!("{name}: a single-rate meter has none: set mode to rfc2698 or rfc4115")));
    }
    match spec.yellow_dscp {
        Some(dscp) if dscp > 63 => {
            Err(Error::invalid(format!("yellow_dscp: {dscp} is out of range, 0 to 63 are possible")))
        }
        _ => Ok(()),
    }
}

impl Tables {
    /// Empty tables of that size, for that many workers.
    pub fn new(capacity: Capacity, workers: usize) -> Self {
        Self {
            capacity,
            workers,
            meters: BTreeMap::new(),
            bindings: BTreeMap::new(),
            rules: RuleTable::default(),
            redirects: BTreeMap::new(),
        }
    }

    // Meters

    /// Meters there can be and could still be added.
    pub fn meter_usage(&self) -> Usage {
        usage(self.capacity.meters, self.meters.len())
    }

    /// Adds a meter whose buckets are full at `now` (nanoseconds). `implicit`: whether it applies to what the vport of its
    /// number sends, as long as it is not bound.
    pub fn add_meter(&mut self, spec: MeterSpec, implicit: bool, now: u64) -> Result<(), Error> {
        check_meter(&spec)?;
        if self.meters.contains_key(&spec.id) {
            return Err(Error::new(ErrorKind::Exists, format!("id: there is a meter {} already", spec.id)));
        }
        if self.meters.len() >= self.capacity.meters as usize {
            return Err(Error::new(
                ErrorKind::Full,
                format!("id: all {} meters are in use: delete one first", self.capacity.meters),
            ));
        }
        let meter = Arc::new(Meter::new(&spec, self.workers, now));
        self.meters.insert(spec.id, MeterEntry { spec, meter, implicit, rules: 0 });
        Ok(())
    }

    fn entry(&self, id: u32) -> Result<&MeterEntry, Error> {
        self.meters.get(&id).ok_or_else(|| not_found(format!("id: there is no meter {id}")))
    }

    /// Deletes a meter that neither a port nor a rule uses.
    pub fn del_meter(&mut self, id: u32) -> Result<(), Error> {
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
        self.meters.remove(&id);
        Ok(())
    }

    /// Changes a meter at `now`, under the frames that pass it; returns its configuration before.
    pub fn update_meter(&mut self, id: u32, update: &MeterUpdate, now: u64) -> Result<MeterSpec, Error> {
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
        self.configure_meter(spec, now)?;
        Ok(before)
    }

    /// Gives a meter a configuration of the same type and mode.
    pub fn configure_meter(&mut self, spec: MeterSpec, now: u64) -> Result<(), Error> {
        check_meter(&spec)?;
        let id = spec.id;
        let entry = self.meters.get_mut(&id).ok_or_else(|| not_found(format!("id: there is no meter {id}")))?;
        entry.meter.configure(&spec, now);
        entry.spec = spec;
        Ok(())
    }

    /// One meter.
    pub fn meter(&self, id: u32, ports: &dyn Ports) -> Result<MeterInfo, Error> {
        let entry = self.entry(id)?;
        let bindings = self.bindings.iter().filter(|(_, meter)| **meter == id);
        Ok(describe(entry, bindings.map(binding).collect(), ports))
    }

    /// All meters from number `from` on, ascending, at most `limit`.
    pub fn meters(&self, from: u32, limit: usize, ports: &dyn Ports) -> Vec<MeterInfo> {
        let mut bindings: BTreeMap<u32, Vec<MeterBinding>> = BTreeMap::new();
        self.bindings.iter().for_each(|row| bindings.entry(*row.1).or_default().push(binding(row)));
        let meters = self.meters.range(from..).take(limit);
        meters.map(|(id, entry)| describe(entry, bindings.remove(id).unwrap_or_default(), ports)).collect()
    }

    /// Binds a meter to a direction of a port, in place of one that is; returns that.
    pub fn bind(&mut self, binding: &MeterBinding, ports: &dyn Ports) -> Result<Option<u32>, Error> {
        let MeterBinding { vport, direction, meter } = *binding;
        self.entry(meter)?;
        expect_port("vport", vport, ports)?;
        Ok(self.restore_binding(vport, direction, meter))
    }

    fn restore_binding(&mut self, vport: PortNo, direction: MeterDirection, meter: u32) -> Option<u32> {
        if let Some(entry) = self.meters.get_mut(&meter) {
            entry.implicit = false;
        }
        self.bindings.insert((vport, direction), meter)
    }

    /// Undoes a binding; returns the meter.
    pub fn unbind(&mut self, vport: PortNo, direction: MeterDirection) -> Result<u32, Error> {
        self.bindings.remove(&(vport, direction)).ok_or_else(|| {
            let what = match direction {
                MeterDirection::From => "sends",
                MeterDirection::To => "is sent",
            };
            not_found(format!("no meter is bound to what vport {vport} {what}"))
        })
    }

    /// Says again of a meter whether it was never bound.
    pub fn set_implicit(&mut self, id: u32, implicit: bool) {
        if let Some(entry) = self.meters.get_mut(&id) {
            entry.implicit = implicit;
        }
    }

    /// Whether a meter was never bound.
    pub fn is_implicit(&self, id: u32) -> bool {
        self.meters.get(&id).is_some_and(|entry| entry.implicit)
    }

    /// All bindings.
    pub fn bindings(&self) -> Vec<MeterBinding> {
        self.bindings.iter().map(binding).collect()
    }

    /// What workers get of it, for port numbers below `slots`.
    pub fn port_meters(&self, slots: usize) -> PortMeters {
        if self.meters.is_empty() {
            return PortMeters::default();
        }
        let find = |no: usize, direction| {
            let explicit = self.bindings.get(&(no as PortNo, direction)).and_then(|id| self.meters.get(id));
            let implied = || self.meters.get(&(no as u32)).filter(|entry| entry.implicit);
            let entry = match direction {
                MeterDirection::From => explicit.or_else(implied),
                MeterDirection::To => explicit,
            };
            entry.map(|entry| Arc::clone(&entry.meter))
        };
        PortMeters {
            from: (0..slots).map(|no| find(no, MeterDirection::From)).collect(),
            to: (0..slots).map(|no| find(no, MeterDirection::To)).collect(),
        }
    }

    /// Whether there are meters, so that workers need to know the time.
    pub fn has_meters(&self) -> bool {
        !self.meters.is_empty()
    }

    // Rules

    /// Rules there can be and could still be written.
    pub fn rule_usage(&self) -> Usage {
        usage(self.capacity.rules, self.rules.rules().len() as usize)
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        self.rules.rules()
    }

    /// Lowest place without a rule.
    pub fn free_rule(&self) -> Result<u32, Error> {
        Some(self.rules.first_free()).filter(|index| *index < self.capacity.rules).ok_or_else(|| {
            Error::new(
                ErrorKind::Full,
                format!("key_index: all {} places are taken: delete a rule first", self.capacity.rules),
            )
        })
    }

    /// Carries out a batch of changes, or none of them; what it returns puts things back ([`Tables::undo_rules`]).
    ///
    /// # Errors
    /// Of the first change that can't be made, with its place in the batch if there are several.
    pub fn change_rules(&mut self, changes: Vec<RuleChange>, ports: &dyn Ports) -> Result<RuleUndo, Error> {
        let most = 4 * self.capacity.rules as usize;
        if changes.len() > most {
            return Err(Error::invalid(format!(
                "changes: {} are too many, {most} are possible at once",
                changes.len()
            )));
        }
        let many = changes.len() > 1;
        let place = |at: usize, error: Error| {
            if many { Error::new(error.kind(), format!("change {at}: {error}")) } else { error }
        };
        // Whether a place is taken after the changes so far: as the table says, unless a change has said otherwise.
        let mut cleared = false;
        let mut taken: BTreeMap<u32, bool> = BTreeMap::new();
        let mut prepared = Vec::with_capacity(changes.len());
        for (at, change) in changes.into_iter().enumerate() {
            prepared.push(match change {
                RuleChange::Write(spec) => {
                    taken.insert(spec.key_index, true);
                    Prepared::Write(Arc::new(self.check_rule(spec, ports).map_err(|error| place(at, error))?))
                }
                RuleChange::Delete(index) => {
                    let there = || !cleared && self.rules.rules().get(index).is_some();
                    if !taken.insert(index, false).unwrap_or_else(there) {
                        return Err(place(at, not_found(format!("key_index: there is no rule {index}"))));
                    }
                    Prepared::Delete(index)
                }
                RuleChange::Clear => {
                    (cleared, taken) = (true, BTreeMap::new());
                    Prepared::Clear
                }
            });
        }
        // What a later change clears away need not be done.
        let last_clear = prepared.iter().rposition(|change| matches!(change, Prepared::Clear)).unwrap_or(0);
        let mut undo = Vec::with_capacity(prepared.len());
        for change in prepared.into_iter().skip(last_clear) {
            match change {
                Prepared::Write(rule) => undo.push((rule.index, self.put_rule(rule))),
                Prepared::Delete(index) => undo.push((index, self.take_rule(index))),
                Prepared::Clear => {
                    let all: Vec<_> = self.rules.rules().iter_from(0).map(|rule| rule.index).collect();
                    undo.extend(all.into_iter().map(|index| (index, self.take_rule(index))));
                }
            }
        }
        self.rules.commit();
        let (masks, most) = (self.rules.rules().masks(), self.capacity.rule_masks as usize);
        if masks > most {
            self.undo_rules(RuleUndo(undo));
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "key: the rules would have {masks} distinct masks, {most} are possible: mask alike what is alike"
                ),
            ));
        }
        Ok(RuleUndo(undo))
    }

    /// Puts back what a batch has changed, counters included.
    pub fn undo_rules(&mut self, undo: RuleUndo) {
        for (index, rule) in undo.0.into_iter().rev() {
            match rule {
                Some(rule) => drop(self.put_rule(rule)),
                None => drop(self.take_rule(index)),
            }
        }
        self.rules.commit();
    }

    fn check_rule(&self, spec: RuleSpec, ports: &dyn Ports) -> Result<Rule, Error> {
        if spec.key_index >= self.capacity.rules {
            return Err(Error::invalid(format!(
                "key_index: {} is out of range, 0 to {} are possible",
                spec.key_index,
                self.capacity.rules - 1
            )));
        }
        let RuleAction { target, queue, meter, mirror } = &spec.action;
        match (target, queue) {
            (RuleTarget::Port(no), queue) => {
                let queues = expect_port("action.vid", *no, ports)?;
                if let Some(queue) = queue.filter(|queue| *queue >= queues) {
                    return Err(Error::invalid(format!(
                        "qid: {queue} is out of range, vport {no} has queues 0 to {} (none, or -1: by flow hash)",
                        queues - 1
                    )));
                }
            }
            (target, Some(_)) => {
                return Err(Error::invalid(format!("qid: a rule to `{target}` has no queue: leave it out")));
            }
            _ => {}
        }
        if let Some(mirror) = mirror {
            expect_port("mirror", *mirror, ports)?;
        }
        let meter = match meter {
            None => None,
            Some(id) => {
                let entry = self.meters.get(id).ok_or_else(|| not_found(format!("meter: there is no meter {id}")))?;
                Some(Arc::clone(&entry.meter))
            }
        };
        Rule::new(spec, meter, self.workers).map_err(Error::invalid)
    }

    fn put_rule(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        if let Some(entry) = rule.action.meter.and_then(|id| self.meters.get_mut(&id)) {
            entry.rules += 1;
            entry.implicit = false;
        }
        let before = self.rules.insert(rule);
        self.release(before.as_deref());
        before
    }

    fn take_rule(&mut self, index: u32) -> Option<Arc<Rule>> {
        let before = self.rules.remove(index);
        self.release(before.as_deref());
        before
    }

    fn release(&mut self, rule: Option<&Rule>) {
        if let Some(entry) = rule.and_then(|rule| rule.action.meter).and_then(|id| self.meters.get_mut(&id)) {
            entry.rules -= 1;
        }
    }

    // Redirects

    /// Sends what would go to `src` to `dest`; `src` itself as `dest` undoes it. Returns where it went before.
    ///
    /// # Errors
    /// `NotFound` for a port that is not there, `Loop` if it would lead back to `src`.
    pub fn redirect(&mut self, spec: RedirectSpec, ports: &dyn Ports) -> Result<Option<PortNo>, Error> {
        let RedirectSpec { src, dest } = spec;
        expect_port("src_pfid", src, ports)?;
        expect_port("dest_pfid", dest, ports)?;
        // The way on from there, as it would be: a redirect of `src` that is there now would be replaced.
        let mut way = vec![src, dest];
        let mut next = dest;
        while let Some(&to) = self.redirects.get(&next).filter(|_| next != src) {
            way.push(to);
            next = to;
        }
        if src != dest && next == src {
            let way: Vec<_> = way.iter().map(ToString::to_string).collect();
            return Err(Error::new(
                ErrorKind::Loop,
                format!("dest_pfid: the redirect would be a loop ({}): undo one of the others first", way.join(" -> ")),
            ));
        }
        Ok(self.restore_redirect(src, Some(dest)))
    }

    /// Sets or undoes a redirect that was checked before.
    pub fn restore_redirect(&mut self, src: PortNo, dest: Option<PortNo>) -> Option<PortNo> {
        match dest.filter(|dest| *dest != src) {
            Some(dest) => self.redirects.insert(src, dest),
            None => self.redirects.remove(&src),
        }
    }

    fn end_of(&self, mut no: PortNo) -> PortNo {
        // No loops are let in, so this ends.
        while let Some(&next) = self.redirects.get(&no) {
            no = next;
        }
        no
    }

    /// All redirects: from, to, and where that ends.
    pub fn redirects(&self) -> impl Iterator<Item = (RedirectSpec, PortNo)> {
        self.redirects.iter().map(|(&src, &dest)| (RedirectSpec { src, dest }, self.end_of(dest)))
    }

    // All

    /// Fills empty tables with what was kept; ports are not asked for, they come up later. Returns what does not fit, in words.
    pub fn restore(&mut self, kept: KeptTables, now: u64) -> Vec<String> {
        let mut refused = Vec::new();
        for (spec, implicit) in kept.meters {
            let id = spec.id;
            if let Err(error) = self.add_meter(spec, implicit, now) {
                refused.push(format!("meter {id}: {error}"));
            }
        }
        for MeterBinding { vport, direction, meter } in kept.bindings {
            if self.meters.contains_key(&meter) {
                self.restore_binding(vport, direction, meter);
            } else {
                refused.push(format!("binding of vport {vport}: there is no meter {meter}"));
            }
        }
        for spec in kept.rules {
            let index = spec.key_index;
            match self.check_rule(spec, &|_| Some(u32::MAX)) {
                Ok(rule) => drop(self.put_rule(Arc::new(rule))),
                Err(error) => refused.push(format!("rule {index}: {error}")),
            }
        }
        self.rules.commit();
        for RedirectSpec { src, dest } in kept.redirects {
            if let Err(error) = self.redirect(RedirectSpec { src, dest }, &|_| Some(1)) {
                refused.push(format!("redirect of vport {src}: {error}"));
            }
        }
        refused
    }

    // Ports

    /// Whether a port can go: nothing may be redirected to it.
    pub fn check_port_unused(&self, no: PortNo) -> Result<(), Error> {
        match self.redirects.iter().find(|(_, dest)| **dest == no) {
            None => Ok(()),
            Some((src, _)) => Err(Error::new(
                ErrorKind::Busy,
                format!("vport: what would go to vport {src} is redirected to vport {no}: undo that redirect first"),
            )),
        }
    }

    /// A port is gone: its bindings and its own redirect go with it. Rules stay: they name numbers, not ports.
    pub fn forget_port(&mut self, no: PortNo) {
        self.redirects.remove(&no);
        self.bindings.retain(|(port, _), _| *port != no);
    }
}

/// What tables are filled with at start.
#[derive(Clone, Debug, Default)]
pub struct KeptTables {
    /// Meters, and whether they were never bound.
    pub meters: Vec<(MeterSpec, bool)>,
    /// Bindings.
    pub bindings: Vec<MeterBinding>,
    /// Rules.
    pub rules: Vec<RuleSpec>,
    /// Redirects.
    pub redirects: Vec<RedirectSpec>,
}

enum Prepared {
    Write(Arc<Rule>),
    Delete(u32),
    Clear,
}

fn usage(total: u32, used: usize) -> Usage {
    Usage { total, free: total.saturating_sub(used as u32) }
}

fn expect_port(field: &str, no: PortNo, ports: &dyn Ports) -> Result<u32, Error> {
    ports.queues(no).ok_or_else(|| not_found(format!("{field}: there is no vport {no}")))
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

    fn tables() -> Tables {
        Tables::new(Capacity { ports: 8, meters: 4, rules: 16, rule_masks: 3 }, 1)
    }

    fn write(index: u32, target: RuleTarget) -> RuleChange {
        RuleChange::Write(RuleSpec { key_index: index, key: RuleKey::default(), action: RuleAction::to(target) })
    }

    fn indices(tables: &Tables) -> Vec<u32> {
        tables.rules().iter_from(0).map(|rule| rule.index).collect()
    }

    #[test]
    fn a_batch_is_done_whole_or_not_at_all_and_can_be_undone() {
        let mut tables = tables();
        let undo = tables.change_rules(vec![write(1, RuleTarget::Drop), write(2, RuleTarget::Port(1))], &three);
        tables.undo_rules(undo.unwrap());
        assert!(indices(&tables).is_empty());
        tables.change_rules(vec![write(1, RuleTarget::Drop), write(5, RuleTarget::Drop)], &three).unwrap();
        let version = tables.rules().version();
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
            assert_eq!((indices(&tables), tables.rules().version()), (vec![1, 5], version), "nothing is changed");
        }
        let batch =
            vec![RuleChange::Clear, write(1, RuleTarget::Normal), RuleChange::Delete(1), write(3, RuleTarget::Drop)];
        let undo = tables.change_rules(batch, &three).unwrap();
        assert_eq!(indices(&tables), [3]);
        tables.undo_rules(undo);
        assert_eq!(indices(&tables), [1, 5]);
        assert_eq!(tables.rules().get(1).unwrap().action.target, RuleTarget::Drop);
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
        tables.add_meter(MeterSpec::new(9, 1000), true, 0).unwrap();
        let undo = tables.change_rules(with(port, Some(1), Some(9), Some(2)), &three).unwrap();
        assert_eq!(tables.del_meter(9).unwrap_err().kind(), ErrorKind::Busy);
        assert!(!tables.is_implicit(9), "a rule names it");
        tables.undo_rules(undo);
        tables.del_meter(9).unwrap();
    }

    #[test]
    fn meters_are_refused_with_the_field_that_is_wrong() {
        let good = MeterSpec::new(1, 1000);
        let two = MeterSpec { mode: MeterMode::Rfc2698, peak_rate: Some(2000), ..good.clone() };
        for (field, spec) in [
            ("rate", MeterSpec { rate: 0, ..good.clone() }),
            ("burst", MeterSpec { burst: Some(32), ..good.clone() }),
            ("burst", MeterSpec { burst: Some(0), kind: MeterType::Pps, ..good.clone() }),
            ("peak_rate", MeterSpec { peak_rate: Some(9), ..good.clone() }),
            ("peak_burst", MeterSpec { peak_burst: Some(99), ..good.clone() }),
            ("color_aware", MeterSpec { color_aware: true, ..good.clone() }),
            ("yellow_dscp", MeterSpec { yellow_dscp: Some(1), ..good.clone() }),
            ("peak_rate", MeterSpec { peak_rate: None, ..two.clone() }),
            ("peak_rate", MeterSpec { peak_rate: Some(999), ..two.clone() }),
            ("peak_rate", MeterSpec { peak_rate: Some(0), mode: MeterMode::Rfc4115, ..two.clone() }),
            ("peak_burst", MeterSpec { peak_burst: Some(1), ..two.clone() }),
            ("yellow_dscp", MeterSpec { yellow_dscp: Some(64), ..two.clone() }),
        ] {
            let error = check_meter(&spec).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: ")), "{field}: {error}");
        }
        check_meter(&good).unwrap();
        check_meter(&MeterSpec { rate: u32::MAX, burst: Some(u32::MAX), ..good }).unwrap();
        check_meter(&MeterSpec { mode: MeterMode::Rfc4115, peak_rate: Some(1), ..two }).unwrap();
    }

    #[test]
    fn a_full_meter_table_says_so() {
        let mut tables = tables();
        (0..4).for_each(|n| tables.add_meter(MeterSpec::new(n * 1000, 64), true, 0).unwrap());
        assert_eq!(tables.meter_usage(), Usage { total: 4, free: 0 });
        assert_eq!(tables.add_meter(MeterSpec::new(1, 64), true, 0).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(tables.add_meter(MeterSpec::new(0, 64), true, 0).unwrap_err().kind(), ErrorKind::Exists);
        tables.del_meter(0).unwrap();
        tables.add_meter(MeterSpec::new(1, 64), true, 0).unwrap();
        assert_eq!(tables.del_meter(0).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_meter_applies_to_its_vport_until_it_is_bound() {
        let mut tables = tables();
        tables.add_meter(MeterSpec::new(1, 1000), true, 0).unwrap();
        let on = |tables: &Tables, no| {
            let meters = tables.port_meters(3);
            (meters.from(no).map(|meter| meter.id()), meters.to(no).map(|meter| meter.id()))
        };
        assert_eq!((on(&tables, 0), on(&tables, 1)), ((None, None), (Some(1), None)));
        let to = MeterBinding { vport: 0, direction: MeterDirection::To, meter: 1 };
        assert_eq!(tables.bind(&to, &three).unwrap(), None);
        assert_eq!((on(&tables, 0), on(&tables, 1)), ((None, Some(1)), (None, None)));
        assert_eq!(tables.del_meter(1).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(tables.unbind(0, MeterDirection::To).unwrap(), 1);
        assert_eq!(on(&tables, 1), (None, None), "bound once, it is never implied again");
        assert_eq!(tables.unbind(0, MeterDirection::To).unwrap_err().kind(), ErrorKind::NotFound);
        for bad in [MeterBinding { vport: 3, ..to.clone() }, MeterBinding { meter: 2, ..to }] {
            assert_eq!(tables.bind(&bad, &three).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn redirects_chain_and_never_loop() {
        let mut tables = tables();
        let mut go = |src, dest| tables.redirect(RedirectSpec { src, dest }, &three).map_err(|error| error.kind());
        assert_eq!(go(0, 1), Ok(None));
        assert_eq!(go(1, 2), Ok(None));
        assert_eq!(go(2, 0), Err(ErrorKind::Loop));
        assert_eq!(go(1, 0), Err(ErrorKind::Loop));
        assert_eq!(go(0, 3), Err(ErrorKind::NotFound));
        assert_eq!(go(3, 0), Err(ErrorKind::NotFound));
        assert_eq!(go(0, 2), Ok(Some(1)));
        assert_eq!(go(1, 0), Ok(Some(2)));
        assert_eq!(go(0, 0), Ok(Some(2)), "to itself undoes it");
        assert_eq!(go(0, 0), Ok(None));
        let ends: Vec<_> = tables.redirects().map(|(spec, end)| (spec.src, spec.dest, end)).collect();
        assert_eq!(ends, [(1, 0, 0)]);
        assert_eq!(tables.check_port_unused(0).unwrap_err().kind(), ErrorKind::Busy);
        tables.forget_port(1);
        tables.check_port_unused(0).unwrap();
    }
}

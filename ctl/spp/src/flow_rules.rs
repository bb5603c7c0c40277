//! Flow rules of `phy` ports. They are numbered, written to the state file, and put into the data plane.
//!
//! They belong to the primary, and go when it ends. Rules of a port that is gone are kept until it comes back.

use std::collections::BTreeMap;

use ctl_spp_types::{FlowState, PortFlow, PortId, PortType};
use switch::model::{Count, FlowCount, MAX_FLOW_RULES};

use super::error::SppError;
use super::flow::{NumberedRule, PortRules, Rule, write};
use super::{Inner, Proc, Spp};

fn phy(no: u32) -> PortId {
    PortId { kind: PortType::Phy, no, queue: None }
}

impl Spp {
    /// The flow rules of `phy:no`, in the order in which they were made.
    pub fn flow_rules(&self, no: u32) -> Vec<NumberedRule> {
        self.lock().flow_rules.get(&no).cloned().unwrap_or_default()
    }

    /// Checks that `phy:no` can have rules.
    ///
    /// # Errors
    /// `NotFound`: there is no primary; `Refused`: there is no such port.
    pub fn check_flow_port(&self, no: u32) -> Result<(), SppError> {
        self.check_port(&self.lock(), no).map(drop)
    }

    /// Frames and bytes that a flow rule has matched. Zero if its port is gone.
    pub fn flow_count(&self, no: u32, rule_id: u32) -> Count {
        self.flow_counts().get(&(phy(no), rule_id)).copied().unwrap_or_default()
    }

    /// Frames and bytes that all flow rules have matched, by port and rule number.
    fn flow_counts(&self) -> BTreeMap<(PortId, u32), Count> {
        let named: BTreeMap<_, _> = self.ports().into_iter().map(|(port, name)| (name, port)).collect();
        let one = |count: FlowCount| Some(((*named.get(&count.port)?, count.rule), count.matched));
        self.service.dataplane().flow_counts().into_iter().filter_map(one).collect()
    }

    /// The flow rules of all ports that have any, with their counters.
    pub fn all_flow_rules(&self) -> Vec<PortFlow> {
        let counts = self.flow_counts();
        let of_port = |(&no, rules): (&u32, &Vec<NumberedRule>)| {
            let one = |NumberedRule { rule_id, rule }: &NumberedRule| {
                let matched = counts.get(&(phy(no), *rule_id)).copied().unwrap_or_default();
                FlowState { rule_id: *rule_id, line: write::line(rule), matched }
            };
            PortFlow { port: phy(no), rules: rules.iter().map(one).collect() }
        };
        self.lock().flow_rules.iter().filter(|(_, rules)| !rules.is_empty()).map(of_port).collect()
    }

    /// Checks a rule without making it.
    ///
    /// # Errors
    /// `NotFound`: there is no primary; `Refused`: there is no such port, or the rule is not supported.
    pub fn check_flow_rule(&self, no: u32, rule: &Rule) -> Result<(), SppError> {
        self.check(&self.lock(), no, rule)
    }

    /// Makes a rule and returns its number: one more than the port's last rule, or 0.
    ///
    /// # Errors
    /// Those of [`Spp::check_flow_rule`]; `Refused`: the port can't have more; `System`: it can't be kept.
    pub fn add_flow_rule(&self, no: u32, rule: Rule) -> Result<u32, SppError> {
        let mut inner = self.lock();
        self.check(&inner, no, &rule)?;
        let mut rules = inner.flow_rules.get(&no).cloned().unwrap_or_default();
        if rules.len() >= MAX_FLOW_RULES {
            return Err(SppError::refused(format!("{} has {MAX_FLOW_RULES} flow rules, and can't have more", phy(no))));
        }
        let rule_id = rules.last().map_or(Some(0), |last| last.rule_id.checked_add(1));
        let rule_id = rule_id.ok_or_else(|| SppError::refused("there are no numbers for rules left: delete all"))?;
        rules.push(NumberedRule { rule_id, rule });
        self.set_flow_rules(&mut inner, no, rules)?;
        Ok(rule_id)
    }

    /// Deletes one rule of a port, or all if `rule_id` is `None`.
    ///
    /// # Errors
    /// `NotFound`: there is no primary; `Refused`: there is no such port, or it has no such rule; `System`: the state
    /// file can't be written.
    pub fn del_flow_rules(&self, no: u32, rule_id: Option<u32>) -> Result<(), SppError> {
        let mut inner = self.lock();
        let rules = inner.flow_rules.get(&no).cloned().unwrap_or_default();
        // Rules of a port that is gone can be deleted, so only a port without rules is looked for.
        if rules.is_empty() || !inner.instances.contains_key(&Proc::PRIMARY) {
            self.check_port(&inner, no)?;
        }
        let left: Vec<_> = rules.iter().filter(|rule| rule_id.is_some_and(|id| rule.rule_id != id)).cloned().collect();
        match rule_id {
            Some(id) if left.len() == rules.len() => Err(SppError::refused(format!("Flow rule #{id} not found"))),
            _ => self.set_flow_rules(&mut inner, no, left),
        }
    }

    /// Replaces the rules of a port, in the data plane and in the state file. If that fails, the old ones are put back.
    fn set_flow_rules(&self, inner: &mut Inner, no: u32, rules: Vec<NumberedRule>) -> Result<(), SppError> {
        let row = super::rows::flow_rules(&PortRules { port: no, rules: rules.clone() });
        let old = inner.flow_rules.insert(no, rules);
        let result = self.apply_flow_rules(inner).and_then(|()| Ok(self.service.keep_rows(&[row])?));
        if result.is_err() {
            inner.flow_rules.insert(no, old.unwrap_or_default());
            self.back(inner);
        }
        result
    }

    /// The number of queues of `phy:no`, if rules can be made for it.
    fn check_port(&self, inner: &Inner, no: u32) -> Result<usize, SppError> {
        if !inner.instances.contains_key(&Proc::PRIMARY) {
            return Err(super::missing(Proc::PRIMARY));
        }
        let name = phy(no).to_string();
        let ports = self.service.dataplane().ports_in_brief();
        let port = ports.into_iter().find(|port| port.spec.spp.as_ref() == Some(&name));
        port.map(|port| port.queues.len()).ok_or_else(|| SppError::refused(format!("Invalid port {no}")))
    }

    fn check(&self, inner: &Inner, no: u32, rule: &Rule) -> Result<(), SppError> {
        let queues = self.check_port(inner, no)?;
        match rule.compile(0).map_err(SppError::Refused)?.target {
            switch::model::FlowTarget::Queue(queue) if queue as usize >= queues => {
                let port = phy(no);
                Err(SppError::refused(format!("actions: queue index {queue}: {port} has {queues}, numbered from 0")))
            }
            _ => Ok(()),
        }
    }

    /// Gives each present port its rules, where the data plane has other ones.
    pub(super) fn apply_flow_rules(&self, inner: &Inner) -> Result<(), SppError> {
        let dataplane = self.service.dataplane();
        for (port, name) in self.ports().into_iter().filter(|(port, _)| port.kind == PortType::Phy) {
            let kept = inner.flow_rules.get(&port.no).map_or(&[][..], Vec::as_slice);
            // Rules were compiled once before they were kept, so none is skipped here.
            let rules: Vec<_> = kept.iter().filter_map(|kept| kept.rule.compile(kept.rule_id).ok()).collect();
            if dataplane.flow_rules(&name)? != rules {
                dataplane.set_flow_rules(&name, rules)?;
            }
        }
        Ok(())
    }
}

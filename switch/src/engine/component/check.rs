//! Whether a set of components can run.

use std::collections::{HashMap, HashSet};

use crate::model::{ComponentKind, ComponentSpec, End, EndPort, MAX_END_NO, PortKind, TableEntry, VlanEdit};
use crate::{Error, ErrorKind};

/// Ends of a component at most, each way.
const MAX_ENDS: usize = 1024;

/// What is known of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownPort {
    /// The bridge has it.
    Bridged(PortKind),
    /// Components can have it.
    Free {
        /// Its number of queues.
        queues: u32,
    },
}

/// What there is for components to name.
pub(crate) struct Known<'a> {
    /// Number of workers.
    pub workers: usize,
    /// A port by its name.
    pub port: &'a dyn Fn(&str) -> Option<KnownPort>,
    /// Whether there is a ring of that number.
    pub ring: &'a dyn Fn(u32) -> bool,
    /// Whether there is an outside end of that number.
    pub outside: &'a dyn Fn(u32) -> bool,
}

/// Which component has which end, for each way. A port is claimed as a whole or by its queues.
#[derive(Default)]
struct Claims<'a> {
    ends: HashMap<(&'static str, &'a EndPort), &'a str>,
    /// Ports of which anything was claimed, with the component that claimed last.
    ports: HashMap<(&'static str, &'a str), &'a str>,
}

/// Checks a whole set of components.
///
/// # Errors
/// Of the first thing that is wrong: `Invalid`, `NotFound` or `Busy`, see [`crate::Switch::set_components`].
pub(crate) fn check(components: &[ComponentSpec], known: &Known<'_>) -> Result<(), Error> {
    let mut names = HashSet::new();
    let mut claims = Claims::default();
    for component in components {
        let ComponentSpec { name, worker, kind, rx, tx, table } = component;
        let wrong = |what: String| Error::invalid(format!("component `{name}`: {what}"));
        if !names.insert(name.as_str()) {
            return Err(wrong("there are two of that name".to_owned()));
        }
        if *worker >= known.workers {
            return Err(wrong(format!("worker {worker} is not there: 0 to {} are", known.workers - 1)));
        }
        let (most_rx, most_tx) = match kind {
            ComponentKind::Forward => (1, 1),
            ComponentKind::Merge => (MAX_ENDS, 1),
            ComponentKind::Classifier => (1, MAX_ENDS),
            ComponentKind::Mirror => (1, 2),
        };
        for (way, ends, most) in [("receiving", rx, most_rx), ("sending", tx, most_tx)] {
            if ends.len() > most {
                return Err(wrong(format!("{} {way} ends are too many: {most} at most", ends.len())));
            }
            for end in ends {
                check_end(end, known)
                    .map_err(|error| Error::new(error.kind(), format!("component `{name}`: {error}")))?;
                claims.add(way, &end.port, name)?;
            }
        }
        if *kind != ComponentKind::Classifier && !table.is_empty() {
            return Err(wrong("only a classifier has a table".to_owned()));
        }
        check_table(table, tx.len()).map_err(wrong)?;
    }
    Ok(())
}

fn check_end(End { port, vlan }: &End, known: &Known<'_>) -> Result<(), Error> {
    let missing = || Error::new(ErrorKind::NotFound, format!("there is no {port}"));
    match port {
        EndPort::Port { name, queue } => match (known.port)(name) {
            None => return Err(missing()),
            Some(KnownPort::Bridged(kind)) => {
                let word = kind.spp_word();
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("`{name}` is a port of the bridge: add it with --spp {word}:N to have it for components"),
                ));
            }
            Some(KnownPort::Free { queues }) => {
                if let Some(queue) = queue.filter(|queue| *queue >= queues) {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("port `{name}` has no queue {queue}: it has 0 to {}", queues - 1),
                    ));
                }
            }
        },
        EndPort::Ring(no) if !(known.ring)(*no) => return Err(missing()),
        EndPort::Outside(no) if !(known.outside)(*no) => return Err(missing()),
        EndPort::Null(no) if *no > MAX_END_NO => {
            return Err(Error::invalid(format!("{port} is out of range, 0 to {MAX_END_NO} are possible")));
        }
        EndPort::Ring(_) | EndPort::Outside(_) | EndPort::Null(_) => {}
    }
    match vlan {
        VlanEdit::Add { vid, .. } if *vid > 4095 => {
            Err(Error::invalid(format!("{port}: VLAN {vid} is out of range, 0 to 4095 are possible")))
        }
        VlanEdit::Add { pcp, .. } if *pcp > 7 => {
            Err(Error::invalid(format!("{port}: priority {pcp} is out of range, 0 to 7 are possible")))
        }
        _ => Ok(()),
    }
}

fn check_table(table: &[TableEntry], ends: usize) -> Result<(), String> {
    let mut seen = HashSet::new();
    for entry @ TableEntry { vlan, mac, tx } in table {
        let vlan_name = vlan.map_or_else(|| "untagged".to_owned(), |vlan| format!("VLAN {vlan}"));
        let mac_name = mac.map_or_else(|| "default".to_owned(), |mac| mac.to_string());
        if let Some(vlan) = vlan.filter(|vlan| *vlan > 4095) {
            return Err(format!("VLAN {vlan} is out of range, 0 to 4095 are possible"));
        }
        if *tx >= ends {
            return Err(format!("{vlan_name} {mac_name} is for sending end {tx}, and there are {ends}"));
        }
        if !seen.insert((entry.vlan, entry.mac)) {
            return Err(format!("{vlan_name} {mac_name} is in the table twice"));
        }
    }
    Ok(())
}

impl<'a> Claims<'a> {
    /// Claims an end for a component.
    fn add(&mut self, way: &'static str, end: &'a EndPort, by: &'a str) -> Result<(), Error> {
        let busy = |first: &str| {
            let message = format!("{end} has two components at its {way} side, `{first}` and `{by}`");
            Err(Error::new(ErrorKind::Busy, message))
        };
        if let Some(first) = self.ends.insert((way, end), by) {
            return busy(first);
        }
        if let EndPort::Port { name, queue } = end {
            let whole = EndPort::Port { name: name.clone(), queue: None };
            let other = match queue {
                None => self.ports.get(&(way, name.as_str())),
                Some(_) => self.ends.get(&(way, &whole)),
            };
            if let Some(first) = other {
                return busy(first);
            }
            self.ports.insert((way, name), by);
        }
        Ok(())
    }
}

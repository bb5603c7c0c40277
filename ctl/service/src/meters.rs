//! Meters, and their bindings to ports. Each change holds the mutex, changes the data plane, and is then saved or
//! undone.

use ctl_types::Page;
use serde::{Deserialize, Serialize};
use switch::model::*;

use crate::Service;
use crate::error::Error;
use crate::numbers::{NamesPorts, PutBack};
use crate::state::{Row, Table};

/// A meter's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterRecord {
    /// As configured.
    pub spec: MeterSpec,
    /// Whether it was never bound or named by a rule. It then applies to frames from the vport of its number.
    pub implicit: bool,
}

/// Rows of meters, by the key `meter/ID`.
#[derive(Debug)]
pub struct Meters;

impl Table for Meters {
    const NAME: &'static str = "meter";
    type Row = MeterRecord;

    fn key(row: &MeterRecord) -> String {
        meter_key(row.spec.id)
    }
}

pub(crate) fn meter_key(id: u32) -> String {
    format!("{id:010}")
}

/// Rows of bindings, by the key `binding/VPORT/DIRECTION`.
#[derive(Debug)]
pub struct MeterBindings;

impl Table for MeterBindings {
    const NAME: &'static str = "binding";
    type Row = MeterBinding;

    fn key(row: &MeterBinding) -> String {
        binding_key(row.vport, row.direction)
    }
}

pub(crate) fn binding_key(vport: u16, direction: MeterDirection) -> String {
    format!("{vport:05}/{direction:?}")
}

/// Removes the binding of a port and direction.
fn no_binding(vport: u16, direction: MeterDirection) -> Row {
    Row::remove::<MeterBindings>(&binding_key(vport, direction))
}

impl NamesPorts for MeterBindings {
    fn holds(&self, _: &Service, _: u16) -> Option<String> {
        None
    }

    fn gone(&self, no: u16) -> Vec<Row> {
        [MeterDirection::From, MeterDirection::To].map(|direction| no_binding(no, direction)).to_vec()
    }

    fn rows(&self, service: &Service, no: u16) -> Vec<Row> {
        let bindings = service.dataplane.meter_bindings();
        bindings.iter().filter(|binding| binding.vport == no).map(Row::put::<MeterBindings>).collect()
    }

    fn set_aside<'a>(&self, service: &'a Service, no: u16) -> PutBack<'a> {
        let bindings = service.dataplane.meter_bindings();
        Box::new(move |deleted| {
            // Deleting the port has removed them.
            let mut bindings = bindings.iter().filter(|binding| deleted && binding.vport == no);
            bindings.try_for_each(|binding| service.dataplane.bind_meter(binding).map(drop))
        })
    }
}

impl Service {
    pub(super) fn meter_row(&self, id: u32) -> Result<Row, switch::Error> {
        let MeterInfo { spec, implicit, .. } = self.dataplane.meter(id)?;
        Ok(Row::put::<Meters>(&MeterRecord { spec, implicit }))
    }

    /// Adds a meter.
    pub fn add_meter(&self, spec: MeterSpec) -> Result<MeterInfo, Error> {
        let _inner = self.lock();
        let id = spec.id;
        self.dataplane.add_meter(spec, true)?;
        self.keep(&[self.meter_row(id)?], || self.dataplane.del_meter(id))?;
        Ok(self.dataplane.meter(id)?)
    }

    /// Deletes a meter that neither a port nor a rule uses.
    pub fn del_meter(&self, id: u32) -> Result<(), Error> {
        let _inner = self.lock();
        let MeterInfo { spec, implicit, .. } = self.dataplane.meter(id)?;
        self.dataplane.del_meter(id)?;
        self.keep(&[Row::remove::<Meters>(&meter_key(id))], || self.dataplane.add_meter(spec, implicit))
    }

    /// Changes a meter while frames pass it.
    pub fn update_meter(&self, id: u32, update: &MeterUpdate) -> Result<MeterInfo, Error> {
        let _inner = self.lock();
        let before = self.dataplane.update_meter(id, update)?;
        self.keep(&[self.meter_row(id)?], || self.dataplane.configure_meter(before))?;
        Ok(self.dataplane.meter(id)?)
    }

    /// One meter.
    pub fn meter(&self, id: u32) -> Result<MeterInfo, Error> {
        Ok(self.dataplane.meter(id)?)
    }

    /// Meters, ordered by number.
    pub fn meters(&self, page: Page) -> Vec<MeterInfo> {
        self.dataplane.meters(page.from, page.count())
    }

    /// Explicit bindings of meters to ports.
    pub fn meter_bindings(&self) -> Vec<MeterBinding> {
        self.dataplane.meter_bindings()
    }

    /// Binds a meter to a direction of a port. Replaces the binding that is there.
    pub fn bind_meter(&self, binding: &MeterBinding) -> Result<(), Error> {
        let _inner = self.lock();
        let MeterBinding { vport, direction, meter } = *binding;
        let implicit = self.dataplane.meter(meter)?.implicit;
        let before = self.dataplane.bind_meter(binding)?;
        self.keep(&[Row::put::<MeterBindings>(binding), self.meter_row(meter)?], || {
            match before {
                Some(meter) => drop(self.dataplane.bind_meter(&MeterBinding { meter, ..*binding })?),
                None => drop(self.dataplane.unbind_meter(vport, direction)?),
            }
            self.dataplane.set_meter_implicit(meter, implicit);
            Ok(())
        })
    }

    /// Removes a binding. If `meter` is given, it must be the meter that is bound.
    pub fn unbind_meter(&self, vport: u16, direction: MeterDirection, meter: Option<u32>) -> Result<(), Error> {
        let _inner = self.lock();
        if let Some(meter) = meter {
            self.dataplane.meter(meter)?;
            let binding = MeterBinding { vport, direction, meter };
            if !self.dataplane.meter_bindings().contains(&binding) {
                return Err(Error::not_found(format!("id: meter {meter} is not bound to vport {vport} that way")));
            }
        }
        let meter = self.dataplane.unbind_meter(vport, direction)?;
        let binding = MeterBinding { vport, direction, meter };
        self.keep(&[no_binding(vport, direction)], || self.dataplane.bind_meter(&binding).map(drop))
    }
}

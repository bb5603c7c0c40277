//! What control has beside its lock, the same from start to end: settings, host, packet memory, workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::changes::Changes;
use super::gate::FrameGate;
use super::workers::Workers;
use crate::host::Host;
use crate::io::umem::{FrameCache, Umem};
use crate::model::{DataplaneSettings, FlowOffload, HugePages};
use crate::offload::{Offload, OffloadThread};
use crate::worker::shared::Shared;
use crate::worker::view::View;
use crate::{Error, ErrorKind};

/// Everything of a switch that is not behind the lock. Any thread may use it.
#[derive(Debug)]
pub(super) struct Core {
    pub settings: DataplaneSettings,
    pub host: Arc<dyn Host>,
    pub shared: Arc<Shared>,
    pub gate: Arc<FrameGate>,
    pub workers: Workers,
    pub changes: Changes,
    /// Why there is no flow table, if one was asked for.
    pub no_offload: Option<String>,
    _offload: Option<OffloadThread>,
}

impl Core {
    /// Makes UMEM and starts the workers, which go by `view`.
    pub fn start(settings: &DataplaneSettings, host: Arc<dyn Host>, view: View) -> Result<Self, Error> {
        let umem = Umem::new(settings.frames, settings.frame_size, settings.huge_pages)
            .map_err(|errno| umem_error(settings, errno))?;
        let shared = Shared::new(Arc::clone(&umem), view, settings.workers)
            .map_err(|errno| Error::new(ErrorKind::System, format!("making an eventfd: {errno}")))?;
        let (offload, no_offload) = start_offload(settings, &*host, &shared)?;
        let workers = Workers::start(settings, &shared)?;
        let gate = Arc::new(FrameGate::new(FrameCache::new(umem)));
        let (settings, changes) = (settings.clone(), Changes::default());
        Ok(Self { settings, host, shared, gate, workers, changes, no_offload, _offload: offload })
    }

    /// The flow table in XDP, if there is one.
    pub fn offload(&self) -> Option<&Arc<Offload>> {
        self.shared.offload.get()
    }

    /// Counts what the kernel has done by the flow table up to now, so that counters are those of this moment.
    pub fn settle_flows(&self) {
        if let Some(offload) = self.offload() {
            offload.settle();
        }
    }

    /// Packet memory.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.shared.umem
    }

    /// An empty frame cache.
    pub fn frame_cache(&self) -> FrameCache {
        FrameCache::new(Arc::clone(self.umem()))
    }

    /// Seconds since the start.
    pub fn now(&self) -> u32 {
        self.shared.now.load(Ordering::Relaxed)
    }

    /// Gives the frames of a cache that ends back to the pool. What is less than a slab goes to the gate's cache.
    pub fn recycle(&self, mut cache: FrameCache) {
        cache.spill_all();
        let mut rest = self.gate.pass();
        while let Some(frame) = (!cache.is_empty()).then(|| cache.take()).flatten() {
            rest.put(frame);
        }
    }
}

/// Makes the flow table, if one is asked for, and starts the thread that looks after it. What can't be is told.
fn start_offload(
    settings: &DataplaneSettings,
    host: &dyn Host,
    shared: &Arc<Shared>,
) -> Result<(Option<OffloadThread>, Option<String>), Error> {
    if settings.flow_offload == FlowOffload::Off {
        return Ok((None, None));
    }
    let table = match host.make_flow_table(settings.flow_slots) {
        Ok(table) => table,
        Err(error) => {
            tracing::warn!(%error, "flows stay with the switch");
            return Ok((None, Some(error.to_string())));
        }
    };
    let offload = Arc::new(Offload::new(table, settings.workers));
    offload.begin_epoch(&shared.view.load());
    let thread = OffloadThread::start(&offload, shared)
        .map_err(|error| Error::new(ErrorKind::System, format!("starting the flow table's thread: {error}")))?;
    let _ = shared.offload.set(offload);
    Ok((Some(thread), None))
}

fn umem_error(settings: &DataplaneSettings, errno: Errno) -> Error {
    let bytes = u64::from(settings.frames) * u64::from(settings.frame_size);
    let advice = match settings.huge_pages {
        HugePages::On => {
            format!(": {} free 2 MiB huge pages are needed (sysctl vm.nr_hugepages)", bytes.div_ceil(2 << 20))
        }
        _ => ": lower `frames` in [dataplane]".to_owned(),
    };
    Error::new(ErrorKind::System, format!("UMEM of {} MiB can't be had ({errno}){advice}", bytes >> 20))
}

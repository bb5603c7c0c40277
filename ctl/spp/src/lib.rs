//! The Soft Patch Panel's (SPP's) view of the switch: instances with components and patches, as spp-ctl knows them.
//! SPP calls an instance a process.
//!
//! There is one [`Spp`]. The REST API, the agent of an outside spp-ctl and the command line all call it.
//!
//! A change edits a copy of one instance. The copy is checked against the other instances, and all are compiled into
//! one set of components. The set goes to the data plane, the instance to the state file, and only then is the change
//! acknowledged. If a step fails, nothing has changed. In flush mode a change edits the held setup instead.
//!
//! Any thread may call. Calls block: one mutex is held while the data plane and the state file change. Async callers
//! use `spawn_blocking`.
//!
//! The crate depends on the service. `ctl-spp-rest`, `ctl-spp-agent` and the routes of the switch's API depend on it.
#![forbid(unsafe_code)]

mod admit;
mod apply;
pub mod change;
mod cleared;
pub mod compile;
mod config;
pub mod doctor;
pub mod error;
pub mod flow;
mod flow_rules;
pub mod launch;
mod primary;
pub mod rows;
pub mod run;
pub mod shell;
mod state;
pub mod status;
mod trace;
pub mod vhost;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ctl_service::Service;
use ctl_service::state::Row;
pub use ctl_spp_types::*;
use switch::model::*;
use switch::outside::check_directory;
use tokio::sync::watch;

pub use self::admit::MIN_CAPTURE_LIMIT;
pub(crate) use self::admit::check_launch;
pub use self::change::Change;
use self::cleared::Cleared;
use self::compile::{Broken, Plan};
pub use self::config::{ControllerConfig, ProcessConfig, SppConfig, StatusFormat, VhostConfig};
pub use self::error::SppError;
use self::flow::NumberedRule;
use self::launch::Launch;
pub use self::primary::{PortCounters, PrimaryStatus};
use self::rows::{FlowRules, Instances};

/// The state behind the lock.
#[derive(Debug, Default)]
struct Inner {
    instances: BTreeMap<Proc, Instance>,
    /// When each capture began, as in its file names: `YYYYMMDDhhmmss`, UTC.
    started: BTreeMap<Proc, String>,
    /// Flow rules, by the number of their `phy` port.
    flow_rules: BTreeMap<u32, Vec<NumberedRule>>,
    /// What the data plane has at present.
    applied: Plan,
    /// Outside ends that the instances ask for, by number.
    asked: BTreeMap<u32, OutsideSpec>,
    /// Ports for `vhost:N` that the instances ask for, by number, with their queue pairs.
    asked_vhosts: BTreeMap<u32, u32>,
    broken: Broken,
    /// Counters of ports and rings at the last clear.
    cleared: Cleared,
}

/// All instances, and the one place that changes them.
#[derive(Debug)]
pub struct Spp {
    service: Arc<Service>,
    config: SppConfig,
    /// Number of workers, at least 1.
    workers: usize,
    inner: Mutex<Inner>,
    /// Names of the instances. The agents watch it.
    names: watch::Sender<BTreeSet<Proc>>,
    /// Each instance's connection to an outside spp-ctl: `None` if it is connected, else the reason why not.
    links: Mutex<BTreeMap<Proc, Option<String>>>,
}

impl Spp {
    /// Starts the instances of the state file and of the configuration, as far as they can work.
    ///
    /// An instance in both keeps its setup from the state file. The configuration decides its cores and its capture.
    pub fn start(service: Arc<Service>, config: &SppConfig) -> Arc<Self> {
        let workers = service.dataplane().workers().len().max(1);
        let instances =
            service.take_rows::<Instances>().into_iter().map(|instance| (instance.proc, instance)).collect();
        let flow_rules = service.take_rows::<FlowRules>().into_iter().map(|port| (port.port, port.rules)).collect();
        let mut inner = Inner { instances, flow_rules, ..Inner::default() };
        for declared in config.instances() {
            // The setup from run time stays. An instance with this number and another type is an old one: the
            // configuration has given its number away.
            inner.instances.retain(|proc, _| proc.id != declared.proc.id || proc.kind == declared.proc.kind);
            match inner.instances.get_mut(&declared.proc) {
                Some(kept) => {
                    kept.cores = declared.cores;
                    kept.capture = declared.capture;
                }
                None => {
                    inner.instances.insert(declared.proc, declared);
                }
            }
        }
        inner.instances.entry(Proc::PRIMARY).or_insert_with(|| Instance::new(Proc::PRIMARY, vec![], None));
        for (proc, _) in inner.instances.iter().filter(|(proc, i)| proc.kind == ProcType::Pcap && i.running.running) {
            inner.started.insert(*proc, now_text());
        }
        let names = watch::Sender::new(inner.instances.keys().copied().collect());
        for clash in doctor::clashes(&inner.instances) {
            tracing::warn!("{clash}: end the instance, or give it other cores in the configuration");
        }
        let (config, inner, links) = (config.clone(), Mutex::new(inner), Mutex::default());
        let spp = Arc::new(Self { service, config, workers, inner, names, links });
        spp.drop_stale_vhosts();
        spp.retry();
        spp
    }

    /// Takes the lock, also after a panic of another thread that had it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of the instances: the primary first, then by type and number. The primary may have been ended.
    pub fn processes(&self) -> Vec<Proc> {
        self.lock().instances.keys().copied().collect()
    }

    /// All instances.
    pub fn instances(&self) -> Vec<Instance> {
        self.lock().instances.values().cloned().collect()
    }

    /// One instance.
    ///
    /// # Errors
    /// `NotFound`: there is no such instance.
    pub fn instance(&self, proc: Proc) -> Result<Instance, SppError> {
        self.lock().instances.get(&proc).cloned().ok_or_else(|| missing(proc))
    }

    /// The names of the instances, to watch as instances come and go.
    pub fn watch(&self) -> watch::Receiver<BTreeSet<Proc>> {
        self.names.subscribe()
    }

    /// Tells the watchers of names if instances have come or gone.
    fn publish(&self, inner: &Inner) {
        self.names.send_if_modified(|names| {
            let same = names.iter().eq(inner.instances.keys());
            if !same {
                *names = inner.instances.keys().copied().collect();
            }
            !same
        });
    }

    /// SPP names of the switch's ports. Components can have these.
    pub fn port_names(&self) -> Vec<PortId> {
        self.ports().into_keys().collect()
    }

    /// Directory of captures that don't name one.
    pub fn directory(&self) -> &Path {
        &self.config.directory
    }

    /// Files that a capture has written since it began. The last one is being written.
    pub fn capture_files(&self, proc: Proc) -> Vec<PathBuf> {
        let no = capture_end(proc.id);
        let outside = self.service.dataplane().outside().into_iter().find(|outside| outside.no == no);
        outside.map_or_else(Vec::new, |outside| outside.files)
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// `Refused`: the number or a core is taken, or something does not fit.
    pub fn launch(&self, instance: Instance) -> Result<(), SppError> {
        let mut inner = self.lock();
        if instance.proc.kind != ProcType::Primary && !inner.instances.contains_key(&Proc::PRIMARY) {
            return Err(missing(Proc::PRIMARY));
        }
        check_launch(&inner.instances, &instance)?;
        if let Some(capture) = &instance.capture {
            let root = capture.confined.then(|| compile::capture_root(capture, &self.config));
            check_directory(&capture.directory, root.as_deref())
                .map_err(|error| self.bad_directory(capture, &error))?;
        }
        self.put(&mut inner, instance)
    }

    /// Makes an instance for a client without authentication: REST, or an outside spp-ctl. Its capture is confined to
    /// the directories that the configuration names, and below them.
    ///
    /// # Errors
    /// As [`Spp::launch`].
    pub fn launch_confined(&self, launch: &Launch) -> Result<(), SppError> {
        let mut instance = self.instance_of(launch);
        if let Some(capture) = &mut instance.capture {
            capture.confined = true;
        }
        self.launch(instance)
    }

    /// The instance that a launch asks for. A primary without lcores of its own has those of the configuration.
    fn instance_of(&self, launch: &Launch) -> Instance {
        let mut instance = launch.instance(&self.config.directory);
        if instance.proc == Proc::PRIMARY && instance.cores.is_empty() {
            let configured = self.config.instances().into_iter().find(|configured| configured.proc == Proc::PRIMARY);
            instance.cores = configured.map_or_else(Vec::new, |configured| configured.cores);
        }
        instance
    }

    fn bad_directory(&self, capture: &CaptureOptions, error: &switch::Error) -> SppError {
        if capture.confined && error.kind() == switch::ErrorKind::Denied {
            let roots: Vec<_> = self.config.capture_roots().map(|root| root.display().to_string()).collect();
            return SppError::refused(format!(
                "--out-dir: {} is not below {}; capture_directories in [spp] of the configuration allows others",
                capture.directory.display(),
                roots.join(", ")
            ));
        }
        SppError::refused(format!("--out-dir: {error}"))
    }

    /// Ends an instance. Its components and patches go, and its ports are free. The primary's flow rules go with it.
    ///
    /// # Errors
    /// `NotFound`; `Refused`: another instance uses a pipe of the primary; `System`: the state file can't be written.
    pub fn end(&self, proc: Proc) -> Result<(), SppError> {
        let mut inner = self.lock();
        let Some(gone) = inner.instances.remove(&proc) else { return Err(missing(proc)) };
        if proc == Proc::PRIMARY
            && let Some(user) = inner.instances.values().find(|other| uses_pipes(other, &gone))
        {
            let why = format!("{} has a pipe of the primary: end it first", user.proc);
            inner.instances.insert(proc, gone);
            return Err(SppError::refused(why));
        }
        let mut rows = vec![rows::no_instance(proc)];
        let mut rules = BTreeMap::new();
        if proc == Proc::PRIMARY {
            rules = std::mem::take(&mut inner.flow_rules);
            rows.push(Row::clear::<FlowRules>());
        }
        let result = self
            .apply(&mut inner)
            .and_then(|()| self.apply_flow_rules(&inner))
            .and_then(|()| Ok(self.service.keep_rows(&rows)?));
        match result {
            Ok(()) => self.publish(&inner),
            Err(_) => {
                inner.instances.insert(proc, gone);
                inner.flow_rules.append(&mut rules);
                self.back(&mut inner);
            }
        }
        result
    }

    /// Changes what an instance does, at once or, in flush mode, from the next flush on.
    ///
    /// # Errors
    /// `NotFound`: no such instance; `Refused` or `System` with the reason.
    pub fn change(&self, proc: Proc, change: &Change) -> Result<(), SppError> {
        let mut inner = self.lock();
        let old = inner.instances.get(&proc).ok_or_else(|| missing(proc))?;
        let mut new = old.clone();
        let mut setup = old.next().clone();
        change.make(old, &mut setup)?;
        if let Change::AddPort { port, .. } = change {
            self.check_count(*port, &setup)?;
        }
        // Forwarding starts and stops at once, even in flush mode. Held changes get the new state too, so that a
        // flush does not undo it.
        let at_once = matches!(change, Change::Run(_));
        if !new.flush_mode || (at_once && new.staged.is_none()) {
            new.running = setup;
        } else {
            if let Change::Run(run) = change {
                new.running.running = *run;
            }
            new.staged = Some(setup).filter(|setup| *setup != new.running);
        }
        if matches!(change, Change::Run(true)) && proc.kind == ProcType::Pcap && !old.running.running {
            inner.started.insert(proc, now_text());
        }
        self.put(&mut inner, new)
    }

    /// Checks that an instance may have one more port: NICs and added ports together, as SPP counts them.
    fn check_count(&self, port: PortId, setup: &Setup) -> Result<(), SppError> {
        let nics = self.port_names().iter().filter(|port| port.kind == PortType::Phy).count();
        let added = setup.ports.iter().filter(|port| port.kind != PortType::Phy).count();
        let most = self.config.max_ports;
        if port.kind != PortType::Phy && nics + added > most as usize {
            let why =
                format!("{port}: there are {most} ports, NICs included, and can't be more: see max_ports in [spp]");
            return Err(SppError::refused(why));
        }
        Ok(())
    }

    /// Turns flush mode on or off. Off is refused while changes are held.
    ///
    /// # Errors
    /// `NotFound`, `Refused`.
    pub fn set_flush_mode(&self, proc: Proc, on: bool) -> Result<(), SppError> {
        self.edit(proc, |instance| {
            if !on && instance.staged.is_some() {
                return Err(SppError::refused("changes are held: flush or discard them first"));
            }
            instance.flush_mode = on;
            Ok(())
        })
    }

    /// Puts all held changes of an instance into force together. No frame sees half of them.
    ///
    /// # Errors
    /// `NotFound`; `Refused` or `System`: the changes are still held.
    pub fn flush(&self, proc: Proc) -> Result<(), SppError> {
        self.edit(proc, |instance| {
            if let Some(staged) = instance.staged.take() {
                instance.running = staged;
            }
            Ok(())
        })
    }

    /// Discards all held changes of an instance.
    ///
    /// # Errors
    /// `NotFound`; `System`: the state file can't be written.
    pub fn discard(&self, proc: Proc) -> Result<(), SppError> {
        self.edit(proc, |instance| {
            instance.staged = None;
            Ok(())
        })
    }

    /// Replaces an instance by an edited copy.
    fn edit(&self, proc: Proc, edit: impl FnOnce(&mut Instance) -> Result<(), SppError>) -> Result<(), SppError> {
        let mut inner = self.lock();
        let mut instance = inner.instances.get(&proc).cloned().ok_or_else(|| missing(proc))?;
        edit(&mut instance)?;
        self.put(&mut inner, instance)
    }

    /// Checks an instance, puts it in the place of the one with its name, applies it, and writes it to the state file.
    /// If a step fails, the old one is put back.
    fn put(&self, inner: &mut Inner, instance: Instance) -> Result<(), SppError> {
        compile::check(&inner.instances, &instance, &self.given_ports())?;
        let proc = instance.proc;
        let row = Row::put::<Instances>(&instance);
        let old = inner.instances.insert(proc, instance);
        let result = self.apply(inner).and_then(|()| Ok(self.service.keep_rows(&[row])?));
        if result.is_ok() {
            self.publish(inner);
            return result;
        }
        match old {
            Some(old) => inner.instances.insert(proc, old),
            None => inner.instances.remove(&proc),
        };
        self.back(inner);
        result
    }

    /// Takes the data plane back to what the instances say, after a change that failed.
    fn back(&self, inner: &mut Inner) {
        if let Err(error) = self.apply(inner).and_then(|()| self.apply_flow_rules(inner)) {
            tracing::error!(%error, "a change that failed can't be undone either");
        }
    }

    /// The `[spp]` section of the configuration.
    pub fn config(&self) -> &SppConfig {
        &self.config
    }

    /// The switch's own names of its ports, by their SPP names.
    pub fn ports(&self) -> BTreeMap<PortId, String> {
        let named = |port: PortInfo| Some((port.spec.spp?.parse().ok()?, port.spec.name));
        self.service.dataplane().ports_in_brief().into_iter().filter_map(named).collect()
    }

    /// Rings, null ends and outside ends. Their counters start when the end was made, and a clear does not touch them.
    pub fn ends(&self) -> Vec<EndInfo> {
        self.service.dataplane().ends()
    }

    /// The running components with counters, and the outside ends with the files of captures. Ends that can't be made
    /// are listed too, with the reason.
    pub fn working(&self) -> (Vec<ComponentInfo>, Vec<OutsideInfo>) {
        let dataplane = self.service.dataplane();
        let mut outside = dataplane.outside();
        let inner = self.lock();
        let broken = inner.broken.outside.iter().filter_map(|(&no, error)| {
            let spec = inner.asked.get(&no)?.clone();
            Some(OutsideInfo { no, spec, files: Vec::new(), error: Some(error.clone()) })
        });
        outside.extend(broken);
        outside.sort_by_key(|outside| outside.no);
        (dataplane.components(), outside)
    }

    /// Names of an instance's components that move frames, without the instance's own name.
    pub fn working_of(&self, proc: Proc) -> BTreeSet<String> {
        let prefix = format!("{proc}/");
        let components = self.service.dataplane().components().into_iter();
        components.filter_map(|one| Some(one.name.strip_prefix(&prefix).filter(|_| one.ready)?.to_owned())).collect()
    }
}

/// The time as file names have it: `YYYYMMDDhhmmss`, UTC.
fn now_text() -> String {
    let text = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    text.chars().filter(char::is_ascii_digit).collect()
}

/// Whether an instance has a pipe of the primary, in its running or its held setup.
fn uses_pipes(instance: &Instance, primary: &Instance) -> bool {
    let pipe = |port: &PortId| primary.next().pipes.iter().any(|pipe| pipe.port == *port);
    let setups = [Some(&instance.running), instance.staged.as_ref()];
    setups.into_iter().flatten().any(|setup| {
        let attached = setup.components.iter().flat_map(|component| component.rx.iter().chain(&component.tx));
        setup.ports.iter().chain(attached.map(|attached| &attached.port)).any(pipe)
    })
}

/// That there is no such instance, in spp-ctl's words.
fn missing(proc: Proc) -> SppError {
    SppError::NotFound(match proc.kind {
        ProcType::Primary => "primary not found.".to_owned(),
        _ => format!("sec_id {} not found.", proc.id),
    })
}

//! `xswitchd` as a whole: locks, configuration, data plane, service, sockets, and signals.
//!
//! At the start, everything that can be refused is checked before a port is touched, and the API socket is opened last.
//! At the stop, the servers end first. Dropping the service then detaches the ports. Calls that may block run on
//! tokio's blocking threads.
//!
//! All crates of `ctl/` but the command line meet here, and none depends on this one. Sections of the configuration and
//! kinds of rows in the state file belong to their crates. [`config`] and [`run`] put them together. The control side
//! has few threads, because the cores are for the workers.
#![forbid(unsafe_code)]

pub mod config;
mod keeper;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ctl_companion::FdsSocket;
use ctl_disks::DiskSettings;
use ctl_listen::{ApiSocket, serve, serve_tcp};
use ctl_service::state::{Store, Tables};
use ctl_service::{Declared, Error, LearnedFile, Service};
use ctl_spp::{Spp, SppConfig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use switch::{PinPlace, Places, Switch};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::config::{Config, ConfigError};
use self::keeper::{Directory, Keeper};

/// Period of retrying ports that could not be brought up.
const RETRY: Duration = Duration::from_secs(5);

/// Longest name of a file or directory, in bytes (`NAME_MAX`).
const MAX_NAME: usize = 255;
/// Period of saving learned addresses for the next daemon.
const KEEP_LEARNED: Duration = Duration::from_secs(1);

/// Directories and files of the daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// Configuration file, if one is named.
    pub config: Option<PathBuf>,
    /// Directory of its sockets.
    pub run_dir: PathBuf,
    /// Directory of its state file.
    pub state_dir: PathBuf,
}

/// Raises the limit of open files to the hard limit. A port needs half a dozen, and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// All kinds of rows that the state file may have.
fn tables() -> Tables {
    ctl_service::tables().and(ctl_spp::rows::tables())
}

/// Checks that configuration and state are usable. Changes nothing.
pub fn check(options: &Options) -> anyhow::Result<()> {
    let config = load(options.config.as_deref())?;
    check_disks(options.config.as_deref(), &config, &disk_settings(&config, options))?;
    Ok(Store::check(&options.state_dir, &tables())?)
}

/// Checks that a configuration file is usable. Looks at nothing else.
pub fn check_config(file: Option<&Path>) -> anyhow::Result<()> {
    let config = load(file)?;
    let mut disks = config.disks.settings(Path::new("/run/xswitch"), Path::new("/var/lib/xswitch"));
    if config.disks.directories.is_none() {
        // Which daemon it is for is not known, so images may be anywhere.
        disks.directories = vec![PathBuf::from("/")];
    }
    Ok(check_disks(file, &config, &disks)?)
}

/// Checks declared disks against the places where disks may be.
fn check_disks(file: Option<&Path>, config: &Config, settings: &DiskSettings) -> Result<(), ConfigError> {
    let checked = ctl_service::check_disks(settings, &config.disk);
    checked.map_err(|error| ConfigError { path: Config::path(file), why: error.to_string() })
}

fn disk_settings(config: &Config, options: &Options) -> DiskSettings {
    config.disks.settings(&options.run_dir, &options.state_dir)
}

/// Reads a configuration file, and checks what does not depend on the machine.
fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let config = Config::load(file)?;
    let checked = ctl_service::check_config(&config.dataplane, &config.switch_config());
    checked.map_err(|error| ConfigError { path: Config::path(file), why: error.to_string() })?;
    Ok(config)
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // A file that would become longer than its limit (RLIMIT_FSIZE) is an error, and not the end.
    let _too_long = signal(SignalKind::from_raw(libc::SIGXFSZ))?;
    let config = load(options.config.as_deref())?;
    let disks = disk_settings(&config, &options);
    check_disks(options.config.as_deref(), &config, &disks)?;
    raise_descriptor_limit();
    let directories = vec![
        Directory::take("run_directory", &options.run_dir)?,
        Directory::take("state_directory", &options.state_dir)?,
    ];
    let store = Store::open(&options.state_dir, tables())?;
    let mut signals = Signals::new()?;

    let settings = config.dataplane.clone();
    let bridge = config.bridge.clone().unwrap_or_default();
    let path = Config::path(options.config.as_deref());
    let declared = Declared { file: path.canonicalize().ok(), config: config.switch_config(), disks };
    let panel = config.spp.clone();
    let access = config.guests.access().map_err(Error::invalid)?;
    let pins = PinPlace { mount: config.guests.bpffs.clone(), instance: instance(&options.run_dir)? };
    let rings = options.run_dir.join("rings");
    let places = Places { pins: Some(pins), journals: Some(rings.clone()) };
    let guests = options.run_dir.join("guests");
    let learned = Arc::new(LearnedFile::at(&options.run_dir.join("fdb.json")));
    let kept = Arc::clone(&learned);
    // Everything that can be refused is checked before a port is touched.
    let listener = bind("metrics.listen", &config.metrics.listen).await?;
    let spp_listener = bind("spp.listen", &config.spp.listen).await?;
    make_directory(&config.spp);
    let (service, spp) = blocking(move || {
        let dataplane = Switch::start(&settings, bridge, places)?;
        let service = Service::start(Arc::new(dataplane), store, &declared)?;
        service.restore_learned(&kept);
        service.look_after_guests(&guests)?;
        let spp = Spp::start(Arc::clone(&service), &panel);
        Ok((service, spp))
    })
    .await?;

    let mode = config.api.mode().map_err(Error::invalid)?;
    let keeper = Keeper::start(&service, directories, rings)?;
    let bind = |name, file, mode| -> Result<ApiSocket, Error> {
        Ok(ApiSocket::bind(&options.run_dir.join(file), mode)?.noted(name, service.upkeep()))
    };
    let socket = bind("api_socket", "api.sock", mode)?;
    let dpu = bind("dpu_socket", "dpu.sock", config.dpu.mode().map_err(Error::invalid)?)?;
    let (stop, stopped) = watch::channel(false);
    let dpu = ctl_grpc::serve_unix(dpu, &service, stopped.clone())?;
    let dpu_tcp = ctl_grpc::serve_tcp(&config.dpu, &service, stopped.clone()).await?;
    let controller = config.spp.controller.as_ref();
    let agents = controller.map(|controller| ctl_spp_agent::serve(Arc::clone(&spp), controller, stopped.clone()));
    let fds = ctl_companion::serve(FdsSocket::bind(&options.run_dir, &access)?, &service, access, stopped.clone());
    let rest =
        spp_listener.map(|listener| tokio::spawn(ctl_spp_rest::serve(listener, Arc::clone(&spp), stopped.clone())));
    let scrape = listener
        .map(|listener| tokio::spawn(serve_tcp(listener, ctl_metrics::router(Arc::clone(&service)), stopped.clone())));
    // The API comes last: once it answers, all other sockets work.
    let api = tokio::spawn(serve(socket, ctl_http::router(Arc::clone(&service), Arc::clone(&spp)), stopped));
    notify_all(&[NotifyState::Ready, NotifyState::Status("running")]);
    tracing::info!(run_dir = %options.run_dir.display(), ports = service.ports_in_brief().len(), "ready");

    let follower = Follower::start(&service, &spp)?;
    serve_signals(&mut signals, &options, config, &service, &spp, &learned).await;
    blocking(move || {
        drop(follower);
        Ok(())
    })
    .await?;
    drop(spp);

    notify(NotifyState::Stopping);
    tracing::info!("stopping");
    let _ = stop.send(true);
    let _ = api.await;
    // A client that keeps its connection open must not delay the stop.
    for mut server in [Some(dpu), dpu_tcp, Some(fds), rest, scrape, agents].into_iter().flatten() {
        if tokio::time::timeout(Duration::from_secs(1), &mut server).await.is_err() {
            server.abort();
            let _ = server.await;
        }
    }
    // Dropping the last reference detaches the ports. A capture that is ending may hold one for a moment longer.
    blocking(move || {
        let _locks = keeper.end();
        service.keep_learned(&learned, true);
        drop(service);
        Ok(())
    })
    .await?;
    Ok(())
}

/// Name of this switch among all on the machine, derived from its run directory. Different directories have different
/// names. A name has no dot, because BPF file systems forbid it.
fn instance(run_dir: &Path) -> Result<String, Error> {
    let path = run_dir.canonicalize().map_err(|error| Error::io(format!("looking at {}", run_dir.display()), error))?;
    let escape = |&byte: &u8| match byte {
        b'/' => "_".to_owned(),
        byte if byte.is_ascii_alphanumeric() || byte == b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02x}"),
    };
    let name: String = path.as_os_str().as_encoded_bytes().iter().skip(1).map(escape).collect();
    if name.len() > MAX_NAME {
        let why = format!("--run-dir: {} is too long to name what is pinned after it", path.display());
        return Err(Error::invalid(why));
    }
    Ok(name)
}

/// Listens at the address of a configuration key. None if the address is empty.
async fn bind(key: &str, address: &str) -> Result<Option<TcpListener>, Error> {
    if address.is_empty() {
        return Ok(None);
    }
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => " (name another address in the configuration, or \"\" for none)",
            _ => "",
        };
        Error::io(format!("{key}: listening on {address}{advice}"), error)
    })
}

/// Creates the directory of `pcap` ports. Without it everything else works, and such ports are refused.
fn make_directory(spp: &SppConfig) {
    let directory = &spp.directory;
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory) {
        tracing::warn!(directory = %directory.display(), %error, "spp.directory can't be made: pcap ports will be refused");
    }
}

/// The thread that has ports follow what happens on the machine. It ends when this is dropped.
struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Follower {
    /// How long it takes at most to end.
    const WAIT: Duration = Duration::from_millis(200);
    /// Pause after a change. A guest that makes and deletes netdevs all the time must not keep the service busy.
    const PAUSE: Duration = Duration::from_millis(50);

    fn start(service: &Arc<Service>, spp: &Arc<Spp>) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (service, spp, ends) = (Arc::clone(service), Arc::clone(spp), Arc::clone(&stop));
        let follow = move || {
            while !ends.load(Ordering::Acquire) {
                if service.follow(Self::WAIT) {
                    spp.retry();
                    std::thread::sleep(Self::PAUSE);
                }
            }
        };
        let thread = std::thread::Builder::new().name("xs-follow".to_owned()).spawn(follow);
        let thread = thread.map_err(|error| Error::io("starting the thread that follows netdevs", error))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(|error| Error::io("waiting for signals", error));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }
}

/// Serves signals and timers until the daemon has to stop.
async fn serve_signals(
    signals: &mut Signals,
    options: &Options,
    mut config: Config,
    service: &Arc<Service>,
    spp: &Arc<Spp>,
    learned: &Arc<LearnedFile>,
) {
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut keep = tokio::time::interval(KEEP_LEARNED);
    keep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let watchdog = watchdog_period();
    let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => {
                // `Type=notify-reload` requires a timestamp, which tells this reload from an earlier one
                // (sd_notify(3)).
                notify_all(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading)]);
                reload(options, &mut config, service).await;
                notify(NotifyState::Ready);
            }
            _ = retry.tick() => {
                let (service, spp) = (Arc::clone(service), Arc::clone(spp));
                let _ = blocking(move || {
                    service.retry();
                    service.disks().retry();
                    spp.retry();
                    Ok(())
                }).await;
            }
            _ = keep.tick() => {
                let (service, learned) = (Arc::clone(service), Arc::clone(learned));
                let _ = blocking(move || {
                    service.keep_learned(&learned, false);
                    Ok(())
                }).await;
            }
            _ = alive.tick(), if watchdog.is_some() => notify(NotifyState::Watchdog),
        }
    }
}

/// Half of systemd's watchdog period, if it has one.
fn watchdog_period() -> Option<Duration> {
    let micros = std::env::var("WATCHDOG_USEC").ok()?.parse::<u64>().ok()?;
    Some(Duration::from_micros(micros / 2)).filter(|period| !period.is_zero())
}

/// Applies what may change at run time, and warns about the rest.
async fn reload(options: &Options, config: &mut Config, service: &Arc<Service>) {
    let new = match load(options.config.as_deref()) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "the configuration stays as it was");
            return;
        }
    };
    if new.dataplane != config.dataplane
        || new.metrics != config.metrics
        || new.api != config.api
        || new.dpu != config.dpu
        || new.guests != config.guests
        || new.spp != config.spp
        || new.disks != config.disks
    {
        tracing::warn!(
            "[dataplane], [metrics], [api], [dpu], [guests], [spp] and [disks] are taken up by a restart only"
        );
    }
    let (service, declared) = (Arc::clone(service), new.switch_config());
    let result = blocking(move || {
        service.retry();
        service.reload_config(&declared)
    })
    .await;
    match result {
        Ok(done) => tracing::info!(changes = done.changes.len(), "the configuration was read again"),
        Err(error) => {
            tracing::error!(%error, "the configuration can't be applied in full: ports and tables stay as they were")
        }
    }
    *config = new;
}

fn notify(state: NotifyState<'_>) {
    notify_all(&[state]);
}

fn notify_all(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "telling the service manager");
    }
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(call)
        .await
        .unwrap_or_else(|error| Err(Error::io("a task ended early", std::io::Error::other(error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_run_directories_have_two_names_without_dots() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a_b", "a.b", "a%2eb", "a/b"].map(|name| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            instance(&path).unwrap()
        });
        assert!(names.iter().all(|name| !name.contains(['.', '/'])), "{names:?}");
        assert!((0..4).all(|n| !names[n + 1..].contains(&names[n])), "{names:?}");
    }

    #[test]
    fn a_check_looks_at_ports_and_makes_neither_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("xswitch.toml");
        let [run_dir, state_dir] = ["run", "state"].map(|name| dir.path().join(name));
        let options = Options { config: Some(config.clone()), run_dir: run_dir.clone(), state_dir: state_dir.clone() };
        let port = |name: &str| format!("[[port]]\nname = \"{name}\"\nkind = \"guest\"\nspp = \"vhost:0\"\n");
        for (text, why) in [
            (String::new(), None),
            (port("vm1"), None),
            (port("vm1") + &port("vm2"), Some("port `vm2`: spp: vhost:0 is port `vm1`")),
            (port("vm1").replace("vhost", "phy"), Some("port `vm1`: spp: `phy:0`")),
        ] {
            std::fs::write(&config, text).unwrap();
            let error = check(&options).err().map(|error| error.to_string());
            assert!(error.as_deref().unwrap_or_default().contains(why.unwrap_or_default()), "{error:?}");
            assert_eq!(error.is_some(), why.is_some(), "{error:?}");
        }
        assert!(!run_dir.exists() && !state_dir.exists());
    }
}

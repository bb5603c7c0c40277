//! Presents the instances to an outside spp-ctl as its processes. Each has its own connection and answers commands.
//!
//! One task watches which instances exist, and starts a task for each. An instance's task connects, answers, and
//! connects again when the connection is lost, until the instance is gone.
//!
//! spp-ctl sends a command without an end mark and waits for the answer. So one read gives one command, or several on
//! lines of their own. The answer goes out in one write: spp-ctl reads 4,096 bytes, and reads on only while they are
//! filled.
//!
//! The tasks run on the caller's tokio runtime. Only the daemon depends on this crate.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers of tests"))]
#![forbid(unsafe_code)]

mod connection;
mod json;
mod library;
pub mod reply;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ctl_spp::{ControllerConfig, Proc, ProcType, Spp, StatusFormat};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use self::reply::{Forms, IdForm};

/// Longest time for connecting, and for writing an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits between attempts to connect. They double from the first to the longest.
#[derive(Clone, Copy, Debug)]
struct Pace {
    first: Duration,
    most: Duration,
}

const PACE: Pace = Pace { first: Duration::from_secs(1), most: Duration::from_secs(10) };

/// Keeps every instance connected to spp-ctl until `stopped` is true.
pub fn serve(spp: Arc<Spp>, controller: &ControllerConfig, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(follow(spp, controller.clone(), PACE, stopped))
}

/// Keeps one task for each instance, and starts it again if it ended early.
async fn follow(spp: Arc<Spp>, controller: ControllerConfig, pace: Pace, mut stopped: watch::Receiver<bool>) {
    let mut names = spp.watch();
    let mut agents = JoinSet::new();
    let mut live: HashMap<tokio::task::Id, Proc> = HashMap::new();
    loop {
        let missing: Vec<Proc> = {
            let names = names.borrow_and_update();
            names.iter().filter(|proc| !live.values().any(|live| live == *proc)).copied().collect()
        };
        for proc in missing {
            let agent = Agent::new(Arc::clone(&spp), proc, &controller, pace, stopped.clone());
            live.insert(agents.spawn(agent.keep()).id(), proc);
        }
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            changed = names.changed() => if changed.is_err() { break },
            Some(ended) = agents.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "an agent of spp-ctl ended");
                        error.id()
                    }
                };
                live.remove(&id);
            }
        }
    }
    agents.shutdown().await;
}

/// Why a connection ended.
enum Over {
    /// The daemon stops, or the instance is gone.
    Done,
    /// spp-ctl is gone, or refused the connection. `asked`: it has asked more than the client id.
    Lost { asked: bool },
}

/// The task of one instance.
struct Agent {
    spp: Arc<Spp>,
    proc: Proc,
    address: SocketAddr,
    forms: Forms,
    pace: Pace,
    names: watch::Receiver<BTreeSet<Proc>>,
    stopped: watch::Receiver<bool>,
}

impl Agent {
    fn new(
        spp: Arc<Spp>,
        proc: Proc,
        controller: &ControllerConfig,
        pace: Pace,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let port = match proc.kind {
            ProcType::Primary => controller.primary_port,
            _ => controller.secondary_port,
        };
        let id = match controller.status_format {
            StatusFormat::Json => IdForm::Json,
            StatusFormat::JsonNumber | StatusFormat::Pairs | StatusFormat::Text => IdForm::Number,
        };
        let forms = Forms { status: controller.status_format, id };
        let names = spp.watch();
        Self { spp, proc, address: SocketAddr::new(controller.address, port), forms, pace, names, stopped }
    }

    /// Connects and answers until the instance is gone.
    ///
    /// The wait starts over after a connection that was in use, or that lasted longer than the longest wait. A spp-ctl
    /// that refuses at once is asked less and less often.
    async fn keep(mut self) {
        let (mut wait, mut connected) = (self.pace.first, None);
        loop {
            let began = Instant::now();
            let attempt = timeout(PATIENCE, TcpStream::connect(self.address));
            let attempt = tokio::select! {
                () = gone(&mut self.names, &mut self.stopped, self.proc) => return,
                attempt = attempt => attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            };
            let (proc, address) = (self.proc, self.address);
            self.spp.set_link(proc, attempt.as_ref().err().map(io::Error::to_string));
            match attempt {
                Ok(stream) => {
                    tracing::info!(%proc, %address, "connected to spp-ctl");
                    match self.answer(stream).await {
                        Over::Done => return,
                        Over::Lost { asked } => {
                            self.spp.set_link(proc, Some("the connection was lost".to_owned()));
                            tracing::warn!(%proc, %address, "the connection to spp-ctl is lost");
                            if asked || began.elapsed() > self.pace.most {
                                wait = self.pace.first;
                            }
                        }
                    }
                    connected = Some(false);
                }
                Err(error) if connected.is_none() => {
                    connected = Some(false);
                    tracing::warn!(%proc, %address, %error, "spp-ctl is not there; trying on");
                }
                Err(error) => tracing::debug!(%proc, %address, %error, "spp-ctl is not there"),
            }
            tokio::select! {
                () = gone(&mut self.names, &mut self.stopped, self.proc) => return,
                () = sleep(wait) => wait = (wait * 2).min(self.pace.most),
            }
        }
    }
}

/// Returns when the daemon stops or the instance is gone.
async fn gone(names: &mut watch::Receiver<BTreeSet<Proc>>, stopped: &mut watch::Receiver<bool>, proc: Proc) {
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => {}
        _ = names.wait_for(|names| !names.contains(&proc)) => {}
    }
}

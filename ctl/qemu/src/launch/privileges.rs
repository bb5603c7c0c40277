//! Restricts this process to what QEMU needs: network namespace, limit of locked memory, user, and no capabilities.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use ctl_stdio::complain;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setgid, setgroups, setuid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_no_new_privs,
};

use super::Nic;

/// Number of capabilities that a kernel may have: the sets are 64 bits wide.
const CAPABILITIES: u32 = 64;

/// How QEMU may lock its packet memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memlock {
    /// Its limit is high enough.
    Limit,
    /// It keeps CAP_IPC_LOCK and no other capability, because the limit can't be raised.
    Capability,
}

/// Raises the limit of locked memory to `needed` bytes, unless it is higher. Going beyond the hard limit takes
/// CAP_SYS_RESOURCE, which root lacks in some containers.
pub(super) fn raise_memlock(needed: u64) -> anyhow::Result<Memlock> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).context("reading RLIMIT_MEMLOCK")?;
    if soft >= needed {
        return Ok(Memlock::Limit);
    }
    match setrlimit(Resource::RLIMIT_MEMLOCK, needed, hard.max(needed)) {
        Ok(()) => Ok(Memlock::Limit),
        Err(Errno::EPERM) => {
            let held = capabilities(None).context("reading the capabilities")?;
            if held.permitted.contains(CapabilitySet::IPC_LOCK) {
                return Ok(Memlock::Capability);
            }
            bail!(
                "QEMU needs {} MiB of locked memory for its packets, and this user may have {} MiB: raise `memlock` in \
                 /etc/security/limits.conf, LimitMEMLOCK= of the service, or run as root with --user",
                needed >> 20,
                hard >> 20
            )
        }
        Err(errno) => Err(errno).context("raising RLIMIT_MEMLOCK"),
    }
}

/// Enters the network namespace of the ports, unless this process is in it already. One that does not matter is `None`.
pub(super) fn enter(namespaces: &[Option<OwnedFd>], nics: &[Nic]) -> anyhow::Result<()> {
    let identity = |file: std::fs::File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
    let here = std::fs::File::open("/proc/thread-self/ns/net").and_then(identity);
    let mut current = here.context("looking at the network namespace")?;
    let matters = |(namespace, nic)| Option::as_ref(namespace).map(|namespace| (namespace, Nic::offer(nic)));
    let mut first = None;
    for (namespace, offer) in namespaces.iter().zip(nics).filter_map(matters) {
        let first = *first.get_or_insert(&offer.port);
        let wanted = namespace.try_clone().and_then(|fd| identity(fd.into()));
        let wanted = wanted.context("looking at a port's network namespace")?;
        if wanted == current {
            continue;
        }
        if *first != offer.port {
            bail!("ports {first} and {} are in different network namespaces", offer.port);
        }
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            let name = offer.netns.as_deref().unwrap_or("of the daemon");
            anyhow::anyhow!(
                "port {} is in network namespace {name}, which can't be entered ({errno}): run as root with --user, or in that \
                 namespace",
                offer.port
            )
        })?;
        current = wanted;
    }
    Ok(())
}

/// The user that QEMU runs as.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) uid: Uid,
    gid: Gid,
    pub(super) groups: Vec<Gid>,
    pub(super) name: String,
    pub(super) home: PathBuf,
}

impl Account {
    /// Looks up a user by name or number.
    pub(super) fn find(user: &str) -> anyhow::Result<Self> {
        let found = match user.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(user),
        };
        let Some(found) = found.with_context(|| format!("looking up user {user}"))? else {
            bail!("--user: there is no user `{user}`");
        };
        if !geteuid().is_root() && found.uid != geteuid() {
            bail!("--user: only root can run QEMU as somebody else");
        }
        let name = std::ffi::CString::new(found.name.as_str()).context("a user's name")?;
        let groups = getgrouplist(&name, found.gid).with_context(|| format!("looking up the groups of {user}"))?;
        Ok(Self { uid: found.uid, gid: found.gid, groups, name: found.name, home: found.dir })
    }
}

/// Becomes the requested user and drops all capabilities except the one that `memlock` names. `no_new_privs` keeps
/// programs that QEMU executes from gaining any.
pub(super) fn drop_privileges(account: Option<&Account>, memlock: Memlock) -> anyhow::Result<()> {
    let kept = match memlock {
        Memlock::Limit => CapabilitySet::empty(),
        Memlock::Capability => CapabilitySet::IPC_LOCK,
    };
    set_no_new_privs(true).context("setting no_new_privs")?;
    clear_ambient_capability_set().context("clearing the ambient capabilities")?;
    if geteuid().is_root() {
        let all = (0..CAPABILITIES).map(|number| CapabilitySet::from_bits_retain(1 << number));
        for capability in all.filter(|capability| !kept.contains(*capability)) {
            match remove_capability_from_bounding_set(capability) {
                // The kernel does not know this capability.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                // Root without CAP_SETPCAP. Its own capabilities are cleared below.
                Err(rustix::io::Errno::PERM) => break,
                Err(errno) => return Err(errno).context("giving up a capability"),
            }
        }
        // With NO_ROOT a user that stays root regains nothing on `execve`. KEEP_CAPS lets another user keep `kept`.
        set_keep_capabilities(true).context("keeping capabilities over a change of user")?;
        let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
        match set_capabilities_secure_bits(bits | CapabilitiesSecureBits::KEEP_CAPS) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(errno) => return Err(errno).context("setting the secure bits"),
        }
        if let Some(Account { uid, gid, groups, .. }) = account {
            setgroups(groups).context("setting the groups")?;
            setgid(*gid).context("setting the group")?;
            setuid(*uid).context("setting the user")?;
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).context("giving up capabilities")?;
    if memlock == Memlock::Capability {
        complain(format_args!(
            "xswitch: RLIMIT_MEMLOCK can't be raised without CAP_SYS_RESOURCE: QEMU keeps CAP_IPC_LOCK, and no other capability"
        ));
        configure_capability_in_ambient_set(CapabilitySet::IPC_LOCK, true).context("keeping CAP_IPC_LOCK")?;
    }
    Ok(())
}

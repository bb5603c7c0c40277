//! Checks that the kernel has what xswitch needs.
#![allow(unsafe_code, reason = "calls of libbpf's C interface")]

use libbpf_rs::libbpf_sys;

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Ok,
    /// Works, but not as well as it could.
    Warn,
    /// Does not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the check looked at.
    pub name: String,
    /// Its result.
    pub status: Status,
    /// What it found.
    pub text: String,
    /// What to do. `None` if all is well.
    pub advice: Option<String>,
}

/// Checks whether the kernel accepts XDP programs and AF_XDP maps from this process.
pub fn check_kernel() -> Vec<Finding> {
    // SAFETY: no options. The probe loads a tiny program of this type and lets it go.
    let program = unsafe { libbpf_sys::libbpf_probe_bpf_prog_type(libbpf_sys::BPF_PROG_TYPE_XDP, std::ptr::null()) };
    // SAFETY: no options. The probe makes a tiny map of this type and lets it go.
    let map = unsafe { libbpf_sys::libbpf_probe_bpf_map_type(libbpf_sys::BPF_MAP_TYPE_XSKMAP, std::ptr::null()) };
    vec![
        finding(
            "XDP programs",
            program,
            "a kernel with CONFIG_BPF_SYSCALL, and CAP_BPF with CAP_NET_ADMIN, are needed",
        ),
        finding("XSKMAP (AF_XDP)", map, "a kernel with CONFIG_XDP_SOCKETS, and CAP_BPF with CAP_NET_ADMIN, are needed"),
    ]
}

/// Turns the result of a libbpf probe into a finding. 1: supported. 0: not. Negative: the probe failed.
fn finding(name: &str, probe: i32, advice: &str) -> Finding {
    let (status, text) = match probe {
        1 => (Status::Ok, "the kernel takes them".to_owned()),
        0 => (Status::Fail, "the kernel does not take them".to_owned()),
        errno => {
            (Status::Fail, format!("the kernel could not be asked: {}", nix::errno::Errno::from_raw(-errno).desc()))
        }
    };
    let advice = (status != Status::Ok).then(|| advice.to_owned());
    Finding { name: name.to_owned(), status, text, advice }
}

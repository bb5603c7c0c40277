//! Section 4 of the DPU interface document: redirects, which it calls port switching.

use ctl_service::{Error, Service};
use switch::model::{RedirectInfo, RedirectSpec};

use super::proto::{ProcSwitchEntry, ProcSwitchQueryResponse, ProcSwitchRequest, ProcSwitchResponse};
use super::{port, required};

/// `ProcSwitch`.
pub(super) fn set(service: &Service, request: &ProcSwitchRequest) -> Result<ProcSwitchResponse, Error> {
    let (src, dest) = (required("src_pfid", request.src_pfid)?, required("dest_pfid", request.dest_pfid)?);
    service.redirect(RedirectSpec { src: port("src_pfid", src)?, dest: port("dest_pfid", dest)? })?;
    Ok(ProcSwitchResponse { status: Some(0), error: None })
}

/// `ProcSwitchQuery`.
pub(super) fn list(service: &Service) -> ProcSwitchQueryResponse {
    let entry = |redirect: RedirectInfo| ProcSwitchEntry {
        src_pfid: Some(u32::from(redirect.spec.src)),
        dest_pfid: Some(u32::from(redirect.spec.dest)),
        end_pfid: Some(u32::from(redirect.ends_at)),
        packets: Some(redirect.redirected.packets),
        bytes: Some(redirect.redirected.bytes),
    };
    let entries = service.redirects().into_iter().map(entry).collect();
    ProcSwitchQueryResponse { status: Some(0), entries, error: None }
}

//! Redirects: what would go to one port goes to another. They may form chains, and never loops.

use std::collections::BTreeMap;

use super::ports::{Ports, expect_port};
use crate::engine::PortNo;
use crate::model::RedirectSpec;
use crate::{Error, ErrorKind};

/// All redirects.
#[derive(Debug, Default)]
pub struct Redirects {
    /// By source port: the next port of the chain.
    next: BTreeMap<PortNo, PortNo>,
}

impl Redirects {
    /// Redirects what would go to `src` to `dest`. With `src` itself as `dest`, undoes that. Returns the `dest` before.
    ///
    /// # Errors
    /// `NotFound` for a port that is not there, `Loop` if it would lead back to `src`.
    pub fn set(&mut self, spec: RedirectSpec, ports: &dyn Ports) -> Result<Option<PortNo>, Error> {
        let RedirectSpec { src, dest } = spec;
        expect_port("src_pfid", src, ports)?;
        expect_port("dest_pfid", dest, ports)?;
        // The chain as it would be. A redirect that `src` has now would be replaced, so the walk ends at `src`.
        let mut chain = vec![src, dest];
        let mut next = dest;
        while let Some(&to) = self.next.get(&next).filter(|_| next != src) {
            chain.push(to);
            next = to;
        }
        if src != dest && next == src {
            let chain: Vec<_> = chain.iter().map(ToString::to_string).collect();
            return Err(Error::new(
                ErrorKind::Loop,
                format!(
                    "dest_pfid: the redirect would be a loop ({}): undo one of the others first",
                    chain.join(" -> ")
                ),
            ));
        }
        Ok(self.put(src, Some(dest)))
    }

    /// Sets or undoes a redirect that was checked before. Returns the `dest` before.
    pub fn put(&mut self, src: PortNo, dest: Option<PortNo>) -> Option<PortNo> {
        match dest.filter(|dest| *dest != src) {
            Some(dest) => self.next.insert(src, dest),
            None => self.next.remove(&src),
        }
    }

    fn end_of(&self, mut no: PortNo) -> PortNo {
        // This ends, because `set` refuses loops.
        while let Some(&next) = self.next.get(&no) {
            no = next;
        }
        no
    }

    /// All redirects, each with the port where its chain ends.
    pub fn iter(&self) -> impl Iterator<Item = (RedirectSpec, PortNo)> {
        self.next.iter().map(|(&src, &dest)| (RedirectSpec { src, dest }, self.end_of(dest)))
    }

    /// Whether nothing is redirected to a port, so that it can go.
    ///
    /// # Errors
    /// `Busy` if something is.
    pub(super) fn check_port_unused(&self, no: PortNo) -> Result<(), Error> {
        match self.next.iter().find(|(_, dest)| **dest == no) {
            None => Ok(()),
            Some((src, _)) => Err(Error::new(
                ErrorKind::Busy,
                format!("vport: what would go to vport {src} is redirected to vport {no}: undo that redirect first"),
            )),
        }
    }

    /// Fills an empty table with what was kept. Ports are not asked for, because they come up later. Returns what
    /// does not fit, in words.
    pub(super) fn restore(&mut self, kept: Vec<RedirectSpec>) -> Vec<String> {
        let mut refused = Vec::new();
        for spec in kept {
            if let Err(error) = self.set(spec, &|_| Some(1)) {
                refused.push(format!("redirect of vport {}: {error}", spec.src));
            }
        }
        refused
    }

    /// A port is gone, and its own redirect with it.
    pub(super) fn forget_port(&mut self, no: PortNo) {
        self.next.remove(&no);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(no: PortNo) -> Option<u32> {
        (no < 3).then_some(2)
    }

    #[test]
    fn redirects_chain_and_never_loop() {
        let mut redirects = Redirects::default();
        let mut go = |src, dest| redirects.set(RedirectSpec { src, dest }, &three).map_err(|error| error.kind());
        assert_eq!(go(0, 1), Ok(None));
        assert_eq!(go(1, 2), Ok(None));
        assert_eq!(go(2, 0), Err(ErrorKind::Loop));
        assert_eq!(go(1, 0), Err(ErrorKind::Loop));
        assert_eq!(go(0, 3), Err(ErrorKind::NotFound));
        assert_eq!(go(3, 0), Err(ErrorKind::NotFound));
        assert_eq!(go(0, 2), Ok(Some(1)));
        assert_eq!(go(1, 0), Ok(Some(2)));
        assert_eq!(go(0, 0), Ok(Some(2)), "to itself undoes it");
        assert_eq!(go(0, 0), Ok(None));
        let ends: Vec<_> = redirects.iter().map(|(spec, end)| (spec.src, spec.dest, end)).collect();
        assert_eq!(ends, [(1, 0, 0)]);
        assert_eq!(redirects.check_port_unused(0).unwrap_err().kind(), ErrorKind::Busy);
        redirects.forget_port(1);
        redirects.check_port_unused(0).unwrap();
    }
}

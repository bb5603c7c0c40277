//! Redirects: frames for one port go to another. Each change holds the mutex, and is saved or undone.

use switch::model::{RedirectInfo, RedirectSpec};

use crate::Service;
use crate::error::Error;
use crate::numbers::{NamesPorts, PutBack};
use crate::state::{Row, Table};

/// Rows of redirects, by the key `redirect/SRC`.
#[derive(Debug)]
pub struct Redirects;

impl Table for Redirects {
    const NAME: &'static str = "redirect";
    type Row = RedirectSpec;

    fn key(row: &RedirectSpec) -> String {
        key(row.src)
    }
}

fn key(src: u16) -> String {
    format!("{src:05}")
}

/// The row of a redirect. A redirect of a port to itself removes the row.
fn row(spec: &RedirectSpec) -> Row {
    if spec.src == spec.dest { Row::remove::<Redirects>(&key(spec.src)) } else { Row::put::<Redirects>(spec) }
}

impl NamesPorts for Redirects {
    fn holds(&self, service: &Service, no: u16) -> Option<String> {
        let redirects = service.dataplane.redirects();
        let src = redirects.iter().find(|redirect| redirect.spec.dest == no)?.spec.src;
        Some(format!("vport: what would go to vport {src} is redirected to vport {no}: undo that redirect first"))
    }

    fn gone(&self, no: u16) -> Vec<Row> {
        vec![Row::remove::<Redirects>(&key(no))]
    }

    fn rows(&self, service: &Service, no: u16) -> Vec<Row> {
        let redirects = service.dataplane.redirects();
        redirects.iter().filter(|redirect| redirect.spec.src == no).map(|redirect| row(&redirect.spec)).collect()
    }

    fn set_aside<'a>(&self, service: &'a Service, no: u16) -> PutBack<'a> {
        let mut redirects: Vec<_> = service.dataplane.redirects().into_iter().map(|redirect| redirect.spec).collect();
        // A redirect to the port would prevent its deletion.
        redirects.retain(|redirect| [redirect.src, redirect.dest].contains(&no));
        redirects.iter().for_each(|redirect| service.dataplane.restore_redirect(redirect.src, None));
        Box::new(move |_| {
            redirects.iter().for_each(|it| service.dataplane.restore_redirect(it.src, Some(it.dest)));
            Ok(())
        })
    }
}

impl Service {
    /// Redirects frames for `src` to `dest`. `src` itself as `dest` removes the redirect.
    pub fn redirect(&self, spec: RedirectSpec) -> Result<(), Error> {
        let _inner = self.lock();
        let before = self.dataplane.redirect(spec)?;
        self.keep(&[row(&spec)], || {
            self.dataplane.restore_redirect(spec.src, before);
            Ok(())
        })
    }

    /// All redirects.
    pub fn redirects(&self) -> Vec<RedirectInfo> {
        self.dataplane.redirects()
    }
}

//! The section `[dpu]` of the configuration file.

use std::path::PathBuf;

use ctl_listen::config::{address, mode};
use serde::{Deserialize, Serialize};

/// `[dpu]`: the gRPC interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpuConfig {
    /// Permission bits of the Unix socket, as an octal number in a string.
    pub socket_mode: String,
    /// TCP address to listen on as well, with mutual TLS. Absent for none.
    pub listen: Option<String>,
    /// File of the server's certificate chain (PEM).
    pub certificate: Option<PathBuf>,
    /// File of the server's private key (PEM).
    pub key: Option<PathBuf>,
    /// File of the authority that signs certificates of clients (PEM).
    pub client_ca: Option<PathBuf>,
}

impl Default for DpuConfig {
    fn default() -> Self {
        Self { socket_mode: "0660".to_owned(), listen: None, certificate: None, key: None, client_ca: None }
    }
}

impl DpuConfig {
    /// The permission bits.
    pub fn mode(&self) -> Result<u32, String> {
        mode("dpu", &self.socket_mode)
    }

    /// Checks the values.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn check(&self) -> Result<(), String> {
        self.mode()?;
        let files = [("certificate", &self.certificate), ("key", &self.key), ("client_ca", &self.client_ca)];
        match &self.listen {
            Some(listen) => {
                address("dpu.listen", listen, 50051)?;
                match files.iter().find(|(_, file)| file.is_none()) {
                    None => Ok(()),
                    Some((name, _)) => {
                        Err(format!("dpu.{name}: dpu.listen needs it: without TLS there is the Unix socket only"))
                    }
                }
            }
            None => match files.iter().find(|(_, file)| file.is_some()) {
                None => Ok(()),
                Some((name, _)) => Err(format!("dpu.{name}: it is of no use without dpu.listen")),
            },
        }
    }
}

//! How SPP writes table keys, addresses and compressions.

use model::{Compression, MacAddr};

use crate::EntryKey;

/// A key as SPP writes it: `MAC`, `default`, `VID/MAC` or `VID/default`.
pub fn key_text(key: &EntryKey) -> String {
    let mac = key.mac.map_or_else(|| "default".to_owned(), mac_text);
    key.vlan.map_or_else(|| mac.clone(), |vlan| format!("{vlan}/{mac}"))
}

/// An address as SPP writes it, in capitals.
pub fn mac_text(mac: MacAddr) -> String {
    mac.to_string().to_uppercase()
}

/// The value of `--compression`.
pub const fn compression_word(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

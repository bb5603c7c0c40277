//! Checks of values that sections of the configuration file with sockets share.

/// Permission bits of a socket, from an octal number in a string.
///
/// # Errors
/// If it is not a mode, with the name of the section.
pub fn mode(section: &str, text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{section}.socket_mode: `{text}` is not an octal mode such as 0660"))
}

/// Checks that a value is a socket address. `port` is for the example in the error.
///
/// # Errors
/// If it is not an address, with the name of the key.
pub fn address(name: &str, text: &str, port: u16) -> Result<(), String> {
    let parsed = text.parse::<std::net::SocketAddr>();
    parsed.map(drop).map_err(|_| format!("{name}: `{text}` is not an address such as 127.0.0.1:{port}"))
}

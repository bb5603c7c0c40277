//! Kinds of errors.

/// What kind of error it is, for transports that map errors to codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing of that name or number (ENOENT, HTTP 404).
    NotFound,
    /// Name, number or netdev taken (EEXIST, HTTP 409).
    Exists,
    /// A value out of range or combination that makes no sense (EINVAL, HTTP 400).
    Invalid,
    /// A table, the port numbers or the UMEM are used up (ENOSPC, HTTP 507).
    Full,
    /// In use by somebody else, such as a foreign XDP program or a bound queue (EBUSY, HTTP 409).
    Busy,
    /// It would lead back to where it starts (ELOOP, HTTP 409).
    Loop,
    /// Not in the mode that it is in (EACCES, HTTP 409).
    WrongMode,
    /// Not while it has members (ENOTEMPTY, HTTP 409).
    NotEmpty,
    /// Another setting has to come first (EPERM, HTTP 409).
    NotReady,
    /// Not possible on this port kind, driver or kernel (EOPNOTSUPP, HTTP 422).
    Unsupported,
    /// The one who asks may not have it (EACCES, HTTP 403).
    Denied,
    /// The system refused; the text says what to do (HTTP 500).
    System,
}

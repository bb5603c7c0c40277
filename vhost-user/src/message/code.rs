//! The numbers of requests.

/// A request that a net or block device may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "the specification's own names, and its numbers")]
pub enum Code {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    ResetOwner = 4,
    SetMemTable = 5,
    SetLogBase = 6,
    SetLogFd = 7,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    SendRarp = 19,
    NetSetMtu = 20,
    SetBackendReqFd = 21,
    GetConfig = 24,
    SetConfig = 25,
    GetInflightFd = 31,
    SetInflightFd = 32,
    ResetDevice = 34,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
    SetStatus = 39,
    GetStatus = 40,
}

impl Code {
    /// All of them, by number.
    pub const ALL: [Self; 31] = [
        Self::GetFeatures,
        Self::SetFeatures,
        Self::SetOwner,
        Self::ResetOwner,
        Self::SetMemTable,
        Self::SetLogBase,
        Self::SetLogFd,
        Self::SetVringNum,
        Self::SetVringAddr,
        Self::SetVringBase,
        Self::GetVringBase,
        Self::SetVringKick,
        Self::SetVringCall,
        Self::SetVringErr,
        Self::GetProtocolFeatures,
        Self::SetProtocolFeatures,
        Self::GetQueueNum,
        Self::SetVringEnable,
        Self::SendRarp,
        Self::NetSetMtu,
        Self::SetBackendReqFd,
        Self::GetConfig,
        Self::SetConfig,
        Self::GetInflightFd,
        Self::SetInflightFd,
        Self::ResetDevice,
        Self::GetMaxMemSlots,
        Self::AddMemReg,
        Self::RemMemReg,
        Self::SetStatus,
        Self::GetStatus,
    ];

    /// The request with that number.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The specification's name, without `VHOST_USER_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetFeatures => "GET_FEATURES",
            Self::SetFeatures => "SET_FEATURES",
            Self::SetOwner => "SET_OWNER",
            Self::ResetOwner => "RESET_OWNER",
            Self::SetMemTable => "SET_MEM_TABLE",
            Self::SetLogBase => "SET_LOG_BASE",
            Self::SetLogFd => "SET_LOG_FD",
            Self::SetVringNum => "SET_VRING_NUM",
            Self::SetVringAddr => "SET_VRING_ADDR",
            Self::SetVringBase => "SET_VRING_BASE",
            Self::GetVringBase => "GET_VRING_BASE",
            Self::SetVringKick => "SET_VRING_KICK",
            Self::SetVringCall => "SET_VRING_CALL",
            Self::SetVringErr => "SET_VRING_ERR",
            Self::GetProtocolFeatures => "GET_PROTOCOL_FEATURES",
            Self::SetProtocolFeatures => "SET_PROTOCOL_FEATURES",
            Self::GetQueueNum => "GET_QUEUE_NUM",
            Self::SetVringEnable => "SET_VRING_ENABLE",
            Self::SendRarp => "SEND_RARP",
            Self::NetSetMtu => "NET_SET_MTU",
            Self::SetBackendReqFd => "SET_BACKEND_REQ_FD",
            Self::GetConfig => "GET_CONFIG",
            Self::SetConfig => "SET_CONFIG",
            Self::GetInflightFd => "GET_INFLIGHT_FD",
            Self::SetInflightFd => "SET_INFLIGHT_FD",
            Self::ResetDevice => "RESET_DEVICE",
            Self::GetMaxMemSlots => "GET_MAX_MEM_SLOTS",
            Self::AddMemReg => "ADD_MEM_REG",
            Self::RemMemReg => "REM_MEM_REG",
            Self::SetStatus => "SET_STATUS",
            Self::GetStatus => "GET_STATUS",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

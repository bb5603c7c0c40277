//! stub
#![allow(missing_docs, dead_code, missing_debug_implementations)]
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
pub const VETH_NATIVE_MAX_MTU: u32 = 3500;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode { Native, Generic }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeRequest { Auto, Native, Generic }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering { All, Shared }
#[derive(Debug)]
pub struct LoadOptions { pub ifname: String, pub ifindex: u32, pub queues: u32, pub steering: Steering }
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SteerKey { pub mac: [u8; 6], pub vid: Option<u16> }
pub struct Attached { pub mode: Mode, pub fallback_reason: Option<String> }
#[derive(Debug)]
pub struct PortProgram;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
pub struct QueueCounters;
impl QueueCounters { pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> { [].into_iter() } }
pub struct ForeignProgram { pub id: u32 }
impl std::fmt::Display for ForeignProgram { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
impl PortProgram {
  pub fn load(_: &LoadOptions) -> Result<Self, Error> { Ok(Self) }
  pub fn set_socket(&self, _: u32, _: BorrowedFd<'_>) -> Result<(), Error> { Ok(()) }
  pub fn attach(&mut self, _: ModeRequest) -> Result<Attached, Error> { Err(Error) }
  pub fn detach(&mut self) -> Result<(), Error> { Ok(()) }
  pub fn set_steering(&self, _: &BTreeSet<SteerKey>) -> Result<(), Error> { Ok(()) }
  pub fn counters(&self) -> Result<Vec<QueueCounters>, Error> { Ok(vec![]) }
  pub fn id(&self) -> u32 { 0 }
}
pub fn attached_programs(_: u32) -> Result<Vec<ForeignProgram>, Error> { Ok(vec![]) }
pub struct BindFacts { pub ifname: String, pub queue: u32, pub channels: Option<u32>, pub zero_copy_forced: bool, pub memlock: Option<u64>, pub umem_bytes: u64 }
pub fn explain_bind_error(_: nix::errno::Errno, _: &BindFacts) -> String { String::new() }

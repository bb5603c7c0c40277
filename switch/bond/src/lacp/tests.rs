//! Systems of ours beside each other over made-up links, and partners that do as they like.

mod hostile;
mod machines;
mod net;
mod pairs;
mod selection;

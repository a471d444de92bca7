//! Bytes to values and back. No rules of channels.
//!
//! Everything here takes what a client sent as it is: no input may panic, and nothing is allocated in proportion to it.

pub mod accept;
pub mod chunk;
mod date;
pub mod head;
pub mod http;
pub mod id;
pub mod info;
pub mod json;
pub mod object;
pub mod query;

//! The engine of the nginx push module: what a channel is and what publishing and subscribing mean, without nginx,
//! sockets or a clock.
//!
//! Bytes and the time come in as arguments, replies and actions go out as values; the crate contains no `unsafe` code.
//! The pieces, from the bottom up:
//!
//! | module | what it knows |
//! |---|---|
//! | [`message`], [`clock`], [`reply`] | the values that everything else is made of |
//! | [`zone`] | the log of every channel, in one region of memory that all workers share; survives a death at any instruction |
//! | [`hub`] | one worker's waiting subscribers, by channel; which of them to serve next |
//! | [`many`], [`first`] | subscribers of several channels; where a subscriber without a cursor begins |
//! | [`wire`] | bytes to values and back: HTTP dates and tags, message ids, `Accept`, channel info, JSON, chunks |
//! | [`transport`] | how a subscriber is served: which transport, and what each one writes |
//! | [`websocket`] | handshake, frames and compression of WebSockets |
//! | [`control`] | what a WebSocket client says to change its subscription, and is told |
//! | [`outbox`] | what a stream's client could not take at once |
//! | [`cors`] | which pages of other origins may ask, and what browsers are told |
//! | [`publisher`], [`subscriber`] | what each method means and what is answered |
//! | [`poll`] | the forms of what a poll gets, of one message or of several, also as a script |
//! | [`silence`] | whether a client that sends nothing is still there |
//! | [`surplus`] | when a worker asks its allocator for what it keeps |
//! | [`process`] | what the kernel says of a process |
//! | [`faults`] | points at which a test build may die |
//! | [`config`] | every directive, its values, inheritance and defaults |
//!
//! Dependencies point one way: poll → publisher, subscriber, transport → websocket → wire → message; zone and hub → message.
#![forbid(unsafe_code)]

pub mod channel_id;
pub mod clock;
pub mod config;
pub mod control;
pub mod cors;
pub mod faults;
pub mod first;
pub mod hub;
pub mod many;
pub mod message;
pub mod outbox;
pub mod poll;
pub mod process;
pub mod publisher;
pub mod reply;
pub mod silence;
pub mod subscriber;
pub mod surplus;
pub mod transport;
pub mod websocket;
pub mod wire;
pub mod zone;

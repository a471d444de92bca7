//! Parking a request: it waits for a message, and costs as little as can be meanwhile.
//!
//! There are two ways (`push_park`). The compact one ends the request in silence and keeps only its head, so that a parked
//! client costs little more than an idle keep-alive connection; it takes the requests that can be woken without anybody
//! noticing. The plain one is nginx's own suspension of a request, and takes the others.

mod blob;
mod compact;
mod plain;
mod snapshot;

use std::rc::Rc;

use comet::config::Park;
use comet::hub::Key;

use super::request::{Request, Status};
use crate::prepared::Prepared;
use crate::subscriber;

pub(super) use compact::install;
pub use compact::{start, stop};

/// A parked request. It lives until it is answered or its client goes away; then `worker::gone` was called.
#[derive(Clone, Copy, Debug)]
pub enum Parked {
    /// As a suspended request.
    Plain(plain::Parked),
    /// As a connection with a request's head.
    Compact(compact::Parked),
}

/// What ends the wait of a parked request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A reply.
    Reply(Rc<Prepared>),
    /// The client is sent away with the position that it came with, and its connection is closed.
    SentAway,
}

impl Answer {
    fn send(self, request: &Request) -> Status {
        match self {
            Answer::Reply(prepared) => request.send(prepared),
            Answer::SentAway => subscriber::send_away(request),
        }
    }
}

/// Parks a request. Its handler must return the status to nginx.
pub fn park(request: &Request) -> Option<(Parked, Status)> {
    if request.settings().park == Park::Compact {
        if let Some(parked) = compact::park(request) {
            return Some((Parked::Compact(parked), Status::LATER));
        }
    }
    plain::park(request).map(|parked| (Parked::Plain(parked), Status::LATER))
}

impl Parked {
    /// Says under which key the worker knows the request.
    pub fn set_key(&self, key: Key) {
        match self {
            Parked::Plain(parked) => parked.set_key(key),
            Parked::Compact(parked) => parked.set_key(key),
        }
    }

    /// Sends the reply and ends the request.
    pub fn answer(self, answer: Answer) {
        match self {
            Parked::Plain(parked) => parked.answer(answer),
            Parked::Compact(parked) => parked.answer(answer),
        }
    }
}

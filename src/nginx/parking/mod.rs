//! Parking a request: it waits for a message, or gets one after the other, and costs as little as can be meanwhile.
//!
//! There are two ways (`push_park`). The compact one ends the request in silence and keeps only its head, so that a parked
//! client costs little more than an idle keep-alive connection; it takes the requests that can be woken without anybody
//! noticing. The plain one is nginx's own suspension of a request, and takes the others.

mod blob;
mod compact;
mod listen;
mod live;
mod plain;
mod snapshot;

use std::num::NonZero;
use std::ptr::NonNull;
use std::rc::Rc;

use comet::config::{Park, Settings};
use comet::hub::Key;
use comet::outbox::Sent;
use comet::wire::chunk::Chunk;

use self::listen::Talker;
use super::request::{Request, Status};
use super::socket;
use crate::prepared::Prepared;
use crate::subscriber;
use crate::talk::Talk;

pub(super) use compact::install;
pub use compact::{start, stop};

/// A parked request. It lives until it is answered or ended, or its client goes away; then `worker::gone` was called.
///
/// A pointer whose lowest bit, which no aligned pointer has, says which way the request was parked: there may be a million
/// of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked(NonNull<()>);

/// The way in which a request was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As a suspended request.
    Plain(plain::Parked),
    /// As a connection with a request's head.
    Compact(compact::Parked),
}

const PLAIN: usize = 1;
const _: () = assert!(align_of::<plain::Place>() > PLAIN && align_of::<compact::Sleeper>() > PLAIN);

impl From<plain::Parked> for Parked {
    fn from(parked: plain::Parked) -> Self {
        Parked(parked.0.cast().map_addr(|address| address | PLAIN))
    }
}

impl From<compact::Parked> for Parked {
    fn from(parked: compact::Parked) -> Self {
        Parked(parked.0.cast())
    }
}

/// What ends the wait of a parked request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A reply.
    Reply(Rc<Prepared>),
    /// The client is sent away, and its connection is closed: with this reply, or with the position that it came with.
    SentAway(Option<Rc<Prepared>>),
}

impl Answer {
    fn send(self, request: &Request) -> Status {
        match self {
            Answer::Reply(prepared) => request.send(prepared),
            Answer::SentAway(Some(prepared)) => {
                request.close_afterwards();
                request.send(prepared)
            }
            Answer::SentAway(None) => subscriber::send_away(request),
        }
    }
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As a reply that is complete: the connection may serve another request.
    Complete,
    /// In the middle, so that the client notices.
    Cut,
    /// With our close frame; the client has to answer.
    Closing,
    /// With the answer to the client's close frame.
    Closed,
}

/// Parks a request. Its handler must return the status to nginx.
pub fn park(request: &Request) -> Option<(Parked, Status)> {
    // SAFETY: a living request has an open connection.
    unsafe { socket::ask_now_and_then((*request.0).connection) };
    if request.settings().park == Park::Compact {
        if let Some(parked) = compact::park(request) {
            return Some((parked.into(), Status::LATER));
        }
    }
    plain::park(request).map(|parked| (parked.into(), Status::LATER))
}

/// Parks a stream whose head has been sent. Its handler must return the status to nginx.
///
/// `worker::can_take` is called once the stream can take messages.
pub fn park_stream(request: &Request, talk: Option<Talk>) -> Option<(Parked, Status)> {
    let mut early = if talk.is_some() { request.take_early() } else { Vec::new() };
    let mut talk = talk.map(Box::new);
    if request.settings().park == Park::Compact {
        if let Some(parked) = compact::park_stream(request, &mut talk, &mut early) {
            return Some((parked.into(), Status::LATER));
        }
    }
    plain::park_stream(request, talk, early).map(|parked| (parked.into(), Status::LATER))
}

impl Parked {
    fn way(self) -> Way {
        let address = NonZero::new(self.0.addr().get() & !PLAIN);
        match address.filter(|address| *address != self.0.addr()) {
            Some(address) => Way::Plain(plain::Parked(self.0.with_addr(address).cast())),
            None => Way::Compact(compact::Parked(self.0.cast())),
        }
    }

    /// Says under which key the worker knows the request.
    pub fn set_key(&self, key: Key) {
        match self.way() {
            Way::Plain(parked) => parked.set_key(key),
            Way::Compact(parked) => parked.set_key(key),
        }
    }

    /// Sends the reply and ends the request.
    pub fn answer(self, answer: Answer) {
        match self.way() {
            Way::Plain(parked) => parked.answer(answer),
            Way::Compact(parked) => parked.answer(answer),
        }
    }

    /// Sends a stream's frames; before that, everything else must have gone. After `Broken` there is no stream.
    pub fn send(self, frames: &Rc<Chunk>) -> Sent {
        match self.way() {
            Way::Plain(parked) => parked.send(frames),
            Way::Compact(parked) => parked.send(frames),
        }
    }

    /// Sends bytes that are for this client alone, after what waits. After `Broken` there is no stream.
    pub fn say(self, bytes: &[u8]) -> Sent {
        match self.way() {
            Way::Plain(parked) => parked.say(bytes),
            Way::Compact(parked) => parked.say(bytes),
        }
    }

    /// Sends a stream's last bytes, and ends it once they have gone. The worker knows it no more.
    pub fn end(self, bytes: &[u8], ending: Ending) {
        match self.way() {
            Way::Plain(parked) => parked.end(bytes, ending),
            Way::Compact(parked) => parked.end(bytes, ending),
        }
    }

    /// Drops a client that cannot be told anything: it has gone, or does not answer. There is no stream afterwards.
    pub fn lose(self) {
        match self.way() {
            Way::Plain(parked) => parked.lose(),
            Way::Compact(parked) => parked.lose(),
        };
    }

    /// Whether the client of a stream may still be there.
    pub fn is_heard(self) -> bool {
        match self.way() {
            Way::Plain(parked) => parked.is_heard(),
            Way::Compact(parked) => parked.is_heard(),
        }
    }

    /// How long the client of a stream may take nothing that it is sent (`send_timeout`), in milliseconds.
    pub fn send_timeout(self) -> u64 {
        match self.way() {
            Way::Plain(parked) => parked.send_timeout(),
            Way::Compact(parked) => parked.send_timeout(),
        }
    }

    /// A WebSocket client has answered our close frame. There is no stream afterwards.
    pub fn closed(self) {
        match self.way() {
            Way::Plain(parked) => parked.closed(),
            Way::Compact(parked) => parked.closed(),
        }
    }

    /// Under which key the worker knows it.
    pub fn key(self) -> Option<Key> {
        match self.way() {
            Way::Plain(parked) => parked.key(),
            Way::Compact(parked) => parked.key(),
        }
    }

    /// The settings of its location.
    pub fn settings<'a>(self) -> &'a Settings {
        match self.way() {
            Way::Plain(parked) => parked.settings(),
            Way::Compact(parked) => parked.settings(),
        }
    }

    /// Takes a WebSocket's conversation, to be put back.
    pub fn take_talk(self) -> Option<Box<Talk>> {
        match self.way() {
            Way::Plain(parked) => parked.take_talk(),
            Way::Compact(parked) => parked.take_talk(),
        }
    }

    /// Puts a WebSocket's conversation back.
    pub fn put_talk(self, talk: Box<Talk>) {
        match self.way() {
            Way::Plain(parked) => parked.put_talk(talk),
            Way::Compact(parked) => parked.put_talk(talk),
        }
    }
}

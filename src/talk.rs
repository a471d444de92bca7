//! A WebSocket's conversation: what its client says, and what that brings about (RFC 6455).

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use comet::channel_id::ChannelId;
use comet::config::Settings;
use comet::outbox::Sent;
use comet::publisher as replies;
use comet::reply::ReplyBody;
use comet::websocket::{self, Decoder, Event, Opcode, Policy, Violation};
use comet::zone::Content;

use crate::channel::Channels;
use crate::control::Control;
use crate::nginx::parking::{Ending, Parked};
use crate::{publisher, worker};

/// How long a client's messages are answered before others get their turn: some bytes may be many messages, each for many
/// channels.
const PATIENCE: Duration = Duration::from_millis(2);
/// Bytes that a client may have said of messages which are not complete or not answered, whatever others have.
const FAIR: u64 = 16 << 10;
/// Bytes that others may hold so in this worker when a client goes beyond that.
const MAX_HELD: u64 = 64 << 20;
const TOO_MANY: Violation =
    Violation { code: websocket::TRY_AGAIN_LATER, reason: "too many messages are not complete" };

thread_local! {
    /// Bytes that are held of such messages.
    static HELD: Cell<u64> = const { Cell::new(0) };
}

/// What is kept of a WebSocket beside its connection.
#[derive(Debug)]
pub struct Talk {
    decoder: Decoder,
    /// What has been read and is not answered yet.
    unanswered: Option<Box<Unanswered>>,
    /// What of [`HELD`] is this client's.
    held: u64,
    /// Whether the client may compress what it says.
    deflate: bool,
    /// What it may say; a client without may say nothing.
    role: Option<Box<Role>>,
    /// It has said something since it was last asked for a sign of life.
    heard: bool,
    /// It was asked.
    asked: bool,
    /// We have sent our close frame.
    closing: bool,
}

/// What a client has said, and what it must not have said after that.
#[derive(Debug, Default)]
struct Unanswered {
    events: VecDeque<Event>,
    violation: Option<Violation>,
}

impl Unanswered {
    /// Bytes of messages.
    fn held(&self) -> u64 {
        let len = |event: &Event| match event {
            Event::Message { data, .. } => data.len() as u64,
            _ => 0,
        };
        self.events.iter().map(len).sum()
    }
}

/// What becomes of what a client says.
#[derive(Debug)]
pub enum Role {
    /// It is published.
    Publisher(Publisher),
    /// It is obeyed.
    Control(Control),
}

/// What a publishing client's handshake has said for all its messages.
#[derive(Debug)]
pub struct Publisher {
    /// The channels.
    pub channels: Channels,
    /// `Content-Type`; if there is none, the kind of frame decides.
    pub content_type: Vec<u8>,
    /// `Accept`, for the channel info.
    pub accept: Option<Vec<u8>>,
    /// Whether each message is answered with the channel info.
    pub info: bool,
    /// Bytes that a message may have.
    pub max_message: u64,
}

impl Publisher {
    /// Publishes a message. Returns the frames to answer with, or a close code and a reason.
    fn publish(
        &self,
        settings: &Settings,
        binary: bool,
        data: &[u8],
    ) -> Result<Vec<u8>, (u16, String)> {
        let content_type: &[u8] = match self.content_type.as_slice() {
            [] if binary => b"application/octet-stream",
            known => known,
        };
        let content = Content::Pieces(&[data]);
        let ids = self.channels.as_slice();
        let publications: Vec<_> = ids
            .iter()
            .map(|id| publisher::publication(settings, id.as_bytes(), content_type, b"", content))
            .collect();
        let published = match worker::publish(&publications) {
            Some(Ok(published)) => published,
            Some(Err(error)) => {
                publisher::complain(&error);
                return Err((error.close_code(), error.to_string()));
            }
            None => return Err((websocket::INTERNAL_ERROR, "The worker is stopping.".into())),
        };
        let names = ids.iter().map(ChannelId::name);
        let infos: Vec<_> = names.zip(published.iter().map(|published| published.info)).collect();
        let accept = self.accept.as_deref();
        let reply = match infos.as_slice() {
            [(_, info)] => replies::info(200, info, accept),
            infos => replies::infos(200, infos, accept),
        };
        match reply.body {
            ReplyBody::Bytes(bytes) if self.info => {
                Ok(websocket::encode(Opcode::Text, false, &bytes))
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl Talk {
    /// A conversation that has just begun.
    pub fn new(deflate: bool, role: Option<Role>) -> Self {
        Talk {
            decoder: Decoder::new(),
            unanswered: None,
            held: 0,
            deflate,
            role: role.map(Box::new),
            heard: false,
            asked: false,
            closing: false,
        }
    }

    /// Notes that the client is asked for a sign of life. False if it has not given one since it was last asked.
    pub fn ask(&mut self) -> bool {
        let is_alive = self.heard || !self.asked;
        self.heard = false;
        self.asked = true;
        is_alive
    }

    /// Whether there is more to be answered than was in the time for it: then [`received`] goes on, also with no bytes.
    pub fn has_more(&self) -> bool {
        self.unanswered.is_some()
    }

    /// Notes that our close frame is being sent.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Counts what is held of messages that are not complete, or wait to be answered. False if there is too much of that:
    /// connections cost little, so that many of them could hold more than there is memory.
    fn hold(&mut self, held: u64) -> bool {
        let others = HELD.get().saturating_sub(self.held);
        HELD.set(others.saturating_add(held));
        self.held = held;
        held <= FAIR || others <= MAX_HELD
    }

    fn policy(&self) -> Policy {
        Policy {
            max_message: self.role.as_ref().map(|role| match &**role {
                Role::Publisher(publisher) => publisher.max_message,
                Role::Control(control) => control.max_message,
            }),
            deflate: self.deflate,
        }
    }

    /// Answers what the client says: frames for it, and how the conversation ends, if it does.
    fn answer(&mut self, stream: Parked, bytes: &[u8]) -> (Vec<u8>, Option<Ending>) {
        self.heard |= !bytes.is_empty();
        let policy = self.policy();
        let mut unanswered = self.unanswered.take().map_or_else(Unanswered::default, |all| *all);
        let events = &mut unanswered.events;
        let read = self.decoder.read(&policy, bytes, &mut |event| events.push_back(event));
        let held = self.decoder.held();
        let read = match self.hold(held) {
            true => read,
            false => {
                self.decoder = Decoder::new();
                self.hold(0);
                read.and(Err(TOO_MANY))
            }
        };
        unanswered.violation = unanswered.violation.or(read.err());
        let (mut said, ending) = self.answer_in_time(stream, unanswered);
        let left = self.unanswered.as_ref().map_or(0, |unanswered| unanswered.held());
        if ending.is_none() && !self.hold(self.decoder.held() + left) {
            self.unanswered = None;
            self.hold(0);
            said.extend(websocket::close(TOO_MANY.code, TOO_MANY.reason));
            return (said, Some(Ending::Closing));
        }
        (said, ending)
    }

    /// Answers as much as there is time for, and keeps the rest.
    fn answer_in_time(
        &mut self,
        stream: Parked,
        mut unanswered: Unanswered,
    ) -> (Vec<u8>, Option<Ending>) {
        let begin = Instant::now();
        let mut said = Vec::new();
        while let Some(event) = unanswered.events.pop_front() {
            match event {
                // Whoever closes waits for the other's close frame and nothing else (section 5.5.1).
                Event::Close { .. } if self.closing => return (said, Some(Ending::Closed)),
                _ if self.closing => {}
                Event::Message { binary, data } => {
                    let answered = match self.role.as_deref() {
                        None => continue,
                        Some(Role::Control(control)) => Ok(control.obey(stream, binary, &data)),
                        Some(Role::Publisher(publisher)) => {
                            publisher.publish(stream.settings(), binary, &data)
                        }
                    };
                    match answered {
                        Ok(frames) => said.extend(frames),
                        Err((code, reason)) => {
                            said.extend(websocket::close(code, &reason));
                            return (said, Some(Ending::Closing));
                        }
                    }
                    if begin.elapsed() > PATIENCE {
                        self.unanswered = Some(Box::new(unanswered));
                        return (said, None);
                    }
                }
                Event::Ping(payload) => said.extend(websocket::pong(&payload)),
                Event::Pong(_) => {}
                Event::Close { code, .. } => {
                    said.extend(code.map_or_else(websocket::close_without_code, |code| {
                        websocket::close(code, "")
                    }));
                    return (said, Some(Ending::Closed));
                }
            }
        }
        match unanswered.violation {
            Some(violation) if !self.closing => {
                said.extend(websocket::close(violation.code, violation.reason));
                (said, Some(Ending::Closing))
            }
            _ => (said, None),
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.hold(0);
    }
}

/// Takes what a client has sent. False if nothing more is to be read from it now.
pub fn received(stream: Parked, bytes: &[u8]) -> bool {
    let Some(mut talk) = stream.take_talk() else { return false };
    let was_closing = talk.closing;
    let (said, ending) = talk.answer(stream, bytes);
    talk.closing |= ending.is_some();
    stream.put_talk(talk);
    match ending {
        None if said.is_empty() => true,
        None => match stream.say(&said) {
            Sent::All => true,
            Sent::Partly => {
                if let Some(key) = stream.key() {
                    worker::cannot_take(key);
                }
                false
            }
            Sent::Broken => false,
        },
        Some(_) if was_closing => {
            stream.closed();
            false
        }
        Some(ending) => {
            if let Some(key) = stream.key() {
                worker::dismiss(key);
            }
            stream.end(&said, ending);
            false
        }
    }
}

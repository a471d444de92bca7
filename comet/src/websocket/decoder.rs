//! What a client says, read from its bytes however they are cut (RFC 6455, sections 5 to 8).

use super::deflate::{inflate, InflateError};
use super::frame::{Opcode, FIN, MAX_CONTROL, RSV1};
use super::{MESSAGE_TOO_BIG, TRY_AGAIN_LATER};

/// What a client may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes that a message may have; `None`: the client must not send any.
    pub max_message: Option<u64>,
    /// Whether messages may be compressed.
    pub deflate: bool,
}

/// Something that a client has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, whole and uncompressed.
    Message {
        /// Whether it came as binary; else it is UTF-8.
        binary: bool,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// A question whether we are there, to be answered with its payload.
    Ping(Vec<u8>),
    /// The answer to ours.
    Pong(Vec<u8>),
    /// The end. Whatever follows is ignored.
    Close {
        /// Why, if it says so.
        code: Option<u16>,
        /// The same in words.
        reason: String,
    },
}

/// What a client must not say, and how to close the connection for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The close code (RFC 6455, section 7.4.1).
    pub code: u16,
    /// For the close frame.
    pub reason: &'static str,
}

const fn protocol_error(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

const NO_UTF8: Violation = Violation { code: 1007, reason: "text is not UTF-8" };
const BAD_DEFLATE: Violation = Violation { code: 1007, reason: "bad compressed data" };
const NOT_ALLOWED: Violation = Violation { code: 1008, reason: "publishing is not allowed here" };
const TOO_LARGE: Violation =
    Violation { code: MESSAGE_TOO_BIG, reason: "the message is too large" };
const NO_MEMORY: Violation =
    Violation { code: TRY_AGAIN_LATER, reason: "no memory for the message" };

/// Reads one client's frames. Between messages it holds nothing: there are many idle clients.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    is_closed: bool,
}

/// What has come of a frame, and of the message that it belongs to.
#[derive(Debug, Default)]
struct Partial {
    /// The frame's head, as far as it has come.
    head: Vec<u8>,
    /// The frame, once its head is complete.
    frame: Option<Frame>,
    /// The payload of a control frame.
    control: Vec<u8>,
    message: Option<Message>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_last: bool,
    mask: [u8; 4],
    /// Bytes of the payload that have come, and that have not.
    done: u64,
    left: u64,
}

#[derive(Debug)]
struct Message {
    binary: bool,
    compressed: bool,
    data: Vec<u8>,
    /// Bytes of a text that are known to be UTF-8.
    checked: usize,
}

impl Decoder {
    /// Begins with a client's first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no part of a frame or message is held.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes that are held of a message which is not complete.
    pub fn held(&self) -> u64 {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        message.map_or(0, |message| message.data.len() as u64)
    }

    /// Reads what has come, and calls `each` with everything that it completes.
    ///
    /// # Errors
    ///
    /// A [`Violation`], after which nothing more is to be read. Nothing is allocated for bytes that have not come.
    pub fn read(
        &mut self,
        policy: &Policy,
        mut input: &[u8],
        each: &mut dyn FnMut(Event),
    ) -> Result<(), Violation> {
        if self.is_closed {
            return Ok(());
        }
        let mut partial = self.partial.take().unwrap_or_default();
        while let Some(event) = partial.step(policy, &mut input)? {
            self.is_closed = matches!(event, Event::Close { .. });
            each(event);
            if self.is_closed {
                return Ok(());
            }
        }
        if partial.holds_something() {
            self.partial = Some(partial);
        }
        Ok(())
    }
}

impl Partial {
    fn holds_something(&self) -> bool {
        !self.head.is_empty() || self.frame.is_some() || self.message.is_some()
    }

    /// Reads until something is complete, or the input is used up.
    fn step(&mut self, policy: &Policy, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        loop {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => {
                    let Some(frame) = self.read_head(policy, input)? else { return Ok(None) };
                    frame
                }
            };
            let len = usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
            let (payload, rest) = input.split_at(len);
            *input = rest;
            self.take(&frame, payload)?;
            frame.done += payload.len() as u64;
            frame.left -= payload.len() as u64;
            self.frame = Some(frame);
            if frame.left > 0 {
                return Ok(None);
            }
            self.frame = None;
            if let Some(event) = self.finish(policy, &frame)? {
                return Ok(Some(event));
            }
        }
    }

    /// Reads a frame's head (section 5.2). Nothing if it is not complete yet.
    fn read_head(
        &mut self,
        policy: &Policy,
        input: &mut &[u8],
    ) -> Result<Option<Frame>, Violation> {
        loop {
            if let Some(frame) = self.parse_head(policy)? {
                self.head = Vec::new();
                return Ok(Some(frame));
            }
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
            self.head.push(*byte);
            *input = rest;
        }
    }

    fn parse_head(&mut self, policy: &Policy) -> Result<Option<Frame>, Violation> {
        let [first, second, rest @ ..] = self.head.as_slice() else { return Ok(None) };
        let opcode = self.check_start(policy, *first, *second)?;
        let (len, mask) = match (second & 0x7f, rest) {
            (126, [a, b, mask @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), mask),
            (127, [a, b, c, d, e, f, g, h, mask @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), mask)
            }
            (126 | 127, _) => return Ok(None),
            (len, mask) => (u64::from(len), mask),
        };
        let least = match second & 0x7f {
            126 => 126,
            127 => 0x1_0000,
            _ => 0,
        };
        if len < least || len > i64::MAX as u64 {
            return Err(protocol_error("bad length"));
        }
        let compressed = match &self.message {
            Some(message) => message.compressed,
            None => first & RSV1 != 0,
        };
        let has = self.message.as_ref().map_or(0, |message| message.data.len() as u64);
        let max = policy.max_message.unwrap_or(0);
        // What does not shrink gets a little larger.
        let max = if compressed { max.saturating_add(max / 16 + 64) } else { max };
        if !opcode.is_control() && len.saturating_add(has) > max {
            return Err(TOO_LARGE);
        }
        let Ok(mask) = mask.try_into() else { return Ok(None) };
        if matches!(opcode, Opcode::Text | Opcode::Binary) {
            let binary = opcode == Opcode::Binary;
            self.message = Some(Message { binary, compressed, data: Vec::new(), checked: 0 });
        }
        Ok(Some(Frame { opcode, is_last: first & FIN != 0, mask, done: 0, left: len }))
    }

    /// Checks what can be known from a frame's first two bytes.
    fn check_start(&self, policy: &Policy, first: u8, second: u8) -> Result<Opcode, Violation> {
        let opcode = Opcode::of(first & 0x0f).ok_or(protocol_error("reserved opcode"))?;
        let starts = matches!(opcode, Opcode::Text | Opcode::Binary);
        let reserved = first & 0x70;
        if reserved != 0 && !(reserved == RSV1 && policy.deflate && starts) {
            return Err(protocol_error("reserved bit"));
        }
        if second & 0x80 == 0 {
            return Err(protocol_error("frame without mask"));
        }
        if opcode.is_control() {
            if first & FIN == 0 || usize::from(second & 0x7f) > MAX_CONTROL {
                return Err(protocol_error("bad control frame"));
            }
        } else if starts == self.message.is_some() {
            return Err(protocol_error("message out of sequence"));
        } else if policy.max_message.is_none() {
            return Err(NOT_ALLOWED);
        }
        Ok(opcode)
    }

    /// Takes a piece of a frame's payload.
    fn take(&mut self, frame: &Frame, payload: &[u8]) -> Result<(), Violation> {
        let mut mask = frame.mask;
        mask.rotate_left((frame.done % 4) as usize);
        let plain = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        match &mut self.message {
            Some(message) if !frame.opcode.is_control() => {
                message.data.try_reserve(payload.len()).map_err(|_| NO_MEMORY)?;
                message.data.extend(plain);
                message.check_text(false)
            }
            _ => {
                self.control.extend(plain);
                Ok(())
            }
        }
    }

    /// A frame is complete.
    fn finish(&mut self, policy: &Policy, frame: &Frame) -> Result<Option<Event>, Violation> {
        if frame.opcode.is_control() {
            let payload = std::mem::take(&mut self.control);
            return match frame.opcode {
                Opcode::Ping => Ok(Some(Event::Ping(payload))),
                Opcode::Pong => Ok(Some(Event::Pong(payload))),
                _ => close_event(&payload).map(Some),
            };
        }
        let Some(mut message) = self.message.take_if(|_| frame.is_last) else { return Ok(None) };
        if message.compressed {
            let max = policy.max_message.unwrap_or(0);
            let max = usize::try_from(max).unwrap_or(usize::MAX - 1);
            message.data = inflate(&message.data, max).map_err(|error| match error {
                InflateError::TooLarge => TOO_LARGE,
                InflateError::NoMemory => NO_MEMORY,
                InflateError::Invalid => BAD_DEFLATE,
            })?;
            message.compressed = false;
        }
        message.check_text(true)?;
        Ok(Some(Event::Message { binary: message.binary, data: message.data }))
    }
}

impl Message {
    /// Checks that a text is UTF-8 as far as it has come (section 8.1): a bad byte is noticed with its frame.
    fn check_text(&mut self, is_complete: bool) -> Result<(), Violation> {
        if self.binary || self.compressed {
            return Ok(());
        }
        match std::str::from_utf8(self.data.get(self.checked..).unwrap_or_default()) {
            Ok(_) => self.checked = self.data.len(),
            // The beginning of a character, whose rest may come.
            Err(error) if error.error_len().is_none() && !is_complete => {
                self.checked += error.valid_up_to();
            }
            Err(_) => return Err(NO_UTF8),
        }
        Ok(())
    }
}

/// Reads a close frame (section 5.5.1).
fn close_event(payload: &[u8]) -> Result<Event, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(Event::Close { code: None, reason: String::new() }),
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
        _ => return Err(protocol_error("bad close frame")),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol_error("bad close code"));
    }
    let reason = String::from_utf8(reason.to_vec()).map_err(|_| NO_UTF8)?;
    Ok(Event::Close { code: Some(code), reason })
}

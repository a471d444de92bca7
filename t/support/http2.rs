//! Just enough HTTP/2 (RFC 9113) to hold several streams on one connection and to cancel one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::wait;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// A connection in cleartext, with prior knowledge.
pub struct Http2 {
    stream: TcpStream,
    /// Frames of other streams than the one that was asked for.
    kept: VecDeque<Frame>,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The reply on one stream.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamReply {
    /// The stream.
    pub stream: u32,
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Http2 {
    /// Connects and sends the client's preface.
    pub fn connect(port: u16) -> Self {
        Http2::try_connect(port).expect("the server accepts")
    }

    /// Connects and sends the client's preface.
    pub fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(wait::patience()))?;
        let mut connection = Http2 { stream, kept: VecDeque::new() };
        connection.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        connection.try_send_frame(SETTINGS, 0, 0, &[])?;
        Ok(connection)
    }

    /// Sends a GET request on a new stream. Stream numbers are odd and rise.
    pub fn get(&mut self, stream: u32, target: &str) {
        self.get_with(stream, target, &[]);
    }

    /// Sends a GET request with more header fields; their names are in lower case.
    pub fn get_with(&mut self, stream: u32, target: &str, headers: &[(&str, &str)]) {
        self.try_get_with(stream, target, headers).expect("the server reads");
    }

    /// Sends a GET request on a new stream; an error if the server reads no more.
    pub fn try_get_with(
        &mut self,
        stream: u32,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        // Literal fields without indexing: nothing to remember between requests.
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", target),
        ];
        let mut block = Vec::new();
        for (name, value) in fields.iter().chain(headers) {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).ok().filter(|&l| l < 127).expect("short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.try_send_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    }

    /// Cancels a stream.
    pub fn cancel(&mut self, stream: u32) {
        self.send_frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }

    /// Sends a ping and waits for its answer. Panics if a reply comes before.
    pub fn ping(&mut self) {
        self.send_frame(PING, 0, 0, b"are you?");
        loop {
            let frame = self.frame();
            match frame.kind {
                PING if frame.flags & ACK != 0 => return,
                HEADERS | DATA => panic!("a reply on stream {}", frame.stream),
                _ => {}
            }
        }
    }

    /// Reads frames until a stream has ended.
    ///
    /// Only for replies that are not interleaved, which short ones are not.
    pub fn reply(&mut self) -> StreamReply {
        let mut reply: Option<StreamReply> = None;
        loop {
            let frame = self.frame();
            match frame.kind {
                HEADERS => {
                    let status = status(&frame.payload);
                    reply = Some(StreamReply { stream: frame.stream, status, body: Vec::new() });
                }
                DATA => {
                    let reply = reply.as_mut().expect("the head comes first");
                    assert_eq!(reply.stream, frame.stream, "replies are interleaved");
                    reply.body.extend_from_slice(&frame.payload);
                }
                RST_STREAM => panic!("the server reset stream {}", frame.stream),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                return reply.expect("the head comes first");
            }
        }
    }

    /// Reads the head of the reply on a stream: its status. Frames of other streams are kept.
    pub fn status(&mut self, stream: u32) -> u16 {
        self.try_status(stream).expect("a frame")
    }

    /// Reads the head of the reply on a stream; an error if the connection or the stream broke before.
    pub fn try_status(&mut self, stream: u32) -> io::Result<u16> {
        let frame = self.try_frame_of(stream)?;
        if frame.kind == RST_STREAM {
            return Err(ErrorKind::ConnectionReset.into());
        }
        assert_eq!(frame.kind, HEADERS, "the head comes first");
        let status = status(&frame.payload);
        if frame.flags & END_STREAM != 0 {
            self.kept.push_back(Frame { kind: DATA, payload: Vec::new(), ..frame });
        }
        Ok(status)
    }

    /// Reads a piece of the body on a stream; nothing at the end. Frames of other streams are kept.
    pub fn data(&mut self, stream: u32) -> Option<Vec<u8>> {
        self.try_data(stream).unwrap_or_else(|error| panic!("stream {stream} is broken: {error}"))
    }

    /// Reads a piece of the body on a stream; an error if the connection or the stream broke.
    pub fn try_data(&mut self, stream: u32) -> io::Result<Option<Vec<u8>>> {
        loop {
            let frame = self.try_frame_of(stream)?;
            match frame.kind {
                DATA if !frame.payload.is_empty() => {
                    if frame.flags & END_STREAM != 0 {
                        self.kept.push_back(Frame { payload: Vec::new(), ..frame });
                    }
                    return Ok(Some(frame.payload));
                }
                DATA if frame.flags & END_STREAM != 0 => return Ok(None),
                RST_STREAM => return Err(ErrorKind::ConnectionReset.into()),
                _ => {}
            }
        }
    }

    fn try_frame_of(&mut self, stream: u32) -> io::Result<Frame> {
        if let Some(at) = self.kept.iter().position(|frame| frame.stream == stream) {
            return Ok(self.kept.remove(at).expect("it is there"));
        }
        loop {
            let frame = self.try_frame()?;
            if frame.kind == DATA && !frame.payload.is_empty() {
                // Room at once, also for streams that nobody reads now: they share the connection.
                let room = (frame.payload.len() as u32).to_be_bytes();
                self.try_send_frame(WINDOW_UPDATE, 0, 0, &room)?;
                if frame.flags & END_STREAM == 0 {
                    self.try_send_frame(WINDOW_UPDATE, 0, frame.stream, &room)?;
                }
            }
            match frame.kind {
                HEADERS | DATA | RST_STREAM if frame.stream == stream => return Ok(frame),
                HEADERS | DATA | RST_STREAM => self.kept.push_back(frame),
                _ => {}
            }
        }
    }

    fn send_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send_frame(kind, flags, stream, payload).expect("the server reads");
    }

    fn try_send_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }

    fn frame(&mut self) -> Frame {
        self.try_frame().expect("a whole frame")
    }

    fn try_frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.try_send_frame(SETTINGS, ACK, 0, &[])?;
        }
        Ok(frame)
    }
}

/// The status in a header block as nginx writes it: first field, from the static table or as text.
fn status(block: &[u8]) -> u16 {
    const SIZE_UPDATE: std::ops::RangeInclusive<u8> = 0x20..=0x3f;
    let start = block.iter().position(|byte| !SIZE_UPDATE.contains(byte)).expect("a field");
    match &block[start..] {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [0x08 | 0x48, 3, digits @ ..] => {
            let digits = std::str::from_utf8(&digits[..3]).expect("digits");
            digits.parse().expect("a status code")
        }
        other => panic!("not a status: {other:?}"),
    }
}

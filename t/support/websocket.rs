//! A WebSocket client (RFC 6455, 7692) that may send anything, right or wrong, and shows each frame.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::deflate;
use super::http::{Client, Request, Response};

/// A message that goes on in the next frame.
pub const CONTINUATION: u8 = 0;
/// A message of text.
pub const TEXT: u8 = 1;
/// A message of bytes.
pub const BINARY: u8 = 2;
/// The end of the connection.
pub const CLOSE: u8 = 8;
/// A question whether somebody is there.
pub const PING: u8 = 9;
/// The answer.
pub const PONG: u8 = 10;

/// The bit that says that a message is compressed.
pub const RSV1: u8 = 4;

/// Keys of handshakes and what the server makes of them (RFC 6455, 1.3), from `openssl sha1`.
const KEYS: [(&str, &str); 4] = [
    ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ("AAAAAAAAAAAAAAAAAAAAAA==", "ICX+Yqv66kxgM0FcWaLWlFLwTAI="),
    ("/////////////////////w==", "XXpj4jYzLM2yUE0C7TIgMwTQh2g="),
    ("MDEyMzQ1Njc4OWFiY2RlZg==", "BACScCJPNqyz+UBoqMH89VmURoA="),
];

/// How the client wants to begin.
#[derive(Clone, Debug)]
pub struct Handshake {
    target: String,
    key: usize,
    headers: Vec<(String, String)>,
}

impl Handshake {
    /// A plain handshake.
    pub fn to(target: &str) -> Self {
        Handshake { target: target.to_owned(), key: 0, headers: Vec::new() }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Offers subprotocols.
    pub fn protocols(self, names: &str) -> Self {
        self.header("Sec-WebSocket-Protocol", names)
    }

    /// Offers extensions.
    pub fn extensions(self, offers: &str) -> Self {
        self.header("Sec-WebSocket-Extensions", offers)
    }

    /// Takes another of the known keys.
    pub fn key(mut self, number: usize) -> Self {
        self.key = number % KEYS.len();
        self
    }

    /// The request.
    pub fn request(&self) -> Request {
        let request = Request::get(&self.target)
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", KEYS[self.key].0);
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// Opens the connection. Panics unless the server agrees.
    #[track_caller]
    pub fn open(&self, port: u16) -> WebSocket {
        self.open_on(Client::connect(port))
    }

    /// Opens it on a connection. Panics unless the server agrees.
    #[track_caller]
    pub fn open_on(&self, client: Client) -> WebSocket {
        let socket = self.try_open_on(client).expect("a reply");
        self.expect_agreed(&socket.response);
        socket
    }

    /// Sends the handshake and reads the head of the reply, whatever it is.
    pub fn try_open_on(&self, mut client: Client) -> io::Result<WebSocket> {
        client.try_send_bytes(&self.request().to_bytes())?;
        let response = client.try_head()?;
        Ok(WebSocket::new(client, response))
    }

    /// Panics unless the reply is 101 with all that belongs to it.
    #[track_caller]
    pub fn expect_agreed(&self, response: &Response) {
        assert_eq!(response.status, 101, "{}", response.head);
        let header = |name| response.header(name).unwrap_or_default().to_ascii_lowercase();
        assert_eq!(header("Upgrade"), "websocket", "{}", response.head);
        assert_eq!(header("Connection"), "upgrade", "{}", response.head);
        assert_eq!(response.header("Sec-WebSocket-Accept"), Some(KEYS[self.key].1));
        for name in ["Content-Length", "Transfer-Encoding", "Content-Type"] {
            assert_eq!(response.header(name), None, "{}", response.head);
        }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether it is the last of its message.
    pub fin: bool,
    /// The three reserved bits, as a number.
    pub rsv: u8,
    /// What kind of frame.
    pub opcode: u8,
    /// The payload, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame that is a message, or a control frame.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Frame { fin: true, rsv: 0, opcode, payload: payload.into() }
    }

    /// A message of text.
    pub fn text(payload: impl Into<Vec<u8>>) -> Self {
        Frame::new(TEXT, payload)
    }

    /// A message of bytes.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Frame::new(BINARY, payload)
    }

    /// The last part of a message.
    pub fn continuation(payload: impl Into<Vec<u8>>) -> Self {
        Frame::new(CONTINUATION, payload)
    }

    /// A ping.
    pub fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Frame::new(PING, payload)
    }

    /// A pong.
    pub fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Frame::new(PONG, payload)
    }

    /// A close with a code and a reason.
    pub fn close(code: u16, reason: &str) -> Self {
        Frame::new(CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// More frames of the message follow.
    pub fn unfinished(self) -> Self {
        Frame { fin: false, ..self }
    }

    /// With reserved bits.
    pub fn rsv(self, rsv: u8) -> Self {
        Frame { rsv, ..self }
    }

    /// The bytes on the wire, masked unless the mask is left out.
    pub fn to_bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = self.head(mask.is_some(), self.payload.len() as u64);
        match mask {
            None => bytes.extend_from_slice(&self.payload),
            Some(mask) => {
                bytes.extend_from_slice(&mask);
                let start = bytes.len();
                bytes.extend_from_slice(&self.payload);
                apply(mask, &mut bytes[start..]);
            }
        }
        bytes
    }

    /// The first two bytes and the length, which may be another than that of the payload.
    pub fn head(&self, masked: bool, length: u64) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let masked = u8::from(masked) << 7;
        match length {
            0..=125 => bytes.push(masked | length as u8),
            126..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes
    }

    /// The code of a close frame; nothing if it has none.
    #[track_caller]
    pub fn close_code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        match self.payload[..] {
            [] => None,
            [high, low, ..] => Some(u16::from_be_bytes([high, low])),
            [_] => panic!("half a code"),
        }
    }

    /// The reason of a close frame.
    #[track_caller]
    pub fn close_reason(&self) -> &str {
        std::str::from_utf8(self.payload.get(2..).unwrap_or_default()).expect("a reason is UTF-8")
    }
}

/// Masks bytes, eight at a time: the code is not optimised, and some tests send a lot.
fn apply(mask: [u8; 4], bytes: &mut [u8]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("8 bytes")) ^ wide;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The mask of all frames that a test does not mask itself.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Text, or else bytes.
    pub text: bool,
    /// Whether it came compressed.
    pub compressed: bool,
    /// What it says, not compressed any more.
    pub data: Vec<u8>,
}

impl Message {
    /// A text.
    #[track_caller]
    pub fn as_text(&self) -> &str {
        assert!(self.text, "a binary message of {} bytes", self.data.len());
        std::str::from_utf8(&self.data).expect("a text message is UTF-8")
    }

    /// Parts a message of `ws+meta.nchan` into its header lines and the data.
    #[track_caller]
    pub fn meta(&self) -> (Vec<(String, String)>, Vec<u8>) {
        let end = self.data.windows(2).position(|window| window == b"\n\n");
        let end = end.unwrap_or_else(|| panic!("no head in {self:?}"));
        let head = std::str::from_utf8(&self.data[..end]).expect("a head is text");
        let fields = head.lines().map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            (name.to_owned(), value.to_owned())
        });
        (fields.collect(), self.data[end + 2..].to_vec())
    }
}

/// An open connection.
pub struct WebSocket {
    client: Client,
    /// The reply to the handshake.
    pub response: Response,
    window_bits: u8,
}

impl WebSocket {
    /// A connection on which the reply to the handshake was just read.
    pub fn new(client: Client, response: Response) -> Self {
        WebSocket { client, response, window_bits: 15 }
    }

    /// Sets the window that was agreed on: what refers farther back is refused.
    pub fn window_bits(mut self, bits: u8) -> Self {
        self.window_bits = bits;
        self
    }

    /// Sends frames, masked, in one write.
    pub fn send(&mut self, frames: &[Frame]) {
        self.send_bytes(&to_bytes(frames));
    }

    /// Sends a message of text.
    pub fn send_text(&mut self, text: &str) {
        self.send(&[Frame::text(text)]);
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.client.send_bytes(bytes);
    }

    /// The next frame.
    ///
    /// # Errors
    ///
    /// The connection has ended or nothing comes.
    pub fn try_frame(&mut self) -> io::Result<Frame> {
        let head = self.client.try_take(2)?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => {
                let bytes = self.client.try_take(2)?;
                let length = u64::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                assert!(length > 125, "a length longer than needed");
                length
            }
            127 => {
                let bytes = self.client.try_take(8)?;
                let length = u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
                assert!(length > 0xffff, "a length longer than needed");
                length
            }
            short => u64::from(short),
        };
        let payload = self.client.try_take(usize::try_from(length).expect("a length"))?;
        let (fin, rsv, opcode) = (head[0] & 0x80 != 0, head[0] >> 4 & 7, head[0] & 0xf);
        if opcode >= 8 {
            assert!(fin && rsv == 0 && length <= 125, "a control frame with head {head:?}");
        }
        Ok(Frame { fin, rsv, opcode, payload })
    }

    /// The next frame.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        match self.try_frame() {
            Ok(frame) => frame,
            Err(error) => panic!("no frame: {error}"),
        }
    }

    /// The next frame that is not a ping; pings are answered.
    pub fn try_frame_after_pings(&mut self) -> io::Result<Frame> {
        self.try_answer_pings()?;
        self.try_frame()
    }

    /// Answers pings until another frame begins to come, and leaves that one there.
    pub fn try_answer_pings(&mut self) -> io::Result<()> {
        while self.client.try_peek()? & 0xf == PING {
            let ping = self.try_frame()?;
            self.client.try_send_bytes(&to_bytes(&[Frame::pong(ping.payload)]))?;
        }
        Ok(())
    }

    /// The message that begins with this frame; the server may send it in several.
    pub fn try_message_from(&mut self, first: Frame) -> io::Result<Message> {
        let text = match first.opcode {
            TEXT => true,
            BINARY => false,
            _ => panic!("not a message: {first:?}"),
        };
        assert_eq!(first.rsv & !RSV1, 0, "reserved bits: {:b}", first.rsv);
        let compressed = first.rsv == RSV1;
        let (mut fin, mut data) = (first.fin, first.payload);
        while !fin {
            let next = self.try_frame_after_pings()?;
            assert_eq!((next.opcode, next.rsv), (CONTINUATION, 0), "in a message");
            data.extend_from_slice(&next.payload);
            fin = next.fin;
        }
        if compressed {
            data = inflate(&data, self.window_bits);
        }
        Ok(Message { text, compressed, data })
    }

    /// The next message. Pings before it are answered.
    #[track_caller]
    pub fn message(&mut self) -> Message {
        let result = self.try_frame_after_pings().and_then(|frame| self.try_message_from(frame));
        match result {
            Ok(message) => message,
            Err(error) => panic!("no message: {error}"),
        }
    }

    /// Panics unless the next message is this text.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        assert_eq!(self.message().as_text(), text);
    }

    /// Panics unless the next frame is a pong with this payload.
    #[track_caller]
    pub fn expect_pong(&mut self, payload: &[u8]) {
        assert_eq!(self.frame(), Frame::pong(payload));
    }

    /// Panics unless the next frame closes, with this code or with none. Answers as a client
    /// must, and panics unless the server then closes the connection. Returns the reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: Option<u16>) -> String {
        let frame = match self.try_frame_after_pings() {
            Ok(frame) => frame,
            Err(error) => panic!("no close frame: {error}"),
        };
        let reason = frame.payload.get(2..).map(|r| String::from_utf8_lossy(r).into_owned());
        let reason = reason.unwrap_or_default();
        assert_eq!(frame.close_code(), code, "with reason {reason:?}");
        // The server may have closed already.
        let _ = self.client.try_send_bytes(&to_bytes(&[Frame::new(CLOSE, frame.payload)]));
        self.expect_end_of_connection();
        reason
    }

    /// Says goodbye. Panics unless the server does the same and closes the connection.
    #[track_caller]
    pub fn close(&mut self) {
        self.send(&[Frame::close(1000, "")]);
        let frame = self.frame();
        assert_eq!(frame, Frame::close(1000, ""));
        self.expect_end_of_connection();
    }

    /// Panics unless the server closes the connection and sends nothing before.
    #[track_caller]
    pub fn expect_end_of_connection(&mut self) {
        match self.client.try_some() {
            Ok(None) => {}
            // Closed with bytes of ours still on the way.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("the connection does not end: {other:?}"),
        }
    }

    /// The connection.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Gives the connection away, to break it.
    pub fn into_client(self) -> Client {
        self.client
    }
}

/// The bytes of frames, masked.
pub fn to_bytes(frames: &[Frame]) -> Vec<u8> {
    let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_bytes(Some(MASK))).collect();
    frames.concat()
}

/// Compresses a message (RFC 7692, 7.2.1).
pub fn deflate(data: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::default(), false);
    let mut out = Vec::with_capacity(data.len() + data.len() / 100 + 100);
    compress.compress_vec(data, &mut out, FlushCompress::Sync).expect("room for the output");
    assert_eq!(compress.total_in(), data.len() as u64);
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

/// Inflates a message that depends on none before it (RFC 7692, 7.2.2).
///
/// Panics if that takes a larger window than this.
#[track_caller]
pub fn inflate(data: &[u8], window_bits: u8) -> Vec<u8> {
    // The largest window holds all that the format can say.
    if window_bits < 15 {
        let farthest = deflate::farthest(data);
        assert!(farthest <= 1 << window_bits, "{farthest} bytes back, with {window_bits} bits");
    }
    let mut inflate = Decompress::new(false);
    let input = [data, &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::new();
    loop {
        out.reserve(65536);
        let rest = &input[inflate.total_in() as usize..];
        let before = out.len();
        let status = inflate.decompress_vec(rest, &mut out, FlushDecompress::Sync);
        let status = status.unwrap_or_else(|error| panic!("not compressed as agreed: {error}"));
        let all_read = inflate.total_in() as usize == input.len();
        if status == Status::StreamEnd || (all_read && out.len() == before) {
            return out;
        }
        assert!(out.len() > before || !all_read, "the data does not end");
    }
}

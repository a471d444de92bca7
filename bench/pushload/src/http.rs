//! Incremental HTTP/1.1 response parser.
//!
//! Pull style: `next` takes bytes off the front of the input and returns one item at a time.
//! Body data is handed out as slices of the input (no copy); only an incomplete head is carried.

use crate::bytes::{find_byte, has_token, parse_u64, trim, Small};

const MAX_HEAD: usize = 64 * 1024;
const MAX_LINE: u32 = 16 * 1024;

/// How the length of a reply's body is known (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
    /// 101: what follows is not HTTP any more.
    Upgraded,
}

/// What a client needs of a reply's head.
#[derive(Clone, Copy)]
pub struct Head {
    pub status: u16,
    pub body: Body,
    /// The server closes after this response.
    pub close: bool,
    pub event_stream: bool,
    pub last_modified: Small<48>,
    pub etag: Small<160>,
    pub ws_accept: Small<32>,
    /// A kept header did not fit.
    pub oversize: bool,
}

/// What is wrong with a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum HttpError {
    BadStatusLine,
    BadHeader,
    BadLength,
    BadChunk,
    HeadTooLong,
}

// Heads are large, but moved once per response; a box would cost an allocation each.
/// A part of a reply.
#[allow(clippy::large_enum_variant)]
pub enum Item<'a> {
    /// All input is consumed and the current part is not complete.
    NeedMore,
    Head(Head),
    Data(&'a [u8]),
    /// The response is complete; the next bytes are a new head.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    ChunkSize { size: u64, digits: u8, ext: bool },
    ChunkData(u64),
    ChunkEnd,
    Trailer(u32),
    UntilClose,
    Upgraded,
    End,
}

/// Reads replies from any pieces of the stream (RFC 9112).
pub struct HttpParser {
    state: State,
    carry: Vec<u8>,
}

impl Default for HttpParser {
    fn default() -> Self {
        HttpParser { state: State::Head, carry: Vec::new() }
    }
}

impl HttpParser {
    /// Between two responses (nothing of the next one seen).
    pub fn is_idle(&self) -> bool {
        self.state == State::Head && self.carry.is_empty()
    }

    /// True when end of file completes a body without a length.
    pub fn eof_ends_body(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Forgets everything, for a new connection.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.carry = Vec::new();
    }

    /// Takes the next part off `input`.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Item<'a>, HttpError> {
        loop {
            match self.state {
                State::Head => {
                    if input.is_empty() {
                        return Ok(Item::NeedMore);
                    }
                    return self.head(input);
                }
                State::End => {
                    self.state = State::Head;
                    return Ok(Item::End);
                }
                _ if input.is_empty() => return Ok(Item::NeedMore),
                State::Length(left) => {
                    let n = (left.min(input.len() as u64)) as usize;
                    let (d, rest) = input.split_at(n);
                    *input = rest;
                    self.state =
                        if n as u64 == left { State::End } else { State::Length(left - n as u64) };
                    return Ok(Item::Data(d));
                }
                State::UntilClose | State::Upgraded => {
                    let d = *input;
                    *input = &[];
                    return Ok(Item::Data(d));
                }
                State::ChunkSize { size, digits, ext } => {
                    self.chunk_size(input, size, digits, ext)?
                }
                State::ChunkData(left) => {
                    let n = (left.min(input.len() as u64)) as usize;
                    let (d, rest) = input.split_at(n);
                    *input = rest;
                    self.state = if n as u64 == left {
                        State::ChunkEnd
                    } else {
                        State::ChunkData(left - n as u64)
                    };
                    return Ok(Item::Data(d));
                }
                State::ChunkEnd => {
                    let b = input[0];
                    *input = &input[1..];
                    match b {
                        b'\r' => {}
                        b'\n' => self.state = State::ChunkSize { size: 0, digits: 0, ext: false },
                        _ => return Err(HttpError::BadChunk),
                    }
                }
                State::Trailer(len) => {
                    let b = input[0];
                    *input = &input[1..];
                    self.state = match b {
                        b'\n' if len == 0 => State::End,
                        b'\n' => State::Trailer(0),
                        b'\r' => State::Trailer(len),
                        _ if len >= MAX_LINE => return Err(HttpError::BadChunk),
                        _ => State::Trailer(len + 1),
                    };
                }
            }
        }
    }

    fn chunk_size(
        &mut self,
        input: &mut &[u8],
        size: u64,
        digits: u8,
        ext: bool,
    ) -> Result<(), HttpError> {
        let (mut size, mut digits, mut ext) = (size, digits, ext);
        for (i, &b) in input.iter().enumerate() {
            match b {
                b'\n' => {
                    if digits == 0 {
                        return Err(HttpError::BadChunk);
                    }
                    *input = &input[i + 1..];
                    self.state = if size == 0 { State::Trailer(0) } else { State::ChunkData(size) };
                    return Ok(());
                }
                b'\r' => {}
                _ if ext => {}
                b';' | b' ' | b'\t' if digits > 0 => ext = true,
                _ => {
                    let d = match b {
                        b'0'..=b'9' => b - b'0',
                        b'a'..=b'f' => b - b'a' + 10,
                        b'A'..=b'F' => b - b'A' + 10,
                        _ => return Err(HttpError::BadChunk),
                    };
                    if digits >= 15 {
                        return Err(HttpError::BadChunk);
                    }
                    size = size << 4 | d as u64;
                    digits += 1;
                }
            }
        }
        *input = &[];
        self.state = State::ChunkSize { size, digits, ext };
        Ok(())
    }

    fn head<'a>(&mut self, input: &mut &'a [u8]) -> Result<Item<'a>, HttpError> {
        let parsed = if self.carry.is_empty() {
            parse_head(input)?
        } else {
            let had = self.carry.len();
            self.carry.extend_from_slice(input);
            // `had` bytes did not make a head, so a complete one ends in the new bytes.
            parse_head(&self.carry)?.map(|(h, n)| (h, n - had))
        };
        match parsed {
            Some((head, used)) => {
                self.carry = Vec::new();
                *input = &input[used..];
                if (100..200).contains(&head.status) && head.status != 101 {
                    self.state = State::Head; // interim response: the real one follows
                } else {
                    self.state = match head.body {
                        Body::None | Body::Length(0) => State::End,
                        Body::Length(n) => State::Length(n),
                        Body::Chunked => State::ChunkSize { size: 0, digits: 0, ext: false },
                        Body::UntilClose => State::UntilClose,
                        Body::Upgraded => State::Upgraded,
                    };
                }
                Ok(Item::Head(head))
            }
            None => {
                if self.carry.is_empty() {
                    self.carry.extend_from_slice(input);
                }
                if self.carry.len() > MAX_HEAD {
                    return Err(HttpError::HeadTooLong);
                }
                *input = &[];
                Ok(Item::NeedMore)
            }
        }
    }
}

/// Parses a whole head; None when it is not complete. Returns the head and its length in bytes.
fn parse_head(data: &[u8]) -> Result<Option<(Head, usize)>, HttpError> {
    let mut at = 0;
    let Some(line) = take_line(data, &mut at) else {
        return Ok(None);
    };
    // "HTTP/1.1 200 OK"
    if line.len() < 12 || &line[..7] != b"HTTP/1." || line[8] != b' ' {
        return Err(HttpError::BadStatusLine);
    }
    let http10 = line[7] == b'0';
    let status = parse_u64(&line[9..12]).ok_or(HttpError::BadStatusLine)? as u16;
    let mut h = Head {
        status,
        body: Body::UntilClose,
        close: http10,
        event_stream: false,
        last_modified: Small::default(),
        etag: Small::default(),
        ws_accept: Small::default(),
        oversize: false,
    };
    let mut chunked = false;
    let mut length = None;
    loop {
        let Some(line) = take_line(data, &mut at) else {
            return Ok(None);
        };
        if line.is_empty() {
            break;
        }
        let colon = find_byte(line, b':').ok_or(HttpError::BadHeader)?;
        let name = &line[..colon];
        let value = || trim(&line[colon + 1..]);
        match colon {
            4 if name.eq_ignore_ascii_case(b"etag") => h.oversize |= !h.etag.set(value()),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                if has_token(value(), b"close") {
                    h.close = true;
                } else if has_token(value(), b"keep-alive") {
                    h.close = false;
                }
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                let v = value();
                h.event_stream =
                    v.len() >= 17 && v[..17].eq_ignore_ascii_case(b"text/event-stream");
            }
            13 if name.eq_ignore_ascii_case(b"last-modified") => {
                h.oversize |= !h.last_modified.set(value())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                length = Some(parse_u64(value()).ok_or(HttpError::BadLength)?)
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                chunked = has_token(value(), b"chunked")
            }
            20 if name.eq_ignore_ascii_case(b"sec-websocket-accept") => {
                h.oversize |= !h.ws_accept.set(value())
            }
            _ => {}
        }
    }
    h.body = match status {
        101 => Body::Upgraded,
        100..=199 | 204 | 304 => Body::None,
        _ if chunked => Body::Chunked,
        _ => match length {
            Some(n) => Body::Length(n),
            None => Body::UntilClose,
        },
    };
    if h.body == Body::UntilClose {
        h.close = true;
    }
    Ok(Some((h, at)))
}

fn take_line<'a>(data: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &data[*at..];
    let n = find_byte(rest, b'\n')?;
    *at += n + 1;
    let line = &rest[..n];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `wire` through the parser in pieces of `step` bytes and describes the items.
    fn run(wire: &[u8], step: usize) -> Result<String, HttpError> {
        let mut p = HttpParser::default();
        let mut out = String::new();
        let mut body = Vec::new();
        for piece in wire.chunks(step) {
            let mut input = piece;
            loop {
                match p.next(&mut input)? {
                    Item::NeedMore => break,
                    Item::Head(h) => out += &format!("[{} {:?}", h.status, h.body),
                    Item::Data(d) => body.extend_from_slice(d),
                    Item::End => {
                        out += &format!(" {:?}]", String::from_utf8_lossy(&body));
                        body.clear();
                    }
                }
            }
            assert!(input.is_empty());
        }
        if !body.is_empty() || p.eof_ends_body() {
            out += &format!(" {:?}...", String::from_utf8_lossy(&body));
        }
        Ok(out)
    }

    fn all_steps(wire: &[u8], want: &str) {
        for step in 1..=wire.len() {
            assert_eq!(run(wire, step).unwrap(), want, "step {step}");
        }
    }

    #[test]
    fn content_length_keepalive() {
        all_steps(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 201 Created\r\ncontent-length:0\r\n\r\n\
              HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            "[200 Length(5) \"hello\"][201 Length(0) \"\"][200 Length(2) \"ok\"]",
        );
    }

    #[test]
    fn chunked() {
        all_steps(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n 123456789\r\n0\r\n\r\n\
              HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\n\r\n00001 \r\n!\r\n0\r\nTrailer: a\r\nB: c\r\n\r\n",
            "[200 Chunked \"hello 123456789\"][200 Chunked \"!\"]",
        );
    }

    #[test]
    fn no_body_and_close() {
        all_steps(
            b"HTTP/1.1 304 Not Modified\r\nEtag: 1\r\nContent-Length: 10\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
              HTTP/1.1 204 No Content\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil the end",
            "[304 None \"\"][100 None[204 None \"\"][200 UntilClose \"until the end\"...",
        );
    }

    #[test]
    fn upgrade() {
        all_steps(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi",
            "[101 Upgraded \"\u{fffd}\\u{2}hi\"...",
        );
    }

    #[test]
    fn kept_headers() {
        let mut p = HttpParser::default();
        let wire = b"HTTP/1.1 200 OK\r\nLAST-MODIFIED:  Sat, 01 Jan 2022 00:00:00 GMT \r\nETag: \"7:0\"\r\n\
            Connection: keep-alive, Close\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let mut input = &wire[..];
        let Ok(Item::Head(h)) = p.next(&mut input) else { panic!() };
        assert_eq!(h.last_modified.get(), b"Sat, 01 Jan 2022 00:00:00 GMT");
        assert_eq!(h.etag.get(), b"\"7:0\"");
        assert!(h.close && h.event_stream && !h.oversize);
        assert_eq!(h.ws_accept.get(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(p.eof_ends_body());
    }

    #[test]
    fn errors() {
        let bad = |w: &[u8]| run(w, w.len()).unwrap_err();
        assert_eq!(bad(b"SPDY/1.1 200 OK\r\n\r\n"), HttpError::BadStatusLine);
        assert_eq!(bad(b"HTTP/1.1 2x0 OK\r\n\r\n"), HttpError::BadStatusLine);
        assert_eq!(bad(b"HTTP/1.1 200 OK\r\nnocolon\r\n\r\n"), HttpError::BadHeader);
        assert_eq!(bad(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), HttpError::BadLength);
        let c = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(bad(&[&c[..], b"zz\r\n"].concat()), HttpError::BadChunk);
        assert_eq!(bad(&[&c[..], b"\r\n"].concat()), HttpError::BadChunk);
        assert_eq!(bad(&[&c[..], b"1\r\nab\r\n"].concat()), HttpError::BadChunk);
        assert_eq!(bad(&[&c[..], b"1000000000000000\r\n"].concat()), HttpError::BadChunk);
    }

    #[test]
    fn truncation_is_seen() {
        let mut p = HttpParser::default();
        let mut input = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"[..];
        while !matches!(p.next(&mut input).unwrap(), Item::NeedMore) {}
        assert!(!p.is_idle() && !p.eof_ends_body());
        p.reset();
        assert!(p.is_idle());
    }
}

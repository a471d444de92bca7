//! A small HTTP/1.1 client that shows every byte.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::wait;

/// A request to be sent. `Host` is always there; `Content-Length` as soon as there is a body.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            version: "HTTP/1.1",
            headers: Vec::new(),
            body: None,
        }
    }

    /// A GET request.
    pub fn get(target: &str) -> Self {
        Request::new("GET", target)
    }

    /// A POST request with a body.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Request::new("POST", target).body(body)
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Makes it an HTTP/1.0 request.
    pub fn http_1_0(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head =
            format!("{} {} {}\r\nHost: localhost\r\n", self.method, self.target, self.version);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status line and the header fields, as they came, with the empty line at the end.
    pub head: String,
    /// The status code.
    pub status: u16,
    /// The header fields in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, without chunked framing.
    pub body: Vec<u8>,
}

impl Response {
    fn parse_head(head: String) -> Self {
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) =
                    line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Response { status, headers, body: Vec::new(), head }
    }

    /// The status line without the protocol, for example `409 Conflict`.
    pub fn status_text(&self) -> &str {
        let line = self.head.split("\r\n").next().unwrap_or_default();
        line.split_once(' ').map_or("", |(_, text)| text)
    }

    /// The value of a header field that came at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice:\n{}", self.head);
        value
    }

    /// The names of the header fields in lower case, sorted.
    pub fn header_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Everything that came but the `Date`, to compare two replies byte by byte.
    pub fn bytes_without_date(&self) -> (String, &[u8]) {
        let lines: Vec<&str> =
            self.head.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
        (lines.join("\r\n"), &self.body)
    }

    /// Panics unless the status is this one. Returns the reply, to go on with.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        assert_eq!(self.status, status, "the reply was:\n{}{body}", self.head);
        self
    }

    /// Panics unless the reply has `Content-Length: 0` and no body.
    #[track_caller]
    pub fn expect_empty(self) -> Self {
        assert_eq!(self.header("Content-Length"), Some("0"), "the reply was:\n{}", self.head);
        assert!(self.body.is_empty());
        self
    }

    /// Whether a header field that is a list has this member, in any case.
    pub fn has_in_list(&self, name: &str, member: &str) -> bool {
        let fields = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        fields
            .flat_map(|(_, value)| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(member))
    }

    fn closes(&self) -> bool {
        self.has_in_list("Connection", "close")
    }
}

/// A connection to the server.
pub struct Client {
    stream: TcpStream,
    /// Bytes that have come and do not belong to an earlier reply.
    buffer: Vec<u8>,
    /// The server has said that it closes.
    closing: bool,
    /// Every byte that has come on this connection.
    received: u64,
}

impl Client {
    /// Connects to the loopback port.
    pub fn connect(port: u16) -> Self {
        Client::try_connect(port).expect("the server accepts")
    }

    /// Connects to the loopback port.
    pub fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(wait::patience()))?;
        stream.set_write_timeout(Some(wait::patience()))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, buffer: Vec::new(), closing: false, received: 0 })
    }

    /// From now on, sending is an error if the server does not read for so long.
    pub fn give_up_sending_after(&mut self, time: Duration) {
        self.stream.set_write_timeout(Some(time)).expect("a socket");
    }

    /// Sends bytes as they are; an error if the server reads no more.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Another handle of the connection, to send while this one reads.
    pub fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("a file descriptor")
    }

    /// Sends a request.
    pub fn send(&mut self, request: &Request) {
        self.send_bytes(&request.to_bytes());
    }

    /// Sends a request and reads the reply.
    #[track_caller]
    pub fn request(&mut self, request: &Request) -> Response {
        self.send(request);
        match request.method.as_str() {
            "HEAD" => self.head_response(),
            _ => self.response(),
        }
    }

    /// Sends a request and reads the reply; an error if the connection broke before its end.
    pub fn try_request(&mut self, request: &Request) -> io::Result<Response> {
        self.stream.write_all(&request.to_bytes())?;
        self.try_response()
    }

    /// Reads a reply.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        match self.try_response() {
            Ok(response) => response,
            Err(error) => panic!(
                "no reply: {error}; what has come: {:?}",
                String::from_utf8_lossy(&self.buffer)
            ),
        }
    }

    /// Reads a reply; an error if the connection broke before its end.
    pub fn try_response(&mut self) -> io::Result<Response> {
        let mut response = self.try_head()?;
        response.body = match response.status {
            100..=199 | 204 | 304 => Vec::new(),
            _ => self.try_body(&response)?,
        };
        Ok(response)
    }

    /// Reads the reply to a HEAD request.
    pub fn head_response(&mut self) -> Response {
        self.try_head().expect("a reply")
    }

    /// Reads the head of a reply and leaves the body to be read.
    pub fn try_head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = self.take(end);
        let response = Response::parse_head(String::from_utf8_lossy(&head).into_owned());
        self.closing = response.closes();
        Ok(response)
    }

    fn try_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.header("Transfer-Encoding") == Some("chunked") {
            return self.try_chunked();
        }
        match response.header("Content-Length") {
            Some(length) => {
                let length = length.parse().expect("a length is a number");
                self.try_take(length)
            }
            None => loop {
                match self.fill() {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        return Ok(std::mem::take(&mut self.buffer));
                    }
                    Err(error) => return Err(error),
                }
            },
        }
    }

    fn try_chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.try_chunk()? {
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Reads a chunk of a chunked body; nothing if it was the last.
    pub fn try_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line_end = loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            self.fill()?;
        };
        let line = self.take(line_end + 2);
        let size = String::from_utf8_lossy(&line[..line_end]).into_owned();
        let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
        let mut chunk = self.try_take(size + 2)?;
        assert_eq!(chunk.split_off(size), b"\r\n", "the end of a chunk of {size} bytes");
        Ok((size > 0).then_some(chunk))
    }

    /// Reads what has come or comes next, whatever it is; nothing at the end of the connection.
    pub fn try_some(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.try_peek() {
            Ok(_) => Ok(Some(std::mem::take(&mut self.buffer))),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many bytes have come on this connection, all replies and heads together.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Reads exactly so many bytes.
    pub fn try_take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.take(length))
    }

    /// Waits until so many bytes have come that were not taken yet.
    pub fn try_read_ahead(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(())
    }

    /// Waits until at least a byte of the next reply has come, and leaves it there.
    pub fn try_peek(&mut self) -> io::Result<u8> {
        self.try_read_ahead(1)?;
        Ok(self.buffer[0])
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 65536];
        // A machine that was paused interrupts a read that has a time limit.
        let read = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        match read {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            length => {
                self.buffer.extend_from_slice(&chunk[..length]);
                self.received += length as u64;
                Ok(())
            }
        }
    }

    /// Whether the server has said that it closes the connection after the last reply.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Panics unless the server closes the connection without sending another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert!(self.buffer.is_empty(), "bytes after the reply");
        match self.fill() {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("not closed: {error}"),
            Ok(()) => panic!("bytes after the reply: {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// The same, where the server may have closed before it had everything from here, and then resets the connection.
    #[track_caller]
    pub fn expect_closed_or_reset(&mut self) {
        assert!(self.buffer.is_empty(), "bytes after the reply");
        let error = self.fill().expect_err("nothing more comes");
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "not closed: {error}");
    }

    /// Panics if the server has sent anything, or closed.
    #[track_caller]
    pub fn expect_silence(&mut self) {
        assert!(self.buffer.is_empty(), "bytes where silence was expected");
        self.stream.set_nonblocking(true).expect("a socket");
        let result = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) => panic!("the server closed the connection"),
            other => panic!("the server sent something: {other:?}"),
        }
    }

    /// Whether something has come that is not read yet, or the connection has ended.
    pub fn has_bytes(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let result = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        let waits = matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock);
        !self.buffer.is_empty() || !waits
    }

    /// Tells the server that nothing more comes, and goes on reading.
    pub fn finish_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a connected socket");
    }

    /// Ends the connection at once, with a reset instead of an orderly close.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))
            .expect("a socket");
    }

    /// The socket, which stays open as long as this is kept.
    pub fn socket(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Makes the kernel take only so many bytes that the program has not read yet.
    pub fn limit_receive_buffer(&mut self, bytes: usize) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, bytes).expect("a socket");
    }
}

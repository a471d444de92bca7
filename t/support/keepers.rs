//! Subscribers by every transport who keep a record of all that they are told. They lose their connections, read slowly, and
//! go on where they were, often by another transport.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{json, Value};

use super::body::is_timeout;
use super::books::{Entry, Mark, Record};
use super::event_source::{self, Item};
use super::http::{Client, Request, Response};
use super::http2::Http2;
use super::lines::{self, Lines};
use super::random::Random;
use super::streams::{Kind, News};
use super::websocket::{Frame, Handshake, WebSocket, CLOSE, MASK};
use super::{process, wait};

/// The number of the writer whose message ends the first channel; those of others follow.
pub const END: usize = 1000;

/// A way to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Long-poll, a message at a time.
    LongPoll,
    /// Interval-poll.
    IntervalPoll,
    /// Long-poll with all messages in one reply.
    Joined,
    /// JSONP.
    Script,
    /// EventSource.
    EventSource,
    /// JSON lines.
    JsonLines,
    /// WebSocket with ids.
    Meta,
    /// WebSocket whose client says which channels it wants.
    Control,
    /// The forever iframe.
    Iframe,
    /// A part for each message.
    Multipart,
    /// JSONP on streams of HTTP/2.
    Http2Script,
    /// EventSource on HTTP/2.
    Http2EventSource,
    /// The bodies and nothing else.
    Stream,
    /// WebSocket without a subprotocol.
    Bare,
}

/// The ways in which one can go on where another has stopped.
pub const RESUMABLE: [Way; 12] = [
    Way::LongPoll,
    Way::IntervalPoll,
    Way::Joined,
    Way::Script,
    Way::EventSource,
    Way::JsonLines,
    Way::Meta,
    Way::Control,
    Way::Iframe,
    Way::Multipart,
    Way::Http2Script,
    Way::Http2EventSource,
];

/// The locations that all these ways ask, once for each way to park.
pub fn locations(text: &str) -> String {
    let mut all = String::new();
    for park in ["compact", "plain"] {
        for (name, words) in [
            ("any", "push_subscriber long-poll eventsource websocket jsonp multipart;"),
            ("interval", "push_subscriber interval-poll;"),
            ("joined", "push_subscriber long-poll; push_poll_messages joined;"),
            ("stream", "push_subscriber stream;"),
            ("iframe", "push_subscriber iframe;"),
            ("live", "push_subscriber websocket; push_websocket_channels *;"),
        ] {
            all += &format!(
                "location = /{park}/{name} {{ push_park {park}; {words} push_channel_id $arg_id; {text} }}\n"
            );
        }
    }
    all
}

impl Way {
    /// Whether its messages say where to go on.
    pub fn has_ids(self) -> bool {
        !matches!(self, Way::Stream | Way::Bare)
    }

    fn is_http2(self) -> bool {
        matches!(self, Way::Http2Script | Way::Http2EventSource)
    }

    fn location(self) -> &'static str {
        match self {
            Way::IntervalPoll => "interval",
            Way::Joined => "joined",
            Way::JsonLines | Way::Stream => "stream",
            Way::Iframe => "iframe",
            Way::Control => "live",
            _ => "any",
        }
    }
}

/// Where nginx listens, and tunnels to it.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// HTTP/1.1 in cleartext.
    pub plain: u16,
    /// HTTP/1.1 and TLS, if nginx can do that.
    pub tls: Option<u16>,
    /// HTTP/2 and TLS, if nginx can do that.
    pub http2: Option<u16>,
}

/// A subscriber.
#[derive(Debug)]
pub struct Keeper<'a> {
    /// How it subscribes: by one of these, for each connection anew.
    pub ways: Vec<Way>,
    /// To what.
    pub channels: Vec<String>,
    /// Whether it reads slowly.
    pub slow: bool,
    /// Whether it leaves its connections now and then.
    pub restless: bool,
    /// The ports.
    pub ports: Ports,
    /// When this is set, it hurries to the end.
    pub over: &'a AtomicBool,
    /// What it does by chance.
    pub random: Random,
}

/// What a subscriber has when its channels have ended.
#[derive(Debug)]
pub struct Kept {
    /// Its record; one for each channel where the order between them is not promised.
    pub records: Vec<Record>,
    /// How many connections it took.
    pub connections: usize,
}

impl Keeper<'_> {
    /// Follows the channels to their ends.
    ///
    /// Panics if what comes is not what was published, or nothing comes for too long.
    pub fn keep(self) -> Kept {
        let name = format!(
            "{:?} on {}{}",
            self.ways,
            self.channels.join(","),
            match self.slow {
                true => ", slowly",
                false => "",
            }
        );
        let mut pen = Pen {
            name,
            way: self.ways[0],
            cursor: None,
            cursors: HashMap::new(),
            gap: None,
            ended: HashSet::new(),
            entries: Vec::new(),
            by_channel: HashMap::new(),
            last: Instant::now(),
            over: None,
            socket: None,
            keeper: self,
        };
        let mut connections = 0;
        while !pen.is_complete() {
            pen.begin();
            let outcome = pen.connect();
            let socket = pen.socket.take();
            match outcome {
                Err(error) if is_timeout(&error) => pen.fail(socket.as_ref()),
                Err(_) => thread::sleep(Duration::from_millis(5)),
                Ok(()) => {}
            }
            connections += 1;
        }
        pen.finish(connections)
    }
}

/// Whether to go on with a connection.
#[derive(PartialEq, Eq)]
enum Then {
    Read,
    Leave,
}

struct Pen<'a> {
    keeper: Keeper<'a>,
    name: String,
    way: Way,
    /// Behind the last message.
    cursor: Option<String>,
    /// The same for each channel, where there is no order between them.
    cursors: HashMap<String, String>,
    /// Told on this connection since the last message.
    gap: Option<(u64, bool)>,
    ended: HashSet<usize>,
    entries: Vec<Entry>,
    by_channel: HashMap<String, Vec<Entry>>,
    last: Instant,
    /// Since when it knows that it is to come to the end.
    over: Option<Instant>,
    /// The connection, as long as it is not known how it ended.
    socket: Option<TcpStream>,
}

impl Pen<'_> {
    fn who(&self) -> String {
        format!("{} (now {:?}, behind {:?})", self.name, self.way, self.cursor)
    }

    fn is_complete(&self) -> bool {
        self.ended.len() == self.keeper.channels.len()
    }

    fn begin(&mut self) {
        let is_silent = self.last.elapsed() > wait::patience();
        assert!(!is_silent, "{} has got nothing for long", self.who());
        if self.keeper.over.load(Ordering::Relaxed) {
            // Who begins anew each time is never silent.
            let since = self.over.get_or_insert_with(Instant::now).elapsed();
            assert!(since < 3 * wait::patience(), "{} does not come to the end", self.who());
        }
        self.way = self.keeper.random.one_of(&self.keeper.ways);
        self.gap = None;
        if !self.way.has_ids() {
            self.ended.clear();
            if self.entries.last().is_some_and(|last| *last != Entry::Anew) {
                self.entries.push(Entry::Anew);
            }
        }
    }

    /// Nothing has come for long. Tells what the kernel knows: whether the server still has its end, and whether bytes are on
    /// their way.
    fn fail(&self, socket: Option<&TcpStream>) -> ! {
        let ends = socket.map_or(Ok(String::new()), process::tcp_ends).expect("a socket");
        panic!("nothing comes to {}:\n{ends}", self.who());
    }

    fn connect(&mut self) -> io::Result<()> {
        match self.way {
            Way::LongPoll | Way::IntervalPoll | Way::Joined | Way::Script => self.poll(),
            Way::EventSource => self.listen(Kind::EventSource),
            Way::JsonLines => self.listen(Kind::JsonLines),
            Way::Meta => self.listen(Kind::WebSocket),
            Way::Stream => self.listen(Kind::Stream),
            Way::Bare => self.bare(),
            Way::Control => self.control(),
            Way::Iframe => self.iframe(),
            Way::Multipart => self.multipart(),
            Way::Http2Script => self.http2_script(),
            Way::Http2EventSource => self.http2_event_source(),
        }
    }

    fn finish(self, connections: usize) -> Kept {
        let keeper = self.keeper;
        let record =
            |channels: Vec<String>, entries| Record { who: self.name.clone(), channels, entries };
        let records = match self.by_channel.is_empty() {
            true => vec![record(keeper.channels, self.entries)],
            false => {
                let each = self.by_channel.into_iter();
                each.map(|(channel, entries)| record(vec![channel], entries)).collect()
            }
        };
        Kept { records, connections }
    }

    // What it asks for.

    fn port(&mut self) -> u16 {
        let Ports { plain, tls, http2 } = self.keeper.ports;
        match tls {
            _ if self.way.is_http2() => http2.expect("only where there is HTTP/2"),
            Some(tls) if self.keeper.random.chance(20) => tls,
            _ => plain,
        }
    }

    fn client(&mut self) -> io::Result<Client> {
        let mut client = Client::try_connect(self.port())?;
        self.socket = Some(client.socket()?);
        if self.keeper.slow {
            // Not less, or the kernel would send a piece of it with long pauses.
            client.limit_receive_buffer(64 << 10);
        }
        Ok(client)
    }

    fn target(&mut self) -> String {
        let park = self.keeper.random.one_of(&["compact", "plain"]);
        let channels = self.keeper.channels.join(",");
        format!("/{park}/{}?id={channels}", self.way.location())
    }

    /// A request behind the last message, said in one of the ways that there are.
    fn request(&mut self) -> Request {
        let mut target = self.target();
        if self.way == Way::Script {
            target += "&callback=app.take";
        }
        let Some(cursor) = &self.cursor else { return Request::get(&target) };
        match self.keeper.random.below(3) {
            0 => Request::get(&format!("{target}&last_event_id={cursor}")),
            1 => Request::get(&target).header("Last-Event-ID", cursor),
            _ => {
                let (seconds, tag) = cursor.split_once(':').expect("an id");
                let seconds = Duration::from_secs(seconds.parse().expect("a second"));
                let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + seconds);
                Request::get(&target)
                    .header("If-Modified-Since", &date)
                    .header("If-None-Match", tag)
            }
        }
    }

    // What it is told.

    fn note_gap(&mut self, missed: u64, at_least: bool) {
        let (before, more) = self.gap.unwrap_or_default();
        self.gap = Some((before + missed, more || at_least));
    }

    /// Writes the header field down that tells of a gap.
    fn note_header(&mut self, response: &Response) {
        if let Some(value) = response.header("Push-Missed") {
            self.note_missed(value);
        }
    }

    fn note_missed(&mut self, value: &str) {
        let (number, at_least) = match value.strip_suffix(";at-least") {
            Some(number) => (number, true),
            None => (value, false),
        };
        self.note_gap(number.parse().expect("how many were missed"), at_least);
    }

    fn note(&mut self, id: Option<String>, body: &str) -> Then {
        let mark = Mark::of(body);
        self.last = Instant::now();
        self.cursor = id.or(self.cursor.take());
        if let Some((missed, at_least)) = self.gap.take() {
            self.entries.push(Entry::Gap { missed, at_least });
        }
        self.note_mark(mark, None)
    }

    fn note_mark(&mut self, mark: Mark, channel: Option<&str>) -> Then {
        if mark.writer >= END {
            self.ended.insert(mark.writer);
            if self.is_complete() {
                return Then::Leave;
            }
        } else {
            let entries = match channel {
                Some(channel) => self.by_channel.entry(channel.to_owned()).or_default(),
                None => &mut self.entries,
            };
            entries.push(Entry::Message(mark));
        }
        if self.keeper.over.load(Ordering::Relaxed) {
            return Then::Read;
        }
        if self.keeper.slow {
            let pause = self.keeper.random.one_of(&[0, 0, 0, 0, 40, 40, 40, 400]);
            thread::sleep(self.keeper.random.time(pause));
        }
        match self.keeper.restless && self.keeper.random.below(200) == 0 {
            true => Then::Leave,
            false => Then::Read,
        }
    }

    /// Writes down what JSON says, of any format. Panics at what nobody has done.
    fn note_json(&mut self, value: &Value) -> Then {
        if let Some(missed) = value.get("missed") {
            let at_least = value["at_least"].as_bool().expect("whether it may be more");
            self.note_gap(missed.as_u64().expect("how many"), at_least);
            return Then::Read;
        }
        if value.get("end").is_some() {
            return Then::Leave;
        }
        assert_eq!(value.get("left"), None, "{}: nobody has deleted it", self.who());
        if let Some(error) = value.get("error") {
            assert_eq!(error, 503, "{}: {value}", self.who());
            return Then::Leave;
        }
        let data = value["data"].as_str();
        let data = data.unwrap_or_else(|| panic!("{}: not a message: {value}", self.who()));
        let id = value["id"].as_str().expect("an id").to_owned();
        self.note(Some(id), data)
    }

    fn leave(&mut self, client: Client) -> io::Result<()> {
        if self.keeper.random.chance(50) {
            client.reset();
        }
        Ok(())
    }

    /// Panics if the reply is none that there may be. An error for those that say to come back.
    #[track_caller]
    fn check(&self, response: &Response, expected: u16) -> io::Result<()> {
        match response.status {
            status if status == expected => Ok(()),
            // Where a worker leaves or the zone is being replaced.
            304 | 503 => Err(ErrorKind::ConnectionAborted.into()),
            _ => panic!("{} got\n{}", self.who(), response.head),
        }
    }

    // The ways.

    fn poll(&mut self) -> io::Result<()> {
        let mut client = self.client()?;
        loop {
            let request = self.request();
            if self.keeper.restless && self.keeper.random.below(200) == 0 {
                // The reply is lost.
                client.try_send_bytes(&request.to_bytes())?;
                thread::sleep(self.keeper.random.time(30));
                return self.leave(client);
            }
            let response = client.try_request(&request)?;
            let then = match (response.status, self.way) {
                (200, Way::Script) => self.note_script(response.text()),
                (200, _) => self.note_reply(&response),
                (304, Way::IntervalPoll) => {
                    thread::sleep(self.keeper.random.time(30));
                    self.still_patient()
                }
                (304, Way::LongPoll | Way::Joined) => self.still_patient(),
                _ => return self.check(&response, 200),
            };
            if then == Then::Leave {
                return self.leave(client);
            }
            if client.is_closing() {
                return Ok(());
            }
        }
    }

    fn still_patient(&self) -> Then {
        match self.last.elapsed() < wait::patience() {
            true => Then::Read,
            false => Then::Leave,
        }
    }

    fn note_reply(&mut self, response: &Response) -> Then {
        let date = response.header("Last-Modified").expect("a date");
        let time = httpdate::parse_http_date(date).expect("a date");
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let id = format!("{seconds}:{}", response.header("Etag").expect("a tag"));
        self.note_header(response);
        let text = response.text();
        if self.way != Way::Joined {
            return self.note(Some(id), text);
        }
        let mut then = Then::Read;
        for line in text.split_terminator('\n') {
            if self.note(Some(id.clone()), line) == Then::Leave {
                then = Then::Leave;
            }
        }
        then
    }

    fn note_script(&mut self, script: &str) -> Then {
        let array = script.strip_prefix("/**/app.take(").and_then(|rest| rest.strip_suffix(");\n"));
        let array = array.unwrap_or_else(|| panic!("{} got {script:?}", self.who()));
        let array: Value = serde_json::from_str(array).expect("JSON");
        let mut then = Then::Read;
        for value in array.as_array().expect("an array") {
            if self.note_json(value) == Then::Leave {
                then = Then::Leave;
            }
        }
        then
    }

    fn listen(&mut self, kind: Kind) -> io::Result<()> {
        let client = self.client()?;
        let target = self.target();
        let mut listener = kind.try_listen_on(client, &target, self.cursor.as_deref())?;
        self.check(listener.response(), kind.status())?;
        let response = listener.response().clone();
        self.note_header(&response);
        loop {
            let then = match listener.try_next()? {
                News::Message { id, data } => self.note(id, &data),
                News::Gap { missed, at_least } => {
                    self.note_gap(missed, at_least);
                    Then::Read
                }
                News::End(_) => return Ok(()),
                News::Left(channel) => panic!("{}: nobody has deleted {channel}", self.who()),
            };
            if then == Then::Leave {
                return self.leave(listener.into_client());
            }
        }
    }

    fn handshake(&mut self, handshake: Handshake) -> io::Result<WebSocket> {
        let handshake = match self.keeper.random.chance(50) {
            true => handshake.extensions("permessage-deflate"),
            false => handshake,
        };
        let socket = handshake.try_open_on(self.client()?)?;
        self.check(&socket.response, 101)?;
        Ok(socket)
    }

    fn bare(&mut self) -> io::Result<()> {
        let handshake = Handshake::to(&self.target());
        let mut socket = self.handshake(handshake)?;
        loop {
            let frame = socket.try_frame_after_pings()?;
            if frame.opcode == CLOSE {
                return Ok(());
            }
            let message = socket.try_message_from(frame)?;
            if self.note(None, message.as_text()) == Then::Leave {
                return self.leave(socket.into_client());
            }
        }
    }

    /// Begins with a channel where nothing happens and subscribes to those that it wants.
    fn control(&mut self) -> io::Result<()> {
        let channels = self.keeper.channels.clone();
        let park = self.keeper.random.one_of(&["compact", "plain"]);
        let handshake = Handshake::to(&format!("/{park}/live?id=lobby")).protocols("push.json");
        let mut socket = self.handshake(handshake)?;
        for channel in &channels {
            let mut command = json!({"subscribe": channel, "request": channel});
            let after = match channels.len() {
                1 => self.cursor.as_ref(),
                _ => self.cursors.get(channel),
            };
            if let Some(after) = after {
                command["after"] = json!(after);
            }
            let bytes = Frame::text(command.to_string()).to_bytes(Some(MASK));
            socket.client().try_send_bytes(&bytes)?;
        }
        loop {
            let frame = socket.try_frame_after_pings()?;
            if frame.opcode == CLOSE {
                return Ok(());
            }
            let message = socket.try_message_from(frame)?;
            let value = lines::parse(message.as_text());
            let then = match value.get("channel").and_then(Value::as_str) {
                _ if value.get("subscribed").is_some() => Then::Read,
                Some(channel) if channels.len() > 1 => {
                    assert_eq!(self.gap, None, "{} was told of a gap", self.who());
                    self.last = Instant::now();
                    let id = value["id"].as_str().expect("an id").to_owned();
                    self.cursors.insert(channel.to_owned(), id);
                    let mark = Mark::of(value["data"].as_str().expect("text"));
                    self.note_mark(mark, Some(channel))
                }
                _ => self.note_json(&value),
            };
            if then == Then::Leave {
                return self.leave(socket.into_client());
            }
        }
    }

    fn iframe(&mut self) -> io::Result<()> {
        let mut lines = Lines::try_send(self.client()?, &self.request())?;
        self.check(lines.response(), 200)?;
        while let Some(line) = lines.try_next()? {
            let line = String::from_utf8(line).expect("UTF-8");
            let Some(script) = line.strip_prefix("<script>") else { continue };
            let object = script
                .strip_prefix("parent.pushMessage&&parent.pushMessage(")
                .and_then(|rest| rest.strip_suffix(")</script>"));
            let object = object.unwrap_or_else(|| panic!("{} got {line:?}", self.who()));
            if self.note_json(&lines::parse(object)) == Then::Leave {
                return self.leave(lines.into_client());
            }
        }
        Ok(())
    }

    fn multipart(&mut self) -> io::Result<()> {
        let request = self.request().header("Accept", "multipart/mixed");
        let lines = Lines::try_send(self.client()?, &request)?;
        self.check(lines.response(), 200)?;
        let content_type = lines.response().header("Content-Type").unwrap_or_default();
        let (_, boundary) = content_type.split_once("; boundary=").expect("a boundary");
        let delimiter = format!("--{boundary}");
        let mut lines = lines.separated_by(&delimiter);
        while let Some(part) = lines.try_next()? {
            if part.is_empty() {
                // Before the first.
                continue;
            }
            let part = String::from_utf8(part).expect("UTF-8");
            let (head, rest) = part.split_once("\r\n\r\n").expect("a head");
            let body = rest.strip_suffix("\r\n").expect("a line end before the delimiter");
            let field = |name: &str| {
                let mut fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
                fields.find(|(known, _)| *known == name).map(|(_, value)| value)
            };
            if let Some(missed) = field("Push-Missed") {
                self.note_missed(missed);
            }
            if body.is_empty() {
                continue;
            }
            let time = httpdate::parse_http_date(field("Last-Modified").expect("a date"));
            let time = time.expect("a date").duration_since(SystemTime::UNIX_EPOCH);
            let seconds = time.expect("after 1970").as_secs();
            let id = format!("{seconds}:{}", field("Etag").expect("a tag"));
            if self.note(Some(id), body) == Then::Leave {
                return self.leave(lines.into_client());
            }
        }
        Ok(())
    }

    fn http2_script(&mut self) -> io::Result<()> {
        let mut connection = Http2::try_connect(self.port())?;
        for number in 0.. {
            let stream = 2 * number + 1;
            let mut target = self.target() + "&callback=app.take";
            if let Some(cursor) = &self.cursor {
                target += &format!("&last_event_id={cursor}");
            }
            connection.try_get_with(stream, &target, &[])?;
            let status = connection.try_status(stream)?;
            assert_eq!(status, 200, "{}", self.who());
            let mut script = Vec::new();
            while let Some(bytes) = connection.try_data(stream)? {
                script.extend(bytes);
            }
            let script = String::from_utf8(script).expect("UTF-8");
            if self.note_script(&script) == Then::Leave {
                break;
            }
        }
        Ok(())
    }

    fn http2_event_source(&mut self) -> io::Result<()> {
        let mut connection = Http2::try_connect(self.port())?;
        let target = self.target();
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(self.cursor.as_deref().map(|cursor| ("last-event-id", cursor)));
        connection.try_get_with(1, &target, &headers)?;
        match connection.try_status(1)? {
            200 => {}
            304 | 503 => return Err(ErrorKind::ConnectionAborted.into()),
            status => panic!("{} got {status}", self.who()),
        }
        let mut parser = event_source::Parser::default();
        while let Some(bytes) = connection.try_data(1)? {
            parser.feed(&bytes);
            while let Some(item) = parser.next() {
                let Item::Event(event) = item else { continue };
                let then = match event.name.as_str() {
                    "" => self.note(event.id, &event.data),
                    "gap" => self.note_json(&lines::parse(&event.data)),
                    "end" => Then::Leave,
                    other => panic!("{}: {other}", self.who()),
                };
                if then == Then::Leave {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

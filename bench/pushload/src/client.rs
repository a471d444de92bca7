//! One subscriber process: holds many connections in one epoll loop and checks what arrives.

use crate::hist::Hist;
use crate::http::{Head, HttpParser, Item};
use crate::icomet::IcometParser;
use crate::msg::{Codec, Found, StreamScan};
use crate::shared::{Control, Counters, Receipt, Slot, C, CONNECT, EXIT, FINISH, INIT};
use crate::sse::SseParser;
use crate::sys::{self, Epoll, Fd, EPOLLIN, EPOLLOUT};
use crate::template::{UrlTemplate, Values};
use crate::verify::{SeqCheck, Verdict};
use crate::ws::{self, WsParser};
use crate::{bytes, plan::Plan};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::*;

/// How a subscriber gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    LongPoll,
    Sse,
    Ws,
    Chunked,
    IcometStream,
    IcometPoll,
}

impl Kind {
    /// All kinds, by their name on the command line.
    pub const ALL: &'static [(&'static str, Kind)] = &[
        ("longpoll", Kind::LongPoll),
        ("sse", Kind::Sse),
        ("ws", Kind::Ws),
        ("chunked", Kind::Chunked),
        ("icomet-stream", Kind::IcometStream),
        ("icomet-poll", Kind::IcometPoll),
    ];

    /// The kind of this name.
    pub fn parse(s: &str) -> Option<Kind> {
        Kind::ALL.iter().find(|k| k.0 == s).map(|k| k.1)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        Kind::ALL.iter().find(|k| k.1 == self).map_or("", |k| k.0)
    }

    /// One request per message, as opposed to one long response.
    pub fn is_poll(self) -> bool {
        matches!(self, Kind::LongPoll | Kind::IcometPoll)
    }
}

/// What a subscriber process does.
pub struct ClientCfg {
    pub kind: Kind,
    pub url: UrlTemplate,
    /// Extra request header lines, each ending in CRLF.
    pub headers: Vec<u8>,
    pub plan: Plan,
    pub codec: Codec,
    /// This process holds the subscribers first..first+count.
    pub first: u32,
    pub count: u32,
    /// Connections being set up at one time in this process.
    pub window: u32,
    /// New connections per second in this process (0: no limit).
    pub connect_rate: f64,
    /// Connections per source address.
    pub per_ip: u32,
    pub rx_timestamps: bool,
    pub cpu: Option<usize>,
    pub icomet_seq: u64,
    /// A subscriber counts as established once its request is sent, not when a reply head is there.
    pub parked_on_send: bool,
}

const MAX_RETRIES: u8 = 5;
/// Reconnects in a row that brought no reply.
const MAX_BARREN: u8 = 20;
const MAX_IDLE_REPLIES: u32 = 1000;
const RETRY_NS: u64 = 200_000_000;
const IDLE_WAIT_NS: u64 = 20_000_000;
const TS_MASK: u64 = (1 << 48) - 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum St {
    Unopened,
    Connecting,
    Open,
    Dead,
}

enum Payload {
    Stream(StreamScan),
    Sse(SseParser),
    Ws(WsParser),
    Icomet(IcometParser),
}

impl Payload {
    fn new(kind: Kind) -> Payload {
        match kind {
            Kind::LongPoll | Kind::Chunked => Payload::Stream(Default::default()),
            Kind::Sse => Payload::Sse(Default::default()),
            Kind::Ws => Payload::Ws(Default::default()),
            Kind::IcometStream | Kind::IcometPoll => Payload::Icomet(Default::default()),
        }
    }
}

/// What a poller remembers between polls.
#[derive(Default)]
struct PollState {
    last_modified: bytes::Small<48>,
    etag: bytes::Small<160>,
    /// icomet: the next sequence number to ask for.
    seq: u64,
    status: u16,
    messages: u32,
    idle_replies: u32,
    close: bool,
}

struct Conn {
    fd: Fd,
    st: St,
    established: bool,
    retries: u8,
    reconnects: u32,
    barren: u8,
    http: HttpParser,
    payload: Payload,
    check: SeqCheck,
    poll: Option<Box<PollState>>,
    /// Bytes the socket did not take yet.
    pending: Vec<u8>,
}

/// What to do with a connection after a read.
enum After {
    Nothing,
    /// The server closes in an orderly way after a reply: poll again on a new connection.
    Reopen,
    Fail(String),
}

/// Where checked messages go; shared by all connections of the process.
struct Sink {
    plan: Plan,
    cnt: Counters,
    latency: Hist,
    arrival: Hist,
    receipts: &'static [Receipt],
    now: u64,
    arrived: Option<u64>,
    /// Bytes to send on the connection being handled.
    out: Vec<u8>,
}

impl Sink {
    #[inline]
    fn found(&mut self, chan: u32, check: &mut SeqCheck, f: Found) {
        let m = match f {
            Found::Msg(m) => m,
            Found::Corrupt => return self.cnt.inc(C::corrupt),
        };
        self.cnt.inc(C::received);
        let idx = self.plan.index(m.chan, m.seq);
        if m.chan != chan || idx >= self.plan.messages {
            return self.cnt.inc(C::foreign);
        }
        match check.see(m.seq) {
            Verdict::InOrder => {}
            Verdict::Ahead => self.cnt.inc(C::gaps),
            Verdict::Late => self.cnt.inc(C::late),
            Verdict::Duplicate => return self.cnt.inc(C::duplicates),
        }
        self.cnt.inc(C::delivered);
        if idx >= self.plan.warmup {
            self.latency.record(since(self.now, m.ts));
            if let Some(a) = self.arrived {
                self.arrival.record(since(a, m.ts));
            }
        }
        self.receipts[idx as usize].add(self.now);
    }
}

/// `now - ts` where `ts` is cut to 48 bits; 0 if it lies in the future.
#[inline]
fn since(now: u64, ts: u64) -> u64 {
    let d = now.wrapping_sub(ts) & TS_MASK;
    if d > TS_MASK / 2 {
        0
    } else {
        d
    }
}

impl Conn {
    /// Handles received bytes. Anything to send is left in `sink.out`.
    fn input(&mut self, cfg: &ClientCfg, sub: u32, sink: &mut Sink, data: &[u8]) -> After {
        let chan = cfg.plan.channel_of(sub);
        let mut input = data;
        loop {
            let item = match self.http.next(&mut input) {
                Ok(i) => i,
                Err(e) => {
                    sink.cnt.inc(C::protocol_errors);
                    return After::Fail(format!("HTTP: {e:?}"));
                }
            };
            match item {
                Item::NeedMore => return After::Nothing,
                Item::Head(h) => {
                    if let Err(e) = self.head(cfg, sink, &h) {
                        return After::Fail(e);
                    }
                }
                Item::Data(d) => {
                    if let Err(e) = self.body(&cfg.codec, chan, sink, d) {
                        sink.cnt.inc(C::protocol_errors);
                        return After::Fail(e);
                    }
                }
                Item::End => {
                    if !cfg.kind.is_poll() {
                        return After::Fail("the server ended the stream".into());
                    }
                    match self.reply_done(cfg, sub, sink) {
                        After::Nothing => {}
                        other => return other,
                    }
                }
            }
        }
    }

    fn head(&mut self, cfg: &ClientCfg, sink: &mut Sink, h: &Head) -> Result<(), String> {
        if (100..200).contains(&h.status) && h.status != 101 {
            return Ok(());
        }
        sink.cnt.inc(C::responses);
        let ok = match cfg.kind {
            Kind::Ws => h.status == 101,
            Kind::LongPoll => matches!(h.status, 200 | 204 | 304 | 408),
            _ => h.status == 200,
        };
        if !ok {
            sink.cnt.inc(C::http_errors);
            return Err(format!("HTTP status {}", h.status));
        }
        if h.oversize {
            sink.cnt.inc(C::protocol_errors);
            return Err("Last-Modified, ETag or Sec-WebSocket-Accept too long".into());
        }
        if cfg.kind == Kind::Ws && h.ws_accept.get() != ws::ACCEPT {
            sink.cnt.inc(C::protocol_errors);
            return Err("wrong Sec-WebSocket-Accept".into());
        }
        if cfg.kind == Kind::Sse && !h.event_stream {
            sink.cnt.inc(C::protocol_errors);
            return Err("Content-Type is not text/event-stream".into());
        }
        if let Some(p) = &mut self.poll {
            p.status = h.status;
            p.close = h.close;
            p.messages = 0;
            if !h.last_modified.is_empty() {
                p.last_modified = h.last_modified;
            }
            if !h.etag.is_empty() {
                p.etag = h.etag;
            }
        }
        if !cfg.parked_on_send {
            self.set_established(sink);
        }
        Ok(())
    }

    fn set_established(&mut self, sink: &mut Sink) {
        if !self.established {
            self.established = true;
            sink.cnt.inc(C::established);
        }
    }

    fn body(
        &mut self,
        codec: &Codec,
        chan: u32,
        sink: &mut Sink,
        data: &[u8],
    ) -> Result<(), String> {
        let Conn { payload, check, poll, .. } = self;
        let before = sink.cnt.get(C::received);
        let mut result = Ok(());
        match payload {
            Payload::Stream(s) => s.feed(codec, data, |f| sink.found(chan, check, f)),
            Payload::Sse(s) => s.feed(data, |e| {
                if !e.has_id {
                    sink.cnt.inc(C::sse_events_without_id);
                }
                codec.scan_unit(e.data, |f| sink.found(chan, check, f))
            }),
            Payload::Ws(w) => {
                let r = w.feed(data, |op, d| match op {
                    ws::OP_TEXT | ws::OP_BINARY => {
                        codec.scan_unit(d, |f| sink.found(chan, check, f))
                    }
                    ws::OP_PING => {
                        sink.cnt.inc(C::pings);
                        ws::push_client_frame(&mut sink.out, ws::OP_PONG, d);
                    }
                    ws::OP_CLOSE => result = Err(format!("WebSocket close frame {d:?}")),
                    _ => {}
                });
                r.map_err(|e| format!("WebSocket: {e:?}"))?;
            }
            Payload::Icomet(p) => p.feed(data, |o| match o {
                None => sink.cnt.inc(C::corrupt),
                Some(o) => match o.kind {
                    b"data" => {
                        if let Some(p) = poll {
                            p.seq = o.seq + 1;
                        }
                        codec.scan_unit(o.content, |f| sink.found(chan, check, f));
                    }
                    b"next_seq" => {
                        if let Some(p) = poll {
                            p.seq = o.seq;
                        }
                    }
                    b"noop" => {}
                    k => {
                        result = Err(format!(
                            "icomet said {:?} {:?}",
                            String::from_utf8_lossy(k),
                            String::from_utf8_lossy(o.content)
                        ))
                    }
                },
            }),
        }
        if let Some(p) = &mut self.poll {
            p.messages += (sink.cnt.get(C::received) - before) as u32;
        }
        result
    }

    /// A poll's reply is complete: ask again.
    fn reply_done(&mut self, cfg: &ClientCfg, sub: u32, sink: &mut Sink) -> After {
        let cut = match &mut self.payload {
            Payload::Stream(s) => s.finish(&cfg.codec),
            Payload::Icomet(p) => p.finish(),
            _ => false,
        };
        if cut {
            sink.cnt.inc(C::corrupt);
        }
        self.barren = 0;
        let p = self.poll.as_mut().expect("pollers have a poll state");
        if p.messages > 0 {
            p.idle_replies = 0;
        } else {
            p.idle_replies += 1;
            sink.cnt.inc(if p.status == 200 { C::empty_replies } else { C::poll_timeouts });
            if p.idle_replies > MAX_IDLE_REPLIES {
                return After::Fail("too many replies without a message".into());
            }
        }
        if p.close {
            return After::Reopen;
        }
        self.request(cfg, sub, &mut sink.out);
        After::Nothing
    }

    /// Appends the (next) request.
    fn request(&self, cfg: &ClientCfg, sub: u32, out: &mut Vec<u8>) {
        let values = Values {
            chan: cfg.plan.channel_of(sub),
            sub,
            seq: self.poll.as_ref().map_or(cfg.icomet_seq, |p| p.seq),
            msg: b"",
        };
        out.extend_from_slice(b"GET ");
        cfg.url.render(out, values);
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(cfg.url.host.as_bytes());
        out.extend_from_slice(match cfg.kind {
            Kind::Sse => b"\r\nAccept: text/event-stream\r\n" as &[u8],
            Kind::Chunked => b"\r\nTE: chunked\r\n",
            Kind::Ws => b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
            _ => b"\r\n",
        });
        if cfg.kind == Kind::Ws {
            out.extend_from_slice(ws::KEY.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&cfg.headers);
        if let (Kind::LongPoll, Some(p)) = (cfg.kind, &self.poll) {
            if !p.last_modified.is_empty() {
                out.extend_from_slice(b"If-Modified-Since: ");
                out.extend_from_slice(p.last_modified.get());
                out.extend_from_slice(b"\r\n");
            }
            if !p.etag.is_empty() {
                out.extend_from_slice(b"If-None-Match: ");
                out.extend_from_slice(p.etag.get());
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

struct Worker<'a> {
    cfg: &'a ClientCfg,
    slot: &'a Slot,
    ep: Epoll,
    conns: Vec<Conn>,
    sink: Sink,
    buf: Box<[u8]>,
    /// Next connection that was never opened.
    next: usize,
    started: u64,
    /// Failed connects to try again at `retry_at`.
    retry: Vec<usize>,
    retry_at: u64,
    /// CLOCK_REALTIME - CLOCK_MONOTONIC, for arrival times.
    offset: u64,
    offset_at: u64,
}

/// Runs a subscriber process until the coordinator says EXIT.
pub fn run(
    cfg: &ClientCfg,
    ctl: &Control,
    slot: &'static Slot,
    receipts: &'static [Receipt],
) -> i32 {
    sys::raise_nofile();
    slot.pid.store(sys::pid(), Release);
    if let Some(cpu) = cfg.cpu {
        if let Err(e) = sys::pin_to_cpu(cpu) {
            slot.note(&format!("cannot pin to cpu {cpu}: {e}"));
        }
    }
    let ep = match Epoll::new() {
        Ok(e) => e,
        Err(e) => {
            slot.note(&format!("epoll: {e}"));
            return 1;
        }
    };
    let conns = (0..cfg.count)
        .map(|_| Conn {
            fd: -1,
            st: St::Unopened,
            established: false,
            retries: 0,
            reconnects: 0,
            barren: 0,
            http: HttpParser::default(),
            payload: Payload::new(cfg.kind),
            check: SeqCheck::default(),
            poll: cfg
                .kind
                .is_poll()
                .then(|| Box::new(PollState { seq: cfg.icomet_seq, ..Default::default() })),
            pending: Vec::new(),
        })
        .collect();
    let mut w = Worker {
        cfg,
        slot,
        ep,
        conns,
        sink: Sink {
            plan: cfg.plan.clone(),
            cnt: Counters::default(),
            latency: Hist::default(),
            arrival: Hist::default(),
            receipts,
            now: 0,
            arrived: None,
            out: Vec::new(),
        },
        buf: vec![0; 128 * 1024].into_boxed_slice(),
        next: 0,
        started: 0,
        retry: Vec::new(),
        retry_at: 0,
        offset: sys::realtime_offset_ns(),
        offset_at: sys::now_ns(),
    };
    slot.ready.store(1, Release);
    while ctl.phase() == INIT {
        sys::sleep_ms(1);
    }
    w.main_loop(ctl);
    0
}

impl Worker<'_> {
    fn main_loop(&mut self, ctl: &Control) {
        let mut events = sys::events(1024);
        self.started = sys::now_ns();
        let mut tallied = false;
        loop {
            let wait = self.connect_some();
            let n = match self.ep.wait(&mut events, wait) {
                Ok(n) => n,
                Err(e) => {
                    self.slot.note(&format!("epoll_wait: {e}"));
                    return;
                }
            };
            for e in &events[..n] {
                let (ev, i) = (e.events, e.u64 as usize);
                self.event(i, ev);
            }
            if n > 0 {
                self.sink.cnt.publish(self.slot);
            }
            match ctl.phase() {
                FINISH if !tallied => {
                    tallied = true;
                    self.tally();
                }
                EXIT => break,
                _ => {}
            }
        }
        for c in &self.conns {
            if c.fd >= 0 {
                sys::close_reset(c.fd);
            }
        }
    }

    /// Final check of every subscriber; publishes counters and histograms.
    fn tally(&mut self) {
        let plan = &self.cfg.plan;
        for (i, c) in self.conns.iter().enumerate() {
            let sub = self.cfg.first + i as u32;
            let want = plan.messages_of(plan.channel_of(sub));
            self.sink.cnt.add(C::lost, c.check.lost(want));
        }
        self.sink.cnt.publish(self.slot);
        self.sink.latency.store(&self.slot.latency);
        self.sink.arrival.store(&self.slot.arrival);
        self.slot.finished.store(1, Release);
    }

    /// Opens connections as far as window and rate allow; returns how long to wait at most.
    fn connect_some(&mut self) -> u64 {
        if self.next == self.conns.len() && self.retry.is_empty() {
            return IDLE_WAIT_NS;
        }
        let mut wait = IDLE_WAIT_NS;
        let now = sys::now_ns();
        if !self.retry.is_empty() && now >= self.retry_at {
            for i in std::mem::take(&mut self.retry) {
                self.open(i);
            }
        }
        let begun = self.next;
        while self.next < self.conns.len() {
            let settled = self.sink.cnt.get(C::established) + self.sink.cnt.get(C::dead);
            if (self.next as u64).saturating_sub(settled) >= self.cfg.window as u64 {
                break;
            }
            if self.cfg.connect_rate > 0.0 {
                let due = self.started + (self.next as f64 * 1e9 / self.cfg.connect_rate) as u64;
                if due > now {
                    wait = wait.min(due - now).max(200_000);
                    break;
                }
            }
            // Look at the sockets now and then.
            if self.next - begun >= 64 {
                wait = 0;
                break;
            }
            self.open(self.next);
            self.next += 1;
        }
        self.sink.cnt.publish(self.slot);
        wait
    }

    fn source(&self, i: usize) -> Option<Ipv4Addr> {
        let n = (self.cfg.first + i as u32) / self.cfg.per_ip;
        // 127.0.0.2 … 127.0.0.254, 127.0.1.1 …
        let n = n + 1;
        Some(Ipv4Addr::new(127, 0, (n / 254) as u8, (n % 254 + 1) as u8))
    }

    fn open(&mut self, i: usize) {
        let src = self.source(i);
        let c = &mut self.conns[i];
        c.http.reset();
        c.payload = Payload::new(self.cfg.kind);
        c.pending = Vec::new();
        let fd = match sys::tcp_connect(src, self.cfg.url.addr) {
            Ok(fd) => fd,
            Err(e) => return self.open_failed(i, &e.to_string()),
        };
        c.fd = fd;
        c.st = St::Connecting;
        if self.cfg.rx_timestamps {
            if let Err(e) = sys::enable_rx_timestamps(fd) {
                self.slot.note(&format!("SO_TIMESTAMPING: {e}"));
            }
        }
        // On loopback the handshake is normally done by now, so the request can go out at once.
        let sent = self.send_first(i);
        let want = if sent { EPOLLIN } else { EPOLLIN | EPOLLOUT };
        if self.conns[i].fd >= 0 {
            if let Err(e) = self.ep.add(fd, want, i as u64) {
                self.slot.note(&format!("epoll_ctl: {e}"));
                self.fail(i, "epoll_ctl");
            }
        }
    }

    /// True when the request is out; false when the socket is not connected yet.
    fn send_first(&mut self, i: usize) -> bool {
        let sub = self.cfg.first + i as u32;
        self.sink.out.clear();
        self.conns[i].request(self.cfg, sub, &mut self.sink.out);
        let c = &mut self.conns[i];
        match sys::send(c.fd, &self.sink.out) {
            Ok(n) if n == self.sink.out.len() => {}
            Ok(n) => {
                c.pending = self.sink.out[n..].to_vec();
            }
            Err(e) if sys::would_block(&e) => return false,
            Err(e) => {
                self.open_failed(i, &e.to_string());
                return true;
            }
        }
        c.st = St::Open;
        c.retries = 0;
        if c.reconnects == 0 {
            self.sink.cnt.inc(C::connected);
        }
        if self.cfg.parked_on_send {
            c.set_established(&mut self.sink);
        }
        c.pending.is_empty()
    }

    fn open_failed(&mut self, i: usize, why: &str) {
        let c = &mut self.conns[i];
        if c.fd >= 0 {
            sys::close_reset(c.fd);
            c.fd = -1;
        }
        c.retries += 1;
        self.sink.cnt.inc(C::connect_failed);
        if c.retries > MAX_RETRIES {
            let why = format!("connect: {why}");
            return self.fail(i, &why);
        }
        c.st = St::Unopened;
        self.retry.push(i);
        self.retry_at = sys::now_ns() + RETRY_NS;
    }

    /// Gives a connection up.
    fn fail(&mut self, i: usize, why: &str) {
        let c = &mut self.conns[i];
        if c.fd >= 0 {
            sys::close_reset(c.fd);
            c.fd = -1;
        }
        if c.st != St::Dead {
            c.st = St::Dead;
            self.sink.cnt.inc(C::dead);
            let sub = self.cfg.first + i as u32;
            self.slot.note(&format!("subscriber {sub}: {why}"));
        }
        self.sink.cnt.publish(self.slot);
    }

    fn event(&mut self, i: usize, ev: u32) {
        match self.conns[i].st {
            St::Connecting => {
                if let Err(e) = sys::socket_error(self.conns[i].fd) {
                    return self.open_failed(i, &e.to_string());
                }
                if !self.send_first(i) {
                    return;
                }
                let fd = self.conns[i].fd;
                if fd >= 0 {
                    let _ = self.ep.modify(fd, EPOLLIN, i as u64);
                }
            }
            St::Open => {
                if ev & EPOLLOUT != 0 {
                    self.flush_pending(i);
                }
                if ev & !EPOLLOUT != 0 {
                    self.readable(i);
                }
            }
            St::Unopened | St::Dead => {}
        }
    }

    fn flush_pending(&mut self, i: usize) {
        let c = &mut self.conns[i];
        match sys::send(c.fd, &c.pending) {
            Ok(n) => {
                c.pending.drain(..n);
                if c.pending.is_empty() {
                    c.pending = Vec::new();
                    let _ = self.ep.modify(c.fd, EPOLLIN, i as u64);
                }
            }
            Err(e) if sys::would_block(&e) => {}
            Err(e) => self.closed(i, &e.to_string()),
        }
    }

    fn readable(&mut self, i: usize) {
        let sub = self.cfg.first + i as u32;
        loop {
            let fd = self.conns[i].fd;
            let got = if self.cfg.rx_timestamps {
                sys::recv_stamped(fd, &mut self.buf)
            } else {
                sys::recv(fd, &mut self.buf).map(|n| (n, None))
            };
            let (n, arrived) = match got {
                Ok(g) => g,
                Err(e) if sys::would_block(&e) => return,
                Err(e) => return self.closed(i, &e.to_string()),
            };
            if n == 0 {
                return self.closed(i, "closed by the server");
            }
            let sink = &mut self.sink;
            sink.now = sys::now_ns();
            if let Some(a) = arrived {
                if sink.now - self.offset_at > 1_000_000_000 {
                    self.offset = sys::realtime_offset_ns();
                    self.offset_at = sink.now;
                }
                sink.arrived = Some(a.wrapping_sub(self.offset));
            }
            sink.cnt.add(C::bytes_in, n as u64);
            sink.cnt.set(C::last_recv_ns, sink.now);
            sink.out.clear();
            let after = self.conns[i].input(self.cfg, sub, sink, &self.buf[..n]);
            match after {
                After::Nothing => {}
                After::Reopen => return self.reopen(i),
                After::Fail(why) => return self.fail(i, &why),
            }
            if !self.sink.out.is_empty() && !self.send_out(i) {
                return;
            }
            if n < self.buf.len() {
                return;
            }
        }
    }

    /// Sends `sink.out`; false when the connection is gone.
    fn send_out(&mut self, i: usize) -> bool {
        let c = &mut self.conns[i];
        let out = &self.sink.out;
        if !c.pending.is_empty() {
            c.pending.extend_from_slice(out);
            return true;
        }
        let n = match sys::send(c.fd, out) {
            Ok(n) => n,
            Err(e) if sys::would_block(&e) => 0,
            Err(e) => {
                self.closed(i, &e.to_string());
                return false;
            }
        };
        if n < out.len() {
            c.pending = out[n..].to_vec();
            let _ = self.ep.modify(c.fd, EPOLLIN | EPOLLOUT, i as u64);
        }
        true
    }

    /// The connection ended without our doing.
    fn closed(&mut self, i: usize, why: &str) {
        let kind = self.cfg.kind;
        let c = &mut self.conns[i];
        if kind.is_poll() && c.http.eof_ends_body() {
            // The reply had no length: its end is the end of the connection.
            let sub = self.cfg.first + i as u32;
            self.sink.out.clear();
            return match c.reply_done(self.cfg, sub, &mut self.sink) {
                After::Fail(why) => self.fail(i, &why),
                _ => self.reopen(i),
            };
        }
        self.sink.cnt.inc(C::disconnects);
        if kind.is_poll() && c.http.is_idle() {
            // While parked, or after a keep-alive limit: a poller just connects again.
            return self.reopen(i);
        }
        self.fail(i, why)
    }

    fn reopen(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.fd >= 0 {
            sys::close(c.fd);
            c.fd = -1;
        }
        c.reconnects += 1;
        c.barren += 1;
        self.sink.cnt.inc(C::reconnects);
        if c.barren > MAX_BARREN {
            return self.fail(i, "the server closes without a reply again and again");
        }
        self.open(i);
    }
}

// Connections are only opened after INIT.
const _: () = assert!(INIT < CONNECT && CONNECT < FINISH && FINISH < EXIT);

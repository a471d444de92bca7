//! The publishing process: a few keep-alive connections, one request at a time on each.

use crate::bytes::push_u64;
use crate::hist::Hist;
use crate::http::{HttpParser, Item};
use crate::msg::{Codec, Msg};
use crate::plan::Plan;
use crate::shared::{Control, Counters, Receipts, Slot, C, EXIT, FINISH, INIT, RUN};
use crate::sys::{self, Epoll, Fd, EPOLLIN, EPOLLOUT};
use crate::template::{UrlTemplate, Values};
use std::sync::atomic::{AtomicU64, Ordering::*};

/// How a message is published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// POST with the message as body.
    Body,
    /// GET with the message in the URL ({msg}).
    Query,
}

/// What the publishing process does.
pub struct PubCfg {
    pub url: UrlTemplate,
    pub mode: Mode,
    pub headers: Vec<u8>,
    pub plan: Plan,
    pub codec: Codec,
    pub conns: usize,
    /// Messages per second over all channels; 0: as fast as the acknowledgements come.
    pub rate: f64,
    /// At most this many messages not delivered to everyone yet (0: no limit).
    pub window: u64,
    /// Any free connection may publish to any channel (no order kept within a channel).
    pub any_conn: bool,
    /// Stop after this time (0: publish all messages).
    pub duration_ns: u64,
    pub cpu: Option<usize>,
}

struct Conn {
    fd: Fd,
    connecting: bool,
    http: HttpParser,
    busy: bool,
    status: u16,
    close: bool,
    sent_at: u64,
    measured: bool,
    out: Vec<u8>,
    done: usize,
    fails: u32,
}

const MAX_FAILS: u32 = 20;

struct Publisher<'a> {
    cfg: &'a PubCfg,
    slot: &'a Slot,
    receipts: &'a Receipts,
    /// All messages before this one are delivered to everyone (kept for --window).
    complete: u64,
    pub_ts: &'a [AtomicU64],
    ep: Epoll,
    conns: Vec<Conn>,
    cnt: Counters,
    ack: Hist,
    lag: Hist,
    buf: Vec<u8>,
    msg: Vec<u8>,
    next: u64,
    free: Vec<usize>,
    broken: bool,
}

/// Runs the publishing process; `pub_ts` gets each message's time of publishing.
pub fn run(
    cfg: &PubCfg,
    ctl: &Control,
    slot: &'static Slot,
    receipts: &Receipts,
    pub_ts: &'static [AtomicU64],
) -> i32 {
    sys::raise_nofile();
    sys::fine_timers();
    slot.pid.store(sys::pid(), Release);
    if let Some(cpu) = cfg.cpu {
        let _ = sys::pin_to_cpu(cpu);
    }
    let ep = match Epoll::new() {
        Ok(e) => e,
        Err(e) => {
            slot.note(&format!("epoll: {e}"));
            return 1;
        }
    };
    let mut p = Publisher {
        cfg,
        slot,
        receipts,
        complete: 0,
        pub_ts,
        ep,
        conns: (0..cfg.conns)
            .map(|_| Conn {
                fd: -1,
                connecting: false,
                http: HttpParser::default(),
                busy: false,
                status: 0,
                close: false,
                sent_at: 0,
                measured: false,
                out: Vec::new(),
                done: 0,
                fails: 0,
            })
            .collect(),
        cnt: Counters::default(),
        ack: Hist::default(),
        lag: Hist::default(),
        buf: vec![0; 64 * 1024],
        msg: Vec::new(),
        next: 0,
        free: Vec::new(),
        broken: false,
    };
    for i in 0..cfg.conns {
        p.open(i);
    }
    slot.ready.store(1, Release);
    while ctl.phase() < RUN {
        sys::sleep_ms(if ctl.phase() == INIT { 1 } else { 5 });
    }
    p.main_loop(ctl);
    p.cnt.publish(slot);
    p.ack.store(&slot.latency);
    p.lag.store(&slot.arrival);
    slot.finished.store(1, Release);
    while ctl.phase() < EXIT {
        sys::sleep_ms(2);
    }
    for c in &p.conns {
        if c.fd >= 0 {
            sys::close_reset(c.fd);
        }
    }
    0
}

impl Publisher<'_> {
    fn main_loop(&mut self, ctl: &Control) {
        let plan = &self.cfg.plan;
        let mut events = sys::events(256);
        let period = if self.cfg.rate > 0.0 { 1e9 / self.cfg.rate } else { 0.0 };
        let mut t0 = sys::now_ns();
        let mut gone = ctl.go.load(Acquire) != 0;
        self.free = (0..self.conns.len()).rev().collect();
        loop {
            if !gone && ctl.go.load(Acquire) != 0 {
                gone = true;
                t0 = sys::now_ns();
            }
            let limit = if gone { plan.messages } else { plan.warmup };
            let base = if gone { plan.warmup } else { 0 };
            let now = sys::now_ns();
            let over = self.cfg.duration_ns > 0 && gone && now - t0 >= self.cfg.duration_ns;
            let mut wait = if gone { 50_000_000 } else { 500_000 };
            while self.next < limit && !over && !self.broken {
                let due = t0 + ((self.next - base) as f64 * period) as u64;
                let now = sys::now_ns();
                if due > now {
                    wait = due - now;
                    break;
                }
                if !self.window_open() {
                    wait = 250_000;
                    break;
                }
                let Some(i) = self.pick() else { break };
                if self.next == plan.warmup || self.cnt.get(C::first_pub_ns) == 0 {
                    self.cnt.set(C::first_pub_ns, now);
                }
                self.lag.record(if period > 0.0 { now - due } else { 0 });
                self.publish(i);
            }
            let all_acked = self.conns.iter().all(|c| !c.busy);
            self.cnt.publish(self.slot);
            if all_acked && (over || self.broken || (gone && self.next >= plan.messages)) {
                return;
            }
            if ctl.phase() >= FINISH {
                return;
            }
            match self.ep.wait(&mut events, wait) {
                Ok(n) => {
                    for e in &events[..n] {
                        let (i, ev) = (e.u64 as usize, e.events);
                        self.event(i, ev);
                    }
                }
                Err(e) => {
                    self.slot.note(&format!("epoll_wait: {e}"));
                    return;
                }
            }
        }
    }

    fn window_open(&mut self) -> bool {
        if self.cfg.window == 0 {
            return true;
        }
        let plan = &self.cfg.plan;
        while self.complete < self.next {
            let got: u64 = self.receipts.iter().map(|r| r[self.complete as usize].count()).sum();
            if got < plan.subs_of(plan.at(self.complete).0) {
                break;
            }
            self.complete += 1;
        }
        self.next - self.complete < self.cfg.window
    }

    /// A free connection for the next message, if any.
    fn pick(&mut self) -> Option<usize> {
        if self.cfg.any_conn {
            return self.free.pop();
        }
        let (chan, _) = self.cfg.plan.at(self.next);
        let i = chan as usize % self.conns.len();
        (!self.conns[i].busy).then_some(i)
    }

    fn publish(&mut self, i: usize) {
        let cfg = self.cfg;
        let (chan, seq) = cfg.plan.at(self.next);
        let ts = sys::now_ns();
        self.msg.clear();
        cfg.codec.encode(Msg { chan, seq, ts }, &mut self.msg);
        let c = &mut self.conns[i];
        let out = &mut c.out;
        out.clear();
        out.extend_from_slice(match cfg.mode {
            Mode::Body => b"POST ",
            Mode::Query => b"GET ",
        });
        cfg.url.render(out, Values { chan, sub: 0, seq: seq as u64, msg: &self.msg });
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(cfg.url.host.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&cfg.headers);
        if cfg.mode == Mode::Body {
            out.extend_from_slice(b"Content-Type: text/plain\r\nContent-Length: ");
            push_u64(out, self.msg.len() as u64);
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(&self.msg);
        } else {
            out.extend_from_slice(b"\r\n");
        }
        c.done = 0;
        c.busy = true;
        c.sent_at = ts;
        c.measured = self.next >= cfg.plan.warmup;
        if let Some(t) = self.pub_ts.get(self.next as usize) {
            t.store(ts, Release);
        }
        self.next += 1;
        self.cnt.inc(C::published);
        self.cnt.set(C::last_pub_ns, ts);
        if c.fd < 0 {
            self.open(i);
        }
        self.write(i);
    }

    fn open(&mut self, i: usize) {
        let c = &mut self.conns[i];
        c.http.reset();
        match sys::tcp_connect(None, self.cfg.url.addr) {
            Ok(fd) => {
                c.fd = fd;
                c.connecting = true;
                if let Err(e) = self.ep.add(fd, EPOLLIN | EPOLLOUT, i as u64) {
                    self.slot.note(&format!("epoll_ctl: {e}"));
                }
            }
            Err(e) => self.failed(i, &format!("connect: {e}")),
        }
    }

    fn write(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.fd < 0 || c.done >= c.out.len() || !c.busy {
            return;
        }
        match sys::send(c.fd, &c.out[c.done..]) {
            Ok(n) => {
                c.done += n;
                self.cnt.add(C::bytes_out, n as u64);
                if c.done < c.out.len() {
                    let _ = self.ep.modify(c.fd, EPOLLIN | EPOLLOUT, i as u64);
                }
            }
            Err(e) if sys::would_block(&e) => {
                let _ = self.ep.modify(c.fd, EPOLLIN | EPOLLOUT, i as u64);
            }
            Err(e) => self.failed(i, &e.to_string()),
        }
    }

    fn event(&mut self, i: usize, ev: u32) {
        let c = &mut self.conns[i];
        if c.fd < 0 {
            return;
        }
        if c.connecting {
            c.connecting = false;
            if let Err(e) = sys::socket_error(c.fd) {
                return self.failed(i, &format!("connect: {e}"));
            }
        }
        if ev & EPOLLOUT != 0 {
            let _ = self.ep.modify(c.fd, EPOLLIN, i as u64);
            self.write(i);
        }
        if ev & !EPOLLOUT != 0 {
            self.read(i);
        }
    }

    fn read(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.fd < 0 {
            return;
        }
        let n = match sys::recv(c.fd, &mut self.buf) {
            Ok(n) => n,
            Err(e) if sys::would_block(&e) => return,
            Err(e) => return self.failed(i, &e.to_string()),
        };
        if n == 0 {
            if c.busy && c.http.eof_ends_body() {
                c.close = true;
                return self.acked(i);
            }
            if !c.busy {
                // Keep-alive limit or timeout between requests.
                sys::close(c.fd);
                c.fd = -1;
                self.cnt.inc(C::pub_reconnects);
                return;
            }
            return self.failed(i, "closed before the answer");
        }
        let mut input = &self.buf[..n];
        loop {
            match c.http.next(&mut input) {
                Ok(Item::NeedMore) => return,
                Ok(Item::Head(h)) => {
                    c.status = h.status;
                    c.close = h.close;
                }
                Ok(Item::Data(_)) => {}
                Ok(Item::End) if c.status < 200 => {}
                Ok(Item::End) => return self.acked(i),
                Err(e) => return self.failed(i, &format!("HTTP: {e:?}")),
            }
        }
    }

    fn acked(&mut self, i: usize) {
        let now = sys::now_ns();
        let c = &mut self.conns[i];
        if c.measured {
            self.ack.record(now - c.sent_at);
        }
        c.busy = false;
        c.fails = 0;
        self.cnt.inc(C::acked);
        self.cnt.set(C::last_ack_ns, now);
        if !(200..300).contains(&c.status) {
            self.cnt.inc(C::ack_errors);
            self.slot.note(&format!("publish answered with HTTP status {}", c.status));
        }
        if c.close && c.fd >= 0 {
            sys::close(c.fd);
            c.fd = -1;
            self.cnt.inc(C::pub_reconnects);
        }
        self.release(i);
    }

    fn release(&mut self, i: usize) {
        if self.cfg.any_conn {
            self.free.push(i);
        }
    }

    /// The connection broke. A request under way counts as an error and is not repeated.
    fn failed(&mut self, i: usize, why: &str) {
        let c = &mut self.conns[i];
        if c.fd >= 0 {
            sys::close_reset(c.fd);
            c.fd = -1;
        }
        c.connecting = false;
        c.fails += 1;
        self.cnt.inc(C::pub_errors);
        self.slot.note(&format!("publisher: {why}"));
        if c.fails > MAX_FAILS {
            self.broken = true;
        }
        if c.busy {
            c.busy = false;
            self.release(i);
        }
    }
}
